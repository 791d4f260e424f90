"""Rows of a picture worked on in several threads at once.

Many small steps gain nothing from PyTorch's own threads, which share out each single step and wait for each other
after it, and lose much where other programs are at work. So each thread takes rows of its own and does all steps.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import TypeVar

import torch

Item = TypeVar("Item")

MOST = 4  # threads: each has its own intermediate results


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let each torch operation of a block be shared out to so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> AbstractContextManager[None]:
    """Let the torch operations of a block run in the thread that calls them."""
    return threads(1)


def spans(rows: int, band: int) -> list[range]:
    """Rows shared out, in whole bands of so many rows, to as many threads as PyTorch may use, `MOST` at most.

    The bands are the same for every number of threads.
    """
    bands = -(-rows // band)
    count = min(torch.get_num_threads(), MOST, bands)
    cuts = [min(bands * thread // count * band, rows) for thread in range(count + 1)] if count else []
    return [range(start, stop) for start, stop in pairwise(cuts)]


def at_once(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Do `work` on every item, each in a thread of its own that uses no others; raises what one of them raises."""
    items = list(items)
    if len(items) < 2:
        for item in items:
            work(item)
        return
    # What a thread sets holds for threads that begin later, too; the caller's number stands again at the end.
    with one_thread(), ThreadPoolExecutor(len(items), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, items))
