"""What a fusion network reads once and may draw from often, and the paths of training and of the test made of both."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Noise, Restoration, Share
from lowlight.models.fusion_blocks import SizePenalty
from lowlight.models.fusion_options import TowerOptions
from lowlight.models.fusion_parts import Features, SharedEncoder
from lowlight.ops.aggregation import fuse_max, mean_frame


class Reading(NamedTuple):
    """What was read from frames, if any, and from a target, if any, of so many items of `size` (h, w)."""

    frames: Features | None
    target: Features | None
    items: int
    size: tuple[int, int]

    def repeat(self, times: int) -> "Reading":
        """Each item so many times in a row, to draw several times from what was read once."""

        def copies(features: Features | None) -> Features | None:
            if features is None:
                return None
            taps, levels = (tuple(x.repeat_interleave(times, 0) for x in part) for part in features)
            return Features(taps, levels)

        return Reading(copies(self.frames), copies(self.target), self.items * times, self.size)


class FusionNetwork(nn.Module):
    """What FusionVAE and its baselines have in common: each path is a reading, and a draw from it.

    A network says how it reads, and how it draws; `size_penalty` is None where it was built without.
    """

    size_penalty: SizePenalty | None

    def read(self, frames: Tensor, target: Tensor | None = None) -> Reading:
        """Run the shared encoder on frames `[B, K, C, h, w]`, K from 0 on, and on a target `[B, C', u*h, u*w]`."""
        raise NotImplementedError

    def draw_posterior(
        self, reading: Reading, generator: torch.Generator, base: Tensor | None = None, share: Share | None = None
    ) -> Restoration:
        """Draw every latent from its posterior, for a reading of a target."""
        raise NotImplementedError

    def draw_prior(self, reading: Reading, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """Take every latent from its prior: the mean, or `noise` standard deviations away from it."""
        raise NotImplementedError

    def reconstruct(
        self,
        frames: Tensor,
        target: Tensor,
        generator: torch.Generator,
        base: Tensor | None = None,
        share: Share | None = None,
    ) -> Restoration:
        """Training path: latents are drawn from their posteriors."""
        return self.draw_posterior(self.read(frames, target), generator, base, share)

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """Prior path: latents are the priors' means, moved by `noise`, one `[B, Z, h', w']` per latent, if given."""
        return self.draw_prior(self.read(frames), base, noise)

    def penalty(self) -> Tensor:
        """Sum of the convolutions' largest singular values and of the norms' largest |gamma|."""
        if self.size_penalty is None:
            raise ConfigError(
                "this network was built without the state of its penalty; set its option penalised to true"
            )
        return self.size_penalty(self)  # type: ignore[no-any-return]


def read_pictures(
    encoder: SharedEncoder,
    options: TowerOptions,
    frames: Tensor,
    target: Tensor | None = None,
    target_stem: nn.Module | None = None,
) -> Reading:
    """Encode frames `[B, K, C, h, w]`, with their mean where the options want it, and a target `[B, C', h, w]`."""
    items, members, _, height, width = frames.shape
    assert height % options.stride == width % options.stride == 0, (frames.shape, options.stride)
    if options.mean_element and members > 1:
        frames = torch.cat((frames, mean_frame(frames)), 1)
    of_frames, of_target = encoder(frames, target, target_stem)
    # What nothing reads is dropped, and sets become their maximum where only that is read: draws repeat the rest.
    if of_target is not None:
        of_target = of_target._replace(levels=())
    if of_frames is not None:
        levels = of_frames.levels if options.shows_levels else ()
        taps = of_frames.taps
        if getattr(options, "aggregation", "max") == "max":
            taps = tuple(fuse_max(tap).unsqueeze(1) for tap in taps)
        of_frames = Features(taps, tuple(fuse_max(level).unsqueeze(1) for level in levels))
    return Reading(of_frames, of_target, items, (height, width))
