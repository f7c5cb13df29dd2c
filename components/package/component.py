"""KFP shell of ``package``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def package(
    workspace: str,
    config_json: str,
    dataset_digest: str,
    checkpoint_digest: str,
    dataset: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
) -> str:
    """Export the checkpoint to ONNX and prove that it answers like torch.

    Args:
        workspace: The loop's places, as JSON.
        config_json: Section ``package`` of the loop file.
        dataset_digest: Digest of the dataset version, for cache correctness.
        checkpoint_digest: Digest of the checkpoint, for cache correctness.
        dataset: Dataset version.
        checkpoint: Checkpoint of ``train``.
        model: The package.

    Returns:
        Content digest of the package.
    """
    from kfloop.components.package.packaging import run
    from kfloop.core.execution import execute

    return execute("package", run, workspace, config_json, model, dataset=dataset, checkpoint=checkpoint)
