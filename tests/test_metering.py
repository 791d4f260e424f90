"""The automatic ratio on dark frames made of photographs: noise does not move it, light does."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lowlight.core.photo import RGGB
from lowlight.data.bursts import mosaic_of
from lowlight.data.cameras import draw_gains, draw_matrices
from lowlight.data.noise import BLACK_DN, WHITE_DN, Sensor, draw_sensor, expose
from lowlight.data.photos import open_photos
from lowlight.data.synthetic import SyntheticConfig, light_of
from lowlight.ops.color import apply_matrix
from lowlight.ops.exposure import choose_ratio, ratio_for
from lowlight.raw.bayer import normalise, pack_mosaic, plane_offsets

PHOTOS, RATIOS = 20, (30.0, 100.0, 300.0)
CONFIG = SyntheticConfig()


def packed(mosaic: Tensor) -> Tensor:
    return pack_mosaic(mosaic, plane_offsets(RGGB))[0]


def read(mosaic: Tensor, sensor: Sensor, generator: torch.Generator) -> Tensor:
    levels = torch.tensor([BLACK_DN, WHITE_DN])
    noisy = packed(expose(mosaic, sensor, CONFIG.noise, generator))
    return normalise(noisy, levels[0].expand(4), levels[1].expand(4), clip=False)


@pytest.mark.shared
def test_noise_does_not_move_the_ratio_and_light_does(shared_data: Path) -> None:
    _, aside = open_photos(shared_data / "photos").split()
    generator = torch.Generator().manual_seed(11)
    moved, raised = [], []
    for index in range(PHOTOS):
        photo = torch.from_numpy(aside[index].copy()).movedim(-1, 0)[None].float() / 255
        photo = photo[..., : photo.shape[-2] // 2 * 2, : photo.shape[-1] // 2 * 2]
        for ratio in RATIOS:
            camera = apply_matrix(light_of(photo, CONFIG, generator), draw_matrices(1, generator)).clamp(min=0)
            dark = mosaic_of(camera / draw_gains(1, generator)[:, [0, 1, 2], None, None]) / ratio
            sensor = draw_sensor(1, CONFIG.noise, generator)
            clean, noisy, dimmer = (
                choose_ratio(frame)
                for frame in (
                    packed(dark).clamp(max=1),
                    read(dark, sensor, generator),
                    read(dark / 2, sensor, generator),
                )
            )
            moved.append(abs(math.log2(noisy / clean)))
            if noisy > 1 and dimmer < 300:  # not at an end of the range
                raised.append(math.log2(dimmer / noisy))
    assert np.median(moved) <= 0.25
    assert np.quantile(moved, 0.95) <= 0.6
    assert len(raised) >= 20
    assert np.median(raised) == pytest.approx(1, abs=0.1)


def test_the_ratio_is_metered_between_the_quantiles() -> None:
    means = torch.arange(101.0) / 1000
    assert ratio_for(means) == pytest.approx(0.16 / means[60:96].mean().item(), rel=1e-6)
