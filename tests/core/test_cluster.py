"""Section ``cluster``: strict, clear about what is wrong, and never a place for a secret."""

from pathlib import Path

import pytest

from kfloop.core.cluster import CLUSTER_STEPS, ClusterConfig
from kfloop.core.config import STEP_SECTIONS, load_config
from kfloop.errors import ConfigError

SECRET = "hunter2"


def cluster(folder: Path, text: str) -> ClusterConfig:
    path = folder / "loop.yaml"
    path.write_text(f"name: x\ncluster: {text}\n", encoding="utf-8")
    return load_config(path).cluster


def test_every_key_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("name: x\n", encoding="utf-8")
    assert load_config(path).cluster == ClusterConfig()


def test_it_knows_every_step() -> None:
    assert set(CLUSTER_STEPS) == {*STEP_SECTIONS, "stand_by", "submit_training"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "'cluster' is 3"),
        ("{rot: /x}", "unknown key 'cluster.rot'"),
        ("{root: here}", "'cluster.root' is 'here'"),
        ("{root: /}", "'cluster.root' is '/'"),
        ("{namespace: My Team}", "'cluster.namespace' is 'My Team'"),
        ("{endpoint: kfp.example.org}", "'kfp.example.org': expected http://HOST or https://HOST"),
        ("{retrain: never}", "'cluster.retrain' is 'never'"),
        ("{inner_endpoint: ml-pipeline}", "'ml-pipeline': expected http://HOST"),
        ("{resources: {trian: {cpu: '4'}}}", "no step is called 'trian' (did you mean 'train'?)"),
        ("{resources: {train: {cpus: '4'}}}", "unknown key 'cluster.resources.train.cpus'"),
        ("{resources: {train: {cpu: lots}}}", "'cluster.resources.train.cpu' is 'lots'"),
        ("{resources: {train: {cpu: '0'}}}", "'cluster.resources.train.cpu' is '0'"),
        ("{resources: {train: {memory: 4GB}}}", "'cluster.resources.train.memory' is '4GB'"),
        ("{resources: {train: {memory: 0Gi}}}", "'cluster.resources.train.memory' is '0Gi'"),
        ("{resources: {train: {gpus: -1}}}", "'cluster.resources.train.gpus' is -1"),
        ("{resources: {train: {gpu_type: H200}}}", "'cluster.resources.train.gpu_type' is 'H200'"),
        ("{resources: {train: {timeout_minutes: 0}}}", "'cluster.resources.train.timeout_minutes' is 0"),
        ("{resources: [1]}", "'cluster.resources' is [1]"),
        ("{tolerations: [{key: a}]}", "operator Equal needs key and value"),
        ("{tolerations: [{key: a, operator: Exists, value: b}]}", "operator Exists takes no value, but value is 'b'"),
        ("{tolerations: [{operator: Exists, steps: [trian]}]}", "no step is called 'trian'"),
        ("{labels: {team: a b}}", "'cluster.labels.team' is 'a b'"),
        ("{labels: {kfloop.io/step: mine}}", "'kfloop.io/step' is kfloop's own"),
        ("{node_selector: {-: b}}", "'cluster.node_selector.-"),
        ("{ttl_hours: .nan}", "'cluster.ttl_hours' is nan"),
        ("{ttl_hours: 0}", "'cluster.ttl_hours' is 0"),
        ("{deadline_hours: .inf}", "'cluster.deadline_hours' is inf"),
        ("{image: me/mine:latest}", "'me/mine:latest': expected an image by digest"),
        ("{state: '${STATE'}", "'${STATE': expected ${NAME} of an environment variable"),
        ("{secrets: {a: {}}}", "secret 'a' names no variable"),
        ("{secrets: {a: {T: x}, b: {T: y}}}", "variable 'T' comes from secret 'a' and from 'b'"),
        ("{secrets: {a: {KFLOOP_RUN_ID: x}}}", "variable 'KFLOOP_RUN_ID' is kfloop's own"),
        ("{auth: {kind: token}}", "kind token needs env or file"),
        ("{auth: {kind: token, env: T, file: t}}", "give env or file, not both"),
        ("{auth: {env: T}}", "not for kind none"),
        ("{auth: {kind: service_account, env: T}}", "not for kind service_account"),
    ],
)
def test_garbage_is_refused_with_a_message_that_quotes_it(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cluster(tmp_path, text)
    assert message in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        f"{{endpoint: 'https://ann:{SECRET}@kfp.example.org'}}",
        f"{{endpoint: 'https://kfp.example.org/?token={SECRET}'}}",
        f"{{state: 'postgresql://ann:{SECRET}@db/kfloop'}}",
        f"{{state: 'postgresql://db/kfloop?password={SECRET}'}}",
        f"{{mlflow: 'https://ann:{SECRET}@mlflow.example.org'}}",
        f"{{store: 's3://key:{SECRET}@bucket/kfloop'}}",
        f"{{requests: 's3://key:{SECRET}@bucket/kfloop'}}",
        f"{{auth: {{kind: token, env: {SECRET}}}}}",
        f"{{auth: {{kind: token, env: {{a: {SECRET}}}}}}}",
        f"{{secrets: {{kfloop-state: {{URL: 'postgresql://ann:{SECRET}@db/kfloop'}}}}}}",
    ],
)
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cluster(tmp_path, text)
    assert "not shown" in caught.value.message
    assert SECRET not in f"{caught.value.message} {caught.value.hint} {caught.value.data}"


def test_a_reference_to_a_secret_is_fine(tmp_path: Path) -> None:
    told = cluster(
        tmp_path,
        "{state: 'postgresql+psycopg://kfloop:${DB_PASSWORD}@db/kfloop', store: 's3://bucket/kfloop', mlflow: '${MLFLOW}', "
        "secrets: {db: {DB_PASSWORD: password}}, auth: {kind: token, env: KFP_TOKEN}, endpoint: 'https://kfp.example.org/'}",
    )
    assert told.state == "postgresql+psycopg://kfloop:${DB_PASSWORD}@db/kfloop"
    assert told.endpoint == "https://kfp.example.org"
