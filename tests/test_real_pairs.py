"""Training on real pairs: windows, flips, scenes, tasks."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import rawpy
import torch
from pair_material import write_tree
from PIL import Image
from training_material import TINY_MODEL

from lowlight.core.config import from_dict
from lowlight.core.errors import ConfigError, DataError
from lowlight.core.photo import RGGB
from lowlight.core.restoration import ModelTraits
from lowlight.data import DATASETS, pair_stores, real_pairs
from lowlight.data.cache import FrameRecord, SourceFile, source_file
from lowlight.data.decoding import SCALE, decode_frame
from lowlight.data.pair_stores import MemoryPairs
from lowlight.data.pairs import PairRow, read_truth
from lowlight.data.pictures import read_picture
from lowlight.data.real_pairs import RealPairs, RealPairsConfig, dark_srgb, open_real_pairs
from lowlight.data.sid import open_pairs
from lowlight.data.windows import Flips, mirror_to, mosaic_window, packed_window
from lowlight.ops.color import decode, encode, luma
from lowlight.raw.bayer import plane_offsets
from lowlight.raw.levels import named_levels
from lowlight.workflows.pairing.cache_options import CacheOptions
from lowlight.workflows.pairing.cache_pairs import cache_pairs
from lowlight.workflows.pairing.sid_tree import SidTreeOptions, write_sid_tree
from lowlight.workflows.training.config import resolve
from lowlight.workflows.training.parts import open_validation
from lowlight.workflows.training.train import load_config, train
from lowlight.workflows.training.validating import open_validation_of
from lowlight.writers.cfa_dng import write_cfa_dng

TILE = 32
TRAITS = ModelTraits(tile=TILE)
EVERY_FLIP = [Flips(bool(n & 1), bool(n & 2), bool(n & 4)) for n in range(8)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def caches(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for size in ("half", "full"):
        folders[size] = tmp_path_factory.mktemp("cache") / size
        cache_pairs(tree, folders[size], CacheOptions(truth_size=size))
    return folders


def source(path: Path, traits: ModelTraits = TRAITS, batch: int = 2, seed: int = 0, **options: object) -> RealPairs:
    return open_real_pairs(path, traits, RealPairsConfig(**options), batch, seed, CPU)  # type: ignore[arg-type]


@dataclass
class NumberedStore:
    """Frames whose values say where they come from: column, row, frame and a constant."""

    scenes: tuple[int, ...]  # dark frames of each scene
    side: int = 40
    truth_size = "half"

    def __post_init__(self) -> None:
        frames = [(scene, frame) for scene, count in enumerate(self.scenes) for frame in range(count)]
        self.rows = [PairRow(Path(f"{s}_{f}"), Path(f"{s}"), f"{s:05d}", ratio=1.0) for s, f in frames]

    def record(self, index: int) -> FrameRecord:
        levels = {"black": (0.0,) * 4, "white": (float(SCALE),) * 4, "wb": (1.0,) * 4, "wb_source": "camera"}
        shape = {"shape": (self.side, self.side, 4), "size": (2 * self.side,) * 2, "pattern": RGGB}
        return FrameRecord(file="", sha256="", source=SourceFile("", 0, 0, ""), **shape, **levels)  # type: ignore[arg-type]

    def ratio(self, index: int) -> float:
        return 1.0

    def frame(self, index: int) -> np.ndarray:
        row, col = np.mgrid[: self.side, : self.side]
        return np.stack([row, col, np.full_like(row, index), row * 0], -1).astype(np.uint16)

    def truth(self, index: int) -> np.ndarray:
        return self.frame(index)[..., :3]

    def digest(self) -> str:
        return "numbered"


def numbered_patches(store: NumberedStore, steps: int, batch: int = 4, seed: int = 0) -> np.ndarray:
    """First values of every patch, `[items, channels]`: row, column and frame."""
    pairs = RealPairs(store, TRAITS, RealPairsConfig(), batch, seed)
    frames = torch.cat([pairs.batch(step).frames for step in range(steps)])
    return (frames[:, 0] * SCALE).round().int().numpy()


@pytest.mark.parametrize("flips", EVERY_FLIP)
def test_planes_and_truth_are_flipped_alike_at_packed_size(flips: Flips) -> None:
    stored = np.random.default_rng(2).integers(0, SCALE, (50, 40, 4), dtype=np.uint16)
    packed, truth = packed_window(stored, stored[..., :3], 1, TILE, flips, np.random.default_rng(3))
    assert packed.shape == (4, TILE, TILE)
    assert np.array_equal(packed[:3], truth)
    unflipped, _ = packed_window(stored, stored[..., :3], 1, TILE, Flips(False, False, False), np.random.default_rng(3))
    assert (flips != Flips(False, False, False)) == (not np.array_equal(unflipped, packed))


@pytest.mark.parametrize("size", [(50, 40), (TILE, TILE), (20, 25)])
@pytest.mark.parametrize("flips", EVERY_FLIP)
def test_a_flipped_mosaic_begins_with_red_and_lies_on_its_truth(flips: Flips, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    picture = rng.integers(0, SCALE, (2 * size[0], 2 * size[1], 3), dtype=np.uint16)
    sites = plane_offsets(RGGB)
    colours = (0, 1, 2, 1)  # of R, G1, B, G2
    stored = np.stack([picture[r::2, c::2, rgb] for (r, c), rgb in zip(sites, colours, strict=True)], -1)
    packed, truth = mosaic_window(stored, picture, TILE, flips, rng)
    assert (packed.shape, truth.shape) == ((4, TILE, TILE), (3, 2 * TILE, 2 * TILE))
    for plane, ((row, col), rgb) in zip(packed, zip(sites, colours, strict=True), strict=True):
        assert np.array_equal(plane, truth[rgb, row::2, col::2])


def test_full_truths_are_averaged_for_packed_size() -> None:
    truth = np.arange(64 * 64 * 3, dtype=np.uint16).reshape(64, 64, 3)
    stored = np.zeros((32, 32, 4), np.uint16)
    _, halved = packed_window(stored, truth, 2, 32, Flips(False, False, False), np.random.default_rng(0))
    expected = truth.reshape(32, 2, 32, 2, 3).mean((1, 3)) / SCALE
    assert np.allclose(halved, expected.transpose(2, 0, 1), atol=1e-6)


def test_corners_are_uniform_and_inclusive() -> None:
    patches = numbered_patches(NumberedStore((1,), side=TILE + 3), steps=100)
    for channel in (0, 1):
        corners = patches[:, channel].min((1, 2))
        counts = np.bincount(corners, minlength=4)
        assert len(counts) == 4
        assert counts.min() > 60  # of 400 in 4 places


def test_all_eight_flips_occur() -> None:
    patches = numbered_patches(NumberedStore((1,)), steps=30)
    rows, cols = patches[:, 0], patches[:, 1]
    down, across = np.sign(rows[:, -1, 0] - rows[:, 0, 0]), np.sign(cols[:, 0, -1] - cols[:, 0, 0])
    turned_down = np.sign(cols[:, -1, 0] - cols[:, 0, 0])
    turned_across = np.sign(rows[:, 0, -1] - rows[:, 0, 0])
    kinds = {tuple(map(int, kind)) for kind in zip(down, across, turned_down, turned_across, strict=True)}
    assert len(kinds) == 8


def test_every_scene_trains_once_an_epoch_and_frames_are_drawn_evenly() -> None:
    store = NumberedStore((1, 4, 2))
    frames = numbered_patches(store, steps=100, batch=3)[:, 2, 0, 0]
    scene_of = np.array([int(row.scene) for row in store.rows])[frames]
    epochs = scene_of.reshape(-1, 3)
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    counts = np.bincount(frames, minlength=7)
    assert counts[0] == 100
    assert counts[1:5].min() > 12
    assert counts[5:].min() > 30
    assert RealPairs(store, TRAITS, RealPairsConfig(), 2, 0).steps_per_epoch == 2


def test_a_batch_depends_on_seed_and_step_alone(caches: dict[str, Path]) -> None:
    first, second = source(caches["half"], seed=5), source(caches["half"], seed=5)
    late = first.batch(9)
    first.batch(0)
    for one, other in ((late, second.batch(9)), (first.batch(3), second.batch(3))):
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.target, other.target)
    assert not torch.equal(late.frames, first.batch(10).frames)
    assert not torch.equal(late.frames, source(caches["half"], seed=6).batch(9).frames)


def test_items_do_not_depend_on_the_batch_size(caches: dict[str, Path]) -> None:
    large = source(caches["half"], batch=4).batch(0)
    small = [source(caches["half"], batch=2).batch(step) for step in (0, 1)]
    assert torch.equal(large.frames, torch.cat([batch.frames for batch in small]))


@pytest.mark.parametrize("upscale", [1, 2])
def test_a_cache_trains_as_the_files_do(tree: Path, caches: dict[str, Path], upscale: int) -> None:
    traits = replace(TRAITS, upscale=upscale, input_colour="wb", output_colour="camera", base="lowpass")
    cached, direct = source(caches["full" if upscale == 2 else "half"], traits), source(tree, traits)
    for step in range(3):
        ours, theirs = cached.batch(step), direct.batch(step)
        assert ours.target.shape == (2, 3, upscale * TILE, upscale * TILE)
        assert ours.base is not None
        assert theirs.base is not None
        for a, b in ((ours.frames, theirs.frames), (ours.target, theirs.target), (ours.base, theirs.base)):
            assert torch.equal(a, b)
    assert cached.describe() == direct.describe()
    assert cached.describe()["scenes"] == 2


def test_the_amplified_input_looks_like_its_target(caches: dict[str, Path]) -> None:
    traits = replace(TRAITS, input_colour="wb", output_colour="camera")
    batch = source(caches["half"], traits, batch=8).batch(0)
    assert set(batch.ratio.flatten().tolist()) <= {100.0, 250.0}
    seen, meant = encode(batch.frames[:, 0, :3]).mean((2, 3)), batch.target.mean((2, 3))
    assert torch.corrcoef(torch.stack([seen.flatten(), meant.flatten()]))[0, 1] > 0.9


def test_split_and_burst_choose_the_frames(caches: dict[str, Path]) -> None:
    assert source(caches["half"]).describe()["photos"] == 4
    assert source(caches["half"], burst="any").describe()["photos"] == 8
    assert source(caches["half"], burst="any", split="").describe()["photos"] == 12
    with pytest.raises(DataError, match="no pairs of split 'val'"):
        source(caches["half"], split="val")


def test_an_exclude_file_is_kept_out(tmp_path: Path, caches: dict[str, Path]) -> None:
    path = tmp_path / "exclude.txt"
    path.write_text("00002\n00001_00_0.04s.dng")
    pairs = source(caches["half"], exclude=path)
    assert [row.dark.name for row in pairs.store.rows] == ["00001_00_0.1s.dng"]
    assert pairs.describe()["pair_hash"] != source(caches["half"]).describe()["pair_hash"]


def test_gray_targets_are_the_luma_of_the_main_task(caches: dict[str, Path]) -> None:
    colour = source(caches["half"]).batch(4)
    gray = source(caches["half"], replace(TRAITS, out_channels=1), task="gray").batch(4)
    assert torch.equal(gray.frames, colour.frames)
    assert torch.equal(gray.target, luma(colour.target))


@pytest.mark.parametrize("how", ["linear", "encoded"])
@pytest.mark.parametrize(("name", "ratio"), [("long/00001_00_10s.dng", 3.0), ("short/00001_00_0.1s.dng", 100.0)])
def test_dark_srgb_is_what_libraw_renders(
    tree: Path, name: str, ratio: float, how: Literal["linear", "encoded"]
) -> None:
    stored, frame = decode_frame(tree / name, "half")
    packed = torch.from_numpy(stored.astype(np.float32) / SCALE).movedim(-1, 0)[None]
    assert frame.camera_to_srgb is not None
    matrix = torch.from_numpy(frame.camera_to_srgb)[None]
    ours = dark_srgb(packed, torch.tensor([ratio]), torch.tensor([frame.wb_gains]), matrix, how)[0]
    with rawpy.imread(str(tree / name)) as raw:
        options = {"use_camera_wb": True, "half_size": True, "no_auto_bright": True, "output_bps": 16, "user_flip": 0}
        rendered = raw.postprocess(**options, bright=ratio if how == "linear" else 1.0)
    theirs = torch.from_numpy(rendered.astype(np.float32) / 65535).movedim(-1, 0)
    if how == "encoded":
        theirs = (theirs * ratio).clamp(max=1)
    # LibRaw cuts the dark picture to whole 16-bit numbers, several times, before it is brightened; the curve's toe
    # has a slope of 4.5.
    assert float((ours - theirs).abs().max()) < 8 * ratio * 4.5 / 65535
    assert ours.std() > 0.1


def test_the_srgb_task_takes_three_channels(caches: dict[str, Path]) -> None:
    traits = replace(TRAITS, in_channels=3)
    batch = source(caches["half"], traits, task="srgb").batch(0)
    assert batch.frames.shape == (2, 1, 3, TILE, TILE)
    assert torch.equal(batch.target, source(caches["half"]).batch(0).target)
    encoded = replace(traits, amplify="encoded")
    other = source(caches["half"], encoded, task="srgb", srgb_amplify="encoded").batch(0)
    assert other.frames.mean() > batch.frames.mean()  # the toe's slope of 4.5 is amplified too
    with pytest.raises(ConfigError, match=r"srgb_amplify is 'encoded' and model\.options\.amplify 'linear'"):
        source(caches["half"], traits, task="srgb", srgb_amplify="encoded")


def test_camera_targets_develop_to_the_truth(caches: dict[str, Path]) -> None:
    srgb = source(caches["half"], batch=4).batch(1).target
    pairs = source(caches["half"], replace(TRAITS, output_colour="camera"), batch=4)
    camera = pairs.batch(1).target
    matrix = torch.from_numpy(pairs.store.record(0).matrix)
    developed = encode(torch.einsum("ij,bjhw->bihw", matrix, decode(camera)).clamp(0, 1))
    assert (developed - srgb).abs().mean() < 2e-3  # colours outside the camera's range are clipped


@pytest.mark.parametrize("upscale", [1, 2])
def test_small_frames_are_mirrored_up_to_a_tile(caches: dict[str, Path], upscale: int) -> None:
    batch = source(caches["full"], ModelTraits(tile=256, upscale=upscale)).batch(0)
    assert batch.frames.shape == (2, 1, 4, 256, 256)
    assert batch.target.shape == (2, 3, 256 * upscale, 256 * upscale)
    mirrored = mirror_to(np.arange(3)[:, None].repeat(5, 1), 8, 5)[:, 0]
    assert mirrored.tolist() == [0, 1, 2, 1, 0, 1, 2, 1]


def test_real_pairs_validate_on_their_own_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_sid_tree(tmp_path / "sid", SidTreeOptions(scenes=(("0", 2), ("2", 1)), frames=1, size=(64, 64)))
    cache_pairs(tmp_path / "sid", tmp_path / "cache", CacheOptions())
    rows = ["split,dark,bright,ratio", *(f"{split},a.dng,a.png,100" for split in ("train", "val", "test"))]
    mosaic = np.full((64, 64), 700, np.uint16)
    write_cfa_dng(tmp_path / "a.dng", mosaic, pattern=RGGB, black=(512,) * 4, white=16383, wb=(2, 1, 1.5, 1))
    Image.fromarray(np.full((32, 32, 3), 99, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    (tmp_path / "none.csv").write_text("\n".join(rows[:2]))

    def validating(name: str, **options: object) -> int:
        data = {"name": "pairs", "path": str(tmp_path / name), "options": options}
        return len(open_validation_of(resolve({"data": data, "run": {"steps": 1}})))

    assert [validating(name) for name in ("sid", "cache", "pairs.csv", "none.csv")] == [2, 2, 1, 0]
    assert validating("pairs.csv", split="") == validating("pairs.csv", split="test") == 0
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert validating("pairs.csv") == 0
    assert "1 files of the validation split" in caplog.text


def test_files_train_and_validate_with_pinned_levels(tmp_path: Path, caches: dict[str, Path]) -> None:
    mosaic = np.full((64, 64), 700, np.uint16)
    write_cfa_dng(tmp_path / "a.dng", mosaic, pattern=RGGB, black=(600,) * 4, white=15000, wb=(2, 1, 1.5, 1))
    Image.fromarray(np.full((32, 32, 3), 99, np.uint8)).save(tmp_path / "a.png")
    manifest = tmp_path / "pairs.csv"
    manifest.write_text("split,dark,bright,ratio\ntrain,a.dng,a.png,100\nval,a.dng,a.png,100\n")
    for levels, expected in (("", (600.0, 15000.0)), ("sony-sid", (512.0, 16383.0))):
        trains = source(manifest, batch=1, levels=levels).store.record(0)
        (read,) = open_validation(manifest, named_levels(levels))
        for frame in (trains, read().frame):
            assert (frame.black, frame.white) == ((expected[0],) * 4, (expected[1],) * 4)
    with pytest.raises(ConfigError, match=r"levels is 'sony-sid' and the cache .* make it with --levels sony-sid"):
        source(caches["half"], levels="sony-sid")


def test_what_does_not_fit_is_refused(
    tree: Path, caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="task gray needs a network with 4 channels in and 1 out"):
        source(caches["half"], task="gray")
    with pytest.raises(ConfigError, match="--truth full"):
        source(caches["half"], replace(TRAITS, upscale=2))
    with pytest.raises(ConfigError, match="expected one of main, gray, srgb"):
        from_dict(DATASETS["pairs"].config, {"task": "thermal"}, "options")
    monkeypatch.setattr(real_pairs, "IN_MEMORY_BYTES", 1000)
    with pytest.raises(DataError, match="`lowlight cache"):
        source(tree)
    manifest = tmp_path / "pairs.csv"
    manifest.write_text("split,dark,bright\ntrain,gone.dng,gone.png\n")
    with pytest.raises(DataError, match="does not exist"):
        source(manifest)


@pytest.mark.parametrize("task", ["main", "gray", "srgb"])
def test_training_runs_on_the_tree(caches: dict[str, Path], tmp_path: Path, task: str) -> None:
    channels = {"main": (4, 3), "gray": (4, 1), "srgb": (3, 3)}[task]
    model = {**TINY_MODEL["sid-net-slim"], "in_channels": channels[0], "out_channels": channels[1]}
    values = {
        "model": {"name": "sid-net-slim", "options": model},
        "objective": {"name": "cvae"},
        "data": {"name": "pairs", "path": str(caches["half"]), "options": {"task": task}},
        "optimiser": {"batch": 2},
        "run": {"steps": 2, "device": "cpu", "precision": "fp32", "log_every": 1},
    }
    weights = train(load_config(None, values), tmp_path / "run")
    assert weights.name == "last.safetensors"
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"loss"') == 2


MEMORY = """
import json, resource, sys
from pathlib import Path
import numpy as np, torch
from lowlight.core.restoration import ModelTraits
from lowlight.data.cache import CachedPair, CacheIndex, FrameRecord, SourceFile, TruthRecord, index_json
from lowlight.data.real_pairs import RealPairsConfig, open_real_pairs

H, W = 700, 1000
def sparse(path, shape):
    with path.open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2 * H * W * shape[2])
def make(folder, count):
    for name in ("frames", "truths"):
        (folder / name).mkdir(parents=True)
    frames, truths, pairs = [], [], []
    for n in range(count):
        source = SourceFile(f"{n}", 1, 1, f"{n}")
        sparse(folder / f"frames/{n}.npy", (H, W, 4))
        sparse(folder / f"truths/{n}.npy", (H, W, 3))
        frames.append(FrameRecord(f"frames/{n}.npy", "", (H, W, 4), source, (2 * H, 2 * W), ((0, 1), (3, 2)),
                                  (0.0,) * 4, (1.0,) * 4, (1.0,) * 4, "camera"))
        truths.append(TruthRecord(f"truths/{n}.npy", "", (H, W, 3), source))
        pairs.append(CachedPair(n, n, 100.0, f"{n:05d}", "train"))
    index = CacheIndex(1, "half", "", {}, tuple(frames), tuple(truths), tuple(pairs))
    (folder / "index.json").write_text(index_json(index))
def peak_mib(folder):
    source = open_real_pairs(folder, ModelTraits(), RealPairsConfig(), 5, 0, torch.device("cpu"))
    for step in range(20):
        source.batch(step)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
root = Path(sys.argv[1])
make(root / "few", 10)
make(root / "many", 1000)
print(peak_mib(root / "few"), peak_mib(root / "many"))
"""


def test_memory_does_not_grow_with_the_cache(tmp_path: Path) -> None:
    """1000 frames of 5.6 MB each: had they stayed mapped, 20 steps would have kept 100 MB and more."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    few, many = map(float, done.stdout.split())
    assert many - few < 24


def test_files_are_hashed_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryPairs(open_pairs(tree)[:2], "half")
    hashed = []

    def counted(path: Path, name: str) -> SourceFile:
        hashed.append(path)
        return source_file(path, name)

    monkeypatch.setattr(pair_stores, "source_file", counted)
    assert store.digest() == store.digest()
    assert len(hashed) == len(set(hashed))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_truth_lies_as_the_mosaic_does_whatever_its_tags_say(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (48, 32), (200, 10, 10)).save(tmp_path / "truth.jpg", exif=exif)
    with Image.open(tmp_path / "truth.jpg") as image:
        stored = np.asarray(image)
    truth, _ = read_truth(tmp_path / "truth.jpg")
    assert np.array_equal(truth // 257, stored)
    assert read_picture(tmp_path / "truth.jpg").shape == ((32, 48, 3) if orientation == 3 else (48, 32, 3))
