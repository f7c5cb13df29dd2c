"""Class probabilities from the usual model family for such data, for rows the network was not trained on.

A plain loop rather than the training step's: nothing is checkpointed, tracked or resumed, because five small networks that only judge labels
are cheaper to train again than to keep. What is learned is the same: the family, AdamW with a one-cycle rate, the best epoch on rows held out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.families import DEFAULTS, NetworkSpec, build_network, family_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.encoding import Encoder

EPOCHS = 12
PATIENCE = 4
BATCH = 64
JUDGED_AT_ONCE = 1024
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
HELD_SHARE = 0.1  # of the rows to learn from: the best epoch is chosen on them


class NetworkLearner:
    """Trains a network of a modality's usual family on some rows, and judges others.

    Args:
        inputs: Encoded rows, each tensor [N, ...].
        labels: Class index, int64 [N].
        names: Class names.
        encoder: The encoder that gave the inputs.
        seed: Seed of weights, order and dropout.
        epochs: Largest number of passes over the rows.
    """

    def __init__(
        self,
        inputs: Sequence[NDArray[Any]],
        labels: NDArray[np.int64],
        names: Sequence[str],
        encoder: Encoder,
        *,
        seed: int,
        epochs: int = EPOCHS,
    ) -> None:
        family = DEFAULTS[encoder.modality]
        self.inputs, self.labels = tuple(inputs), labels
        self.seed, self.epochs = seed, epochs
        self.spec = NetworkSpec(
            family=family,
            objective="classification",
            modality=encoder.modality,
            inputs=encoder.ports,
            labels=tuple(names),
            facts=encoder.facts,
            options=family_module(family).Options().model_dump(mode="json"),
        )
        self.name = f"the model family '{family}', at most {epochs} epochs a fold"

    def __call__(self, fit: NDArray[np.int64], held: NDArray[np.int64], *, clean: bool) -> NDArray[np.float64]:
        """Probabilities of the held rows, float64 [H, K].

        Args:
            fit: Rows to learn from.
            held: Rows to judge.
            clean: Whether doubtful rows have been taken out of ``fit``; the network's seed differs then.
        """
        import torch

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(2 * self.seed + clean)
            network = self._trained(fit, np.random.default_rng([self.seed, int(clean)]), device)
        return self._judged(network, held, device)

    def _trained(self, fit: NDArray[np.int64], generator: np.random.Generator, device: Any) -> Any:
        """A network with the weights of its best epoch on a tenth of the rows."""
        import torch

        shuffled = generator.permutation(fit)
        chosen_on = max(1, round(HELD_SHARE * len(fit)))
        watched, learned = shuffled[:chosen_on], shuffled[chosen_on:] if len(fit) > 1 else shuffled
        network = build_network(self.spec).to(device)
        batches = max(1, -(-len(learned) // BATCH))
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=self.epochs * batches + 1)
        best, best_loss, bad = _weights(network), np.inf, 0
        for _ in range(self.epochs):
            network.train()
            for rows in np.array_split(generator.permutation(learned), batches):
                self._step(network, rows, optimizer, device)
                schedule.step()
            loss = self._loss(network, watched, device)
            best, best_loss, bad = (_weights(network), loss, 0) if loss < best_loss else (best, best_loss, bad + 1)
            if bad >= PATIENCE:
                break
        network.load_state_dict(best)
        return network.eval()

    def _step(self, network: Any, rows: NDArray[np.int64], optimizer: Any, device: Any) -> None:
        import torch

        logits = network(*self._tensors(rows, device))[0]
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(self.labels[rows]).to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()

    def _loss(self, network: Any, rows: NDArray[np.int64], device: Any) -> float:
        """Mean cross-entropy of rows the network is not trained on."""
        network.eval()
        chance = self._judged(network, rows, device)
        return float(-np.log(np.maximum(chance[np.arange(len(rows)), self.labels[rows]], 1e-12)).mean())

    def _judged(self, network: Any, rows: NDArray[np.int64], device: Any) -> NDArray[np.float64]:
        """Probabilities of rows, float64 [N, K]."""
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(rows), JUDGED_AT_ONCE):
                logits = network(*self._tensors(rows[start : start + JUDGED_AT_ONCE], device))[0]
                parts.append(torch.softmax(logits.double(), dim=1).cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, 0))

    def _tensors(self, rows: NDArray[np.int64], device: Any) -> list[Any]:
        import torch

        return [torch.from_numpy(np.ascontiguousarray(array[rows])).to(device) for array in self.inputs]


def _weights(network: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
