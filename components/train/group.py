"""The processes that train together, as torchrun's environment tells; one process alone is a group too."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, 0 is the one that writes.
        world: Number of processes on all nodes.
        local_rank: Number of this process on its node, also of its GPU.
        local_world: Number of processes on this node.
        launched: Whether torchrun started it.
        restarts: How often torchrun has started the group anew.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    launched: bool = False
    restarts: int = 0

    @classmethod
    def here(cls) -> Group:
        """What torchrun's environment variables say of this process."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        told = {
            key: int(os.environ[name])
            for key, name in (
                ("rank", "RANK"),
                ("world", "WORLD_SIZE"),
                ("local_rank", "LOCAL_RANK"),
                ("local_world", "LOCAL_WORLD_SIZE"),
                ("restarts", "TORCHELASTIC_RESTART_COUNT"),
            )
        }
        return cls(launched=True, **told)

    @property
    def first(self) -> bool:
        """Whether this process is the one that decides and writes."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Number of machines; torchrun gives each the same number of processes."""
        return max(1, self.world // self.local_world)

    @contextlib.contextmanager
    def connected(self, device: str) -> Iterator[None]:
        """Connect the processes: with gloo on the CPU, with nccl (and gloo for messages) on GPUs. Nothing to do for a process alone.

        Args:
            device: ``cpu`` or ``cuda``.
        """
        if not self.launched:
            yield
            return
        import torch
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        if device == "cuda":
            torch.cuda.set_device(self.local_rank)
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        if self.nodes == 1:
            store, rank, world = next(iter(rendezvous("env://")))
            # torchrun keeps its store from start to start, with the addresses of processes that are no more: torch 2.13 reads them again.
            store = distributed.distributed_c10d.PrefixStore(f"start{self.restarts}", store)
            distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
        else:  # machines count starts each for itself; docs/multi-gpu.md says how each start gets a store of its own
            distributed.init_process_group(backend)
        yield
        # After an error there is no goodbye: the others, who may wait for a message of this process, learn of it by the closed connection.
        distributed.destroy_process_group()

    def agree(self, value: Value) -> Value:
        """The value of the first process, on every process."""
        if self.world == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes in the order of their ranks; they may differ in length."""
        if self.world == 1:
            return [tensor]
        from torch import distributed

        found: list[Tensor] = [tensor] * self.world
        distributed.all_gather_object(found, tensor.cpu())
        return found
