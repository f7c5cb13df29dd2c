"""False alarms and power of the drift watch, beside peers at an equal whole-schedule false-alarm rate. Seeded.

    python benchmarks/drift.py power --runs 60        100 checks of 200 rows, 20 columns, a change at check 50, kfloop and its peers
    python benchmarks/drift.py quiet --runs 40        10000 checks without drift: iid, seasonal and autocorrelated streams
    python benchmarks/drift.py images --runs 60       corruptions of five severities, on embedding and outputs of a classifier of digits

Peers need river (ADWIN), and Evidently an environment of its own (--evidently PYTHON). Every line says how many runs, and shares come with 95 % Clopper-Pearson intervals. Delays count checks: 1 is the
first check after the change. A run that alarmed before the change counts as not found.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from drift_peers import STATISTICS, Windows, add_evidently, calibrated
from drift_streams import CHANGES, STREAMS, corrupted, digits, iid

from kfloop.core.drift.budget import Budget
from kfloop.core.drift.fitting import fit_watch
from kfloop.core.drift.settings import Settings
from kfloop.core.drift.state import State
from kfloop.core.drift.watch import Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CHECK, CHECKS, CHANGE_AT, AFTER, LEVEL, COLUMNS = 200, 100, 50, 50, 0.05, 20
NEVER = AFTER + 1
CALIBRATION = 100


def clopper(found: int, n: int) -> str:
    """A share with its exact 95 % interval."""
    from scipy.stats import beta

    low = 0.0 if found == 0 else beta.ppf(0.025, found, n - found + 1)
    high = 1.0 if found == n else beta.ppf(0.975, found + 1, n - found)
    return f"{found / n:.3f} [{low:.3f}, {high:.3f}]"


def table(rows: Array, codes: Array | None = None) -> dict[str, Any]:
    """Rows as a table, with one categorical column where codes are given."""
    named: dict[str, Any] = {f"c{i:02d}": column for i, column in enumerate(rows.T)}
    return named if codes is None else {**named, "kind": np.array(["a", "b", "c", "new"])[codes.astype(int)]}


def watch_on(known: dict[str, Any], batch: int, checks: int) -> Watch:
    """A watch whose chance of a false alarm in a schedule of so many checks is at most 5 %."""
    budget = Budget.per_schedule(LEVEL, blocks=checks * CHECK / batch)  # the schedule takes the place of the year
    kinds = {name: "categorical" if name == "kind" else "numeric" for name in known}
    return fit_watch(known, budget, kinds=kinds, settings=Settings(batch=batch))


def alarmed(state: State) -> bool:
    """Whether either family of streams alarmed."""
    return state.drift_row is not None or state.quality_row is not None


def delays(seed: int, n_reference: int, batch: int, levels: dict[str, float]) -> dict[tuple[str, str], int]:
    """One run: for each change and method the check that found it."""
    rng = np.random.default_rng([21, seed])
    known, before = iid(rng, n_reference), iid(rng, CHECK * CHANGE_AT)
    codes = [rng.integers(0, 3, n) for n in (n_reference, CHECK * CHANGE_AT, CHECK * AFTER)]
    after = iid(rng, CHECK * AFTER)
    found: dict[tuple[str, str], int] = {}
    watch = watch_on(table(known, codes[0]), batch, CHECKS)
    start, highest = followed(watch, before, codes[1])
    windows = Windows(COLUMNS, levels["ADWIN"]) if "ADWIN" in levels else None
    early = windows is not None and any(windows.check(part) for part in before.reshape(CHANGE_AT, CHECK, -1))
    statistics = {name: make(known) for name, make in STATISTICS.items()}
    too_soon = {n: any(s(p) > levels[n] for p in before.reshape(CHANGE_AT, CHECK, -1)) for n, s in statistics.items()}
    for change, apply in CHANGES.items():
        rows, kinds = apply(np.random.default_rng([22, seed]), after.copy(), codes[2].copy())
        parts = rows.reshape(AFTER, CHECK, -1)
        state, proven, equal = start, NEVER, NEVER
        for i in range(AFTER):
            state = watch.advance(state, table(parts[i], kinds[i * CHECK : (i + 1) * CHECK]))
            proven = min(proven, i + 1 if alarmed(state) and not alarmed(start) else NEVER)
            equal = min(equal, i + 1 if state.log_drift >= levels["equal"] and highest < levels["equal"] else NEVER)
            if max(proven, equal) < NEVER:
                break
        found[change, "kfloop"] = proven
        if change == "new category 3 %":
            continue
        found[change, "kfloop at equal rate"] = equal
        for name, statistic in statistics.items():
            hits = (i + 1 for i, part in enumerate(parts) if statistic(part) > levels[name])
            found[change, name] = NEVER if too_soon[name] else next(hits, NEVER)
        if windows is None:
            continue
        copied = windows.copy()
        hits = (i + 1 for i, part in enumerate(parts) if copied.check(part))
        found[change, "ADWIN"] = NEVER if early else next(hits, NEVER)
    return found


def followed(watch: Watch, rows: Array, codes: Array) -> tuple[State, float]:
    """The state after these rows, looked at after every check, and the largest logarithm of the evidence of drift."""
    state, highest = watch.start(), -np.inf
    for start in range(0, len(rows), CHECK):
        state = watch.advance(state, table(rows[start : start + CHECK], codes[start : start + CHECK]))
        highest = max(highest, state.log_drift)
    return state, highest


def equal_level(n_reference: int, batch: int, runs: int) -> float:
    """The logarithm of evidence that 5 % of schedules without drift reach, and a line about the threshold that is proven."""
    largest, alarms = [], 0
    for seed in range(runs):
        rng = np.random.default_rng([25, seed])
        codes = rng.integers(0, 3, n_reference + CHECK * CHECKS)
        watch = watch_on(table(iid(rng, n_reference), codes[:n_reference]), batch, CHECKS)
        state, highest = followed(watch, iid(rng, CHECK * CHECKS), codes[n_reference:])
        largest.append(highest)
        alarms += alarmed(state)
    print(
        f"  kfloop without drift: {clopper(alarms, runs)} of {runs} schedules alarm at the proven threshold {watch.budget.threshold:.0f}; "
        f"evidence of {np.exp(np.quantile(largest, 1 - LEVEL)):.1f} is reached in 5 % of them"
    )
    return float(np.quantile(largest, 1 - LEVEL))


def power(runs: int, n_reference: int, batch: int, adwin: bool) -> None:
    """Print for each change the share found within 50 checks and the median delay, kfloop first."""
    levels = calibrated(
        iid, checks=CHECKS, rows=CHECK, reference=n_reference, level=LEVEL, runs=CALIBRATION, adwin=adwin
    )
    levels["equal"] = equal_level(n_reference, batch, CALIBRATION)
    print(
        f"reference {n_reference} rows, tolerance 0, blocks of {batch}, {runs} runs, chance over 100 checks at most {LEVEL}"
    )
    every = [delays(seed, n_reference, batch, levels) for seed in range(runs)]
    for change in CHANGES:
        cells = []
        for method in ("kfloop", "kfloop at equal rate", *STATISTICS, "ADWIN"):
            at = np.array([run[change, method] for run in every if (change, method) in run])
            if len(at):
                middle, slow = np.median(at), np.quantile(at, 0.9)
                shown = [f"{value:.1f}" if value <= AFTER else ">50" for value in (middle, slow)]
                share = (
                    clopper(int((at <= AFTER).sum()), runs)
                    if method.startswith("kfloop")
                    else f"{(at <= AFTER).mean():.2f}"
                )
                cells.append(f"{method} {share} delay {shown[0]} (90 %: {shown[1]})")
        print(f"  {change:18s} " + " | ".join(cells), flush=True)


def quiet(runs: int, n_reference: int, checks: int, only: str | None) -> None:
    """Print for each stream the false alarms of long schedules without drift."""
    for name, stream in STREAMS.items():
        if only not in {None, name}:
            continue
        budget = Budget.per_schedule(1.0, blocks=8760 * CHECK / (stream.settings.batch * stream.settings.unit))
        started, alarms, any_alarm, tops = time.perf_counter(), 0, 0, []
        allowed = checks / 8760
        for seed in range(runs):
            rng = np.random.default_rng([23, seed])
            known, marks = stream.draw(rng, n_reference, 0)
            watch = fit_watch(
                table(known),
                budget,
                kinds=dict.fromkeys(table(known), "numeric"),
                seasons=marks,
                settings=stream.settings,
            )
            state, highest = watch.start(), -np.inf
            for i in range(checks // 100):
                rows, marks = stream.draw(rng, 100 * CHECK, n_reference + i * 100 * CHECK)
                for part in range(0, len(rows), 10 * CHECK):
                    piece = slice(part, part + 10 * CHECK)
                    state = watch.advance(state, table(rows[piece]), marks[piece])
                    highest = max(highest, state.log_drift)
                    if alarmed(state):
                        state = state.acknowledged()
            alarms += state.alarms
            any_alarm += state.alarms > 0
            tops.append(highest)
        needed = np.exp(budget.log_needed("drift"))
        print(
            f"  {name:28s} reference {n_reference}, {stream.settings.batch} units of {stream.settings.unit} rows, {stream.settings.n_seasons} seasons: "
            f"{alarms} alarms in {runs} x {checks} checks, {alarms / runs:.3f} a run (budget {allowed:.2f} on average); "
            f"runs with any {clopper(any_alarm, runs)}; largest evidence {np.exp(max(tops)):.0f} of {needed:.0f} needed; "
            f"{(time.perf_counter() - started) / runs:.1f} s a run",
            flush=True,
        )


def images(runs: int) -> None:
    """Print for each corruption and severity the share found within 600 rows and the median delay."""
    pixels, answer = digits()
    started = time.perf_counter()
    found: dict[tuple[str, int], list[int]] = {}
    for seed in range(runs):
        rng = np.random.default_rng([24, seed])
        order = rng.permutation(len(pixels))
        known, rest = pixels[order[:800]], pixels[order[800:]]
        watch = fit_watch(
            table(answer(known)),
            Budget.per_life(LEVEL),
            kinds=dict.fromkeys(table(answer(known)), "numeric"),
            settings=Settings(batch=25),
        )
        # Traffic is drawn with replacement from 397 images; whatever they differ from the reference by chance is true drift of .05 sd.
        start = watch.advance(watch.start(), table(answer(rest[rng.integers(0, len(rest), 400)])))
        found.setdefault(("no drift before", 0), []).append(0 if alarmed(start) else NEVER * 25)
        for (name, severity), apply in corrupted().items():
            state, at = start, NEVER * 25
            for i in range(24):
                if alarmed(start):
                    break
                rows = apply(rng, rest[rng.integers(0, len(rest), 25)])
                state = watch.advance(state, table(answer(rows)))
                if alarmed(state):
                    at = 25 * (i + 1)
                    break
            found.setdefault((name, severity), []).append(at)
    for (name, severity), rows in found.items():
        hits = sum(at <= 600 for at in rows)  # noqa: PLR2004 - 24 blocks of 25
        print(
            f"  {name:16s} severity {severity}: alarmed {clopper(hits, runs)}, median delay {np.median(rows):.0f} rows"
        )
    print(f"  {(time.perf_counter() - started) / runs:.1f} s a run")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("power", "quiet", "images"))
    parser.add_argument("--runs", type=int, default=60, help="simulated schedules")
    parser.add_argument("--reference", type=int, default=5000, help="rows of the reference")
    parser.add_argument("--batch", type=int, default=50, help="rows of a block in `power`")
    parser.add_argument("--checks", type=int, default=10000, help="checks of a schedule in `quiet`, a multiple of 100")
    parser.add_argument("--stream", choices=tuple(STREAMS), help="only this stream in `quiet`")
    parser.add_argument(
        "--evidently", metavar="PYTHON", help="Python of an environment with Evidently, a peer in `power`"
    )
    parser.add_argument("--peers", nargs="*", help="only these peers in `power`: KS, Hotelling, MMD, ADWIN, Evidently")
    given = parser.parse_args()
    if given.part == "power":
        if given.evidently:
            add_evidently(given.evidently)
        for name in [name for name in STATISTICS if given.peers is not None and name not in given.peers]:
            del STATISTICS[name]
        power(given.runs, given.reference, given.batch, given.peers is None or "ADWIN" in given.peers)
    elif given.part == "quiet":
        quiet(given.runs, given.reference, given.checks, given.stream)
    else:
        images(given.runs)


if __name__ == "__main__":
    main()
