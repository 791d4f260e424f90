"""Synthetic pairs: the same step gives the same batch, and input and truth show the same light."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from training_material import SIDE_PX, training_names, write_photos

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.restoration import ModelTraits
from lowlight.data.noise import NoiseConfig
from lowlight.data.photos import PhotoSet, is_held_out, open_photos
from lowlight.data.scenes import procedural_scene
from lowlight.data.synthetic import SyntheticConfig, SyntheticSource, _flip, make_pairs, render_truth
from lowlight.ops.color import decode

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
CALM = SyntheticConfig(noise=SILENT, ratio=(30.0, 30.0), mild_share=0.0, scene_share=0.0)
TILE = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(count: int = 2, side: int = 2 * TILE) -> torch.Tensor:
    pictures = [procedural_scene(seed, 256)[:side, :side] for seed in range(count)]
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 255


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    return open_photos(write_photos(tmp_path_factory.mktemp("photos")))


def source(photos: PhotoSet, seed: int = 0, **options: object) -> SyntheticSource:
    config = SyntheticConfig(scene_share=0.0, **options)  # type: ignore[arg-type]
    return SyntheticSource(photos, ModelTraits(tile=TILE), config, 2, seed)


def test_a_batch_depends_on_seed_and_step_alone(photos: PhotoSet) -> None:
    forwards, backwards = source(photos), source(photos)
    there = {step: forwards.batch(step) for step in (0, 1, 2)}
    back = {step: backwards.batch(step) for step in (2, 0, 1)}
    for step, batch in there.items():
        for field in ("frames", "target", "ratio"):
            assert torch.equal(getattr(batch, field), getattr(back[step], field))
    assert not torch.equal(there[0].frames, there[1].frames)
    assert not torch.equal(there[0].target, source(photos, seed=1).batch(0).target)


@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("base", ["none", "lowpass"])
@pytest.mark.parametrize(("into", "out"), [("raw", "srgb"), ("wb", "camera")])
def test_shapes_and_ranges(upscale: int, base: str, into: str, out: str) -> None:
    traits = ModelTraits(tile=TILE, upscale=upscale, input_colour=into, output_colour=out, base=base)  # type: ignore[arg-type]
    batch = make_pairs(scenes(), traits, SyntheticConfig(), generator())
    assert batch.frames.shape == (2, 1, 4, TILE, TILE)
    assert batch.target.shape == (2, 3, upscale * TILE, upscale * TILE)
    assert batch.ratio.shape == (2, 1)
    assert (batch.base is None) == (base == "none")
    shown = [batch.frames, batch.target]
    if batch.base is not None:
        assert batch.base.shape == batch.target.shape
        shown.append(batch.base)
    for tensor in shown:
        assert torch.isfinite(tensor).all()
        assert tensor.min() >= 0
        assert tensor.max() <= 1


def test_without_noise_the_amplified_input_is_the_truth_at_each_site() -> None:
    traits = ModelTraits(tile=TILE, upscale=2, input_colour="wb", output_colour="camera")
    batch = make_pairs(scenes(), traits, CALM, generator())
    light = decode(batch.target)
    sites = {0: (0, 0, 0), 1: (1, 0, 1), 2: (2, 1, 1), 3: (1, 1, 0)}  # colour index: channel, row, column
    for plane, (channel, row, col) in sites.items():
        assert (batch.frames[:, 0, plane] - light[:, channel, row::2, col::2]).abs().max() < 0.01


def test_without_noise_the_lowpass_base_is_the_mean_of_the_truth() -> None:
    traits = ModelTraits(tile=TILE, upscale=2, input_colour="wb", output_colour="camera", base="lowpass")
    even = torch.full((2, 3, 2 * TILE, 2 * TILE), 0.4)
    batch = make_pairs(even, traits, CALM, generator())
    assert batch.base is not None
    assert (batch.base - batch.target).abs().max() < 0.01


def test_raw_input_is_the_balanced_one_before_its_gains() -> None:
    traits = ModelTraits(tile=TILE, input_colour="raw")
    balanced = dataclasses.replace(traits, input_colour="wb")
    raw = make_pairs(scenes(), traits, CALM, generator()).frames[:, 0]
    wb = make_pairs(scenes(), balanced, CALM, generator()).frames[:, 0]
    inside = (wb < 0.99) & (raw > 0.01)
    for item in range(2):
        for plane in range(4):
            where = inside[item, plane]
            gains = wb[item, plane][where] / raw[item, plane][where]
            assert gains.std() < 1e-4
            assert gains.min() > 0.999


def test_upscale_1_averages_blocks_in_linear_light() -> None:
    camera = torch.rand(1, 3, 8, 8, generator=generator())
    fine, coarse = (
        render_truth(camera, torch.eye(3)[None], ModelTraits(upscale=u, output_colour="camera")) for u in (2, 1)
    )
    blocks = decode(fine).reshape(1, 3, 4, 2, 4, 2).mean((3, 5))
    assert torch.allclose(decode(coarse), blocks, atol=1e-5)


@pytest.mark.parametrize("out", ["srgb", "camera"])
def test_clipped_highlights_are_neutral_white_in_the_truth(out: str) -> None:
    from lowlight.data.cameras import draw_matrices

    lamp = torch.tensor([4.0, 2.0, 1.2]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    traits = ModelTraits(upscale=2, output_colour=out)  # type: ignore[arg-type]
    white = render_truth(lamp, draw_matrices(1, generator()), traits)
    assert torch.allclose(white, torch.ones(1, 3, 4, 4), atol=1e-5)


def test_darker_pairs_are_noisier_and_not_darker_on_average() -> None:
    traits = ModelTraits(tile=TILE, input_colour="wb", output_colour="camera")
    even = torch.full((1, 3, 2 * TILE, 2 * TILE), 0.5)
    noise = NoiseConfig(black_mean=0.0, black_common=0.0, black_colour=0.0, poor_sensor_share=0.0)
    frames = []
    for ratio in (3.0, 100.0):
        config = SyntheticConfig(noise=noise, ratio=(ratio, ratio), mild_share=0.0, mean_light=(0.2, 0.2))
        frames.append(make_pairs(even, traits, config, generator()).frames)
    assert frames[1].std() > 2 * frames[0].std()
    assert frames[1].mean() == pytest.approx(float(frames[0].mean()), rel=0.1)


def test_the_eight_flips_are_all_different_and_move_pixels_only() -> None:
    picture = torch.arange(3 * 4 * 4).view(3, 4, 4)
    flipped = [_flip(picture, which) for which in range(8)]
    assert len({tuple(one.flatten().tolist()) for one in flipped}) == 8
    for one in flipped:
        assert torch.equal(one.flatten(1).sort().values, picture.flatten(1))


def test_crops_are_flipped_and_turned_every_way(tmp_path: Path) -> None:
    bright_on_top = np.linspace(220, 20, SIDE_PX).astype(np.uint8)[:, None, None]
    Image.fromarray(np.tile(bright_on_top, (1, SIDE_PX, 3))).save(tmp_path / training_names(1)[0])
    batches = SyntheticSource(open_photos(tmp_path), ModelTraits(tile=TILE), CALM, 24, 0)
    bright_sides = set()
    for picture in batches.batch(0).target.mean(1):
        edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
        bright_sides.add(int(torch.stack([edge.mean() for edge in edges]).argmax()))
    assert bright_sides == {0, 1, 2, 3}


def test_flips_come_before_the_mosaic(tmp_path: Path) -> None:
    """In a red scene the red plane is the bright one, however the crop was flipped."""
    red = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / training_names(1)[0])
    config = dataclasses.replace(CALM, tint=0.0, warmth=0.0, lamp_share=0.0)
    batches = SyntheticSource(open_photos(tmp_path), ModelTraits(tile=TILE, input_colour="wb"), config, 8, 0)
    for step in range(3):
        planes = batches.batch(step).frames[:, 0].mean((2, 3))
        assert planes.argmax(1).tolist() == [0] * 8


def test_one_unreadable_photo_does_not_stop_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = training_names(2)
    folder = write_photos(tmp_path, [good])
    (folder / bad).write_bytes((folder / good).read_bytes()[:500])
    batches = source(open_photos(folder))
    for step in range(6):
        assert torch.isfinite(batches.batch(step).frames).all()
    assert [bad in record.getMessage() for record in caplog.records] == [True]
    (folder / good).write_bytes(b"")
    with pytest.raises(DataError, match="none of the 2 photos"):
        source(open_photos(folder)).batch(0)


def test_photos_that_are_all_held_out_are_refused(tmp_path: Path) -> None:
    name = next(n for n in (f"p{i}.png" for i in range(999)) if is_held_out(n))
    train, aside = open_photos(write_photos(tmp_path, [name])).split()
    assert (len(train), len(aside)) == (0, 1)
    with pytest.raises(DataError, match="no photos to train on"):
        source(train)


def test_a_network_without_bayer_input_is_refused(photos: PhotoSet) -> None:
    with pytest.raises(ConfigError, match="packed RAW and colour"):
        SyntheticSource(photos, ModelTraits(out_channels=1), SyntheticConfig(), 1, 0)


def test_impossible_ranges_are_refused() -> None:
    with pytest.raises(ConfigError, match="ratio is 300"):
        SyntheticConfig(ratio=(300.0, 30.0))


def test_decoded_photos_are_kept_up_to_a_limit(photos: PhotoSet) -> None:
    fresh = photos.only(photos.names)
    fresh.keep_bytes = SIDE_PX * SIDE_PX * 3
    assert fresh[0] is fresh[0]
    assert fresh[1] is not fresh[1]
    assert np.array_equal(fresh[1], fresh[1])


def test_scenes_are_drawn_when_they_are_first_asked_for(photos: PhotoSet, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(seed: int) -> npt.NDArray[np.uint8]:
        drawn.append(seed)
        return procedural_scene(seed, 256)

    monkeypatch.setattr("lowlight.data.synthetic.procedural_scene", draw)
    scenes_alone = SyntheticSource(photos, ModelTraits(tile=TILE), SyntheticConfig(scene_share=1.0), 2, 0)
    first = scenes_alone.batch(0)
    assert 1 <= len(drawn) <= 2
    assert torch.equal(scenes_alone.batch(0).frames, first.frames)
    assert len(drawn) == len(set(drawn)) <= 2


@pytest.mark.parametrize("zoom", [600.0, 1e6])
def test_no_zoom_leaves_less_than_a_pixel(photos: PhotoSet, zoom: float) -> None:
    assert torch.isfinite(source(photos, zoom=(zoom, zoom)).batch(0).frames).all()


def test_scenes_are_pictures_that_their_seed_decides() -> None:
    first, again, other = (procedural_scene(seed, 256) for seed in (1, 1, 2))
    assert first.shape == (256, 256, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() > 5
