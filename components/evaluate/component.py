"""KFP shell of ``evaluate``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    workspace: str,
    config_json: str,
    dataset_digest: str,
    model_digest: str,
    champion_digest: str,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    incumbent: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
) -> str:
    """Score challenger, champion and baseline on the same test rows.

    Args:
        workspace: The loop's places, as JSON.
        config_json: Section ``evaluate`` of the loop file.
        dataset_digest: Digest of the dataset version, for cache correctness.
        model_digest: Digest of the challenger, for cache correctness.
        champion_digest: What ``incumbent`` returned (champion, and cause of the training), for cache correctness.
        dataset: Dataset version.
        model: The challenger's package.
        incumbent: Who is champion, resolved from the ledger, and what the training is for.
        evaluation: Metrics, differences, slices, overlap.

    Returns:
        Digest of the evaluation folder.
    """
    from kfloop.components.evaluate.evaluation import run
    from kfloop.core.execution import execute

    return execute(
        "evaluate", run, workspace, config_json, evaluation, dataset=dataset, model=model, incumbent=incumbent
    )
