"""See-in-the-Dark's names, lists and splits, and choosing pairs."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowlight.core.errors import DataError, UsageError
from lowlight.data.pairs import read_manifest, validation_rows
from lowlight.data.sid import (
    MISALIGNED_SCENES,
    SidName,
    choose_rows,
    exposure_ratio,
    open_pairs,
    parse_name,
    read_exclude_file,
    read_sid_folder,
)
from lowlight.raw.read import read_raw
from lowlight.workflows.pairing import sid_tree
from lowlight.workflows.pairing.sid_tree import SidTreeOptions, write_sid_tree

SHORT = ("00001_00_0.1s.ARW", "00001_01_0.1s.ARW", "00001_00_0.04s.ARW", "10034_00_0.04s.ARW", "20208_00_0.033s.ARW")
LONG = ("00001_00_10s.ARW", "10034_00_10s.ARW", "20208_00_10s.ARW")
LISTS = {
    "train": "./Sony/short/00001_00_0.1s.ARW ./Sony/long/00001_00_10s.ARW ISO200 F8\n"
    "./Sony/short/00001_01_0.1s.ARW ./Sony/long/00001_00_10s.ARW ISO200 F8\n"
    "./Sony/short/00001_00_0.04s.ARW ./Sony/long/00001_00_10s.ARW ISO25600 F4.5\n",
    "val": "Sony/short/20208_00_0.033s.ARW Sony/long/20208_00_10s.ARW ISO80 F9\n\n",
    "test": "short\\10034_00_0.04s.ARW long\\10034_00_10s.ARW\n",
}


def touch_sid(root: Path) -> Path:
    for side, names in (("short", SHORT), ("long", LONG)):
        (root / side).mkdir(parents=True)
        for name in names:
            (root / side / name).touch()
    return root


def write_lists(folder: Path, **lists: str) -> None:
    for split, text in (lists or LISTS).items():
        (folder / f"Sony_{split}_list.txt").write_text(text)


@pytest.fixture
def sid(tmp_path: Path) -> Path:
    root = touch_sid(tmp_path / "set")
    write_lists(root)
    return root


def test_names_are_parsed() -> None:
    assert parse_name("20208_03_0.033s.ARW") == SidName("20208", "val", 3, 0.033)
    assert parse_name("10003_00_10s.dng") == SidName("10003", "test", 0, 10.0)
    for wrong in ("0001_00_1s.ARW", "00001_00_1.ARW", "00001_00_1s", "x00001_00_1s.ARW", "00001_00_0s.ARW", "a.csv"):
        assert parse_name(wrong) is None


@given(st.sampled_from("012"), st.integers(0, 9999), st.integers(0, 99), st.sampled_from(["0.1", "0.033", "10", "30"]))
def test_every_name_says_what_it_was_made_of(digit: str, scene: int, frame: int, seconds: str) -> None:
    name = parse_name(f"{digit}{scene:04d}_{frame:02d}_{seconds}s.ARW")
    assert name is not None
    assert name.split == {"0": "train", "1": "test", "2": "val"}[digit]
    assert (name.scene, name.burst_index, name.exposure_s) == (f"{digit}{scene:04d}", frame, float(seconds))


def test_ratios_are_capped_at_300() -> None:
    assert [exposure_ratio(dark, 10) for dark in (0.1, 0.04, 0.033)] == [100, 250, 300]
    assert exposure_ratio(0.1, 30) == 300
    assert exposure_ratio(5, 10) == 2


def test_list_files_are_read_in_every_form(sid: Path) -> None:
    rows = open_pairs(sid)
    assert [row.dark.name for row in rows] == [SHORT[0], SHORT[1], SHORT[2], SHORT[4], SHORT[3]]
    assert all(row.dark.is_file() and row.bright.is_file() for row in rows)
    assert [(row.scene, row.split, row.ratio, row.iso, row.burst_index) for row in rows] == [
        ("00001", "train", 100, 200, 0),
        ("00001", "train", 100, 200, 1),
        ("00001", "train", 250, 25600, 0),
        ("20208", "val", 300, 80, 0),
        ("10034", "test", 250, None, 0),
    ]
    assert (rows[0].dark_s, rows[0].bright_s) == (0.1, 10.0)


@pytest.mark.parametrize("opened", [".", "Sony"])
def test_the_published_layout_opens_at_both_levels(tmp_path: Path, opened: str) -> None:
    touch_sid(tmp_path / "Sony")
    write_lists(tmp_path)
    rows = open_pairs(tmp_path / opened)
    assert len(rows) == 5
    assert all(row.dark.is_file() and row.bright.is_file() for row in rows)
    assert rows[2].iso == 25600


def test_a_list_decides_what_belongs_to_a_split(tmp_path: Path) -> None:
    root = touch_sid(tmp_path / "set")
    write_lists(root, train=LISTS["test"])
    (row,) = open_pairs(root)
    assert (row.scene, row.split) == ("10034", "train")


def test_names_alone_are_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = touch_sid(tmp_path / "set")
    (root / "long" / "00001_00_30s.ARW").touch()  # the longest exposure is the truth
    (root / "short" / "00077_00_0.1s.ARW").touch()  # nothing bright for it
    (root / "short" / "notes.txt").touch()
    rows = open_pairs(root)
    assert sorted(row.dark.name for row in rows) == sorted(SHORT)
    assert {row.bright.name for row in rows if row.scene == "00001"} == {"00001_00_30s.ARW"}
    assert [row.split for row in rows if row.scene != "00001"] == ["test", "val"]
    assert "00077" in caplog.text


def test_one_folder_of_named_files_is_enough(tmp_path: Path) -> None:
    for name in (*SHORT, *LONG):
        (tmp_path / name).touch()
    rows = open_pairs(tmp_path)
    assert sorted(row.dark.name for row in rows) == sorted(SHORT)
    assert {row.bright.name for row in rows} == set(LONG)


def test_split_and_burst_choose(sid: Path) -> None:
    assert [row.scene for row in open_pairs(sid, "val")] == ["20208"]
    assert [row.scene for row in open_pairs(sid, "validation")] == ["20208"]
    assert [row.dark.name for row in open_pairs(sid, "train", burst="first")] == [SHORT[0], SHORT[2]]
    with pytest.raises(DataError, match="no pairs of split 'dev'; its pairs are of test, train, val"):
        open_pairs(sid, "dev")


@pytest.mark.parametrize(
    ("entry", "left_out"),
    [
        ("00001", 3),
        ("00001_00_0.1s.ARW", 1),
        ("00001_00_0.1s", 1),
        ("00001_00_10s", 3),
        ("./Sony/long/00001_00_10s.ARW", 3),
        ("00001_00_0.1s.ARW 00001_00_10s.ARW", 1),
        ("./Sony/short/00001_01_0.1s.ARW ./Sony/long/00001_00_10s.ARW ISO200 F8", 1),
        ("00001_00_0.1s.ARW 10034_00_10s.ARW", 0),
        ("0000", 0),
        ("", 0),
    ],
)
def test_exclusions_name_scenes_files_and_pairs(sid: Path, entry: str, left_out: int) -> None:
    assert len(open_pairs(sid, exclude=[entry])) == 5 - left_out


def test_an_entry_that_means_nothing_is_said(sid: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = open_pairs(sid, "train", exclude=[*MISALIGNED_SCENES, "20208", "typo"])
    assert len(rows) == 3
    assert "typo" in caplog.text
    assert "20208" not in caplog.text  # a scene of another split
    assert "10172" not in caplog.text  # always asked for, often not there


def test_nothing_left_is_an_error(sid: Path) -> None:
    with pytest.raises(DataError, match=r"no pair of .* is left"):
        open_pairs(sid, "test", exclude=MISALIGNED_SCENES)


def test_exclude_files_hold_comments(tmp_path: Path) -> None:
    path = tmp_path / "exclude.txt"
    path.write_text("# bad ones\n10034\n\n a.ARW b.ARW  # moved by 3 px\nfile#1.dng\n")
    assert read_exclude_file(path) == ("10034", "a.ARW b.ARW", "file#1.dng")
    with pytest.raises(DataError, match="cannot read the exclude file"):
        read_exclude_file(tmp_path / "gone.txt")


def test_a_manifest_opens_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("scene,split,dark,bright,ratio\na,validation,a 1.dng,a.png,100\nb,train,b.dng,b.png,\n")
    assert [row.split for row in open_pairs(path)] == ["val", "train"]
    assert [row.scene for row in open_pairs(path, "val")] == ["a"]
    assert [row.scene for row in open_pairs(path, exclude=["a 1.dng a.png"])] == ["b"]
    assert choose_rows(open_pairs(path), path, "train")[0].ratio is None


@pytest.mark.parametrize(
    ("line", "said"),
    [("alone.ARW", "line 1: .* is no pair"), ("a.ARW b.ARW ISO1", "names no file like 00001_00_0.1s.ARW")],
)
def test_broken_lists_are_refused(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "Sony_train_list.txt").write_text(line)
    with pytest.raises(DataError, match=said):
        open_pairs(tmp_path)


def test_folders_without_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pairs"):
        open_pairs(tmp_path)
    (tmp_path / "Fuji_train_list.txt").write_text("")
    with pytest.raises(DataError, match="X-Trans"):
        open_pairs(tmp_path)


def test_the_generated_tree_is_real_and_reproducible(tmp_path: Path) -> None:
    options = SidTreeOptions(scenes=(("0", 1), ("2", 1)), exposures_s=(0.1, 0.033), frames=2, size=(64, 96))
    contents = []
    for name in ("a", "b"):
        assert write_sid_tree(tmp_path / name, options) == 8
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        contents.append([(file.relative_to(tmp_path / name), file.read_bytes()) for file in files])
    assert contents[0] == contents[1]
    assert len({content for _, content in contents[0]}) == 8 + 2 + 2  # no two frames of a burst are the same
    rows = open_pairs(tmp_path / "a")
    assert [(row.scene, row.split, row.ratio) for row in rows[2:5]] == [
        ("00001", "train", 300),
        ("00001", "train", 300),
        ("20001", "val", 100),
    ]
    for row in rows:
        frame = read_raw(row.dark)
        assert frame.size == (64, 96)
        assert frame.metadata.iso == row.iso == 200
        assert frame.metadata.exposure_s == pytest.approx(row.dark_s, rel=0.02)
        assert read_raw(row.bright).metadata.exposure_s == row.bright_s
    with pytest.raises(UsageError, match="must be even"):
        write_sid_tree(tmp_path / "c", SidTreeOptions(size=(63, 96)))


def test_no_scene_of_a_large_tree_is_there_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def drawn(seed: int, size_px: int) -> object:
        seeds.append(seed)
        return np.zeros((size_px, size_px, 3), np.uint8)

    monkeypatch.setattr(sid_tree, "procedural_scene", drawn)
    monkeypatch.setattr(sid_tree, "write_dark_raw", lambda *given, **named: None)
    for seed in (0, 1):
        write_sid_tree(tmp_path, SidTreeOptions(scenes=(("0", 201), ("2", 101), ("1", 101)), size=(2, 2), seed=seed))
    assert len(set(seeds)) == len(seeds) == 806


def test_the_example_writes_a_tree(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    arguments = ["--train", "1", "--val", "0", "--test", "1", "--frames", "1", "--size", "64", "64"]
    script = [sys.executable, str(root / "examples" / "make_sid_tree.py"), str(tmp_path / "tree"), *arguments]
    done = subprocess.run(
        script, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.stdout.startswith("4 pairs in")
    assert {row.split for row in open_pairs(tmp_path / "tree")} == {"train", "test"}


@pytest.mark.parametrize("words", [("training", "valid"), ("train", "holdout"), ("Train", " Val"), ("TRAIN", "")])
def test_pairs_that_train_never_validate(tmp_path: Path, words: tuple[str, str]) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"split,dark,bright\n{words[0]},a.dng,a.png\n{words[0]},b.dng,b.png\n{words[1]},c.dng,c.png\n")
    assert [row.dark.name for row in validation_rows(read_manifest(path))] == ["c.dng"]


def test_columns_are_found_whatever_their_case_and_errors_name_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(" Dark ,BRIGHT, ratio\na.dng,a.png,100\n\n\nb.dng,b.png,x\n")
    with pytest.raises(DataError, match="line 5: ratio is 'x'"):
        read_manifest(path)
    path.write_text(path.read_text().replace("x", "30"))
    assert [row.ratio for row in read_manifest(path)] == [100.0, 30.0]


def test_columns_are_there_once(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("dark,bright,ratio,Ratio\na.dng,a.png,100,\n")
    with pytest.raises(DataError, match="more than one column 'ratio'"):
        read_manifest(path)


def test_what_cameras_and_programs_put_beside_a_raw_is_no_frame(tmp_path: Path) -> None:
    root = touch_sid(tmp_path / "set")
    for name in ("00001_00_0.1s.JPG", "00001_00_0.1s.xmp", "20208_00_0.033s.ARW.xmp", "10034_00_0.04s.png"):
        (root / "short" / name).touch()
    for name in ("00001_00_10s.JPG", "00001_00_10s.xmp", "10034_00_10s.jpg"):
        (root / "long" / name).touch()
    rows = read_sid_folder(root)
    assert sorted(row.dark.name for row in rows) == sorted(SHORT)
    assert {row.bright.name for row in rows} == set(LONG)
