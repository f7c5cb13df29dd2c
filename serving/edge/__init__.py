"""The edge: a port for callers that are not trusted, which checks every byte before Triton sees one."""
