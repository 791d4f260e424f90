"""JPEG XL: lossless 16 bits by default (ISO/IEC 18181-1), EXIF in the container's box (18181-2)."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lowlight.core.errors import OutputError
from lowlight.core.photo import Picture
from lowlight.writers.depth import to_uint8
from lowlight.writers.exif import exif_blob
from lowlight.writers.options import WriterOptions

_LOSSLESS_EFFORT = 1  # many times faster than the default; some per cent larger, still below PNG
# Up to one group of pixels, effort 1 of libjxl 0.11 may write beyond its buffer where 16 bits are noisy.
_GROUP_PX, _LOSSLESS_EFFORT_OF_ONE_GROUP = 256, 2
_LOSSY_EFFORT = 4
_CODESTREAM_BOXES = (b"jxlc", b"jxlp")
_HEADER_BYTES = 64  # of a codestream: more than the fields read here can take
_GRAY_SPACE, _LINEAR_CURVE, _SRGB_CURVE = 1, 8, 13


def write_jxl(path: Path, picture: Picture, options: WriterOptions) -> None:
    """Write `picture.pixels` and EXIF to `path`.

    16 bits are lossless. 8 bits follow `options.quality`, where 100 is lossless. The codestream itself says
    that the colours are sRGB, so no profile is needed.
    """
    import imagecodecs

    pixels = to_uint8(picture.pixels) if options.bits == 8 else picture.pixels
    samples = np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    lossless = options.bits != 8 or options.quality == 100
    one_group = max(samples.shape[:2]) <= _GROUP_PX
    lossless_effort = _LOSSLESS_EFFORT_OF_ONE_GROUP if one_group else _LOSSLESS_EFFORT
    encoded = imagecodecs.jpegxl_encode(
        samples,
        lossless=lossless,
        distance=None if lossless else _distance(options.quality),
        effort=lossless_effort if lossless else _LOSSY_EFFORT,
        photometric="rgb" if samples.ndim == 3 else "gray",
        usecontainer=True,
        numthreads=1,  # photos are already written side by side
    )
    exif = struct.pack(">I", 0) + exif_blob(picture)  # the blob starts 0 bytes into its box
    with path.open("wb") as file:
        started = False
        for name, head, content in _boxes(memoryview(encoded)):
            if name in _CODESTREAM_BOXES and not started:
                started = True
                # In front of the pixels, where a reader finds it early.
                file.write(struct.pack(">I4s", 8 + len(exif), b"Exif") + exif)
                if lossless:
                    start = 4 if name == b"jxlp" else 0  # a partial box counts itself first
                    head = head + _with_srgb_curve(bytes(content[:_HEADER_BYTES]), start)
                    content = content[_HEADER_BYTES:]
            file.write(head)
            file.write(content)


def _distance(quality: int) -> float:
    """Visual distance for a JPEG-like quality: 0.1 at 100, 1 (no visible difference) at 90."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return min(15.0, 6.4 + (30 - quality) * 0.3)


def _boxes(container: memoryview) -> Iterator[tuple[bytes, bytes, memoryview]]:
    """Name, header and content of each box; a size of 0 means to the end, 1 that a 64-bit size follows."""
    start = 0
    while start < len(container):
        size, name = struct.unpack_from(">I4s", container, start)
        body = start + (16 if size == 1 else 8)
        if size == 1:
            (size,) = struct.unpack_from(">Q", container, start + 8)
        end = start + size if size else len(container)
        yield name, bytes(container[start:body]), container[body:end]
        start = end


def _with_srgb_curve(header: bytes, start: int) -> bytes:
    """Say sRGB's tone curve where the header of a lossless codestream, at byte `start`, says linear light.

    imagecodecs labels all 16-bit pictures as linear. Lossless pixels are stored as they are, so the label is
    all that has to change, and both labels are equally long (18181-1, annexes D and E).
    """
    bits = _Bits(header, start + 2)
    small = bits.take(1)
    _skip_side(bits, small)
    if bits.take(3) == 0:  # no fixed aspect ratio: the width follows
        _skip_side(bits, small)
    if bits.take(1):  # all of the metadata is default: sRGB
        return header
    if bits.take(1):
        raise OutputError("The JPEG XL encoder wrote a header that is not understood; write PNG or TIFF.")
    bits.take(1)  # floating point samples
    bits.choose((8, 0), (10, 0), (12, 0), (1, 6))  # depth
    bits.take(1)  # small integers suffice
    bits.choose((0, 0), (1, 0), (2, 4), (1, 12))  # extra channels
    bits.take(1)  # XYB
    if bits.take(1):  # the colour encoding is default: sRGB
        return header
    has_profile = bits.take(1)
    space = bits.enumerated()
    bits.enumerated()  # white point
    if space != _GRAY_SPACE:
        bits.enumerated()  # primaries
    has_gamma = bits.take(1)
    position = bits.position
    curve = bits.enumerated()
    if has_profile or has_gamma or curve not in (_LINEAR_CURVE, _SRGB_CURVE):
        raise OutputError("The JPEG XL encoder gave the picture other colours than sRGB; write PNG or TIFF.")
    # Both are written as the selector 2, in two bits, then the value minus 2 in four.
    return bits.replaced(position + 2, 4, _SRGB_CURVE - 2)


def _skip_side(bits: "_Bits", small: int) -> None:
    if small:
        bits.take(5)
    else:
        bits.choose((1, 9), (1, 13), (1, 18), (1, 30))


class _Bits:
    """Reads a codestream's header, least significant bit first."""

    def __init__(self, header: bytes, start: int) -> None:
        self._size = len(header)
        self._header = int.from_bytes(header, "little")
        self.position = 8 * start

    def take(self, count: int) -> int:
        value = self._header >> self.position & ((1 << count) - 1)
        self.position += count
        return value

    def choose(self, *forms: tuple[int, int]) -> int:
        """Read a two-bit selector of (offset, further bits)."""
        offset, count = forms[self.take(2)]
        return offset + self.take(count)

    def enumerated(self) -> int:
        return self.choose((0, 0), (1, 0), (2, 4), (18, 6))

    def replaced(self, position: int, count: int, value: int) -> bytes:
        """Return the header with other bits at `position`."""
        mask = (1 << count) - 1 << position
        return (self._header & ~mask | value << position).to_bytes(self._size, "little")
