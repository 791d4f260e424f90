"""The dark picture of the thesis' second task: an amplified frame developed to sRGB before any network sees it."""

from typing import Literal

from torch import Tensor

from lowlight.ops.color import apply_matrix, encode
from lowlight.ops.exposure import packed_to_rgb


def dark_srgb(
    packed: Tensor, ratio: Tensor, gains: Tensor, camera_to_srgb: Tensor, how: Literal["linear", "encoded"]
) -> Tensor:
    """Develop dark packed frames `[B, 4, h, w]` to amplified sRGB `[B, 3, h, w]` in LibRaw's curve, in [0, 1].

    `linear` multiplies light by `ratio [B]`, as LibRaw's own brightening does; `encoded` multiplies encoded values.
    `gains [B, 4]` have minimum 1; `camera_to_srgb [B, 3, 3]`. Source: thesis, task 2.
    """
    balanced = (packed * gains[:, :, None, None]).clamp_(max=1)
    rgb = apply_matrix(packed_to_rgb(balanced), camera_to_srgb).clamp_(0, 1)
    amount = ratio[:, None, None, None]
    if how == "linear":
        return encode((rgb * amount).clamp_(max=1))
    return (encode(rgb) * amount).clamp_(max=1)
