"""Fixtures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files beside the checkout, or the one LOWLIGHT_SHARED_DATA names."""
    named = os.environ.get("LOWLIGHT_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no folder of real files at {folder}; set LOWLIGHT_SHARED_DATA to one")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny SID-net of full size, `wb` in and camera colour out; random, yet its pictures look sane."""
    import torch

    from lowlight.checkpoint import save_weights
    from lowlight.models import build_model
    from lowlight.models.sid_net import SidNetConfig

    config = SidNetConfig(
        base_channels=2,
        latent=4,
        upscale=2,
        input_colour="wb",
        output_colour="camera",
        base="lowpass",
        init="kaiming",
    )
    state = build_model("sid-net", config, seed=1).state_dict()
    # The head starts at zero, and nothing but the base picture would be seen.
    head = state["decoder.head.3.weight"]
    head.normal_(0, 0.005, generator=torch.Generator().manual_seed(2))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, "sid-net", config, state, trained={}, scores={})
    return path


@pytest.fixture(scope="session")
def dark_dng(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dark CFA DNG of 120x176 with odd black levels, a lamp, and an orientation that turns it."""
    from lowlight.core.photo import GRBG
    from lowlight.writers.cfa_dng import write_cfa_dng

    rows, cols = np.mgrid[0:120, 0:176]
    light = 40 + 30 * np.sin(rows / 9) * np.cos(cols / 13)
    light[20:26, 30:36] = 9000
    noise = np.random.default_rng(7).normal(0, 2, light.shape)
    path = tmp_path_factory.mktemp("dark") / "dark.dng"
    write_cfa_dng(
        path,
        np.clip(512 + light + noise, 0, 16383).astype(np.uint16),
        pattern=GRBG,
        black=(512, 513, 511, 512),
        white=16383,
        wb=(2.1, 1, 1.6, 1),
        xyz_to_camera=[[0.66, -0.17, -0.07], [-0.43, 1.22, 0.23], [-0.05, 0.13, 0.58]],
        exposure_s=0.04,
        iso=6400,
        aperture=2.8,
        orientation=6,
    )
    return path
