"""What a written picture says about itself: EXIF, colour profile, the linear DNG's colour."""

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawpy
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.ExifTags import GPS, IFD, Base

from lowlight.core.errors import OutputError
from lowlight.core.photo import Gps, LinearImage, Metadata, Picture
from lowlight.raw.develop import to_encoded
from lowlight.writers import WriterOptions, write_picture
from lowlight.writers.exif import exif_blob, simple_fraction
from lowlight.writers.icc import srgb_profile
from lowlight.writers.jxl import _Bits, _boxes

METADATA = Metadata(
    make="SONY",
    model="ILCE-7SM2",
    lens="FE 24-70mm F2.8 GM",
    exposure_s=float(np.float32(1 / 30)),
    aperture=2.8,
    iso=3200,
    focal_length_mm=35.5,
    taken_at="2016:02:03 04:05:06",
    subsec_s=0.25,
    utc_offset="-03:30",
    gps=Gps(-33.8567844, 151.2152967, -4.25),
    artist="Zoë",
    copyright="(c) Zoë",
)
RECORDED = ("lowlight 0.1.0", "weights: small", "ratio: 100")
# White-balanced camera colour to sRGB of a real camera's kind; rows sum to 1.
TO_SRGB = np.array([[1.9, -0.8, -0.1], [-0.25, 1.55, -0.3], [0.02, -0.6, 1.58]], np.float32)
WB = (2.1, 1.0, 1.7)


def exif_of(path: Path) -> Image.Exif:
    """Read by Pillow; it opens no linear DNG and no JPEG XL, but takes their tags as a blob."""
    exif = Image.Exif()
    if path.suffix in (".tif", ".dng"):
        exif.load(path.read_bytes())
    elif path.suffix == ".jxl":
        (content,) = [content for name, _, content in _boxes(memoryview(path.read_bytes())) if name == b"Exif"]
        assert content[:4] == bytes(4)
        exif.load(bytes(content[4:]))
    else:
        with Image.open(path) as image:
            exif = image.getexif()
            exif.get_ifd(IFD.Exif), exif.get_ifd(IFD.GPSInfo)  # read while the file is open
    return exif


def written(folder: Path, suffix: str, metadata: Metadata, channels: int = 3, bits: int | None = None) -> Path:
    pixels = np.linspace(0, 65535, 12 * 10 * channels).astype(np.uint16).reshape(12, 10, channels)
    linear = LinearImage(np.repeat(pixels[..., :1], 3, axis=2), TO_SRGB, WB)
    path = folder / f"a{suffix}"
    write_picture(path, Picture(pixels, metadata, RECORDED, linear), WriterOptions(bits=bits))
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".jxl", ".dng"])
def test_every_format_carries_the_metadata(tmp_path: Path, suffix: str) -> None:
    exif = exif_of(written(tmp_path, suffix, METADATA))
    assert exif[Base.Make] == "SONY" and exif[Base.Model] == "ILCE-7SM2"
    assert exif[Base.Orientation] == 1
    assert exif[Base.Software].startswith("lowlight ")
    # Pillow reads these fields as Latin-1; the bytes are UTF-8.
    assert exif[Base.Artist].encode("latin-1").decode("utf-8") == "Zoë"
    detail = exif.get_ifd(IFD.Exif)
    assert Fraction(detail[Base.ExposureTime].numerator, detail[Base.ExposureTime].denominator) == Fraction(1, 30)
    assert float(detail[Base.FNumber]) == 2.8 and float(detail[Base.FocalLength]) == 35.5
    assert detail[Base.ISOSpeedRatings] == 3200
    assert detail[Base.LensModel] == METADATA.lens and detail[Base.DateTimeOriginal] == METADATA.taken_at
    assert detail[Base.SubsecTimeOriginal] == "250" and detail[Base.OffsetTimeOriginal] == "-03:30"
    assert detail[Base.UserComment] == b"ASCII\0\0\0" + "\n".join(RECORDED).encode()
    gps = exif.get_ifd(IFD.GPSInfo)
    assert (gps[GPS.GPSLatitudeRef], gps[GPS.GPSLongitudeRef], gps[GPS.GPSAltitudeRef]) == ("S", "E", b"\x01")
    for tag, angle in ((GPS.GPSLatitude, 33.8567844), (GPS.GPSLongitude, 151.2152967)):
        degrees, minutes, seconds = (float(part) for part in gps[tag])
        assert degrees + minutes / 60 + seconds / 3600 == pytest.approx(angle, abs=2e-8)
    assert float(gps[GPS.GPSAltitude]) == 4.25
    assert detail.get(Base.ColorSpace) == (None if suffix == ".dng" else 1)
    # A TIFF has its size among its own tags, and may not have it here.
    size = (None, None) if suffix in (".dng", ".tif") else (10, 12)
    assert (detail.get(Base.ExifImageWidth), detail.get(Base.ExifImageHeight)) == size
    # Tags that Exif demands of a JPEG, and of no other file.
    demanded = [detail.get(tag) for tag in (Base.ComponentsConfiguration, Base.FlashPixVersion)]
    demanded.append(exif.get(Base.YCbCrPositioning))
    assert demanded == ([b"\1\2\3\0", b"0100", 1] if suffix == ".jpg" else [None] * 3)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".jxl", ".dng"])
def test_unknown_metadata_is_left_out(tmp_path: Path, suffix: str) -> None:
    strange = Metadata(make="  ", exposure_s=float("nan"), aperture=0.0, taken_at="yesterday", gps=Gps(95, 0))
    exif = exif_of(written(tmp_path, suffix, strange))
    assert Base.Make not in exif and IFD.GPSInfo not in exif
    detail = exif.get_ifd(IFD.Exif)
    assert not {Base.ExposureTime, Base.FNumber, Base.DateTimeOriginal, Base.ISOSpeedRatings} & detail.keys()


def test_png_says_the_recorded_lines_in_text(tmp_path: Path) -> None:
    with Image.open(written(tmp_path, ".png", METADATA)) as image:
        assert image.info["Comment"] == "\n".join(RECORDED)
        assert image.info["Software"].startswith("lowlight ")


def test_text_beyond_ascii_in_the_comment() -> None:
    exif = Image.Exif()
    exif.load(exif_blob(Picture(np.zeros((1, 1, 3), np.uint16), recorded=("Gewichte: schön",)), jpeg=True))
    assert exif.get_ifd(IFD.Exif)[Base.UserComment] == b"UNICODE\0" + "Gewichte: schön".encode("utf-16-le")


@pytest.mark.parametrize(
    ("iso", "expected"),
    [(99.6, (100, None)), (65534, (65534, None)), (409600, (65535, 409600)), (0, (None, None))],
)
def test_iso_beyond_16_bits(iso: float, expected: tuple[int | None, int | None]) -> None:
    exif = Image.Exif()
    exif.load(exif_blob(Picture(np.zeros((1, 1, 3), np.uint16), Metadata(iso=iso)), jpeg=True))
    detail = exif.get_ifd(IFD.Exif)
    assert (detail.get(Base.ISOSpeedRatings), detail.get(Base.RecommendedExposureIndex)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, Fraction(1, 10)),
        (float(np.float32(1 / 60)), Fraction(1, 60)),
        (1 / 8000, Fraction(1, 8000)),
        (1.3, Fraction(13, 10)),
        (30.0, Fraction(30)),
        (0.0, None),
        (-1.0, None),
        (float("inf"), None),
        (1e300, None),
        (1e-300, None),
    ],
)
def test_simple_fraction(value: float, expected: Fraction | None) -> None:
    assert simple_fraction(value) == expected


@given(st.floats(1e-6, 4e9))
def test_fractions_are_close_and_fit(value: float) -> None:
    fraction = simple_fraction(value)
    assert fraction is not None and max(fraction.as_integer_ratio()) < 2**32
    assert float(fraction) == pytest.approx(value, rel=2e-6)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_gps_never_reaches_60(latitude: float, longitude: float) -> None:
    exif = Image.Exif()
    picture = Picture(np.zeros((1, 1, 3), np.uint16), Metadata(gps=Gps(latitude, longitude)))
    exif.load(exif_blob(picture, jpeg=True))
    gps = exif.get_ifd(IFD.GPSInfo)
    for tag, angle in ((GPS.GPSLatitude, latitude), (GPS.GPSLongitude, longitude)):
        degrees, minutes, seconds = (float(part) for part in gps[tag])
        assert minutes < 60 and seconds < 60
        assert degrees + minutes / 60 + seconds / 3600 == pytest.approx(abs(angle), abs=2e-8)


class TestProfile:
    @pytest.mark.parametrize("channels", [3, 1])
    def test_it_is_srgb_to_another_colour_engine(self, channels: int) -> None:
        ours = ImageCms.getOpenProfile(io.BytesIO(srgb_profile(channels)))
        theirs = ImageCms.createProfile("sRGB")
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, channels), dtype=np.uint8)
        image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
        transform = ImageCms.buildTransform(ours, theirs, image.mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        assert np.abs(np.asarray(converted).astype(int) - pixels).max() <= 1

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
    @pytest.mark.parametrize("channels", [3, 1])
    def test_every_picture_has_it(self, tmp_path: Path, suffix: str, channels: int) -> None:
        with Image.open(written(tmp_path, suffix, METADATA, channels, bits=8)) as image:
            if suffix == ".png" and channels == 1:
                assert "srgb" in image.info and "icc_profile" not in image.info
            else:
                assert image.info["icc_profile"] == srgb_profile(channels)

    @pytest.mark.parametrize("channels", [3, 1])
    def test_16_bit_jpeg_xl_does_not_claim_linear_light(self, tmp_path: Path, channels: int) -> None:
        path = written(tmp_path, ".jxl", METADATA, channels)
        (codestream,) = [content for name, _, content in _boxes(memoryview(path.read_bytes())) if name == b"jxlc"]
        bits = _Bits(bytes(codestream[:64]), 2)
        assert bits.take(1) == 0  # 12 and 10 are not multiples of 8
        assert (bits.choose((1, 9), (1, 13), (1, 18), (1, 30)), bits.take(3)) == (12, 0)
        assert bits.choose((1, 9), (1, 13), (1, 18), (1, 30)) == 10
        assert (bits.take(1), bits.take(1), bits.take(1)) == (0, 0, 0)
        assert bits.choose((8, 0), (10, 0), (12, 0), (1, 6)) == 16
        assert (bits.take(1), bits.choose((0, 0), (1, 0), (2, 4), (1, 12)), bits.take(1)) == (0, 0, 0)
        assert (bits.take(1), bits.take(1)) == (0, 0)
        assert bits.enumerated() == (0 if channels == 3 else 1)
        assert bits.enumerated() == 1  # D65
        assert channels == 1 or bits.enumerated() == 1  # sRGB's primaries
        assert (bits.take(1), bits.enumerated()) == (0, 13)  # sRGB's curve


class TestLinearDng:
    @staticmethod
    def picture(to_srgb: np.ndarray | None, wb: tuple[float, float, float], metadata: Metadata = METADATA) -> Picture:
        """Ramps, saturated and dim colours, one clipped white patch; encoded as enhance would."""
        generator = np.random.default_rng(3)
        colours = generator.uniform(0, 0.9, (8, 12, 3)) * generator.uniform(0.02, 1, (8, 12, 1))
        pixels = np.kron(colours, np.ones((4, 4, 1)))
        pixels[:8, :8] = 1
        balanced = np.rint(pixels * 65535).astype(np.uint16)
        srgb = balanced / np.float32(65535) @ (np.eye(3) if to_srgb is None else to_srgb).T
        return Picture(to_encoded(srgb.astype(np.float32)), metadata, RECORDED, LinearImage(balanced, to_srgb, wb))

    @pytest.mark.parametrize("wb", [WB, (1.0, 1.0, 1.0), (1.0, 1.4, 2.6)])
    @pytest.mark.parametrize("to_srgb", [TO_SRGB, np.eye(3, dtype=np.float32), None])
    @pytest.mark.parametrize("camera", ["ILCE-7SM2", None])
    def test_libraw_develops_the_same_picture(
        self, tmp_path: Path, to_srgb: np.ndarray | None, wb: tuple[float, float, float], camera: str | None
    ) -> None:
        # LibRaw knows the first camera and must still use the file's matrix.
        metadata = Metadata(make="SONY" if camera else None, model=camera)
        picture = self.picture(to_srgb, wb, metadata)
        write_picture(tmp_path / "a.dng", picture)
        with rawpy.imread(str(tmp_path / "a.dng")) as raw:
            assert raw.raw_pattern is None and raw.sizes.flip == 0
            developed = raw.postprocess(
                use_camera_wb=True, no_auto_bright=True, output_bps=16, gamma=(2.222, 4.5), user_flip=0
            )
        error = np.abs(developed.astype(int) - picture.pixels)
        assert error.max() < 200 and error.mean() < 25
        white = developed[:8, :8].astype(int)
        assert white.min() > 65400 and np.ptp(white) < 20

    def test_a_reader_that_inverts_the_matrix_comes_to_the_same_colours(self, tmp_path: Path) -> None:
        """DNG 1.4, chapter 6: the matrix's inverse takes camera colour to XYZ, the neutral to the white."""
        picture = self.picture(TO_SRGB, WB)
        write_picture(tmp_path / "a.dng", picture)
        with tifffile.TiffFile(tmp_path / "a.dng") as tiff:
            tags: Any = tiff.pages.first.tags
            matrix = np.array(tags[50721].value, float).reshape(3, 3, 2)
            neutral = np.array(tags[50728].value, float).reshape(3, 2)
            camera = tiff.pages.first.asarray() / 65535
            assert tags[50778].value == 21 and tuple(tags[50706].value) == (1, 4, 0, 0)
            assert tags[50708].value == "SONY ILCE-7SM2"
        from_camera = np.linalg.inv(matrix[..., 0] / matrix[..., 1])
        white = from_camera @ (neutral[:, 0] / neutral[:, 1])
        assert white == pytest.approx([0.95047, 1, 1.08883], abs=1e-4)
        xyz_to_srgb = np.linalg.inv(
            [
                [0.4124564, 0.3575761, 0.1804375],
                [0.2126729, 0.7151522, 0.072175],
                [0.0193339, 0.119192, 0.9503041],
            ]
        )
        encoded = to_encoded((camera @ (xyz_to_srgb @ from_camera).T).astype(np.float32))
        assert np.abs(encoded.astype(int) - picture.pixels).max() < 200

    def test_refusals(self, tmp_path: Path) -> None:
        picture = self.picture(TO_SRGB, WB)
        with pytest.raises(OutputError, match="linear picture"):
            write_picture(tmp_path / "a.dng", Picture(picture.pixels))
        with pytest.raises(OutputError, match="inverted"):
            write_picture(tmp_path / "a.dng", self.picture(np.ones((3, 3), np.float32) / 3, WB))
        assert not list(tmp_path.iterdir())


def test_tiff_directories_are_in_order_and_even(tmp_path: Path) -> None:
    content = written(tmp_path, ".tif", METADATA).read_bytes()
    (offset,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, offset)
    rows = [struct.unpack_from("<HHII", content, offset + 2 + 12 * i) for i in range(count)]
    tags = [row[0] for row in rows]
    assert offset % 2 == 0 and tags == sorted(set(tags))
    for tag, _, _, value in rows:
        if tag in (IFD.Exif, IFD.GPSInfo):
            assert value % 2 == 0 and value < offset


def test_a_fraction_of_a_second_has_three_digits() -> None:
    exif = Image.Exif()
    told = Metadata(taken_at="2026:11:20 22:00:00", subsec_s=0.005)
    exif.load(exif_blob(Picture(np.zeros((1, 1, 3), np.uint16), told), jpeg=True))
    assert exif.get_ifd(IFD.Exif)[Base.SubsecTimeOriginal] == "005"
