"""Which photos are taken for one scene: those named, those of a folder, those of a burst."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from burst_material import light, write

from lowlight.checkpoint import BURST_WEIGHTS
from lowlight.core.errors import UsageError
from lowlight.core.photo import Metadata, Picture
from lowlight.raw.exif import read_metadata
from lowlight.raw.read import read_raw
from lowlight.workflows.enhancing.inputs import Photo, find_photos
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.planning import with_weights
from lowlight.workflows.enhancing.scenes import Scene, find_scenes
from lowlight.writers.exif import exif_tags
from lowlight.writers.ifd import append_tags, ascii_entry

SIZE = (200, 240)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shot(path: Path, seconds: float | None, scene: int = 0, *, subsec: bool = True, **changes: Any) -> Path:
    """A photo taken some seconds after ten o'clock."""
    write(path, light(*SIZE, scene=scene), seed=sum(path.name.encode()) + scene, **changes)
    if seconds is None:
        return path
    told = Metadata(
        exposure_s=changes.get("exposure_s", 1.0),
        iso=800,
        taken_at=f"2026:11:20 22:{int(seconds) // 60:02}:{int(seconds) % 60:02}",
    )
    tags = exif_tags(Picture(np.zeros((1, 1, 3), np.uint16), told), encoded=False, sized=False)
    fraction = [ascii_entry(37521, f"{seconds % 1:.2f}"[2:])] if subsec else []
    append_tags(path, [], sorted([*tags.exif, *fraction], key=lambda tag: tag.tag), tags.gps)
    return path


def groups(folder: Path, group: str | None, *, recursive: bool = False) -> list[list[str]]:
    photos = find_photos([str(folder)], recursive=recursive)
    return [scene.names for scene in find_scenes(photos, group=group)]


def test_the_time_is_known_to_a_fraction_of_a_second(tmp_path: Path) -> None:
    metadata = read_metadata(shot(tmp_path / "a.dng", 83.25))
    assert (metadata.taken_at, metadata.subsec_s) == ("2026:11:20 22:01:23", 0.25)
    assert read_raw(tmp_path / "a.dng").metadata.subsec_s == 0.25
    assert read_metadata(shot(tmp_path / "b.dng", 83.25, subsec=False)).subsec_s is None


def test_named_photos_are_one_scene_or_each_its_own(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.dng", light(20, 20))
    photos = find_photos([str(tmp_path)])
    assert [scene.names for scene in find_scenes(photos)] == [["a.dng"], ["b.dng"], ["c.dng"]]
    (scene,) = find_scenes(photos, fuse=True)
    assert scene == Scene(tuple(photos)) and scene.names == ["a.dng", "b.dng", "c.dng"]
    (single,) = find_scenes(photos[:1], fuse=True)
    assert single.names == ["a.dng"]


def test_each_folder_is_a_scene(tmp_path: Path) -> None:
    for name in ("a.dng", "x/b.dng", "x/c.dng", "x/deep/d.dng"):
        write(tmp_path / name, light(20, 20))
    assert groups(tmp_path, "folder", recursive=True) == [["a.dng"], ["b.dng", "c.dng"], ["d.dng"]]
    (tmp_path / "empty").mkdir()
    photos = find_photos([str(tmp_path / "x"), str(tmp_path / "empty")])
    assert [scene.first.problem is None for scene in find_scenes(photos, group="folder")] == [True, False]


def test_bursts_are_told_by_time_exposure_and_likeness(tmp_path: Path) -> None:
    shot(tmp_path / "a1.dng", 10.0)
    shot(tmp_path / "a2.dng", 11.4)
    shot(tmp_path / "a3.dng", 13.9)  # 1 s of exposure and 1.5 s of waiting
    shot(tmp_path / "b.dng", 30.0)  # the same scene, much later
    shot(tmp_path / "c.dng", 31.5, scene=4)  # another scene at once
    shot(tmp_path / "d.dng", 33.0, scene=4, exposure_s=8.0)  # the same with another exposure
    shot(tmp_path / "e.dng", 42.0, scene=4, exposure_s=8.0, model="Other")
    shot(tmp_path / "f.dng", 51.0, scene=4, exposure_s=8.0, model="Other")
    (tmp_path / "g.dng").write_bytes(b"no RAW")
    found = groups(tmp_path, "burst")
    assert found == [["a1.dng", "a2.dng", "a3.dng"], ["b.dng"], ["c.dng"], ["d.dng"], ["e.dng", "f.dng"], ["g.dng"]]


def test_frames_of_a_burst_are_in_the_order_of_time_and_the_burst_says_so(tmp_path: Path) -> None:
    shot(tmp_path / "z.dng", 10.25)
    shot(tmp_path / "a.dng", 11.75)
    (scene,) = find_scenes(find_photos([str(tmp_path)]), group="burst")
    assert scene.names == ["z.dng", "a.dng"] and "burst of 2 frames was found within 1.5 s" in scene.notes[0]


def test_photos_without_a_time_are_told_by_name_and_likeness(tmp_path: Path) -> None:
    for name, scene, exposure_s in (("1", 0, 1.0), ("2", 0, 1.0), ("3", 5, 1.0), ("4", 5, 1.0), ("5", 5, 1.5)):
        shot(tmp_path / f"{name}.dng", None, scene, exposure_s=exposure_s)
    assert groups(tmp_path, "burst") == [["1.dng", "2.dng"], ["3.dng", "4.dng"], ["5.dng"]]
    scene = find_scenes(find_photos([str(tmp_path)]), group="burst")[0]
    assert "names and likeness" in scene.notes[0]


def test_frames_of_two_sizes_are_no_burst(tmp_path: Path) -> None:
    shot(tmp_path / "a.dng", None)
    write(tmp_path / "b.dng", light(150, 240))
    assert groups(tmp_path, "burst") == [["a.dng"], ["b.dng"]]


def test_the_camera_s_clock_has_no_jumps_and_no_last_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this zone, clocks went from 02:00 to 03:00 on that night: two hours' frames fell together.
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        told = (("a", "2024:03:31 02:30:00"), ("b", "2024:03:31 03:30:01"), ("c", "9999:12:31 23:59:59"))
        for name, taken_at in told:
            path = write(tmp_path / f"{name}.dng", light(*SIZE), seed=ord(name))
            picture = Picture(np.zeros((1, 1, 3), np.uint16), Metadata(exposure_s=1.0, iso=800, taken_at=taken_at))
            tags = exif_tags(picture, encoded=False, sized=False)
            append_tags(path, [], tags.exif, tags.gps)
        assert groups(tmp_path, "burst") == [["a.dng"], ["b.dng"], ["c.dng"]]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_one_exposure_in_two_files_is_no_burst(tmp_path: Path) -> None:
    shot(tmp_path / "a.dng", 10.0)
    shutil.copy(tmp_path / "a.dng", tmp_path / "a copy.dng")
    assert groups(tmp_path, "burst") == [["a copy.dng"], ["a.dng"]]  # told by its time: 1 s was exposed
    short = tmp_path / "short"
    short.mkdir()
    for name, seconds in (("a", 10.0), ("b", 10.2), ("c", 10.4)):
        shot(short / f"{name}.dng", seconds, exposure_s=0.02)
        shutil.copy(short / f"{name}.dng", short / f"{name}2.dng")  # as a converter would, and as it shows the same
    assert groups(short, "burst") == [["a.dng", "b.dng", "c.dng"], ["a2.dng"], ["b2.dng"], ["c2.dng"]]


def test_bursts_of_two_cameras_may_alternate(tmp_path: Path) -> None:
    for number, model in enumerate(("One", "Two") * 3):
        shot(tmp_path / f"{model}{number}.dng", 10.0 + number, exposure_s=0.5, model=model)
    found = groups(tmp_path, "burst")
    assert found == [["One0.dng", "One2.dng", "One4.dng"], ["Two1.dng", "Two3.dng", "Two5.dng"]]


def test_bursts_are_read_with_the_levels_that_the_user_gave(tmp_path: Path) -> None:
    shot(tmp_path / "a.dng", 10.0)
    shot(tmp_path / "b.dng", 11.5)
    photos = find_photos([str(tmp_path)])
    assert [len(scene.photos) for scene in find_scenes(photos, group="burst", levels=(500.0, None))] == [2]
    assert [len(scene.photos) for scene in find_scenes(photos, group="burst", levels=(60_000.0, None))] == [1, 1]


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    photos = find_photos([str(write(tmp_path / "a.dng", light(20, 20)))])
    with pytest.raises(UsageError, match="one of the two"):
        find_scenes(photos, fuse=True, group="burst")
    with pytest.raises(UsageError, match="no group 'day'"):
        find_scenes(photos, group="day")


@pytest.mark.shared
def test_the_burst_of_a_real_camera_is_found(shared_data: Path, tmp_path: Path) -> None:
    names = [f"static_a_0{number}.dng" for number in range(3)]
    paths = [shared_data / "burst_imx296" / name for name in ("dark_frame_00.dng", *names)]
    paths.append(shared_data / "raw" / "rpi_imx296_checkerboard_10ms.dng")
    for path in paths:
        (tmp_path / path.name).symlink_to(path)
    assert groups(tmp_path, "burst") == [["dark_frame_00.dng"], ["rpi_imx296_checkerboard_10ms.dng"], names]


def test_scenes_of_several_frames_have_weights_of_their_own(tmp_path: Path) -> None:
    options = EnhanceOptions(out=tmp_path)
    one, other = (Photo(tmp_path / name, Path(name)) for name in ("a.dng", "b.dng"))
    assert with_weights(options, [one, Scene((other,))]).weights is None
    assert with_weights(options, [one, Scene((one, other))]).weights == BURST_WEIGHTS
    named = EnhanceOptions(out=tmp_path, weights="sid-net-slim")
    assert with_weights(named, [Scene((one, other))]) is named


def test_a_clock_that_was_never_set_tells_no_time(tmp_path: Path) -> None:
    write(tmp_path / "a.dng", light(*SIZE), seed=1)
    told = Metadata(exposure_s=1.0, iso=800, taken_at="0001:01:01 00:00:00")
    tags = exif_tags(Picture(np.zeros((1, 1, 3), np.uint16), told), encoded=False, sized=False)
    append_tags(tmp_path / "a.dng", [], tags.exif, tags.gps)
    assert read_metadata(tmp_path / "a.dng").exposure_s == 1.0
    assert read_metadata(tmp_path / "a.dng").taken_at is None
    shot(tmp_path / "b.dng", 1)
    assert groups(tmp_path, "burst") == [["a.dng"], ["b.dng"]]


def test_what_is_not_there_does_not_name_the_picture(tmp_path: Path) -> None:
    here = Photo(write(tmp_path / "b.dng", light(*SIZE), seed=1), Path("b.dng"))
    nowhere = Photo(tmp_path / "none*.dng", Path("pattern"), "nothing matches")
    (scene,) = find_scenes([nowhere, here], fuse=True)
    assert scene.first == here
    assert Scene((nowhere,)).first == nowhere
