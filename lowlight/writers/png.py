"""PNG with 8 or 16 bits (W3C PNG, third edition), fast: filters in numpy, deflate by ISA-L.

Both work without the GIL. The picture is filtered, compressed and written in bands, so nothing of its size is
held beside it.
"""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from lowlight.core.photo import Picture
from lowlight.writers.depth import to_uint8
from lowlight.writers.exif import SOFTWARE, exif_blob
from lowlight.writers.icc import srgb_profile
from lowlight.writers.options import WriterOptions

Bytes = npt.NDArray[np.uint8]

_BAND_BYTES = 1 << 19  # of unfiltered rows: large enough to be quick, small enough for the cache
_LEVEL = 1  # of ISA-L's 0 to 3: the higher ones are slower and no smaller on filtered photographs
_SUB, _AVERAGE, _PAETH = 1, 3, 4
_PERCEPTUAL = b"\0"


def write_png(path: Path, picture: Picture, options: WriterOptions) -> None:
    """Write `picture.pixels` with 8 or 16 bits per channel, lossless at 16, and all metadata, to `path`."""
    pixels = picture.pixels
    bits = 8 if options.bits == 8 else 16
    height, width, channels = pixels.shape
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        colour_type = 2 if channels == 3 else 0
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
        if channels == 3:
            _write_chunk(file, b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile(3), 9))
        else:  # a gray picture may not carry the colour profile; this chunk says the same of its tones
            _write_chunk(file, b"sRGB", _PERCEPTUAL)
        _write_chunk(file, b"eXIf", exif_blob(picture))
        _write_chunk(file, b"iTXt", _text("Software", SOFTWARE))
        if picture.recorded:
            _write_chunk(file, b"iTXt", _text("Comment", "\n".join(picture.recorded)))
        _write_pixels(file, pixels, bits)
        _write_chunk(file, b"IEND", b"")


def _write_pixels(file: BinaryIO, pixels: npt.NDArray[np.uint16], bits: int) -> None:
    from isal import isal_zlib  # here, so that a machine that only trains needs no isal

    height, width, channels = pixels.shape
    row_bytes = width * channels * bits // 8
    rows = max(1, _BAND_BYTES // row_bytes)
    compressor = isal_zlib.compressobj(_LEVEL)
    above = np.zeros((1, row_bytes), np.uint8)
    for top in range(0, height, rows):
        band = pixels[top : top + rows]
        samples = to_uint8(band) if bits == 8 else band.astype(">u2", order="C")
        raw = samples.reshape(len(band), -1).view(np.uint8)
        if bits == 8:
            filtered = _filter_8(np.concatenate((above, raw)), channels)
            above = raw[-1:].copy()
        else:
            filtered = _filter_16(raw, 2 * channels)
        compressed = compressor.compress(filtered)
        if compressed:
            _write_chunk(file, b"IDAT", compressed)
    _write_chunk(file, b"IDAT", compressor.flush())


def _filter_16(raw: Bytes, step: int) -> Bytes:
    """Turn rows `[h, n]` into filtered rows `[h, 1 + n]` by Sub, as good as any where low bytes are noise."""
    filtered = np.empty((raw.shape[0], raw.shape[1] + 1), np.uint8)
    filtered[:, 0] = _SUB
    filtered[:, 1 : step + 1] = raw[:, :step]
    np.subtract(raw[:, step:], raw[:, :-step], out=filtered[:, step + 1 :])
    return filtered


def _filter_8(raw: Bytes, step: int) -> Bytes:
    """Turn rows `[1 + h, n]`, the first one the row above the band, into filtered rows `[h, 1 + n]`.

    Paeth for clean bands, Average for noisy ones: whichever leaves the smaller sum of absolute differences.
    """
    current, up = raw[1:], raw[:-1]
    left = np.zeros_like(current)
    left[:, step:] = current[:, :-step]
    corner = np.zeros_like(current)
    corner[:, step:] = up[:, :-step]

    average = current - ((left & up) + ((left ^ up) >> 1))  # the mean, rounded down, without a ninth bit
    toward_left = up.astype(np.int16) - corner  # how far the prediction left + up - corner lies from left
    toward_up = left.astype(np.int16) - corner
    from_left, from_up, from_corner = np.abs(toward_left), np.abs(toward_up), np.abs(toward_left + toward_up)
    nearest = np.where(from_up <= from_corner, up, corner)
    nearest = np.where((from_left <= from_up) & (from_left <= from_corner), left, nearest)
    paeth = current - nearest

    filtered = np.empty((current.shape[0], current.shape[1] + 1), np.uint8)
    use_average = _cost(average) < _cost(paeth)
    filtered[:, 0] = _AVERAGE if use_average else _PAETH
    filtered[:, 1:] = average if use_average else paeth
    return filtered


def _cost(differences: Bytes) -> int:
    """Sum of the differences' absolute values, taken as signed bytes."""
    return int(np.minimum(differences, 0 - differences).sum(dtype=np.int64))


def _text(keyword: str, text: str) -> bytes:
    """Lay out the content of an uncompressed iTXt chunk without language: UTF-8 text."""
    return keyword.encode("latin-1") + b"\0\0\0\0\0" + text.replace("\0", " ").encode("utf-8")


def _write_chunk(file: BinaryIO, name: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)))
    file.write(name)
    file.write(content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(name))))
