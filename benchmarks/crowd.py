"""Consensus of crowd workers against the truth: majority vote, the shipped consensus, and cleanlab's, with 95 % Wilson intervals.

    python benchmarks/crowd.py --data FOLDER

FOLDER holds ``answer.csv`` (question, worker, answer) and ``truth.csv`` (question, truth).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.check_labels.annotators.study import study_votes
from kfloop.core.statistics.estimate import wilson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def line(name: str, said: Mapping[str, str], truth: Mapping[str, str], seconds: float) -> None:
    """Print the accuracy of one method."""
    found = wilson(sum(said[item] == label for item, label in truth.items()), len(truth))
    print(f"{name:30} accuracy {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]  n {found.n}  {seconds:.2f} CPU s")


def cleanlab_consensus(frame: Any, labels: Sequence[str]) -> dict[str, str]:
    """Consensus of cleanlab, with the shares of each item's votes as its model: no features come with these tasks."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    wide = frame.pivot_table(index="id", columns="annotator", values="code", aggfunc="last")
    shares = np.stack([(wide == code).sum(axis=1) for code in range(len(labels))], axis=1).astype(float) + 0.5
    result = get_label_quality_multiannotator(wide, shares / shares.sum(axis=1, keepdims=True), verbose=False)
    codes = result["label_quality"]["consensus_label"].astype(int)
    return {str(item): labels[code] for item, code in zip(wide.index, codes, strict=True)}


def main(arguments: Sequence[str]) -> None:
    """Print one line for each method, and what the report says."""
    import pandas as pd
    import pyarrow as pa

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args(arguments).data
    answers = pd.read_csv(folder / "answer.csv", dtype=str)
    truth = dict(pd.read_csv(folder / "truth.csv", dtype=str).to_numpy().tolist())
    labels = sorted(set(truth.values()))
    votes = pa.table(
        {
            "id": answers["question"].to_list(),
            "annotator": answers["worker"].to_list(),
            "label": answers["answer"].to_list(),
        }
    )
    start = time.process_time()
    report = study_votes(votes, {}, labels)
    seconds = time.process_time() - start
    frame = answers.rename(columns={"question": "id", "worker": "annotator"})
    frame["code"] = [labels.index(label) for label in answers["answer"]]
    ids, item = np.unique(frame["id"], return_inverse=True)
    ballots = np.zeros((len(ids), len(labels)))
    np.add.at(ballots, (item, frame["code"].to_numpy()), 1)
    start = time.process_time()
    simple = {str(name): labels[place] for name, place in zip(ids, ballots.argmax(axis=1), strict=True)}
    line("majority vote", simple, truth, time.process_time() - start)
    start = time.process_time()
    other = cleanlab_consensus(frame, labels)
    line("cleanlab (shares as the model)", other, truth, time.process_time() - start)
    said = {name: labels[place] for name, place in zip(report.ids, report.consensus.label, strict=True)}
    line("kfloop (whole study)", said, truth, seconds)
    right = np.array([said[name] == truth[name] for name in report.ids])
    parts = np.digitize(report.consensus.confidence, [0.7, 0.9, 0.99])
    for part, name in enumerate(("below .7", ".7 to .9", ".9 to .99", "above .99")):
        inside = parts == part
        print(
            f"  confidence {name:10} n {inside.sum():5}  mean {report.consensus.confidence[inside].mean():.3f}  right {right[inside].mean():.3f}"
        )
    alpha = report.alpha
    print(
        f"  {report.n_votes} votes by {report.n_annotators} annotators on {report.n_items} items; alpha {alpha.value:.3f} [{alpha.low:.3f}, {alpha.high:.3f}]"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
