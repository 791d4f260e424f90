"""The cache: what it stores, how it goes on, what it refuses."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pair_material import SIZE, write_tree
from typer.testing import CliRunner

from lowlight.cli.cache import cache_command
from lowlight.core.config import to_dict
from lowlight.core.errors import DataError, InterruptedRunError, UsageError
from lowlight.core.photo import BGGR, GBRG, GRBG, RGGB, CfaPattern
from lowlight.data.cache import INDEX, open_cache
from lowlight.data.decoding import SCALE, decode_frame, decode_truth, dequantise, quantise, unpack
from lowlight.data.pairs import load_pair
from lowlight.data.sid import open_pairs
from lowlight.raw.bayer import pack, packed_size
from lowlight.raw.read import read_raw
from lowlight.raw.render import render_full_size
from lowlight.workflows.pairing import cache_pairs as module
from lowlight.workflows.pairing.cache_journal import JOURNAL, Journal
from lowlight.workflows.pairing.cache_options import CacheOptions, CacheSummary
from lowlight.workflows.pairing.cache_pairs import cache_pairs, forecast_cache
from lowlight.writers.cfa_dng import write_cfa_dng

BOUND = 0.5 / SCALE + 2**-23  # half a step, and the rounding of 32-bit floats
FILES = 12 + 3


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def cache(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "out"
    cache_pairs(tree, folder, CacheOptions())
    return folder


def run(tree: Path, folder: Path, **options: object) -> CacheSummary:
    return cache_pairs(tree, folder, CacheOptions(**options))  # type: ignore[arg-type]


@given(hnp.arrays(np.float32, (4, 2, 3), elements=st.floats(0, 1, width=32)))
def test_the_fixed_point_is_off_by_half_a_step_at_most(planes: np.ndarray) -> None:
    assert np.abs(dequantise(quantise(planes)) - planes).max() <= BOUND


def test_what_lies_outside_is_clipped() -> None:
    planes = np.array([-0.1, 0.0, 1.0, 1.5], np.float32).reshape(4, 1, 1)
    assert quantise(planes).ravel().tolist() == [0, 0, SCALE, SCALE]


@pytest.mark.parametrize("pattern", [RGGB, GRBG, GBRG, BGGR])
@pytest.mark.parametrize("size", [(64, 80), (63, 81)])
def test_a_cached_frame_is_what_pack_gives(tmp_path: Path, pattern: CfaPattern, size: tuple[int, int]) -> None:
    mosaic = np.random.default_rng(0).integers(512, 3000, size, dtype=np.uint16)
    path = tmp_path / "a.dng"
    write_cfa_dng(path, mosaic, pattern=pattern, black=(512, 513, 514, 515), white=16383, wb=(2, 1, 1.5, 1))
    planes = pack(read_raw(path)).numpy()
    stored, frame = decode_frame(path, "full")
    assert stored.shape == (*packed_size(frame.size, frame.pattern), 4)
    assert np.abs(dequantise(stored) - planes).max() <= BOUND
    # Full-size truths lie on the same padded grid: every pixel has its own place in the mosaic.
    truth, _ = decode_truth(path, frame, "full")
    assert truth.shape == (2 * stored.shape[0], 2 * stored.shape[1], 3)
    top, left = (int(pad) for pad in np.argwhere(np.array(pattern) == 0)[0])
    rendered, _ = render_full_size(path)
    assert np.array_equal(truth[top : top + size[0], left : left + size[1]], rendered)
    # Half-size ones lie on the blocks of the mosaic, as LibRaw's do.
    stored, frame = decode_frame(path, "half")
    half, _ = decode_truth(path, frame, "half")
    assert half.shape[:2] == (size[0] // 2, size[1] // 2)
    assert stored.shape[:2] == ((size[0] + 1) // 2, (size[1] + 1) // 2)


def test_unpacking_puts_every_plane_on_its_pixel() -> None:
    stored = np.arange(4, dtype=np.uint16)[None, None].repeat(2, 0).repeat(3, 1)
    assert unpack(stored)[:2, :2].tolist() == [[0, 1], [3, 2]]


def test_pairs_come_back_as_they_were(tree: Path, cache: Path) -> None:
    opened, rows = open_cache(cache), open_pairs(tree)
    assert len(opened.rows) == len(rows) == 12
    for index, row in enumerate(rows):
        pair, record = load_pair(row), opened.record(index)
        assert np.abs(dequantise(opened.frame(index)) - pack(pair.frame).numpy()).max() <= BOUND
        assert np.array_equal(opened.truth(index), pair.truth)
        assert opened.ratio(index) == row.ratio
        assert (record.size, record.pattern, record.black) == (SIZE, RGGB, (512.0,) * 4)
        assert record.wb == pair.frame.wb
        assert np.array_equal(record.matrix, pair.frame.camera_to_srgb)
        assert (opened.rows[index].dark.name, opened.rows[index].split) == (row.dark.name, row.split)
        assert (record.exposure_s, opened.rows[index].iso) == (row.dark_s, 200)
        again = opened.pair(index)
        assert np.abs(pack(again.frame).numpy() - pack(pair.frame).numpy()).max() <= BOUND
        assert again.frame.wb_gains == pair.frame.wb_gains


def test_the_index_tells_versions_sources_and_checksums(tree: Path, cache: Path) -> None:
    index = json.loads((cache / INDEX).read_text())
    assert set(index["versions"]) == {"lowlight", "rawpy", "libraw"}
    assert (index["truth_size"], index["levels"], index["failed"]) == ("half", "", {})
    frame = index["frames"][0]
    source = tree / frame["source"]["path"]
    assert source.stat().st_size == frame["source"]["bytes"]
    assert module.file_sha256(source) == frame["source"]["sha256"]
    assert module.file_sha256(cache / frame["file"]) == frame["sha256"]
    assert len(index["truths"]) == 3  # bursts share theirs


def test_the_forecast_is_exact_and_writes_nothing(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    forecast = forecast_cache(tree, out, CacheOptions())
    assert not out.exists()
    assert (forecast.pairs, forecast.frames, forecast.truths) == (12, 12, 3)
    summary = run(tree, out)
    written = sum(file.stat().st_size for file in out.rglob("*.npy"))
    assert forecast.bytes == forecast.missing_bytes == summary.bytes == written
    assert forecast_cache(tree, out, CacheOptions()).missing_bytes == 0


def test_a_finished_cache_is_kept(tree: Path, tmp_path: Path) -> None:
    first, second = run(tree, tmp_path / "out"), run(tree, tmp_path / "out")
    assert (first.decoded, first.kept) == (FILES, 0)
    assert (second.decoded, second.kept) == (0, FILES)


@pytest.mark.parametrize("after", [1, 7])
def test_an_interrupted_run_goes_on(tree: Path, cache: Path, tmp_path: Path, after: int) -> None:
    out = tmp_path / "out"

    def interrupt(done: int, total: int) -> None:
        assert total == FILES
        if done == after:
            os.kill(os.getpid(), 2)

    with pytest.raises(InterruptedRunError, match="the same command goes on"):
        cache_pairs(tree, out, CacheOptions(jobs=1), interrupt)
    done = len(list(out.rglob("*.npy")))
    assert after <= done < FILES
    with pytest.raises(DataError, match="cannot read"):
        open_cache(out)
    # What a killed process leaves: half a file under a temporary name, half a line in the journal.
    (out / "frames" / ".x.npy.1-0123abcd.part").write_bytes(b"half")
    with (out / JOURNAL).open("a") as journal:
        journal.write('{"frame": {"fi')
    summary = run(tree, out)
    assert (summary.decoded, summary.kept) == (FILES - done, done)
    assert json.loads((out / INDEX).read_text()) == json.loads((cache / INDEX).read_text())
    assert sorted(p.name for p in out.iterdir()) == ["frames", INDEX, "truths"]
    assert not list(out.rglob("*.part"))


def test_half_a_line_swallows_no_other(cache: Path, tmp_path: Path) -> None:
    index = open_cache(cache).index
    journal = Journal(tmp_path / "out", {})
    journal.begin()
    journal.note("frame", index.frames[0])
    with (tmp_path / "out" / JOURNAL).open("a") as file:
        record = {**to_dict(index.frames[0]), "file": "../victim.npy"}
        file.write('{"frame": {}}\n' + json.dumps({"frame": record}) + '\n{"truth": {"file": "tru')
    again = Journal(tmp_path / "out", {})
    again.note("frame", index.frames[1])
    again.note("truth", index.truths[0])
    records = [*index.frames[:2], index.truths[0]]
    assert list(Journal(tmp_path / "out", {}).known.values()) == records


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "lacks .*pairs"),
        ("[]", "expected keys"),
        ("nothing", "no index of a cache"),
        (9999 * "[", "no valid JSON"),
    ],
)
def test_an_index_that_is_none_is_refused(cache: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(DataError, match=words):
        open_cache(tmp_path)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("pairs", {"truth": 99}, "arrays 0 and 99 are named as a pair"),
        ("pairs", {"frame": -1}, "arrays -1 and 0 are named as a pair"),
        ("pairs", {"ratio": -2.0}, r"ratio is -2\.0"),
        ("frames", {"size": [0, 5]}, "expected at least 1"),
        ("frames", {"pattern": [[5, 5], [5, 5]]}, "colour filter pattern"),
        ("frames", {"file": "frames/a\0b.npy"}, "expected NAME.npy"),
        ("truths", {"file": "../victim.dng"}, r"'\.\./victim\.dng'; expected NAME.npy"),
        ("truths", {"file": "/victim.npy"}, "expected NAME.npy"),
        ("truths", {"file": "truths/../victim.npy"}, "expected NAME.npy"),
    ],
)
def test_an_index_that_names_what_it_must_not_is_refused(
    tree: Path, cache: Path, tmp_path: Path, part: str, change: dict[str, object], words: str
) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim.dng"
    victim.write_bytes(b"an original")
    shutil.copytree(cache, out)
    index = json.loads((cache / INDEX).read_text())
    index[part][0] |= change
    (out / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match=words):
        open_cache(out)
    with pytest.raises(DataError, match="is no index of a cache"):
        run(tree, out, prune=True)
    assert victim.read_bytes() == b"an original"


def test_files_that_changed_or_broke_are_decoded_again(tree: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(tree, source)
    run(source, out)
    changed = source / "short" / "00001_00_0.1s.dng"
    shutil.copy(source / "short" / "00001_01_0.1s.dng", changed)
    os.utime(changed, ns=(1, 1))
    assert run(source, out).decoded == 1
    opened = open_cache(out)
    names = [row.dark.name for row in opened.rows]
    same = [names.index(f"00001_0{i}_0.1s.dng") for i in (0, 1)]
    assert np.array_equal(opened.frame(same[0]), opened.frame(same[1]))

    (damaged, short) = sorted((out / "frames").iterdir())[:2]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(bytes(content))
    short.write_bytes(short.read_bytes()[:-2])
    with pytest.raises(DataError, match="missing or cut short"):
        open_cache(out)
    assert run(source, out).decoded == 1  # the short one: nobody looked into the other
    assert run(source, out, verify=True).decoded == 1
    assert damaged.read_bytes() != bytes(content)


def test_arrays_nobody_needs_any_more_are_removed_on_request(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(tree, out)
    narrower = CacheOptions(exclude=["00001"])
    assert forecast_cache(tree, out, narrower).unneeded == 5
    with pytest.raises(DataError, match=r"5 decoded files .* --prune"):
        cache_pairs(tree, out, narrower)
    assert len(list(out.rglob("*.npy"))) == FILES and len(open_cache(out).rows) == 12
    summary = run(tree, out, exclude=["00001"], prune=True)
    assert (summary.pairs, summary.removed, summary.decoded) == (8, 5, 0)
    assert len(list(out.rglob("*.npy"))) == FILES - 5


def test_one_bad_file_costs_its_pairs_only(tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    shutil.copytree(tree, source)
    (source / "short" / "00001_00_0.1s.dng").write_bytes(b"no raw")
    (source / "long" / "10001_00_10s.dng").write_bytes(b"")
    summary = run(source, tmp_path / "out")
    assert summary.pairs == 12 - 1 - 4
    assert set(summary.failed) == {"short/00001_00_0.1s.dng", "long/10001_00_10s.dng"}
    assert "is empty" in summary.failed["long/10001_00_10s.dng"]
    assert len(open_cache(tmp_path / "out").rows) == 7


def test_what_cannot_work_is_refused(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    run(tree, out, split="test")
    with pytest.raises(DataError, match="was made with truth_size 'half', not 'full'"):
        run(tree, out, truth_size="full")
    with pytest.raises(DataError, match="not empty and no cache"):
        run(tree, tree)
    with pytest.raises(DataError, match="is a cache, which is for training"):
        open_pairs(out)
    with pytest.raises(UsageError, match="no levels called 'nikon'; there are sony-sid"):
        run(tree, tmp_path / "other", levels="nikon")
    (tmp_path / "short").mkdir()
    (tmp_path / "Sony_test_list.txt").write_text("short/10001_00_0.1s.dng long/10001_00_10s.dng")
    with pytest.raises(DataError, match=r"2 files that .* do not exist"):
        run(tmp_path, tmp_path / "other")
    monkeypatch.setattr(module, "SPARE_BYTES", 1 << 62)
    with pytest.raises(DataError, match="choose another disk"):
        run(tree, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_pinned_levels_are_used(tmp_path: Path) -> None:
    mosaic = np.full((64, 64), 512 + 1587, np.uint16)
    path = tmp_path / "a.dng"
    write_cfa_dng(path, mosaic, pattern=RGGB, black=(600,) * 4, white=15000, wb=(2, 1, 1.5, 1))
    stored, frame = decode_frame(path, "full", (512, 16383))
    assert (frame.black[0], frame.white[0]) == (512, 16383)
    assert set(np.unique(stored)) == {round(1587 / 15871 * SCALE)}


def test_full_truths_are_cached(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path / "out", truth_size="full", split="test")
    opened = open_cache(tmp_path / "out")
    assert opened.truth_size == "full"
    assert opened.truth(0).shape == (*SIZE, 3)


def test_the_command_says_what_it_does(tree: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(cache_command)
    out = tmp_path / "out"
    dry = CliRunner().invoke(app, [str(tree), str(out), "--split", "test", "--dry-run"], catch_exceptions=False)
    assert dry.exit_code == 0
    assert "4 pairs of 4 dark frames and 1 truths take" in dry.stderr
    assert not out.exists()
    made = CliRunner().invoke(app, [str(tree), str(out)], env={"LOWLIGHT_CACHE_SPLIT": "test"}, catch_exceptions=False)
    assert made.exit_code == 0
    assert made.stdout.strip() == str(out)
    assert len(open_cache(out).rows) == 4


@pytest.mark.shared
def test_the_real_pairs_are_cached(shared_data: Path, tmp_path: Path) -> None:
    manifest = shared_data / "sid_pairs" / "pairs.csv"
    assert run(manifest, tmp_path / "out").pairs == 16
    opened = open_cache(tmp_path / "out")
    pair = load_pair(open_pairs(manifest)[3])
    assert np.abs(dequantise(opened.frame(3)) - pack(pair.frame).numpy()).max() <= BOUND
    assert (opened.ratio(3), opened.record(3).camera) == (100.0, "Sony ILCE-7SM2")


def test_a_cache_of_other_pairs_is_left_alone(tree: Path, cache: Path, tmp_path: Path) -> None:
    other = write_tree(tmp_path / "elsewhere" / "other")
    rows = open_pairs(other)
    manifest = tmp_path / "other.csv"
    lines = [f"{row.dark},{row.bright},100,x" for row in rows]
    manifest.write_text("dark,bright,ratio,scene\n" + "\n".join(lines) + "\n")
    before = sorted(path.name for path in cache.rglob("*"))
    with pytest.raises(DataError, match="other pairs"):
        run(manifest, cache)
    assert sorted(path.name for path in cache.rglob("*")) == before


def test_linked_files_keep_their_names(tree: Path, tmp_path: Path) -> None:
    linked = tmp_path / "data"
    for number, file in enumerate(sorted(path for path in tree.rglob("*") if path.is_file())):
        link = linked / file.relative_to(tree)
        link.parent.mkdir(parents=True, exist_ok=True)
        stored = tmp_path / "objects" / str(number)
        stored.parent.mkdir(exist_ok=True)
        stored.symlink_to(file)
        link.symlink_to(stored)
    run(linked, tmp_path / "cache")
    names = [(row.dark.name, row.bright.name) for row in open_cache(tmp_path / "cache").rows]
    assert sorted(names) == sorted((row.dark.name, row.bright.name) for row in open_pairs(tree))
