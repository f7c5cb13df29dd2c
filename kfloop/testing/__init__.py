"""Test kit: run one KFP component in-process, with real artifacts in and out."""

from kfloop.testing.harness import ComponentRun, Harness

__all__ = ["ComponentRun", "Harness"]
