"""TIFF image file directories (TIFF 6.0, section 2): the container of EXIF blobs and of TIFF and DNG tags.

Everything here is little-endian classic TIFF.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lowlight.core.errors import OutputError

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _SRATIONAL = 1, 2, 3, 4, 5, 7, 10

EXIF_POINTER = 34665
GPS_POINTER = 34853
HEADER = b"II*\0" + struct.pack("<I", 8)  # the first directory follows at once


@dataclass(frozen=True)
class Entry:
    """One tag of a directory with its values already in bytes."""

    tag: int
    kind: int
    count: int
    payload: bytes


def byte_entry(tag: int, *values: int) -> Entry:
    """Unsigned 8-bit values."""
    return Entry(tag, _BYTE, len(values), bytes(values))


def ascii_entry(tag: int, text: str) -> Entry:
    """Text, closed by a zero byte. Characters beyond ASCII go in as UTF-8, which readers take in practice."""
    payload = text.replace("\0", " ").encode("utf-8") + b"\0"
    return Entry(tag, _ASCII, len(payload), payload)


def short_entry(tag: int, *values: int) -> Entry:
    """Unsigned 16-bit values."""
    return Entry(tag, _SHORT, len(values), struct.pack(f"<{len(values)}H", *values))


def long_entry(tag: int, *values: int) -> Entry:
    """Unsigned 32-bit values."""
    return Entry(tag, _LONG, len(values), struct.pack(f"<{len(values)}I", *values))


def undefined_entry(tag: int, payload: bytes) -> Entry:
    """Raw bytes."""
    return Entry(tag, _UNDEFINED, len(payload), payload)


def rational_entry(tag: int, *values: Fraction) -> Entry:
    """Unsigned fractions of two 32-bit numbers."""
    return Entry(tag, _RATIONAL, len(values), b"".join(struct.pack("<II", *v.as_integer_ratio()) for v in values))


def srational_entry(tag: int, *values: Fraction) -> Entry:
    """Signed fractions of two 32-bit numbers."""
    return Entry(tag, _SRATIONAL, len(values), b"".join(struct.pack("<ii", *v.as_integer_ratio()) for v in values))


def pack_directory(entries: Iterable[Entry], offset: int) -> bytes:
    """Pack a directory for the even byte `offset` of its file, followed by the values too long for it."""
    return _pack({entry.tag: entry for entry in entries}, offset)


def _pack(rows: Mapping[int, Entry | bytes], offset: int) -> bytes:
    """Pack a directory of entries and of ready rows of 12 bytes, in the order of their tags."""
    table = struct.pack("<H", len(rows))
    values = b""
    values_offset = offset + 2 + 12 * len(rows) + 4
    for tag in sorted(rows):
        row = rows[tag]
        if isinstance(row, bytes):
            table += row
            continue
        table += struct.pack("<HHI", row.tag, row.kind, row.count)
        if len(row.payload) <= 4:
            table += row.payload.ljust(4, b"\0")
        else:
            table += struct.pack("<I", values_offset + len(values))
            values += row.payload + b"\0" * (len(row.payload) % 2)
    return table + struct.pack("<I", 0) + values


def pack_sub_directories(exif: Iterable[Entry], gps: Iterable[Entry], offset: int) -> tuple[bytes, tuple[Entry, ...]]:
    """Pack the Exif and GPS directories for the byte `offset`, and make the pointers to them."""
    packed = b""
    pointers: list[Entry] = []
    for pointer, entries in ((EXIF_POINTER, tuple(exif)), (GPS_POINTER, tuple(gps))):
        if entries:
            pointers.append(long_entry(pointer, offset + len(packed)))
            packed += pack_directory(entries, offset + len(packed))
    return packed, tuple(pointers)


def append_tags(path: Path, main: Iterable[Entry], exif: Iterable[Entry], gps: Iterable[Entry]) -> None:
    """Give a finished TIFF file more tags: `main` in its first directory, the others in sub-directories.

    tifffile refuses the pointer tags. The pixels stay where they are; a new first directory at the end of the
    file, with the old entries and the new ones, takes the place of the old. A new entry wins over an old one
    of its tag.
    """
    with path.open("r+b") as file:
        magic, first = struct.unpack("<4sI", file.read(8))
        if magic != HEADER[:4]:
            raise OutputError(
                f"{path.name} has grown beyond 4 GiB, which a TIFF file cannot hold; write a smaller one."
            )
        file.seek(first)
        (count,) = struct.unpack("<H", file.read(2))
        rows = [file.read(12) for _ in range(count)]
        # The four value bytes of an old row, offset or value, stay valid as they are.
        merged: dict[int, Entry | bytes] = {struct.unpack("<H", row[:2])[0]: row for row in rows}

        end = file.seek(0, 2)
        start = end + end % 2
        blocks, pointers = pack_sub_directories(exif, gps, start)
        merged.update((entry.tag, entry) for entry in (*main, *pointers))
        directory_offset = start + len(blocks)
        file.write(b"\0" * (end % 2) + blocks + _pack(merged, directory_offset))
        file.seek(4)
        file.write(struct.pack("<I", directory_offset))
