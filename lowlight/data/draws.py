"""What is drawn at random, and in which order a set is gone through: the same on every machine."""

import numpy as np
import torch
from torch import Generator, Tensor

from lowlight.core.errors import DataError


def stream(*numbers: int) -> Generator:
    """A generator on the CPU whose draws depend on the given numbers (each below 2^32) alone."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    return Generator().manual_seed(seed >> 1)


class EpochOrder:
    """Batches of places in a set: every item once an epoch, in an order that the seed, the epoch and `kind` give.

    `kind` keeps it apart from other draws of the same seed. An incomplete last batch is left out.
    """

    def __init__(self, count: int, batch: int, seed: int, kind: int, *, noun: str) -> None:
        """`noun` is what the items are called in the `DataError` for batches that cannot be made of them."""
        if not 1 <= batch <= count:
            raise DataError(f"a batch of {batch} cannot be made from {count} {noun}; choose 1 to {count}")
        self.count, self.batch, self.seed, self.kind = count, batch, seed, kind
        self._epoch: tuple[int, Tensor] | None = None  # the one that was asked for last

    @property
    def steps(self) -> int:
        """Whole batches of an epoch."""
        return self.count // self.batch

    def chosen(self, step: int) -> Tensor:
        """Places of the items of a step's batch, int64 `[batch]`."""
        epoch, place = divmod(step, self.steps)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, torch.randperm(self.count, generator=stream(self.seed, self.kind, epoch)))
        return self._epoch[1][place * self.batch : (place + 1) * self.batch]
