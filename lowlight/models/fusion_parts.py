"""The parts of FusionVAE: the encoder that frames and target share, the latent groups and the decoder's two ends.

Source: F. Duffhauss et al., FusionVAE, ECCV 2022, section 4.3. `y` is the target, `x` are the frames, `s` is the
decoder's state.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight.core.restoration import Gaussian
from lowlight.models.fusion_blocks import DecoderCell, EncoderCell
from lowlight.models.fusion_options import CellStyle, FusionOptions, TowerOptions
from lowlight.ops.aggregation import fuse_max, fuse_mean, fuse_normals
from lowlight.ops.gaussian import standard_normal

LEAST_SIGMA = 0.01
CLAMP = 5.0  # means and log-sigmas stay within this


class Features(NamedTuple):
    """What the encoder reads from pictures: `taps` for the latent groups, coarsest first; `levels`, finest first.

    Levels are the features of each size as they leave it, the stem's first. Those of a target are `[B, C, h, w]`,
    those of sets `[B, K, C, h, w]`.
    """

    taps: tuple[Tensor, ...]
    levels: tuple[Tensor, ...]


class Tower(nn.Module):
    """The encoder after its stem: blocks that halve the size, then the cells of each latent group with a tap."""

    def __init__(self, options: TowerOptions) -> None:
        super().__init__()
        widths = options.widths()
        self.pre = nn.ModuleList()
        for width, wider in pairwise(widths[: options.pre_blocks + 1]):
            cells = [EncoderCell(width, **options.cell_style()) for _ in range(options.pre_cells - 1)]
            self.pre.append(nn.Sequential(*cells, EncoderCell(width, wider, **options.cell_style())))
        scale_widths = widths[options.pre_blocks :]
        self.halve = nn.ModuleList(EncoderCell(i, o, **options.cell_style()) for i, o in pairwise(scale_widths))
        self.scales = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(*(EncoderCell(width, **options.cell_style()) for _ in range(options.cells)))
                for _ in range(groups)
            )
            for width, groups in zip(scale_widths, options.group_counts(), strict=True)
        )
        self.coarsest = nn.Sequential(nn.ELU(), nn.Conv2d(widths[-1], widths[-1], 1), nn.ELU())

    def forward(self, x: Tensor) -> Features:
        """Read the stem's output `[N, C, h, w]`."""
        levels, taps = [x], []
        for block in self.pre:
            x = block(x)
            levels.append(x)
        for scale, groups in enumerate(self.scales):
            if scale:
                x = self.halve[scale - 1](x)
            for cells in groups:  # type: ignore[attr-defined]
                x = cells(x)
                taps.append(x)
            if scale:
                levels.append(x)
            else:
                levels[-1] = x
        taps[-1] = self.coarsest(taps[-1])
        return Features(tuple(reversed(taps)), tuple(levels))


class SharedEncoder(nn.Module):
    """Frames and target through the same weights, and through the same stem where they have as many channels.

    They pass together, so that batch norm sees one batch of both: its running numbers at test time are of the kind
    that it trained with.
    """

    def __init__(self, options: TowerOptions, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, options.base_channels, 3, padding=1)
        self.tower = Tower(options)

    def forward(
        self, frames: Tensor, target: Tensor | None = None, target_stem: nn.Module | None = None
    ) -> tuple[Features | None, Features | None]:
        """Read frames `[B, K, C, h, w]` and a target `[B, C', h, w]`, both in [0, 1]; None for what is not there."""
        items, members = frames.shape[:2]
        entered = []
        if members:
            entered.append(self.stem(2 * frames.flatten(0, 1) - 1))
        if target is not None:
            stem = self.stem if target_stem is None else target_stem
            entered.append(stem(2 * target - 1))
        if not entered:
            return None, None
        read = self.tower(torch.cat(entered))
        if not members:
            return None, read
        of_frames, of_target = (read, None) if target is None else _parted(read, items * members)
        return _each(of_frames, lambda x: x.reshape(items, members, *x.shape[1:])), of_target


def aggregate(features: Tensor, how: str) -> Tensor:
    """Features of a set to one, `[B, K, C, h, w]` to `[B, C, h, w]`."""
    return fuse_mean(features) if how == "mean" else fuse_max(features)


def soft_clamp(x: Tensor) -> Tensor:
    """Keep numbers within -5 and 5, without a step in the slope."""
    return CLAMP * torch.tanh(x / CLAMP)


def to_gaussian(numbers: Tensor) -> Gaussian:
    """Means and log-sigmas along the channels to a normal, in float32: clamped, sigma at least 0.01."""
    mean, log_sigma = soft_clamp(numbers.float()).chunk(2, dim=-3)
    return Gaussian(mean, 2 * (log_sigma.exp() + LEAST_SIGMA).log())


class LatentGroup(nn.Module):
    """One level of the hierarchy: its prior, and the state that the drawn z leads to."""

    def __init__(self, options: FusionOptions, channels: int, *, first: bool) -> None:
        super().__init__()
        self.options = options
        numbers = 2 * options.latent
        style, count = options.cell_style(), 0 if first else options.cells
        cells = [DecoderCell(channels, expansion=6, **style) for _ in range(count)]
        self.cells = nn.Sequential(*cells)
        self.guide = None if first else nn.Conv2d(channels, channels, 1)
        self.prior_head = nn.Conv2d(channels, numbers, 3, padding=1)
        own = options.aggregation == "bayes" and options.aggregate == "all" and not first
        self.guide_head = nn.Conv2d(channels, numbers, 3, padding=1) if own else None
        self.join = nn.Conv2d(channels + options.latent, channels, 1)

    def step(self, state: Tensor) -> tuple[Tensor, Tensor | None]:
        """The state before z is drawn, and g, what of it p and q see; the first group sees nothing."""
        state = self.cells(state)
        return state, None if self.guide is None else self.guide(state)

    def prior(self, frames: Tensor | None, guide: Tensor | None, state: Tensor) -> Gaussian:
        """p(z_l|x, z_<l) from the features of frames `[B, K, C, h, w]`, if any, and g; N(0, I) without both."""
        if frames is None and guide is None:
            return standard_normal(state[:, :1].expand(-1, self.options.latent, -1, -1))
        if self.options.aggregation == "bayes":
            return self._fused_prior(frames, guide)
        if frames is None:
            seen = guide
        elif guide is None:
            seen = aggregate(frames, self.options.aggregation)
        elif self.options.aggregate == "all":
            seen = aggregate(torch.cat((frames, guide.unsqueeze(1)), 1), self.options.aggregation)
        else:
            seen = aggregate(frames, self.options.aggregation) + guide
        assert seen is not None
        return to_gaussian(self.prior_head(F.elu(seen)))

    def _fused_prior(self, frames: Tensor | None, guide: Tensor | None) -> Gaussian:
        """Each member of the set says a normal; what Bayes' rule makes of them is the prior itself."""
        members: list[Tensor] = []
        if frames is not None:
            shown = frames if guide is None or self.guide_head is not None else frames + guide.unsqueeze(1)
            said = self.prior_head(F.elu(shown).flatten(0, 1))
            members.append(said.reshape(*frames.shape[:2], *said.shape[1:]))
        if guide is not None and (self.guide_head is not None or not members):
            head = self.guide_head or self.prior_head
            members.append(head(F.elu(guide)).unsqueeze(1))
        return fuse_normals(to_gaussian(torch.cat(members, 1)), deviations=self.options.bayes_sigma)

    def advance(self, state: Tensor, z: Tensor) -> Tensor:
        """The state after z is known."""
        joined: Tensor = self.join(torch.cat((state, z.to(state)), 1))
        return joined


class PosteriorHeads(nn.Module):
    """What q has for itself: a head for each latent group, and a stem where the target has other channels."""

    def __init__(self, options: FusionOptions, in_channels: int, target_channels: int) -> None:
        super().__init__()
        self.options = options
        width = options.base_channels
        self.stem = nn.Conv2d(target_channels, width, 3, padding=1) if target_channels != in_channels else None
        scales = list(zip(options.widths()[options.pre_blocks :], options.group_counts(), strict=True))
        widths = [width for width, count in reversed(scales) for _ in range(count)]
        self.heads = nn.ModuleList(nn.Conv2d(width, 2 * options.latent, 3, padding=1) for width in widths)

    def forward(
        self, place: int, target: Tensor, frames: Tensor | None, guide: Tensor | None, prior: Gaussian
    ) -> Gaussian:
        """q(z_l|y, z_<l) from the target's features and g, or q(z_l|x, y, z_<l) from the frames' too."""
        seen = target if guide is None else target + guide
        if self.options.posterior == "xy" and frames is not None:
            seen = seen + aggregate(frames, self.options.aggregation)
        numbers = self.heads[place](seen)
        if not self.options.residual_q:
            return to_gaussian(numbers)
        mean, log_sigma = soft_clamp(numbers.float()).chunk(2, dim=1)
        return Gaussian(prior.mean + mean, prior.log_variance + 2 * log_sigma)


def growing_block(channels: int, channels_out: int, cells: int, style: CellStyle) -> nn.Sequential:
    """A block after the last latent group: a cell that doubles the size, then normal ones."""
    more = [DecoderCell(channels_out, expansion=3, **style) for _ in range(cells - 1)]
    return nn.Sequential(DecoderCell(channels, channels_out, expansion=3, **style), *more)


def grow_blocks(options: TowerOptions) -> nn.ModuleList:
    """All blocks after the last latent group, back to the stem's size and channels."""
    widths = options.widths()[: options.pre_blocks + 1][::-1]
    return nn.ModuleList(growing_block(i, o, options.pre_cells, options.cell_style()) for i, o in pairwise(widths))


def make_start(options: TowerOptions, generator: torch.Generator) -> nn.Parameter:
    """h, the decoder's first state: a tensor of the coarsest size, or of one place, U(0, 1)."""
    side_px = 1 if options.flat_start else options.side_px // options.stride
    start = nn.Parameter(torch.empty(options.widths()[-1], side_px, side_px))
    return nn.Parameter(nn.init.uniform_(start.detach(), generator=generator))


def spread_start(start: Tensor, items: int, size: tuple[int, int]) -> Tensor:
    """Give h for a batch `[B, C, h, w]`; stretched where the pictures are of another size than h was made for."""
    shown = start.unsqueeze(0)
    if start.shape[1:] == (1, 1):
        return shown.expand(items, -1, *size)
    if shown.shape[2:] != size:  # on a CPU only floats of 32 bits can be stretched without aliasing
        shown = F.interpolate(shown.float(), size, mode="bilinear", antialias=True).to(start.dtype)
    return shown.expand(items, -1, -1, -1)


def _each(features: Features, change: Callable[[Tensor], Tensor]) -> Features:
    return Features(tuple(map(change, features.taps)), tuple(map(change, features.levels)))


def _parted(features: Features, first: int) -> tuple[Features, Features]:
    """The first pictures of a batch and the others.

    Split, not sliced: gradients of slices lie in memory as those of no layer do, which slows the whole way back.
    """
    others = len(features.taps[0]) - first
    taps, levels = (tuple(zip(*(torch.split(x, [first, others]) for x in read), strict=True)) for read in features)
    return Features(taps[0], levels[0]), Features(taps[1], levels[1])
