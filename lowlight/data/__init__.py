"""Every source of training batches under the name users type. To add one: write its file, add its entry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.digits import DigitsConfig, open_digits
from lowlight.data.faces import FacesConfig, open_faces
from lowlight.data.fusion_celeba import FusionCelebaConfig, open_fusion_celeba
from lowlight.data.fusion_digits import FusionDigitsConfig, ShapesConfig, open_fusion_mnist, open_shapes_fusion
from lowlight.data.fusion_tless import FusionTlessConfig, open_fusion_tless
from lowlight.data.photos import open_photos
from lowlight.data.real_pairs import RealPairsConfig, open_real_pairs
from lowlight.data.repair import RepairConfig, open_repair
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
    """A dataset: its configuration class, how to open it, and for which kind of networks it is.

    `build(path, traits, options, batch, seed, device)` refuses traits it cannot serve.
    """

    config: type[Any]
    build: Callable[..., Source]
    summary: str
    kind: Literal["raw", "image"] = "raw"  # as in ModelTraits


def _synthetic(
    path: Path, traits: ModelTraits, config: SyntheticConfig, batch: int, seed: int, device: torch.device
) -> Source:
    photos, _ = open_photos(path).split()
    return SyntheticSource(photos, traits, config, batch, seed, device)


DATASETS: dict[str, Entry] = {
    "synthetic": Entry(SyntheticConfig, _synthetic, "dark RAW made from clean photos and procedural scenes"),
    "pairs": Entry(RealPairsConfig, open_real_pairs, "real pairs: a cache, a manifest or a folder with SID's names"),
    "digits": Entry(DigitsConfig, open_digits, "handwritten digits: a folder with the files of MNIST", kind="image"),
    "fusion-mnist": Entry(
        FusionDigitsConfig, open_fusion_mnist, "FusionMNIST: digits seen in parts under noise", kind="image"
    ),
    "shapes-fusion": Entry(
        ShapesConfig, open_shapes_fusion, "ShapesFusion: the same with drawn digits; reads no files", kind="image"
    ),
    "fusion-celeba": Entry(FusionCelebaConfig, open_fusion_celeba, "FusionCelebA: faces seen in parts", kind="image"),
    "fusion-tless": Entry(FusionTlessConfig, open_fusion_tless, "FusionT-LESS: objects hidden by others", kind="image"),
    "faces": Entry(FacesConfig, open_faces, "drawn faces, or a folder of real ones", kind="image"),
    "repair": Entry(RepairConfig, open_repair, "damaged digits and their clean versions", kind="image"),
}


def require_kind(name: str, traits: ModelTraits, model_name: str) -> None:
    """Refuse a dataset for networks of another kind, with those that suit this one."""
    if DATASETS[name].kind != traits.kind:
        fitting = [other for other, entry in DATASETS.items() if entry.kind == traits.kind]
        raise ConfigError(
            f"dataset {name!r} cannot train model {model_name!r}; for this model there are {', '.join(fitting)}"
        )
