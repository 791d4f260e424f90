"""How far the colours of a picture are from those of its reference, noise and detail left aside."""

from torch import Tensor

from lowlight.core.errors import DataError
from lowlight.ops.exposure import block_means

BLOCK_PX = 32


def block_colour_error(picture: Tensor, reference: Tensor, block: int = BLOCK_PX) -> float:
    """Mean CIEDE2000 difference between the block means of two pictures.

    Pictures are `[3, H, W]`, encoded, in [0, 1], in sRGB primaries. Means are taken of the encoded values
    over `block` x `block` pixels (fewer at the bottom and right). Pictures are rendered with LibRaw's default
    curve but tagged sRGB, so the values are read through the sRGB curve here, as any viewer does.
    Source: CIE 142-2001, with kL = kC = kH = 1 and the D65 white of sRGB.
    """
    from skimage.color import deltaE_ciede2000, rgb2lab

    if picture.shape != reference.shape or picture.shape[0] != 3:
        raise DataError(
            f"colours of a picture {tuple(picture.shape)} and a reference {tuple(reference.shape)} cannot be "
            "compared; both must be [3, H, W] of one size"
        )
    labs = [
        rgb2lab(block_means(each.double(), block).clamp_(0, 1).permute(1, 2, 0).cpu().numpy())
        for each in (picture, reference)
    ]
    return float(deltaE_ciede2000(*labs).mean())  # type: ignore[no-untyped-call]
