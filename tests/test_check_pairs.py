"""Checking pairs: what is fine stays, what is moved, mixed up or mislabelled is found and can be excluded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_material import write_tree
from typer.testing import CliRunner

from lowlight.cli.check_pairs import check_pairs_command
from lowlight.core.errors import UsageError
from lowlight.data.alignment import align, measured_gain
from lowlight.data.pairs import load_pair
from lowlight.data.sid import open_pairs, read_exclude_file
from lowlight.ops.resize import mean_of_blocks
from lowlight.workflows.pairing.cache_options import CacheOptions
from lowlight.workflows.pairing.cache_pairs import cache_pairs
from lowlight.workflows.pairing.check_pairs import CheckOptions, PairCheck, check_pairs, judge, write_exclude_file

NAMED = PairCheck(dark="d", bright="b", scene="s")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"), frames=1)


@pytest.fixture
def spoiled(tree: Path, tmp_path: Path) -> Path:
    """Two truths swapped, one dark frame under another exposure's name, one file broken."""
    root = tmp_path / "spoiled"
    shutil.copytree(tree, root)
    first, second = root / "long" / "00001_00_10s.dng", root / "long" / "00002_00_10s.dng"
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)
    shutil.copy(root / "short" / "10001_00_0.1s.dng", root / "short" / "10001_00_0.04s.dng")
    (root / "short" / "10001_00_0.1s.dng").write_bytes(b"")
    return root


def verdicts(rows: list[PairCheck]) -> dict[str, str]:
    return {row.dark: row.verdict for row in rows}


@settings(max_examples=20, deadline=None)
@given(st.integers(-12, 12), st.integers(-12, 12), st.integers(0, 99))
def test_shifts_are_found_in_noise(down: int, right: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = np.abs(np.cumsum(rng.normal(size=(120, 140)), axis=1)).astype(np.float32)
    scene /= scene.max()
    dark = scene[20:100, 20:120] + rng.normal(0, 0.05, (80, 100)).astype(np.float32)
    bright = scene[20 - down : 100 - down, 20 - right : 120 - right]
    found = align(dark.clip(0), bright, block=2)
    assert np.allclose(found.shift_px, (2 * down, 2 * right), atol=0.8)
    assert found.peak > 10


def test_gains_are_measured_through_noise_and_a_wrong_black() -> None:
    rng = np.random.default_rng(0)
    bright = rng.uniform(0.1, 0.6, (20, 20)).astype(np.float32)
    dark = (bright / 2 + 0.05 + rng.normal(0, 0.05, bright.shape)).astype(np.float32)
    gain = measured_gain(dark, bright)
    assert gain is not None
    assert abs(gain - 2) < 0.2
    assert measured_gain(rng.normal(size=(20, 20)).astype(np.float32), bright) is None
    assert measured_gain(np.ones((20, 20), np.float32), bright) is None


def test_a_good_set_is_fine(tree: Path) -> None:
    rows = check_pairs(tree, CheckOptions())
    assert set(verdicts(rows).values()) == {"ok"}
    assert [row.exposure_ratio for row in rows] == [100, 250] * 3
    for row in rows:
        assert row.ratio is not None
        assert row.measured_ratio is not None
        assert row.shift_px is not None
        assert abs(row.measured_ratio / row.ratio - 1) < 0.15
        assert max(map(abs, row.shift_px)) < 0.5


def test_caches_are_checked_as_the_files_are(tree: Path, tmp_path: Path) -> None:
    for size in ("half", "full"):
        cache_pairs(tree, tmp_path / size, CacheOptions(truth_size=size, split="test"))
        rows = check_pairs(tmp_path / size, CheckOptions())
        assert verdicts(rows) == {"10001_00_0.1s.dng": "ok", "10001_00_0.04s.dng": "ok"}
        assert rows[0].exposure_ratio == 100


@pytest.mark.parametrize("shift", [(0, 2), (-3, 0), (5, -7)])
def test_a_moved_truth_is_found(tree: Path, shift: tuple[int, int]) -> None:
    for row in open_pairs(tree, "train"):
        pair = load_pair(row)
        moved = np.roll(pair.truth, shift, (0, 1))
        check = judge(NAMED, pair.frame, moved, pair.ratio, CheckOptions())
        assert check.verdict == "misaligned"
        assert check.shift_px is not None
        assert np.allclose(check.shift_px, shift, atol=0.6)
        assert judge(NAMED, pair.frame, moved, pair.ratio, CheckOptions(max_shift_px=20)).verdict == "ok"


@pytest.mark.parametrize(("factor", "verdict"), [(0.5, "levels"), (2.0, "levels"), (1.2, "ok"), (0.85, "ok")])
def test_a_wrong_ratio_shows_in_the_light(tree: Path, factor: float, verdict: str) -> None:
    pair = load_pair(open_pairs(tree, "train")[0])
    check = judge(NAMED, pair.frame, pair.truth, pair.ratio * factor, CheckOptions())
    assert check.verdict == verdict
    assert check.measured_ratio is not None
    assert abs(check.measured_ratio / pair.ratio - 1) < 0.2


def test_swapped_mislabelled_and_broken_files_are_found(spoiled: Path) -> None:
    rows = check_pairs(spoiled, CheckOptions())
    assert verdicts(rows) == {
        "00001_00_0.1s.dng": "different",
        "00001_00_0.04s.dng": "different",
        "00002_00_0.1s.dng": "different",
        "00002_00_0.04s.dng": "different",
        "10001_00_0.1s.dng": "unreadable",
        "10001_00_0.04s.dng": "levels",
    }
    reasons = rows[-1].reasons
    assert any("named for 0.04 s, its file says 0.1 s" in reason for reason in reasons)
    assert any("the ratio is 250, the exposure times make it 100" in reason for reason in reasons)
    assert any("the light differs by" in reason for reason in reasons)


def test_flat_pictures_are_not_called_different(tree: Path) -> None:
    pair = load_pair(open_pairs(tree, "train")[0])
    flat = np.full_like(pair.truth, 20000)
    assert judge(NAMED, pair.frame, flat, pair.ratio, CheckOptions()).verdict == "different"
    # A slow gradient has no detail to align by, but both files show it.
    ramp = np.linspace(0.02, 0.5, pair.truth.shape[0] * 2)
    mosaic = (512 + 158.71 * ramp[:, None].repeat(pair.truth.shape[1] * 2, 1)).astype(np.uint16)
    from dataclasses import replace

    from lowlight.raw.develop import to_encoded

    frame = replace(pair.frame, mosaic=mosaic, wb=(1.0,) * 4, camera_to_srgb=None)
    linear = ramp[::2, None, None].repeat(pair.truth.shape[1], 1).repeat(3, 2).astype(np.float32)
    assert judge(NAMED, frame, to_encoded(linear), 100.0, CheckOptions()).verdict == "ok"


def test_the_exclude_file_leaves_out_exactly_the_bad_ones(spoiled: Path, tmp_path: Path) -> None:
    path = tmp_path / "exclude.txt"
    (spoiled / "long" / "00001_00_10s.dng").write_bytes((spoiled / "long" / "00002_00_10s.dng").read_bytes())
    rows = check_pairs(spoiled, CheckOptions())
    good = [row.dark for row in rows if row.verdict == "ok"]
    assert good == ["00001_00_0.1s.dng", "00001_00_0.04s.dng"]
    assert write_exclude_file(path, rows) == 4
    assert [row.dark.name for row in open_pairs(spoiled, exclude=read_exclude_file(path))] == good
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_exclude_file(path, rows)
    assert path.read_text() == "mine"
    assert write_exclude_file(path, rows, overwrite=True) == 4


def test_the_command_reports_and_writes(spoiled: Path, tree: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(check_pairs_command)
    out = tmp_path / "exclude.txt"
    bad = CliRunner().invoke(app, [str(spoiled), "-o", str(out), "--json"])
    assert bad.exit_code == 1
    rows = json.loads(bad.stdout)
    assert [row["verdict"] for row in rows].count("different") == 4
    assert len(read_exclude_file(out)) == 6
    assert "6 pairs, 6 not fine" in bad.stderr
    fine = CliRunner().invoke(app, [str(tree), "--split", "test"], catch_exceptions=False)
    assert fine.exit_code == 0
    assert "10001_00_0.1" in fine.stdout


def test_what_is_read_is_never_written_over(tree: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(check_pairs_command)
    root, exclude, manifest = tmp_path / "tree", tmp_path / "ex.txt", tmp_path / "pairs.csv"
    shutil.copytree(tree, root)
    exclude.write_text("00001\n")
    manifest.write_text("dark,bright\ntree/short/10001_00_0.1s.dng,tree/long/10001_00_10s.dng\n")
    dark, listed = root / "short" / "10001_00_0.1s.dng", root / "Sony_test_list.txt"
    for data, output in ((root, exclude), (root, listed), (root, dark), (manifest, manifest), (manifest, dark)):
        before = output.read_bytes()
        given = [str(data), "--exclude", str(exclude), "-o", str(output), "--overwrite"]
        error = CliRunner().invoke(app, given).exception
        assert isinstance(error, UsageError) and "made from" in str(error)
        assert output.read_bytes() == before
    cache_pairs(root, tmp_path / "cache", CacheOptions(split="test"))
    given = [str(tmp_path / "cache"), "-o", str(tmp_path / "cache" / "index.json"), "--overwrite"]
    assert isinstance(CliRunner().invoke(app, given).exception, UsageError)
    # An earlier result is none of the data, though it lies in their folder.
    given = [str(root), "--split", "test", "-o", str(root / "bad.txt"), "--overwrite"]
    assert [CliRunner().invoke(app, given).exit_code for _ in range(2)] == [0, 0]


@pytest.mark.shared
def test_the_real_pairs_are_fine_and_spoiled_ones_are_found(shared_data: Path) -> None:
    manifest = shared_data / "sid_pairs" / "pairs.csv"
    rows = check_pairs(manifest, CheckOptions())
    assert len(rows) == 16
    assert set(verdicts(rows).values()) == {"ok"}
    pairs = [load_pair(row) for row in open_pairs(manifest)[::3]]
    for pair, other in zip(pairs, [*pairs[3:], *pairs[:3]], strict=True):
        truth, stranger = mean_of_blocks(pair.truth), mean_of_blocks(other.truth)
        moved = judge(NAMED, pair.frame, np.roll(truth, (2, -1), (0, 1)), 100.0, CheckOptions())
        assert moved.verdict == "misaligned"
        assert np.allclose(moved.shift_px, (2, -1), atol=0.5)
        assert judge(NAMED, pair.frame, stranger, 100.0, CheckOptions()).verdict == "different"
        assert "levels" in judge(NAMED, pair.frame, truth, 250.0, CheckOptions()).verdict
