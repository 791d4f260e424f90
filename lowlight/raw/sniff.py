"""What a file is by its first bytes, whatever its name says.

LibRaw is asked only about files that may be RAW: it takes an ordinary 16-bit gray TIFF for a Bayer mosaic and
calls a photograph saved as JPEG under a RAW name an input error.
"""

from pathlib import Path

_PICTURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL \r\n\x87\n", "JPEG XL"),
    (4, b"jP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
)
_HEIF_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}
_RAW_CONTAINERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"IIRO", "ORF"),
    (0, b"IIRS", "ORF"),
    (0, b"MMOR", "ORF"),
    (0, b"IIU\x00", "RW2"),
    (6, b"HEAPCCDR", "CRW"),
    (4, b"ftypcrx ", "CR3"),
    (0, b"FUJIFILMCCD-RAW", "RAF"),
    (0, b"\x00MRM", "MRW"),
    (0, b"FOVb", "X3F"),
)
HEAD_BYTES = 32
# Pillow's names are not used here: these are the values of TIFF tag 262 that describe a finished picture.
TIFF_PICTURE_KINDS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}


def picture_kind(head: bytes) -> str | None:
    """Name the picture format that starts with `head` (at least 32 bytes), or None."""
    for offset, magic, name in _PICTURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _HEIF_BRANDS.get(head[8:12])
    return None


def raw_container(head: bytes) -> str | None:
    """Name the container that RAW data may be in, if `head` starts one, or None."""
    for offset, magic, name in _RAW_CONTAINERS:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None


def hides_sensor_data(path: Path) -> bool:
    """Tell whether a JPEG carries a Raspberry Pi sensor dump behind the picture, which LibRaw reads."""
    return b"@BRCM" in path.read_bytes()
