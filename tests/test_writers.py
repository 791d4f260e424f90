"""Pictures on disk: what is written comes back, whole or not at all, the same each time."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import imagecodecs
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowlight.core.atomic import write_text
from lowlight.core.errors import BrokenFileError, DataError, OutputError, UsageError
from lowlight.core.photo import LinearImage, Metadata, Picture
from lowlight.data.pictures import read_picture
from lowlight.writers import WRITERS, WriterOptions, is_leftover, replacing, write_picture, writer_for
from lowlight.writers.depth import to_uint8
from lowlight.writers.jxl import _distance

ENCODED = [(suffix, bits) for suffix, writer in WRITERS.items() if not writer.needs_linear for bits in writer.bits]
SIZES = [(1, 1), (7, 5), (33, 130)]


def a_picture(height: int, width: int, channels: int, seed: int = 0) -> Picture:
    """A smooth picture with fine noise, and its linear counterpart."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 60000, height * width).reshape(height, width, 1) * np.linspace(1, 0.5, channels)
    pixels = np.clip(ramp + generator.normal(0, 300, ramp.shape), 0, 65535).astype(np.uint16)
    linear = LinearImage(np.repeat(pixels[..., :1], 3, axis=2), np.eye(3, dtype=np.float32), (2.0, 1.0, 1.5))
    return Picture(pixels, Metadata(make="Sony", model="ILCE-7SM2"), ("lowlight 0.0.0", "weights small"), linear)


def rounded(pixels: np.ndarray) -> np.ndarray:
    return np.round(pixels / 257).astype(np.uint8)


def test_to_uint8_rounds_every_value_exactly() -> None:
    every = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_uint8(every.reshape(256, 256)), rounded(every).reshape(256, 256))


@pytest.mark.parametrize(("suffix", "bits"), ENCODED)
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("size", SIZES)
def test_round_trip(tmp_path: Path, suffix: str, bits: int, channels: int, size: tuple[int, int]) -> None:
    picture = a_picture(*size, channels)
    path = tmp_path / f"picture{suffix}"
    write_picture(path, picture, WriterOptions(bits=bits, quality=100))
    back = read_picture(path)
    assert back.shape == picture.pixels.shape
    expected = picture.pixels if bits == 16 else rounded(picture.pixels).astype(np.uint16) * 257
    tolerance = 4 * 257 if suffix in (".jpg", ".jpeg") else 0
    assert np.abs(back.astype(int) - expected).max() <= tolerance
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("suffix", "bits"), ENCODED)
def test_default_quality_stays_close(tmp_path: Path, suffix: str, bits: int) -> None:
    picture = a_picture(64, 96, 3)
    path = tmp_path / f"picture{suffix}"
    write_picture(path, picture, WriterOptions(bits=bits))
    error = read_picture(path).astype(float) - picture.pixels
    assert np.sqrt(np.mean(error**2)) < 2.5 * 257


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("channels", [3, 1])
def test_imageio_reads_8_bit_pictures(tmp_path: Path, suffix: str, channels: int) -> None:
    picture = a_picture(9, 14, channels)
    path = tmp_path / f"picture{suffix}"
    write_picture(path, picture, WriterOptions(bits=8, quality=100))
    back = iio.imread(path)
    assert back.dtype == np.uint8 and back.shape == ((9, 14, 3) if channels == 3 else (9, 14))
    assert np.abs(back.reshape(9, 14, channels).astype(int) - rounded(picture.pixels)).max() <= 4


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_pictures_that_imageio_writes_are_read(tmp_path: Path, suffix: str) -> None:
    pixels = rounded(a_picture(9, 14, 3).pixels)
    iio.imwrite(tmp_path / f"a{suffix}", pixels)
    assert np.abs(read_picture(tmp_path / f"a{suffix}").astype(int) - pixels.astype(int) * 257).mean() < 3 * 257


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    bits=st.sampled_from([8, 16]),
    scale=st.sampled_from([0, 1, 300, 70000]),
    seed=st.integers(0, 2**16),
)
def test_any_png_comes_back_from_other_decoders(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    channels: int,
    bits: int,
    scale: int,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    pixels = np.clip(generator.normal(30000, scale, (height, width, channels)), 0, 65535).astype(np.uint16)
    path = tmp_path_factory.mktemp("png") / "a.png"
    write_picture(path, Picture(pixels, recorded=("ein schöner Tag",)), WriterOptions(bits=bits))
    decoded = imagecodecs.png_decode(path.read_bytes()).reshape(pixels.shape)
    np.testing.assert_array_equal(decoded, pixels if bits == 16 else rounded(pixels))
    with Image.open(path) as image:
        image.verify()


@pytest.mark.parametrize("bits", [8, 16])
def test_png_bands_join_without_a_seam(tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lowlight.writers.png._BAND_BYTES", 2000)
    picture = a_picture(101, 67, 3)
    write_picture(tmp_path / "a.png", picture, WriterOptions(bits=bits))
    expected = picture.pixels if bits == 16 else rounded(picture.pixels)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), expected)


def test_16_bit_png_is_hardly_larger_than_libpngs(tmp_path: Path) -> None:
    picture = a_picture(300, 400, 3)
    write_picture(tmp_path / "a.png", replace(picture, recorded=()))
    assert (tmp_path / "a.png").stat().st_size < 1.02 * len(imagecodecs.png_encode(picture.pixels, level=6)) + 2000


def test_tiff_is_zstd_with_predictor(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.tif", a_picture(30, 40, 3))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages.first
        assert (page.compression, page.predictor, page.bitspersample) == (50000, 2, 16)


@pytest.mark.parametrize("suffix", WRITERS)
def test_equal_pictures_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}{suffix}", a_picture(37, 41, 3))
        time.sleep(0.01)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_threads_write_what_one_thread_writes(tmp_path: Path) -> None:
    names = [f"{i}{suffix}" for suffix in WRITERS for i in range(3)]
    (tmp_path / "alone").mkdir()
    for name in names:
        write_picture(tmp_path / "alone" / name, a_picture(50, 60, 3, seed=int(name[0])))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: write_picture(tmp_path / name, a_picture(50, 60, 3, seed=int(name[0]))), names))
    for name in names:
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.parametrize("size", [(256, 256), (255, 200), (257, 40)])
def test_noise_that_no_code_shortens_is_a_jpeg_xl_too(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (*size, 3)).astype(np.uint16)
    write_picture(tmp_path / "a.jxl", Picture(pixels))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jxl"), pixels)


def test_the_suffix_is_case_blind_and_strange_ones_are_named() -> None:
    assert writer_for(Path("A.PNG")) is WRITERS[".png"]
    with pytest.raises(UsageError, match=r"a\.bmp.*\.png.*\.dng"):
        writer_for(Path("a.bmp"))
    with pytest.raises(UsageError, match=r"\.jpg pictures have 8 bits.*not 16"):
        writer_for(Path("a.jpg"), WriterOptions(bits=16))


@pytest.mark.parametrize("options", [{"bits": 12}, {"quality": 0}, {"quality": 101}])
def test_options_no_format_can_take(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        WriterOptions(**options)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")

    def half(file: Path, picture: Picture, options: WriterOptions) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setitem(WRITERS, ".png", replace(WRITERS[".png"], write=half))
    with pytest.raises(error):
        write_picture(path, a_picture(3, 3, 3))
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_kill_leaves_a_recognisable_leftover_and_no_final_file(tmp_path: Path) -> None:
    program = """
        import sys, time
        from pathlib import Path
        from lowlight.writers import replacing
        with replacing(Path(sys.argv[1])) as temporary:
            temporary.write_bytes(b"half")
            print("ready", flush=True)
            time.sleep(60)
    """
    path = tmp_path / "a photo.png"
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == b"ready"
        process.send_signal(signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    assert is_leftover(left) and not is_leftover(path)
    assert left.name.startswith(".a photo.png.")


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".png")
    with replacing(path) as temporary:
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.skipif(sys.platform == "win32", reason="links need permission")
@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_leads_to_is_replaced(tmp_path: Path, there: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a.json", tmp_path / "link.json"
    link.symlink_to(target)
    if there:
        target.write_text("before")
    with suppress(RuntimeError), replacing(link) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.exists() == there
    write_text(link, "whole")
    assert link.is_symlink() and not target.is_symlink() and target.read_text() == "whole"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "elsewhere", "link.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_and_devices_are_written_to_as_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "whole")
    assert os.read(reader, 100) == b"whole" and pipe.is_fifo()
    os.close(reader)
    null = tmp_path / "null"
    null.symlink_to(os.devnull)
    write_text(null, "nowhere")
    assert null.is_symlink() and [path.name for path in tmp_path.iterdir() if path not in (pipe, null)] == []
    first, second = os.pipe()
    write_text(Path(f"/dev/fd/{second}"), "through")
    assert os.read(first, 100) == b"through"
    os.close(first)
    os.close(second)


def test_bytes_that_are_no_text_are_escaped_as_json_does(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", json.dumps("caf\udce9", ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == "caf\udce9"


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="could not be written: No such file"):
        write_picture(tmp_path / "missing" / "a.png", a_picture(2, 2, 3))


def test_a_jpeg_too_wide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="65500"):
        write_picture(tmp_path / "a.jpg", a_picture(1, 65501, 1))


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("lowlight.writers", {"torch", "imagecodecs", "isal", "rawpy", "tifffile"}),
        ("lowlight.data.pictures", {"imagecodecs", "isal", "rawpy"}),  # a machine that only trains has none
    ],
)
def test_importing_loads_no_codecs(module: str, unwanted: set[str]) -> None:
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert not unwanted & set(done.stdout.split())


class TestReadPicture:
    def test_alpha_is_dropped(self, tmp_path: Path) -> None:
        for channels in (2, 4):
            pixels = np.arange(6 * channels, dtype=np.uint16).reshape(2, 3, channels) * 900
            (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
            np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), pixels[..., :-1])

    def test_planar_and_tiled_tiffs(self, tmp_path: Path) -> None:
        pixels = a_picture(20, 30, 3).pixels
        planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", tile=(16, 16))
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), pixels)

    def test_a_jpeg_is_turned_upright(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
        assert read_picture(tmp_path / "a.jpg").shape == (8, 4, 3)

    def test_other_kinds_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "float.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
        tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 4, 4, 3), np.uint8), photometric="rgb")
        tifffile.imwrite(tmp_path / "cmyk.tif", np.zeros((4, 4, 4), np.uint8), photometric="separated")
        Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg")
        for name, reason in (
            ("float.tif", "float32"),
            ("cmyk.tif", "SEPARATED"),
            ("cmyk.jpg", "CMYK"),
            ("a.gif", "no"),
        ):
            with pytest.raises(DataError, match=reason):
                read_picture(tmp_path / name)
        assert read_picture(tmp_path / "stack.tif").shape == (4, 4, 3)

    @pytest.mark.parametrize("suffix", sorted({suffix for suffix, _ in ENCODED}))
    def test_missing_and_broken_files(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a{suffix}"
        with pytest.raises(BrokenFileError, match="no picture file"):
            read_picture(path)
        for content in (b"", b"not a picture at all", zlib.compress(bytes(500))):
            path.write_bytes(content)
            with pytest.raises(BrokenFileError, match="does not decode"):
                read_picture(path)

    def test_a_truncated_png(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        Image.effect_noise((64, 64), 90).save(buffer, "PNG")
        (tmp_path / "a.png").write_bytes(buffer.getvalue()[:1500])
        with pytest.raises(BrokenFileError):
            read_picture(tmp_path / "a.png")

    @pytest.mark.shared
    def test_real_references(self, shared_data: Path) -> None:
        for path in sorted((shared_data / "sid_pairs").glob("*_long.png"))[:2]:
            pixels = read_picture(path)
            assert pixels.shape == (512, 512, 3) and len(np.unique(pixels)) > 1000


@pytest.mark.parametrize(("compression", "tag"), [("zstd", 50000), ("deflate", 8), ("none", 1)])
def test_tiffs_for_every_program(tmp_path: Path, compression: str, tag: int) -> None:
    picture = a_picture(50, 60, 3)
    write_picture(tmp_path / "a.tif", picture, WriterOptions(compression=compression))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages.first.compression in (tag, 32946 if tag == 8 else tag)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), picture.pixels)
    with pytest.raises(UsageError, match="no compression"):
        WriterOptions(compression="lzw")


def test_distances_of_jpeg_xl_are_those_of_libjxl() -> None:
    for quality, distance in ((100, 0.1), (90, 1.0), (60, 3.7), (30, 6.4), (10, 12.4), (1, 15.0)):
        assert _distance(quality) == pytest.approx(distance)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_disk_that_takes_no_more_is_told(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource", reason="no limit of a file's size")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"could not be written: (File too large|the disk takes no more)\.$"):
            write_picture(tmp_path / f"a{suffix}", a_picture(120, 130, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
