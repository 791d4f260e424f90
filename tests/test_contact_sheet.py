"""Sheets with before and after."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from lowlight.raw.read import read_raw
from lowlight.workflows.enhancing.contact_sheet import (
    BACKGROUND,
    COLUMNS,
    LABEL_PX,
    MARGIN_PX,
    PHOTOS_A_SHEET,
    ContactSheets,
    Thumbnails,
    cut_mosaic,
    thumbnails,
)


def test_a_row_shows_the_photo_upright_three_times(dark_dng: Path) -> None:
    frame = read_raw(dark_dng)
    result = np.full((176, 120, 3), 40000, np.uint16)
    row = thumbnails("x", frame, 60.0, result)
    shot, amplified, after = row.pictures
    assert after is not None
    # GRBG: a column is mirrored in front of the 176.
    assert shot.shape == amplified.shape == after.shape == (89, 60, 3)
    assert shot.mean() < 10 < 60 < amplified.mean()
    assert (after == round(40000 / 257)).all()
    # The lamp, in the upper left of the sensor, is in the upper right after a quarter turn.
    lamp = np.unravel_index(shot.sum(axis=2).argmax(), shot.shape[:2])
    assert lamp[0] < 25 and lamp[1] > 40


def test_gray_results_and_missing_ones(dark_dng: Path) -> None:
    frame = read_raw(dark_dng)
    gray = thumbnails("x", frame, 60.0, np.full((176, 120, 1), 40000, np.uint16)).pictures[2]
    assert gray is not None and gray.shape == (89, 60, 3)
    assert thumbnails("x", frame, 60.0, None).pictures[2] is None


@pytest.mark.parametrize("x", [0, 1])
@pytest.mark.parametrize("y", [0, 1])
def test_a_cut_mosaic_keeps_its_colours_in_place(dark_dng: Path, x: int, y: int) -> None:
    frame = read_raw(dark_dng)
    cut = cut_mosaic(frame, (x, y, 20, 10))
    assert cut.size == (10, 20)
    for row in range(4):
        for col in range(4):
            assert cut.mosaic[row, col] == frame.mosaic[row + y, col + x]
            assert cut.pattern[row % 2][col % 2] == frame.pattern[(row + y) % 2][(col + x) % 2]


def small_row(label: str, level: int, *, after: bool = True) -> Thumbnails:
    picture = np.full((30, 40, 3), level, np.uint8)
    return Thumbnails(label, (picture, picture, picture if after else None))


def test_sheets_are_written_as_they_fill_in_the_order_of_the_photos(tmp_path: Path) -> None:
    paths: list[Path] = []
    sheets = ContactSheets(tmp_path / "new", paths.append)
    for number in range(PHOTOS_A_SHEET + 1):
        assert len(paths) == (number >= PHOTOS_A_SHEET)
        sheets.add(small_row(f"{number}.nef", 10 * number + 60))
    sheets.flush()
    sheets.flush()
    assert [path.name for path in paths] == ["contact-sheet-1.jpg", "contact-sheet-2.jpg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [path.name for path in paths]
    first, second = (iio.imread(path) for path in paths)
    step = 30 + LABEL_PX + MARGIN_PX
    assert first.shape == (PHOTOS_A_SHEET * step + MARGIN_PX, 3 * (40 + MARGIN_PX) + MARGIN_PX, 3)
    for number in range(PHOTOS_A_SHEET):
        top = MARGIN_PX + number * step + LABEL_PX
        for column in range(len(COLUMNS)):
            left = MARGIN_PX + column * (40 + MARGIN_PX)
            inner = first[top + 8 : top + 24, left + 8 : left + 32]
            assert abs(inner.mean() - (10 * number + 60)) < 2
    assert second.shape[0] == step + MARGIN_PX


def test_names_of_any_script_and_of_none_can_be_drawn(tmp_path: Path) -> None:
    paths: list[Path] = []
    sheets = ContactSheets(tmp_path, paths.append)
    for label in ("Nacht_夜_🌙.nef", "broken\udcff.nef", ""):
        sheets.add(small_row(label, 200, after=False))
    sheets.flush()
    sheet = iio.imread(paths[0])
    assert abs(sheet[-20:, -40:].mean() - BACKGROUND[0]) < 3  # nothing where a result is missing


def test_a_sheet_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    sheets = ContactSheets(tmp_path / "file")
    sheets.add(small_row("a", 100))
    sheets.flush()
    assert "could not be written" in caplog.text


def test_sheets_that_are_there_stay(tmp_path: Path) -> None:
    (tmp_path / "contact-sheet-1.jpg").write_bytes(b"mine")
    paths: list[Path] = []
    for overwrite in (False, False, True):
        output = tmp_path / "contact-sheet-4.jpg"
        sheets = ContactSheets(tmp_path, paths.append, overwrite=overwrite, outputs={output})
        for _ in range(PHOTOS_A_SHEET + 1 if overwrite else 1):
            sheets.add(small_row("a", 100))
        sheets.flush()
        assert (tmp_path / "contact-sheet-1.jpg").read_bytes() == b"mine" and not output.exists()
    # With overwriting, sheets of earlier runs alone are replaced.
    assert [path.name[-5] for path in paths] == ["2", "3", "2", "3"]
