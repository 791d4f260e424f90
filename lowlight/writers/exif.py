"""What a photograph says about itself, as EXIF tags (CIPA DC-008, Exif 2.32)."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from lowlight import __version__
from lowlight.core.photo import Gps, Metadata, Picture
from lowlight.writers.ifd import (
    HEADER,
    Entry,
    ascii_entry,
    byte_entry,
    long_entry,
    pack_directory,
    pack_sub_directories,
    rational_entry,
    short_entry,
    undefined_entry,
)

SOFTWARE = f"lowlight {__version__}"
EXIF_PREFIX = b"Exif\0\0"  # what JPEG puts in front of the blob; PNG and JPEG XL do not

_SRGB = 1
_RECOMMENDED_EXPOSURE_INDEX = 2  # of SensitivityType
_TIME = re.compile(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d")
_LARGEST = 2**32 - 1
# Exif 2.32, table 17: resolution (of no known paper: 72 an inch), chroma in the middle, Y Cb Cr, Flashpix 1.0.
_JPEG_MAIN = (
    rational_entry(282, Fraction(72)),
    rational_entry(283, Fraction(72)),
    short_entry(296, 2),
    short_entry(531, 1),
)
_JPEG_EXIF = (undefined_entry(37121, b"\1\2\3\0"), undefined_entry(40960, b"0100"))
_SECOND_STEPS = 10_000  # parts of an arc second: 3 mm on the ground


@dataclass(frozen=True)
class ExifTags:
    """The three directories: main (IFD0), Exif and GPS."""

    main: tuple[Entry, ...]
    exif: tuple[Entry, ...]
    gps: tuple[Entry, ...]


def exif_tags(picture: Picture, *, encoded: bool = True, sized: bool = True) -> ExifTags:
    """List the tags of a picture that stands upright. Values the metadata does not know are left out.

    `encoded` says that the file holds the sRGB pixels; a linear file does not claim that colour space. `sized` gives
    their size, which files that are TIFFs have among their own tags.
    """
    metadata = picture.metadata
    height, width = picture.pixels.shape[:2]
    main = [
        short_entry(274, 1),  # Orientation: already applied
        ascii_entry(305, SOFTWARE),
        *_texts((271, metadata.make), (272, metadata.model), (315, metadata.artist), (33432, metadata.copyright)),
    ]
    exif = [
        undefined_entry(36864, b"0232"),  # ExifVersion
        *_numbers((33434, metadata.exposure_s), (33437, metadata.aperture), (37386, metadata.focal_length_mm)),
        *_sensitivity(metadata),
        *_texts((42036, metadata.lens)),
    ]
    if metadata.taken_at and _TIME.fullmatch(metadata.taken_at):
        exif.append(ascii_entry(36867, metadata.taken_at))  # DateTimeOriginal
        if metadata.subsec_s is not None:
            exif.append(ascii_entry(37521, f"{min(int(metadata.subsec_s * 1000 + 0.5), 999):03}"))  # its SubSec
        exif += _texts((36881, metadata.utc_offset))  # its Offset
    if picture.recorded:
        exif.append(undefined_entry(37510, _user_comment("\n".join(picture.recorded))))
    if encoded:
        exif.append(short_entry(40961, _SRGB))
    if sized:
        exif += [long_entry(40962, width), long_entry(40963, height)]
    return ExifTags(tuple(main), tuple(exif), _gps(metadata.gps) if metadata.gps else ())


def exif_blob(picture: Picture, *, jpeg: bool = False) -> bytes:
    """Pack all tags as a TIFF file without pixels; for a JPEG with what it must have, and six bytes in front."""
    tags = exif_tags(picture)
    main, exif = (tags.main + _JPEG_MAIN, tags.exif + _JPEG_EXIF) if jpeg else (tags.main, tags.exif)
    # The main directory's size does not depend on where its pointers lead, so it is packed twice.
    _, pointers = pack_sub_directories(exif, tags.gps, 0)
    offset = len(HEADER) + len(pack_directory((*main, *pointers), len(HEADER)))
    blocks, pointers = pack_sub_directories(exif, tags.gps, offset)
    blob = HEADER + pack_directory((*main, *pointers), len(HEADER)) + blocks
    return EXIF_PREFIX + blob if jpeg else blob


def simple_fraction(value: float) -> Fraction | None:
    """Find a fraction within a millionth of `value`, with a denominator of as few digits as possible.

    So 0.005 s becomes 1/200 and a 32-bit 0.0166667 becomes 1/60. None for what EXIF cannot hold: negative,
    zero, not finite or beyond 32 bits.
    """
    if not math.isfinite(value) or not 0 < value <= _LARGEST:
        return None
    exact = Fraction(value)
    for digits in range(10):
        fraction = exact.limit_denominator(10**digits)
        if fraction.numerator > _LARGEST:
            return None
        if abs(fraction - exact) <= exact / 1_000_000:
            return fraction
    return None


def _texts(*pairs: tuple[int, str | None]) -> list[Entry]:
    return [ascii_entry(tag, text.strip()) for tag, text in pairs if text and text.strip("\0 \t\r\n")]


def _numbers(*pairs: tuple[int, float | None]) -> list[Entry]:
    fractions = ((tag, simple_fraction(value)) for tag, value in pairs if value is not None)
    return [rational_entry(tag, fraction) for tag, fraction in fractions if fraction is not None]


def _sensitivity(metadata: Metadata) -> list[Entry]:
    """ISO as the 16-bit tag, and where that is too small as the 32-bit one beside it, as cameras do."""
    if metadata.iso is None or not 0.5 <= metadata.iso <= _LARGEST:
        return []
    iso = round(metadata.iso)
    if iso < 65535:
        return [short_entry(34855, iso)]
    return [
        short_entry(34855, 65535),
        short_entry(34864, _RECOMMENDED_EXPOSURE_INDEX),
        long_entry(34866, iso),
    ]


def _user_comment(text: str) -> bytes:
    if text.isascii():
        return b"ASCII\0\0\0" + text.encode("ascii")
    return b"UNICODE\0" + text.encode("utf-16-le")  # the byte order of the blob


def _gps(gps: Gps) -> tuple[Entry, ...]:
    if not (abs(gps.latitude) <= 90 and abs(gps.longitude) <= 180):  # also catches NaN
        return ()
    entries = [
        byte_entry(0, 2, 3, 0, 0),  # GPSVersionID
        ascii_entry(1, "S" if gps.latitude < 0 else "N"),
        rational_entry(2, *_degrees(gps.latitude)),
        ascii_entry(3, "W" if gps.longitude < 0 else "E"),
        rational_entry(4, *_degrees(gps.longitude)),
    ]
    if gps.altitude_m is not None and math.isfinite(gps.altitude_m) and abs(gps.altitude_m) < 1e5:
        entries.append(byte_entry(5, int(gps.altitude_m < 0)))  # 1: below the sea
        entries.append(rational_entry(6, Fraction(round(abs(gps.altitude_m) * 1000), 1000)))
    return tuple(entries)


def _degrees(angle: float) -> tuple[Fraction, Fraction, Fraction]:
    """Degrees, minutes and seconds; rounded as a whole, so that seconds never reach 60."""
    steps = round(abs(angle) * 3600 * _SECOND_STEPS)
    minutes, step = divmod(steps, 60 * _SECOND_STEPS)
    degrees, minute = divmod(minutes, 60)
    return Fraction(degrees), Fraction(minute), Fraction(step, _SECOND_STEPS)
