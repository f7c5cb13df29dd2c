"""Learning what is normal: rows are said again, and the error of doing so is both loss and score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kfloop.core.learning.base import Learner

if TYPE_CHECKING:
    from torch import Tensor

    from kfloop.core.learning.plan import Batch


class Reconstruction(Learner):
    """The loss of a row is its anomaly score; rows known to be odd (target 1) are never learned from.

    The validation loss counts normal rows alone. Where the validation rows hold both kinds, ``validation_auroc`` says how well the score tells
    them apart; nothing is chosen by it.
    """

    def on_validation_epoch_start(self) -> None:
        """Forget the epoch before."""
        super().on_validation_epoch_start()
        self._scored: list[tuple[Tensor, Tensor]] = []

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each example; an odd one has none."""
        return self._scores(batch) * (batch.target <= 0)

    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of the normal rows."""
        scores = self._scores(batch)
        weight = batch.weight * (batch.target <= 0)
        self._scored.append((scores.detach()[batch.weight > 0], batch.target[batch.weight > 0]))
        return {"loss": (scores * weight).sum(), "count": weight.sum()}

    def finish_metrics(self, metrics: dict[str, float]) -> None:
        """How well the scores tell odd rows from normal ones."""
        scores = self._over_processes(torch.cat([part for part, _ in self._scored]))
        target = self._over_processes(torch.cat([part for _, part in self._scored]))
        odd, normal = scores[target == 1], scores[target == 0]
        if len(odd) and len(normal):
            metrics["validation_auroc"] = _auroc(odd, normal)

    def _scores(self, batch: Batch) -> Tensor:
        scores: Tensor = self.network(*batch.inputs)[0]
        return scores if batch.rows is None else scores[batch.rows]

    def _over_processes(self, values: Tensor) -> Tensor:
        """The values of all processes, which may be of different number."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return values
        world = torch.distributed.get_world_size()
        counts = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(world)]
        torch.distributed.all_gather(counts, torch.tensor([len(values)], device=values.device))
        most = int(max(int(count) for count in counts))
        padded = torch.zeros(most, dtype=values.dtype, device=values.device)
        padded[: len(values)] = values
        parts = [torch.zeros_like(padded) for _ in range(world)]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def _auroc(odd: Tensor, normal: Tensor) -> float:
    """Chance that an odd row scores higher than a normal one; ties count half (Mann & Whitney 1947)."""
    ranked = normal.double().sort().values
    scores = odd.double().contiguous()
    below = torch.searchsorted(ranked, scores, right=False)
    up_to = torch.searchsorted(ranked, scores, right=True)
    return float((below + up_to).double().mean() / (2 * len(ranked)))
