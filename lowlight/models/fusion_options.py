"""Options of FusionVAE and its baselines, on pictures of one size and on RAW frames."""

from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import LatentShape, Likelihood, ModelTraits
from lowlight.models.blocks import Init
from lowlight.models.fusion_blocks import Norm
from lowlight.models.options import MOST_LAYERS, TILE_PX, RawModelOptions, require_sizes

Aggregation = Literal["max", "mean", "bayes"]
FusionInit = Init | Literal["uniform"]
Groups = tuple[tuple[int, int], ...]
MOST_HALVINGS = 16


class CellStyle(TypedDict):
    """What all cells of a network have in common."""

    norm: Norm
    squeeze: bool


@dataclass(frozen=True, kw_only=True)
class TowerOptions:
    """The encoder and the decoder that mirrors it. The defaults are FusionMNIST's."""

    base_channels: int = 8  # of the stem; doubled wherever the size is halved
    channel_cap: int | None = None  # never more than this
    pre_blocks: int = 2  # each halves the size before the first latent group, and doubles it after the last
    pre_cells: int = 1  # per such block
    cells: int = 1  # per latent group
    groups: Groups = ((8, 5), (4, 2))  # pixels of a side and how many groups, finest first; each half the one before
    literal_groups: bool = False  # hand the numbers out the other way round, as the paper's Table 6 has them printed
    norm: Norm = "batch"  # channel: over the channels of each place, which tiles need to agree where they overlap
    squeeze: bool = True  # scale channels by factors that the whole picture decides; false: tiles agree
    flat_start: bool = False  # the decoder begins with the same numbers at all places; true: tiles agree
    mean_element: bool = False  # the frames' mean is one more of the set, where there are two frames or more
    penalised: bool = True  # keep what `penalty` needs from step to step

    def __post_init__(self) -> None:
        require_sizes(self, "base_channels")
        require_sizes(self, "pre_blocks", "pre_cells", "cells", most=MOST_LAYERS)
        if not self.groups or not all(1 <= groups <= MOST_LAYERS for _, groups in self.groups):
            raise ConfigError(f"a fusion network needs 1 to {MOST_LAYERS} groups of latents at each of its sizes")
        if self.pre_blocks + len(self.groups) > MOST_HALVINGS:
            raise ConfigError(f"pictures cannot be halved more than {MOST_HALVINGS - 1} times")
        if self.base_channels % 2:
            raise ConfigError(f"base_channels is {self.base_channels}; it is an even number")
        if self.channel_cap is not None and (self.channel_cap < self.base_channels or self.channel_cap % 4):
            raise ConfigError(
                f"channel_cap is {self.channel_cap}; it is a multiple of 4 and at least base_channels, "
                f"{self.base_channels}"
            )
        if self.side_px % self.stride:
            raise ConfigError(f"{self.side_px} pixels cannot be halved as often as to be divided by {self.stride}")
        for scale, (side_px, _) in enumerate(self.groups):
            expected_px = self.side_px >> self.pre_blocks >> scale
            if side_px != expected_px:
                raise ConfigError(
                    f"groups have a scale of {side_px} pixels where {expected_px} are expected: {self.side_px} "
                    f"pixels are halved by {self.pre_blocks} blocks, then between two scales; list the finest first"
                )

    @property
    def side_px(self) -> int:
        """Side of the pictures that `groups` counts in."""
        raise NotImplementedError

    @property
    def shows_levels(self) -> bool:
        """Whether the decoder sees the frames' features of each size, beside those of the latent groups."""
        return False

    def cell_style(self) -> CellStyle:
        """Give what all cells have in common."""
        return {"norm": self.norm, "squeeze": self.squeeze}

    @property
    def stride(self) -> int:
        """How many pixels of the pictures are one place of the coarsest features."""
        return 1 << (self.pre_blocks + len(self.groups) - 1)

    def group_counts(self) -> list[int]:
        """Latent groups of each scale, finest first."""
        counts = [count for _, count in self.groups]
        return counts[::-1] if self.literal_groups else counts

    def widths(self) -> list[int]:
        """Channels at each size, finest (the stem's) first."""
        sizes = range(self.pre_blocks + len(self.groups))
        free = [self.base_channels << level for level in sizes]
        return [min(width, self.channel_cap or width) for width in free]


@dataclass(frozen=True, kw_only=True)
class FusionOptions(TowerOptions):
    """The hierarchy of latents. The defaults are FusionMNIST's."""

    latent: int = 10  # channels of each group
    aggregation: Aggregation = "max"  # of the frames' features
    aggregate: Literal["add", "all"] = "add"  # the decoder's features: added afterwards, or one more of the set
    bayes_sigma: bool = False  # bayes: standard deviations in place of variances, as in the authors' program
    posterior: Literal["y", "xy"] = "y"  # what q reads: the target, or the frames too
    residual_q: bool = False  # q as a difference to p
    skip: Literal["max", "none"] = "none"  # max: the decoder's end sees the frames' features; the paper has none

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(self, "latent")

    @property
    def shows_levels(self) -> bool:
        """Whether the decoder sees the frames' features of each size, beside those of the latent groups."""
        return self.skip == "max"

    def latent_shapes(self) -> tuple[LatentShape, ...]:
        """Latents in the order in which they are drawn, coarsest first."""
        strides = [1 << (self.pre_blocks + scale) for scale in range(len(self.groups))]
        scales = list(zip(strides, self.group_counts(), strict=True))
        return tuple(LatentShape(self.latent, stride) for stride, count in reversed(scales) for _ in range(count))


@dataclass(frozen=True, kw_only=True)
class PictureOptions(TowerOptions):
    """Pictures of one size, frames and target with as many channels. The defaults are FusionMNIST's."""

    image_px: int = 32
    channels: int = 1  # 1: gray, 3: colour
    likelihood: Likelihood = "bernoulli"
    crop_px: int = 2  # border of padding around the picture, which does not count
    weight_norm: bool = False  # learn length and direction of the convolutions' weights apart, as the authors do

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3) or not 0 <= 2 * self.crop_px < self.image_px:
            raise ConfigError(
                f"pictures have {self.channels} channels and a padding of {self.crop_px} pixels; "
                f"expected 1 or 3 channels, and some of the {self.image_px} pixels left"
            )

    @property
    def side_px(self) -> int:
        """Side of the pictures."""
        return self.image_px

    def traits(self) -> ModelTraits:
        """The promises these options make to the code around the network."""
        return ModelTraits(
            kind="image",
            in_channels=self.channels,
            out_channels=self.channels,
            likelihood=self.likelihood,
            max_frames=3,
            tile=self.image_px,
            latent_stride=self.stride,
            crop_px=self.crop_px,
        )


@dataclass(frozen=True, kw_only=True)
class FusionConfig(FusionOptions, PictureOptions):
    """FusionVAE on pictures of one size. The defaults are FusionMNIST's."""

    def traits(self) -> ModelTraits:
        """The promises these options make to the code around the network."""
        return replace(PictureOptions.traits(self), latents=self.latent_shapes())


@dataclass(frozen=True, kw_only=True)
class FcnConfig(PictureOptions):
    """The fully convolutional baseline. `groups` count its cells, as if each had a latent."""

    shortcuts: bool = False  # +S: the decoder sees the frames' features at every size

    @property
    def shows_levels(self) -> bool:
        """Whether the decoder sees the frames' features of each size, beside those of the bottleneck."""
        return self.shortcuts


@dataclass(frozen=True, kw_only=True)
class FusionCvaeConfig(FcnConfig):
    """The baseline with one latent of the coarsest size."""

    latent: int = 10  # its channels

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(self, "latent")

    def traits(self) -> ModelTraits:
        """The promises these options make to the code around the network."""
        return replace(super().traits(), latents=(LatentShape(self.latent, self.stride),))


@dataclass(frozen=True, kw_only=True)
class FusionRawConfig(FusionOptions, RawModelOptions):
    """FusionVAE on RAW frames of one scene. `groups` count in packed pixels of a tile."""

    base_channels: int = 16
    channel_cap: int | None = 128
    pre_blocks: int = 3
    latent: int = 20
    groups: Groups = ((32, 3), (16, 2), (8, 1))
    norm: Norm = "group"
    penalised: bool = False
    likelihood: Literal["laplace", "gaussian"] = "laplace"
    skip: Literal["max", "none"] = "max"
    # Uniform by fan-in; kaiming's numbers grow from cell to cell, and its latents begin far from their priors.
    init: FusionInit = "uniform"  # type: ignore[assignment]

    def __post_init__(self) -> None:
        FusionOptions.__post_init__(self)
        RawModelOptions.__post_init__(self)

    @property
    def side_px(self) -> int:
        """Side of a tile in packed pixels."""
        return TILE_PX

    def traits(self) -> ModelTraits:
        """The promises these options make to the code around the network."""
        return replace(
            RawModelOptions.traits(self),
            likelihood=self.likelihood,
            max_frames=4,
            latents=self.latent_shapes(),
            latent_stride=self.stride,
        )
