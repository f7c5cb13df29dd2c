"""The KFP shell of ``ingest``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(workspace: str, config_json: str, dataset: dsl.Output[dsl.Dataset]) -> str:
    """Turn the source into a dataset version. Never cached: a source may change behind its path.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``data`` of the loop file.
        dataset: The dataset version.

    Returns:
        Its digest.
    """
    from kfloop.components.ingest.ingestion import run
    from kfloop.core.execution import execute

    return execute("ingest", run, workspace, config_json, dataset)
