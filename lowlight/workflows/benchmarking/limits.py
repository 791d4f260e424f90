"""How fast the machine could be: matrix products, through the library that convolutions use.

Rates on a CPU are per second of CPU time and so of one core: other work on the machine then counts little.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.compute import wait_for

SIDES = (1024, 2048)  # of square products: large enough for full speed, small enough for seconds
REPEATS = 3


class MatrixRate(NamedTuple):
    """The best rate that was seen, in GFLOP/s (a multiply-add is two; on a CPU of one core), and what reached it."""

    gflops: float
    how: str


class Spent(NamedTuple):
    """Seconds on the clock, and of the processor by all threads of this process."""

    wall_s: float
    cpu_s: float

    def on(self, device: torch.device) -> float:
        """The seconds that rates go by."""
        return self.cpu_s if device.type == "cpu" else self.wall_s


def spent(work: Callable[[], object], device: torch.device) -> Spent:
    """What one call took, the device's work included."""
    wait_for(device)
    began, cpu = time.perf_counter(), time.process_time()
    work()
    wait_for(device)
    return Spent(time.perf_counter() - began, time.process_time() - cpu)


@torch.inference_mode()
def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = REPEATS) -> MatrixRate:
    """Measure the machine's matrix rate in a number format: for each way the median, of these the best.

    On a CPU `torch.mm` in fp32 goes through a library that leaves out AVX-512 on some processors, and convolutions do
    not. So a convolution of 1x1, which is the same product, is tried as well: that one goes through oneDNN.
    """
    best = MatrixRate(0.0, "none")
    for side in SIDES:
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
        pixels = a.T.reshape(1, side, side // 32, 32).to(memory_format=torch.channels_last)
        kernel = b.reshape(side, side, 1, 1)
        ways: dict[str, Callable[[], Tensor]] = {f"product of {side}": lambda a=a, b=b: a @ b}  # type: ignore[misc]
        if device.type == "cpu":
            ways[f"1x1 convolution of {side} channels"] = lambda p=pixels, k=kernel: F.conv2d(p, k)  # type: ignore[misc]
        for how, work in ways.items():
            work()
            seconds = statistics.median(spent(work, device).on(device) for _ in range(repeats))
            best = max(best, MatrixRate(2e-9 * side**3 / seconds, how))
    return best


def peak_mib(device: torch.device) -> float:
    """Largest memory this process has had: on CUDA the device's, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:  # `ru_maxrss` counts what the parent had before this program was loaded, too
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
