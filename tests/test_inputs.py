"""Which photos a command means, and where their pictures go."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowlight.core.atomic import remove_leftovers
from lowlight.core.errors import UnsupportedRawError, UsageError
from lowlight.core.photo import LinearImage, Metadata, Picture
from lowlight.raw.exif import read_metadata, tiff_tags
from lowlight.raw.read import read_raw
from lowlight.workflows.enhancing.inputs import Photo, find_photos
from lowlight.workflows.enhancing.outputs import plan_outputs
from lowlight.workflows.enhancing.samples import SampleOptions
from lowlight.writers import write_picture


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def relative(photos: list[Photo]) -> list[str]:
    return [photo.relative.as_posix() for photo in photos]


def outputs(named: list[Path], out: Path, *, recursive: bool = False, suffix: str = ".png") -> list[str]:
    photos = find_photos([str(path) for path in named], recursive=recursive)
    return [path.relative_to(out).as_posix() for path in plan_outputs(photos, out, suffix)]


def test_a_folder_gives_its_raw_files_in_order_whatever_their_case(tmp_path: Path) -> None:
    touch(tmp_path, "b.NEF", "a.dng", "c.jpg", "notes.txt", ".hidden.nef", "._b.NEF", "deep/d.cr3", ".trash/e.nef")
    assert relative(find_photos([str(tmp_path)])) == ["a.dng", "b.NEF"]
    assert relative(find_photos([str(tmp_path)], recursive=True)) == ["a.dng", "b.NEF", "deep/d.cr3"]


def test_each_file_once_and_missing_ones_stay(tmp_path: Path) -> None:
    (a,) = touch(tmp_path, "a.nef")
    named = [str(a), str(tmp_path), str(tmp_path / "gone.nef"), str(tmp_path / "x" / ".." / "a.nef")]
    assert relative(find_photos(named)) == ["a.nef", "gone.nef"]


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a1.nef", "a2.nef", "b.nef", "one/c.nef", "two/deep/d.nef", "odd[1].nef")
    assert relative(find_photos([str(tmp_path / "a?.nef")])) == ["a1.nef", "a2.nef"]
    assert relative(find_photos([str(tmp_path / "**" / "d.nef")])) == ["d.nef"]
    assert relative(find_photos([str(tmp_path / "o*e")])) == ["c.nef"]
    # A file of just that name goes before the pattern.
    assert relative(find_photos([str(tmp_path / "odd[1].nef")])) == ["odd[1].nef"]


def test_home_is_expanded_and_nobodys_home_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.nef")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_photos(["~/a.nef"])[0].path == tmp_path / "a.nef"
    assert len(find_photos(["~nobody-at-all/a.nef"])) == 1


def test_what_holds_no_photos_is_a_row_beside_others_and_wrong_use_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.nef", "sub/deep/b.nef")
    empty = tmp_path / "empty"
    empty.mkdir()
    photos = find_photos([str(empty), str(tmp_path / "z*"), str(tmp_path / "a.nef")])
    assert [bool(photo.problem) for photo in photos] == [True, True, False]
    for named, words in (
        (empty, "no RAW files"),
        (tmp_path / "z*", "nothing matches"),
        (tmp_path / "sub", "recursive"),
    ):
        with pytest.raises(UsageError, match=words):
            find_photos([str(named)])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may read everything")
def test_a_folder_that_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "a.nef", "locked/b.nef")
    (tmp_path / "locked").chmod(0)
    try:
        photos = find_photos([str(tmp_path)], recursive=True)
    finally:
        (tmp_path / "locked").chmod(0o755)
    assert [photo.problem is None for photo in photos] == [True, False]
    assert "cannot be read" in str(photos[1].problem)


def test_pipes_are_not_waited_for_and_broken_links_are_heard_of(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in folders here")
    os.mkfifo(tmp_path / "pipe.nef")
    (tmp_path / "link.nef").symlink_to(tmp_path / "nowhere.nef")
    assert relative(find_photos([str(tmp_path)])) == ["link.nef"]


def test_a_pipe_that_is_named_is_refused_at_once(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in folders here")
    os.mkfifo(tmp_path / "pipe.dng")
    with pytest.raises(UnsupportedRawError, match="pipe or a device"):
        read_raw(tmp_path / "pipe.dng")
    assert read_metadata(tmp_path / "pipe.dng") == Metadata() and tiff_tags(tmp_path / "pipe.dng") == {}


def linear_dng(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8, 3), 30000, np.uint16)
    write_picture(path, Picture(pixels, linear=LinearImage(pixels, None, (2.0, 1.0, 1.5))))


def test_own_linear_dngs_are_not_taken_for_photos(tmp_path: Path) -> None:
    touch(tmp_path, "a.nef", "b.dng")
    linear_dng(tmp_path / "out" / "a.dng")
    linear_dng(tmp_path / "a.dng")
    assert relative(find_photos([str(tmp_path)], recursive=True)) == ["a.nef", "b.dng"]
    # Enhanced in place, the photo that is a DNG itself keeps its name, and its result has another.
    assert outputs([tmp_path], tmp_path, suffix=".dng") == ["a.dng", "b.dng.dng"]


def test_outputs_mirror_the_tree(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.nef", "x/b.c.nef", "x/y/d.dng")
    assert outputs([tmp_path / "in"], tmp_path / "out", recursive=True) == ["a.png", "x/b.c.png", "x/y/d.png"]


def test_outputs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "day1/a.nef", "day1/a.dng", "day1/A.CR2", "day1/b.nef", "day2/a.nef", "day2/c.nef")
    out = tmp_path / "out"
    assert outputs([tmp_path / "day1"], out) == ["A.CR2.png", "a.dng.png", "a.nef.png", "b.png"]
    assert outputs([tmp_path / "day1", tmp_path / "day2"], out) == [
        "A.CR2.png",
        "a.dng.png",
        "day1-a.nef.png",
        "b.png",
        "day2-a.nef.png",
        "c.png",
    ]
    assert outputs([tmp_path / "day1" / "b.nef", tmp_path / "day2" / "c.nef"], out) == ["b.png", "c.png"]


def test_two_trees_of_one_shape_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "one/raw/a.nef", "two/raw/a.nef", "three/raw/a.nef")
    out = tmp_path / "out"
    named = [tmp_path / name for name in ("one", "two")]
    assert outputs(named, out, recursive=True) == ["raw/one-a.nef.png", "raw/two-a.nef.png"]
    named = [tmp_path / name / "raw" for name in ("one", "two", "three")]
    assert outputs(named, out) == ["one-raw-a.nef.png", "two-raw-a.nef.png", "three-raw-a.nef.png"]


def test_one_more_photo_of_a_name_takes_no_others_picture(tmp_path: Path) -> None:
    """A picture that is there already would be taken for the new photo's, which then never gets one."""
    touch(tmp_path, *(f"cards/{year}/DCIM/100CANON/IMG_0001.CR2" for year in (2022, 2023, 2024)))
    out, folders = (
        tmp_path / "out",
        [tmp_path / "cards" / str(year) / "DCIM" / "100CANON" for year in (2022, 2023, 2024)],
    )
    before, after = outputs(folders[1:], out), outputs(folders, out)
    assert before == [f"{year}-DCIM-100CANON-IMG_0001.CR2.png" for year in (2023, 2024)]
    assert after[1:] == before and after[0] == "2022-DCIM-100CANON-IMG_0001.CR2.png"


NAMES = st.lists(
    st.tuples(
        st.sampled_from(["p", "q/p", "q"]), st.sampled_from(["a", "A", "a.nef", "b"]), st.sampled_from(["nef", "DNG"])
    ),
    unique=True,
    max_size=10,
)


@given(NAMES, st.sampled_from(["out", "p"]), st.sampled_from([".png", ".dng"]))
def test_outputs_never_share_a_place_and_never_take_an_inputs(
    names: list[tuple[str, str, str]], out: str, suffix: str
) -> None:
    photos = [Photo(Path("/", folder, f"{stem}.{end}"), Path(f"{stem}.{end}")) for folder, stem, end in names]
    planned = plan_outputs(photos, Path("/", out), suffix)
    places = [str(path).casefold() for path in planned]
    assert len(set(places)) == len(photos)
    assert not set(places) & {str(photo.path).casefold() for photo in photos}
    assert planned == plan_outputs(photos, Path("/", out), suffix)


def test_a_file_name_is_for_one_photo(tmp_path: Path) -> None:
    a, b = touch(tmp_path, "a.nef", "b.nef")
    photos = find_photos([str(a), str(b)])
    assert plan_outputs(photos[:1], tmp_path / "x.JPG", ".JPG") == [tmp_path / "x.JPG"]
    with pytest.raises(UsageError, match="2 photos"):
        plan_outputs(photos, tmp_path / "x.jpg", ".jpg")
    (tmp_path / "looks.png").mkdir()
    assert plan_outputs(photos, tmp_path / "looks.png", ".png")[1] == tmp_path / "looks.png" / "b.png"


@pytest.mark.parametrize("name", ["a.webp", "a.nef", "notes"])
def test_outputs_that_are_no_folder_are_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "notes", "photo.nef")
    with pytest.raises(UsageError, match=r"suffixes"):
        plan_outputs(find_photos([str(tmp_path / "photo.nef")]), tmp_path / name, ".png")


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_dead_runs_are_removed_others_stay(tmp_path: Path) -> None:
    long = "n" * 230
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        dead, alive = dead_process(), sleeper.pid
        gone = touch(
            tmp_path,
            f".a.png.{dead}-0123abcd.part",
            f".a.png.{os.getpid()}-0123abcd.part",  # of a run that had this process's number
            f".{long[:200]}.{dead}-0123abcd.part",
        )
        stay = touch(
            tmp_path,
            f".a.png.{alive}-0123abcd.part",
            f".b.png.{dead}-0123abcd.part",  # another run's, perhaps on another machine
            "a.png",
            ".a.png.part",
            f"a.png.{dead}-0123abcd.part",
        )
        remove_leftovers([tmp_path / "a.png", tmp_path / f"{long}.png", tmp_path / "no" / "folder.png"])
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in stay)


def test_what_an_output_has_beside_it_is_no_place_for_another(tmp_path: Path) -> None:
    photos = [Photo(tmp_path / name, Path(name)) for name in ("a.dng", "a.sample-01.dng", "a.spread.dng", "b.dng")]
    planned = plan_outputs(photos, tmp_path / "out", ".png", (), SampleOptions(2).paths)
    assert [path.name for path in planned] == ["a.png", "a.sample-01-2.png", "a.spread-2.png", "b.png"]


def test_ten_thousand_photos_are_planned_quickly(tmp_path: Path) -> None:
    photos = [Photo(tmp_path / f"{i}.nef", Path(f"{i}.nef")) for i in range(10_000)]
    began = time.process_time()
    assert len(set(plan_outputs(photos, tmp_path / "out", ".png"))) == 10_000
    assert time.process_time() - began < 5


def test_a_pattern_follows_no_link_twice(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.dng", "sub/b.dng"):
        (tmp_path / name).touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c.dng").touch()
    for number in range(4):
        (tmp_path / "sub" / f"loop{number}").symlink_to("..")
    found = find_photos([f"{tmp_path}/**/*.dng"])
    assert [photo.path.relative_to(tmp_path).as_posix() for photo in found] == ["a.dng", "sub/b.dng"]
