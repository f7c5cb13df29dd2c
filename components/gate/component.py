"""The KFP shell of ``gate``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    workspace: str,
    config_json: str,
    validation_digest: str,
    labels_digest: str,
    evaluation_digest: str,
    blessing_digest: str,
    validation: dsl.Input[dsl.Artifact],
    labels: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    blessing: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
) -> str:
    """Decide about the challenger.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``gate`` of the loop file.
        validation_digest: Digest of the validation report.
        labels_digest: Digest of the label report.
        evaluation_digest: Digest of the evaluation.
        blessing_digest: Digest of the blessing.
        validation: Validation report.
        labels: Label report.
        evaluation: Evaluation.
        blessing: Blessing.
        decision: The decision with its verdicts.

    Returns:
        ``promote``, ``reject`` or ``hold``.
    """
    from kfloop.components.gate.deciding import run
    from kfloop.core.execution import execute

    return execute(
        "gate",
        run,
        workspace,
        config_json,
        decision,
        validation=validation,
        labels=labels,
        evaluation=evaluation,
        blessing=blessing,
    )
