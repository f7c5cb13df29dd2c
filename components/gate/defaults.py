"""The rules of each task when the loop file names none.

How the numbers were chosen, for classes (``tests/components/test_gate.py`` simulates them on 360 test rows): against the champion the
whole 95 % interval of the paired difference must stay above -5 points. At 97 % accuracy an equal model passes in 99.9 % of rounds, one 3
points worse in 40 %, 5 points worse in 4 % (nominally 2.5 %: the percentile bootstrap is a little narrow), 7 points worse in less than
1 %. Errors, which have a unit, are compared by their ratio: at most 5 % above the champion's. On freshly labelled rows the interval
must show a gain: a tie is no reason to replace the champion (.001 rather than 0, since rules are inclusive). The baseline rule is a sanity
check on the point estimate.

How many rows they ask for (simulated at the margin, where 2.5 % are meant): with 60 rows a challenger 5 points worse passes in 4 to 12 % of
rounds, one 10 points worse in less than 1.5 %; with 10 rows and a bare bootstrap that is 19 to 56 % and 11 to 33 %. Areas under a curve err
alike with 20 rows of the rarer kind (4 to 12 %, and less than 1 %; with 3 in up to 38 % and 15 %). With fewer rows nothing is decided:
write rules on point estimates, as ``kfloop init`` does for small data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
ENOUGH_RANKED = 20  # rows of the rarer kind, for areas under a curve
SLOWEST_GENERATOR = 5000.0  # a diffusion model runs its network dozens of times for one sample


def default_rules(objective: str, modality: str, n_test: int) -> Rules:
    """The rules of a task.

    Args:
        objective: What was learned; an unknown one gets the rules for classes, whose figures it lacks, so that it is rejected.
        modality: What an example is.
        n_test: Number of test rows; under 100 the calibration rule only warns.
    """
    quality = _QUALITY.get(objective, _classes)(modality, n_test)
    return (*quality, *_service(objective, modality))


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
    """Not worse overall and on the rows of old; better on freshly labelled ones. For figures of which more is better."""
    from kfloop.core.sections import Rule

    return (
        Rule(metric=metric, versus="champion", at_least=-margin, use="interval", min_n=enough),
        Rule(
            metric=metric,
            versus="champion",
            slice="origin:base",
            at_least=-margin,
            use="interval",
            min_n=enough,
            when="slice_exists",
        ),
        Rule(
            metric=metric,
            versus="champion",
            slice="origin:fresh",
            at_least=0.001,
            use="interval",
            min_n=20,
            when="slice_exists",
        ),
    )


def _error_versus_champion(metric: str, margin: float) -> Rules:
    """The same for errors, as shares of the champion's."""
    from kfloop.core.sections import Rule

    return (
        Rule(metric=metric, versus="champion", relative=True, at_most=margin, use="interval", min_n=ENOUGH),
        Rule(
            metric=metric,
            versus="champion",
            relative=True,
            slice="origin:base",
            at_most=margin,
            use="interval",
            min_n=ENOUGH,
            when="slice_exists",
        ),
        Rule(
            metric=metric,
            versus="champion",
            relative=True,
            slice="origin:fresh",
            at_most=-0.001,
            use="interval",
            min_n=20,
            when="slice_exists",
        ),
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
        *_versus_champion("accuracy", 0.05),
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
