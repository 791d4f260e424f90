"""Bias and activation in one pass over a picture's features, on CUDA devices.

A convolution's bias is added there by a kernel that reads two bytes at a time, which takes longer than many a
convolution, and the activation passes over memory once more. Written in Triton, which comes with PyTorch for CUDA;
elsewhere, and under a compiler that does the same by itself, nothing is fused.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

_BLOCK = 4096  # values of one program
_HALF = (torch.bfloat16, torch.float16)


def _make_kernel() -> Any:
    """Define the kernel; None without Triton."""
    if find_spec("triton") is None:
        return None
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator, unused-ignore]
    def add_bias_leaky(values, bias, count, channels, slope, block: tl.constexpr):  # type: ignore[no-untyped-def]
        """`values += bias[channel]`, then LeakyReLU, of numbers whose channels lie side by side."""
        places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
        there = places < count
        sums = tl.load(values + places, mask=there).to(tl.float32)
        sums += tl.load(bias + places % channels, mask=there).to(tl.float32)
        tl.store(values + places, tl.where(sums > 0, sums, slope * sums), mask=there)

    return add_bias_leaky


_kernel: Any = None
_asked = False


def can_fuse(x: Tensor) -> bool:
    """Whether the bias of what is computed from `x` can be added here: 16-bit inference on CUDA, with Triton."""
    if x.device.type != "cuda" or x.dtype not in _HALF:
        return False
    if not torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
        return False
    global _kernel, _asked
    if not _asked:
        _kernel, _asked = _make_kernel(), True
    return _kernel is not None


def add_bias(x: Tensor, bias: Tensor, slope: float = 1.0) -> Tensor:
    """`LeakyReLU(x + bias)` in place for channels-last `x [B, C, h, w]`; with a slope of 1 the sum alone."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        x = x.contiguous(memory_format=torch.channels_last)
    count = x.numel()
    with torch.cuda.device(x.device):
        _kernel[(-(-count // _BLOCK),)](x, bias, count, x.shape[1], slope, block=_BLOCK)
    return x
