"""KFP shell of validate_data."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate_data(
    workspace: str,
    config_json: str,
    dataset_digest: str,
    dataset: dsl.Input[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
) -> str:
    """Judge the dataset version; returns the digest of the report. ``dataset_digest`` is there for the cache."""
    from kfloop.components.validate_data.validation import run
    from kfloop.core.execution import execute

    return execute("validate_data", run, workspace, config_json, validation, dataset=dataset)
