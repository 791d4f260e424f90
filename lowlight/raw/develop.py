"""From white-balanced camera colour to an sRGB picture, the way LibRaw renders by default.

The ground truths of the See-in-the-Dark pairs are rendered so: camera matrix to sRGB primaries, clipped, then the
curve (2.222, 4.5). Each row of the matrix sums to 1, so a clipped light source (1, 1, 1) stays neutral.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.ops.color import decode, encode

ENCODE_BITS = 18  # entries of the encoding table: finer than 16 bits, because the toe's slope is 4.5
ROWS = 16  # turned at a time, which stay in the processor's cache
WHITE = 65535


@cache
def _decode_table() -> npt.NDArray[np.float32]:
    return decode(torch.arange(WHITE + 1, dtype=torch.float64) / WHITE).float().numpy()


@cache
def _encode_table() -> npt.NDArray[np.uint16]:
    steps = 1 << ENCODE_BITS
    linear = torch.arange(steps + 1, dtype=torch.float64) / steps
    return (encode(linear) * WHITE + 0.5).numpy().astype(np.uint16)


def to_linear(encoded: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Encoded uint16 of any shape to linear float32 in [0, 1]."""
    return _decode_table().take(encoded)


def to_encoded(linear: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Linear float32 of any shape, clipped to [0, 1], to encoded uint16."""
    steps = np.float32(1 << ENCODE_BITS)
    index = np.clip(linear, 0, 1)
    index *= steps
    index += np.float32(0.5)
    return _encode_table().take(index.astype(np.int32))


def develop(camera: npt.NDArray[np.uint16], camera_to_srgb: npt.NDArray[np.float32] | None) -> npt.NDArray[np.uint16]:
    """Camera colour `[H, W, 3]` in LibRaw's curve to sRGB primaries in the same curve, uint16 both.

    Without a matrix the camera's colours are taken as they are.
    """
    if camera_to_srgb is None:
        return camera
    # Colour by colour: products of so small a matrix by a BLAS library are slow where other threads are at work.
    steps = 1 << ENCODE_BITS
    shares = camera_to_srgb.astype(np.float32) * np.float32(steps)
    developed = np.empty(camera.shape, dtype=np.uint16)
    for top in range(0, len(camera), ROWS):
        linear = [to_linear(camera[top : top + ROWS, :, colour]) for colour in range(3)]
        for colour, (of_red, of_green, of_blue) in enumerate(shares):
            index = linear[0] * of_red
            index += linear[1] * of_green
            index += linear[2] * of_blue
            index += np.float32(0.5)
            np.clip(index, 0, steps, out=index)
            developed[top : top + ROWS, :, colour] = _encode_table().take(index.astype(np.int32))
    return developed


@cache
def _tables_on(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(_decode_table()).to(device), torch.from_numpy(_encode_table().astype(np.int32)).to(device)


def develop_tensor(camera: Tensor, camera_to_srgb: npt.NDArray[np.float32] | None) -> Tensor:
    """What `develop` gives, for int32 tensors `[H, W, 3]` of values 0 to 65535, on their device."""
    if camera_to_srgb is None:
        return camera
    decoded, encoded = _tables_on(camera.device)
    matrix = torch.tensor(np.asarray(camera_to_srgb), dtype=torch.float32).to(camera.device)
    index = (decoded[camera] @ matrix.T).clamp_(0, 1).mul_(float(1 << ENCODE_BITS)).add_(0.5)
    return encoded[index.to(torch.int32)]
