"""The fusion sets as the table of scorers takes them: a quick look at few pictures and samples, and a figure.

The full measures, row by row, are `fusion_scores.score_fusion`'s.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lowlight.core.restoration import HierarchicalModel
from lowlight.data.fusion_celeba import FusionCelebaConfig, read_fusion_celeba
from lowlight.data.fusion_digits import FusionDigitsConfig, ShapesConfig, draw_shapes_fusion, read_fusion_mnist
from lowlight.data.fusion_source import FixedFrames, FusionSets
from lowlight.data.fusion_tless import FusionTlessConfig, read_fusion_tless
from lowlight.workflows.evaluating.fusion_samples import samples_sheet
from lowlight.workflows.evaluating.fusion_scores import score_fusion

QUICK_IMAGES, QUICK_SAMPLES = 200, 10

SETS: dict[type[Any], Callable[[Path, Any], FusionSets]] = {
    FusionDigitsConfig: read_fusion_mnist,
    ShapesConfig: draw_shapes_fusion,
    FusionCelebaConfig: read_fusion_celeba,
    FusionTlessConfig: read_fusion_tless,
}


def open_fixed_frames(path: Path, options: Any, split: str = "validation", limit: int | None = None) -> FixedFrames:
    """Open a split of the set that `options` configures, with fixed frames; at most `limit` pictures of it."""
    sets = SETS[type(options)](path, options)
    pictures = sets.training if split == "train" else sets.validation
    return FixedFrames(pictures, options.max_frames, limit=limit)


def open_scored_fusion(path: Path, options: Any, split: str) -> FixedFrames:
    """Open the few pictures of a split that are looked at."""
    return open_fixed_frames(path, options, split, QUICK_IMAGES)


def score_fused(model: HierarchicalModel, pictures: FixedFrames, device: torch.device, seed: int) -> dict[str, float]:
    """`mse_min`, and `nll` in bits per dimension where there are latents: means over the numbers of frames, and each.

    With few samples both are larger than the full measures say, so they compare with one another only.
    """
    frames = range(pictures.max_frames + 1)
    rows = score_fusion(model, pictures, samples=QUICK_SAMPLES, frames=frames, seed=seed)
    scores = {}
    for name in ("mse_min", "nll"):
        if rows[-1][name] is not None:
            scores[name] = rows[-1][name]
            scores |= {f"{name}_{row['frames']}": row[name] for row in rows[:-1]}
    return scores


def fusion_figures(
    model: HierarchicalModel, path: Path, options: Any, title: str, seed: int
) -> dict[str, str | npt.NDArray[np.uint16]]:
    """Draw samples of a network on the set that `options` configures; the picture has no title."""
    pictures = open_fixed_frames(path, options)
    frames = range(pictures.max_frames + 1)
    return {"samples": samples_sheet(model, pictures, items=min(6, len(pictures)), frames=frames, seed=seed)}
