"""The DAGs of the loop and the engine that runs them locally."""
