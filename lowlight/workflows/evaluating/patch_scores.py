"""What whole pictures do not tell of a network in training: its divergence, its posterior's error, and its levels.

Measured on one tile in the middle of a pair, in the network's own colours. Source of the first two: thesis, section on
training, which compares pictures from the mean of q(z|x) with those from the mean of p(z|y).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lowlight.core.restoration import HierarchicalModel, Latent, Restoration, RestorationModel
from lowlight.data.pairs import Pair
from lowlight.metrics.fidelity import mae, psnr
from lowlight.ops.gaussian import kl_divergence
from lowlight.restorer import Restorer
from lowlight.tile_source import TileSource
from lowlight.workflows.evaluating.truths import has_size, padded_truth

MOST_PATCHES = 8  # of one validation: a quick look beside whole frames
SEED = 0  # of latents that can only be drawn


@runtime_checkable
class PyramidModel(Protocol):
    """A network whose `restore` gives the pictures of levels, and whose latents need not be drawn."""

    def pictures(self, target: Tensor) -> tuple[Tensor, ...]:
        """The pictures x_1 ... x_K, finest first, that the levels of a target `[B, C', u*h, u*w]` should be."""
        ...

    def reconstruct(self, frames: Tensor, target: Tensor, generator: torch.Generator | None) -> Restoration:
        """Encode every level of a target and decode, without a generator the posteriors' means."""
        ...


def chosen(count: int) -> frozenset[int]:
    """Which of so many pairs are looked at: all, or `MOST_PATCHES` spread over them."""
    few = min(count, MOST_PATCHES)
    return frozenset(place * count // few for place in range(few))


def score_patch(restorer: Restorer, pair: Pair) -> dict[str, float]:
    """Score the middle tile of a pair; nothing where its truth has half the size that the network gives.

    Networks with their posterior have `kl`, the divergence of q(z|x) from the prior in nats, `mae_posterior`, the error
    of the picture from q(z|x) (from its mean; where latents can only be drawn, from a draw), and `mae_prior`, that of
    the picture from the prior's mean beside it. Pyramids have `psnr_level_1` (finest) to `psnr_level_K`, in dB, of the
    test-time pictures; one that is infinite is left out. Pictures are clipped to [0, 1].
    """
    model, traits = restorer.model, restorer.traits
    has_posterior = getattr(model, "encoder", None) is not None
    if not (has_posterior or isinstance(model, PyramidModel)) or not has_size(pair, traits):
        return {}
    frame = restorer.seen(pair.frame)
    whole = restorer.grid(pair.frame)
    row, col = (starts[len(starts) // 2] for starts in (whole.rows, whole.cols))
    grid = replace(whole, rows=(row,), cols=(col,))
    tile = next(TileSource(frame, pair.ratio, grid, traits, 1.0, device=restorer.device).tiles(restorer.dtype))
    frames, base = tile.frames[None], None if tile.base is None else tile.base[None]
    u, side = traits.upscale, traits.upscale * traits.tile
    truth = padded_truth(pair, traits, whole)[:, u * row : u * row + side, u * col : u * col + side]
    target = truth[None].to(restorer.device)
    scores: dict[str, float] = {}
    with torch.inference_mode():
        restored = model.restore(frames, base)
        if has_posterior:
            known = _reconstructed(model, frames, target.to(restorer.dtype), base)
            scores["kl"] = sum(_kl(latent) for latent in known.latents)
            scores["mae_posterior"] = mae(_shown(known.image), target[0])
            scores["mae_prior"] = mae(_shown(restored.image), target[0])
        if isinstance(model, PyramidModel):
            for level, (picture, wanted) in enumerate(zip(restored.levels, model.pictures(target), strict=True), 1):
                scores[f"psnr_level_{level}"] = psnr(_shown(picture), wanted[0])
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def mean_patches(patches: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of every number over the patches that have it."""
    names = dict.fromkeys(name for patch in patches for name in patch)
    return {name: float(np.mean([patch[name] for patch in patches if name in patch])) for name in names}


def _reconstructed(model: object, frames: Tensor, target: Tensor, base: Tensor | None) -> Restoration:
    if isinstance(model, RestorationModel):
        condition, posterior = model.condition(frames, base), model.posterior(target)
        image = model.decode(posterior.mean, condition)
        return Restoration(image, (Latent(posterior.mean, condition.prior, posterior),))
    if isinstance(model, PyramidModel):
        return model.reconstruct(frames, target, None)
    assert isinstance(model, HierarchicalModel)
    return model.reconstruct(frames, target, torch.Generator().manual_seed(SEED), base)


def _kl(latent: Latent) -> float:
    assert latent.posterior is not None
    return float(kl_divergence(latent.posterior, latent.prior))


def _shown(image: Tensor) -> Tensor:
    return image[0].float().clamp(0, 1)
