"""A killed first use of MLflow leaves no half-made database."""

import subprocess
import sys
import time
from pathlib import Path

from kfloop.core.mlflow_client import mlflow_client


def test_a_kill_while_the_database_is_made_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    code = f"from kfloop.core.mlflow_client import mlflow_client\nmlflow_client('sqlite:///{path}')"
    maker = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".mlflow-*/mlflow.db")) and time.monotonic() < deadline:
        time.sleep(0.01)
    maker.kill()
    maker.wait()
    assert not path.exists()
    client = mlflow_client(f"sqlite:///{path}")
    client.create_registered_model("m")
    assert path.is_file()
    assert [model.name for model in client.search_registered_models()] == ["m"]
