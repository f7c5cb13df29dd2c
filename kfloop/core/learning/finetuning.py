"""Training a pretrained network further: its weights are loaded when a training starts, and learn more slowly than the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from kfloop.core.learning.supervised import Supervised

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kfloop.core.families import NetworkSpec
    from kfloop.core.families.finetune import Network
    from kfloop.core.learning.plan import Batch, Plan


REMEMBERED = 200_000  # embeddings of a frozen backbone that are kept: each is computed once, not once an epoch


class Finetuning(Supervised):
    """Discriminative rates after Howard & Ruder, "Universal language model fine-tuning", ACL 2018, with two groups: backbone and head.

    Args:
        network: Network of ``kfloop.core.families.finetune``.
        spec: Its description.
        plan: Hyper-parameters; ``learning_rate`` is the head's.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, plan: Plan) -> None:
        from kfloop.core.families import pretrained

        super().__init__(network, spec, plan)
        self._known: dict[bytes, Tensor] = {}
        load = pretrained.load_timm_weights if spec.options["library"] == "timm" else pretrained.load_text_weights
        load(network.get_submodule("backbone"), spec.options)

    def answers(self, batch: Batch) -> Tensor:
        """The network's answers; a backbone that never changes is asked once about each example."""
        network = cast("Network", self.network)
        if network.mode != "frozen":
            return super().answers(batch)
        answer: Tensor = network.answers(self._embedded(network, batch.inputs))[0]
        return answer

    def _embedded(self, network: Network, inputs: tuple[Tensor, ...]) -> Tensor:
        keys = [row.tobytes() for row in inputs[0].cpu().numpy()]
        new = [at for at, key in enumerate(keys) if key not in self._known]
        found: dict[int, Tensor] = {}
        if new:
            with torch.no_grad():
                embeddings = network.embed(*(part[new] for part in inputs)).float()
            found = dict(zip(new, embeddings, strict=True))
            if len(self._known) + len(new) <= REMEMBERED:
                self._known |= {keys[at]: embedding for at, embedding in found.items()}
        return torch.stack([found[at] if at in found else self._known[key] for at, key in enumerate(keys)])

    def configure_optimizers(self) -> Any:
        """AdamW; pretrained weights at ``backbone_rate`` times the head's rate."""
        rate = self.plan.learning_rate
        slow = [item for item in self.network.get_submodule("backbone").parameters() if item.requires_grad]
        fast = [item for item in self.network.get_submodule("head").parameters() if item.requires_grad]
        groups = [{"params": fast, "lr": rate}]
        if slow:
            groups.append({"params": slow, "lr": rate * float(self.spec.options["backbone_rate"])})
        optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=self.plan.weight_decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """As for other families, each group from its own rate."""
        if self.plan.schedule != "one_cycle":
            return super().schedule(optimizer)
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=self.plan.total_steps + 1)
