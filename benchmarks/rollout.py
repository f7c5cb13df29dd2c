"""Does a roll-out keep its promise? Seeded simulations of the joint test of ``kfloop.core.statistics.paired_bets``, with a look after every request.

``python benchmarks/rollout.py [--repeats 4000] [--requests 20000]`` prints JSON; nothing of a server is needed.

Each world draws, request by request, who fails, who is slow, who answers differently and (where there is feedback) who is right, and asks all
questions as ``deploy.rollout`` does by default. Told are the share of roll-outs that are withdrawn, with a 95 % Wilson interval, the requests it took
(quantiles), and the same for promotions.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.sections import RolloutConfig
from kfloop.core.statistics.estimate import wilson
from kfloop.core.statistics.paired_bets import HIGH, RANGES, log_wealth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CHUNK = 50  # roll-outs at a time: bounded memory
# Rates: champion's failures, challenger's failures, slow (more than the margin times the champion), other answer, only the champion right, only the challenger
# right; None: no feedback. The last two are shares of requests.
WORLDS: dict[str, tuple[float, float, float, float, float | None, float | None]] = {
    "equal": (0.005, 0.005, 0.2, 0.05, 0.02, 0.02),
    "equal, noisy": (0.05, 0.05, 0.45, 0.2, 0.08, 0.08),
    "equal, no feedback": (0.0, 0.0, 0.1, 0.02, None, None),
    "at every margin": (0.01, 0.015, 0.5, 0.3, 0.05, 0.04),
    "2 points more failures": (0.0, 0.02, 0.2, 0.05, None, None),
    "2 points worse in quality": (0.005, 0.005, 0.2, 0.08, 0.05, 0.03),
    "twice as slow": (0.005, 0.005, 0.9, 0.05, None, None),
    "2 points better in quality": (0.005, 0.005, 0.2, 0.08, 0.03, 0.05),
}


def draw(rng: np.random.Generator, world: str, repeats: int, requests: int) -> dict[str, Array]:
    """Numbers of each question, [repeats, requests]."""
    first, second, slow, other, lost, won = WORLDS[world]
    shape = (repeats, requests)
    drawn = {
        "errors": (rng.random(shape) < second).astype(float) - (rng.random(shape) < first),
        "latency": (rng.random(shape) < slow).astype(float),
        "disagreement": (rng.random(shape) < other).astype(float),
    }
    if lost is not None and won is not None:
        which = rng.random(shape)
        drawn["quality"] = (which < lost).astype(float) - (which > 1 - won)
    return drawn


def ends(drawn: dict[str, Array], config: RolloutConfig) -> tuple[Array, Array]:
    """Number of requests at withdrawal and at promotion by evidence, [repeats] each; infinite for never."""
    bounds = config.bounds()
    never = np.inf
    repeats = len(drawn["errors"])
    withdrawn, fine = np.full(repeats, never), np.zeros(repeats)
    for name, bound in bounds.items():
        if name not in drawn:
            continue
        worse = log_wealth(drawn[name], bound, RANGES[name], HIGH)
        withdrawn = np.minimum(withdrawn, first(worse, config.alpha / len(bounds)))
        if name in {"errors", "quality"}:
            fine = np.maximum(fine, first(log_wealth(-drawn[name], -bound, -HIGH, -RANGES[name]), config.alpha))
    promoted = np.maximum(fine, config.min_requests)
    return withdrawn, np.where(promoted < withdrawn, promoted, never)


def first(logs: Array, level: float) -> Array:
    """Requests until the evidence reached 1 / level, [repeats]; infinite where it never did."""
    reached = logs >= -np.log(level)
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)


def simulate(world: str, *, repeats: int, requests: int, seed: int = 0, config: RolloutConfig | None = None) -> Any:
    """One world: shares with intervals, and quantiles of the requests it took."""
    config = config or RolloutConfig(max_requests=requests)
    rng = np.random.default_rng([seed, list(WORLDS).index(world)])
    parts = [
        ends(draw(rng, world, min(CHUNK, repeats - start), requests), config) for start in range(0, repeats, CHUNK)
    ]
    withdrawn, promoted = (np.concatenate(side) for side in zip(*parts, strict=True))
    # A challenger that was promoted is not looked at any more; that it could have been withdrawn later counts all the same in ``ever_worse``.
    stopped = np.isfinite(withdrawn) & (withdrawn < promoted)
    return {
        "ever_worse": share(int(np.isfinite(withdrawn).sum()), repeats),
        "withdrawn_before_promotion": share(int(stopped.sum()), repeats),
        "requests_until_worse": quantiles(withdrawn[np.isfinite(withdrawn)]),
        "promoted": share(int((np.isfinite(promoted)).sum()), repeats),
        "requests_until_promoted": quantiles(promoted[np.isfinite(promoted)]),
    }


def share(count: int, n: int) -> dict[str, float]:
    """A share with its 95 % Wilson interval."""
    found = wilson(count, n)
    return {"share": count / n, "low": found.low, "high": found.high}


def quantiles(values: Array) -> dict[str, float]:
    """Quantiles; empty for no values."""
    return {f"{q:.0%}": float(np.quantile(values, q)) for q in (0.05, 0.5, 0.95)} if len(values) else {}


def main() -> None:
    """Run every world and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.perf_counter()
    found = {
        world: simulate(world, repeats=given.repeats, requests=given.requests, seed=given.seed) for world in WORLDS
    }
    told = {"alpha": RolloutConfig().alpha, "repeats": given.repeats, "requests": given.requests, "worlds": found}
    print(json.dumps(told | {"seconds": time.perf_counter() - started}, indent=1))


if __name__ == "__main__":
    main()
