"""Who is compared: packages opened, and refused where they are about something else than the dataset or each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.artifacts import read_report
from kfloop.core.external_client import check_unchanged
from kfloop.core.scoring import PackagedModel
from kfloop.core.signature import MEND
from kfloop.core.store import Store
from kfloop.errors import KfloopError, StateError, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.encoding import Examples
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

LOST_CHAMPION = "bring its package back from a backup, make an earlier version champion (kfloop rollback), or start a new loop under another name"
WITHOUT_CLASSES = ("regression", "forecasting", "anomaly")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A packaged model and the test rows as it reads them.

    Attributes:
        role: ``challenger`` or ``champion``.
        digest: Content digest of the package.
        normal: The label of normal rows, for anomalies.
        model: The package.
        test: The test rows, encoded by the package's own encoder.
    """

    role: str
    digest: str
    normal: str | None
    model: PackagedModel
    test: Examples

    def answer(self) -> NDArray[Any]:
        """The model's answer for each test row.

        Raises:
            TerminalError: It answers in another shape than the task has.
        """
        signature = self.model.signature
        found = self.model.score(self.test)[signature.answer]
        target = self.test.target
        wanted = (len(target), len(signature.labels)) if signature.objective == "classification" else target.shape
        if found.shape != wanted:
            raise TerminalError(
                f"the {self.role} '{self.model.folder.name}' answers with {list(found.shape)} numbers, expected {list(wanted)}",
                hint="a model of your own (train.model) must answer in the shape of its target",
            )
        return found

    def overlap(self) -> int | None:
        """Number of test rows that the model was trained on; null where nobody knows."""
        seen = self.model.train_content()
        return None if seen is None else sum(content in seen for content in self.test.content.tolist())

    def asked(self) -> dict[str, Any] | None:
        """What asking an external model took; null for one that runs here."""
        return self.model.external.cost() if self.model.external else None


def contestant(folder: Path, role: str, version: DatasetVersion) -> Contestant:
    """The package in ``folder``, after a check that it is about this dataset.

    Raises:
        StateError: The package is damaged, or the endpoint of an external model does not give its golden answers any more.
        ServerUnavailable: That endpoint does not answer.
        TerminalError: It takes other rows or knows other classes than the dataset has; no test row can be judged.
    """
    try:
        model = PackagedModel(folder)
        report = _report_of(folder, model.signature.objective)
    except StateError as error:
        if role != "champion":
            raise
        raise StateError(f"the champion cannot be scored: {error.message}", hint=LOST_CHAMPION) from error
    _check_dataset(model, role, version)
    normal = str(report["normal"]) if model.signature.objective == "anomaly" else None
    try:
        test = model.encoder.examples(version, "test", model.signature.objective, normal=normal)
    except KfloopError as error:
        raise TerminalError(
            f"the {role} '{folder.name}' cannot read the test rows: {error.message}", hint=error.hint, role=role
        ) from error
    if not len(test):
        raise TerminalError(
            "the test split has no rows, so nothing can be compared", hint="add examples, or raise data.split.test"
        )
    check_unchanged(model, role)
    return Contestant(role=role, digest=str(report["digest"]), normal=normal, model=model, test=test)


def check_same_task(challenger: Contestant, champion: Contestant) -> None:
    """Refuse a comparison of models that do different things.

    Raises:
        TerminalError: Objective, classes, normal label, channels or horizon differ, or the rows are not the same.
    """
    ours, theirs = challenger.model.signature, champion.model.signature
    told = {
        "objective": (ours.objective, theirs.objective),
        "label of normal rows": (challenger.normal, champion.normal),
        "channels": tuple(getattr(side.model.encoder, "channels", None) for side in (challenger, champion)),
        "shape of an answer": (ours.outputs[0].shape, theirs.outputs[0].shape),
    }
    back = "set data.series back to the champion's" if ours.objective == "forecasting" else "set it back"
    for what, (mine, other) in told.items():
        if mine != other:
            raise TerminalError(
                f"the challenger's {what} is {_words(mine)}, the champion's {_words(other)}: they cannot be compared",
                hint=f"another task is another loop: {back}, or start a new loop under another name",
                expected=_words(other),
                observed=_words(mine),
            )
    if not np.array_equal(challenger.test.ids, champion.test.ids):
        raise TerminalError(
            f"challenger and champion read different test rows: {len(challenger.test)} and {len(champion.test)}, "
            f"{int(np.isin(challenger.test.ids, champion.test.ids).sum())} of them in common",
            hint="windows of the same length give the same rows: set data.series back to the champion's, "
            "or start a new loop under another name",
        )


def champion_digest(incumbent: Path) -> str | None:
    """The champion named by ``incumbent``; null only when it says so itself.

    Raises:
        StateError: It does not say.
    """
    try:
        digest = read_report(incumbent)["champion_digest"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StateError(
            f"'{incumbent}' does not say who is champion ({error!r}), which is not the same as having none",
            hint="run the step 'incumbent' again: kfloop run",
        ) from error
    if digest is not None and not (isinstance(digest, str) and digest):
        raise StateError(
            f"'{incumbent}' names the champion {digest!r}, expected a digest or null", hint="kfloop status"
        )
    return digest


def cause_of(incumbent: Path) -> Any:
    """What ``incumbent`` says this training is for, as it stands there; null where a person asked for it."""
    return read_report(incumbent).get("cause")


def champion_folder(workspace: Workspace, digest: str) -> Path:
    """The champion's package in the store.

    Raises:
        StateError: It is not there.
    """
    store = Store.of(workspace)
    if not store.has("models", digest):
        raise StateError(
            f"the champion '{digest}' is not in the store at '{store.path('models', digest)}'; without it the challenger "
            "cannot be compared",
            hint="bring the store back from a backup, or promote another version with: kfloop rollback",
            digest=digest,
        )
    return store.path("models", digest)


def _check_dataset(model: PackagedModel, role: str, version: DatasetVersion) -> None:
    signature, name = model.signature, model.folder.name
    if signature.modality != version.modality:
        raise TerminalError(
            f"the {role} '{name}' takes {signature.modality} rows, but dataset '{version.digest}' has {version.modality} "
            "rows: they cannot be compared on the same rows",
            hint="start a new loop under another name",
            role=role,
        )
    if version.modality == "image" and signature.objective != "generation":
        expected, observed = list(signature.inputs[0].shape), list(version.image_shape)
        if expected != observed:
            raise TerminalError(
                f"the {role} '{name}' takes images {expected} (height, width, channels), but dataset "
                f"'{version.digest}' has {observed}: they cannot be compared on the same rows",
                hint="set data.image_size and data.channels back to the model's, or start a new loop under another name",
                role=role,
                expected=expected,
                observed=observed,
            )
    if signature.objective not in WITHOUT_CLASSES and model.labels != list(version.labels):
        differing = sorted(set(model.labels) ^ set(version.labels)) or "another order"
        raise TerminalError(
            f"the {role} '{name}' knows {len(model.labels)} classes, dataset '{version.digest}' has "
            f"{len(version.labels)}; they differ in {differing}",
            hint="a changed list of classes is another task: start a new loop under another name",
            role=role,
        )


def _report_of(folder: Path, objective: str) -> dict[str, Any]:
    """The package's own report, with the digest and, for anomalies, the label that is normal."""
    try:
        report = dict(read_report(folder))
    except (OSError, TypeError, ValueError) as error:
        raise StateError(f"the package '{folder}' has no readable report: {error!r}", hint=MEND) from error
    missing = [key for key in ("digest", *(["normal"] if objective == "anomaly" else [])) if not report.get(key)]
    if missing:
        raise StateError(f"the report of the package '{folder}' does not say its {' and '.join(missing)}", hint=MEND)
    return report


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) or "one number" if isinstance(value, list | tuple) else str(value)
