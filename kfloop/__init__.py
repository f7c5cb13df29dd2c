"""kfloop: a closed MLOps loop for deep-learning models, on a laptop and on Kubeflow, from one definition."""

__version__ = "0.1.0"
