"""The rules of each task when the loop file names none.

How the numbers were chosen, for classes (``benchmarks/gate.py`` and ``tests/components/test_gate.py`` simulate them): against the champion the
whole 95 % interval of the paired difference must stay above -5 points. With 360 test rows at 97 % accuracy an equal model passes in 99.9 % of
rounds, one 3 points worse in 29 %, 5 points worse in 2 % (2.5 % are meant), 7 points worse in less than .1 %. Errors, which have a unit, are
compared by their ratio: at most 5 % above the champion's. The baseline rule is a sanity check on the point estimate; a warning says where the
challenger is not surely better than the baseline.

Freshly labelled rows: on those that the champion's dataset version did not hold (``origin:new``) the interval must show a gain, because a tie is
no reason to replace the champion (.001 rather than 0, since rules are inclusive). That is asked from 30 such rows on, where a gain of 35
points is proved in 96 % of rounds (champion at 62 %; 82 % of rounds at 50 %) and one of 10 points in 17 to 30 %; the 60 labels with which
the monitor retrains leave about 15, on which a gain of 35 points would be proved in 51 to 72 %. With fewer a note says that nothing could be
shown, and the rules against getting worse decide. On all fresh rows together (``origin:fresh``), most of which the champion may know, nothing
must have become surely worse, from 20 rows on; and from 200 rows on, where an equal model passes in 90 % of rounds at 97 % accuracy (with 60
rows 27 %; at 90 % accuracy with 200 rows 56 %), the whole interval must stay above the same margin as overall.

A retraining for which drift named columns is also judged on what moved: where requests moved to (``drifted:*``) and on all other rows (``old:*``) it must not be
surely worse, from 20 rows on, and on the others from 200 rows on no worse by the same margin as overall; whether it is better where they moved to is a verdict that
warns. With fewer rows a note says that nothing could be shown: a champion that is wrong about most requests should not stay for a region that hardly any test row is left of.
At 90 % accuracy (``benchmarks/gate_drifted.py``) an equal challenger is refused by these rules in 2 to 3 % with 60 old rows, 41 to 47 % with 200 and 3 to 5 % with 600 (three
columns: at most 2, 61 to 70, 8 to 13 %); one that forgot 10 points is let through in 70 % with 60, and one that forgot 5 in 2 to 4 % from 200 on. Where the
moved rows are freshly labelled, ``origin:base`` holds nearly the same rows as ``old:*``, and its rule asks for proof from 60 rows on.

How many rows they ask for: with 60 rows one 5 points worse passes in 2 %, one 10 points worse in less than .5 %, but an equal one in 28 % (at
97 % accuracy; at 80 % in 12 %, and with 360 rows in 55 %): what an interval has not proved is not promoted. Areas under a curve ask for 50 rows
of the rarer kind, from where their intervals hold what they promise (``benchmarks/gate_intervals.py``). With fewer rows nothing is decided: write
rules on point estimates, as ``kfloop init`` does for small data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.sections import Rule

    Rules = tuple[Rule, ...]

SMALL_TEST_SET = 100  # test rows below which a calibration error is mostly the noise of nearly empty bins
STRICT = ("image", "audio")  # few pictures or sounds are alike by chance: one that is in two splits is the same one
SLOWEST = {
    "text": 200.0,
    "audio": 200.0,
    "nodes": 1000.0,
    "graphs": 1000.0,
}  # p95 in ms; a graph is answered as a whole
SLOWEST_OTHER = 100.0
ENOUGH = 60  # rows from which an interval tells models apart
ENOUGH_RANKED = 50  # rows of the rarer kind, for areas under a curve
ENOUGH_IN_SLICE = 20  # rows of a slice from which its becoming worse can be proved at all
ENOUGH_NEW = 30  # rows that are new to the champion, from which a gain on them can be proved
ENOUGH_FRESH = 200  # fresh rows from which an equal model mostly proves that it is no worse
SLOWEST_GENERATOR = 5000.0  # a diffusion model runs its network dozens of times for one sample


def default_rules(objective: str, modality: str, n_test: int, *, drifted: bool = False) -> Rules:
    """The rules of a task.

    Args:
        objective: What was learned; an unknown one gets the rules for classes, whose figures it lacks, so that it is rejected.
        modality: What an example is.
        n_test: Number of test rows; under 100 the calibration rule only warns.
        drifted: Whether the training is for drift that named columns, which are judged, too.
    """
    quality = _QUALITY.get(objective, _classes)(modality, n_test)
    cause = _CAUSED[objective]() if drifted and objective in _CAUSED else ()
    return (*quality, *cause, *_service(objective, modality))


def _service(objective: str, modality: str) -> Rules:
    """Latency, and what the label check says."""
    from kfloop.core.sections import Rule

    slowest = SLOWEST_GENERATOR if objective == "generation" else SLOWEST.get(modality, SLOWEST_OTHER)
    latency = Rule(metric="p95_ms", source="bless", at_most=slowest)
    if objective == "forecasting":  # there are no labels to check
        return (latency,)
    return (
        latency,
        Rule(metric="noise", source="labels", at_most=0.2, mode="warn"),
        # Rows of a coarse table or short texts may be alike without being the same; there it is only told.
        Rule(metric="leakage", source="labels", at_most=0.02, mode="enforce" if modality in STRICT else "warn"),
    )


def _versus_champion(metric: str, margin: float, enough: int = ENOUGH) -> Rules:
    """Not worse overall, on the rows of old and on fresh ones; better on fresh ones that are new to the champion. Of figures of which more is better."""
    return _compared(metric, enough, lambda gain: {"at_least": gain}, margin=-margin, lost=-0.02, won=0.001)


def _error_versus_champion(metric: str, margin: float) -> Rules:
    """The same for errors, as shares of the champion's."""
    return _compared(
        metric, ENOUGH, lambda gain: {"relative": True, "at_most": gain}, margin=margin, lost=0.02, won=-0.001
    )


def _compared(
    metric: str, enough: int, bound: Callable[[float], dict[str, Any]], *, margin: float, lost: float, won: float
) -> Rules:
    """The rules beside the champion, whichever way is better.

    Args:
        metric: The figure.
        enough: Rows that intervals ask for.
        bound: A difference as the rule spells it.
        margin: Difference that is still no worse.
        lost: Difference on fresh rows beyond which the challenger is surely worse.
        won: Difference that is a gain.
    """
    from kfloop.core.sections import Rule

    def rule(difference: float, **more: Any) -> Rule:
        return Rule(metric=metric, versus="champion", **bound(difference), **more)

    interval, fresh = {"use": "interval"}, {"slice": "origin:fresh", "when": "large_enough"}
    return (
        rule(margin, **interval, min_n=enough),
        rule(margin, **interval, min_n=enough, slice="origin:base", when="slice_exists"),
        rule(lost, **fresh, use="unless_refuted", min_n=ENOUGH_IN_SLICE),
        rule(margin, **fresh, **interval, min_n=ENOUGH_FRESH),
        rule(won, **interval, min_n=ENOUGH_NEW, slice="origin:new", when="large_enough"),
    )


def _mended(metric: str, margin: float) -> Rules:
    """No worse on the old distribution, not surely worse where requests moved to, and whether it is better there. Of figures of which more is better."""
    return _caused(metric, lambda gain: {"at_least": gain}, margin=-margin, lost=-0.02, won=0.001)


def _error_mended(metric: str, margin: float) -> Rules:
    """The same for errors, as shares of the champion's."""
    return _caused(metric, lambda gain: {"relative": True, "at_most": gain}, margin=margin, lost=0.02, won=-0.001)


def _caused(metric: str, bound: Callable[[float], dict[str, Any]], *, margin: float, lost: float, won: float) -> Rules:
    """The rules on the slices of the cause; the arguments are those of ``_compared``."""
    from kfloop.core.sections import Rule

    def rule(difference: float, place: str, **more: Any) -> Rule:
        return Rule(metric=metric, versus="champion", slice=f"{place}:*", **bound(difference), **more)

    surely, large = {"use": "unless_refuted", "min_n": ENOUGH_IN_SLICE}, {"when": "large_enough"}
    return (
        rule(lost, "old", **surely, **large),
        rule(margin, "old", use="interval", **large, min_n=ENOUGH_FRESH),
        rule(lost, "drifted", **surely, **large),
        rule(won, "drifted", use="interval", when="slice_exists", min_n=ENOUGH_NEW, mode="warn"),
    )


def _classes(modality: str, n_test: int) -> Rules:
    from kfloop.core.sections import Rule

    picture = modality == "image"
    calibrated: Literal["enforce", "warn"] = "enforce" if picture and n_test >= SMALL_TEST_SET else "warn"
    return (
        Rule(metric="accuracy", at_least=0.8 if picture else 0.6),
        Rule(metric="accuracy", at_least=0.6 if picture else 0.5, use="interval", min_n=ENOUGH),
        Rule(metric="accuracy", slice="class:*", at_least=0.5 if picture else 0.3, min_n=3),
        Rule(metric="ece", at_most=0.1, mode=calibrated),
        Rule(metric="accuracy", versus="baseline", at_least=-0.02 if picture else -0.03),
        Rule(metric="accuracy", versus="baseline", at_least=0.0, use="interval", min_n=ENOUGH, mode="warn"),
        *_versus_champion("accuracy", 0.05),
        Rule(
            metric="accuracy",
            versus="champion",
            slice="class:*",
            at_least=-0.02,
            use="unless_refuted",
            min_n=ENOUGH_IN_SLICE,
            when="large_enough",
        ),
    )


def _sets(modality: str, n_test: int) -> Rules:
    from kfloop.core.sections import Rule

    del modality, n_test
    return (
        Rule(metric="micro_f1", at_least=0.5),
        Rule(metric="micro_f1", at_least=0.3, use="interval", min_n=ENOUGH),
        Rule(metric="f1", slice="class:*", at_least=0.1, mode="warn"),
        Rule(metric="micro_f1", versus="baseline", at_least=-0.03),
        *_versus_champion("micro_f1", 0.05),
    )


def _numbers(modality: str, n_test: int) -> Rules:
    from kfloop.core.sections import Rule

    del modality, n_test
    return (
        Rule(metric="r2", at_least=0.2),
        Rule(metric="r2", at_least=0.0, use="interval", min_n=ENOUGH),  # surely better than always saying the mean
        Rule(metric="rmse", versus="baseline", relative=True, at_most=0.1),
        *_error_versus_champion("rmse", 0.05),
    )


def _forecasts(modality: str, n_test: int) -> Rules:
    from kfloop.core.sections import Rule

    del modality, n_test
    return (
        # In standard deviations of the training series; one that drifts away may exceed 1 with the best forecast.
        Rule(metric="mse", at_most=2.0, min_n=ENOUGH),
        Rule(metric="mse", versus="baseline", relative=True, at_most=0.1),
        *_error_versus_champion("mse", 0.05),
        Rule(metric="mse", versus="champion", relative=True, slice="channel:*", at_most=0.25),
    )


def _anomalies(modality: str, n_test: int) -> Rules:
    from kfloop.core.sections import Rule

    del modality, n_test
    return (
        Rule(metric="auroc", at_least=0.6),
        Rule(metric="auroc", at_least=0.5, use="interval", min_n=ENOUGH_RANKED),
        Rule(metric="auroc", versus="baseline", at_least=-0.05),
        *_versus_champion("auroc", 0.05, ENOUGH_RANKED),
    )


def _samples(modality: str, n_test: int) -> Rules:
    from kfloop.core.sections import Rule

    del modality, n_test
    return (
        Rule(metric="train_on_samples", at_least=0.5, min_n=ENOUGH),
        Rule(metric="classes", at_least=0.8),
        Rule(metric="copies", at_most=0.1),
        Rule(metric="train_on_samples", versus="baseline", at_least=-0.1),
        Rule(metric="frechet_distance", versus="baseline", relative=True, at_most=0.0, mode="warn"),
        Rule(metric="train_on_samples", versus="champion", at_least=-0.05, use="interval", min_n=ENOUGH),
        Rule(metric="frechet_distance", versus="champion", relative=True, at_most=0.1, use="interval", min_n=ENOUGH),
    )


_QUALITY: dict[str, Callable[[str, int], Rules]] = {
    "classification": _classes,
    "multilabel": _sets,
    "regression": _numbers,
    "forecasting": _forecasts,
    "anomaly": _anomalies,
    "generation": _samples,
}

_CAUSED: dict[str, Callable[[], Rules]] = {
    "classification": lambda: _mended("accuracy", 0.05),
    "multilabel": lambda: _mended("micro_f1", 0.05),
    "regression": lambda: _error_mended("rmse", 0.05),
    "anomaly": lambda: _mended("auroc", 0.05),
}
