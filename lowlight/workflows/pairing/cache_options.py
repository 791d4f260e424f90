"""What is asked of a cache, and what is said about it before and after the work."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lowlight.data.decoding import TruthSize
from lowlight.data.sid import Burst

SPARE_BYTES = 64 << 20  # of the disk that are left free


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Which pairs to decode and how."""

    split: str | None = None  # train, val or test; None: all
    burst: Burst = "any"
    exclude: Collection[str] = ()
    truth_size: TruthSize = "half"  # full: for networks that give the sensor's size
    levels: str = ""  # pinned black and white, a name of LEVEL_PRESETS; "": the files' own
    jobs: int = 2  # files decoded at a time
    verify: bool = False  # hash the arrays that are there, and decode broken ones again
    prune: bool = False  # remove arrays that are there and that these pairs do not need


@dataclass(frozen=True)
class Forecast:
    """What a cache will take. Sizes are for frames whose mosaic begins with red; others take a row more."""

    pairs: int
    frames: int
    truths: int
    bytes: int  # of the whole cache
    missing_bytes: int  # of what is not decoded yet
    free_bytes: int  # of the disk it goes to
    unneeded: int  # arrays that are there and that these pairs do not need


@dataclass(frozen=True)
class CacheSummary:
    """What a run did. `failed` are files that could not be decoded, with the reason."""

    folder: Path
    pairs: int
    decoded: int
    kept: int
    removed: int
    bytes: int
    failed: dict[str, str]


def size_in_words(count: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
