"""Crops, black pictures, and files that must be left alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_enhance import run, write_dng
from test_grouping import shot
from test_restorer import frame_of, random_mosaic

from lowlight.core.atomic import remove_leftovers
from lowlight.core.errors import OutputError, UsageError
from lowlight.workflows.enhancing.outputs import all_exist
from lowlight.workflows.enhancing.photo_steps import crop_window, refuse_black


def test_a_crop_that_lies_partly_outside_is_refused() -> None:
    whole = frame_of(random_mosaic(20, 30))
    assert crop_window(whole, (10, 5, 20, 15)) == (10, 5, 20, 15)
    for crop in ((10, 5, 21, 15), (10, 5, 20, 16), (29, 0, 2, 2)):
        with pytest.raises(UsageError, match="30x20"):
            crop_window(whole, crop)


def test_below_one_step_of_8_bits_a_picture_is_black() -> None:
    refuse_black(np.full((2, 2, 3), 257, np.uint16), "a.dng")
    with pytest.raises(OutputError, match="black"):
        refuse_black(np.full((2, 2, 3), 256, np.uint16), "a.dng")


def test_no_photo_is_replaced_whatever_the_case_of_its_suffix(tmp_path: Path) -> None:
    photo, other = write_dng(tmp_path / "a.dng"), write_dng(tmp_path / "out" / "B.DNG")
    with pytest.raises(OutputError, match="left alone"):
        all_exist([other], [photo], overwrite=True)


def test_a_link_to_a_photo_is_no_place_for_a_picture(tmp_path: Path) -> None:
    photo, other = write_dng(tmp_path / "a.dng"), write_dng(tmp_path / "b.dng")
    link = tmp_path / "out" / "a.png"
    link.parent.mkdir()
    link.symlink_to(other)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"is a link to the photo .*b\.dng, which is left alone"):
            all_exist([link], [photo], overwrite=overwrite)
    other.rename(tmp_path / "elsewhere.dng")  # nor where the photo is away for the moment
    with pytest.raises(OutputError, match="is a link to the photo"):
        all_exist([link], [photo], overwrite=True)


def test_what_another_users_process_writes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(process: int, signal: int) -> None:
        raise PermissionError

    part = tmp_path / ".a.png.4711-0123abcd.part"
    part.touch()
    monkeypatch.setattr(os, "kill", refused)
    remove_leftovers([tmp_path / "a.png"])
    assert part.exists()


def test_leftovers_of_a_longer_name_are_left_alone(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    part = tmp_path / f".a.png.{gone.pid}-0123abcd.part"
    part.touch()
    remove_leftovers([tmp_path / "a.png.png"])
    assert part.exists()
    remove_leftovers([tmp_path / "a.png"])
    assert not part.exists()


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".jpg", ".jxl", ".dng"])
def test_a_skipped_photo_hears_that_the_picture_is_another_photos(
    tiny_weights: Path, tmp_path: Path, suffix: str
) -> None:
    """Names are all that skipping goes by, and cameras begin their numbers anew."""
    for folder in "one", "two", "none":
        (tmp_path / folder).mkdir()
    first, other = shot(tmp_path / "one" / "a.dng", 0), shot(tmp_path / "two" / "a.dng", 61)
    dateless, out = shot(tmp_path / "none" / "a.dng", None), tmp_path / "out"
    run([first], out, tiny_weights, suffix=suffix, ratio=40.0)
    made = (out / f"a{suffix}").read_bytes()
    for planned in (False, True):
        same, told, unknown = (
            run([photo], out, tiny_weights, suffix=suffix, dry_run=planned)[0] for photo in (first, other, dateless)
        )
        assert {row["status"] for row in (same, told, unknown)} == {"skipped"}
        assert len(same["notes"]) == len(unknown["notes"]) == 1
        assert "another photo, taken at 2026:11:20 22:00:00 and not at 2026:11:20 22:01:01" in told["notes"][1]
    assert (out / f"a{suffix}").read_bytes() == made
    (out / f"a{suffix}").write_bytes(b"my own, of 2026:11:20 22:00:00\0")
    if suffix != ".dng":  # a photo's place is refused
        assert len(run([other], out, tiny_weights, suffix=suffix)[0]["notes"]) == 1
