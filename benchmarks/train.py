"""Examples a second of kfloop's ``train`` against a hand-written PyTorch loop of the same network, data, optimiser, schedule, clipping and loader.

Both sides run in one process, one after the other, several times; the medians are compared. kfloop's side is ``fitting.fit`` with all that a
training of the product does in a step: progress, checkpoints, the check of the loss, the curve. ``--clock cpu`` counts the time of this
process instead of the time on the wall: the same figure with one thread on an idle machine, and a steadier one where others compute too. ``--gpu``
measures bf16 with compile and the share of the card's peak. Under torchrun, with and without ``--gpu``, all processes train each family together,
with DDP and with FSDP, and the speed of both is told: each process has the same share of a step, whatever their number.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch

from kfloop.components.train.batches import Batches
from kfloop.components.train.fitting import build_learner, fit
from kfloop.components.train.group import Group
from kfloop.components.train.options import prepare_module
from kfloop.components.train.preparing import Prepared, replanned
from kfloop.components.train.watching import Watch
from kfloop.core.encoding import Examples
from kfloop.core.encoding.graphs import GraphExamples
from kfloop.core.encoding.numbers import number_facts
from kfloop.core.families import NetworkSpec
from kfloop.core.learning.plan import Plan
from kfloop.core.progress import ProgressTeller
from kfloop.core.sections import TrainConfig
from kfloop.core.signature import Port
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.learning.plan import Batch

SLOW = 20.0  # milliseconds of a step from which the ratio counts
RATIO = 0.95  # target: share of the hand-written speed
EXTRA = 1.0  # target for faster steps: milliseconds on top
WAIT = 0.05  # target: share of the time spent on making batches
STEPS_TOGETHER = 60  # of a run of several processes
WARM_UP = 5  # steps that do not count, on both sides
GPU_RATIO = 0.97
PLAN = Plan(epochs=1, batch_size=1, learning_rate=1, weight_decay=0, patience=1, seed=0, total_steps=1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A family on made-up data of a usual size.

    Attributes:
        family: Name of the family.
        modality: What an example is.
        objective: What is learned.
        inputs: Port and array of each input.
        facts: What an encoder would tell.
        batch_size: Examples in a step.
    """

    family: str
    modality: str
    objective: str
    inputs: tuple[tuple[Port, NDArray[Any]], ...]
    facts: dict[str, Any]
    batch_size: int = 64

    def prepared(self, config: TrainConfig) -> Prepared:
        """Ready to train."""
        random = np.random.default_rng(0)
        arrays = tuple(array for _, array in self.inputs)
        rows = len(arrays[-1])
        anomaly = self.objective == "anomaly"
        target = np.zeros(rows, np.int64) if anomaly else random.integers(0, 10, rows)
        names = np.array([str(row) for row in range(rows)])
        columns: dict[str, Any] = {
            "inputs": arrays,
            "target": target,
            "weights": np.ones(rows, np.float32),
            "ids": names,
            "content": names,
            "origin": np.full(rows, "base"),
        }
        train = _graphs(columns) if self.modality == "graphs" else Examples(**columns)
        ports = tuple(port for port, _ in self.inputs)
        if self.objective == "generation":
            ports = (
                Port(name="noise", dtype="float32", shape=ports[0].shape),
                Port(name="label", dtype="int64", shape=()),
            )
        spec = NetworkSpec(
            family=self.family,
            objective=self.objective,
            modality=self.modality,
            inputs=ports,
            labels=() if anomaly else tuple("0123456789"),
            facts=self.facts,
        )
        few = train.take(np.arange(16))
        encoder: Any = None  # nothing is saved
        found = Prepared(spec=spec, encoder=encoder, train=train, validation=few, plan=PLAN, n_quarantined=0)
        return replanned(found, config)


NODES, LINKS = 20, 60  # of each graph


def _graphs(columns: dict[str, Any]) -> Examples:
    """Graphs of ``NODES`` nodes and ``LINKS`` directed edges, stored one after the other."""
    rows = np.arange(len(columns["target"]) + 1)
    return GraphExamples(**columns, first_node=NODES * rows, first_edge=LINKS * rows, place=rows[:-1])


def cases(rows: int) -> list[Case]:
    """One case for each family, with batches of a usual size."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows, 28, 28, 1), dtype=np.uint8)
    vectors = random.normal(size=(rows, 32)).astype(np.float32)
    windows = random.normal(size=(rows, 48, 4)).astype(np.float32)
    nodes = random.normal(size=(rows * NODES, 16)).astype(np.float32)
    first = np.repeat(np.arange(rows) * NODES, LINKS)
    pixels = {"mean": [127.0], "std": [74.0]}
    image = ((Port(name="image", dtype="uint8", shape=(28, 28, 1)), images),)
    vector = ((Port(name="vector", dtype="float32", shape=(32,)), vectors),)
    window = ((Port(name="window", dtype="float32", shape=(48, 4)), windows),)
    graph = (
        (Port(name="node", dtype="float32", shape=(-1, 16)), nodes),
        (Port(name="edges", dtype="int64", shape=(2, -1)), first + random.integers(0, NODES, (2, len(first)))),
        (Port(name="graph", dtype="int64", shape=(-1,)), np.repeat(np.arange(rows), NODES)),
        (Port(name="sizes", dtype="int64", shape=(-1,)), np.full(rows, NODES)),
    )
    channels = {"mean": [0.0] * 4, "std": [1.0] * 4}
    features = {"mean": [0.0] * 16, "std": [1.0] * 16}
    numbers = number_facts(vectors)
    kind = "classification"
    return [
        Case(family="mlp", modality="vector", objective=kind, inputs=vector, facts=numbers, batch_size=128),
        Case(family="cnn", modality="image", objective=kind, inputs=image, facts=pixels),
        Case(family="rnn", modality="series", objective=kind, inputs=window, facts=channels),
        Case(family="transformer", modality="series", objective=kind, inputs=window, facts=channels),
        Case(
            family="autoencoder", modality="vector", objective="anomaly", inputs=vector, facts=numbers, batch_size=128
        ),
        Case(family="gan", modality="image", objective="generation", inputs=image, facts=pixels),
        Case(family="diffusion", modality="image", objective="generation", inputs=image, facts=pixels),
        Case(family="gnn", modality="graphs", objective=kind, inputs=graph, facts=features),
    ]


class Clock(pl.Callback):
    """Milliseconds of a step: from the end of the warm-up to the end of the last batch, whatever happens in between.

    Args:
        name: ``wall`` or ``cpu``.
    """

    def __init__(self, name: str) -> None:
        self.read = time.process_time if name == "cpu" else time.perf_counter
        self.steps, self.began, self.last = 0, 0.0, 0.0

    def step(self) -> None:
        """One step is over."""
        self.steps += 1
        self.last = self.read()
        if self.steps <= WARM_UP:
            self.began = self.last

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The same in kfloop's training."""
        del trainer, outputs, batch, batch_idx
        if pl_module.device.type == "cuda" and self.steps < WARM_UP:
            torch.cuda.synchronize()
        self.step()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """On a GPU the last step ends when its kernels have."""
        del trainer
        if pl_module.device.type == "cuda":
            self.last = max(self.last, self.ended)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before anything else reaches the GPU."""
        del trainer
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.ended = self.read()

    @property
    def milliseconds(self) -> float:
        """Of a step."""
        return 1000 * (self.last - self.began) / max(1, self.steps - WARM_UP)


class Side(NamedTuple):
    """What one run took: milliseconds of a step, share of the time spent on making batches."""

    ms: float
    waiting: float


def product(prepared: Prepared, config: TrainConfig, clock: str, group: Group | None = None) -> Side:
    """The training of the product."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        place = Workspace(loop="bench", root=root, state="", store=str(root), mlflow="")
        watch, own = Watch(config, ProgressTeller(place, "train")), Clock(clock)
        fit(prepared, config, work=root, resume=None, listen=None, group=group, callbacks=[watch, own])
        return Side(own.milliseconds, float(watch.summary()["waiting_share"]))


def by_hand(prepared: Prepared, config: TrainConfig, clock: str, device: str = "cpu") -> float:
    """Milliseconds of a step of a plain loop that does the same arithmetic and nothing else."""
    plan = prepared.plan
    torch.manual_seed(plan.seed)
    learner = prepare_module(build_learner(prepared.spec, plan), config).to(device)
    made = learner.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    weights = [weight for weight in learner.parameters() if weight.requires_grad]
    trained = getattr(learner, "trained", None)  # a generator keeps a moving average of it
    learner.train()
    order = np.random.default_rng([plan.seed, 0]).permutation(len(prepared.train))
    own = Clock(clock)
    for batch in Batches(prepared.train, plan.batch_size, order):
        moved = _moved(batch, device) if device != "cpu" else batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
            losses = learner.losses(moved)
        loss = (losses * moved.weight).sum() * moved.scale
        if device == "cpu" and not math.isfinite(loss.item()):
            raise SystemExit("the loss is not finite")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.gradient_clip)
        optimizer.step()
        schedule.step()
        if trained is not None:
            with torch.no_grad():
                for kept, new in zip(learner.network.parameters(), trained.parameters(), strict=True):
                    kept.lerp_(new, 0.01)
                for kept, new in zip(learner.network.buffers(), trained.buffers(), strict=True):
                    kept.copy_(new)
        if device == "cuda" and own.steps < WARM_UP:
            torch.cuda.synchronize()
        own.step()
    if device == "cuda":
        torch.cuda.synchronize()
        own.last = own.read()
    return own.milliseconds


def _moved(batch: Batch, device: str) -> Batch:
    inputs = tuple(one.to(device) for one in batch.inputs)
    rest = {key: value.to(device) for key, value in batch._asdict().items() if isinstance(value, torch.Tensor)}
    return batch._replace(inputs=inputs, **rest)


def compare(case: Case, config: TrainConfig, told: argparse.Namespace, device: str = "cpu") -> dict[str, Any]:
    """Medians of both sides, interleaved."""
    config = config.model_copy(update={"batch_size": case.batch_size})
    whole = case.prepared(config)

    def first(steps: int) -> Prepared:
        rows = np.arange(min(len(whole.train), steps * case.batch_size))
        return replanned(replace(whole, train=whole.train.take(rows)), config)

    trial = by_hand(first(WARM_UP + 10), config, told.clock, device)
    steps = WARM_UP + int(
        np.clip(1000 * told.seconds / max(trial, 0.1), 20, len(whole.train) // case.batch_size - WARM_UP)
    )
    found = first(steps)
    ours: list[Side] = []
    theirs: list[float] = []
    for number in range(told.repeats):
        for side in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            if side == "ours":
                ours.append(product(found, config, told.clock))
            else:
                theirs.append(by_hand(found, config, told.clock, device))
    mine, wait, plain = (
        statistics.median(values) for values in ([s.ms for s in ours], [s.waiting for s in ours], theirs)
    )
    target = GPU_RATIO if device == "cuda" else RATIO
    fast = plain < SLOW and device == "cpu"
    met = mine - plain <= EXTRA if fast else plain / mine >= target
    return {
        "family": case.family,
        "batch_size": case.batch_size,
        "ms_kfloop": mine,
        "ms_by_hand": plain,
        "samples_per_second": 1000 * case.batch_size / mine,
        "ratio": plain / mine,
        "extra_ms": mine - plain,
        "waiting_share": wait,
        "target": f"at most {EXTRA} ms on top" if fast else f"ratio at least {target}",
        "met": bool(met),
        "waiting_met": wait <= WAIT,
        "steps": steps,
        "repeats": told.repeats,
    }


def peak_share(case: Case, config: TrainConfig, ms: float, peak: float) -> float:
    """Arithmetic of a step as a share of what the card can do (``--peak-tflops``)."""
    from torch.utils.flop_counter import FlopCounterMode

    found = case.prepared(config)
    learner = build_learner(found.spec, found.plan)
    batch = next(iter(Batches(found.train.take(np.arange(case.batch_size)), case.batch_size)))
    with FlopCounterMode(display=False) as counter:
        learner.losses(batch).sum().backward()
    return float(counter.get_total_flops() / (ms / 1000) / (peak * 1e12))


def together(case: Case, config: TrainConfig, told: argparse.Namespace, group: Group) -> list[dict[str, Any]]:
    """Medians of what all processes train together, for each strategy; no entry for one that the family refuses."""
    found = []
    for strategy in ("ddp", "fsdp"):
        keys = {"strategy": strategy, "compile": False, "batch_size": case.batch_size * group.world}
        changed = config.model_copy(update=keys)
        whole = case.prepared(changed)
        rows = np.arange(min(len(whole.train), STEPS_TOGETHER * changed.batch_size))
        part = replanned(replace(whole, train=whole.train.take(rows)), changed)
        try:
            sides = [product(part, changed, told.clock, group) for _ in range(told.repeats)]
        except ConfigError:
            continue
        ms = statistics.median(side.ms for side in sides)
        found.append(
            {
                "family": case.family,
                "strategy": strategy,
                "batch_size": changed.batch_size,
                "ms_kfloop": ms,
                "samples_per_second": 1000 * changed.batch_size / ms,
                "waiting_share": statistics.median(side.waiting for side in sides),
            }
        )
        if group.first:
            print(
                f"{case.family:12} {strategy:5} {ms:8.2f} ms  {found[-1]['samples_per_second']:10.0f} samples/s",
                flush=True,
            )
    return found


def alone(case: Case, config: TrainConfig, told: argparse.Namespace) -> list[dict[str, Any]]:
    """This process against a loop written by hand."""
    row = compare(case, config, told, "cuda" if told.gpu else "cpu")
    if told.gpu and case.family in {"cnn", "transformer"}:
        row["peak_share"] = peak_share(case, config, row["ms_kfloop"], told.peak_tflops)
    print(
        f"{row['family']:12} {row['ms_kfloop']:8.2f} ms  by hand {row['ms_by_hand']:8.2f} ms  ratio {row['ratio']:.3f}  "
        f"on top {row['extra_ms']:6.2f} ms  waiting {row['waiting_share']:.1%}  {row['target']}: {'met' if row['met'] else 'MISSED'}",
        flush=True,
    )
    return [row]


def machine(told: argparse.Namespace, group: Group) -> dict[str, Any]:
    """What the figures were measured on."""
    names = ("torch", "pytorch-lightning", "kfloop")
    gpus = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())] if told.gpu else []
    return {
        "versions": {name: importlib.metadata.version(name) for name in names},
        "gpus": gpus,
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": group.world,
        "nodes": group.nodes,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each side; the median counts")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what is counted")
    parser.add_argument("--rows", type=int, default=20_000, help="examples made up for each family")
    parser.add_argument("--families", nargs="*", help="only these")
    parser.add_argument("--gpu", action="store_true", help="bf16 and compile on a GPU; under torchrun bf16 alone")
    parser.add_argument(
        "--peak-tflops", type=float, default=989.0, help="dense bf16 peak of the card (H100 and H200 SXM: 989)"
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    told = parser.parse_args()
    group = Group.here()
    if told.gpu and not torch.cuda.is_available():
        raise SystemExit("--gpu needs a CUDA device, and torch sees none")
    keys: dict[str, Any] = {"epochs": 1, "batch_size": 64, "accelerator": "gpu" if told.gpu else "cpu"}
    if told.gpu:
        keys |= {"precision": "bf16", "compile": True}
    config = TrainConfig.model_validate(keys)
    chosen = [case for case in cases(told.rows) if not told.families or case.family in told.families]
    with group.connected("cuda" if told.gpu else "cpu"):
        measured = [
            together(case, config, told, group) if group.launched else alone(case, config, told) for case in chosen
        ]
    if told.out and group.first:
        rows = [row for some in measured for row in some]
        told.out.write_text(json.dumps({"machine": machine(told, group), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
