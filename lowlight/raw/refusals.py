"""Why a file is refused: each kind of file that is no usable Bayer RAW has a sentence of its own.

Every sentence starts with the file's name, says what was found and what to take instead.
"""

import os
from pathlib import Path
from typing import Any

from lowlight.core.errors import BrokenFileError, LowlightError, UnsupportedRawError
from lowlight.raw.exif import DNG_VERSION, PHOTOMETRIC, SUB_IFDS, tiff_tags
from lowlight.raw.sniff import (
    HEAD_BYTES,
    TIFF_PICTURE_KINDS,
    hides_sensor_data,
    picture_kind,
    raw_container,
)


def check_file(path: Path) -> str | None:
    """Refuse what need not be shown to LibRaw; return the container of what may be RAW, where it is known."""
    name = path.name or str(path)
    if os.path.isdir(path):
        raise UnsupportedRawError(f"{name} is a folder; name the RAW files in it.")
    if os.path.exists(path) and not os.path.isfile(path):  # which might be waited for without end
        raise UnsupportedRawError(f"{name} is a pipe or a device; write what it gives to a file, and name that.")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise BrokenFileError(f"{name} does not exist; check the path.") from None
    except (OSError, ValueError) as problem:
        raise BrokenFileError(f"{name} cannot be opened: {getattr(problem, 'strerror', None) or problem}.") from None
    if not head:
        raise BrokenFileError(f"{name} is empty: it has 0 bytes; copy it from the camera again.")
    kind = picture_kind(head)
    if kind is not None and not (kind == "JPEG" and hides_sensor_data(path)):
        disguised = "" if path.suffix.lower().lstrip(".") in _usual_suffixes(kind) else " in spite of its name"
        raise UnsupportedRawError(
            f"{name} is a {kind} picture{disguised}: it is already developed and holds no sensor data; "
            "take the camera's RAW file."
        )
    return raw_container(head)


def not_raw(path: Path, container: str | None) -> LowlightError:
    """Choose the error for a file that LibRaw does not take for RAW."""
    name = path.name
    if container is None:
        return UnsupportedRawError(f"{name} is not a RAW file that LibRaw knows; a camera's Bayer RAW is expected.")
    tags = tiff_tags(path) if container == "TIFF" else {}
    if tags.get(PHOTOMETRIC) in TIFF_PICTURE_KINDS and DNG_VERSION not in tags and SUB_IFDS not in tags:
        kind = TIFF_PICTURE_KINDS[tags[PHOTOMETRIC]]
        return UnsupportedRawError(f"{name} is a TIFF picture ({kind}): it is already developed, not RAW sensor data.")
    if container == "TIFF" and tags:
        return UnsupportedRawError(
            f"{name} is a TIFF-like file whose contents LibRaw does not know as RAW; "
            "converting it with a DNG converter may help."
        )
    return BrokenFileError(
        f"{name} starts like a {container} file but is truncated or damaged; copy it from the camera again."
    )


def is_tiff_picture(tags: dict[int, Any], raw_width: int, raw_height: int) -> bool:
    """Tell whether LibRaw took the main picture of an ordinary TIFF for a mosaic.

    Camera RAWs in TIFF have a thumbnail as their first directory or call it a colour filter array.
    """
    if DNG_VERSION in tags or tags.get(PHOTOMETRIC) not in TIFF_PICTURE_KINDS:
        return False
    return (tags.get(256), tags.get(257)) == (raw_width, raw_height)


def three_values(name: str, container: str | None, dng: bool) -> str:
    """Say why a file with several values a pixel is refused, by what it is."""
    if container == "X3F":
        return f"{name} comes from a Foveon sensor, which has no Bayer mosaic; only Bayer RAWs can be enhanced."
    if dng:
        return (
            f"{name} is a linear DNG: it is already demosaiced, three values a pixel; "
            "take the original Bayer RAW, or a DNG made without demosaicing."
        )
    return (
        f"{name} is a reduced RAW (sRAW or mRAW), three values a pixel and no Bayer mosaic; "
        "take photographs in full RAW."
    )


def strange_pattern(name: str, colours: tuple[tuple[int, int], tuple[int, int]]) -> str:
    """Say why 2x2 colour indices that are no Bayer pattern are refused."""
    if len({index for row in colours for index in row}) == 2:  # [[0, 0], [1, 1]]: two rows of twins
        return f"{name} has quad Bayer colour filters (4 x 4); only plain Bayer RAWs (2 x 2) can be enhanced."
    return f"{name} has the colour filters {colours}; a Bayer pattern has one red, one blue and two green."


def _usual_suffixes(kind: str) -> tuple[str, ...]:
    usual = {"JPEG": ("jpg", "jpeg", "jpe"), "JPEG XL": ("jxl",), "JPEG 2000": ("jp2", "j2k", "jpx")}
    others = {"HEIC": ("heic", "heif"), "HEIF": ("heic", "heif"), "Photoshop": ("psd",), "OpenEXR": ("exr",)}
    return {**usual, **others, "Radiance HDR": ("hdr",)}.get(kind, (kind.lower(),))
