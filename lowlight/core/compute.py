"""Where and in which number format to compute."""

import ctypes
import sys

import torch

from lowlight.core.errors import UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps` to a device that is really there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device {name!r}; use auto, cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} was asked for, but {torch.cuda.device_count()} CUDA devices are visible; "
            "use --device cpu, or check the driver"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' was asked for, but this machine has none; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {name!r} is not supported; use auto, cpu, cuda, cuda:1 or mps")
    return device


def native_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 on this device, not merely possible."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    # The capability probes of PyTorch's CPU backend carry no public name; where one is missing, the answer is no.
    cpu = torch.cpu
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(cpu, probe, lambda: False)() for probe in probes)


def wait_for(device: torch.device) -> None:
    """Let a device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto`, `fp32`, `bf16` or `fp16` to a number format; auto is bf16 where the device has it natively."""
    if name == "auto":
        return torch.bfloat16 if native_bf16(device) else torch.float32
    if name not in PRECISIONS:
        raise UsageError(f"there is no precision {name!r}; use auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is hundreds of times slower than fp32 on a CPU; use auto, bf16 or fp32")
    return PRECISIONS[name]


def keep_freed_memory() -> bool:
    """Tell glibc to keep big freed blocks instead of giving them back and faulting them in again.

    Network activations are large and short-lived, so this saves a fifth of the time on a CPU at a cost of tens of MB.
    All threads share one heap, so that what one has freed serves the others and memory stays flat over many photos.
    It changes the whole process and so belongs into the command line only. Returns whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # glibc, malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        settings = ((m_mmap_max, 0), (m_trim_threshold, -1), (m_arena_max, 1))
        return all([libc.mallopt(*each) for each in settings])
    except (OSError, AttributeError):
        return False
