"""KFP shell of check_labels."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check_labels(
    workspace: str,
    config_json: str,
    dataset_digest: str,
    dataset: dsl.Input[dsl.Dataset],
    labels: dsl.Output[dsl.Artifact],
) -> str:
    """Look for wrong labels; returns the digest of the label report. ``dataset_digest`` is there for the cache."""
    from kfloop.components.check_labels.labels import run
    from kfloop.core.execution import execute

    return execute("check_labels", run, workspace, config_json, labels, dataset=dataset)
