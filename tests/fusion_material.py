"""Small folders in the layouts in which CelebA and T-LESS were published."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Classes for `FusionTlessConfig` that `write_objects` has pictures of.
SMALL_TLESS: dict[str, Any] = {"classes": (19, 20), "training_occluders": (1, 2), "validation_occluders": (3,)}


def write_faces(folder: Path, count: int, *, listed: bool = True, inner: str = "img_align_celeba") -> Path:
    """Faces of one colour each, with a marked border outside of the crop and a bright left half."""
    images = folder / inner
    images.mkdir(parents=True)
    for number in range(1, count + 1):
        pixels = np.full((218, 178, 3), 255, np.uint8)
        pixels[40:188, 15:163] = (10 * number, 120, 60)
        pixels[40:188, 15:89] += 40
        Image.fromarray(pixels).save(images / f"{number:06d}.jpg", quality=95)
    if listed:
        part = ["0"] * (count - 4) + ["1", "1", "1", "2"]
        lines = [f"{number:06d}.jpg {kind}" for number, kind in enumerate(part, 1)]
        (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_objects(folder: Path, each: int = 11, inner: str = "rgb", digits: int = 2) -> Path:
    """Discs, boxes and rings on black, one kind a class, as T-LESS's training pictures are."""
    rows, columns = np.mgrid[:120, :120] - 60
    for kind in (1, 2, 3, 19, 20, 25):
        place = folder / f"{kind:0{digits}d}" / inner
        place.mkdir(parents=True)
        for number in range(each):
            radius = 22 + number
            distance = np.hypot(rows, columns) if kind % 2 else np.maximum(abs(rows), 2 * abs(columns))
            pixels = np.where(distance <= radius, 60 + 5 * kind, 0).astype(np.uint8)
            pixels[(distance <= radius) & (columns > 5)] += 40
            Image.fromarray(np.dstack([pixels] * 3)).save(place / f"{number:04d}.png")
    (folder / "1.txt").write_text("no class")
    return folder
