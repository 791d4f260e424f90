"""From a frame to a picture: tiles, phases, windows, strength, memory and number formats."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lowlight.checkpoint import load_weights
from lowlight.core.errors import OutputError, UsageError
from lowlight.core.photo import BGGR, GBRG, GRBG, RGGB, CfaPattern, RawFrame
from lowlight.core.restoration import Condition, Gaussian, ModelTraits, Restoration
from lowlight.models import build_model, model_config
from lowlight.ops.blending import tile_weights
from lowlight.ops.dark_srgb import dark_srgb
from lowlight.ops.exposure import upsample_window
from lowlight.ops.resize import mean_of_blocks
from lowlight.ops.tiling import GridRule, TileGrid, dense, sparse
from lowlight.raw.bayer import pack
from lowlight.raw.read import read_raw
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.tile_source import TileSource
from lowlight.workflows.enhancing.contact_sheet import cut_mosaic
from lowlight.workflows.evaluating.baselines import amplified

PHASES = (RGGB, GRBG, GBRG, BGGR)
MATRIX = np.array([[1.7, -0.6, -0.1], [-0.2, 1.5, -0.3], [0.0, -0.5, 1.5]], dtype=np.float32)


class Copy(nn.Module):
    """Gives back what it reads: at packed size the mean of the planes, at full size the mosaic itself."""

    def __init__(self, upscale: int = 2, **traits: object) -> None:
        super().__init__()
        self.traits = ModelTraits(upscale=upscale, output_colour="camera", **traits)  # type: ignore[arg-type]
        self.calls: list[int] = []

    def condition(self, frames: Tensor, base: Tensor | None = None) -> Condition:
        raise NotImplementedError

    def posterior(self, target: Tensor) -> Gaussian:
        raise NotImplementedError

    def decode(self, z: Tensor, condition: Condition) -> Tensor:
        raise NotImplementedError

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Tensor | None = None) -> Restoration:
        self.calls.append(len(frames))
        r, g1, b, g2 = frames[:, 0].unbind(1)
        if self.traits.upscale == 1:
            gray = ((r + g1 + b + g2) / 4)[:, None]
        else:
            gray = nn.functional.pixel_shuffle(torch.stack((r, g1, g2, b), 1), 2)
        return Restoration(gray.expand(-1, self.traits.out_channels, -1, -1))


def frame_of(mosaic: npt.NDArray[np.uint16], pattern: CfaPattern = RGGB, **changes: object) -> RawFrame:
    """A frame on which amplifying by 1 changes nothing."""
    levels = {"black": (0.0,) * 4, "white": (65535.0,) * 4, "wb": (1.0,) * 4, "wb_source": "camera"}
    return RawFrame(mosaic, pattern, **{**levels, "camera_to_srgb": None, **changes})  # type: ignore[arg-type]


def random_mosaic(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 65536, (height, width), dtype=np.uint16)


def night(height: int, width: int) -> npt.NDArray[np.uint16]:
    """A dark scene in DN above a black level of 512, with noise."""
    rows, cols = np.mgrid[0:height, 0:width]
    light = 60 + 50 * np.sin(rows / 37) * np.cos(cols / 23) + 40 * ((rows // 64 + cols // 48) % 2)
    return np.clip(np.random.default_rng(3).normal(512 + light, 3), 0, 16383).astype(np.uint16)


def night_frame(height: int = 400, width: int = 600, pattern: CfaPattern = RGGB) -> RawFrame:
    levels = {"black": (512.0,) * 4, "white": (16383.0,) * 4, "wb": (2.0, 1.0, 1.5, 1.0)}
    return frame_of(night(height, width), pattern, camera_to_srgb=MATRIX, **levels)


@pytest.fixture(scope="module")
def tiny(tiny_weights: Path) -> nn.Module:
    return load_weights(tiny_weights)[0]


def fp32(**options: object) -> RestorerOptions:
    return RestorerOptions(precision="fp32", **options)  # type: ignore[arg-type]


def apart(first: npt.NDArray[np.uint16], second: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    return np.abs(first.astype(np.int64) - second)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.sampled_from(PHASES))
def test_a_copying_network_gives_back_small_frames(height: int, width: int, pattern: CfaPattern) -> None:
    mosaic = random_mosaic(height, width)
    pixels = Restorer(Copy(), fp32(), "cpu").photo(frame_of(mosaic, pattern), 1.0).pixels
    assert pixels.shape == (height, width, 3)
    assert apart(pixels, mosaic[..., None]).max() <= 1


@pytest.mark.parametrize("pattern", PHASES)
@pytest.mark.parametrize(("height", "width"), [(511, 700), (514, 513), (900, 512), (1023, 1025)])
@pytest.mark.parametrize("rule", [GridRule(stride=200), sparse()])
def test_a_copying_network_gives_back_frames_of_many_tiles(
    height: int, width: int, pattern: CfaPattern, rule: GridRule
) -> None:
    mosaic = random_mosaic(height, width)
    pixels = Restorer(Copy(), fp32(grid=rule), "cpu").photo(frame_of(mosaic, pattern), 1.0).pixels
    assert apart(pixels, mosaic[..., None]).max() <= 1


@pytest.mark.parametrize("pattern", PHASES)
@pytest.mark.parametrize(("height", "width"), [(2, 3), (97, 130), (600, 515)])
def test_at_packed_size_each_block_of_the_mosaic_gives_a_pixel(height: int, width: int, pattern: CfaPattern) -> None:
    mosaic = random_mosaic(height, width)
    pixels = Restorer(Copy(upscale=1), fp32(), "cpu").photo(frame_of(mosaic, pattern), 1.0).pixels
    assert pixels.shape == ((height + 1) // 2, (width + 1) // 2, 3)
    whole = mosaic[: height // 2 * 2, : width // 2 * 2].astype(np.int64)
    means = (whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2]) / 4
    assert np.abs(pixels[: height // 2, : width // 2, 1] - means).max() <= 1


@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("size", ["native", "half"])
def test_windows_of_a_copy(upscale: int, size: str) -> None:
    mosaic = random_mosaic(530, 560)
    restorer = Restorer(Copy(upscale=upscale), fp32(size=size), "cpu")
    frame = frame_of(mosaic)
    whole = restorer.photo(frame, 1.0).pixels
    window = restorer.photo(frame, 1.0, window=(102, 36, 61, 40)).pixels
    odd = restorer.photo(frame, 1.0, window=(103, 37, 61, 40)).pixels
    if upscale == 2 and size == "native":
        np.testing.assert_array_equal(window, whole[36:76, 102:163])
        np.testing.assert_array_equal(odd, whole[37:77, 103:164])
    else:
        np.testing.assert_array_equal(window, whole[18:38, 51 : 51 + window.shape[1]])
        assert window.shape[1] in (30, 31)
        # Blocks are those of the whole picture, so the window begins with the block that it begins in.
        np.testing.assert_array_equal(odd[:18, :30], whole[18:36, 51:81])


@pytest.mark.parametrize("pattern", PHASES)
@pytest.mark.parametrize("window", [(0, 0, 600, 400), (301, 107, 64, 33), (555, 371, 45, 29), (7, 0, 2, 2)])
def test_a_window_is_that_part_of_the_whole(
    tiny: nn.Module, pattern: CfaPattern, window: tuple[int, int, int, int]
) -> None:
    restorer = Restorer(tiny, fp32(grid=GridRule(stride=128)), "cpu")
    frame = night_frame(pattern=pattern)
    x, y, width, height = window
    whole = restorer.photo(frame, 60.0).pixels[y : y + height, x : x + width]
    assert apart(restorer.photo(frame, 60.0, window=window).pixels, whole).max() <= 16


def test_a_window_costs_only_the_tiles_it_touches() -> None:
    model = Copy()
    restorer = Restorer(model, fp32(grid=GridRule(overlap=0), batch=1), "cpu")
    frame = frame_of(random_mosaic(1536, 1536))
    restorer.photo(frame, 1.0)
    assert len(model.calls) == 9
    model.calls.clear()
    restorer.photo(frame, 1.0, window=(520, 600, 100, 100))
    assert len(model.calls) == 1


def phase_differences(restorer: Restorer, frame: RawFrame, ratio: float) -> list[float]:
    """Mean differences, in 8-bit steps, between pictures of one mosaic read from four corners, where they overlap."""
    height, width = (size - 1 for size in frame.size)
    pictures = {}
    for row, col in ((0, 0), (0, 1), (1, 0), (1, 1)):
        shifted = cut_mosaic(frame, (col, row, width, height))
        pixels = restorer.photo(shifted, ratio).pixels
        pictures[row, col] = pixels[33 - row : height - 33 - row, 33 - col : width - 33 - col]
    return [float(apart(pictures[0, 0], other).mean() / 257) for other in pictures.values()]


def test_the_four_phases_of_one_mosaic_give_the_same_picture(tiny: nn.Module) -> None:
    assert max(phase_differences(Restorer(Copy(), fp32(), "cpu"), frame_of(random_mosaic(701, 641)), 1.0)) < 0.01
    restorer = Restorer(tiny, fp32(), "cpu")
    differences = phase_differences(restorer, night_frame(601, 641), 60.0)
    assert differences[0] == 0 and max(differences) < 2
    # The test can fail: one pixel beside it, the picture is another.
    whole = restorer.photo(night_frame(), 60.0).pixels
    assert apart(whole[1:], whole[:-1]).mean() / 257 > max(differences)


@pytest.mark.shared
def test_the_four_phases_of_a_real_mosaic_give_the_same_picture(shared_data: Path) -> None:
    shipped = sorted((Path(__file__).parents[1] / "weights").glob("*.safetensors"))
    if not shipped:
        pytest.skip("no weights are shipped yet")
    model = load_weights(shipped[0])[0]
    frame = read_raw(shared_data / "sid_pairs" / "sid_00002_28_x100_short.dng")
    assert max(phase_differences(Restorer(model, fp32(grid=sparse()), "cpu"), frame, 100.0)) < 2


@pytest.mark.parametrize("pattern", PHASES)
def test_strength_0_is_plain_development_and_needs_no_network(pattern: CfaPattern) -> None:
    model = Copy()
    frame = night_frame(535, 601, pattern)
    pixels = Restorer(model, fp32(strength=0.0), "cpu").photo(frame, 60.0).pixels
    assert model.calls == []
    assert apart(pixels, amplified(frame, 60.0, half=False)).max() <= 64  # of 65535: the toe of the curve is steep


def test_strength_mixes_in_proportion(tiny: nn.Module) -> None:
    frame = replace(night_frame(), camera_to_srgb=None)
    plain, mixed, full = (
        Restorer(tiny, fp32(strength=strength), "cpu").photo(frame, 60.0).pixels.astype(float)
        for strength in (0.0, 0.25, 1.0)
    )
    assert np.abs(plain - full).max() > 2000
    assert np.abs(0.75 * plain + 0.25 * full - mixed).max() < 3


def srgb_model(**options: object) -> nn.Module:
    return build_model("sid-net", model_config("sid-net", {"base_channels": 2, "latent": 4, **options}))


@pytest.mark.parametrize("matrix", [MATRIX, None])
@pytest.mark.parametrize("upscale", [1, 2])
def test_models_of_the_thesis_give_finished_srgb(upscale: int, matrix: npt.NDArray[np.float32] | None) -> None:
    model = srgb_model(upscale=upscale, base="lowpass", input_colour="raw")
    frame = replace(night_frame(101, 120), camera_to_srgb=matrix)
    restored = Restorer(model, fp32(), "cpu").photo(frame, 60.0, keep_linear=True)
    assert restored.pixels.shape == ((51, 60, 3) if upscale == 1 else (101, 120, 3))
    assert restored.linear is not None and restored.linear.wb == (1.0, 1.0, 1.0)
    # The head starts at zero, so this is the base picture: about as bright as the plain one.
    plain = amplified(frame, 60.0, half=upscale == 1)
    assert abs(restored.pixels.mean() / plain.mean() - 1) < 0.15
    mixed = Restorer(model, fp32(strength=0.5), "cpu").photo(frame, 60.0).pixels
    assert apart(mixed, plain).mean() < apart(restored.pixels, plain).mean()


def test_gray_pictures() -> None:
    model = Copy(out_channels=1)
    model.traits = replace(model.traits, output_colour="srgb")
    frame = night_frame(90, 100)
    for strength in (1.0, 0.5, 0.0):
        restored = Restorer(model, fp32(strength=strength), "cpu").photo(frame, 20.0, keep_linear=True)
        assert restored.pixels.shape == (90, 100, 1) and restored.pixels.max() > 5000
        assert restored.linear is not None and restored.linear.pixels.shape == (90, 100, 3)


class CopySrgb(Copy):
    """Gives back the dark sRGB picture that it reads."""

    def __init__(self) -> None:
        super().__init__(upscale=1, in_channels=3)
        self.traits = replace(self.traits, output_colour="srgb")

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Tensor | None = None) -> Restoration:
        return Restoration(frames[:, 0])


def test_networks_of_dark_srgb_read_what_libraw_would_brighten(dark_dng: Path) -> None:
    import rawpy

    ratio = 40.0
    pixels = Restorer(CopySrgb(), fp32(), "cpu").photo(read_raw(dark_dng), ratio).pixels
    with rawpy.imread(str(dark_dng)) as raw:
        theirs = raw.postprocess(
            use_camera_wb=True, half_size=True, no_auto_bright=True, output_bps=16, user_flip=0, bright=ratio
        )
    # The mosaic begins with green, so the packed picture begins one column earlier than LibRaw's blocks.
    assert pixels.shape[0] == theirs.shape[0] and pixels.mean() > 3000
    assert abs(pixels[:, : theirs.shape[1]].mean() / theirs.mean() - 1) < 0.02


@pytest.mark.parametrize("amplify", ["linear", "encoded"])
def test_networks_of_dark_srgb_see_in_tiles_what_they_were_trained_on(amplify: Literal["linear", "encoded"]) -> None:
    frame, model = night_frame(540, 700), CopySrgb()
    model.traits = replace(model.traits, amplify=amplify)
    pixels = Restorer(model, fp32(), "cpu").photo(frame, 60.0).pixels
    matrix = torch.from_numpy(MATRIX)
    seen = dark_srgb(pack(frame)[None], torch.tensor([60.0]), torch.tensor([frame.wb_gains]), matrix, amplify)[0]
    expected = (seen.movedim(0, -1).numpy() * 65535 + 0.5).astype(np.uint16)
    assert apart(pixels, expected).max() <= 1
    if amplify == "encoded":
        return
    plain = Restorer(CopySrgb(), fp32(strength=0.0), "cpu").photo(frame, 60.0).pixels
    assert plain.shape == pixels.shape and abs(plain.mean() / pixels.mean() - 1) < 0.1


@pytest.mark.parametrize("upscale", [1, 2])
def test_pix2pix_runs(upscale: int) -> None:
    model = build_model("pix2pix", model_config("pix2pix", {"base_channels": 2, "upscale": upscale}))
    assert Restorer(model, fp32(), "cpu").photo(night_frame(60, 70), 60.0).pixels.shape[:2] == (
        (30, 35) if upscale == 1 else (60, 70)
    )


@pytest.mark.parametrize("name", ["lapcvae-faces", "fcn"])
def test_networks_for_finished_pictures_are_refused(name: str) -> None:
    options = {"fcn": {"channels": 3, "likelihood": "laplace"}}.get(name, {})
    with torch.device("meta"):
        network = build_model(name, model_config(name, options))
    with pytest.raises(UsageError, match="for finished pictures of one size, not for RAW photos"):
        Restorer(network, fp32(), "cpu")


def test_half_size_is_the_mean_of_blocks_of_the_full_picture(tiny: nn.Module) -> None:
    frame = night_frame(601, 403)
    full, half = (Restorer(tiny, fp32(size=size), "cpu").photo(frame, 60.0).pixels for size in ("full", "half"))
    np.testing.assert_array_equal(half, mean_of_blocks(full))


def test_equal_photos_give_equal_pictures_again_and_again(tiny: nn.Module) -> None:
    restorer = Restorer(tiny, RestorerOptions(), "cpu")
    first, other, again = (
        restorer.photo(night_frame(*size), 60.0).pixels for size in ((400, 600), (90, 70), (400, 600))
    )
    np.testing.assert_array_equal(first, again)
    assert other.shape == (90, 70, 3)


def test_bf16_is_close_to_fp32(tiny: nn.Module, tiny_weights: Path) -> None:
    frame = night_frame()
    exact = Restorer(tiny, fp32(), "cpu").photo(frame, 60.0).pixels
    rough = Restorer(load_weights(tiny_weights)[0], RestorerOptions(precision="bf16"), "cpu").photo(frame, 60.0).pixels
    assert 0 < apart(exact, rough).mean() < 257


class Greedy(nn.Module):
    """A network whose memory runs out above a number of tiles at a time."""

    def __init__(self, network: nn.Module, most: int, error: Exception) -> None:
        super().__init__()
        self.network, self.most, self.error = network, most, error
        self.traits = network.traits
        self.calls: list[int] = []

    condition, posterior, decode = Copy.condition, Copy.posterior, Copy.decode

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Tensor | None = None) -> Restoration:
        self.calls.append(len(frames))
        if len(frames) > self.most:
            raise self.error
        return self.network.restore(frames, base, noise)  # type: ignore[operator]


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_the_batch_is_halved_where_memory_runs_out(tiny: nn.Module, error: Exception) -> None:
    frame = night_frame(900, 1000)
    expected = Restorer(tiny, fp32(batch=2), "cpu").photo(frame, 60.0)
    model = Greedy(tiny, 2, error)
    restored = Restorer(model, fp32(batch=8), "cpu").photo(frame, 60.0)
    assert (expected.batch, restored.batch) == (2, 2)
    assert model.calls[:3] == [8, 4, 2] and set(model.calls[2:]) <= {1, 2}
    np.testing.assert_array_equal(expected.pixels, restored.pixels)


def test_a_single_tile_that_does_not_fit_and_other_errors_are_raised(tiny: nn.Module) -> None:
    with pytest.raises(MemoryError, match="single tile"):
        Restorer(Greedy(tiny, 0, OUT_OF_MEMORY[0]), fp32(), "cpu").photo(night_frame(), 60.0)
    model = Greedy(tiny, 0, RuntimeError("sizes differ"))
    with pytest.raises(RuntimeError, match="sizes differ"):
        Restorer(model, fp32(), "cpu").photo(night_frame(), 60.0)
    assert len(model.calls) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(tiny_weights: Path, value: float) -> None:
    model = load_weights(tiny_weights)[0]
    model.decoder.head[0].bias[0] = value  # type: ignore[union-attr, index, operator]
    with pytest.raises(OutputError, match="not finite"):
        Restorer(model, fp32(), "cpu").photo(night_frame(), 60.0)


def test_between_batches_the_caller_may_end_the_work() -> None:
    calls: list[int] = []

    def third_time() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    model = Copy()
    with pytest.raises(KeyboardInterrupt):
        Restorer(model, fp32(batch=1), "cpu").photo(frame_of(random_mosaic(900, 900)), 1.0, between=third_time)
    assert len(model.calls) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "double"}, "no size"),
        ({"strength": 1.5}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"batch": 0}, "batch"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RestorerOptions(**options)  # type: ignore[arg-type]


def test_models_that_cannot_do_what_is_asked_are_refused() -> None:
    with pytest.raises(UsageError, match="half the sensor"):
        Restorer(Copy(upscale=1), fp32(size="full"), "cpu")
    with pytest.raises(UsageError, match="5 planes"):
        Restorer(Copy(in_channels=5), fp32(), "cpu")
    with pytest.raises(UsageError, match="precision"):
        Restorer(Copy(), RestorerOptions(precision="int8"), "cpu")


def test_memory_does_not_grow_with_the_number_of_tiles() -> None:
    import tracemalloc

    model = Copy()
    frame = frame_of(random_mosaic(2048, 512))
    peaks, tiles = [], []
    for stride in (256, 64):
        restorer = Restorer(model, fp32(grid=GridRule(stride=stride), batch=2), "cpu")
        model.calls.clear()
        tracemalloc.start()
        restorer.photo(frame, 1.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        tiles.append(sum(model.calls))
    assert tiles[1] > 2.5 * tiles[0] and peaks[1] < 1.1 * peaks[0]


def test_a_pyramid_can_stop_at_a_coarser_level() -> None:
    from lapcvae_material import raw_model

    frame = night_frame(120, 136)
    options = fp32(grid=GridRule(overlap=16))
    restorers = [Restorer(raw_model(), replace(options, levels=level), "cpu") for level in (1, 2, 3)]
    pictures = [restorer.photo(frame, 60.0).pixels.astype(float) for restorer in restorers]
    assert pictures[0].shape == pictures[1].shape == pictures[2].shape
    # Enlarging by interpolation leaves no fine detail: neighbours differ less, the coarser the level.
    steps = [np.abs(np.diff(picture, axis=1)).mean() for picture in pictures]
    assert steps[0] > steps[1] > steps[2]
    with pytest.raises(UsageError, match="level 4 was asked for, and these weights have levels 1 to 3"):
        Restorer(raw_model(), replace(options, levels=4), "cpu")


def test_levels_need_a_pyramid(tiny: nn.Module) -> None:
    with pytest.raises(UsageError, match="no levels; leave out --levels"):
        Restorer(tiny, fp32(levels=2), "cpu")


@pytest.mark.parametrize("wb", [(0.8, 1.0, 1.6, 1.0), (2.0, 1.0, 0.5, 1.0)])
def test_the_linear_picture_names_the_gains_that_are_in_it(wb: tuple[float, ...]) -> None:
    frame = frame_of(random_mosaic(16, 20), wb=wb, camera_to_srgb=MATRIX)
    linear = Restorer(Copy(input_colour="wb"), fp32(), "cpu").photo(frame, 1.0, keep_linear=True).linear
    assert linear is not None and linear.wb == frame.wb_gains[:3] and min(linear.wb) == 1
    np.testing.assert_array_equal(linear.to_srgb, MATRIX)


def test_finished_srgb_is_linear_srgb_without_gains() -> None:
    network = Copy()
    network.traits = replace(network.traits, output_colour="srgb")
    frame = frame_of(random_mosaic(16, 20), wb=(2.0, 1.0, 1.5, 1.0), camera_to_srgb=MATRIX)
    linear = Restorer(network, fp32(), "cpu").photo(frame, 1.0, keep_linear=True).linear
    assert linear is not None and linear.wb == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(linear.to_srgb, np.eye(3))


def test_further_views_take_the_sparse_grid() -> None:
    network, size = Copy(), (330, 450)
    Restorer(network, fp32(ensemble=2), "cpu").photo(frame_of(random_mosaic(660, 900)), 1.0)
    thick, thin = (TileGrid.cover(*size, 256, rule).count for rule in (dense(), sparse()))
    assert thick > thin
    # The second view begins on the other corner, so that it is packed one row and column larger.
    assert sum(network.calls) == thick + TileGrid.cover(size[0] + 1, size[1] + 1, 256, sparse()).count


def test_the_halo_is_counted_in_packed_pixels() -> None:
    restorer = Restorer(Copy(halo=8), fp32(), "cpu")
    np.testing.assert_array_equal(restorer._blender((0,), (0,), 512).weights, tile_weights(512, "idw", 2.0, 16))


def test_the_base_of_a_tile_is_cut_from_that_of_the_frame() -> None:
    grid = TileGrid.cover(100, 130, 64, GridRule(stride=27))
    traits = ModelTraits(tile=64, upscale=2, base="lowpass", output_colour="camera")
    source = TileSource(frame_of(random_mosaic(200, 260)), 1.0, grid, traits, 1.0)
    places = [(row, col) for row in grid.rows for col in grid.cols]
    for (row, col), tile in zip(places, source.tiles(), strict=True):
        wanted = upsample_window(source.coarse, row, col, 64, 2, 16)
        torch.testing.assert_close(tile.base, wanted, rtol=0, atol=1e-6)
