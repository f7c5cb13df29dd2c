"""Training in pods of its own: a TrainJob of Kubeflow Trainer v2, attached to or created, followed, and deleted on cancel."""
