"""Reading RAW files: levels, phases, white balance, matrices, refusals; against LibRaw's own renderings."""

import os
import struct
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawpy
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lowlight.core.errors import BrokenFileError, UnsupportedRawError, UsageError
from lowlight.core.photo import BGGR, GBRG, GRBG, RGGB, Gps, RawFrame
from lowlight.raw.balance import camera_to_srgb, choose_balance, daylight_gains, gains, grey_world
from lowlight.raw.dng_levels import dng_black
from lowlight.raw.exif import metadata_from_tags, read_metadata
from lowlight.raw.levels import check_black, check_greens, find_pedestal, is_stretched_8_bit
from lowlight.raw.read import LEVEL_PRESETS, bayer_pattern, exif_orientation, read_raw
from lowlight.raw.rendered_matrix import rendered_matrix
from lowlight.writers.cfa_dng import write_cfa_dng
from lowlight.writers.ifd import Entry, append_tags, ascii_entry, long_entry, rational_entry, short_entry

SONY_XYZ = np.array([[0.5838, -0.143, -0.0246], [-0.3497, 1.1477, 0.2297], [-0.0748, 0.1885, 0.5778]])
OTHER_XYZ = np.array([[0.902, -0.289, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]])
BLACK = (512.0, 512.0, 512.0, 512.0)
WHITE = (16383.0, 16383.0, 16383.0, 16383.0)


def noise(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(700, 9000, (height, width)).astype(np.uint16)


def write(path: Path, mosaic: np.ndarray | None = None, **changes: Any) -> Path:
    arguments: dict[str, Any] = {"pattern": RGGB, "black": BLACK, "white": 16383, "wb": (2, 1, 1.5, 1)}
    write_cfa_dng(path, noise() if mosaic is None else mosaic, **{**arguments, **changes})
    return path


def half_size(frame: RawFrame) -> np.ndarray:
    """LibRaw's half-size rendering, linear: levels, gains, mean of the greens, matrix; float `[h, w, 3]`."""
    height, width = (n // 2 * 2 for n in frame.size)
    values = {}
    for i in (0, 1):
        for j in (0, 1):
            c = frame.pattern[i][j]
            plane = frame.mosaic[i:height:2, j:width:2].astype(np.float64)
            scaled = (plane - frame.black[c]) / (frame.white[c] - frame.black[c]) * frame.wb_gains[c]
            values[c] = np.clip(scaled, 0, 1)
    rgb = np.stack([values[0], (values[1] + values[3]) / 2, values[2]], axis=-1)
    return rgb if frame.camera_to_srgb is None else np.clip(rgb @ frame.camera_to_srgb.T, 0, 1)


def bt709(linear: np.ndarray) -> np.ndarray:
    low, a = 0.018053968510807, 0.09929682680944
    power = (1 + a) * np.maximum(linear, low) ** 0.45 - a
    return np.where(linear < low, 4.5 * linear, power)


def libraw(path: Path, **options: Any) -> np.ndarray:
    fixed = {"half_size": True, "use_camera_wb": True, "no_auto_bright": True, "output_bps": 16}
    with rawpy.imread(str(path)) as raw:
        picture = raw.postprocess(**{**fixed, "adjust_maximum_thr": 0, **options})
    return picture / 65535


# --- against LibRaw's renderings of real files ---


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "sid_pairs/sid_00014_12_x100_short.dng",
        "sid_pairs/sid_00023_13_x100_short.dng",
        "sid_short_only/sid_00026_16_x100_short.dng",
        "burst_imx296/static_a_00.dng",
        "raw/canon_eos_d30_tree_iso100_5s.CRW",
        "raw/nikon_rose_768x512_14bit_rggb.dng",
        "raw/nikon_rose_768x512_14bit_bggr.dng",
        "raw/infinite_isp_indoor1_2592x1536_8bit_grbg.dng",
        "raw/kodak_dc50_buildings.KDC",
    ],
)
def test_levels_balance_and_matrix_render_as_libraw_does(shared_data: Path, name: str) -> None:
    path = shared_data / name
    frame = read_raw(path)
    options: dict[str, Any] = {}
    if frame.wb_source == "daylight":  # for negative gains LibRaw would guess from the picture
        options["use_camera_wb"] = False
    if frame.camera_to_srgb is None:  # for some old Kodaks LibRaw has a matrix that it does not show
        options["output_color"] = rawpy.ColorSpace.raw
    rendered = libraw(path, user_flip=0, gamma=(2.222, 4.5), **options)
    ours = bt709(half_size(frame))
    assert ours.shape == rendered.shape
    error = np.abs(ours - rendered)
    # Dead pixels that LibRaw repairs and levels that it rounds leave a few larger errors.
    assert error.mean() < 2e-4 and np.percentile(error, 99.9) < 2e-3, (error.mean(), error.max())


@pytest.mark.shared
def test_every_bayer_file_is_read_and_sane(shared_data: Path) -> None:
    folders = ("sid_pairs", "sid_short_only", "burst_imx296", "raw")
    suffixes = {".dng", ".crw", ".kdc"}
    paths = [p for f in folders for p in sorted((shared_data / f).iterdir()) if p.suffix.lower() in suffixes]
    assert len(paths) == 35
    for path in paths:
        frame = read_raw(path)
        assert frame.mosaic.dtype == np.uint16 and frame.mosaic.flags.c_contiguous, path
        assert sorted(c for row in frame.pattern for c in row) == [0, 1, 2, 3], path
        assert all(0 <= b < w for b, w in zip(frame.black, frame.white, strict=True)), path
        assert frame.wb[1] == 1 and all(0.1 < gain < 10 for gain in frame.wb), path
        assert frame.orientation == 1, path
        if frame.camera_to_srgb is not None:
            np.testing.assert_allclose(frame.camera_to_srgb.sum(axis=1), 1, atol=1e-5)


@pytest.mark.shared
def test_what_real_files_say(shared_data: Path) -> None:
    sony = read_raw(shared_data / "sid_pairs" / "sid_00014_12_x100_short.dng")
    assert (sony.black, sony.white, sony.pattern) == (BLACK, WHITE, RGGB)
    assert LEVEL_PRESETS["sony-sid"] == (512, 16383)
    assert sony.metadata.camera == "Sony ILCE-7SM2" and sony.metadata.exposure_s == 0.1
    assert sony.metadata.iso is None and sony.metadata.taken_at is None and sony.notes == ()

    canon = read_raw(shared_data / "raw" / "canon_eos_d30_tree_iso100_5s.CRW")
    assert canon.black == (127, 128, 128, 128) and canon.metadata.camera == "Canon EOS D30"
    assert canon.wb_source == "daylight" and "daylight" in canon.notes[0]  # the file says -1
    assert canon.wb == canon.daylight_wb == pytest.approx((2.1024, 1, 1.0566, 1), abs=1e-3)
    assert canon.metadata.taken_at == "2018:01:01 13:03:32"

    pi = read_raw(shared_data / "raw" / "rpi_imx296_checkerboard_10ms.dng")
    assert pi.pattern == BGGR and pi.black == (60,) * 4
    assert pi.wb_source == "grey world" and "placeholder" in pi.notes[0] and pi.daylight_wb is None
    assert pi.metadata.exposure_s == 0.009999 and pi.metadata.iso == 100

    kodak = read_raw(shared_data / "raw" / "kodak_dc50_buildings.KDC")
    assert kodak.pattern == GRBG and kodak.black == (0,) * 4 and kodak.black_source == "file"
    assert kodak.wb == (1,) * 4 and kodak.wb_source == "camera"
    # LibRaw renders with a matrix that it does not tell.
    told = [[1.812, -0.336, -0.476], [-0.435, 1.852, -0.417], [-0.676, -1.393, 3.069]]
    assert kodak.camera_to_srgb is not None and np.allclose(kodak.camera_to_srgb, told, atol=2e-3)

    small = read_raw(shared_data / "raw" / "small_640x480_10bit_pidng.dng")
    assert small.black_source == "estimated" and all(70 <= level <= 80 for level in small.black)
    assert small.wb_source == "grey world"
    assert any("colour pattern" in note for note in small.notes)  # GBRG it says, its greens are on the other diagonal


# --- the matrix, as LibRaw uses it ---


@pytest.mark.parametrize("model", ["ILCE-7SM2", "NoSuchCamera"])
@pytest.mark.parametrize("matrix", [OTHER_XYZ, SONY_XYZ, None])
def test_the_files_matrix_comes_first_then_libraws_table(tmp_path: Path, model: str, matrix: np.ndarray | None) -> None:
    path = write(tmp_path / "m.dng", make="Sony", model=model, xyz_to_camera=matrix)
    frame = read_raw(path)
    if model == "NoSuchCamera" and matrix is None:
        assert frame.camera_to_srgb is None
    else:
        linear = libraw(path, user_flip=0, gamma=(1, 1))
        assert np.abs(half_size(frame) - linear).max() < 1e-4
        swapped = replace(frame, camera_to_srgb=frame.camera_to_srgb.T)  # type: ignore[union-attr]
        assert np.abs(half_size(swapped) - linear).max() > 0.05  # the comparison can tell


def test_a_matrix_that_cannot_be_is_none() -> None:
    zero = np.zeros((3, 4))
    assert camera_to_srgb(zero, np.zeros((4, 3))) is None
    assert camera_to_srgb(zero, np.full((4, 3), np.nan)) is None
    assert camera_to_srgb(zero, np.ones((4, 3))) is None  # singular
    white_stays_white = camera_to_srgb(np.hstack([np.diag([2.0, 1, 1]), np.zeros((3, 1))]), np.zeros((4, 3)))
    assert white_stays_white is not None
    np.testing.assert_allclose(white_stays_white.sum(axis=1), 1)


# --- levels that a DNG's own tags have ---


def test_a_black_level_may_be_a_fraction(tmp_path: Path) -> None:
    # LibRaw takes off the fraction: of 1 DN of light, amplified a hundred times, that is as much again.
    black = (63.9, 64.25, 63.5, 64.0)
    assert read_raw(write(tmp_path / "a.dng", black=black, white=1023)).black == pytest.approx(black)


@pytest.mark.parametrize(("pattern", "black"), [(RGGB, (500, 510, 530, 520)), (GRBG, (510, 500, 520, 530))])
def test_black_levels_and_colours_begin_with_the_active_area(tmp_path: Path, pattern: Any, black: Any) -> None:
    path = write(tmp_path / "a.dng", noise(64, 96), pattern=pattern)
    # An odd margin, which LibRaw makes even: what is visible begins one row and column further in.
    append_tags(path, [long_entry(50829, 1, 1, 63, 95), short_entry(50714, 500, 510, 520, 530)], [], [])
    assert read_raw(path).black == black


def test_black_levels_of_larger_patterns_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dng")
    append_tags(path, [short_entry(50713, 4, 4), short_entry(50714, *range(500, 516))], [], [])
    assert read_raw(path).black == (505.0, 506.0, 510.0, 509.0)


@pytest.mark.parametrize(
    "tag",
    [
        short_entry(50713, 0, 2),
        short_entry(50713, 2),
        ascii_entry(50713, "two"),
        short_entry(50714, 500, 501),
        ascii_entry(50714, "dark"),
    ],
)
def test_black_tags_that_make_no_sense_cost_no_photo(tmp_path: Path, tag: Entry) -> None:
    path = write(tmp_path / "a.dng")
    append_tags(path, [tag], [], [])
    assert dng_black(path, (0, 0)) is None
    assert read_raw(path).size == (96, 96)


def test_a_black_pattern_of_one_and_a_half_rows_costs_no_photo(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dng")
    append_tags(path, [rational_entry(50713, Fraction(3, 2), Fraction(2)), short_entry(50714, 500, 501, 502)], [], [])
    assert dng_black(path, (0, 0)) is None
    assert read_raw(path).size == (96, 96)


def test_exposures_that_no_camera_has_are_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dng")
    append_tags(
        path, [], [rational_entry(33437, Fraction(1, 2**32 - 1)), rational_entry(33434, Fraction(2**32 - 1))], []
    )
    metadata = read_raw(path).metadata
    assert (metadata.aperture, metadata.exposure_s) == (None, None)


@pytest.mark.parametrize("orientation", [0, 16])
def test_an_orientation_that_makes_no_sense_turns_nothing(tmp_path: Path, orientation: int) -> None:
    path = write(tmp_path / "a.dng")
    append_tags(path, [short_entry(274, orientation)], [], [])
    assert read_raw(path).orientation == 1


def test_a_year_that_no_calendar_has_costs_no_photo(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dng")
    append_tags(path, [ascii_entry(306, "99999:01:01 00:00:00")], [], [])
    assert read_raw(path).metadata.taken_at is None


def test_what_cannot_even_be_looked_at_is_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenFileError, match="cannot be opened"):
        read_raw(tmp_path / f"{'x' * 300}.dng")


# --- orientation ---


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_a_picture_as_libraw_does(tmp_path: Path, orientation: int) -> None:
    path = write(tmp_path / "t.dng", noise(64, 96), orientation=orientation)
    frame = read_raw(path)
    tag = Image.new("L", (1, 1)).getexif()
    tag[274] = frame.orientation
    raw_green = (half_size(frame)[..., 1] * 255).astype(np.uint8)
    picture = Image.fromarray(raw_green)
    picture.getexif()[274] = frame.orientation
    turned = np.asarray(ImageOps.exif_transpose(picture))
    expected = libraw(path, gamma=(1, 1))[..., 1]
    assert turned.shape == expected.shape
    assert np.abs(turned / 255 - expected).max() < 0.01


def test_degrees_and_unknown_flips() -> None:
    assert [exif_orientation(flip) for flip in (0, 90, 180, 270, -90, 360)] == [1, 6, 3, 8, 8, 1]
    assert exif_orientation(45) == 1


# --- levels ---


def dark_frame(pedestal: float, sigma: float, seed: int, light: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:240, :320]
    scene = light * np.maximum(0, np.sin(x / 40) * np.cos(y / 50)) * np.where((x + y) % 2, 1.0, 0.6)
    frame = rng.poisson(scene) + rng.normal(pedestal, sigma, scene.shape)
    frame[rng.random(scene.shape) < 5e-4] = 0  # dead
    frame[rng.random(scene.shape) < 5e-4] = 16383  # hot
    return np.clip(np.rint(frame), 0, 16383).astype(np.uint16)


@settings(max_examples=20, deadline=None)
@given(
    pedestal=st.floats(200, 2048),
    sigma=st.floats(0.5, 25),
    light=st.sampled_from([0.0, 30.0, 2000.0]),
    seed=st.integers(0, 10**6),
)
def test_a_missing_black_level_is_found(pedestal: float, sigma: float, light: float, seed: int) -> None:
    frame = dark_frame(pedestal, sigma, seed, light)
    estimated = find_pedestal(frame, RGGB, 16383)
    assert estimated is not None
    assert max(abs(level - pedestal) for level in estimated) < 0.5 + 0.5 * sigma


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), sigma=st.floats(0.5, 25))
def test_a_true_black_of_zero_stays(seed: int, sigma: float) -> None:
    assert find_pedestal(dark_frame(0, sigma, seed, 3000), RGGB, 16383) is None
    bright = np.random.default_rng(seed).integers(4000, 16000, (200, 200)).astype(np.uint16)
    assert find_pedestal(bright, RGGB, 16383) is None


@settings(max_examples=15, deadline=None)
@given(
    pedestal=st.floats(200, 2048),
    sigma=st.floats(0.5, 25),
    light=st.sampled_from([0.0, 30.0, 2000.0]),
    seed=st.integers(0, 10**6),
)
def test_only_wrong_black_levels_are_reported(pedestal: float, sigma: float, light: float, seed: int) -> None:
    frame = dark_frame(pedestal, sigma, seed, light)
    right = (pedestal,) * 4
    assert check_black(frame, RGGB, right, WHITE) == ()
    (note,) = check_black(frame, RGGB, (pedestal + 12 * sigma + 10,) * 4, WHITE)
    assert "too high" in note


def test_a_level_far_below_a_dark_flat_frame_is_reported_a_bright_frame_is_not() -> None:
    (note,) = check_black(dark_frame(512, 4, 1), RGGB, (128.0,) * 4, WHITE)
    assert "too low" in note
    bright = np.random.default_rng(0).normal(9000, 40, (200, 200)).astype(np.uint16)
    assert check_black(bright, RGGB, BLACK, WHITE) == ()


def test_clipped_dark_values_are_no_wrong_level() -> None:
    clipped = np.maximum(dark_frame(512, 5, 3, 30), 512).astype(np.uint16)  # as the packed SID crops
    assert check_black(clipped, RGGB, BLACK, WHITE) == ()


def test_greens_that_differ_are_reported() -> None:
    tile = np.array([[4000, 2000], [2000, 1500]], np.uint16)
    mosaic = np.tile(tile, (64, 64))
    assert check_greens(mosaic, RGGB, (0,) * 4, WHITE) == ()
    (note,) = check_greens(mosaic, GRBG, (0,) * 4, WHITE)
    assert "pattern" in note


def test_black_is_estimated_where_the_file_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "zero.dng", dark_frame(640, 6, 5, 500), black=(0,) * 4)
    frame = read_raw(path)
    assert frame.black_source == "estimated" and "no black level" in frame.notes[0]
    assert max(abs(level - 640) for level in frame.black) < 4


def test_user_levels_win(tmp_path: Path) -> None:
    path = write(tmp_path / "u.dng")
    frame = read_raw(path, black=600, white=15000)
    assert frame.black == (600,) * 4 and frame.white == (15000,) * 4 and frame.black_source == "user"
    assert read_raw(path, black=0).black_source == "user"
    for wrong in ({"black": -1.0}, {"white": 1e6}, {"black": float("nan")}, {"black": 9.0, "white": 9.0}):
        with pytest.raises(UsageError):
            read_raw(path, **wrong)
    with pytest.raises(UsageError, match="not above its black level"):
        read_raw(path, white=500)


# --- patterns and white balance ---


def test_patterns() -> None:
    for pattern in (RGGB, GRBG, BGGR):
        assert bayer_pattern(pattern) == pattern
    assert bayer_pattern(((0, 1), (1, 2))) == ((0, 1), (3, 2))
    assert bayer_pattern(((1, 2), (0, 1))) == GBRG
    # LibRaw's own numbers: the first green lies beside red.
    assert bayer_pattern(((2, 1), (1, 0))) == BGGR and bayer_pattern(((1, 0), (2, 1))) == GRBG
    for strange in (((0, 0), (1, 1)), ((0, 2), (1, 3)), ((0, 1), (1, 1)), ((0, 0), (0, 0))):
        assert bayer_pattern(strange) is None


def test_gains_and_their_traps() -> None:
    assert gains([4146, 2000, 3000, 0]) == (2.073, 1, 1.5, 1)
    assert gains([2, 1, 1.5]) == (2, 1, 1.5, 1)
    assert gains([2048, 1024, 1536, 1024]) == (2, 1, 1.5, 1)
    for absent in (
        [-1, 0.976, 1.007, 0],
        [0, 1, 0, 0],
        [float("nan"), 1, 1, 1],
        [0, 0, 0, 0],
        [1e6, 1, 1, 1],
    ):
        assert gains(absent) is None
    assert daylight_gains([1, 1, 1, 0]) is None and daylight_gains([1.052, 1.0, 0.918, 0]) is None
    assert daylight_gains([1.924, 0.915, 0.967, 0]) is not None


def test_balance_falls_back_and_says_so() -> None:
    tile = np.array([[512 + 500, 512 + 1000], [512 + 1000, 512 + 250]], np.uint16)
    mosaic = np.tile(tile, (40, 40))
    mosaic[:6, :6] = 16383  # a lamp does not decide
    gray = (2, 1, 4, 1)
    frame = (mosaic, RGGB, BLACK, WHITE)
    camera, day = (2.2, 1.0, 1.7, 1.0), (2.5, 1.0, 1.4, 1.0)
    assert choose_balance(camera, day, *frame) == (camera, "camera", ())
    wb, source, notes = choose_balance(None, day, *frame)
    assert (wb, source) == (day, "daylight") and "daylight" in notes[0]
    wb, source, notes = choose_balance(None, None, *frame)
    assert wb == pytest.approx(gray) and source == "grey world" and "gray" in notes[0]
    unit = (1.0, 1.0, 1.0, 1.0)
    wb, source, notes = choose_balance(unit, None, *frame)
    assert source == "grey world" and "placeholder" in notes[0]  # plainly green data
    level = np.full((64, 64), 2000, np.uint16)
    assert choose_balance(unit, day, level, RGGB, BLACK, WHITE) == (unit, "camera", ())  # gray data: believed
    black = np.full((64, 64), 512, np.uint16)
    assert grey_world(black, RGGB, BLACK, WHITE) is None
    wb, source, notes = choose_balance(None, None, black, RGGB, BLACK, WHITE)
    assert wb == unit and "too dark" in notes[0]


@settings(max_examples=15, deadline=None)
@given(red=st.floats(0.3, 4), blue=st.floats(0.3, 4), seed=st.integers(0, 1000))
def test_grey_world_finds_the_gains_of_a_noisy_gray_scene(red: float, blue: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    light = np.repeat(np.repeat(rng.uniform(20, 400, (41, 33)), 2, axis=0), 2, axis=1)[:81, :65]
    tile = np.array([[1 / red, 1], [1, 1 / blue]])
    colours = np.tile(tile, (41, 33))[:81, :65]
    noisy = rng.poisson(light * colours) + rng.normal(512, 5, light.shape)
    found = grey_world(np.clip(np.rint(noisy), 0, 16383).astype(np.uint16), RGGB, BLACK, WHITE)
    assert found is not None
    assert found == pytest.approx((red, 1, blue, 1), rel=0.12)


# --- refusals ---


def crafted(path: Path, array: np.ndarray, photometric: int, *tags: tuple[Any, ...]) -> Path:
    """A DNG that no camera makes."""
    common = [
        (50706, "B", 4, (1, 4, 0, 0), True),
        (50708, "s", 0, "Crafted", True),
        (50717, "H", 1, 16383, True),
    ]
    tifffile.imwrite(path, array, photometric=photometric, extratags=[*common, *tags], metadata=None)
    return path


def cfa(*colours: int, dim: tuple[int, int] = (2, 2)) -> tuple[tuple[Any, ...], ...]:
    return (
        (33421, "H", 2, dim, True),
        (33422, "B", len(colours), bytes(colours), True),
        (50711, "H", 1, 1, True),
    )


XTRANS = "101121 212010 101121 121101 010212 121101".replace(" ", "")
QUAD = (0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2)


def make_refused(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.dng"
    rgb = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    match kind:
        case "X-Trans":
            return crafted(path, noise(), 32803, *cfa(*map(int, XTRANS), dim=(6, 6)))
        case "quad Bayer":
            return crafted(path, noise(), 32803, *cfa(*QUAD, dim=(4, 4)))
        case "monochrome":
            data = bytearray(write(path).read_bytes())  # one value a pixel and no colour filters: LinearRaw
            where = data.index(struct.pack("<HHIH", 262, 3, 1, 32803))
            data[where + 8 : where + 10] = struct.pack("<H", 34892)
            path.write_bytes(data)
            return path
        case "GMCY":
            planes = (50710, "B", 4, bytes((3, 4, 5, 1)), True)
            return crafted(path, noise(), 32803, *cfa(0, 1, 2, 3), planes)
        case "linear DNG":
            return crafted(path, np.repeat(noise()[..., None], 3, axis=2), 34892)
        case "8-bit picture":
            rendered = (np.random.default_rng(1).integers(0, 256, (96, 96)) * 256).astype(np.uint16)
            return write(path, rendered, black=(0,) * 4, white=65535)
        case "white level":
            data = bytearray(write(path, white=16383).read_bytes())
            where = data.index(struct.pack("<HHII", 50717, 4, 1, 16383))
            data[where + 8 : where + 12] = struct.pack("<I", 400)
            path.write_bytes(data)
            return path
        case "truncated":
            whole = write(path).read_bytes()
            path.write_bytes(whole[: len(whole) * 2 // 3])
            return path
        case "empty":
            path.touch()
            return path
        case "not a RAW":
            path.write_bytes(b"a letter about cameras\n" * 4000)
            return path
        case "folder":
            path.mkdir()
            return path
        case "does not exist":
            return path
        case "TIFF picture (RGB)":
            tifffile.imwrite(folder / "p.tif", rgb, photometric="rgb")
            return folder / "p.tif"
        case "TIFF picture (gray)":  # LibRaw takes it for a Bayer mosaic
            tifffile.imwrite(folder / "p.tif", noise(), photometric="minisblack")
            return folder / "p.tif"
        case "in spite of its name":
            Image.fromarray(rgb).save(path, "JPEG")
            return path
    suffix = {"JPEG": "jpg", "PNG": "png", "WebP": "webp", "GIF": "gif", "BMP": "bmp", "AVIF": "avif"}[kind]
    Image.fromarray(rgb).save(folder / f"p.{suffix}")
    return folder / f"p.{suffix}"


UNSUPPORTED = [
    *(
        "X-Trans",
        "quad Bayer",
        "monochrome",
        "GMCY",
        "linear DNG",
        "8-bit picture",
        "white level",
        "not a RAW",
    ),
    *("folder", "TIFF picture (RGB)", "TIFF picture (gray)", "in spite of its name"),
    *("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF"),
]
BROKEN = ["truncated", "empty", "does not exist"]


@pytest.mark.parametrize("kind", [*UNSUPPORTED, *BROKEN])
def test_each_refusal_has_its_own_sentence(tmp_path: Path, kind: str) -> None:
    path = make_refused(tmp_path, kind)
    with pytest.raises(UnsupportedRawError if kind in UNSUPPORTED else BrokenFileError) as caught:
        read_raw(path)
    sentence = str(caught.value)
    assert kind in sentence
    assert sentence.startswith(path.name) and sentence.endswith(".")
    assert not any(other in sentence for other in {*UNSUPPORTED, *BROKEN} - {kind, "JPEG", "8-bit picture"})


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("canon_eos_6d_linear_lossy.dng", "linear DNG"),
        ("nikon_d500_linear_lossy.dng", "linear DNG"),
        ("canon_g1_cmyg_mosaic_iso200_8s.CRW", "GMCY"),
        ("canon_r6_pruned.CR3", "truncated"),
        ("nikon_d70s_truncated.nef", "JPEG picture in spite of its name"),  # that is what is in it
        ("emulated_mosaic_not_a_camera.dng", "8-bit picture"),
    ],
)
def test_real_files_are_refused(shared_data: Path, name: str, reason: str) -> None:
    with pytest.raises((UnsupportedRawError, BrokenFileError), match=reason):
        read_raw(shared_data / "raw_negative" / name)


@pytest.mark.shared
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_cut_crw_is_broken_not_unknown(shared_data: Path, tmp_path: Path, keep: float) -> None:
    whole = (shared_data / "raw" / "canon_eos_d30_tree_iso100_5s.CRW").read_bytes()
    path = tmp_path / "cut.crw"
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(BrokenFileError, match="truncated or damaged"):
        read_raw(path)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_headers_end_in_a_frame_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "d.dng"
    content = bytearray(write(path, exposure_s=0.1, iso=100, xyz_to_camera=SONY_XYZ).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        frame = read_raw(path)
    except (UnsupportedRawError, BrokenFileError) as refusal:
        assert str(refusal).startswith("d.dng")
    else:
        assert frame.mosaic.ndim == 2


def test_an_8_bit_sensor_and_left_aligned_14_bits_are_no_stretched_picture() -> None:
    rng = np.random.default_rng(0)
    zero = (0.0,) * 4
    assert not is_stretched_8_bit(rng.integers(0, 256, (64, 64)).astype(np.uint16), zero, 255)
    left_aligned = (rng.integers(0, 16384, (64, 64)) * 4).astype(np.uint16)
    assert not is_stretched_8_bit(left_aligned, zero, 65535)
    stretched = (rng.integers(0, 256, (64, 64)) * 257).astype(np.uint16)
    assert is_stretched_8_bit(stretched, zero, 65535)
    assert not is_stretched_8_bit(stretched, BLACK, 65535)
    stretched[0, 0] += 1
    assert not is_stretched_8_bit(stretched, zero, 65535)


# --- metadata ---


def exif_blob() -> bytes:
    exif = Image.Exif()
    exif[271], exif[272], exif[315] = "FUJIFILM", "X100", "A. Person"
    exif.get_ifd(0x8769).update({33434: 0.25, 34855: 800, 36867: "2024:02:29 23:59:59", 36881: "+05:45"})
    exif.get_ifd(0x8769)[42036] = "A lens"
    gps = {1: "S", 2: (33.0, 51.0, 36.0), 3: "W", 4: (151.0, 12.0, 36.0), 5: b"\x01", 6: 12.5}
    exif.get_ifd(0x8825).update(gps)
    return exif.tobytes()


def test_metadata_out_of_a_raf(tmp_path: Path) -> None:
    path = tmp_path / "photo.raf"
    Image.new("RGB", (16, 16)).save(tmp_path / "thumb.jpg", exif=exif_blob())
    jpeg = (tmp_path / "thumb.jpg").read_bytes()
    path.write_bytes(b"FUJIFILMCCD-RAW ".ljust(84, b"\0") + struct.pack(">II", 148, len(jpeg)) + bytes(56) + jpeg)
    metadata = read_metadata(path)
    assert metadata.camera == "FUJIFILM X100" and metadata.lens == "A lens" and metadata.artist == "A. Person"
    assert (metadata.exposure_s, metadata.iso) == (0.25, 800)
    assert (metadata.taken_at, metadata.utc_offset) == ("2024:02:29 23:59:59", "+05:45")
    assert metadata.gps == Gps(pytest.approx(-33.86), pytest.approx(-151.21), -12.5)


def test_metadata_out_of_an_mrw(tmp_path: Path) -> None:
    block = exif_blob().removeprefix(b"Exif\0\0")
    inner = b"\0PRD" + struct.pack(">I", 24) + bytes(24) + b"\0TTW" + struct.pack(">I", len(block)) + block
    path = tmp_path / "photo.mrw"
    path.write_bytes(b"\0MRM" + struct.pack(">I", len(inner)) + inner)
    assert read_metadata(path).camera == "FUJIFILM X100"


@pytest.mark.shared
def test_metadata_out_of_a_cr3_and_a_crw(shared_data: Path) -> None:
    cr3 = read_metadata(shared_data / "raw_negative" / "canon_r6_pruned.CR3")
    assert cr3.camera == "Canon EOS R6" and cr3.lens == "RF70-200mm F2.8 L IS USM"
    assert (cr3.exposure_s, cr3.aperture, cr3.iso, cr3.taken_at) == (0.25, 25, 100, "2021:05:12 12:21:21")
    crw = read_metadata(shared_data / "raw" / "canon_eos_d30_tree_iso100_5s.CRW")
    assert (crw.make, crw.model) == ("Canon", "Canon EOS D30")


def test_nonsense_in_tags_is_unknown() -> None:
    nonsense = {
        33434: 0,
        33437: float("nan"),
        34855: -5,
        36867: "    :  :     :  :  ",
        36881: "   :  ",
        306: "2020:13:45 99:99:99",
        37386: "long",
        42036: b"\0\0\0",
    }
    metadata = metadata_from_tags({271: 7, 272: "\0"}, nonsense, {2: (400.0, 0.0, 0.0), 4: "east"})
    assert metadata == metadata_from_tags({}, {}, {})
    assert metadata.camera is None and metadata.gps is None
    void = {1: "N", 2: (1.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0), 9: "V"}
    assert metadata_from_tags({}, {}, void).gps is None
    assert metadata_from_tags({50708: "Unique Name"}, {}, {}).camera == "Unique Name"
    assert metadata_from_tags({}, {34855: 65535, 34866: 204800}, {}).iso == 204800


@settings(max_examples=60, deadline=None)
@given(
    start=st.sampled_from([b"II*\0", b"MM\0*", b"II\x1a\0\0\0HEAPCCDR", b"\0\0\0\x18ftypcrx ", b"\0MRM"]),
    tail=st.binary(max_size=200),
)
def test_broken_metadata_never_raises(tmp_path_factory: pytest.TempPathFactory, start: bytes, tail: bytes) -> None:
    path = tmp_path_factory.mktemp("exif") / "x.raw"
    path.write_bytes(start + tail)
    read_metadata(path)


# --- threads ---


def test_threads_read_side_by_side(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{seed}.dng", noise(seed=seed)) for seed in range(8)]
    found: dict[int, bool] = {}

    def work(seed: int) -> None:
        found[seed] = bool(np.array_equal(read_raw(paths[seed]).mosaic, noise(seed=seed)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(8), True)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text_is_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.dng")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.dng"))
    try:
        plain.rename(odd)
    except OSError:
        pytest.skip("this disk takes only text as names")
    assert np.array_equal(read_raw(odd).mosaic, noise())


def test_names_in_utf8_and_in_latin_1_are_read(tmp_path: Path) -> None:
    for number, encoding in enumerate(("utf-8", "latin-1")):
        path = tmp_path / f"{number}.dng"
        write_cfa_dng(path, noise(), pattern=RGGB, black=BLACK, white=16383, wb=(2, 1, 1.5, 1))
        name = "José Ñandú".encode(encoding) + b"\0"
        append_tags(path, [Entry(315, 2, len(name), name)], [], [])
        assert read_metadata(path).artist == "José Ñandú"


def test_a_matrix_told_from_renderings_is_the_one_that_libraw_tells(shared_data: Path) -> None:
    for name in ("raw/canon_eos_d30_tree_iso100_5s.CRW", "sid_pairs/sid_00014_12_x100_short.dng"):
        with rawpy.imread(str(shared_data / name)) as raw:
            known = camera_to_srgb(raw.color_matrix, raw.rgb_xyz_matrix)
            found = rendered_matrix(raw)
        assert known is not None and found is not None and np.abs(found - known).max() < 1e-3


def test_a_camera_without_any_matrix_gets_none(tmp_path: Path) -> None:
    frame = 512 + np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16)
    with rawpy.imread(str(write(tmp_path / "a.dng", frame))) as raw:
        assert not raw.rgb_xyz_matrix.any() and rendered_matrix(raw) is None
