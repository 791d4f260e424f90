"""Colour of real cameras, for turning ordinary photographs into what a sensor would have seen.

The matrices are the makers' XYZ (D65) to camera matrices as published in DNG files and in LibRaw's table,
times 10000.
"""

import torch
from torch import Generator, Tensor

from lowlight.core.colorimetry import SRGB_TO_XYZ
from lowlight.data.noise import normal, uniform

XYZ_TO_CAMERA: dict[str, tuple[int, ...]] = {
    "Canon EOS 5D Mark II": (4716, 603, -830, -7798, 15474, 2480, -1496, 1937, 6651),
    "Canon EOS 5D Mark III": (6722, -635, -963, -4287, 12460, 2028, -908, 2162, 5668),
    "Canon EOS 6D": (7034, -804, -1014, -4420, 12564, 2058, -851, 1994, 5758),
    "Nikon D500": (8813, -3210, -1036, -4703, 12868, 2021, -1054, 1940, 6129),
    "Nikon D700": (8139, -2171, -663, -8747, 16541, 2295, -1925, 2008, 8093),
    "Nikon D800": (7866, -2108, -555, -4869, 12483, 2681, -1176, 2069, 7501),
    "Olympus E-M5": (8380, -2630, -639, -2887, 10725, 2496, -627, 1427, 5438),
    "Panasonic DMC-GH4": (7122, -2108, -512, -3155, 11201, 2231, -541, 1423, 5045),
    "Pentax K-5": (8713, -2833, -743, -4342, 11900, 2772, -722, 1543, 6247),
    "Sony ILCE-7M3": (7374, -2389, -551, -5435, 13162, 2519, -1006, 1795, 6552),
    "Sony ILCE-7RM2": (6629, -1900, -483, -4618, 12349, 2550, -622, 1381, 6514),
    "Sony ILCE-7SM2": (5838, -1430, -246, -3497, 11477, 2297, -748, 1885, 5778),
}


def srgb_to_camera_matrices() -> Tensor:
    """Linear sRGB to white-balanced camera colour for every camera, `[cameras, 3, 3]`; rows sum to 1."""
    xyz = torch.tensor(list(XYZ_TO_CAMERA.values()), dtype=torch.float64).view(-1, 3, 3) / 1e4
    camera = xyz @ torch.tensor(SRGB_TO_XYZ, dtype=torch.float64)
    return (camera / camera.sum(-1, keepdim=True)).float()


def draw_matrices(count: int, generator: Generator) -> Tensor:
    """Draw cameras `[count, 3, 3]`: mixtures of the real ones (Brooks et al., "Unprocessing", CVPR 2019)."""
    cameras = srgb_to_camera_matrices().to(generator.device)
    weights = torch.rand(count, len(cameras), generator=generator, device=generator.device).pow(4)
    weights = weights / weights.sum(1, keepdim=True)
    mixed = torch.einsum("bn,nij->bij", weights, cameras)
    return mixed / mixed.sum(-1, keepdim=True)


def draw_gains(count: int, generator: Generator) -> Tensor:
    """White-balance gains `[count, 4]` in colour-index order with minimum 1: lamp light to shade."""
    red = uniform(count, 1.2, 2.7, generator)
    # Red and blue gains move against each other along the daylight and lamp colours.
    blue = (3.9 - red) * (1 + 0.18 * normal((count,), generator))
    gains = torch.stack((red, torch.ones_like(red), blue.clamp(1.0, 3.4), torch.ones_like(red)), 1)
    return gains / gains.amin(1, keepdim=True)
