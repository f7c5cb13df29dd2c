"""Triton, embedded and supervised: repository, server, rollout, client, request log."""
