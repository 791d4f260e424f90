"""Options that every network on RAW frames takes, and how large a network of any kind may be."""

from dataclasses import dataclass
from typing import Any

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Amplify, BasePicture, InputColour, ModelTraits, OutputColour
from lowlight.models.blocks import Init

TILE_PX = 256
# What is beyond these is a mistake, or damage.
LARGEST_SIZE = 1 << 16  # of channels and latents
MOST_LAYERS = 64  # of one kind in a row


def require_sizes(config: Any, *names: str, most: int = LARGEST_SIZE) -> None:
    """Refuse a configuration in which one of the named sizes is below 1 or beyond all reason."""
    for name in names:
        if not 1 <= getattr(config, name) <= most:
            raise ConfigError(f"{name} is {getattr(config, name)}; expected 1 to {most}")


@dataclass(frozen=True, kw_only=True)
class RawModelOptions:
    """What a RAW network reads and writes. The defaults are the thesis'."""

    in_channels: int = 4  # 4: packed R, G1, B, G2
    out_channels: int = 3  # 3: colour, 1: gray
    upscale: int = 1  # 1: picture at packed size (thesis), 2: at full sensor size
    filters: int = 1  # 3x3 filters at full sensor size behind the pixel shuffle of upscale 2
    input_colour: InputColour = "raw"  # raw: amplified only (thesis), wb: white-balanced too
    amplify: Amplify = "linear"  # of dark sRGB (3 input channels): linear: light is amplified, encoded: stored values
    output_colour: OutputColour = "srgb"  # srgb (thesis), camera: balanced camera colour in LibRaw's curve
    base: BasePicture = "none"  # lowpass: the network's output is added to a coarse picture
    halo: int = 0  # outer packed pixels of a tile to fade out where another tile covers them (thesis: 0)
    ensemble: int = 1  # turned views of a scene to average when photos are enhanced and scored: 1, 2, 4 or 8
    detail: bool = False  # bring back what the network smooths away when photos are enhanced and scored
    init: Init = "normal02"

    def __post_init__(self) -> None:
        if self.upscale not in (1, 2):
            raise ConfigError(f"upscale is {self.upscale}; it is 1 (packed size) or 2 (full sensor size)")
        require_sizes(self, "filters", most=MOST_LAYERS)
        if self.in_channels < 1 or self.out_channels not in (1, 3):
            raise ConfigError(
                f"a model has {self.in_channels} input and {self.out_channels} output channels; "
                "expected at least 1 and exactly 1 or 3"
            )
        if not 0 <= self.halo < TILE_PX // 4:
            raise ConfigError(f"halo is {self.halo}; it is 0 to {TILE_PX // 4 - 1} packed pixels")
        if self.ensemble not in (1, 2, 4, 8) or (self.ensemble > 1 and self.upscale == 1):
            raise ConfigError(
                f"ensemble is {self.ensemble} at upscale {self.upscale}; it is 1, or at upscale 2 also 2, 4 or 8"
            )
        if self.detail and not self.traits().can_have_detail:
            raise ConfigError("detail can be brought back to camera colour at upscale 2 alone")
        if self.base != "none" and (self.in_channels, self.out_channels) != (4, 3):
            raise ConfigError("a low-pass base needs packed RAW in (4 channels) and colour out (3)")
        if self.output_colour == "camera" and self.out_channels != 3:
            raise ConfigError("camera colour out needs 3 output channels")

    def traits(self) -> ModelTraits:
        """The promises these options make to the code around the network."""
        return ModelTraits(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            tile=TILE_PX,
            upscale=self.upscale,
            input_colour=self.input_colour,
            amplify=self.amplify,
            output_colour=self.output_colour,
            base=self.base,
            halo=self.halo,
            ensemble=self.ensemble,
            detail=self.detail,
        )
