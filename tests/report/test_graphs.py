"""What the package section shows of variants of the graph."""

from typing import Any

from kfloop.report.sections import graphs

VARIANTS: list[dict[str, Any]] = [
    {
        "name": "fp32",
        "served": False,
        "bytes": 275_756,
        "small": None,
        "problem": None,
        "max_abs_diff": {"probabilities": 1.3e-7},
        "agreement": None,
        "metric": "accuracy",
        "score": 0.98,
        "ms_per_row": {"1": 0.0408, "32": 0.0219},
    },
    {
        "name": "int8",
        "served": True,
        "bytes": 86_940,
        "small": 0.991,
        "problem": None,
        "max_abs_diff": {"probabilities": 0.0831},
        "agreement": {"value": 0.996, "low": 0.979, "high": 0.999, "n": 270, "level": 0.95},
        "metric": "accuracy",
        "score": 0.977,
        "ms_per_row": {"1": 0.0322, "32": 0.0151},
    },
    {
        "name": "fp16",
        "served": False,
        "problem": "its output <b> is not finite",
        "max_abs_diff": {"probabilities": None},
    },
]


def test_each_graph_has_a_row_and_what_did_not_pass_is_told() -> None:
    found = graphs.build(VARIANTS)
    assert found["columns"][:5] == ["graph", "", "size", "small weights", "probabilities off"]
    assert found["columns"][5:] == ["agreement", "accuracy", "ms, batch 1 / 32"]
    whole, eight, half = found["rows"]
    assert {len(row) for row in found["rows"]} == {len(found["columns"])}
    assert whole[:5] == ["fp32", "passed", "276 kB", "", "1.3e-07"]
    assert eight[:5] == ["int8", "served", "87 kB", "99.1 %", "0.083"]
    assert eight[-1] == "0.032 / 0.015"
    assert half == ["fp16", "did not pass", "", "", "not finite", "", "", ""]
    assert found["problems"] == ["fp16: its output <b> is not finite"]


def test_without_variants_or_with_damaged_ones_nothing_breaks() -> None:
    assert graphs.build([])["rows"] == []
    odd: list[dict[str, Any]] = [{"name": 3, "bytes": "x", "ms_per_row": [1], "max_abs_diff": 7, "agreement": "?"}, {}]
    assert len(graphs.build(odd)["rows"]) == 2
