"""How a photo was taken: LibRaw's exposure data, which know the makers' habits, and the file's own tags."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowlight.core.photo import Metadata
from lowlight.raw.exif import believable, read_metadata


def complete_metadata(raw: Any, path: Path) -> Metadata:
    """The exposure data of a file that LibRaw has open, completed by what its own tags say; unknown values are None."""
    tagged = read_metadata(path)
    with suppress(ValueError, OverflowError, OSError):  # a year that no calendar has
        return _completed(tagged, raw.other, raw.lens)
    return tagged


def _completed(tagged: Metadata, other: Any, lens: Any) -> Metadata:
    stamp = other.timestamp
    taken_at, iso = tagged.taken_at, _known(other.iso_speed)
    if taken_at is None and stamp is not None and stamp.year > 1970:
        taken_at = stamp.strftime("%Y:%m:%d %H:%M:%S")
    return replace(
        tagged,
        lens=" ".join(str(lens.model or "").split()) or tagged.lens,
        exposure_s=_known(other.shutter_speed) or tagged.exposure_s,
        aperture=_known(other.aperture) or tagged.aperture,
        iso=tagged.iso if iso is None or iso == 65535 else iso,  # 65535: the 16-bit tag is full
        focal_length_mm=_known(other.focal_length) or tagged.focal_length_mm,
        taken_at=taken_at,
        artist=tagged.artist or (" ".join(str(other.artist or "").split()) or None),
    )


def _known(value: float) -> float | None:
    """Drop the digits that single precision added; None for what no camera can have told."""
    number = believable(float(value))
    return None if number is None else float(f"{number:.6g}")
