"""Several frames of one scene: laid on one another, averaged or given to a network of sets, and enhanced as one."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from burst_material import RATIO, finer, frame, light, named, psnr, write
from torch import Tensor, nn

from lowlight.burst import AlignedFrame, Burst, align, same_scene
from lowlight.checkpoint import BURST_WEIGHTS, find_weights, load_weights
from lowlight.core.errors import UsageError
from lowlight.core.photo import BGGR, RawFrame
from lowlight.core.restoration import ModelTraits, Noise, Restoration
from lowlight.data.pictures import read_picture
from lowlight.ops.exposure import amplify, choose_ratio
from lowlight.ops.registration import Registration
from lowlight.ops.tiling import GridRule, TileGrid
from lowlight.raw.bayer import pack
from lowlight.raw.read import read_raw
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.tile_source import TileSource
from lowlight.workflows.enhancing import enhancer as module
from lowlight.workflows.enhancing.enhance import enhance_files
from lowlight.workflows.enhancing.inputs import find_photos
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.photo_steps import meter, meter_scene
from lowlight.workflows.enhancing.scenes import find_scenes

SIZE = (260, 320)
FP32 = RestorerOptions(precision="fp32")
PLAIN = RestorerOptions(precision="fp32", strength=0.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class SetMean(nn.Module):
    """A network of sets: gives the mean of its frames, at packed size, and remembers what it read."""

    def __init__(self, **traits: object) -> None:
        super().__init__()
        self.traits = ModelTraits(output_colour="camera", max_frames=4, **traits)  # type: ignore[arg-type]
        self.read: list[Tensor] = []

    def reconstruct(self, *given: object) -> Restoration:
        raise NotImplementedError

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        self.read.append(frames)
        r, g1, b, g2 = frames.mean(1).unbind(1)
        return Restoration(torch.stack((r, (g1 + g2) / 2, b), 1))


@pytest.fixture(scope="module")
def tiny(tiny_weights: Path) -> nn.Module:
    return load_weights(tiny_weights)[0]


@pytest.fixture(scope="module")
def noisy() -> list[RawFrame]:
    return [frame(light(*SIZE), seed) for seed in range(4)]


def plain(scene: RawFrame | Burst, ratio: float = RATIO) -> np.ndarray:
    return Restorer(SetMean(), PLAIN, "cpu").photo(scene, ratio).pixels


def test_one_frame_goes_the_way_it_always_went(tiny: nn.Module, noisy: list[RawFrame]) -> None:
    single = align(noisy[:1])
    assert single.notes == () and meter_scene(single) == choose_ratio(pack(noisy[0], clip=False))
    restorer = Restorer(tiny, replace(FP32, strength=0.5), "cpu")
    np.testing.assert_array_equal(restorer.photo(noisy[0], RATIO).pixels, restorer.photo(single, RATIO).pixels)
    grid = TileGrid.cover(130, 160, 64, GridRule(stride=40))
    tiles = TileSource(single, RATIO, grid, ModelTraits(), 1.0).tiles()
    whole = amplify(pack(noisy[0]), RATIO, None, "raw")
    for (row, col), tile in zip(itertools.product(grid.rows, grid.cols), tiles, strict=True):
        assert torch.equal(tile.frames, whole[None, :, row : row + 64, col : col + 64])
        assert tile.noise is None


def test_each_frame_more_makes_the_picture_better(tiny: nn.Module, noisy: list[RawFrame]) -> None:
    truth = finer(light(*SIZE))
    for model, options, gain in ((SetMean(), PLAIN, 5.0), (tiny, FP32, 3.0)):
        restorer = Restorer(model, options, "cpu")
        clean = restorer.photo(truth, RATIO).pixels
        scores = [psnr(restorer.photo(align(noisy[:count]), RATIO).pixels, clean) for count in (1, 2, 3, 4)]
        assert sorted(scores) == scores and scores[3] - scores[0] > gain


def test_the_order_of_the_others_does_not_matter(noisy: list[RawFrame]) -> None:
    frames = [noisy[0], frame(light(*SIZE, (5.0, -2.6)), 5), *noisy[2:]]
    first, *rest = [plain(align([frames[0], *order])) for order in itertools.permutations(frames[1:])]
    assert all(np.abs(first.astype(int) - other).max() <= 1 for other in rest)


@pytest.mark.parametrize("shift", [(4.0, -6.0), (3.0, 5.0), (-1.0, 8.0), (2.6, -3.3)])
def test_shifted_frames_lose_little(noisy: list[RawFrame], shift: tuple[float, float]) -> None:
    steps = [(0.0, 0.0), shift, (-shift[1], shift[0]), (shift[0] / 2, -shift[1])]
    burst = align([frame(light(*SIZE, step), seed) for seed, step in enumerate(steps)])
    for aligned, step in zip(burst.frames, steps, strict=True):
        assert 2 * np.array(aligned.shift) == pytest.approx(step, abs=0.35)
    truth = plain(finer(light(*SIZE)))
    one, still, moved = (psnr(plain(scene), truth, 16) for scene in (noisy[0], align(noisy), burst))
    assert moved > still - 0.5 and moved > one + 4.5


def test_nothing_moved_where_a_far_shift_leaves_a_border() -> None:
    size = (700, 800)
    burst = align([frame(light(*size, step), seed) for seed, step in enumerate(((0.0, 0.0), (100.0, -120.0)))])
    assert 2 * np.array(burst.frames[1].shift) == pytest.approx((100, -120), abs=0.5)
    assert "moved" not in burst.notes[0]


def test_bands_are_what_the_whole_frame_gives(noisy: list[RawFrame]) -> None:
    burst = align([noisy[0], *(frame(light(*SIZE, (3.4, -7.0)), seed) for seed in (5, 6))])
    whole, members = burst.average(), [burst.member(index, 0, 130) for index in range(3)]
    for start, stop in ((0, 7), (20, 33), (100, 130), (129, 130)):
        torch.testing.assert_close(burst.average(start, stop), whole[:, start:stop], rtol=0, atol=1e-6)
        for index, member in enumerate(members):
            torch.testing.assert_close(burst.member(index, start, stop), member[:, start:stop], rtol=0, atol=1e-6)


def test_what_moves_is_seen_once() -> None:
    def with_lamp(col: int, seed: int | None) -> RawFrame:
        clean = light(*SIZE)
        clean[100:132, col : col + 32] += 60
        return finer(clean) if seed is None else frame(clean, seed)

    places = (40, 100, 160, 220)
    burst = align([with_lamp(col, seed) for seed, col in enumerate(places)])
    fused, truth = plain(burst), plain(with_lamp(places[0], None))
    blurred = plain(Burst(tuple(replace(each, trust=None) for each in burst.frames)))
    for col in places:
        patch = np.s_[52:64, col // 2 + 2 : col // 2 + 14]
        off = np.abs(fused[patch].mean((0, 1)) - truth[patch].mean((0, 1))).max() / 257
        ghost = np.abs(blurred[patch].mean((0, 1)) - truth[patch].mean((0, 1))).max() / 257
        assert off < 4 < 6 < ghost
    still = np.s_[8:45]
    assert psnr(fused[still], truth[still]) > psnr(plain(burst.reference)[still], truth[still]) + 4


def test_frames_smaller_than_a_block_are_laid_on_one_another() -> None:
    frames = [frame(light(40, 12), seed=seed) for seed in (1, 2)]
    assert align(frames).size == (20, 6)


def test_frames_of_other_exposures_come_to_one_level(noisy: list[RawFrame]) -> None:
    clean = light(*SIZE)
    longer, brighter = frame(4 * clean, 7, exposure_s=4.0), frame(2 * clean, 8, iso=1600.0)
    burst = align([noisy[0], longer, brighter])
    assert [aligned.gain for aligned in burst.frames] == pytest.approx([1, 0.25, 0.5])
    one, long, two = (aligned.variance for aligned in burst.frames)
    assert long == pytest.approx(one / 16, rel=0.5) and two == pytest.approx(one / 4, rel=0.2)
    truth = plain(finer(clean))
    assert psnr(plain(burst), truth) > psnr(plain(align(noisy)), truth) + 3
    assert meter_scene(burst) == pytest.approx(choose_ratio(pack(noisy[0], clip=False)), rel=0.02)


@pytest.mark.parametrize("told", [{"exposure_s": None, "iso": None}, {"exposure_s": 30.0}])
def test_levels_are_matched_where_exposure_data_are_missing_or_wrong(
    noisy: list[RawFrame], told: dict[str, Any]
) -> None:
    burst = align([noisy[0], frame(3 * light(*SIZE), 7, **told)])
    assert burst.frames[1].gain == pytest.approx(1 / 3, rel=0.03)
    assert ("exposure data do not fit" in burst.notes[0]) == (told["exposure_s"] is not None)


def test_what_the_longer_exposure_clips_comes_from_the_shorter() -> None:
    clean = light(*SIZE)
    clean[100:140, 100:140] = 3000
    burst = align([frame(clean, 1), frame(16 * clean, 2, exposure_s=16.0)])
    lamp = burst.average()[:, 55:65, 55:65]
    assert float(lamp.mean()) == pytest.approx(3000 / (16383 - 512), rel=0.02)
    assert float(burst.member(1, 55, 65)[:, :, 55:65].mean()) == pytest.approx(float(lamp.mean()), rel=0.02)


def test_frames_that_cannot_be_one_scene_are_refused_by_name(tmp_path: Path) -> None:
    first = named(light(*SIZE), tmp_path / "first.dng")
    small = named(light(100, 120), tmp_path / "small.dng")
    other = named(light(*SIZE), tmp_path / "other.dng", pattern=BGGR)
    for bad, words in ((small, "small.dng and first.dng have different sizes, 120x100 and 320x260"), (other, "colour")):
        with pytest.raises(UsageError, match=words) as caught:
            align([first, first, bad])
        assert bad.path is not None and bad.path.name in str(caught.value)


def test_other_scenes_are_left_out_and_other_cameras_named(tmp_path: Path) -> None:
    first = named(light(*SIZE), tmp_path / "first.dng", seed=1)
    else_where = named(light(*SIZE, scene=3), tmp_path / "elsewhere.dng", seed=2)
    borrowed = named(light(*SIZE), tmp_path / "borrowed.dng", seed=3, model="Other")
    burst = align([first, else_where, borrowed])
    assert [aligned.frame for aligned in burst.frames] == [first, borrowed]
    assert "elsewhere.dng was left out" in burst.notes[0] and "first.dng" in burst.notes[0]
    assert "borrowed.dng comes from another camera" in burst.notes[1]
    assert "camera" not in burst.notes[0]
    stranger = named(light(*SIZE, scene=3), tmp_path / "stranger.dng", seed=2, model="Other")
    (note,) = align([first, stranger]).notes
    assert "stranger.dng was left out" in note and "another camera, lowlight Other" in note


def test_a_network_of_sets_reads_the_frames_themselves(noisy: list[RawFrame]) -> None:
    model = SetMean()
    burst = align([noisy[0], frame(2 * light(*SIZE), 7, exposure_s=2.0), noisy[2]])
    Restorer(model, FP32, "cpu").photo(burst, RATIO)
    (read,) = model.read
    assert read.shape == (1, 3, 4, 256, 256)
    torch.testing.assert_close(read[0, 0, :, :130, :160], amplify(pack(noisy[0]), RATIO, None, "raw"))
    means = read[0, :, :, :130, :160].mean((1, 2, 3))
    assert float(means.max() / means.min()) < 1.02
    before = len(model.read)
    Restorer(model, FP32, "cpu").photo(noisy[0], RATIO)
    assert model.read[before].shape == (1, 1, 4, 256, 256)


def test_frames_in_the_dark_count_the_same() -> None:
    black = np.zeros(SIZE)
    burst = Burst(tuple(AlignedFrame(frame(black)) for _ in range(3)))
    assert float(burst.average().abs().max()) == 0
    assert len(align([frame(black)] * 3).frames) == 1


def run(paths: list[Path], out: Path, weights: Path, **changes: Any) -> list[dict[str, Any]]:
    scenes = find_scenes(find_photos([str(path) for path in paths]), fuse=True)
    options = EnhanceOptions(out=out, weights=weights, device="cpu", **{"restorer": FP32, **changes})
    return enhance_files(scenes, options)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    steps = ((0.0, 0.0), (2.0, -4.0), (0.0, 0.0))
    return [
        write(tmp_path / f"{name}.dng", light(*SIZE, step), seed)
        for seed, (name, step) in enumerate(zip("abc", steps, strict=True))
    ]


def test_a_fused_scene_is_one_picture_and_one_row(files: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    before = [path.read_bytes() for path in files]
    out = tmp_path / "out"
    (row,) = run(files, out, tiny_weights, contact_sheet=True)
    assert (row["status"], row["frames"], row["samples"]) == ("done", ["a.dng", "b.dng", "c.dng"], [])
    assert Path(row["output"]).name == "a.png" and row["ratio_source"] == "auto"
    assert "b.dng lies +2.0 down, -4.0 right" in row["notes"][-2] and "c.dng lies +0.0 down" in row["notes"][-1]
    assert b"frames a.dng, b.dng, c.dng" in (out / "a.png").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "contact-sheet-1.jpg"]
    assert read_picture(out / "a.png").shape == (*SIZE, 3)
    assert run(files, out, tiny_weights)[0]["status"] == "skipped"
    assert [path.read_bytes() for path in files] == before


def test_ratios_crops_and_file_names_work_for_scenes(files: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    (whole,) = run(files, tmp_path / "x.png", tiny_weights, ratio=40.0, ev=0.5)
    assert whole["ratio"] == pytest.approx(40 * 2**0.5, abs=1e-3)
    (part,) = run(files, tmp_path / "y.png", tiny_weights, ratio=40.0, ev=0.5, crop=(20, 30, 64, 50), wb=(2.0, 1, 1.5))
    pictures = [read_picture(tmp_path / f"{name}.png").astype(int) for name in "xy"]
    assert np.abs(pictures[0][30:80, 20:84] - pictures[1]).max() <= 16 and part["status"] == "done"
    (same,) = run(files, tmp_path / "z.png", tiny_weights, ratio="same", dry_run=True)
    assert same["status"] == "planned" and same["frames"] == ["a.dng", "b.dng", "c.dng"]


def test_a_bad_frame_is_left_out_with_a_note(files: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    files[1].write_bytes(b"no RAW at all")
    (row,) = run([*files, tmp_path / "gone.dng"], tmp_path / "one.png", tiny_weights)
    assert row["status"] == "done" and row["frames"] == ["a.dng", "c.dng"]
    assert any("b.dng was left out" in note for note in row["notes"])
    assert any("gone.dng was left out: it does not exist" in note for note in row["notes"])
    files[0].write_bytes(b"")
    (row,) = run(files, tmp_path / "two.png", tiny_weights)
    assert row["status"] == "done" and "c.dng is the reference instead." in row["notes"]
    assert "made from one; to take another as the reference, name it first" in row["notes"][-1]
    assert row["frames"] == ["c.dng"]
    for path in files:
        path.write_bytes(b"")
    (row,) = run(files, tmp_path / "three.png", tiny_weights)
    assert row["status"] == "failed" and "a.dng" in row["error"]
    (row,) = run(files, tmp_path / "three.png", tiny_weights, dry_run=True)
    assert row["status"] == "failed"


def test_sizes_that_differ_fail_the_scene_by_name(files: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    write(files[1], light(100, 120), 1)
    (row,) = run(files, tmp_path / "out", tiny_weights)
    assert row["status"] == "failed" and "b.dng" in row["error"] and "sizes" in row["error"]


def test_no_frame_of_a_scene_is_overwritten(files: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    (row,) = run(files, files[2], tiny_weights, overwrite=True)
    assert row["status"] == "failed" and "own result" in row["error"]
    linked = tmp_path / "out"
    linked.symlink_to(tmp_path)
    scenes = find_scenes(find_photos([str(files[1]), str(files[0])]), fuse=True)
    other = find_scenes(find_photos([str(write(tmp_path / "x" / "a.dng", light(*SIZE)))]))
    options = EnhanceOptions(out=linked, suffix=".dng", weights=tiny_weights, device="cpu", dry_run=True)
    outputs = [Path(row["output"]).name for row in enhance_files([*scenes, *other], options)]
    assert outputs == ["b.dng.dng", "a.dng.dng"]


def test_more_frames_than_a_network_was_made_for_are_named(
    files: list[Path], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SetMean()
    monkeypatch.setattr(module, "load_weights", lambda path, dtype: (model, {}))
    more = [write(tmp_path / f"{seed}.dng", light(*SIZE), seed) for seed in (7, 8)]
    (row,) = run([*files, *more], tmp_path / "out", tiny_weights)
    assert row["status"] == "done" and "5 frames were fused" in row["notes"][-1] and "at most 4" in row["notes"][-1]
    assert model.read[0].shape[1] == 5
    (row,) = run(files, tmp_path / "few", tiny_weights)
    assert not any("at most" in note for note in row["notes"])


@pytest.mark.slow
@pytest.mark.shared
def test_the_shipped_weights_make_more_of_a_real_burst(shared_data: Path) -> None:
    frames, mean = real_burst(shared_data)
    ratio = meter(mean)
    whole = Restorer(load_weights(find_weights(None))[0], replace(PLAIN, ensemble=1), "cpu")
    truth = whole.photo(mean, ratio).pixels
    restorers = [Restorer(load_weights(find_weights(name))[0]) for name in (None, BURST_WEIGHTS)]
    default, burst = (
        [psnr(restorer.photo(align(frames[:count]), ratio).pixels, truth) for count in (1, 2, 3, 4)]
        for restorer in restorers
    )
    assert sorted(burst) == burst
    assert burst[3] >= default[0] + 1 and burst[3] >= default[3] - 0.3


@pytest.mark.shared
def test_each_frame_of_a_real_burst_helps(shared_data: Path) -> None:
    frames, mean = real_burst(shared_data)
    ratio = meter(mean)
    truth = plain(mean, ratio)
    scores = [psnr(plain(align(frames[:count]), ratio), truth) for count in (1, 2, 3, 4)]
    assert sorted(scores) == scores and scores[3] - scores[0] > 5


def real_burst(shared_data: Path) -> tuple[list[RawFrame], RawFrame]:
    """Four dark frames of a scene that stands still, and the mean of its 64."""
    folder = shared_data / "burst_imx296"
    frames = [read_raw(folder / f"static_a_0{number}.dng") for number in range(4)]
    sixteenths = np.load(folder / "static_a_mean_of_64.npz")["mean_x16"]
    black, white = (tuple(16 * level for level in levels) for levels in (frames[0].black, frames[0].white))
    return frames, replace(frames[0], mosaic=np.round(sixteenths).astype(np.uint16), black=black, white=white)


def test_a_smaller_aperture_is_believed() -> None:
    burst = align([frame(light(*SIZE), 0, aperture=2.8), frame(light(*SIZE) / 2, 1, aperture=4.0)])
    assert burst.frames[1].gain == pytest.approx((4 / 2.8) ** 2) and "do not fit" not in burst.notes[0]


def test_longer_exposures_are_trusted() -> None:
    burst = align([frame(light(*SIZE), 0), frame(4 * light(*SIZE), 1, exposure_s=4.0)])
    assert burst.frames[1].trust.mean() > 0.97


@pytest.mark.parametrize(
    ("confidence", "correlation", "same"), [(20.0, 0.6, True), (20.0, 0.3, False), (5.0, 0.95, True), (5.0, 0.8, False)]
)
def test_one_scene_is_told_by_both_numbers(confidence: float, correlation: float, same: bool) -> None:
    assert same_scene(Registration((0.0, 0.0), confidence, correlation)) == same
