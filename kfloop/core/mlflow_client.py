"""MLflow's client, quiet, over a database that is whole or not there at all.

MLflow makes its schema table by table, outside a transaction: a process killed in the middle leaves a file that neither opens nor
migrates. So a new sqlite database is made under another name and appears by rename.
"""

from __future__ import annotations

import logging
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.addresses import resolved
from kfloop.core.execution import prepare_process

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
LOGGERS = ("mlflow", "mlflow.store.db.utils", "alembic")


@lru_cache(maxsize=4)
def mlflow_client(uri: str) -> MlflowClient:
    """Client of the tracking server and registry at ``uri``; a local database is made when it is not there.

    Raises:
        ConfigError: A variable that the URI refers to is not set.
        MlflowException: MLflow cannot use it.
        sqlalchemy.exc.SQLAlchemyError: The database is corrupt.
    """
    prepare_process()  # mlflow reads its switches when it is imported
    from mlflow import MlflowClient

    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    opened = resolved(uri)
    if opened.startswith(SQLITE):
        _create(Path(opened.removeprefix(SQLITE)))
    if opened.startswith(("postgresql://", "postgres://")):  # MLflow would look for a driver that kfloop does not bring
        opened = f"postgresql+psycopg://{opened.partition('://')[2]}"
    return MlflowClient(tracking_uri=opened, registry_uri=opened)


def _create(path: Path) -> None:
    if path.exists():
        return
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        staging = Path(folder) / path.name
        uri = f"{SQLITE}{staging}"
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
        staging.rename(path)
