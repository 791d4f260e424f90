"""How a training run uses the machine: threads, kernels and seeds."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of CPU and `device`, which dropout draws from, for a block; then put them back."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread_ahead() -> Iterator[ThreadPoolExecutor]:
    """Give a thread that makes the next batch on one core while this step computes on the others."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as ahead:
            yield ahead
    finally:
        torch.set_num_threads(threads)  # the number is also what threads made later begin with


@contextmanager
def fast_kernels(device: torch.device, *, choose: bool = True) -> Iterator[None]:
    """Let fp32 products use TF32, on CUDA, and time and `choose` convolutions once; then put it back."""
    if device.type != "cuda":
        yield
        return
    benchmark, precision = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = choose
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(precision)
