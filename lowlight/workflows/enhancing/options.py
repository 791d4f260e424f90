"""What `enhance` may be told, checked before any photo is touched."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from lowlight.core.errors import UsageError
from lowlight.restorer import RestorerOptions
from lowlight.workflows.enhancing.samples import SampleOptions
from lowlight.workflows.sharding import Shard
from lowlight.writers import WriterOptions

BALANCES = ("camera", "auto", "daylight")
RATIOS = ("auto", "same")
LARGEST_RATIO = 1e6
MOST_STOPS = 20.0
LARGEST_DN = 65535


@dataclass(frozen=True)
class EnhanceOptions:
    """What `enhance` may be told. Impossible values raise `UsageError`."""

    out: Path
    suffix: str | None = None  # of the format; None: what `out` names, else .png
    weights: str | Path | None = None  # a file or a shipped name; None: the default for photos, or for scenes
    ratio: str | float = "auto"  # "auto", "same" or a number
    ev: float = 0.0  # stops on top of the ratio
    wb: str | tuple[float, float, float] = "camera"  # "camera", "auto", "daylight" or R, G, B gains
    black: float | None = None  # DN, instead of the file's
    white: float | None = None
    crop: tuple[int, int, int, int] | None = None  # x, y, width, height of the upright full-size picture
    overwrite: bool = False
    dry_run: bool = False
    contact_sheet: bool = False
    jobs: int = 1  # threads reading, and as many writing
    shard: Shard | None = None  # only this part of the photos
    device: str = "auto"
    samples: SampleOptions = field(default_factory=SampleOptions)
    restorer: RestorerOptions = field(default_factory=RestorerOptions)
    writer: WriterOptions = field(default_factory=WriterOptions)

    def __post_init__(self) -> None:
        """Refuse what no photo could be enhanced with."""
        if self.ratio not in RATIOS and not (isinstance(self.ratio, float | int) and 0 < self.ratio <= LARGEST_RATIO):
            raise UsageError(
                f"the ratio is {self.ratio:g}; expected auto, same or a number above 0 and up to {LARGEST_RATIO:g}"
                if isinstance(self.ratio, float | int)
                else f"the ratio is {self.ratio!r}; expected auto, same or a number"
            )
        if not abs(self.ev) <= MOST_STOPS:
            raise UsageError(f"the stops are {self.ev:g}; expected {-MOST_STOPS:g} to {MOST_STOPS:g}")
        _check_balance(self.wb)
        _check_levels(self.black, self.white)
        if self.crop is not None and not (min(self.crop[:2]) >= 0 and min(self.crop[2:]) >= 2):
            raise UsageError(
                f"the crop {','.join(map(str, self.crop))} cannot be; "
                "expected X,Y,W,H with X and Y from 0 and at least 2 pixels each way"
            )
        if self.jobs < 1:
            raise UsageError(f"{self.jobs} jobs cannot do anything; expected at least 1")
        if self.samples.count and self.restorer.strength == 0:
            raise UsageError(
                "at strength 0 nothing of the network is seen, so samples are all the same; raise --strength"
            )
        if self.shard and self.contact_sheet:
            raise UsageError(
                "contact sheets are not made of a shard; leave --contact-sheet out, and when all shards are done run "
                "the same command with it and without --shard: finished photos are skipped and only the sheets are made"
            )


def _check_balance(wb: str | tuple[float, float, float]) -> None:
    known = wb in BALANCES if isinstance(wb, str) else all(math.isfinite(gain) and gain > 0 for gain in wb)
    if not known or (not isinstance(wb, str) and len(wb) != 3):
        raise UsageError(
            f"the white balance is {wb}; expected {', '.join(BALANCES)} or three gains above 0, as in 2.1,1,1.6"
        )


def _check_levels(black: float | None, white: float | None) -> None:
    for name, value in (("black", black), ("white", white)):
        if value is not None and not 0 <= value <= LARGEST_DN:
            raise UsageError(f"a {name} level of {value:g} cannot be; RAW values go from 0 to {LARGEST_DN}")
    if black is not None and white is not None and black >= white:
        raise UsageError(f"the black level {black:g} must lie below the white level {white:g}")
