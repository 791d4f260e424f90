"""Camera, lens, time and place from the metadata of a RAW file.

LibRaw's Python interface tells neither make nor model nor position, so this small reader does. It knows
TIFF-like files (DNG, NEF, CR2, ARW, ORF, RW2, PEF, KDC ...), CR3 boxes, RAF, MRW and CRW (CIFF) heaps. A
value that is missing or makes no sense is None; no file, however broken, makes it fail.
"""

import io
import logging
import math
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from lowlight.core.photo import Gps, Metadata
from lowlight.raw.sniff import HEAD_BYTES, raw_container

log = logging.getLogger(__name__)

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
PHOTOMETRIC, ORIENTATION, SUB_IFDS, DNG_VERSION = 262, 274, 330, 50706
_CANON_UUID = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_MAX_BLOB_BYTES = 64 << 20  # larger than any metadata block; a broken length must not fill the memory
_WARNING_FILTERS = threading.Lock()
_UNSET_TIMES = ("0000", "1970:01:01 00:00:00")
_OFFSET = re.compile(r"[+-][01]\d:[0-5]\d")
_SMALLEST, _LARGEST = 1e-9, 1e9  # of exposures, apertures and the like
_FIRST_YEAR = 1970  # of a photo that a digital camera can have taken; a clock that stands before it was never set

Tags = Mapping[int, Any]


def read_metadata(path: Path) -> Metadata:
    """Read what `path` says about its camera and exposure; every unknown value is None. Never raises."""
    try:
        with _quiet(), _open(path) as file:
            return _read(file)
    except Exception as problem:  # metadata comes from outside and must not cost anybody a photograph
        log.debug("metadata of %s cannot be read: %s", path, problem)
        return Metadata()


def tiff_tags(path: Path) -> dict[int, Any]:
    """Read the first directory of a TIFF-like file; empty if there is none. Never raises."""
    try:
        with _quiet(), _open(path) as file:
            return dict(_tiff(file))
    except Exception as problem:  # as above
        log.debug("first directory of %s cannot be read: %s", path, problem)
        return {}


def read_directories(path: Path) -> list[dict[int, Any]]:
    """Read the first directory of a TIFF-like file and those it names as its parts (SubIFDs). Never raises."""
    try:
        with _quiet(), _open(path) as file:
            first = _tiff(file)
            parts = first.get(SUB_IFDS, ())
            offsets = parts if isinstance(parts, tuple) else (parts,)
            return [dict(first), *(dict(_directory(file, str(first.endian), offset)) for offset in offsets)]
    except Exception as problem:  # a broken part must not cost anybody a photograph: what LibRaw says is left
        log.debug("directories of %s cannot be read: %s", path, problem)
        return []


def _open(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():
        raise OSError("a pipe or a device might be waited for without end")
    return path.open("rb")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings about odd tags away from the user; Python's filters are not made for threads."""
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(file: BinaryIO) -> Metadata:
    head = file.read(HEAD_BYTES)
    container = raw_container(head)
    if container == "CRW":
        return _from_ciff(file)
    if container == "CR3":
        return _from_cr3(file)
    if container == "RAF":
        (offset, length) = struct.unpack(">II", _at(file, 84, 8))
        exif = Image.open(io.BytesIO(_at(file, offset, length))).getexif()
    elif container == "MRW":
        exif = _tiff(io.BytesIO(_mrw_block(file)))
    elif container in ("TIFF", "ORF", "RW2"):
        exif = _tiff(file)
    else:
        return Metadata()
    return metadata_from_tags(dict(exif), exif.get_ifd(EXIF_IFD), exif.get_ifd(GPS_IFD))


def metadata_from_tags(ifd0: Tags, exif: Tags, gps: Tags) -> Metadata:
    """Metadata from the tags of the three directories that a TIFF or Exif block may have."""
    both = {**ifd0, **exif}  # cheap cameras and capture libraries put exposure tags into the first directory
    make, model = _text(ifd0.get(271)), _text(ifd0.get(272)) or _text(ifd0.get(50708))
    times = (_time(both.get(tag)) for tag in (36867, 36868, 306))
    iso = _positive(both.get(34855))
    if iso is None or iso == 65535:  # the 16-bit tag is full: the real value is in a 32-bit one
        iso = next((v for v in (_positive(both.get(tag)) for tag in (34866, 34867)) if v), iso)
    return Metadata(
        make=make,
        model=model,
        lens=_text(both.get(42036)),
        exposure_s=_positive(both.get(33434)),
        aperture=_positive(both.get(33437)),
        iso=iso,
        focal_length_mm=_positive(both.get(37386)),
        taken_at=next((time for time in times if time), None),
        subsec_s=_fraction(both.get(37521)),
        utc_offset=_offset(both.get(36881)),
        gps=_position(gps),
        artist=_text(ifd0.get(315)),
        copyright=_text(ifd0.get(33432)),
    )


def _tiff(file: BinaryIO) -> Image.Exif:
    """Read the directories of a TIFF-like file; ORF and RW2 differ from TIFF in their magic number only."""
    file.seek(0)
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    return _directory(file, order, struct.unpack(order + "I", head[4:8])[0])


def _directory(file: BinaryIO, order: str, offset: int) -> Image.Exif:
    exif = Image.Exif()
    exif.endian = order
    exif.load_from_fp(file, offset)
    return exif


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(min(length, _MAX_BLOB_BYTES))
    if len(data) != length:
        raise ValueError(f"{length} bytes expected at {offset}, {len(data)} found")
    return data


def _mrw_block(file: BinaryIO) -> bytes:
    """Find the TIFF block of a Minolta file: each block starts with four letters and a big-endian length."""
    position = 8
    while True:
        name, length = struct.unpack(">4sI", _at(file, position, 8))
        if name == b"\0TTW":
            return _at(file, position + 8, length)
        position += 8 + length


def _boxes(data: bytes) -> dict[bytes, bytes]:
    """ISO base media boxes of one level: type (or UUID) -> content; the first of a type counts."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size < 8:
            break
        content = data[position + 8 : position + size]
        if kind == b"uuid":
            kind, content = content[:16], content[16:]
        found.setdefault(kind, content)
        position += size
    return found


def _from_cr3(file: BinaryIO) -> Metadata:
    """Canon CR3: moov / Canon's UUID / CMT1 (IFD0), CMT2 (Exif) and CMT4 (GPS) are TIFF blocks."""
    start = b""
    position = 0
    while not start:
        size, kind = struct.unpack(">I4s", _at(file, position, 8))
        if kind == b"moov":
            start = _at(file, position + 8, size - 8)
        if size < 8:
            return Metadata()
        position += size
    blocks = _boxes(_boxes(start).get(_CANON_UUID, b""))
    ifd0, exif, gps = (
        dict(_tiff(io.BytesIO(blocks[name]))) if blocks.get(name) else {} for name in (b"CMT1", b"CMT2", b"CMT4")
    )
    return metadata_from_tags(ifd0, exif, gps)


def _from_ciff(file: BinaryIO) -> Metadata:
    """Canon CRW: a heap ends with the offset of its directory; entries are heaps or values."""
    order = "<" if _at(file, 0, 2) == b"II" else ">"
    (start,) = struct.unpack(order + "I", _at(file, 2, 4))
    found: dict[int, bytes] = {}

    def walk(begin: int, end: int, depth: int) -> None:
        (table,) = struct.unpack(order + "I", _at(file, end - 4, 4))
        (count,) = struct.unpack(order + "H", _at(file, begin + table, 2))
        entries = _at(file, begin + table + 2, 10 * count)
        for kind, length, offset in struct.iter_unpack(order + "HII", entries):
            if kind >> 14:  # the value sits in the entry itself
                continue
            if kind & 0x3800 in (0x2800, 0x3000) and depth < 4:
                walk(begin + offset, begin + offset + length, depth + 1)
            elif kind in (0x080A, 0x0810, 0x180E):
                found.setdefault(kind, _at(file, begin + offset, length))

    walk(start, file.seek(0, io.SEEK_END), 0)
    make, model, *_ = (*found.get(0x080A, b"").split(b"\0"), b"", b"")
    taken_at = None
    if len(found.get(0x180E, b"")) >= 4:  # seconds of camera time since 1970
        (seconds,) = struct.unpack_from(order + "I", found[0x180E])
        taken_at = datetime.fromtimestamp(seconds, UTC).strftime("%Y:%m:%d %H:%M:%S") if seconds else None
    artist = _text(found.get(0x0810, b"").split(b"\0")[0])
    return Metadata(make=_text(make), model=_text(model), taken_at=taken_at, artist=artist)


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    with suppress(UnicodeError):  # Pillow takes text for Latin-1, and cameras and editors write UTF-8
        value = value.encode("latin-1").decode("utf-8")
    return " ".join(value.split("\0")[0].split()) or None


def _number(value: object) -> float | None:
    if isinstance(value, tuple) and value:
        value = value[0]
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: object) -> float | None:
    number = _number(value)
    return None if number is None else believable(number)


def believable(number: float) -> float | None:
    """An exposure time, aperture, sensitivity or focal length; None where it is none, as damaged tags may say."""
    return number if _SMALLEST <= number <= _LARGEST else None


def _time(value: object) -> str | None:
    text = _text(value)
    if text is None or text.startswith(_UNSET_TIMES):
        return None
    try:
        time = datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    return f"{time:%Y:%m:%d %H:%M:%S}" if time.year >= _FIRST_YEAR else None


def _fraction(value: object) -> float | None:
    """Read the digits after the decimal point that SubSecTimeOriginal holds."""
    digits = _text(value) or ""
    return float(f"0.{digits}") if digits.isascii() and digits.isdigit() else None


def _offset(value: object) -> str | None:
    """Read what OffsetTimeOriginal holds; cameras whose zone was never set have blanks there."""
    text = _text(value) or ""
    return text if _OFFSET.fullmatch(text) else None


def _degrees(value: object, reference: object, negative: str, limit: float) -> float | None:
    parts = [_number(part) for part in value] if isinstance(value, tuple) and len(value) == 3 else []
    if not parts or parts[0] is None:
        return None
    degrees = parts[0] + (parts[1] or 0.0) / 60 + (parts[2] or 0.0) / 3600
    if not 0 <= degrees <= limit:
        return None
    return -degrees if (_text(reference) or "").upper().startswith(negative) else degrees


def _position(gps: Tags) -> Gps | None:
    latitude = _degrees(gps.get(2), gps.get(1), "S", 90)
    longitude = _degrees(gps.get(4), gps.get(3), "W", 180)
    if latitude is None or longitude is None or _text(gps.get(9)) == "V":  # V: the receiver had no position
        return None
    altitude_m = _number(gps.get(6))
    below = gps.get(5) in (1, b"\x01")
    return Gps(latitude, longitude, -altitude_m if altitude_m is not None and below else altitude_m)
