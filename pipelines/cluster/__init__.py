"""The cluster engine: the same pipelines compiled for Kubeflow Pipelines, submitted, followed and scheduled there."""
