"""KFP shell of ``train``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    workspace: str,
    config_json: str,
    dataset_digest: str,
    labels_digest: str,
    dataset: dsl.Input[dsl.Dataset],
    labels: dsl.Input[dsl.Artifact],
    checkpoint: dsl.Output[dsl.Model],
) -> str:
    """Train the challenger; returns the digest of the checkpoint folder.

    Args:
        workspace: The loop's places, as JSON.
        config_json: Section ``train`` of the loop file.
        dataset_digest: Digest of the dataset version, for cache correctness.
        labels_digest: Digest of the label check, for cache correctness.
        dataset: Dataset version.
        labels: Label check.
        checkpoint: Checkpoint, learning curve and content list.

    Returns:
        Digest of the checkpoint folder.
    """
    from kfloop.components.train.training import run
    from kfloop.core.execution import execute

    return execute("train", run, workspace, config_json, checkpoint, dataset=dataset, labels=labels)
