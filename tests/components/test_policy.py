"""The policy, enumerated: every combination of causes, sizes, clocks, labels and attempts gives one trigger, and never one that costs a training run for nothing."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from kfloop.components.monitor.policy.causes import (
    DATA_QUALITY,
    DRIFT,
    ESTIMATED,
    KINDS,
    MANUAL,
    REALISED,
    SCHEDULE,
    UNKNOWN,
    Cause,
)
from kfloop.components.monitor.policy.concluding import TRIGGERS, Attempt, Facts, conclude
from kfloop.components.monitor.policy.freshness import Labels
from kfloop.core.sections import MonitorConfig
from kfloop.core.statistics.estimate import Estimate

NOW = 1_800_000_000.0
MINUTE, DAY = 60.0, 86_400.0
KNOWN = Estimate(value=0.8, low=0.75, high=0.85, n=600)
ENOUGH = Labels(fresh=80, known=100)


def cause(kind: str = DRIFT, **changes: Any) -> Cause:
    """A cause that was declared and matters."""
    size = KNOWN if kind in (DRIFT, ESTIMATED, REALISED) else UNKNOWN
    base: dict[str, Any] = {"declared": True, "matters": True, "size": size, "key": "150", "reason": f"[{kind}]"}
    return Cause(kind=kind, **(base | changes))


def quiet(kind: str = DRIFT, **changes: Any) -> Cause:
    return cause(kind, **({"declared": False, "matters": False} | changes))


def facts(*causes: Cause, settings: dict[str, Any] | None = None, **changes: Any) -> Facts:
    base: dict[str, Any] = {"now": NOW, "champion": "champion", "labels": ENOUGH, "causes": causes or (cause(),)}
    return Facts(config=MonitorConfig(**(settings or {})), **(base | changes))


def ago(minutes: float, **changes: Any) -> Attempt:
    return Attempt(at=NOW - minutes * MINUTE, champion="champion", **changes)


@pytest.mark.parametrize(
    ("given", "outcome", "words"),
    [
        (facts(), "retrain", "80 new labelled rows"),
        (facts(problem="the log is empty"), "not_evaluated", "the log is empty"),
        (facts(quiet(reason="no drift in 500 rows")), "none", "no drift in 500 rows"),
        (facts(quiet(), quiet(REALISED)), "none", r"\[drift\]; \[realised\]"),
        (facts(cause(matters=False)), "none", "too small"),
        (facts(cause(matters=None, size=UNKNOWN)), "not_evaluated", "size is unknown"),
        (facts(cause(size=UNKNOWN)), "not_evaluated", "size is unknown"),  # a watch that calls NaN large
        (facts(cause(size=Estimate(value=0.9, low=math.nan, high=1.0, n=9))), "not_evaluated", "9 rows are too few"),
        (facts(cause(matters=False, size=UNKNOWN)), "not_evaluated", "size is unknown"),
        (facts(labels=None), "needs_labels", "data.fresh"),
        (facts(labels=Labels(fresh=59, known=999)), "needs_labels", "only 59"),
        (facts(labels=Labels(fresh=60, known=60)), "retrain", ""),
        (facts(under_way=("run r1",)), "in_flight", "run r1"),
        (facts(under_way=("the roll-out of version 4",)), "in_flight", "roll-out of version 4"),
        # what counts
        (facts(cause(DATA_QUALITY)), "none", "monitor.causes leaves out"),
        (facts(cause(DATA_QUALITY, matters=False), settings={"causes": ("data_quality",)}), "retrain", "data_quality"),
        (facts(cause(DATA_QUALITY, matters=False)), "none", "leaves out"),
        (facts(cause(DRIFT), settings={"causes": ("realised",)}), "none", "leaves out"),
        (facts(cause(DRIFT), cause(REALISED), settings={"causes": ("realised",)}), "retrain", r"^\[realised\]"),
        (facts(settings={"causes": ()}), "none", "leaves out"),
        # which one
        (facts(*(cause(kind) for kind in KINDS)), "retrain", r"^\[manual\]"),
        (facts(cause(DRIFT), cause(ESTIMATED), cause(REALISED)), "retrain", r"^\[realised\]"),
        (facts(cause(DRIFT), cause(ESTIMATED)), "retrain", r"^\[drift\]"),
        (facts(cause(DRIFT), cause(REALISED, matters=False)), "retrain", r"^\[drift\]"),
        (facts(cause(DRIFT, matters=None), cause(ESTIMATED, size=UNKNOWN)), "not_evaluated", r"^\[drift\]"),
        # what refutes
        (facts(cause(), quiet(REALISED, refutes=True)), "none", r"^\[drift\], but \[realised\]$"),
        (facts(cause(ESTIMATED), quiet(REALISED, refutes=True)), "none", "but"),
        (facts(cause(size=UNKNOWN), quiet(REALISED, refutes=True)), "none", "but"),
        (facts(cause(), cause(REALISED, refutes=True)), "retrain", r"^\[realised\]"),  # it contradicts itself
        (facts(cause(), cause(REALISED, refutes=True, matters=False)), "retrain", r"^\[drift\]"),
        (facts(cause(SCHEDULE), quiet(REALISED, refutes=True)), "retrain", r"^\[schedule\]"),
        # beside the rows
        (facts(cause(MANUAL), problem="the log is empty", labels=None), "retrain", r"^\[manual\]$"),
        (facts(cause(SCHEDULE), problem="the log is empty", labels=None), "retrain", r"^\[schedule\]$"),
        (facts(cause(SCHEDULE), labels=Labels(fresh=3, known=3)), "needs_labels", "only 3"),
        (facts(cause(DRIFT), cause(SCHEDULE), labels=None), "retrain", r"^\[schedule\]"),
        (facts(cause(REALISED), problem="most rows are unusable"), "not_evaluated", "unusable"),
        (facts(cause(MANUAL), attempts=(ago(0.1, decided=True, promoted=True, labels=100),)), "retrain", ""),
        (facts(cause(MANUAL), under_way=("run r1",)), "in_flight", ""),
        (facts(cause(MANUAL), attempts=(ago(1),), settings={"max_retrains_per_month": 1}), "over_budget", ""),
        # clocks
        (facts(attempts=(ago(59.9),)), "cooldown", "59.9 minutes ago, 60 must pass"),
        (facts(attempts=(ago(60),)), "retrain", ""),
        (facts(attempts=(ago(-59),)), "cooldown", "0.0 minutes ago"),  # a clock a little ahead
        (
            facts(attempts=(ago(-1e6),)),
            "retrain",
            "",
        ),  # a clock that was set back by two years: it must not bind us so long
        (facts(attempts=(ago(-1e6), ago(5))), "cooldown", "5.0 minutes"),
        (facts(attempts=(ago(1439, promoted=True, decided=True),)), "cooldown", "promoted was triggered 1439.0"),
        (facts(attempts=(ago(1440, promoted=True, decided=True),)), "retrain", ""),
        (facts(attempts=(ago(600, promoted=True, decided=True), ago(61))), "cooldown", "promoted"),
        (
            facts(attempts=(ago(600, promoted=True),), settings={"cooldown_after_success_minutes": 0}),
            "retrain",
            "",
        ),
        (facts(attempts=(ago(5),), settings={"cooldown_minutes": 0}), "retrain", ""),
        # budget
        (facts(attempts=tuple(ago(100 + i) for i in range(10))), "over_budget", "10 retrainings"),
        (facts(attempts=tuple(ago(100 + i) for i in range(9))), "retrain", ""),
        (facts(attempts=tuple(ago(30 * 1440.0 + i) for i in range(10))), "retrain", ""),
        (facts(attempts=tuple(ago(-1e6 - i) for i in range(10))), "retrain", ""),
        # at most one for one cause
        (facts(attempts=(ago(99, decided=True, labels=100),)), "needs_labels", "label 20 more"),
        (facts(attempts=(ago(99, decided=False, labels=100),)), "retrain", ""),
        (facts(cause(REALISED, key="9"), attempts=(ago(99, decided=True, labels=100),)), "needs_labels", ""),
        (facts(attempts=(ago(99, decided=True, labels=84),)), "retrain", ""),  # 64 were new then: 16 more are enough
        (facts(attempts=(ago(99, decided=True, labels=85),)), "needs_labels", "label 2 more"),
        (facts(attempts=(ago(99, decided=True, labels=100), ago(70, labels=100))), "needs_labels", ""),
        (facts(attempts=(Attempt(at=0.0, champion="other", decided=True, labels=100),)), "retrain", ""),
        (facts(attempts=(ago(99, decided=True, labels=None),)), "retrain", ""),
        (facts(attempts=(ago(99, decided=True, labels=10),)), "retrain", ""),  # none was new to this champion
    ],
)
def test_policy(given: Facts, outcome: str, words: str) -> None:
    import re

    conclusion = conclude(given)
    assert conclusion.outcome == outcome, conclusion.reason
    assert re.search(words, conclusion.reason), conclusion.reason


OBSTACLES = {  # in the order of the policy
    "in_flight": {"under_way": ("run r1",)},
    "needs_labels": {"labels": Labels(fresh=1, known=1)},
    "cooldown": {"attempts": (ago(5),)},
    "over_budget": {"attempts": tuple(ago(120) for _ in range(10))},
}


def test_the_first_obstacle_is_told() -> None:
    names = list(OBSTACLES)
    for chosen in product((False, True), repeat=len(names)):
        standing = [name for name, taken in zip(names, chosen, strict=True) if taken]
        changes: dict[str, Any] = {}
        for name in standing:
            both = changes.get("attempts", ()) + OBSTACLES[name].get("attempts", ())
            changes |= OBSTACLES[name] | ({"attempts": tuple(sorted(both, key=lambda a: a.at))} if both else {})
        assert conclude(facts(**changes)).outcome == (standing[0] if standing else "retrain"), standing
    tried = tuple(ago(120, decided=True, labels=100) for _ in range(10))
    assert "the champion stayed" in conclude(facts(attempts=tried)).reason  # before the budget


def test_every_combination_obeys_the_laws() -> None:
    """75 thousand combinations of facts: what may never be."""
    declared = (
        quiet(),
        cause(),
        cause(matters=False),
        cause(matters=None, size=UNKNOWN),
        cause(size=UNKNOWN),
        cause(matters=False, refutes=True),
    )
    realised = (
        None,
        quiet(REALISED),
        quiet(REALISED, refutes=True),
        cause(REALISED),
        cause(REALISED, matters=False),
        cause(REALISED, refutes=True),
        cause(REALISED, size=UNKNOWN),
    )
    beside = ((), (cause(DATA_QUALITY, matters=False),), (cause(SCHEDULE),), (cause(MANUAL),))
    labels = (None, Labels(fresh=0, known=0), Labels(fresh=59, known=400), ENOUGH)
    attempts = (
        (),
        (ago(5),),
        (ago(-5),),
        (ago(-1e7),),
        (ago(500, decided=True, promoted=True),),
        (ago(5000, decided=True, labels=100),),
        tuple(ago(100) for _ in range(12)),
    )
    counted = (("drift", "estimated", "realised"), ("realised",), ("data_quality",), ())
    configs = {kinds: MonitorConfig(causes=kinds) for kinds in counted}
    seen: set[str] = set()
    for drift, real, more, known, past, kinds, problem, busy in product(
        declared, realised, beside, labels, attempts, counted, (None, "unreadable"), ((), ("run r1",))
    ):
        given = Facts(
            config=configs[kinds],
            now=NOW,
            problem=problem,
            causes=(drift, *((real,) if real else ()), *more),
            champion="champion",
            under_way=busy,
            labels=known,
            attempts=past,
        )
        found = conclude(given)
        seen.add(found.outcome)
        assert found.outcome in TRIGGERS
        assert found.reason
        asked = {item.kind for item in more} & {MANUAL, SCHEDULE}
        if found.outcome == "retrain":
            assert found.cause is not None
            assert found.fingerprint
            assert found.cause.declared
            assert found.cause.matters or found.cause.kind == DATA_QUALITY
            assert found.cause.kind in (*kinds, MANUAL, SCHEDULE)
            assert not busy
            assert found.cause.size.known or found.cause.kind in (MANUAL, SCHEDULE, DATA_QUALITY)
            assert problem is None or found.cause.kind in asked
            assert found.cause.kind in asked or (known is not None and known.fresh >= 60)
            assert len(past) < 10
            if real is not None and real.refutes and not real.declared:
                assert found.cause.kind != DRIFT
        if problem is not None and not asked:
            assert found.outcome == "not_evaluated"
    assert seen == set(TRIGGERS)


def test_the_fingerprint_tells_champion_cause_and_labels_apart_and_nothing_else() -> None:
    marks = {
        conclude(facts(cause(kind, key=key), champion=champion, labels=Labels(fresh=70, known=known))).fingerprint
        for kind, key, champion, known in product((DRIFT, REALISED), ("1", "2"), ("a", "b"), (70, 90))
    }
    assert len(marks) == 16
    later = conclude(facts(cause(reason="told otherwise"), now=NOW + DAY, attempts=(ago(100),)))
    assert later.fingerprint == conclude(facts()).fingerprint
    assert conclude(facts(quiet())).fingerprint == ""


def test_labels_that_the_log_has_deleted_do_not_stand_in_the_way_for_ever() -> None:
    """The log keeps 30 days: after those fewer labels are known than when the last retraining was tried, however many came since."""
    tried = (ago(60 * DAY / MINUTE, labels=2000, decided=True),)

    def with_answers(count: int, days_ago: float) -> Facts:
        told = tuple(NOW - days_ago * DAY + place for place in range(count))
        return facts(attempts=tried, labels=Labels(fresh=count, known=count, told=told))

    assert conclude(with_answers(500, 20)).outcome == "retrain"  # a quarter of what was learned from then
    some = conclude(with_answers(499, 20))
    assert some.outcome == "needs_labels"
    assert some.reason.endswith("label 1 more")
    old = conclude(with_answers(900, 80))  # known when it was tried
    assert (old.outcome, "label 500 more" in old.reason) == ("needs_labels", True)
    untold = conclude(facts(attempts=tried, labels=Labels(fresh=900, known=900)))
    assert (untold.outcome, "label 1600 more" in untold.reason) == ("needs_labels", True)
