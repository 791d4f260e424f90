"""Several processes that train as one: each takes its share of every batch, and all take the same steps.

Gradients are added up explicitly, weighted by the items of each share, so they are those of the whole batch; only the
weights by which objective `fusion` balances its divergences are of each share. Whatever depends on the clock, on a
signal or on values that are not finite is agreed upon before anybody acts on it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight.core.compute import choose_device
from lowlight.core.errors import ConfigError, UsageError
from lowlight.core.restoration import Batch, Share

# The others wait while the first validates; a process that died is noticed by torchrun, not by this.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Team:
    """The place of this process among those that train together; alone by default."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None  # of this process; None: what the run's configuration says

    @property
    def leads(self) -> bool:
        """Whether this process writes, logs and validates."""
        return self.rank == 0

    def share(self, items: int) -> slice:
        """Give this process's part of so many items; the first processes get one more where they do not divide."""
        each, more = divmod(items, self.size)
        first = self.rank * each + min(self.rank, more)
        return slice(first, first + each + (self.rank < more))

    def share_of(self, batch: Batch) -> Batch:
        """Cut this process's items out of a batch."""
        if self.size == 1:
            return batch
        whole = len(batch.target)
        rows = self.share(whole)
        cut = {
            name: value[rows]
            for name, value in vars(batch).items()
            if isinstance(value, Tensor) and len(value) == whole
        }
        return replace(batch, **cut, share=Share(rows.start, whole))

    def weight(self, batch: Batch) -> float:
        """By how much a mean over this share counts in the mean over the whole batch."""
        return 1.0 if batch.share is None else len(batch.target) / batch.share.whole

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one device by their sums over all processes, in one transfer."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def largest(self, *values: float) -> list[float]:
        """Give each value's largest over all processes; all processes get the same."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return [float(value) for value in shared.tolist()]


def refuse_several_processes(what: str) -> None:
    """Raise `UsageError` where torchrun started several processes for something that one process does."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"{what} are scored by one process; run lowlight eval without torchrun")


@contextmanager
def join_team(device: str, batch: int) -> Iterator[Team]:
    """Join the processes that torchrun started, or be alone where it started none.

    Each process takes a CUDA device of its own where there are some; gradients go through NCCL there, through gloo on
    CPUs. Raises `ConfigError` where the batch has fewer items than there are processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        yield Team()
        return
    if batch < size:
        raise ConfigError(f"a batch of {batch} items cannot be shared by {size} processes; use a larger --batch")
    place = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = choose_device(f"cuda:{place}")
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        raise ConfigError(f"several processes train on CPUs or CUDA devices, not on {chosen.type}; use --device cpu")
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), chosen)
        dist.barrier()  # a process that goes while another still talks to it may take that one down
    finally:
        dist.destroy_process_group()


@contextmanager
def shared_dropout(model: nn.Module, share: Share | None) -> Iterator[None]:
    """Let dropout draw its masks for the whole batch and use the rows of this share, for a block.

    Processes whose global generators stand alike then drop what one process would have dropped.
    """
    if share is None:
        yield
        return
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for layer in layers:
        layer.forward = _masked(layer, share)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _masked(layer: nn.Dropout, share: Share) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        # The mask must be laid out as the whole batch would be: numbers are drawn in the order of memory.
        channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        ones = x.new_ones((share.whole, *x.shape[1:])).contiguous(memory_format=layout)
        mask = F.dropout(ones, layer.p, layer.training)
        return x * mask[share.first : share.first + len(x)]

    return forward
