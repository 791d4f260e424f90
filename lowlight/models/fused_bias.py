"""Bias and activation in one pass over a picture's features, on CUDA devices.

A convolution's bias is added there by a kernel that reads two bytes at a time, which takes longer than many a
convolution, and the activation passes over memory once more. Written in Triton, which comes with PyTorch for CUDA;
elsewhere, under a compiler that does the same by itself, and where Triton does not work, nothing is fused.
"""

import logging
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

_BLOCK = 4096  # values of one program
_HALF = (torch.bfloat16, torch.float16)


def can_fuse(x: Tensor) -> bool:
    """Whether the bias of what is computed from `x` can be added here: 16-bit inference on CUDA, with Triton."""
    if x.device.type != "cuda" or x.dtype not in _HALF:
        return False
    if not torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
        return False
    return working_kernel(x.device) is not None


def add_bias(x: Tensor, bias: Tensor, slope: float = 1.0) -> Tensor:
    """`LeakyReLU(x + bias)` in place for channels-last `x [B, C, h, w]`; with a slope of 1 the sum alone."""
    return _launch(working_kernel(x.device), x, bias, slope)


@cache
def working_kernel(device: torch.device) -> Any:
    """The kernel, once it has been seen to work on a device; None where it does not, as without a C compiler."""
    kernel = make_kernel()
    if kernel is None:
        return None
    values = torch.linspace(-2, 2, 2 * 3 * 5 * 7, device=device).view(2, 3, 5, 7)
    x = values.to(torch.bfloat16, memory_format=torch.channels_last)
    bias = torch.tensor([-1.0, 0.25, 0.5], device=device, dtype=torch.bfloat16)
    expected = F.leaky_relu(x.float() + bias.float()[:, None, None], 0.5)
    try:
        found = _launch(kernel, x, bias, 0.5).float()
    except Exception as error:  # Triton's compiler, the C compiler it calls and the driver raise what they like
        logger.info("bias and activation stay apart on %s: %s", device, error)
        return None
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
        logger.warning("bias and activation stay apart on %s: together they came out wrong", device)
        return None
    return kernel


def make_kernel() -> Any:
    """Define the kernel; None without Triton."""
    if find_spec("triton") is None:
        return None
    import triton
    import triton.language as tl

    # Triton compiles the source of this function, whose arguments have no types of Python's.
    @triton.jit  # type: ignore[untyped-decorator, unused-ignore]
    def add_bias_leaky(values, bias, count, channels, slope, block: tl.constexpr):  # type: ignore[no-untyped-def]
        """`values += bias[channel]`, then LeakyReLU, of numbers whose channels lie side by side."""
        places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
        there = places < count
        sums = tl.load(values + places, mask=there).to(tl.float32)
        sums += tl.load(bias + places % channels, mask=there).to(tl.float32)
        tl.store(values + places, tl.where(sums > 0, sums, slope * sums), mask=there)

    return add_bias_leaky


def _launch(kernel: Any, x: Tensor, bias: Tensor, slope: float) -> Tensor:
    if not x.is_contiguous(memory_format=torch.channels_last):
        x = x.contiguous(memory_format=torch.channels_last)
    count = x.numel()
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel[(-(-count // _BLOCK),)](x, bias, count, x.shape[1], slope, block=_BLOCK)
    return x
