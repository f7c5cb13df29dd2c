"""Votes of several annotators: alpha against worked examples, consensus against truth, quality, disputes, garbage."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.check_labels.annotators.agreement import agreement_by_class, krippendorff_alpha
from kfloop.components.check_labels.annotators.consensus import Votes, dawid_skene
from kfloop.components.check_labels.annotators.study import AnnotatorReport, study_votes
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def majority(votes: Votes) -> np.ndarray:
    """Most frequent answer for each item; a tie goes to the class that is said more often over all, then to the first."""
    counts = votes.counts()
    common = counts.sum(axis=0)
    return np.asarray(np.argmax(counts + 0.5 * common / max(float(common.sum()), 1.0), axis=1), dtype=np.int64)


def table(rows: list[tuple[str | None, str | None, str | None]]) -> pa.Table:
    ids, people, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "annotator": pa.array(people, pa.string()),
            "label": pa.array(labels, pa.string()),
        }
    )


def study(
    rows: list[tuple[str | None, str | None, str | None]], given: dict[str, str] | None = None
) -> AnnotatorReport:
    return study_votes(table(rows), given or {}, ["a", "b", "c"])


def counted(units: list[str]) -> np.ndarray:
    classes = sorted(set("".join(units)))
    return np.array([[unit.count(label) for label in classes] for unit in units], dtype=float)


def simulated(seed: int, *, n: int = 2000, people: int = 40, per_item: int = 3, k: int = 4) -> tuple[Votes, np.ndarray]:
    """Votes by people of different skill, each with errors of their own, and the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(k, n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    skill = generator.beta(4, 2, people)
    errors = generator.dirichlet(np.ones(k), (people, k)) + 1e-9
    errors[:, np.arange(k), np.arange(k)] = 0
    matrix = (1 - skill)[:, None, None] * errors / errors.sum(axis=2, keepdims=True)
    matrix[:, np.arange(k), np.arange(k)] = skill[:, None]
    who = np.stack([generator.choice(people, per_item, replace=False) for _ in range(n)])
    item = np.repeat(np.arange(n), per_item)
    label = np.array(
        [generator.choice(k, p=matrix[person, truth[row]]) for row, person in zip(item, who.ravel(), strict=True)]
    )
    votes = Votes(item=item, annotator=who.ravel(), label=label, n_items=n, n_annotators=people, n_labels=k)
    return votes, truth


# Krippendorff (2011), section C: 4 observers, 12 units, 7 missing values; the paper gives .743.
KRIPPENDORFF = ["111", "2223", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "555", "11", "3"]


def test_alpha_of_the_published_example_with_missing_votes() -> None:
    assert krippendorff_alpha(counted(KRIPPENDORFF)).value == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(counted(KRIPPENDORFF)).n == 11


def test_alpha_of_the_published_binary_example() -> None:
    # Krippendorff (2011), section A: coincidences o_00 = 10, o_01 = 4, o_11 = 2; alpha = 1 - 19 * 4 / (14 * 6) = .095.
    assert krippendorff_alpha(counted(["00"] * 5 + ["01"] * 4 + ["11"])).value == pytest.approx(1 - 19 * 4 / (14 * 6))


def test_alpha_worked_by_hand() -> None:
    # Units aa, ab, bb: n = 6, n_a = n_b = 3; D_o = 2 / 6, D_e = 18 / 30; alpha = 1 - (1/3) / (3/5) = 4/9.
    assert krippendorff_alpha(counted(["aa", "ab", "bb"])).value == pytest.approx(4 / 9)


@pytest.mark.parametrize(
    ("units", "value"), [(["aa", "bb", "cc"], 1.0), (["ab"] * 10, 1 - 10 / 10 / (100 / (20 * 19) * 2))]
)
def test_alpha_at_its_ends(units: list[str], value: float) -> None:
    assert krippendorff_alpha(counted(units)).value == pytest.approx(value)


@pytest.mark.parametrize("units", [["a", "b"], ["aa", "aaa", "aa"]])
def test_alpha_is_unknown_without_pairs_or_variety(units: list[str]) -> None:
    assert not krippendorff_alpha(counted(units)).known
    assert not krippendorff_alpha(np.empty((0, 3))).known


def test_alpha_interval_covers_the_alpha_of_many_items() -> None:
    votes, _ = simulated(0, n=20_000)
    whole = krippendorff_alpha(votes.counts())
    covered = 0
    for seed in range(40):
        picked = np.random.default_rng(seed).choice(20_000, 200, replace=False)
        part = krippendorff_alpha(votes.counts()[picked], seed=seed)
        covered += part.low <= whole.value <= part.high
    assert whole.low < whole.value < whole.high
    assert covered >= 34


def test_agreement_by_class_worked_by_hand() -> None:
    # a: units aab (a meets a 1 of 2 times, twice) and aa: (2 * 1/2 + 2 * 1) / 4 = 3/4; b: 0 of 1; c is never said in a pair.
    rows = agreement_by_class(np.array([[2, 1, 0], [2, 0, 0], [0, 0, 1.0]]), ["a", "b", "c"])
    assert [row["n"] for row in rows] == [4, 1, 0]
    assert rows[0]["agreement"].value == pytest.approx(0.75)
    assert rows[1]["agreement"].value == 0
    assert not rows[2]["agreement"].known


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_consensus_beats_the_majority(seed: int) -> None:
    votes, truth = simulated(seed, people=20, per_item=5)
    consensus = dawid_skene(votes)
    assert consensus.converged
    assert (consensus.label != truth).mean() <= 0.8 * (majority(votes) != truth).mean()


@pytest.mark.parametrize(("people", "per_item"), [(20, 5), (40, 3), (400, 4)])
def test_consensus_is_calibrated(people: int, per_item: int) -> None:
    rows = [simulated(seed, people=people, per_item=per_item) for seed in range(3)]
    found = [(dawid_skene(votes), truth) for votes, truth in rows]
    confidence = np.concatenate([consensus.confidence for consensus, _ in found])
    right = np.concatenate([consensus.label == truth for consensus, truth in found])
    parts = np.digitize(confidence, [0.5, 0.7, 0.85, 0.95, 0.99])
    gaps = [
        abs(confidence[parts == part].mean() - right[parts == part].mean())
        for part in range(6)
        if (parts == part).sum() > 50
    ]
    weights = [(parts == part).mean() for part in range(6) if (parts == part).sum() > 50]
    assert np.average(gaps, weights=weights) <= 0.05


def test_people_with_few_votes_do_not_break_it() -> None:
    votes, truth = simulated(3, n=600, people=600, per_item=3, k=3)
    consensus = dawid_skene(votes)
    assert (consensus.label == truth).mean() >= (majority(votes) == truth).mean() - 0.01


def test_one_matrix_for_all_where_matrices_would_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    votes, truth = simulated(0, people=20, per_item=5)
    monkeypatch.setattr("kfloop.components.check_labels.annotators.consensus.LARGEST_CELLS", 10)
    assert (dawid_skene(votes).label == truth).mean() > (majority(votes) == truth).mean()


def test_a_single_vote_each_is_believed_but_not_blindly() -> None:
    report = study([(str(row), f"p{row % 3}", "ab"[row % 2]) for row in range(60)])
    assert [report.labels[label] for label in report.consensus.label] == ["ab"[int(text) % 2] for text in report.ids]
    assert (report.consensus.confidence < 1).all()
    assert (report.consensus.confidence > 0.5).all()
    assert not report.alpha.known
    assert not any(row["accuracy"].known for row in report.quality)
    assert report.disputed == []


def test_one_vote_in_all() -> None:
    report = study([("x", "ann", "b")])
    assert report.labels[report.consensus.label[0]] == "b"
    assert report.n_votes == report.n_items == report.n_annotators == 1


def test_a_tie_is_decided_the_same_way_each_time_and_disputed() -> None:
    rows: list[tuple[str | None, str | None, str | None]] = [("x", "p", "a"), ("x", "q", "b")]
    rows += [(str(row), who, "ab"[row % 2]) for row in range(10) for who in "pq"]
    report = study(rows, {"x": "b"})
    again = study(rows[::-1], {"x": "b"})
    place = report.ids.index("x")
    assert report.consensus.confidence[place] < 0.9
    assert report.disputed[0]["id"] == "x"
    assert report.disputed == again.disputed


def test_who_always_says_the_same_is_worth_nothing() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 400)
    rows: list[tuple[str | None, str | None, str | None]] = []
    for row, label in enumerate(truth):
        rows += [(str(row), "same1", "a"), (str(row), "same2", "a")]
        rows += [
            (str(row), who, "ab"[label] if generator.random() < 0.9 else "ab"[1 - label]) for who in ("good", "fair")
        ]
    report = study_votes(table(rows), {}, ["a", "b"])
    said = np.array([report.consensus.label[report.ids.index(str(row))] for row in range(400)])
    assert (said == truth).mean() >= 0.85
    quality = {row["annotator"]: row["accuracy"].value for row in report.quality}
    assert quality["good"] > 0.8
    assert quality["same1"] < 0.65
    assert report.quality[0]["annotator"] in {"same1", "same2"}


def test_the_last_of_two_votes_counts() -> None:
    report = study([("x", "p", "a"), ("y", "p", "a"), ("x", "q", "b"), ("x", "p", "b")])
    assert report.n_repeated == 1
    assert report.n_votes == 3
    assert report.labels[report.consensus.label[report.ids.index("x")]] == "b"
    assert report.votes.tolist() == [2, 1]


def test_disputes_are_ranked_wrong_labels_first_and_surest_first() -> None:
    rows: list[tuple[str | None, str | None, str | None]] = []
    for row in range(40):
        rows += [(f"i{row:02d}", who, "ab"[row % 2]) for who in "pqrs"]
    rows += [("sure", who, "a") for who in "pqrs"]
    rows += [("split", "p", "a"), ("split", "q", "b")]
    rows += [("lean", "p", "b"), ("lean", "q", "b"), ("lean", "r", "b")]
    given = {f"i{row:02d}": "ab"[row % 2] for row in range(40)} | {"sure": "b", "split": "a", "lean": "a"}
    report = study(rows, given)
    assert [row["id"] for row in report.disputed] == ["sure", "lean", "split"]
    assert report.disputed[0]["given"] == "b"
    assert report.disputed[0]["consensus"] == "a"


def test_votes_on_rows_that_are_gone_are_counted() -> None:
    report = study([("x", "p", "a"), ("gone", "p", "a"), ("gone", "q", "b")], {"x": "a"})
    assert report.n_unknown == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("x", "p", "a"), ("y", "p", "bb")], "row 1, column 'label': 'bb'"),
        ([("x", "p", "a"), ("y", None, "b")], "row 1, column 'annotator' is empty"),
        ([("", "p", "a")], "row 0, column 'id' is empty"),
        ([("x", "p", None)], "row 0, column 'label' is empty"),
    ],
)
def test_a_wrong_cell_is_named(rows: list[tuple[str | None, str | None, str | None]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(rows)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="no column 'annotator'"):
        study_votes(pa.table({"id": ["x"], "label": ["a"]}), {}, ["a"])


def test_no_votes_at_all(tmp_path: Path) -> None:
    report = study([])
    assert (report.n_votes, report.n_items, report.n_annotators) == (0, 0, 0)
    assert not report.alpha.known
    report.write(tmp_path)
    assert pq.read_table(tmp_path / "consensus.parquet").num_rows == 0


def test_the_report_and_the_file(tmp_path: Path) -> None:
    report = study([("x", "p", "a"), ("x", "q", "a"), ("y", "p", "b")], {"x": "a", "y": "a"})
    part = report.as_dict()
    assert {"n_annotators", "n_votes", "alpha", "agreement_by_class", "quality", "disputed"} <= set(part)
    json.dumps({name: asdict(value) if name == "alpha" else str(value) for name, value in part.items()})
    report.write(tmp_path)
    written = pq.read_table(tmp_path / "consensus.parquet")
    assert written.column_names == ["id", "label", "confidence", "votes"]
    assert written["id"].to_pylist() == ["x", "y"]
    assert written["votes"].to_pylist() == [2, 1]
