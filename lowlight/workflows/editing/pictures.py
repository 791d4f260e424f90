"""Editing finished pictures with the unconditional pyramid: reconstruct, paint a coarse level, render it anew.

Source: G. Dorta et al., Laplacian Pyramid of Conditional Variational Autoencoders, CVMP 2017 (the slides' edits).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lowlight.core.errors import UsageError
from lowlight.core.restoration import Latent, ModelTraits, Noise, Restoration
from lowlight.ops.gaussian import standard_noise
from lowlight.workflows.editing.masks import blend, blend_mask, changed_region


class PaintableModel(Protocol):
    """A pyramid of finished pictures that can render one from a painted coarse level."""

    traits: ModelTraits

    def pictures(self, target: Tensor) -> tuple[Tensor, ...]:
        """The pictures of all levels of `[B, 3, n, n]`, finest first."""
        ...

    def sample_finer(self, target: Tensor, level: int, noise: Noise | None = None, levels: int = 1) -> Restoration:
        """Keep the latents of `level` and coarser ones, draw the finer ones; level 1 is the reconstruction."""
        ...

    def paint(self, painted: Tensor, level: int, noise: Noise | None = None) -> Restoration:
        """Render from a painted picture of a level."""
        ...


@dataclass(frozen=True)
class Edit:
    """An edited picture: `samples` are blended, `[B, C, n, n]` each; `mask [B, 1, n, n]` is where they count.

    `composed [B, C, n, n]` shows in each of the regions that were asked for its own sample; None without regions.
    """

    reconstruction: Tensor
    samples: tuple[Tensor, ...]
    mask: Tensor
    composed: Tensor | None = None


def reconstruct(model: PaintableModel, picture: Tensor) -> Restoration:
    """The model's version of pictures `[B, 3, n, n]` by posterior means; its `levels` are the coarse pictures."""
    return model.sample_finer(picture, 1)


def edit(
    model: PaintableModel,
    original: Restoration,
    painted: Tensor,
    level: int,
    samples: int = 1,
    generator: torch.Generator | None = None,
    region: Tensor | None = None,
    regions: Sequence[tuple[Tensor, int]] = (),
) -> Edit:
    """Render pictures anew from a painted coarse picture and blend them into their reconstruction.

    `original` is what `reconstruct` gave and `painted [B, 3, h, w]` its picture of `level`, changed. `region
    [B, 1, h, w]`, bool, is where it was painted; None: where it differs. Without a generator the finer latents are
    their priors' means, and there is one sample. `regions` are masks like `region`, each with the number (from 0) of
    the sample that it shows in `composed`; the last lies on top, and outside of all is the reconstruction.
    """
    if not 1 <= level <= len(original.levels):
        raise UsageError(f"level is {level}; this model has levels 1 (finest) to {len(original.levels)}")
    exported = original.levels[level - 1]
    if region is None:
        region = changed_region(painted, exported)
    if samples < 1 or (samples > 1 and generator is None):
        raise UsageError(f"{samples} samples cannot be drawn; take at least 1, and give a seed for more than 1")
    for chosen, number in regions:
        if not 0 <= number < samples:
            raise UsageError(f"a region asks for sample {number}; expected 0 to {samples - 1}, those that are drawn")
        if chosen.shape != (len(painted), 1, *painted.shape[-2:]):
            raise UsageError(
                f"the mask of a region is {tuple(chosen.shape)}; expected {(len(painted), 1, *painted.shape[-2:])}, "
                "that of the painted picture"
            )
    image = original.image

    def full_size(coarse: Tensor) -> Tensor:
        return blend_mask(coarse, 1 << (level - 1), (image.shape[-2], image.shape[-1]))

    rendered = []
    for _ in range(samples):
        noise = draw_noise(original.latents, generator) if generator else None
        rendered.append(model.paint(painted, level, noise).image)
    mask, composed = full_size(region), image
    for chosen, number in regions:
        composed = blend(composed, rendered[number], full_size(chosen))
    return Edit(image, tuple(blend(image, one, mask) for one in rendered), mask, composed if regions else None)


def draw_noise(latents: tuple[Latent, ...], generator: torch.Generator) -> Noise:
    """Standard normal numbers for every latent of a pyramid, coarsest first."""
    return tuple(standard_noise(latent.sample, generator) for latent in latents)
