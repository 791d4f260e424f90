"""FusionMNIST and its stand-in ShapesFusion: digits of which every frame shows a part, under noise.

Source: F. Duffhauss et al., "FusionVAE" (ECCV 2022), section 5.1: digits padded with zeros to 32 x 32; a frame is the
digit within a union of ellipses, plus Gaussian noise, clipped. Frames are drawn live. The noise's 0.25, which the
authors' configuration calls a variance, is used there, and here, as a standard deviation.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import ModelTraits
from lowlight.data.digits import SIDE_PX, Split, read_digits
from lowlight.data.draws import stream
from lowlight.data.ellipses import EllipseLaw, ellipse_masks
from lowlight.data.fusion_source import FusionSets, FusionSource, check_frame_count, check_traits
from lowlight.data.strokes import draw_digits

PADDED_PX = 32
PADDING_PX = (PADDED_PX - SIDE_PX) // 2
_DRAWING_STREAM = 41


@dataclass(frozen=True, kw_only=True)
class FusionDigitsConfig:
    """How frames of digits are made. The defaults are the paper's."""

    max_frames: int = 3
    ellipses: int = 2  # of one frame's mask
    radius_px: tuple[int, int] = (5, 9)
    noise: float = 0.25  # standard deviation, before clipping
    limit: int | None = None  # train on the first so many digits only

    def __post_init__(self) -> None:
        check_frame_count(self.max_frames)
        if self.noise < 0:
            raise ConfigError(f"noise is {self.noise}; expected 0 or more")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; expected at least 1")
        self.law()  # refuses impossible ellipses

    def law(self) -> EllipseLaw:
        """The ellipses of one mask."""
        return EllipseLaw(self.ellipses, self.radius_px)


@dataclass(frozen=True, kw_only=True)
class ShapesConfig(FusionDigitsConfig):
    """As for digits, and how many are drawn."""

    digits: int = 20_000
    validation_digits: int = 2_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.digits, self.validation_digits) < 1:
            raise ConfigError(
                f"{self.digits} digits and {self.validation_digits} for validation were asked for; "
                "expected at least 1 of each"
            )


class FusionDigits:
    """Digits of 28 x 28, padded to 32 x 32, and their frames."""

    shape = (1, PADDED_PX, PADDED_PX)

    def __init__(self, name: str, images: Tensor, config: FusionDigitsConfig) -> None:
        self.name, self.images, self.config = name, images, config  # images [N, 28, 28], float32 in [0, 1]

    def __len__(self) -> int:
        return len(self.images)

    def hashes(self) -> dict[str, str]:
        """Hash of the digits."""
        return {"sha256": hashlib.sha256((self.images * 255 + 0.5).to(torch.uint8).numpy().tobytes()).hexdigest()}

    def targets(self, indices: Tensor) -> Tensor:
        """Digits `[B, 1, 32, 32]` in [0, 1], padded with zeros."""
        return F.pad(self.images[indices][:, None], (PADDING_PX,) * 4)

    def augment(self, targets: Tensor, generator: Generator) -> Tensor:
        """Digits as they are: the paper varies their frames alone."""
        return targets

    def frames(self, targets: Tensor, count: int, generator: Generator) -> Tensor:
        """Masked noisy frames `[B, K, 1, 32, 32]` in [0, 1]; noise lies outside the mask as well."""
        shape = (len(targets), count, *self.shape)
        masks = ellipse_masks(shape[0] * count, PADDED_PX, self.config.law(), generator)
        shown = targets[:, None] * masks.view(shape)
        if not self.config.noise:
            return shown
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return noise.mul_(self.config.noise).add_(shown).clamp_(0, 1)


def read_fusion_mnist(path: Path, config: FusionDigitsConfig) -> FusionSets:
    """FusionMNIST from a folder with the four files of MNIST, or of a set of the same form."""

    def read(split: Split) -> FusionDigits:
        digits = read_digits(path, split)
        if split == "train" and config.limit is not None:
            digits = digits.first(config.limit)
        return FusionDigits(f"fusion-{digits.name}", digits.images, config)

    return FusionSets(partial(read, "train"), partial(read, "validation"))


def draw_shapes_fusion(path: Path, config: ShapesConfig) -> FusionSets:
    """ShapesFusion: digits drawn from strokes in place of MNIST's, always the same. Nothing is read from `path`."""

    def draw(count: int, kind: int) -> FusionDigits:
        images, _ = draw_digits(count, SIDE_PX, stream(_DRAWING_STREAM, kind))
        return FusionDigits("shapes-fusion", images[:, 0], config)

    training = min(config.digits, config.limit or config.digits)
    return FusionSets(partial(draw, training, 0), partial(draw, config.validation_digits, 1))


def open_fusion_mnist(
    path: Path, traits: ModelTraits, config: FusionDigitsConfig, batch: int, seed: int, device: torch.device
) -> FusionSource:
    """Training batches of FusionMNIST."""
    check_traits(traits, FusionDigits.shape, "FusionMNIST")
    return FusionSource(read_fusion_mnist(path, config), config.max_frames, batch, seed, device)


def open_shapes_fusion(
    path: Path, traits: ModelTraits, config: ShapesConfig, batch: int, seed: int, device: torch.device
) -> FusionSource:
    """Training batches of ShapesFusion. The digits do not depend on the seed of the run."""
    check_traits(traits, FusionDigits.shape, "ShapesFusion")
    return FusionSource(draw_shapes_fusion(path, config), config.max_frames, batch, seed, device)
