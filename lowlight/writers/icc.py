"""Colour profiles built by hand (ICC.1:2022, version 4), so that their bytes are always the same."""

import struct
from functools import cache

# sRGB primaries (IEC 61966-2-1) adapted from D65 to D50 with the Bradford transform, and that transform.
_PRIMARIES_D50 = {
    b"rXYZ": (0.43604, 0.22249, 0.01392),
    b"gXYZ": (0.38512, 0.71690, 0.09706),
    b"bXYZ": (0.14305, 0.06061, 0.71391),
}
_D65_TO_D50 = (1.04788, 0.02292, -0.05022, 0.02959, 0.99048, -0.01707, -0.00925, 0.01508, 0.75168)
_D50 = (0.9642, 1.0, 0.8249)
# Parametric curve of type 3: Y = (a X + b)^g from d on, c X below.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@cache
def srgb_profile(channels: int) -> bytes:
    """Build the profile of sRGB for 3 channels, of gray with sRGB's tone curve for 1."""
    tags = {
        b"desc": _text("sRGB" if channels == 3 else "sRGB gray"),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        b"chad": b"sf32\0\0\0\0" + _fixed(*_D65_TO_D50),
    }
    curve = b"para\0\0\0\0\0\3\0\0" + _fixed(*_SRGB_CURVE)
    if channels == 3:
        tags |= {name: b"XYZ \0\0\0\0" + _fixed(*xyz) for name, xyz in _PRIMARIES_D50.items()}
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags[b"kTRC"] = curve

    table = struct.pack(">I", len(tags))
    data = b""
    start = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}  # equal values are stored once
    for name, value in tags.items():
        if value not in places:
            places[value] = start + len(data)
            data += value + b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", places[value], len(value))
    return _header(start + len(data), b"RGB " if channels == 3 else b"GRAY") + table + data


def _header(size: int, colour_space: bytes) -> bytes:
    created = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)  # fixed: a profile has no age
    header = struct.pack(">I4xI4s4s4s", size, 0x04400000, b"mntr", colour_space, b"XYZ ")
    header += created + b"acsp" + bytes(4 + 4 + 4 + 4 + 8)
    header += struct.pack(">I", 0) + _fixed(*_D50)  # perceptual; the connection space's white
    return header.ljust(128, b"\0")


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded
