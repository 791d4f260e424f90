"""Levels, balance and what else of a RAW file goes wrong without anyone seeing it."""

import struct
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import rawpy
from test_raw_read import dark_frame, write

from lowlight.core.errors import BrokenFileError, LowlightError
from lowlight.core.photo import RGGB
from lowlight.raw.balance import choose_balance, grey_world
from lowlight.raw.exif import read_metadata
from lowlight.raw.levels import check_black, check_greens, find_pedestal
from lowlight.raw.read import check_mosaic, read_raw
from lowlight.writers.cfa_dng import write_cfa_dng
from lowlight.writers.ifd import append_tags, rational_entry, srational_entry

BLACK = (512.0,) * 4
WHITE = (16383.0,) * 4


def test_a_coloured_frame_without_shadows_has_no_pedestal() -> None:
    tile = np.array([[1500, 700], [700, 400]])
    mosaic = (np.tile(tile, (60, 60)) + np.random.default_rng(0).integers(-2, 3, (120, 120))).astype(np.uint16)
    assert find_pedestal(mosaic, RGGB, 16383) is None


def test_shadows_that_go_on_downwards_are_no_pedestal() -> None:
    rng = np.random.default_rng(0)
    mosaic = np.linspace(600, 3000, 512)[:, None] + rng.normal(0, 2, (512, 512))
    mosaic[:16, :48] = 200 + rng.normal(0, 2, (16, 48))
    assert find_pedestal(mosaic.astype(np.uint16), RGGB, 16383) is None


def test_a_few_pixels_at_the_pedestal_are_enough() -> None:
    rng = np.random.default_rng(0)
    mosaic = np.linspace(565, 800, 512)[:, None] + rng.normal(0, 1, (512, 512))
    mosaic[:16, :128] = 500 + rng.normal(0, 1, (16, 128))  # 0.8 % of the frame
    found = find_pedestal(mosaic.astype(np.uint16), RGGB, 16383)
    assert found is not None and found == pytest.approx((500,) * 4, abs=8)


def test_a_step_or_two_below_a_black_without_noise_is_right() -> None:
    mosaic = np.full((64, 64), 512, np.uint16)
    mosaic[:4] = 510
    assert check_black(mosaic, RGGB, BLACK, WHITE) == ()


def test_greens_that_differ_beside_colours_that_differ_are_light() -> None:
    mosaic = np.tile(np.array([[4000, 2000], [1700, 1500]], np.uint16), (64, 64))
    assert check_greens(mosaic, RGGB, (0.0,) * 4, WHITE) == ()


def test_a_pattern_with_greens_that_differ_is_mistaken(tmp_path: Path) -> None:
    for name, values, mistaken in (
        ("right", (1000, 3000, 3000, 1000), False),
        ("wrong", (3000, 1000, 3000, 3000), True),
    ):
        mosaic = np.tile(np.array(values).reshape(2, 2) + 512, (80, 80)).astype(np.uint16)
        path = tmp_path / f"{name}.dng"
        write_cfa_dng(path, mosaic, pattern=RGGB, black=(512,) * 4, white=16383, wb=(2, 1, 1.5, 1))
        frame = read_raw(path)
        assert frame.wrong_pattern == mistaken == any("its two greens differ" in note for note in frame.notes)


def tiled(*values: int) -> npt.NDArray[np.uint16]:
    return np.tile(np.array(values).reshape(2, 2) + 512, (40, 40)).astype(np.uint16)


def test_a_lamp_that_does_not_clip_does_not_decide() -> None:
    mosaic = tiled(500, 1000, 1000, 250)
    mosaic[:4, :6] = tiled(12000, 6000, 6000, 6000)[:4, :6]
    assert grey_world(mosaic, RGGB, BLACK, WHITE) == pytest.approx((2, 1, 4, 1))


def test_unit_gains_are_believed_of_a_warm_scene() -> None:
    unit = (1.0,) * 4
    assert choose_balance(unit, None, tiled(1000, 1000, 1000, 250), RGGB, BLACK, WHITE) == (unit, "camera", ())


def test_noise_is_no_light_to_balance_by() -> None:
    dark = np.random.default_rng(0).normal(512.2, 4, (160, 160)).round().astype(np.uint16)
    assert grey_world(dark, RGGB, BLACK, WHITE) is None


@pytest.mark.parametrize(("margins", "corner"), [((1, 0), ((3, 2), (0, 1))), ((0, 1), ((1, 0), (2, 3)))])
def test_colours_begin_at_the_visible_corner(margins: tuple[int, int], corner: tuple[tuple[int, int], ...]) -> None:
    sizes = SimpleNamespace(top_margin=margins[0], left_margin=margins[1], raw_width=64, raw_height=48)
    raw = SimpleNamespace(
        raw_pattern=np.array(RGGB), raw_type=rawpy.RawType.Flat, num_colors=3, color_desc=b"RGBG", sizes=sizes
    )
    assert check_mosaic(raw, Path("a.nef"), "TIFF", {}) == corner


def test_a_limit_of_linear_response_is_no_white_level(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dng")
    append_tags(path, [rational_entry(50734, Fraction(9, 10))], [], [])
    assert read_raw(path).white == WHITE


def test_black_levels_that_differ_by_column_are_left_to_libraw(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dng")
    append_tags(path, [srational_entry(50715, *[Fraction(10)] * 96)], [], [])
    assert read_raw(path).black == (522.0,) * 4


def test_a_black_level_that_the_user_gave_is_not_doubted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dng", dark_frame(512, 4, 1, 30))
    wrong = read_raw(write(tmp_path / "b.dng", dark_frame(512, 4, 1, 30), black=(700,) * 4))
    assert any("black level looks too high" in note for note in wrong.notes)
    assert read_raw(path, black=700).notes == read_raw(path).notes


def test_the_clock_of_a_crw_is_the_cameras_whatever_the_zone_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = struct.pack("<III", 1_700_000_000, 0, 0)
    table = struct.pack("<H", 1) + struct.pack("<HII", 0x180E, len(value), 0)
    heap = value + table + struct.pack("<I", len(value))
    (tmp_path / "a.crw").write_bytes(b"II" + struct.pack("<I", 14) + b"HEAPCCDR" + heap + b"")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert read_metadata(tmp_path / "a.crw").taken_at == "2023:11:14 22:13:20"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("error", [MemoryError(), rawpy.LibRawUnsufficientMemoryError(b"no memory")])
def test_too_little_memory_is_no_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(source: object) -> None:
        raise error

    monkeypatch.setattr(rawpy, "imread", fail)
    with pytest.raises(LowlightError, match="fewer jobs") as caught:
        read_raw(write(tmp_path / "a.dng"))
    assert not isinstance(caught.value, BrokenFileError)
