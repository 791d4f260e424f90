"""Every source of training batches under the name users type. To add one: write its file, add its entry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.photos import open_photos
from lowlight.data.real_pairs import RealPairsConfig, open_real_pairs
from lowlight.data.synthetic import SyntheticConfig, SyntheticSource


class Source(Protocol):
    """Gives the batch of any step; the same step gives the same batch."""

    def batch(self, step: int) -> Batch:
        """Training items of one step."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a weights file should record of the data."""
        ...


@dataclass(frozen=True)
class Entry:
    """A dataset: its configuration class and how to open it."""

    config: type[Any]
    build: Callable[..., Source]
    summary: str


def _synthetic(
    path: Path, traits: ModelTraits, config: SyntheticConfig, batch: int, seed: int, device: torch.device
) -> Source:
    photos, _ = open_photos(path).split()
    return SyntheticSource(photos, traits, config, batch, seed, device)


DATASETS: dict[str, Entry] = {
    "synthetic": Entry(SyntheticConfig, _synthetic, "dark RAW made from clean photos and procedural scenes"),
    "pairs": Entry(RealPairsConfig, open_real_pairs, "real pairs: a cache, a manifest or a folder with SID's names"),
}
