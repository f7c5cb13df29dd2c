"""What the manifests carry with them: copies of rules and dashboard, loop files, the script that places them, the Secrets for trying out."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from kfloop.components.deploy.targets.kserve import manifest
from kfloop.core.config import LoopConfig, load_config
from kfloop.core.sections import TargetConfig
from manifest_policy import EXTERNAL_SECRETS
from manifests import INFRA, KUBECTL, NO_KUBECTL, built

LOOP_FILES = sorted(INFRA.glob("overlays/*/loop.yaml"))
PLACE_LOOP = INFRA / "base" / "loop" / "place_loop.py"
SECTION = pytest.mark.skipif("cluster" not in LoopConfig.model_fields, reason="this kfloop has no section cluster")


def test_rules_and_dashboard_are_those_of_kfloop_metrics() -> None:
    spec = importlib.util.spec_from_file_location("generate", INFRA / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    written = generate.generated()
    assert len(written) == 3
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: python infra/generate.py"
    rule = yaml.safe_load((INFRA / "components" / "prometheus-operator" / "kfloop-alerts.yaml").read_text())
    alerts = yaml.safe_load((generate.SOURCES / "alerts.yaml").read_text())
    assert rule["spec"] == alerts


def test_the_heartbeat_and_the_late_alert_have_one_limit() -> None:
    rules = yaml.safe_load((INFRA / "components" / "prometheus-operator" / "kfloop-alerts.yaml").read_text())
    late = next(
        rule["expr"]
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        if rule["alert"] == "KfloopMonitorLate"
    )
    beat = yaml.safe_load((INFRA / "components" / "prometheus-operator" / "heartbeat.yaml").read_text())
    (rule,) = beat["spec"]["groups"][0]["rules"]
    limit = re.compile(r"[<>] (6 \* 3600)$")
    assert limit.findall(late) == limit.findall(rule["expr"]) == ["6 * 3600"]


def test_the_inferenceservice_is_as_kfloop_writes_it() -> None:
    target = TargetConfig(
        kind="kserve",
        repository="s3://YOUR-BUCKET/models",
        namespace="kfloop",
        service_account="kfloop-serving",
        min_replicas=2,
    )
    found = yaml.safe_load((INFRA / "components" / "kserve" / "inferenceservice.yaml").read_text())
    assert found == manifest(target, "churn", 1, "0" * 64)


@pytest.mark.skipif(KUBECTL is None, reason=NO_KUBECTL)
def test_kserve_gets_a_tenth_first_and_nothing_of_the_other_server_is_left() -> None:
    manifests = built(INFRA / "overlays" / "prod-kserve")
    (service,) = (one for one in manifests if one["kind"] == "InferenceService")
    assert service["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert not [
        one["metadata"]["name"]
        for one in manifests
        if "triton" in one["metadata"]["name"] and one["kind"] != "ExternalSecret"
    ]


@pytest.mark.parametrize("path", LOOP_FILES, ids=lambda path: path.parent.name)
def test_each_overlay_has_a_loop_file_that_fits_its_addresses(path: Path) -> None:
    loop = yaml.safe_load(path.read_text())
    told = yaml.safe_load((path.parent / "kustomization.yaml").read_text())
    (endpoints,) = (one for one in told["configMapGenerator"] if one["name"] == "kfloop-endpoints")
    addresses = dict(word.split(" #")[0].split("=", 1) for word in endpoints["literals"])
    assert loop["deploy"]["target"]["repository"] == addresses["repository"]
    assert loop["cluster"]["mlflow"] == addresses["mlflow"]
    assert loop["cluster"]["namespace"] == told["namespace"]
    assert addresses["triton-repository"].endswith(addresses["repository"].removeprefix("s3://"))


@SECTION
@pytest.mark.parametrize("path", LOOP_FILES, ids=lambda path: path.parent.name)
def test_each_loop_file_is_valid(path: Path) -> None:
    assert load_config(path).name in {"churn", "tumours"}


@pytest.mark.parametrize("path", LOOP_FILES, ids=lambda path: path.parent.name)
def test_each_schedules_file_watches_every_hour(path: Path) -> None:
    schedules = pytest.importorskip("kfloop.pipelines.cluster.schedules", reason="this kfloop has no schedules")
    found = schedules.load_schedules(path.with_name("schedules.yaml"))
    assert (path.parent / found.loop) == path
    (watch,) = (one for one in found.schedules.values() if one.pipeline == "monitoring")
    assert watch.enabled
    assert watch.cron.split()[2:] == ["*", "*", "*", "*"]


# -- place_loop.py ------------------------------------------------------------------------------------------------------

GIVEN = """
name: churn
data: {source: data.csv, label: churned}
cluster: {state: "postgresql+psycopg://kfloop:${DB}@db/kfloop", root: ROOT}
"""


def place(tmp_path: Path, text: str = GIVEN) -> subprocess.CompletedProcess[str]:
    given = tmp_path / "given.yaml"
    given.write_text(text.replace("ROOT", str(tmp_path / "volume")))
    command = [sys.executable, str(PLACE_LOOP), str(given), str(tmp_path / "loop")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_loop_is_placed_where_the_cluster_keeps_it(tmp_path: Path) -> None:
    for _ in range(2):  # a pod may be started anew on the same folder
        done = place(tmp_path)
        assert done.returncode == 0, done.stderr
    loop: dict[str, Any] = yaml.safe_load((tmp_path / "loop" / "loop.yaml").read_text())
    root = tmp_path / "volume" / "churn"
    assert loop["state"] == "postgresql+psycopg://kfloop:${DB}@db/kfloop"  # still a reference
    assert (loop["store"], loop["mlflow"]) == (f"{root}/.kfloop/store", f"sqlite:///{root}/.kfloop/mlflow.db")
    assert (tmp_path / "loop" / ".kfloop").resolve() == (root / ".kfloop").resolve()
    assert sorted(path.name for path in (tmp_path / "loop").iterdir()) == [".kfloop", "loop.yaml"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [("requests: mine\n", "VOLUME/churn/mine"), ("", None), ("requests: s3://bucket/here\n", "s3://bucket/here")],
)
@pytest.mark.parametrize("on_cluster", [None, "s3://bucket/there"])
def test_the_place_of_the_request_logs_is_that_of_the_cluster(
    tmp_path: Path, told: str, expected: str | None, on_cluster: str | None
) -> None:
    text = GIVEN.replace("root: ROOT", f"root: ROOT, requests: '{on_cluster}'") if on_cluster else GIVEN
    assert place(tmp_path, text + told).returncode == 0
    loop = yaml.safe_load((tmp_path / "loop" / "loop.yaml").read_text())
    wanted = on_cluster or (expected and expected.replace("VOLUME", str(tmp_path / "volume")))
    assert loop.get("requests") == wanted


@SECTION
def test_what_was_placed_is_a_loop_that_writes_to_the_volume(tmp_path: Path) -> None:
    assert place(tmp_path).returncode == 0
    path = tmp_path / "loop" / "loop.yaml"
    workspace = load_config(path).workspace(path.parent)
    assert workspace.request_log.resolve() == (tmp_path / "volume" / "churn" / ".kfloop" / "requests").resolve()


@pytest.mark.parametrize("text", ["", "name: [", "cluster: {}"])
def test_a_file_that_is_no_loop_fails(tmp_path: Path, text: str) -> None:
    assert place(tmp_path, text).returncode != 0
    assert not (tmp_path / "loop").exists()


# -- secrets.sh ---------------------------------------------------------------------------------------------------------


def secrets(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(INFRA / "secrets.sh"), *words], capture_output=True, text=True, check=False)


def test_the_secrets_for_trying_out_are_those_that_the_manifests_name() -> None:
    found = list(yaml.safe_load_all(secrets("try").stdout))
    for one in found:
        kubernetes_validate.validate(one, "1.32", strict=True)
        assert one["metadata"]["namespace"] == "try"
    keys = {one["metadata"]["name"]: set(one["stringData"]) for one in found}
    assert keys == {name: names for name, names in EXTERNAL_SECRETS.items() if name != "kfloop-triton-tls"}
    values = {one["metadata"]["name"]: one["stringData"] for one in found}
    password = values["kfloop-postgres"]["password"]
    assert len(password) == 48
    assert f":{password}@" in values["kfloop-state"]["url"]
    assert f":{password}@" in values["kfloop-mlflow"]["url"]
    again = {one["metadata"]["name"]: one["stringData"] for one in yaml.safe_load_all(secrets("try").stdout)}
    assert all(values[name] != again[name] for name in values)


def test_without_a_namespace_no_secret_is_made() -> None:
    done = secrets()
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert "usage" in done.stderr
