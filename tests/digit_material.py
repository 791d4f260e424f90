"""Small sets of drawn digits as idx files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

COUNTS = {"train": 300, "t10k": 60}


def idx_bytes(values: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def drawn_digits(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Soft bars whose place and direction tell the class; gray levels included."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count).astype(np.uint8)
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        place = 4 + 4 * (label % 5) + random.integers(-1, 2)
        bar = np.exp(-(((np.arange(28) - place) / 1.5) ** 2)) * random.uniform(180, 255)
        image[4:24] = bar.astype(np.uint8)
        if label >= 5:
            image[:] = image.T
    return images, labels


def write_digit_set(folder: Path, *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate(COUNTS.items()):
        images, labels = drawn_digits(count, seed)
        for file, values in ((f"{name}-images-idx3-ubyte", images), (f"{name}-labels-idx1-ubyte", labels)):
            content = idx_bytes(values)
            target = folder / (f"{file}.gz" if packed else file)
            target.write_bytes(gzip.compress(content, 1) if packed else content)
    return folder
