"""What a RAW file says, and whether and why not it can be enhanced."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lowlight.core.errors import LowlightError
from lowlight.core.photo import RawFrame
from lowlight.raw.read import read_raw

_LETTERS = "RGBG"


def inspect_file(path: Path) -> dict[str, Any]:
    """Describe one file in JSON values: `file`, `ok`, `reason` (a sentence or None) and what was read.

    The same reader decides as in `enhance`, so a file that is `ok` here is read there. Levels, gains and
    sizes are lists; per-colour values are in the order R, G1, B, G2; unknown values are None. Never raises
    for a bad file.
    """
    try:
        frame = read_raw(path)
    except LowlightError as problem:
        return {**_nothing(path), "reason": str(problem)}
    return {**_nothing(path), **_describe(frame), "ok": True}


def pattern_name(frame: RawFrame) -> str:
    """Name the colours of the top left 2 x 2 pixels in reading order, such as "RGGB"."""
    return "".join(_LETTERS[index] for row in frame.pattern for index in row)


def _nothing(path: Path) -> dict[str, Any]:
    keys = (
        *("reason", "camera", "lens", "width", "height", "pattern", "black", "black_source", "white", "wb"),
        *("wb_source", "camera_to_srgb", "orientation", "exposure_s", "iso", "aperture", "focal_length_mm"),
        *("taken_at", "gps"),
    )
    return {"file": str(path), "ok": False, **dict.fromkeys(keys), "notes": []}


def _describe(frame: RawFrame) -> dict[str, Any]:
    about = frame.metadata
    height, width = frame.size
    matrix = frame.camera_to_srgb
    return {
        "camera": about.camera,
        "lens": about.lens,
        "width": width,
        "height": height,
        "pattern": pattern_name(frame),
        "black": [round(level, 3) for level in frame.black],
        "black_source": frame.black_source,
        "white": list(frame.white),
        "wb": [round(gain, 5) for gain in frame.wb],
        "wb_source": frame.wb_source,
        "camera_to_srgb": None if matrix is None else [[round(float(v), 5) for v in row] for row in matrix],
        "orientation": frame.orientation,
        "exposure_s": about.exposure_s,
        "iso": about.iso,
        "aperture": about.aperture,
        "focal_length_mm": about.focal_length_mm,
        "taken_at": about.taken_at,
        "gps": None if about.gps is None else asdict(about.gps),
        "notes": list(frame.notes),
    }
