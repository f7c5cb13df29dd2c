"""The KFP shell of ``bless``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def bless(
    workspace: str,
    config_json: str,
    dataset_digest: str,
    model_digest: str,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    blessing: dsl.Output[dsl.Artifact],
) -> str:
    """Try the package on a private, real Triton.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``bless`` of the loop file.
        dataset_digest: Digest of the dataset version.
        model_digest: Digest of the package.
        dataset: Dataset version.
        model: The challenger's package.
        blessing: What the trial showed.

    Returns:
        Digest of the blessing.
    """
    from kfloop.components.bless.blessing import run
    from kfloop.core.execution import execute

    return execute("bless", run, workspace, config_json, blessing, dataset=dataset, model=model)
