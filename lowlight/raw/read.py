"""From a RAW file to a `RawFrame`; no other folder talks to rawpy.

LibRaw decodes; everything it says is copied out while the file is open, judged afterwards. A file that is no
usable Bayer RAW is refused with a sentence of its own. One decoder object per call, so calls from several
threads are safe. LibRaw writes some warnings straight to the process's standard error, which cannot be
redirected for one thread only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rawpy

from lowlight.core.errors import UnsupportedRawError, UsageError
from lowlight.core.photo import CfaPattern, Metadata, PerColour, RawFrame
from lowlight.raw.balance import camera_to_srgb, choose_balance, daylight_gains, gains
from lowlight.raw.dng_levels import dng_black
from lowlight.raw.exif import DNG_VERSION, ORIENTATION, PHOTOMETRIC, tiff_tags
from lowlight.raw.exposure_data import complete_metadata
from lowlight.raw.levels import (
    LEVEL_PRESETS,
    Levels,
    Mosaic,
    check_black,
    check_greens,
    find_pedestal,
    is_stretched_8_bit,
)
from lowlight.raw.libraw import open_libraw
from lowlight.raw.refusals import check_file, is_tiff_picture, strange_pattern, three_values
from lowlight.raw.rendered_matrix import rendered_matrix
from lowlight.raw.sniff import TIFF_PICTURE_KINDS

__all__ = ["LEVEL_PRESETS", "bayer_pattern", "exif_orientation", "read_at_levels", "read_raw"]

_BAYER_COLOURS = "RGBG"
# LibRaw's flip: 1 mirrors columns, 2 mirrors rows, 4 transposes afterwards; some files bring degrees instead.
_ORIENTATION = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7, 90: 6, 180: 3, 270: 8}


Corner = tuple[tuple[int, int], tuple[int, int]]  # colour indices of a 2x2 block


@dataclass(frozen=True, eq=False)
class _Decoded:
    """What LibRaw said, copied, not judged."""

    mosaic: Mosaic
    colours: Corner  # at the visible corner
    black: tuple[float, ...]
    white: float
    white_per_colour: tuple[float, ...] | None
    camera_wb: tuple[float, ...]
    daylight_wb: tuple[float, ...]
    color_matrix: npt.NDArray[np.float64]
    rgb_xyz_matrix: npt.NDArray[np.float64]
    flip: int
    pixel_aspect: float
    metadata: Metadata


def read_raw(path: Path, *, black: float | None = None, white: float | None = None) -> RawFrame:
    """Read one Bayer RAW: the visible mosaic in DN, odd sizes kept, levels, balance, matrix and metadata.

    `black` and `white` (DN, all colours) replace the file's levels; `LEVEL_PRESETS` has named pairs. Levels
    follow the colour index; the white level is the per-colour one where LibRaw knows it, but a DNG's own. Raises
    `BrokenFileError` for what cannot be read and `UnsupportedRawError` for what is no Bayer RAW, each with a
    sentence that starts with the file's name; `UsageError` for impossible `black` and `white`.
    """
    path = Path(path)
    _check_levels(black, white)
    container = check_file(path)
    with open_libraw(path, container) as raw:
        decoded = _copy(raw, path, container)
    pattern = bayer_pattern(decoded.colours)
    if pattern is None:
        raise UnsupportedRawError(strange_pattern(path.name, decoded.colours))
    same_greens = sorted(index for row in decoded.colours for index in row) == [0, 1, 1, 2]

    def by_colour(values: Sequence[float]) -> PerColour:
        r, g1, b, g2 = (float(value) for value in (*values, 0, 0, 0, 0)[:4])
        return (r, g1, b, g1) if same_greens else (r, g1, b, g2)

    file_black = by_colour(decoded.black)
    if is_stretched_8_bit(decoded.mosaic, file_black, decoded.white):
        raise UnsupportedRawError(
            f"{path.name} holds an 8-bit picture stretched to 16 bits, not sensor data; "
            "it is already developed, so enhance the camera's RAW file instead."
        )
    notes: list[str] = []
    levels, source = _black(decoded.mosaic, pattern, file_black, decoded.white, black, notes)
    whites = _white(path.name, decoded, by_colour, levels, black is not None, white)
    if black is None:
        notes += check_black(decoded.mosaic, pattern, levels, whites)
    greens = check_greens(decoded.mosaic, pattern, levels, whites)
    notes += greens
    daylight = daylight_gains(by_colour(decoded.daylight_wb))
    wb, wb_source, wb_notes = choose_balance(
        gains(by_colour(decoded.camera_wb)), daylight, decoded.mosaic, pattern, levels, whites
    )
    matrix = camera_to_srgb(decoded.color_matrix, decoded.rgb_xyz_matrix)
    notes += wb_notes
    if matrix is None:
        notes.append("No colour matrix is known for this camera: its colours are taken for sRGB's.")
    if abs(decoded.pixel_aspect - 1) > 0.01:
        notes.append(f"The sensor's pixels are not square (1 to {decoded.pixel_aspect:.3g}); the picture keeps them.")
    return RawFrame(
        mosaic=decoded.mosaic,
        pattern=pattern,
        black=levels,
        white=whites,
        wb=wb,
        wb_source=wb_source,
        camera_to_srgb=matrix,
        orientation=exif_orientation(decoded.flip),
        metadata=decoded.metadata,
        path=path,
        black_source=source,
        notes=tuple(notes),
        daylight_wb=daylight,
        wrong_pattern=bool(greens),
    )


def bayer_pattern(colours: Corner) -> CfaPattern | None:
    """Check 2x2 colour indices: a Bayer pattern has 0, 1, 2, 3 once each, greens on a diagonal; else None.

    Where both greens have index 1, the first in reading order of a block that begins with red stays 1 and the second,
    in blue's row, becomes 3, as where a file tells them apart.
    """
    flat = [index for row in colours for index in row]
    if sorted(flat) == [0, 1, 1, 2]:
        flat[flat.index(2) ^ 1] = 3
    if sorted(flat) != [0, 1, 2, 3] or {flat[0], flat[3]} not in ({0, 2}, {1, 3}):
        return None
    return (flat[0], flat[1]), (flat[2], flat[3])


def exif_orientation(flip: int) -> int:
    """Turn LibRaw's flip into the EXIF orientation (1 to 8) of the same turn; 1 for an undefined flip."""
    return _ORIENTATION.get(flip if flip in range(8) else flip % 360, 1)


def read_at_levels(path: Path, levels: Levels | None) -> RawFrame:
    """Read one Bayer RAW with pinned black and white; None: the file's own. See `read_raw`."""
    black, white = levels or (None, None)
    return read_raw(path, black=black, white=white)


def _check_levels(black: float | None, white: float | None) -> None:
    for name, value in (("black", black), ("white", white)):
        if value is not None and not 0 <= value <= 65535:
            raise UsageError(f"A {name} level of {value:g} cannot be: RAW values go from 0 to 65535.")
    if black is not None and white is not None and black >= white:
        raise UsageError(f"The black level {black:g} must lie below the white level {white:g}.")


def check_mosaic(raw: Any, path: Path, container: str | None, tags: dict[int, Any]) -> Corner:
    """Refuse what is not a Bayer mosaic; give the colour indices at the visible corner.

    `tags` are those of the first directory, of a file that has some.
    """
    name = path.name
    raw_pattern = raw.raw_pattern
    if raw.raw_type != rawpy.RawType.Flat or raw_pattern is None:
        raise UnsupportedRawError(three_values(name, container, DNG_VERSION in tags))
    if raw.num_colors == 1:
        raise UnsupportedRawError(
            f"{name} comes from a monochrome sensor, which has no colour filters; a Bayer RAW is expected."
        )
    if raw_pattern.shape == (6, 6):
        raise UnsupportedRawError(
            f"{name} has Fujifilm's X-Trans colour filters (6 x 6); only Bayer RAWs (2 x 2) can be enhanced."
        )
    described = raw.color_desc.decode("ascii", "replace")
    if raw.num_colors != 3 or described != _BAYER_COLOURS:
        raise UnsupportedRawError(
            f"{name} comes from a sensor with other colour filters than red, green and blue "
            f"({described} by LibRaw's letters); only RGB Bayer RAWs can be enhanced."
        )
    if raw_pattern.shape != (2, 2):
        rows, columns = raw_pattern.shape
        raise UnsupportedRawError(
            f"{name} repeats its colour filters every {rows} x {columns} pixels; a Bayer RAW repeats every 2 x 2."
        )
    sizes = raw.sizes
    # The pattern is the whole sensor's; this is where its visible part begins. `raw_colors_visible` says the same, but
    # from an array as large as the sensor.
    colours = np.roll(raw_pattern, (-sizes.top_margin, -sizes.left_margin), axis=(0, 1))
    if bayer_pattern(_as_pattern(colours)) is None:
        raise UnsupportedRawError(strange_pattern(name, _as_pattern(colours)))
    if tags and is_tiff_picture(tags, sizes.raw_width, sizes.raw_height):
        kind = TIFF_PICTURE_KINDS[tags[PHOTOMETRIC]]
        raise UnsupportedRawError(f"{name} is a TIFF picture ({kind}): it is already developed, not RAW sensor data.")
    return _as_pattern(colours)


def _copy(raw: Any, path: Path, container: str | None) -> _Decoded:
    """Refuse what is not a Bayer mosaic, copy the rest."""
    tags = tiff_tags(path) if container == "TIFF" else {}
    colours, sizes = check_mosaic(raw, path, container, tags), raw.sizes
    mosaic = np.array(raw.raw_image_visible, dtype=np.uint16, order="C", copy=True)
    is_dng = DNG_VERSION in tags
    exact = dng_black(path, (sizes.top_margin, sizes.left_margin)) if is_dng else None
    # What a DNG calls white is white; LibRaw's number is the limit of its linear response, which may lie below.
    per_colour = None if is_dng else raw.camera_white_level_per_channel
    decoded = _Decoded(
        mosaic=mosaic,
        colours=colours,
        black=tuple(raw.black_level_per_channel) if exact is None else _by_index(exact, colours),
        white=float(raw.white_level or 0),
        white_per_colour=tuple(per_colour) if per_colour is not None else None,
        camera_wb=tuple(raw.camera_whitebalance),
        daylight_wb=tuple(raw.daylight_whitebalance),
        color_matrix=np.array(raw.color_matrix, dtype=np.float64, copy=True),
        rgb_xyz_matrix=np.array(raw.rgb_xyz_matrix, dtype=np.float64, copy=True),
        # A tag that makes no sense is no turn; LibRaw takes its last bits.
        flip=int(sizes.flip) if tags.get(ORIENTATION, 1) in range(1, 9) else 0,
        pixel_aspect=float(sizes.pixel_aspect) or 1.0,
        metadata=complete_metadata(raw, path),
    )
    if not is_dng and not decoded.color_matrix.any() and not decoded.rgb_xyz_matrix.any():
        matrix = rendered_matrix(raw)
        return decoded if matrix is None else replace(decoded, color_matrix=matrix)
    return decoded


def _by_index(of_block: npt.NDArray[np.float64], colours: Corner) -> tuple[float, ...]:
    """Values of the places of a block by colour index, 0 for one that is not there."""
    places = [of_block[np.array(colours) == index] for index in range(4)]
    return tuple(float(found.mean()) if len(found) else 0.0 for found in places)


def _as_pattern(colours: npt.NDArray[np.uint8]) -> Corner:
    (a, b), (c, d) = colours.tolist()
    return (a, b), (c, d)


def _black(
    mosaic: Mosaic,
    pattern: CfaPattern,
    file_black: PerColour,
    file_white: float,
    user: float | None,
    notes: list[str],
) -> tuple[PerColour, str]:
    if user is not None:
        return (float(user), float(user), float(user), float(user)), "user"
    if any(file_black):
        return file_black, "file"
    found = find_pedestal(mosaic, pattern, file_white)
    if found is None:
        return file_black, "file"
    notes.append(
        f"The file has no black level: {min(found):.1f} to {max(found):.1f} was estimated from its darkest areas."
    )
    return found, "estimated"


def _white(
    name: str,
    decoded: _Decoded,
    by_colour: Any,
    black: PerColour,
    user_black: bool,
    user: float | None,
) -> PerColour:
    """White per colour: the user's, else the file's per-colour one, else LibRaw's; each above its black."""
    per_colour = (0.0, 0.0, 0.0, 0.0)
    if user is None and decoded.white_per_colour is not None:
        per_colour = by_colour(decoded.white_per_colour)
    common = decoded.white if user is None else float(user)
    r, g1, b, g2 = (own if own > level else common for own, level in zip(per_colour, black, strict=True))
    if any(top <= level for top, level in zip((r, g1, b, g2), black, strict=True)):
        sentence = f"{name} has a white level of {common:g} that is not above its black level of {max(black):g}"
        if user_black or user is not None:
            raise UsageError(f"{sentence}; give other levels.")
        raise UnsupportedRawError(f"{sentence}; give the right levels by hand.")
    return r, g1, b, g2
