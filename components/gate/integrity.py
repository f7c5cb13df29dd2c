"""Implied conditions: what must hold before any rule means anything. They cannot be configured away.

The comparison must be about one challenger, on one dataset version, on test rows that no model was trained on; every
check must have run and said that it passed; and at least one rule must decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.components.gate.evidence import SOURCES, text
from kfloop.components.gate.measurement import number
from kfloop.components.gate.verdicts import Verdict, condition

if TYPE_CHECKING:
    from kfloop.components.gate.evidence import Evidence


def implied_verdicts(evidence: Evidence, enforced: int) -> list[Verdict]:
    """Judge the conditions of every decision.

    Args:
        evidence: The reports.
        enforced: Number of enforced rules that were judged.
    """
    return [
        *(_present(evidence, source) for source in SOURCES),
        _rules_exist(enforced),
        _validated(evidence),
        _one_challenger(evidence),
        _another_model(evidence),
        _one_dataset(evidence),
        *_unseen(evidence),
        *_compared(evidence),
        *_caused(evidence),
        _blessed(evidence),
    ]


def _present(evidence: Evidence, source: str) -> Verdict:
    there = source in evidence.reports
    why = evidence.absent.get(source, "it gave no report")
    return condition(
        f"report of {source}",
        met=True if there else None,
        good=f"step '{source}' reported",
        bad=f"step '{source}' proves nothing: {why}",
        advice=f"run the loop again, and read the log of step '{source}' if it fails again",
    )


def _rules_exist(enforced: int) -> Verdict:
    return condition(
        "at least one rule decides",
        met=True if enforced else None,
        good=f"{enforced} enforced rules decide",
        bad="no enforced rule was judged, and an empty rule set approves nothing",
        advice="give the loop file a rule with mode: enforce that applies, or leave gate.rules out for the default ones",
    )


def _validated(evidence: Evidence) -> Verdict:
    word = evidence.at("validate", "outcome_word")
    return condition(
        "data validation passed",
        met=None if word not in ("pass", "fail") else word == "pass",
        good="the dataset passed its expectations",
        bad=f"the validation of the dataset says {word!r}, expected 'pass'",
        advice="mend the data, or the suite if it asks too much (section Validation of the report)",
    )


def _one_challenger(evidence: Evidence) -> Verdict:
    evaluated = text(evidence.at("evaluate", "challenger", "digest"))
    blessed = text(evidence.at("bless", "model_digest"))
    return condition(
        "one challenger",
        met=None if evaluated is None or blessed is None else evaluated == blessed,
        good=f"the evaluated and the blessed model are the same, {evaluated}",
        bad=f"the evaluated model is {evaluated}, the blessed one {blessed}",
        advice="run the loop again: one of the two reports is of another round",
    )


def _another_model(evidence: Evidence) -> Verdict:
    challenger, champion = evidence.challenger_digest, evidence.champion_digest
    return condition(
        "challenger is another model",
        met=None if challenger is None else challenger != champion,
        good="the challenger is not the champion",
        bad=f"same model: the challenger {challenger} is the champion already"
        if challenger
        else "no challenger is named",
        advice="nothing is to be done, or change the data or the training so that another model comes out",
    )


def _one_dataset(evidence: Evidence) -> Verdict:
    """Every report names the dataset version it is about, and it is one: a report left over from another round is none of this one's evidence."""
    evaluated = text(evidence.at("evaluate", "dataset_digest"))
    named = {source: text(evidence.at(source, "dataset_digest")) for source in SOURCES if source in evidence.reports}
    silent = [source for source, digest in named.items() if digest is None]
    other = [f"{source} on {digest}" for source, digest in named.items() if digest not in {None, evaluated}]
    if silent:
        bad = f"the dataset is not named by: {', '.join(silent)}"
    else:
        bad = f"the evaluation is on dataset {evaluated}, but {', '.join(other)}"
    return condition(
        "one dataset version",
        met=None if silent or evaluated is None else not other,
        good=f"all reports are on dataset {evaluated}",
        bad=bad,
        advice="run the loop again: a report is of another round",
    )


def _unseen(evidence: Evidence) -> list[Verdict]:
    """No test row was trained on: a count above zero makes the comparison void, and so does no count."""
    models = ["challenger", "champion"] if evidence.has_champion else ["challenger"]
    verdicts = []
    for model in models:
        count = number(evidence.at("evaluate", "overlap", model))
        verdicts.append(
            condition(
                f"test rows unseen by the {model}",
                met=True if count == 0 else None,
                good=f"the {model} was trained on none of the test rows",
                bad=f"the {model} was trained on {count:g} of the test rows, so its score means nothing"
                if count is not None
                else f"nobody counted the test rows that the {model} was trained on",
                advice="keep rows in the split they were given (leave data.split as it was), or start a new loop under another name",
            )
        )
    return verdicts


def _compared(evidence: Evidence) -> list[Verdict]:
    """With a champion there must be a difference to it, whether or not a rule asks for one."""
    if not evidence.has_champion:
        return []
    whole = evidence.champion_digest is not None and isinstance(
        evidence.at("evaluate", "differences", "champion"), dict
    )
    silent = "the evaluation does not say whether there is a champion"
    return [
        condition(
            "compared with the champion",
            met=True if whole else None,
            good=f"compared with champion {evidence.champion_digest} on the same rows",
            bad="there is a champion, but no complete comparison with it" if evidence.tells_champion else silent,
            advice="run the loop again: without a comparison nothing says that the challenger is no worse",
        )
    ]


def _caused(evidence: Evidence) -> list[Verdict]:
    """A training that the monitor asked for names what it is for in a way that can be judged; one that a person asked for names nothing."""
    cause = evidence.at("evaluate", "cause")
    if cause is None:
        return []
    problems, parts = (evidence.at("evaluate", "cause", name) for name in ("problems", "parts"))
    whole = isinstance(problems, list) and isinstance(parts, list)
    pairs = len(evidence.of_cause("drifted")) == len(evidence.of_cause("old")) == len(parts) if whole else False
    why = "; ".join(map(str, problems)) if whole and problems else "the evaluation does not name its slices"
    named = ", ".join(evidence.of_cause("drifted")) or "no column that moved, so no slice of its own"
    return [
        condition(
            "cause can be judged",
            met=True if whole and pairs and not problems else None,
            good=f"the monitor's cause names {named}",
            bad=f"what the monitor asked for this training for cannot be judged: {why}",
            advice="bring the column back, or train without this cause (kfloop run); the monitor's evidence stands in the report of its round",
        )
    ]


def _blessed(evidence: Evidence) -> Verdict:
    """The server said yes, and shows the golden answers it gave: a trial that asked nothing has proved nothing."""
    passed = evidence.at("bless", "passed")
    failures = evidence.at("bless", "failures")
    why = (
        "; ".join(str(line) for line in failures[:3]) if isinstance(failures, list) and failures else "no reason given"
    )
    version = text(evidence.at("bless", "triton_version"))
    asked, apart, allowed = (number(evidence.at("bless", "golden", key)) for key in ("n", "max_abs_diff", "tolerance"))
    shown = version is not None and bool(asked) and apart is not None and allowed is not None and apart <= allowed
    if passed is False:
        bad = f"Triton did not bless the model: {why}"
    elif passed is True:
        bad = f"the blessing says that it passed, but shows no golden answers of a known server within a tolerance ({apart} of {allowed} on {asked})"
    else:
        bad = "the blessing does not say whether it passed"
    met = False if passed is False else True if passed is True and shown else None
    return condition(
        "blessed by a real server",
        met=met,
        good=f"Triton {version} loads the model and gives the golden answers",
        bad=bad,
        advice="read the server's words in section Blessing of the report",
    )
