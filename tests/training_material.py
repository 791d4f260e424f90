"""Small photos, pairs and runs for the tests of learning."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lowlight.core.photo import RGGB, RawFrame
from lowlight.data.packed_set import write_packed_set
from lowlight.data.pairs import Pair
from lowlight.data.photos import is_held_out, open_photos
from lowlight.data.scenes import procedural_scene
from lowlight.workflows.training.config import TrainConfig, resolve

SIDE_PX = 288
TINY_MODEL = {
    "sid-net": {"base_channels": 2, "latent": 8, "init": "kaiming"},
    "sid-net-noskip": {"base_channels": 2, "latent": 8, "init": "kaiming"},
    "sid-net-small": {"base_channels": 2, "latent": 8, "init": "kaiming"},
    "sid-net-slim": {"base_channels": 2, "latent": 8},
    "pix2pix": {"base_channels": 2, "init": "kaiming"},
}


def training_names(count: int) -> list[str]:
    """Names of photos that the held-out rule leaves for training."""
    return [name for name in (f"scene{i}.png" for i in range(999)) if not is_held_out(name)][:count]


def write_photos(folder: Path, names: list[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names or training_names(2)):
        Image.fromarray(procedural_scene(seed, SIDE_PX)).save(folder / name)
    return folder


def make_pair(name: str = "dark.dng", seed: int = 0, size: tuple[int, int] = (64, 96)) -> Pair:
    rng = np.random.default_rng(seed)
    frame = RawFrame(
        mosaic=rng.integers(512, 700, size, dtype=np.uint16),
        pattern=RGGB,
        black=(512.0, 513.0, 514.0, 515.0),
        white=(16383.0,) * 4,
        wb=(2.0, 1.0, 1.5, 1.0),
        wb_source="camera",
        camera_to_srgb=np.array([[1.5, -0.3, -0.2], [-0.2, 1.4, -0.2], [0, -0.5, 1.5]], np.float32),
    )
    truth = rng.integers(0, 65536, (size[0] // 2, size[1] // 2, 3), dtype=np.uint16)
    return Pair(name, "scene", frame, truth, 100.0)


def write_packed(folder: Path, pairs: int = 1) -> Path:
    """A packed file of two photos and as many pairs."""
    photos = open_photos(write_photos(folder / "photos"))
    path = folder / "set.zip"
    write_packed_set(path, photos, [make_pair(f"dark{i}.dng", i) for i in range(pairs)])
    return path


def tiny_values(photos: Path, **run: Any) -> dict[str, Any]:
    """The plain values of a run that takes a fraction of a second a step."""
    return {
        "model": {"name": "sid-net-slim", "options": dict(TINY_MODEL["sid-net-slim"])},
        "objective": {"name": "l1"},
        "data": {"path": str(photos), "options": {"scene_share": 0.0}},
        "optimiser": {"batch": 1, "learning_rate": 1e-3, "schedule": "cosine", "ema": 0.9},
        "run": {"steps": 4, "device": "cpu", "precision": "fp32", "log_every": 2, **run},
    }


def tiny_run(photos: Path, **run: Any) -> TrainConfig:
    return resolve(tiny_values(photos, **run))
