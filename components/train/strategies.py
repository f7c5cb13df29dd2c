"""How several processes share the work of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn

from kfloop.errors import ConfigError

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from kfloop.components.train.group import Group
    from kfloop.core.learning.base import Learner


class Sharded(ModelParallelStrategy):
    """FSDP2: weights, gradients and optimiser state are shared out over all processes; checkpoints hold the whole of them.

    Args:
        world: Number of processes.
    """

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup(self, trainer: pl.Trainer) -> None:
        """Share the network out, then make the optimiser of what is left here. Lightning's own wants this in the LightningModule."""
        from torch.distributed.fsdp import fully_shard

        learner: Any = self.lightning_module
        accelerator: Any = self.accelerator
        accelerator.setup(trainer)
        self.model_to_device()
        mesh = self.device_mesh["data_parallel"]
        for module in list(learner.network.modules()):
            if isinstance(module, nn.ModuleList):  # the repeated blocks of deep networks: gathered one after the other
                for block in module:
                    fully_shard(block, mesh=mesh)
        fully_shard(learner.network, mesh=mesh)
        self.barrier()
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()


def chosen_strategy(name: str, group: Group, learner: Learner) -> Any:
    """Lightning's strategy for this group.

    Args:
        name: ``ddp`` or ``fsdp``.
        group: The processes that train together.
        learner: What is trained.

    Raises:
        ConfigError: The learner cannot be trained in that way.
    """
    if not group.launched:
        return "auto"
    if name == "fsdp":
        if learner.spec.objective == "generation" or not learner.automatic_optimization:
            why = "trains several networks" if learner.automatic_optimization else "steps its optimisers by itself"
            raise ConfigError(
                f"train.strategy 'fsdp' cannot train a '{learner.spec.family}', which {why}",
                hint="use train.strategy: ddp",
            )
        return Sharded(group.world)
    # Modules that step by themselves may use only a part of the weights in each backward pass.
    return DDPStrategy(find_unused_parameters=not learner.automatic_optimization, gradient_as_bucket_view=True)
