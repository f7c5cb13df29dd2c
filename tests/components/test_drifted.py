"""A column moves: the monitor names where to, the retraining is judged there and on the old distribution, and garbage in the cause passes no gate."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import versions
from kfloop.components.evaluate import evaluation
from kfloop.components.evaluate.slices.drifted import caused
from kfloop.components.gate.deciding import GateReport, decide
from kfloop.components.gate.defaults import default_rules
from kfloop.components.gate.evidence import Evidence
from kfloop.components.incumbent import incumbency
from kfloop.components.monitor import monitoring
from kfloop.components.monitor.drift.parts import grown_parts
from kfloop.core.artifacts import folder_digest, read_report, write_report
from kfloop.core.drifted import read_part
from kfloop.core.encoding import fit_encoder
from kfloop.core.execution import perform
from kfloop.core.scoring import open_session
from kfloop.core.sections import DeployConfig, EvaluateConfig, GateConfig, MonitorConfig, Rule
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.state import open_state
from kfloop.core.state.origins import trigger_of
from kfloop.core.statistics.metrics import primary
from kfloop.core.store import Store
from kfloop.core.versions import DatasetVersion, read_version
from kfloop.core.workspace import Workspace
from tests.components.test_gate import reports

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.gate.verdicts import Verdict

LOOP, RUN, BASE, N = "drifted", "retraining", "base", 2400
TEST = slice(N * 7 // 10, None)
BORDER = 60.0
QUICK = EvaluateConfig(
    bootstrap=200, corrupted_rows=0, explain=0, segments=0, latency_seconds=0.01, baseline="logistic_regression"
)
GRAPH = """<ir_version: 9, opset_import: ["" : 18]> agraph (float[N,2] number) => (float[N,2] probabilities, float[N,2] embedding)
    <float[2,1] first = {{1.0, 0.0}}, float[2,1] second = {{0.0, 1.0}}, float border = {{60.0}}, float five = {{5.0}},
     float young = {{{young}}}, float change = {{{change}}}> {{
    age = MatMul(number, first) score = MatMul(number, second) beyond = Sub(age, border) far = Mul(beyond, five)
    old = Sigmoid(far) turn = Mul(old, change) slope = Add(young, turn) logit = Mul(slope, score) zero = Sub(logit, logit)
    both = Concat<axis=1>(zero, logit) probabilities = Softmax<axis=1>(both) embedding = Concat<axis=1>(score, logit) }}"""


def people(seed: int, n: int, *, moved: bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Age, score and label: of the old the score means the opposite. Few are old before the traffic moves, and most of them after."""
    dice = np.random.default_rng([11, seed])
    old = dice.random(n) < (0.8 if moved else 0.1)
    age = np.where(old, dice.uniform(BORDER + 1, 80, n), dice.uniform(20, BORDER - 1, n)).round()
    score = dice.normal(size=n)
    label = ((score > 0) ^ old) ^ (dice.random(n) < 0.05)
    return age, score, label.astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drifted:
    """A loop whose traffic moved to the old: its champion is right about the young only."""

    workspace: Workspace
    version: DatasetVersion
    champion: str

    def evaluated(self, young: float, old: float) -> dict[str, Any]:
        """The evaluation of a challenger with these slopes, in the run of the round that asked for it."""
        model = self.model(young, old)
        who = perform("incumbent", incumbency.run, self.workspace, DeployConfig(), {"model": model})
        inputs = {"dataset": self.dataset, "model": model, "incumbent": who.path}
        return read_report(perform("evaluate", evaluation.run, self.workspace, QUICK, inputs).path)

    def told(self, cause: Any, root: Path) -> dict[str, Any]:
        """The evaluation of the challenger that mends all, with another cause."""
        incumbent, out = root / "incumbent", root / "out"
        for place in (incumbent, out):
            place.mkdir()
        write_report(incumbent, {"champion_digest": self.champion, "cause": cause})
        told = {"dataset": self.dataset, "model": self.model(8.0, -8.0), "incumbent": incumbent, "out": out}
        evaluation.run(QUICK, workspace=self.workspace, **told)
        return read_report(out)

    @property
    def dataset(self) -> Path:
        return Store.of(self.workspace).path("datasets", self.version.digest)

    def model(self, young: float, old: float) -> Path:
        return Store.of(self.workspace).path("models", package(self.workspace, self.version, young, old))


def package(workspace: Workspace, version: DatasetVersion, young: float, old: float) -> str:
    """A model whose log-odds are the score times a slope, one for the young and one for the old."""
    import onnx.parser

    folder = workspace.root / f"package{young}{old}"
    if folder.exists():
        return str(read_report(folder)["digest"])
    folder.mkdir()
    graph = onnx.parser.parse_model(GRAPH.format(young=young, change=old - young))
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    encoder = fit_encoder(version)
    (folder / "encoder.json").write_text(json.dumps(encoder.plain()))
    outputs = tuple(Port(name=name, dtype="float32", shape=(2,)) for name in ("probabilities", "embedding"))
    told: dict[str, Any] = {
        "objective": "classification",
        "modality": "table",
        "family": "mlp",
        "labels": ("no", "yes"),
    }
    write_signature(folder, Signature(inputs=encoder.ports, outputs=outputs, max_batch_size=64, **told))
    (folder / "train_content.txt").write_text("".join(f"{row:032x}\n" for row in range(N // 2)))
    age, score, _ = people(1, 1000, moved=False)
    inputs = np.column_stack([age, score]).astype(np.float32)
    np.savez(folder / "reference.npz", **{"input.number": inputs}, **answers(folder, inputs))
    digest = folder_digest(folder)
    write_report(folder, {"digest": digest, "dataset_digest": BASE})
    Store.of(workspace).publish(folder, "models", digest)
    return digest


def answers(folder: Path, inputs: NDArray[Any]) -> dict[str, Any]:
    names = ["probabilities", "embedding"]
    return dict(zip(names, open_session(folder / "model.onnx").run(names, {"number": inputs}), strict=True))


def log_requests(workspace: Workspace, digest: str) -> None:
    """What the champion answered to 800 requests of after the move."""
    age, score, _ = people(2, 800, moved=True)
    inputs = np.column_stack([age, score]).astype(np.float32)
    answered = answers(Store.of(workspace).path("models", digest), inputs)
    columns = {
        "request_id": [f"r{row:04d}" for row in range(len(inputs))],
        "ts_ns": [1_760_000_400_000_000_000 + row * 18 * 10**9 for row in range(len(inputs))],
        "version": [1] * len(inputs),
        "input.number": pa.FixedSizeListArray.from_arrays(pa.array(inputs.reshape(-1)), 2),
        **{f"output.{name}": list(found) for name, found in answered.items()},
        "latency_us": [900] * len(inputs),
    }
    folder = workspace.request_log / LOOP / "20251009T09"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "000000.parquet")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The round that retrains has been: everything after it is the retraining's."""
    root = tmp_path_factory.mktemp("drifted")
    workspace = Workspace(
        loop=LOOP, root=root, state=f"sqlite:///{root}/state.db", store=str(root / "store"), mlflow="-"
    )
    before, after = people(3, N, moved=False), people(4, N, moved=True)
    fresh = np.random.default_rng(5).random(N) < 0.3
    age, score, label = (np.where(fresh, new, old) for old, new in zip(before, after, strict=True))
    folder = versions.write_table(
        root / "dataset",
        {"age": age, "score": score},
        label,
        labels=["no", "yes"],
        origin=np.where(fresh, "fresh", "base"),
    )
    version = read_version(folder)
    Store.of(workspace).publish(folder, "datasets", version.digest)
    few = versions.write_table(root / "base", {"age": age[:50], "score": score[:50]}, label[:50], labels=["no", "yes"])
    Store.of(workspace).publish(few, "datasets", BASE)
    champion = package(workspace, version, 8.0, 7.0)
    ledger = open_state(workspace.state).ledger
    told: dict[str, Any] = {"action": "promote", "version": 1, "actor": "test", "reason": "test"}
    ledger.close(ledger.intend(LOOP, model_digest=champion, expected_champion=None, **told), done=True)
    log_requests(workspace, champion)
    labelled = root / "labelled"
    labelled.mkdir()
    for row in range(70):
        (labelled / f"{row}.png").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFLOOP_RUN_ID", RUN)
        open_state(workspace.state).runs.start(RUN, LOOP, "monitoring", "", {})
        perform("monitor", monitoring.run, workspace, MonitorConfig(fresh=str(labelled)), {})
        yield Drifted(workspace=workspace, version=version, champion=champion)


def evidence_of(loop: Drifted) -> dict[str, Any]:
    (trigger,) = open_state(loop.workspace.state).triggers.history(LOOP)
    return read_report(Store.of(loop.workspace).path("evidence", trigger.evidence_digest))


def decided(evaluation: dict[str, Any], *rules: Rule) -> GateReport:
    """The gate's decision on an evaluation; the other reports are those of a sound round about the same model and data."""
    other = reports()
    for name in ("validate", "labels", "bless"):
        other[name]["dataset_digest"] = evaluation["dataset_digest"]
    other["bless"]["model_digest"] = evaluation["challenger"]["digest"]
    config = GateConfig(rules=rules) if rules else GateConfig()
    return decide(config, Evidence(reports=other | {"evaluate": evaluation}))


def verdicts(report: GateReport, place: str) -> list[Verdict]:
    return [verdict for verdict in report.verdicts if f"[{place}:" in verdict.rule]


@pytest.fixture(scope="module")
def mended(loop: Drifted) -> dict[str, Any]:
    """The evaluation of a challenger that learned the old, too."""
    return loop.evaluated(8.0, -8.0)


def test_the_monitor_names_where_requests_moved_to(loop: Drifted) -> None:
    report = evidence_of(loop)
    assert (report["outcome"], report["cause"]) == ("retrain", "drift")
    (part,) = report["drifted"]
    found = read_part(part)
    assert (found.column, found.kind, found.high) == ("age", "number", None)
    assert found.low == pytest.approx(BORDER, abs=3)
    assert found.reference == pytest.approx(0.1, abs=0.04)
    assert found.current == pytest.approx(0.8, abs=0.06)


def test_the_retraining_is_evaluated_there_and_on_all_other_rows(loop: Drifted, mended: dict[str, Any]) -> None:
    cause = mended["cause"]
    (trigger,) = open_state(loop.workspace.state).triggers.history(LOOP)
    assert (cause["kind"], cause["evidence"], cause["problems"]) == ("drift", trigger.evidence_digest, [])
    (part,) = cause["parts"]
    assert (part["drifted"], part["old"]) == ("drifted:age=60 or more", "old:age=all but 60 or more")
    old = loop.version.table("test")["age"].to_numpy() >= BORDER
    assert (part["n"], part["n_old"]) == (int(old.sum()), int((~old).sum()))
    assert mended["slice_facts"][part["drifted"]]["n"] == part["n"]
    ours, theirs = (mended[name]["slices"] for name in ("challenger", "champion"))
    assert ours[part["drifted"]]["accuracy"]["value"] > 0.9
    assert theirs[part["drifted"]]["accuracy"]["value"] < 0.1
    assert ours[part["old"]]["accuracy"] == theirs[part["old"]]["accuracy"]


def test_a_challenger_that_mends_the_slice_and_keeps_the_rest_is_promoted(mended: dict[str, Any]) -> None:
    report = decided(mended)
    assert report.outcome == "promote", report.reason
    assert [verdict.verdict for verdict in (*verdicts(report, "drifted"), *verdicts(report, "old"))] == ["pass"] * 4
    assert any(
        verdict.rule == "cause can be judged" and "60 or more" in verdict.sentence for verdict in report.verdicts
    )


def test_a_challenger_that_is_worse_on_the_old_distribution_is_refused(loop: Drifted) -> None:
    """It gains more where requests moved to than it loses: the figure over all test rows is well above the champion's."""
    found = loop.evaluated(0.0, -8.0)
    report = decided(found, *cause_rules())
    lost = verdicts(report, "old")
    assert [(kept.verdict, kept.mode) for kept in lost] == [("fail", "enforce")] * 2
    assert report.outcome == "reject"
    assert {kept.rule for kept in lost} <= set(report.blocking)
    assert {verdict.verdict for verdict in verdicts(report, "drifted")} == {"pass"}


def test_a_challenger_that_mends_nothing_shows_it(loop: Drifted) -> None:
    """It is as good as the champion, so that only the warning tells that the retraining missed its cause."""
    found = loop.evaluated(8.0, 7.5)
    report = decided(found, *cause_rules())
    better = next(verdict for verdict in verdicts(report, "drifted") if verdict.mode == "warn")
    assert better.verdict == "fail"
    assert "drifted:age=60 or more" in better.sentence
    assert report.outcome == "promote"
    assert better.rule in report.reason
    assert decided(found).outcome == "reject", "no gain on fresh rows: the default rules refuse a tie"


def test_a_challenger_that_is_worse_where_requests_moved_to_is_refused(mended: dict[str, Any]) -> None:
    found = copy.deepcopy(mended)
    swap(found, found["cause"]["parts"][0]["drifted"])
    report = decided(found, *cause_rules())
    assert report.outcome == "reject"
    assert [verdict.verdict for verdict in verdicts(report, "drifted")] == ["fail", "fail"]
    assert [verdict.verdict for verdict in verdicts(report, "old")] == ["pass", "pass"]


def swap(found: dict[str, Any], name: str) -> None:
    """Champion and challenger in each other's place on one slice."""
    ours, theirs = found["challenger"]["slices"], found["champion"]["slices"]
    ours[name], theirs[name] = theirs[name], ours[name]
    gap = found["differences"]["champion"]["slices"][name]["accuracy"]
    gap |= {"value": -gap["value"], "low": -gap["high"], "high": -gap["low"]}


def cause_rules() -> tuple[Rule, ...]:
    """The default rules on the slices of the cause, and one that anything passes."""
    rules = default_rules("classification", "table", 720, drifted=True)
    kept = tuple(rule for rule in rules if rule.slice.startswith(("drifted:", "old:")))
    assert len(kept) == 4
    return (Rule(metric="accuracy", at_least=0.0), *kept)


@pytest.mark.parametrize("objective", ["classification", "multilabel", "regression", "anomaly"])
def test_every_task_of_a_table_is_judged_on_the_slices_of_its_cause(objective: str) -> None:
    more = set(default_rules(objective, "table", 500, drifted=True)) - set(default_rules(objective, "table", 500))
    asked = {(rule.slice, rule.use, rule.mode, rule.when) for rule in more}
    assert asked == {
        ("old:*", "unless_refuted", "enforce", "large_enough"),
        ("old:*", "interval", "enforce", "large_enough"),
        ("drifted:*", "unless_refuted", "enforce", "large_enough"),
        ("drifted:*", "interval", "warn", "slice_exists"),
    }
    assert {(rule.metric, rule.versus) for rule in more} == {(primary(objective), "champion")}
    GateConfig(rules=default_rules(objective, "table", 500, drifted=True))  # no two rules have one name


PART = {"column": "age", "kind": "number", "low": 60.0, "high": None, "values": [], "reference": 0.1, "current": 0.8}
CAUSE = {"kind": "drift", "reason": "drift since row 100", "evidence": "e" * 32, "problem": "", "drifted": [PART]}
GARBAGE: list[tuple[Any, str]] = [
    ([PART | {"column": "shoe size"}], "'shoe size', which the dataset does not have"),
    ([PART | {"column": "label"}], "'label', but the classes are slices already"),
    ([PART | {"column": ["age"]}], "column is ['age'], expected a name"),
    ([PART | {"low": math.nan}], "from nan to None, expected finite numbers"),
    ([PART | {"low": math.inf}], "from inf to None, expected finite numbers"),
    ([PART | {"low": True}], "from True to None, expected finite numbers"),
    ([PART | {"low": None}], "from None to None, which does not fit the kind number"),
    ([PART | {"high": 60.0}], "from 60.0 to 60.0, which is empty"),
    ([PART | {"high": 20.0}], "from 60.0 to 20.0, which is empty"),
    ([PART | {"kind": "region"}], "kind is 'region', expected one of number"),
    ([PART | {"kind": "time"}], "'age 1970-01-01 00:01:00 or more', but the column holds values of the kind number"),
    ([PART | {"kind": "category", "low": None}], "values are [], which does not fit the kind category"),
    ([PART | {"kind": "category", "low": None, "values": [7]}], "values are [7], expected a list of texts"),
    ([PART | {"kind": "category", "low": None, "values": ["a"]}], "'age = a', but the column holds values of the kind number"),
    ([PART | {"values": ["a"]}], "values are ['a'], which does not fit the kind number"),
    ([PART | {"current": math.nan}], "current is nan, expected a share from 0 to 1"),
    ([PART | {"more": 1}], "expected an object with column, kind"),
    ([{"column": "age"}], "expected an object with column, kind"),
    (["age"], "expected an object with column, kind"),
    ([PART, PART], "names the part 'age 60 or more' twice"),
    ([PART] * 4, "expected a list of at most 3"),
    (None, "names the parts None, expected a list of at most 3"),
    ({"age": PART}, "expected a list of at most 3"),
]  # fmt: skip


@pytest.mark.parametrize(("named", "why"), GARBAGE)
def test_garbage_in_the_cause_is_told_and_passes_no_gate(
    named: Any, why: str, loop: Drifted, mended: dict[str, Any]
) -> None:
    told = caused(loop.version, CAUSE | {"drifted": named}, loop.version.table("test")["id"].to_numpy())
    assert told.facts is not None
    (problem,) = told.facts["problems"]
    assert why in problem
    report = decided(mended | {"cause": told.facts})
    assert report.outcome == "reject"
    assert "cause can be judged" in report.blocking
    assert why in next(verdict.sentence for verdict in report.verdicts if verdict.rule == "cause can be judged")


@pytest.mark.parametrize("cause", ["drift", {}, ["age"], CAUSE | {"problem": "the monitor's evidence cannot be read"}])
def test_a_cause_that_says_nothing_passes_no_gate(cause: Any, loop: Drifted, mended: dict[str, Any]) -> None:
    told = caused(loop.version, cause, loop.version.table("test")["id"].to_numpy())
    assert told.facts is not None
    assert told.facts["problems"]
    assert decided(mended | {"cause": told.facts}).outcome == "reject"


@pytest.mark.parametrize(
    "cause",
    [
        "drift",
        {},
        {"problems": None, "parts": []},
        {"problems": [], "parts": None},
        {"problems": [], "parts": ["age"]},
        {"problems": [], "parts": [{"drifted": "drifted:age=60 or more"}]},
    ],
)
def test_an_evaluation_that_does_not_name_its_slices_passes_no_gate(cause: Any, mended: dict[str, Any]) -> None:
    report = decided(mended | {"cause": cause})
    assert "cause can be judged" in report.blocking


def test_a_slice_without_test_rows_is_seen_and_never_passes(loop: Drifted, tmp_path: Path) -> None:
    """Whether the challenger mends what has no test rows is a warning."""
    found = loop.told(CAUSE | {"drifted": [PART | {"low": 200.0}]}, tmp_path)
    (part,) = found["cause"]["parts"]
    assert (part["n"], part["n_old"]) == (0, 720)
    report = decided(found, *cause_rules())
    (empty,) = verdicts(report, "drifted")
    assert (empty.verdict, empty.mode) == ("not_evaluated", "warn")
    assert f"on {part['drifted']} must be at least" in empty.sentence
    assert "no test row lies there: not evaluated" in empty.sentence
    assert report.outcome == "promote"
    assert empty.rule in report.reason


def test_an_old_distribution_without_test_rows_is_told(loop: Drifted, tmp_path: Path) -> None:
    """All that is tested moved: the other rules decide, and a note says what could not be shown."""
    found = loop.told(CAUSE | {"drifted": [PART | {"low": -5.0}]}, tmp_path)
    (part,) = found["cause"]["parts"]
    assert (part["n"], part["n_old"]) == (720, 0)
    report = decided(found, *cause_rules())
    assert verdicts(report, "old") == []
    assert sum(part["old"] in note for note in report.notes) == 2


@pytest.mark.parametrize(("n", "judged"), [(19, 0), (59, 1), (200, 2)])
def test_the_old_distribution_is_judged_by_what_its_rows_can_show(
    n: int, judged: int, loop: Drifted, mended: dict[str, Any]
) -> None:
    for found, verdict in ((copy.deepcopy(mended), "pass"), (loop.evaluated(0.0, -8.0), "fail")):
        name = found["cause"]["parts"][0]["old"]
        for block in (found["challenger"], found["champion"], found["differences"]["champion"]):
            block["slices"][name]["accuracy"]["n"] = n
        report = decided(found, *cause_rules())
        assert [kept.verdict for kept in verdicts(report, "old")] == [verdict] * judged
        assert sum(name in note for note in report.notes) == 2 - judged


def test_rules_of_ones_own_that_leave_the_cause_out_say_so(mended: dict[str, Any]) -> None:
    sure = Rule(metric="accuracy", at_least=0.0)
    report = decided(mended, sure)
    assert any("No rule judges drifted:* and old:*" in note for note in report.notes)
    both = cause_rules()
    assert not any("No rule judges" in note for note in decided(mended, *both).notes)


def test_a_person_s_training_has_no_such_slices_and_the_rules_say_so(loop: Drifted, tmp_path: Path) -> None:
    found = loop.told(None, tmp_path)
    assert found["cause"] is None
    assert not [name for name in found["slice_facts"] if name.startswith(("drifted:", "old:"))]
    report = decided(found, *cause_rules())
    assert sum("does not apply: no drift caused this training" in note for note in report.notes) == 4
    assert not any("cause" in verdict.rule for verdict in report.verdicts)
    assert not any("drifted" in told or "old:" in told for told in decided(found).notes)


def test_a_cause_without_columns_has_no_slices_and_is_no_problem(loop: Drifted, mended: dict[str, Any]) -> None:
    told = caused(loop.version, CAUSE | {"drifted": []}, loop.version.table("test")["id"].to_numpy())
    assert told.facts is not None
    assert (told.slices, told.facts["parts"], told.facts["problems"]) == ((), [], [])
    report = decided(mended | {"cause": told.facts})
    assert not verdicts(report, "drifted")
    assert any("no column that moved" in verdict.sentence for verdict in report.verdicts)


def test_every_kind_of_part_is_found_among_the_rows(tmp_path: Path) -> None:
    columns = {
        "age": [30.0, 70.0, None, 60.0] * 10,
        "city": ["Rome", "Oslo", None, "Bonn"] * 10,
        "member": [True, False, None, True] * 10,
        "since": pa.array([0, 86_400, None, 172_800] * 10, pa.timestamp("s")),
    }
    version = read_version(versions.write_table(tmp_path / "data", columns, np.arange(40) % 2, labels=["no", "yes"]))
    ids = version.table("test")["id"].to_numpy()
    place = np.array([int(name.partition("/")[2]) % 4 for name in ids])
    empty = {"low": None, "high": None, "values": []}
    asked: list[tuple[dict[str, Any], str, list[int]]] = [
        ({"column": "age", "low": 60.0, "high": 70.0}, "age=[60, 70)", [3]),
        ({"column": "age", "low": None, "high": 60.0}, "age=below 60", [0]),
        ({"column": "age", "kind": "missing", **empty}, "age=missing", [2]),
        ({"column": "city", "kind": "missing", **empty}, "city=missing", [2]),
        ({"column": "city", "kind": "category", **empty, "values": ["Oslo", "Bonn"]}, "city=Oslo, Bonn", [1, 3]),
        ({"column": "city", "kind": "unknown", **empty, "values": ["Rome", "Oslo"]}, "city=unknown", [3]),
        ({"column": "member", "kind": "category", **empty, "values": ["true"]}, "member=true", [0, 3]),
        ({"column": "since", "kind": "time", "low": 86_400.0}, "since=1970-01-02 or more", [1, 3]),
    ]
    for part, name, rows in asked:
        told = caused(version, CAUSE | {"drifted": [PART | part]}, ids)
        assert told.facts is not None
        assert told.facts["problems"] == []
        inside, outside = told.slices
        assert (inside.name, outside.name) == (f"drifted:{name}", f"old:{name.replace('=', '=all but ')}")
        assert np.array_equal(inside.rows, np.isin(place, rows)), name
        assert np.array_equal(outside.rows, ~inside.rows), name


def columns_of(kinds: dict[str, str]) -> list[dict[str, Any]]:
    named = {"names": ["Rome", "Oslo", "Lima"]}
    return [{"name": name, "kind": kind} | (named if kind == "category" else {}) for name, kind in kinds.items()]


KINDS = columns_of({"age": "number", "city": "category", "member": "flag", "since": "time"})
DAY = 86_400.0


def requests(seed: int, n: int, **changed: Any) -> dict[str, NDArray[Any]]:
    dice = np.random.default_rng([13, seed])
    return {
        "age": dice.normal(40, 10, n),
        "city": np.array(dice.choice(["Rome", "Oslo", "Lima"], n), dtype=object),
        "member": (dice.random(n) < 0.3).astype(float),
        "since": dice.uniform(0, 100 * DAY, n),
    } | changed


def test_by_chance_hardly_any_part_is_named() -> None:
    named = [grown_parts(KINDS, requests(2 * seed, 1000), requests(2 * seed + 1, 300)) for seed in range(100)]
    assert sum(map(bool, named)) <= 4


DICE = np.random.default_rng(17)
MOVES: list[tuple[dict[str, Any], str]] = [
    ({"age": DICE.normal(50, 10, 500)}, r"age 4\d or more"),
    ({"age": DICE.normal(30, 10, 500)}, r"age below 3\d"),
    ({"age": np.where(DICE.random(500) < 0.2, -1.0, DICE.normal(40, 10, 500))}, r"age below \d+"),
    ({"age": np.full(500, 42.0)}, r"age \[4[12][.\d]*, 42[.\d]+\)"),
    ({"age": np.where(DICE.random(500) < 0.2, np.nan, DICE.normal(40, 10, 500))}, "age is missing"),
    ({"age": np.full(500, np.nan)}, "age is missing"),
    ({"city": np.array(DICE.choice(["Rome", "(another)"], 500), dtype=object)}, "city unknown to the champion"),
    ({"city": np.array(DICE.choice(["Rome", "Lima"], 500, p=[0.9, 0.1]), dtype=object)}, "city = Rome"),
    ({"city": np.array(DICE.choice(["Rome", "Oslo"], 500), dtype=object)}, "city = (Rome or Oslo|Oslo or Rome)"),
    ({"city": np.array([None, "Rome"] * 250, dtype=object)}, "city is missing"),
    ({"member": (DICE.random(500) < 0.7).astype(float)}, "member = true"),
    ({"since": DICE.uniform(100 * DAY, 110 * DAY, 500)}, "since 1970-04-1[01] or more"),
]


@pytest.mark.parametrize(("changed", "text"), MOVES)
def test_where_requests_moved_to(changed: dict[str, Any], text: str) -> None:
    then, now = requests(0, 1000), requests(1, 500, **changed)
    (part,) = grown_parts(KINDS, then, now)
    assert re.fullmatch(text, part.text)
    assert part.grown > 0.1
    assert read_part(json.loads(json.dumps(dataclasses.asdict(part)))) == part


def test_at_most_three_columns_are_named_the_one_that_moved_most_first() -> None:
    now = requests(
        1,
        500,
        age=np.full(500, 90.0),
        city=np.array(["Rome"] * 250 + ["Oslo"] * 100 + ["Lima"] * 150, dtype=object),
        member=np.ones(500),
        since=np.full(500, 200 * DAY),
    )
    parts = grown_parts(KINDS, requests(0, 1000), now)
    assert [part.column for part in parts][2:] == ["member"]
    assert {part.column for part in parts} == {"age", "since", "member"}
    assert [part.grown for part in parts] == sorted((part.grown for part in parts), reverse=True)


def test_a_column_without_known_values_names_no_unknown_ones() -> None:
    """Every value is unknown, then as now: that more rows have one tells of no part that could be found again."""
    columns = [{"name": "id", "kind": "category", "names": []}]
    then, now = (np.array(cells, dtype=object) for cells in ([None, "(another)"] * 200, ["(another)"] * 300))
    assert grown_parts(columns, {"id": then}, {"id": now}) == ()


def test_empty_columns_and_columns_that_were_not_logged_name_nothing() -> None:
    then, now = requests(0, 1000), requests(1, 500)
    assert grown_parts(KINDS, then, {}) == ()
    assert grown_parts(KINDS, {name: cells[:0] for name, cells in then.items()}, now) == ()
    assert grown_parts(KINDS, then | {"age": np.full(1000, np.nan)}, now | {"age": np.full(500, np.nan)}) == ()


def test_the_run_of_the_round_knows_its_cause_and_a_person_s_run_has_none(
    loop: Drifted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = incumbent(loop, tmp_path / "a")
    assert report.cause is not None
    assert report.cause["kind"] == "drift"
    assert report.outcome.startswith(f"{loop.champion}+")
    monkeypatch.setenv("KFLOOP_RUN_ID", "a person's")
    assert (incumbent(loop, tmp_path / "b").cause, incumbent(loop, tmp_path / "c").outcome) == (None, loop.champion)
    monkeypatch.delenv("KFLOOP_RUN_ID")
    assert incumbent(loop, tmp_path / "d").cause is None


def incumbent(loop: Drifted, out: Path) -> incumbency.IncumbentReport:
    out.mkdir()
    return incumbency.run(DeployConfig(), model=out, out=out, workspace=loop.workspace)


@pytest.mark.parametrize(
    ("events", "run", "known"),
    [
        ([("started", {}), ("succeeded", {"outcome": "training-1"})], "training-1", True),
        ([("started", {}), ("succeeded", {"outcome": "training-1"})], "another", False),
        ([("started", {})], "training-1", True),  # it is at work before the step that started it could tell
        ([("started", {}), ("failed", {})], "training-1", True),  # the server had started it all the same
        ([], "training-1", False),
    ],
)
def test_a_training_of_its_own_on_a_cluster_knows_its_cause(
    events: list[tuple[str, dict[str, Any]]], run: str, *, known: bool, workspace: Workspace
) -> None:
    state = open_state(workspace.state)
    state.triggers.add(
        LOOP, run_id="round", trigger="retrain", reason="drift", champion_digest="m1", fingerprint="f", cause="drift"
    )
    for event, payload in events:
        state.runs.step("round", "submit_training", event, payload)
    found = trigger_of(state, LOOP, run)
    assert (found is not None) is known


def test_a_start_that_told_nothing_is_forgotten_once_another_champion_is_there(workspace: Workspace) -> None:
    state = open_state(workspace.state)
    state.triggers.add(LOOP, run_id="round", trigger="retrain", reason="drift", champion_digest="m0", fingerprint="f")
    state.runs.step("round", "submit_training", "started", {})
    assert trigger_of(state, LOOP, "training-1") is None
    assert trigger_of(state, LOOP, "") is None


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A loop with a champion in state alone."""
    place = Workspace(loop=LOOP, root=tmp_path, state=f"sqlite:///{tmp_path}/s.db", store=str(tmp_path), mlflow="-")
    ledger = open_state(place.state).ledger
    told: dict[str, Any] = {"action": "promote", "version": 1, "actor": "test", "reason": "test"}
    ledger.close(ledger.intend(LOOP, model_digest="m1", expected_champion=None, **told), done=True)
    return place


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (None, "the monitor's evidence cannot be read"),
        ("{", "the monitor's evidence cannot be read"),
        ("[]", "the monitor's evidence cannot be read"),
        ('{"drifted": []}', "the monitor's evidence was changed after its round"),
    ],
)
def test_evidence_that_is_gone_or_was_changed_is_told_and_the_gate_refuses(
    kept: str | None,
    why: str,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    loop: Drifted,
    mended: dict[str, Any],
) -> None:
    state = open_state(workspace.state)
    if kept is not None:
        place = workspace.root / "evidence" / "gone"
        place.mkdir(parents=True)
        (place / "report.json").write_text(kept)
    told: dict[str, Any] = {"trigger": "retrain", "reason": "drift", "champion_digest": "m1", "fingerprint": "f"}
    state.triggers.add(LOOP, run_id="round", evidence_digest="gone", cause="drift", **told)
    (workspace.root / "models" / "m1").mkdir(parents=True)
    monkeypatch.setenv("KFLOOP_RUN_ID", "round")
    (workspace.root / "out").mkdir()
    report = incumbency.run(DeployConfig(), model=workspace.root, out=workspace.root / "out", workspace=workspace)
    assert report.cause is not None
    assert why in report.cause["problem"]
    facts = caused(loop.version, report.cause, loop.version.table("test")["id"].to_numpy()).facts
    assert "cause can be judged" in decided(mended | {"cause": facts}).blocking
