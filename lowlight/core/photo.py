"""The nouns of one photograph: the RAW frame that was read and the picture that will be written.

Colour indices follow LibRaw: 0 = R, 1 = G1, 2 = B, 3 = G2. Every per-colour vector is in that order.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

PerColour = tuple[float, float, float, float]
CfaPattern = tuple[tuple[int, int], tuple[int, int]]

RGGB: CfaPattern = ((0, 1), (3, 2))
GRBG: CfaPattern = ((1, 0), (2, 3))
GBRG: CfaPattern = ((3, 2), (0, 1))
BGGR: CfaPattern = ((2, 3), (1, 0))


@dataclass(frozen=True)
class Gps:
    """A position: degrees (south and west negative) and metres above the sea."""

    latitude: float
    longitude: float
    altitude_m: float | None = None


@dataclass(frozen=True)
class Metadata:
    """What a photograph says about how it was taken. Unknown values are None."""

    make: str | None = None
    model: str | None = None
    lens: str | None = None
    exposure_s: float | None = None
    aperture: float | None = None  # f-number
    iso: float | None = None
    focal_length_mm: float | None = None
    taken_at: str | None = None  # EXIF form, "YYYY:MM:DD HH:MM:SS", camera time
    subsec_s: float | None = None  # the fraction of a second that `taken_at` leaves out
    utc_offset: str | None = None  # how far the camera's clock is ahead, "+HH:MM" or "-HH:MM"
    gps: Gps | None = None
    artist: str | None = None
    copyright: str | None = None

    @property
    def camera(self) -> str | None:
        """Make and model in one string, without saying the make twice."""
        if not self.model:
            return self.make
        if not self.make or self.model.lower().startswith(self.make.split()[0].lower()):
            return self.model
        return f"{self.make} {self.model}"


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One Bayer frame as the sensor gave it.

    `mosaic` is the visible area, uint16 `[H, W]` in DN, never turned; `pattern[i][j]` is the colour index of
    `mosaic[i, j]`. `wb` are multiplicative gains with green = 1. `camera_to_srgb` maps white-balanced linear camera
    colour to linear sRGB (each row sums to 1) and is None where the file has no colour matrix. `orientation` is the
    EXIF value (1 to 8) still to be applied to a finished picture.
    """

    mosaic: npt.NDArray[np.uint16]
    pattern: CfaPattern
    black: PerColour
    white: PerColour
    wb: PerColour
    wb_source: str  # "camera", "daylight", "grey world" or "user"
    camera_to_srgb: npt.NDArray[np.float32] | None
    orientation: int = 1
    metadata: Metadata = field(default_factory=Metadata)
    path: Path | None = None
    black_source: str = "file"  # "file", "estimated" or "user"
    notes: tuple[str, ...] = ()  # sentences a user should read: missing balance, odd levels, no matrix
    daylight_wb: PerColour | None = None  # gains the camera would use in daylight, None where unknown
    wrong_pattern: bool = False  # whether the colour pattern of the file is evidently another than the sensor's

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the visible mosaic in sensor pixels."""
        return self.mosaic.shape[0], self.mosaic.shape[1]

    @property
    def wb_gains(self) -> PerColour:
        """White-balance gains scaled so that the smallest is 1: a clipped white stays a clipped white."""
        smallest = min(self.wb)
        r, g1, b, g2 = (gain / smallest for gain in self.wb)
        return r, g1, b, g2


@dataclass(frozen=True, eq=False)
class LinearImage:
    """The linear picture behind the encoded one, for writers that store scene light (linear DNG).

    `pixels` is uint16 `[H, W, 3]`, white-balanced, 65535 = clipping. `to_srgb` maps it to linear sRGB (rows sum
    to 1), None where the colours are the camera's and their matrix is unknown. `wb` are the R, G, B gains that
    are already in the pixels (smallest = 1).
    """

    pixels: npt.NDArray[np.uint16]
    to_srgb: npt.NDArray[np.float32] | None
    wb: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Picture:
    """What a writer takes.

    `pixels` is uint16 `[H, W, C]` (C = 3, or 1 for gray), encoded with LibRaw's default curve in sRGB primaries,
    65535 = white, already turned upright. `linear` is there where a writer asked for it. `recorded` are the lines
    that say how the picture was made (version, weights, ratio).
    """

    pixels: npt.NDArray[np.uint16]
    metadata: Metadata = field(default_factory=Metadata)
    recorded: tuple[str, ...] = ()
    linear: LinearImage | None = None
