"""The package of a model that somebody else serves: no graph, but golden answers and a reference that its endpoint gave."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.package.packaging import PackageReport, origin_of, save_arrays, write_reference
from kfloop.components.package.proving import GOLDEN_ROWS, Parity, classes_first
from kfloop.components.package.reviewing import check_review, review_of
from kfloop.components.package.variants import check_variants
from kfloop.core.artifacts import folder_digest, write_report
from kfloop.core.external import ADAPTER
from kfloop.core.external_client import GOLDEN_TOLERANCE, ExternalSession
from kfloop.core.scoring import (
    ENCODER,
    EXTERNAL,
    GOLDEN,
    TRAIN_CONTENT,
    PackagedModel,
    difference,
    read_encoder,
    unit_of,
)
from kfloop.core.signature import OUTPUTS, Port, Signature, write_signature
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.sections import PackageConfig
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

    Outputs = dict[str, NDArray[Any]]
FAMILY = "external"


def package_external(
    config: PackageConfig, version: DatasetVersion, checkpoint: Path, out: Path, workspace: Workspace
) -> PackageReport:
    """Ask the endpoint, and write the package.

    Args:
        config: Section ``package``; the tolerance is that of golden answers (an endpoint computes on hardware of its own).
        version: Dataset version.
        checkpoint: Output of ``train``: the description and the encoder.
        out: Empty folder for the package.
        workspace: The loop's places; of its folder the git revision is told.

    Raises:
        ConfigError: ``review`` or ``variants`` does not fit what the model tells.
        TerminalError: The endpoint refuses, answers what cannot be scored, or answers the same rows differently.
        ServerUnavailable: It does not answer.
    """
    for name in (EXTERNAL, ENCODER, ADAPTER, TRAIN_CONTENT):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, out / name)
    told = json.loads((out / EXTERNAL).read_text(encoding="utf-8"))
    check_review(config.review, told["objective"])
    check_variants(config, told["objective"], batched=True, external=True)
    session, encoder = ExternalSession(out), read_encoder(out)
    examples = encoder.examples(version, "test", told["objective"])
    golden = examples.batch_inputs(classes_first(examples)[: min(GOLDEN_ROWS, config.max_batch_size)])[0]
    port, names = encoder.ports[0], OUTPUTS[told["objective"]]

    def ask(rows: NDArray[Any]) -> Outputs:
        return dict(zip(names, session.run(names, {port.name: rows}), strict=True))

    answers = ask(golden)
    parity = _asked_again(answers, [ask(golden[row : row + 1]) for row in range(len(golden))], told["url"])
    signature = Signature(
        objective=told["objective"],
        modality=version.modality,
        family=FAMILY,
        inputs=encoder.ports,
        outputs=tuple(Port(name=name, dtype="float32", shape=answers[name].shape[1:]) for name in names),
        labels=tuple(version.labels),
        max_batch_size=config.max_batch_size,
    )
    write_signature(out, signature)
    save_arrays(
        out / GOLDEN, {f"input.{port.name}": golden} | {f"output.{name}": array for name, array in answers.items()}
    )
    model = PackagedModel(out)
    n_reference = write_reference(model, version, None)
    review = review_of(config.review, model, version)
    asked = _together(session, model.external)
    report = PackageReport(
        digest=folder_digest(out),
        family=FAMILY,
        objective=told["objective"],
        modality=version.modality,
        checkpoint_digest=folder_digest(checkpoint),
        dataset_digest=version.digest,
        parity=parity,
        max_abs_diff=max(row.max_abs_diff for row in parity),
        tolerance=GOLDEN_TOLERANCE,
        opset=0,
        bytes={path.name: path.stat().st_size for path in sorted(out.iterdir())},
        n_reference=n_reference,
        n_train=0,
        review=review.plain() if review else None,
        **origin_of(out, workspace),
        external=asked,
    )
    write_report(out, asdict(report))
    return report


def _asked_again(answers: Outputs, singles: list[Outputs], url: str) -> list[Parity]:
    """The same rows in one call and one by one: an endpoint that answers otherwise cannot be held to its golden answers.

    Raises:
        TerminalError: It does.
    """
    rows = []
    for name, expected in answers.items():
        again = np.concatenate([single[name] for single in singles])
        worst = difference(expected, again, unit_of(name, expected))
        rows.append(Parity(output=name, batch_size=1, max_abs_diff=worst))
        if not worst <= GOLDEN_TOLERANCE:
            raise TerminalError(
                f"{url} answers the same {len(expected)} rows differently when it is asked again, one by one: '{name}' differs by {worst:.3g}, "
                f"allowed are {GOLDEN_TOLERANCE:g}",
                hint="a model that draws random numbers, or whose answers depend on their neighbours in a batch, cannot be held to golden answers: "
                "ask for fixed answers (temperature 0, a seed), or set train.external.batch: 1",
                output=name,
                difference=worst if np.isfinite(worst) else None,
            )
    return rows


def _together(first: ExternalSession, second: ExternalSession | None) -> dict[str, Any]:
    """What both sessions of a packaging took."""
    if second is not None:
        caller = second.remote.caller
        first.remote.caller.seconds += caller.seconds
        first.remote.caller.retries += caller.retries
        first.remote.rows += second.remote.rows
    return first.cost()
