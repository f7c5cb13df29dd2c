"""The plots of what models answered: predicted over true numbers, forecasts beside what came, ROC curves, scores of odd rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kfloop.report.figures import BAD, FIRST, INK, MUTED, OF_MODEL, SECOND, canvas, svg
from kfloop.report.values import decimal

_DASH = (0, (3, 3))
_DENSE = 150  # points from which they are drawn smaller

Numbers = Sequence[float]


def scatter(true: Numbers, predicted: Mapping[str, Numbers]) -> str:
    """Predicted over true numbers, one plot for each model; on the dashed line both agree.

    Args:
        true: True number of each row.
        predicted: By model, in the order of ``true``; at most two models are drawn.
    """
    models = [name for name in OF_MODEL if name in predicted][:2]
    ends = [*true, *(value for name in models for value in predicted[name])]
    low, high = min(ends), max(ends)
    with canvas(4.2 * len(models), 3.6, columns=len(models)) as (figure, places):
        for axes, name in zip(places, models, strict=True):
            axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=_DASH)
            size = 3.5 if len(true) < _DENSE else 2.5
            axes.plot(true, predicted[name], "o", color=OF_MODEL[name], markersize=size, alpha=0.6, markeredgewidth=0)
            axes.set(xlabel="true", ylabel="predicted", title=name)
        return svg(figure, "scatter", f"Predicted over true numbers of {len(true)} test rows, for {', '.join(models)}.")


def forecast(name: str, title: str, past: Numbers, true: Numbers, forecasts: Mapping[str, Numbers]) -> str:
    """The end of what a model saw, what came, and what each model said would come.

    Args:
        name: Unique name of the plot.
        title: Channel and window.
        past: Values before.
        true: Values that came.
        forecasts: By model, in the order of ``true``.
    """
    with canvas(4.7, 2.2) as (figure, (axes,)):
        axes.plot(range(-len(past) + 1, 1), past, color=MUTED, linewidth=1.3)
        # The last known value belongs to every line, so that none begins in the air.
        steps = range(len(true) + 1)
        axes.plot(steps, [past[-1], *true], color=INK, linewidth=1.6, label="true")
        for model, values in forecasts.items():
            if model in OF_MODEL:
                axes.plot(steps, [past[-1], *values], color=OF_MODEL[model], linewidth=1.6, label=model)
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=_DASH)
        axes.set_title(title)
        axes.set_xlabel("steps ahead")
        axes.locator_params(axis="y", nbins=5)
        figure.legend(loc="outside upper left", ncols=4, handlelength=1, labelcolor=INK)
        return svg(figure, name, f"{title}: {len(true)} steps of a forecast and what came.")


def by_step(errors: Mapping[str, Numbers]) -> str:
    """The error at each step ahead, by model."""
    with canvas(4.7, 2.6) as (figure, (axes,)):
        for model, values in errors.items():
            marker = "o" if len(values) == 1 else None
            axes.plot(range(1, len(values) + 1), values, color=OF_MODEL.get(model, MUTED), label=model, marker=marker)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("steps ahead")
        axes.set_title("mean squared error, in standard deviations")
        axes.legend(labelcolor=INK)
        return svg(figure, "by-step", f"Mean squared error by step ahead, for {', '.join(errors)}.")


def roc(curves: Mapping[str, tuple[Numbers, Numbers]], positive: str) -> str:
    """ROC curves.

    Args:
        curves: False and true positive rates by model.
        positive: What should score high.
    """
    with canvas(4.2, 3.6) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=_DASH)
        for model, (false, true) in curves.items():
            axes.plot(false, true, color=OF_MODEL.get(model, MUTED), label=model)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel="false positive rate", ylabel="true positive rate")
        axes.set_title(f"finding {positive[:60]}")
        axes.legend(labelcolor=INK, loc="lower right")
        return svg(figure, "roc", f"ROC curves of finding {positive[:60]}, for {', '.join(curves)}.")


def scores(edges: Numbers, normal: Numbers, odd: Numbers) -> str:
    """How the challenger scores normal and odd rows, each as shares of their kind.

    Args:
        edges: Ends of the bins.
        normal: Normal rows in each bin.
        odd: Odd rows in each bin.
    """
    with canvas(4.7, 3.0) as (figure, (axes,)):
        for counts, colour, label in ((normal, FIRST, "normal"), (odd, BAD, "odd")):
            total = sum(counts) or 1.0
            shares = [count / total for count in counts]
            axes.stairs(shares, edges, color=colour, linewidth=1.6, label=label)
        axes.set(xlabel="score", ylabel="share of rows")
        axes.locator_params(axis="both", nbins=6)
        axes.legend(labelcolor=INK)
        return svg(figure, "scores", f"Scores of {decimal(sum(normal), 0)} normal and {decimal(sum(odd), 0)} odd rows.")


def risk_coverage(curve: Sequence[tuple[float, float]], allowed: float, here: tuple[float, float] | None) -> str:
    """Share of wrong answers over the share that is accepted, the most confident first.

    Args:
        curve: Points (share accepted, share of these that is wrong).
        allowed: Share of wrong answers that is allowed, a dashed line.
        here: Where the thresholds by class stand; null where they accept nothing.
    """
    with canvas(4.4, 3.2) as (figure, (axes,)):
        axes.step(*zip(*curve, strict=True), where="post", color=FIRST, label="one threshold for all")
        axes.axhline(allowed, color=MUTED, linewidth=1, linestyle=_DASH)
        if here is not None:
            axes.plot(
                *here,
                color=SECOND,
                marker="D",
                markersize=7,
                linestyle="none",
                label="thresholds by class",
                clip_on=False,
                zorder=3,
            )
        highest = max([allowed, *(wrong for _, wrong in curve), here[1] if here else 0.0])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.25 * highest or 1), xlabel="accepted answers", ylabel="wrong among them")
        axes.legend(labelcolor=INK, loc="upper left")
        whole = curve[-1][1]
        alt = (
            f"Risk over coverage on test rows: {whole:.1%} wrong where all answers are accepted, {allowed:.1%} allowed"
        )
        at = (
            f"; the thresholds accept {here[0]:.1%} with {here[1]:.1%} wrong."
            if here
            else "; the thresholds accept none."
        )
        return svg(figure, "risk-coverage", alt + at)
