"""Several dark frames of one scene: synthetic ones, real ones, and whole photographs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_material import write_tree
from training_material import write_photos

from lowlight.core.errors import ConfigError, DataError, UsageError
from lowlight.core.photo import RGGB
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.bursts import average_burst, burst_margin, draw_burst, expose_burst, frame_count
from lowlight.data.cache import FrameRecord, SourceFile
from lowlight.data.dark_photos import dark_frame, synthetic_burst
from lowlight.data.decoding import SCALE
from lowlight.data.noise import NoiseConfig, draw_sensor
from lowlight.data.pairs import PairRow
from lowlight.data.photos import PhotoSet, open_photos
from lowlight.data.real_pairs import RealPairs, RealPairsConfig, open_real_pairs
from lowlight.data.scenes import procedural_scene
from lowlight.data.sid import burst_of
from lowlight.data.synthetic import SyntheticConfig, SyntheticSource, make_pairs
from lowlight.models import build_model, model_config
from lowlight.objectives import build_objective
from lowlight.ops.color import decode
from lowlight.ops.exposure import amplify, lowpass_base
from lowlight.ops.registration import register
from lowlight.ops.resampling import shifted
from lowlight.raw.bayer import pack
from lowlight.workflows.pairing.cache_options import CacheOptions
from lowlight.workflows.pairing.cache_pairs import cache_pairs

TILE = 32
CPU = torch.device("cpu")
SETS = ModelTraits(tile=TILE, max_frames=4, input_colour="wb", output_colour="camera")
SINGLE = ModelTraits(tile=TILE)
SILENT = NoiseConfig(
    gain=(1e-5, 1e-5),
    read_at_unit_gain=1e-6,
    poor_sensor_share=0.0,
    black_mean=0.0,
    black_common=0.0,
    black_colour=0.0,
    prnu=0.0,
    hot_share=0.0,
    steps_dn=(1e-3,),
)
# Of batches of one frame: see `summary`. Other numbers mean other draws, and that runs are not what they were.
SINGLE_FRAMES = [
    [0.1169829, 0.07871642, 0.297052, 15.69599],
    [0.1416187, 0.08152916, 0.3023757, 15.69599, 0.3160223],
    [0.08420939, 0.09570142, 0.1766304, 60.58322, 0.2466995],
    [0.05989963, 0.04848658, 0.1720813, 50.05626, 0.1992896],
    [0.1802741, 0.111046, 0.3782415, 175.0],
    [0.07962527, 0.06573618, 0.2194345, 175.0],
    [0.1804049, 0.1111543, 0.3802178, 175.0, 0.4026746],
    [0.07917802, 0.06563614, 0.2186847, 175.0, 0.2511015],
]
CALM = SyntheticConfig(noise=SILENT, ratio=(30.0, 30.0), mild_share=0.0, scene_share=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(side: int = 2 * TILE) -> torch.Tensor:
    pictures = [procedural_scene(seed, 256)[:side, :side] for seed in range(2)]
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 255


def summary(batch: Batch) -> list[float]:
    """Means and deviations that another order of random numbers would change."""
    tensors = [batch.frames, batch.frames.std((1, 2, 3, 4)), batch.target, batch.ratio]
    return [float(tensor.double().mean()) for tensor in (*tensors, *([] if batch.base is None else [batch.base]))]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    return open_photos(write_photos(tmp_path_factory.mktemp("photos")))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


def test_single_frames_are_always_the_same(photos: PhotoSet, tree: Path) -> None:
    full = ModelTraits(tile=TILE, upscale=2, input_colour="wb", output_colour="camera", base="lowpass")
    made = [make_pairs(scenes(), traits, SyntheticConfig(), generator(3)) for traits in (SINGLE, full)]
    full = replace(full, output_colour="srgb")
    synthetic = SyntheticSource(photos, full, SyntheticConfig(scene_count=2), 3, 5)
    made += [synthetic.batch(step) for step in (0, 7)]
    for traits in (replace(SINGLE, input_colour="wb"), full):
        real = open_real_pairs(tree, traits, RealPairsConfig(burst="any"), 2, 5, CPU)
        made += [real.batch(step) for step in (0, 7)]
    for batch, wanted in zip(made, SINGLE_FRAMES, strict=True):
        assert summary(batch) == pytest.approx(wanted, rel=1e-3)


def test_the_number_of_frames_is_one_for_a_batch_and_uniform(photos: PhotoSet) -> None:
    counts = [frame_count((1, 4), 0, step) for step in range(400)]
    assert set(counts) == {1, 2, 3, 4}
    assert max(counts.count(k) for k in (1, 2, 3, 4)) < 140
    assert counts != [frame_count((1, 4), 1, step) for step in range(400)]
    source = SyntheticSource(photos, SETS, replace(CALM, frames=(1, 4)), 2, 0)
    for step in range(3):
        assert source.batch(step).frames.shape == (2, counts[step], 4, TILE, TILE)
        assert source.batch(step).ratio.shape == (2, counts[step])
        assert torch.equal(source.batch(step).frames, source.batch(step).frames)


def test_frames_of_a_burst_show_one_light_with_noise_of_their_own() -> None:
    config = replace(CALM, noise=NoiseConfig(steps_dn=(1.0,)), ratio=(100.0, 100.0))
    noisy = make_pairs(scenes(), SETS, config, generator(), frames=3)
    clean = make_pairs(scenes(), SETS, CALM, generator(), frames=3)
    assert torch.allclose(clean.frames[:, 0], clean.frames[:, 2], atol=1e-3)
    rest = noisy.frames - noisy.frames.mean(1, keepdim=True)
    assert rest.std() > 0.01
    together = torch.corrcoef((noisy.frames - clean.frames).clamp(-0.2, 0.2)[0].flatten(1))
    # Clipping at black and the error of the black level are common to all; the noise is not.
    assert together[0, 1] < 0.6
    assert torch.equal(noisy.frames[:, 0], make_pairs(scenes(), SETS, config, generator(), frames=1).frames[:, 0])


def test_hot_pixels_stay_where_they_are_on_the_sensor() -> None:
    noise = NoiseConfig(hot_share=2e-3, poor_sensor_share=0.0)
    sensor = draw_sensor(1, noise, generator())
    sensor = replace(sensor, hot_share=torch.tensor([2e-3]))
    burst = draw_burst(torch.tensor([100.0]), 2, 0, 0, 0, generator())
    frames = expose_burst(torch.zeros(1, 3, 200, 200), burst, sensor, noise, generator(), 0)[0]
    hottest = [set(frame.flatten().topk(20).indices.tolist()) for frame in frames]
    assert len(hottest[0] & hottest[1]) > 15


def test_every_frame_is_amplified_by_its_own_exposure() -> None:
    config = replace(CALM, frames=(3, 3), burst_ratio_spread=1.0)
    batch = make_pairs(scenes(), SETS, config, generator(), frames=3)
    stops = torch.log2(batch.ratio / batch.ratio[:, :1])
    assert torch.equal(stops[:, 0], torch.zeros(2))
    assert stops.abs().max() <= 1
    assert stops[:, 1:].abs().min() > 0
    assert (batch.frames[:, 1:] - batch.frames[:, :1]).abs().max() < 2e-3
    limited = draw_burst(torch.tensor([1.0, 300.0]), 9, 2.0, 0, 0, generator()).ratio
    assert (float(limited.min()), float(limited.max())) == (1, 300)


@pytest.mark.parametrize("frames", [2, 4])
def test_the_base_is_that_of_the_mean_frame(frames: int) -> None:
    traits = replace(SETS, base="lowpass")
    batch = make_pairs(scenes(), traits, SyntheticConfig(), generator(), frames=frames)
    assert batch.base is not None
    coarse = lowpass_base(batch.frames.mean(1), "camera", None)
    blocks = torch.nn.functional.avg_pool2d(batch.base, 16)
    assert torch.allclose(blocks, coarse, atol=0.1)
    assert not torch.allclose(batch.base, make_pairs(scenes(), traits, SyntheticConfig(), generator()).base)  # type: ignore[arg-type]


def test_shaken_frames_lie_on_the_first_again_but_for_what_is_left() -> None:
    settled = replace(CALM, frames=(3, 3), shake_px=5.0)
    margin = burst_margin(5.0, 0.0)
    assert margin >= 7
    crops = scenes(2 * (TILE + 2 * margin))
    batch = make_pairs(crops, SETS, settled, generator(), frames=3)
    assert batch.frames.shape[-1] == TILE
    near = (batch.frames[:, 1:] - batch.frames[:, :1]).abs()
    assert near.mean() < 0.01
    # The truth is the first frame's, not resampled: nowhere else does it fit better.
    green = (batch.frames[:, 0, 1] + batch.frames[:, 0, 3])[:, 2:-2, 2:-2] / 2
    light = decode(batch.target)[:, 1]
    errors = {
        (row, col): float((light.roll((row, col), (1, 2))[:, 2:-2, 2:-2] - green).square().mean())
        for row in (-1, 0, 1)
        for col in (-1, 0, 1)
    }
    assert min(errors, key=lambda shift: errors[shift]) == (0, 0)
    loose = replace(CALM, frames=(3, 3), shake_left_px=3.0)
    crops = scenes(2 * (TILE + 2 * burst_margin(0.0, 3.0)))
    left = make_pairs(crops, SETS, loose, generator(), frames=3)
    assert (left.frames[:, 1:] - left.frames[:, :1]).abs().mean() > 2 * near.mean()


def test_what_shake_leaves_is_the_shift_that_was_drawn() -> None:
    burst = draw_burst(torch.full((3,), 30.0), 4, 0.0, 6.0, 0.5, generator())
    assert burst.shift[:, 0].abs().max() == 0
    left = burst.shift - burst.undone
    assert 0.1 < left.abs().max() <= 0.5
    assert 2 < burst.undone.abs().max() <= 6
    raw = torch.from_numpy(procedural_scene(5, 256)).movedim(-1, 0)[None].float() / 255 * 0.5
    one = replace(burst, ratio=torch.ones(1, 2), shift=torch.tensor([[[0.0, 0.0], [2.5, -1.25]]]))
    one = replace(one, undone=torch.zeros(1, 2, 2))
    sensor = draw_sensor(1, SILENT, generator())
    frames = expose_burst(raw, one, sensor, SILENT, generator(), 4)[0]
    assert register(frames[0], frames[1]).shift == pytest.approx((2.5, -1.25), abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": (0, 2)}, "at least 1"),
        ({"frames": (3, 2)}, "low first"),
        ({"shake_px": -1.0}, "shake_px"),
        ({"burst_ratio_spread": 99.0}, "burst_ratio_spread"),
    ],
)
def test_impossible_bursts_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticConfig(**options)  # type: ignore[arg-type]


def test_networks_of_single_frames_get_the_mean_of_synthetic_bursts(photos: PhotoSet) -> None:
    config = replace(CALM, noise=NoiseConfig(), frames=(4, 4), burst_ratio_spread=1.0)
    one, four = (make_pairs(scenes(), SINGLE, config, generator(), frames=frames) for frames in (1, 4))
    assert four.frames.shape == one.frames.shape == (2, 1, 4, TILE, TILE)
    assert torch.equal(four.ratio, one.ratio) and torch.equal(four.target, one.target)
    clean = make_pairs(scenes(), SINGLE, replace(config, noise=SILENT), generator(), frames=1).frames
    errors = [float((batch.frames - clean).std()) for batch in (one, four)]
    assert errors[1] < 0.65 * errors[0]
    assert SyntheticSource(photos, SINGLE, SyntheticConfig(frames=(2, 2)), 1, 0).batch(0).frames.shape[1] == 1


def test_a_mean_is_at_the_first_ones_brightness_and_weighs_by_noise() -> None:
    light = torch.rand(2, 1, 4, 8, 8, generator=generator())
    ratio = torch.tensor([[10.0, 10.0, 20.0], [30.0, 60.0, 15.0]])
    packed = light * (ratio[:, :1] / ratio)[..., None, None, None]
    torch.testing.assert_close(average_burst(packed, ratio), light)
    noisy = torch.randn(1, 2, 4, 64, 64, generator=generator())
    mean = average_burst(noisy + 9, torch.tensor([[1.0, 1.0]]))
    assert float(mean.std()) == pytest.approx(0.5**0.5, rel=0.02)
    assert average_burst(torch.full((1, 2, 4, 2, 2), -1.0), torch.ones(1, 2)).abs().max() == 0  # clipped at black


def test_some_batches_have_no_frames_and_all_else_stays(photos: PhotoSet, tree: Path) -> None:
    synthetic, real = replace(CALM, frames=(2, 2)), RealPairsConfig(burst="any", frames=(2, 2))
    for always, sometimes in (
        (
            SyntheticSource(photos, SETS, config, 2, 0)
            for config in (synthetic, replace(synthetic, zero_frame_prob=0.4))
        ),
        (open_real_pairs(tree, SETS, each, 2, 0, CPU) for each in (real, replace(real, zero_frame_prob=0.4))),
    ):
        counts = []
        for step in range(12):
            batch, as_ever = sometimes.batch(step), always.batch(step)
            count = batch.frames.shape[1]
            counts.append(count)
            assert torch.equal(batch.target, as_ever.target) and batch.ratio.shape == batch.frames.shape[:2]
            assert torch.equal(batch.frames, as_ever.frames[:, :count])
        assert set(counts) == {0, 2} and 2 <= counts.count(0) <= 8


def test_networks_learn_without_frames_only_where_they_can(photos: PhotoSet, tree: Path) -> None:
    network = build_model("fusion-raw", model_config("fusion-raw", {"base_channels": 4, "channel_cap": 8, "latent": 2}))
    config = SyntheticConfig(frames=(1, 2), zero_frame_prob=0.99, scene_share=0.0)
    batch = SyntheticSource(photos, network.traits, config, 1, 0).batch(0)
    assert batch.frames.shape[1] == 0
    loss = build_objective("fusion")(network, batch, 0.5, generator())
    loss.total.backward()
    assert loss.total.isfinite() and network.decoder.start.grad.abs().max() > 0
    for traits in (SINGLE, replace(SETS, base="lowpass")):
        with pytest.raises(ConfigError, match="but this model needs a frame"):
            SyntheticSource(photos, traits, config, 1, 0)
        with pytest.raises(ConfigError, match="but this model needs a frame"):
            open_real_pairs(tree, traits, RealPairsConfig(zero_frame_prob=0.1), 1, 0, CPU)
    with pytest.raises(ConfigError, match=r"zero_frame_prob is 1\.0; expected 0 to less than 1"):
        SyntheticConfig(zero_frame_prob=1.0)


def test_networks_of_single_frames_get_no_real_bursts(tree: Path) -> None:
    with pytest.raises(ConfigError, match="reads one frame"):
        open_real_pairs(tree, SINGLE, RealPairsConfig(frames=(1, 2)), 1, 0, CPU)


def test_bursts_of_a_sid_folder_and_its_cache(tree: Path, tmp_path: Path) -> None:
    cache_pairs(tree, tmp_path / "cache", CacheOptions(truth_size="full"))
    config = RealPairsConfig(burst="any", frames=(3, 3))
    sources = [open_real_pairs(path, SETS, config, 2, 0, CPU) for path in (tree, tmp_path / "cache")]
    for step in range(3):
        batch, again = (source.batch(step) for source in sources)
        assert batch.frames.shape == (2, 3, 4, TILE, TILE)
        assert torch.equal(batch.ratio, again.ratio)
        # Four frames a scene, two exposures: three of them are never the same.
        for item in batch.frames:
            assert not any(torch.equal(item[i], item[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
            coarse = torch.nn.functional.avg_pool2d(item, 8)
            assert (coarse - coarse.mean(0)).abs().mean() < 0.05
    assert {tuple(sorted(set(row))) for step in range(3) for row in sources[0].batch(step).ratio.tolist()} == {
        (100.0, 250.0)
    }


class FlatStore:
    """Frames whose value is their index; every row is a scene, a dark and a bright name."""

    truth_size = "half"

    def __init__(self, rows: list[tuple[str, str, str]], sides: dict[int, int] | None = None) -> None:
        self.rows = [PairRow(Path(dark), Path(bright), scene, ratio=1.0) for scene, dark, bright in rows]
        self.sides = sides or {}

    def record(self, index: int) -> FrameRecord:
        levels = {"black": (0.0,) * 4, "white": (float(SCALE),) * 4, "wb": (1.0,) * 4, "wb_source": "camera"}
        shape = {"shape": (40, 40, 4), "size": (80, 80), "pattern": RGGB}
        return FrameRecord(file="", sha256="", source=SourceFile("", 0, 0, ""), **shape, **levels)  # type: ignore[arg-type]

    def ratio(self, index: int) -> float:
        return 1.0

    def frame(self, index: int) -> np.ndarray:
        side = self.sides.get(index, 40)
        row, col = np.mgrid[:side, :side]
        return np.stack([row, col, np.full_like(row, index), row * 0], -1).astype(np.uint16)

    def truth(self, index: int) -> np.ndarray:
        return self.frame(index)[..., :3]

    def digest(self) -> str:
        return "flat"


def chosen(store: FlatStore, frames: int, steps: int = 8) -> list[list[int]]:
    """Indices of the frames of every item; all frames are cut from one place."""
    pairs = RealPairs(store, SETS, RealPairsConfig(frames=(frames, frames)), 2, 0)  # type: ignore[arg-type]
    values = torch.cat([pairs.batch(step).frames for step in range(steps)]).mul(SCALE).round().int()
    assert all(torch.equal(item[0, :2], other[:2]) for item in values for other in item)
    return values[:, :, 2, 0, 0].tolist()


def test_frames_of_a_manifest_with_one_bright_picture_are_a_burst() -> None:
    store = FlatStore([("room", f"d{i}.dng", "b.png") for i in range(4)] + [("room", "d4.dng", "crop.png")])
    for indices in chosen(store, 3):
        assert len(set(indices)) == (3 if indices[0] < 4 else 1)
        assert (4 in indices) == (indices[0] == 4)


def test_frames_come_twice_only_where_there_are_too_few() -> None:
    store = FlatStore([("a", "d0.dng", "a.png"), ("a", "d1.dng", "a.png"), ("b", "d2.dng", "b.png")])
    for indices in chosen(store, 3):
        assert set(indices) == ({0, 1} if indices[0] < 2 else {2})


def test_a_scene_in_sids_names_is_a_burst_whatever_its_truths() -> None:
    rows = [PairRow(Path(f"00001_0{i}_0.1s.ARW"), Path(f"00001_0{i}_10s.ARW"), "x") for i in range(2)]
    assert burst_of(rows[0]) == burst_of(rows[1])
    assert burst_of(replace(rows[0], dark=Path("a.dng"))) != burst_of(replace(rows[1], dark=Path("b.dng")))


def test_frames_of_different_sizes_are_no_burst() -> None:
    store = FlatStore([("a", "d0.dng", "a.png"), ("a", "d1.dng", "a.png")], sides={1: 36})
    with pytest.raises(DataError, match=r"d[01].dng and d[01].dng"):
        chosen(store, 2)


def test_dark_photos_are_frames_of_one_truth() -> None:
    photo = procedural_scene(2, 256)[:201, :255]
    frames, truth = synthetic_burst(photo, 3, (100.0, 100.0, 50.0), 4)
    assert [frame.size for frame in frames] == [(200, 254)] * 3
    assert truth.shape == (3, 200, 254)
    alone, same = dark_frame(photo, 100.0, 4)
    assert np.array_equal(alone.mosaic, frames[0].mosaic)
    assert torch.equal(same, truth)
    gains = torch.tensor(frames[0].wb_gains)
    bright = [amplify(pack(frame), ratio, gains, "wb") for frame, ratio in zip(frames, (100, 100, 50), strict=True)]
    assert not np.array_equal(frames[0].mosaic, frames[1].mosaic)
    errors = [float((torch.stack(bright[:n]).mean(0)[1] - bright[2][1]).square().mean()) for n in (1, 2)]
    assert errors[1] < errors[0]
    assert frames[2].metadata.exposure_s == 0.2


def test_dark_photos_that_move_can_be_laid_on_the_first() -> None:
    photo = procedural_scene(2, 256)
    spare = burst_margin(4.0, 0)
    still, truth = synthetic_burst(photo, 2, 50.0, 4, spare_px=spare)
    moving, same = synthetic_burst(photo, 2, 50.0, 4, shake_px=4.0)
    assert torch.equal(truth, same)
    assert np.array_equal(still[0].mosaic, moving[0].mosaic)
    gains = torch.tensor(still[0].wb_gains)
    first, second = (amplify(pack(frame), 50.0, gains, "wb") for frame in moving)
    found = register(first, second).shift
    assert max(map(abs, found)) > 0.5
    before, after = ((first - frame)[:, 6:-6, 6:-6].square().mean() for frame in (second, shifted(second, found)))
    assert after < before


def test_photos_that_cannot_be_made_dark_are_refused() -> None:
    with pytest.raises(UsageError, match="too small"):
        synthetic_burst(procedural_scene(0, 256)[:40, :40], 2, 30.0, 0, shake_px=8.0)
    with pytest.raises(UsageError, match="ratio of at least 1"):
        synthetic_burst(procedural_scene(0, 256), 2, (30.0,), 0)
