"""The registry against a real MLflow on sqlite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from kfloop.core.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, _translated
from kfloop.errors import StateError
from mlflow_server import mlflow_server
from postgres import PASSWORD, QUOTED, Postgres


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'new' / 'mlflow.db'}"


def test_nothing_is_registered_at_first(uri: str) -> None:
    registry = Registry(uri, "empty")
    assert registry.aliases() == {}
    assert registry.versions() == {}
    assert registry.version_of("a") is None


def test_registering_a_package_twice_gives_one_version(uri: str) -> None:
    registry = Registry(uri, "twice")
    assert registry.register("a", Path("a"), tags={"decision": "hold"}) == 1
    assert registry.register("b", Path("b")) == 2
    assert registry.register("a", Path("a"), tags={"decision": "promote"}) == 1
    assert registry.versions() == {1: "a", 2: "b"}


def test_projection_moves_and_removes_aliases_and_is_idempotent(uri: str) -> None:
    registry = Registry(uri, "aliases")
    registry.register("a", Path("a"))
    registry.register("b", Path("b"))
    registry.project({CHAMPION: 1, CHALLENGER: 2})
    wanted = {CHAMPION: 2, PREVIOUS: 1, CHALLENGER: None}
    assert registry.project(wanted) == [
        "alias champion: 1 -> 2",
        "alias previous: none -> 1",
        "alias challenger: 2 -> none",
    ]
    assert registry.aliases() == {CHAMPION: 2, PREVIOUS: 1}
    assert registry.project(wanted) == []


def test_loops_do_not_see_each_other(uri: str) -> None:
    Registry(uri, "one").register("a", Path("a"))
    assert Registry(uri, "other").version_of("a") is None


def test_alias_of_a_version_that_does_not_exist_is_refused(uri: str) -> None:
    registry = Registry(uri, "refused")
    registry.register("a", Path("a"))
    with pytest.raises(StateError, match="refused"):
        registry.project({CHAMPION: 7})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_takes_packages_of_a_folder_and_of_an_object_store(postgres: Postgres, tmp_path: Path) -> None:
    """A server refuses a bare path as the source of a version: two loops on one server on PostgreSQL."""
    with mlflow_server(tmp_path, postgres.database(), str(tmp_path / "artifacts"), {}) as url:
        for loop in ("one", "two"):
            registry = Registry(url, loop)
            assert registry.register(f"{loop}-a", tmp_path / "a") == 1
            assert registry.register(f"{loop}-b", f"s3://bucket/{loop}/b") == 2
            assert registry.restore(4, f"{loop}-d", tmp_path / "d")
            registry.project({CHAMPION: 2})
        assert Registry(url, "one").versions() == {1: "one-a", 2: "one-b", 3: "", 4: "one-d"}
        assert Registry(url, "two").versions() == {1: "two-a", 2: "two-b", 3: "", 4: "two-d"}
        assert Registry(url, "two").aliases() == {CHAMPION: 2}


def test_a_registry_that_cannot_be_reached_is_told_without_its_password(postgres: Postgres) -> None:
    """What its driver says, asked without MLflow, which tries for minutes."""
    for uri in (postgres.url("nowhere"), postgres.url(password="hunter2hunter2")):
        engine = create_engine(uri.replace("postgresql:", "postgresql+psycopg:"))
        with pytest.raises(StateError, match="cannot be used") as caught, _translated(uri):
            engine.connect()
        said = json.dumps(caught.value.as_dict()) + str(caught.value)
        assert QUOTED not in said
        assert PASSWORD not in said
        assert "hunter2" not in said
        assert "does its server answer" in caught.value.hint


def test_corrupt_registry_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(StateError, match=r"mlflow\.db") as caught:
        Registry(f"sqlite:///{path}", "m").aliases()
    assert "put the file aside" in caught.value.hint
