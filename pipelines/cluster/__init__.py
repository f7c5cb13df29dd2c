"""The cluster engine: pipelines compiled for, submitted to and scheduled on Kubeflow Pipelines."""
