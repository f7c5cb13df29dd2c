"""The MLflow run of a training: opened before it, fed once per epoch, continued after an interruption."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.addresses import hidden, redacted, resolved
from kfloop.core.mlflow_client import mlflow_client
from kfloop.errors import StateError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.core.workspace import Workspace

RUN_FILE = "mlflow_run_id"


class Tracker:
    """One MLflow run.

    Args:
        workspace: Names the loop (the experiment) and the tracking URI.
        work: Folder that remembers the run's id until the training has succeeded.
    """

    def __init__(self, workspace: Workspace, work: Path) -> None:
        self.uri = workspace.mlflow
        with _translated(self.uri):
            self.client = mlflow_client(self.uri)
            self.run_id = self._open(workspace, work / RUN_FILE)

    def _open(self, workspace: Workspace, remembered: Path) -> str:
        """Id of the remembered run when MLflow still knows it, else of a new one."""
        from mlflow.exceptions import MlflowException

        if remembered.is_file():
            run_id = remembered.read_text(encoding="utf-8").strip()
            # An unknown id means that the database was moved away since: then a new run is right.
            with contextlib.suppress(MlflowException):
                self.client.update_run(run_id, status="RUNNING")
                return run_id
        experiment = self.client.get_experiment_by_name(workspace.loop)
        if experiment is None:
            # A server keeps artifacts where its operator said; a database keeps none, so they lie beside the loop.
            served = resolved(self.uri).startswith(("http://", "https://"))
            artifacts = None if served else (workspace.kfloop_dir / "mlartifacts").as_uri()
            try:
                experiment_id = self.client.create_experiment(workspace.loop, artifact_location=artifacts)
            except MlflowException:  # another process may have made it a moment ago
                experiment = self.client.get_experiment_by_name(workspace.loop)
                if experiment is None:
                    raise
                experiment_id = experiment.experiment_id
        else:
            experiment_id = experiment.experiment_id
        run_id = str(self.client.create_run(experiment_id, tags={"kfloop.step": "train"}).info.run_id)
        remembered.write_text(run_id, encoding="utf-8")
        return run_id

    def parameters(self, values: dict[str, Any]) -> None:
        """Log parameters; logging the same ones again after a resume changes nothing."""
        from mlflow.entities import Param

        with _translated(self.uri):
            self.client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in values.items()])

    def tags(self, values: dict[str, Any]) -> None:
        """Note how it is computed; unlike parameters these may be others after a resume."""
        from mlflow.entities import RunTag

        with _translated(self.uri):
            self.client.log_batch(
                self.run_id, tags=[RunTag(f"kfloop.{key}", str(value)) for key, value in values.items()]
            )

    def epoch(self, row: dict[str, Any]) -> None:
        """Log one row of the learning curve."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, row["epoch"]) for key, value in row.items() if key != "epoch"]
        with _translated(self.uri):
            self.client.log_batch(self.run_id, metrics=metrics)

    def numbers(self, values: dict[str, float]) -> None:
        """Log figures of the whole training."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with _translated(self.uri):
            self.client.log_batch(self.run_id, metrics=[Metric(name, value, now, 0) for name, value in values.items()])

    def picture(self, path: Path) -> None:
        """Keep a picture beside the run."""
        with _translated(self.uri):
            self.client.log_artifact(self.run_id, str(path))

    def end(self, status: str) -> None:
        """Close the run as ``FINISHED`` or ``FAILED``."""
        with _translated(self.uri):
            self.client.set_terminated(self.run_id, status=status)


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Say in kfloop's words what is wrong with the tracking store."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DatabaseError

    try:
        yield
    except (DatabaseError, MlflowException) as error:
        reason = hidden(str(getattr(error, "orig", None) or error).splitlines()[0], uri)
        uri = redacted(uri)
        if "database is locked" in str(error):
            raise TransientError(f"MLflow's database '{uri}' is locked: {reason}", hint="try again") from error
        place = uri.removeprefix("sqlite:///")
        if "disk is full" in str(error):
            raise StateError(
                f"no space left for MLflow's database '{place}'", hint="free disk space, run again"
            ) from error
        hint = (
            f"move '{place}' away and run again: MLflow makes a new one, and registered versions are rebuilt from the ledger"
            if place != uri
            else "check that the MLflow server answers and that its database is sound"
        )
        raise StateError(f"MLflow at '{place}' cannot be used: {reason}", hint=hint, uri=uri) from error
