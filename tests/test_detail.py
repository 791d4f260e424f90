"""Detail brought back: noise told from the frame alone, and what stands above it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_restorer import Copy, night_frame
from torch import Tensor

from lowlight.burst import Burst
from lowlight.core.errors import ConfigError, UsageError
from lowlight.core.photo import RGGB, RawFrame
from lowlight.core.restoration import Noise, Restoration
from lowlight.core.threads import MOST
from lowlight.detail import (
    BAND_ROWS,
    UNKNOWN,
    WHITE,
    PlainNoise,
    _block_means,
    _slope,
    grown,
    measure_noise,
    plain_noise,
    recovered,
    without_outliers,
)
from lowlight.device_restorer import DeviceRestorer
from lowlight.models import model_config
from lowlight.ops.color import decode, encode
from lowlight.ops.demosaic import demosaic
from lowlight.ops.noise_level import NoiseLevel, fit_noise
from lowlight.restorer import Restorer, RestorerOptions

LEVELS = {"black": (512.0,) * 4, "white": (16383.0,) * 4, "wb": (2.0, 1.0, 1.5, 1.0), "wb_source": "camera"}
NOISE = NoiseLevel(shot=4e-5, read=9e-9)


def noisy_frame(height: int, width: int, noise: NoiseLevel = NOISE, light: float = 4e-3, seed: int = 0) -> RawFrame:
    """Smooth light with edges, in units of white, under known noise."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:height, 0:width]
    clean = light * (1 + 0.9 * np.sin(xs / 90) * np.cos(ys / 70)) * np.where(xs > width / 2, 2.0, 1.0)
    seen = clean + rng.normal(size=clean.shape) * np.sqrt(noise.shot * clean + noise.read)
    mosaic = np.clip(np.rint(512 + seen * (16383 - 512)), 0, 16383).astype(np.uint16)
    return RawFrame(mosaic, RGGB, camera_to_srgb=None, **LEVELS)  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [NOISE, NoiseLevel(2e-4, 1e-8), NoiseLevel(1e-5, 4e-8)])
def test_noise_is_told_from_the_frame_alone(noise: NoiseLevel) -> None:
    found = measure_noise(Burst.single(noisy_frame(900, 1200, noise)))
    for light in (1e-3, 4e-3, 1e-2):
        expected = noise.shot * light + noise.read + 1 / 12 / 15871**2  # and rounding to whole DN
        assert found.shot * light + found.read == pytest.approx(expected, rel=0.2)


def test_of_a_frame_too_small_or_too_bright_nothing_is_known() -> None:
    assert measure_noise(Burst.single(noisy_frame(8, 8))) == UNKNOWN
    assert measure_noise(Burst.single(noisy_frame(300, 300, light=0.98))).read > 0


def test_variance_is_carried_to_encoded_values() -> None:
    carried = plain_noise(NOISE, 50.0, (2.0, 1.0, 1.5, 1.0))
    generator = torch.Generator().manual_seed(0)
    for colour, gain in enumerate((100.0, 50.0, 75.0)):
        light = torch.tensor(3e-3)
        draws = light + torch.randn(200_000, generator=generator) * (NOISE.shot * light + NOISE.read).sqrt()
        level = int(encode(light * gain) * WHITE)
        variance = (carried.shot * light * gain + carried.read)[colour].item()
        assert float((draws * gain).var()) == pytest.approx(variance, rel=0.01)
        # A curve is no line: noise of a tenth of the light is carried to a few percent.
        assert float(encode(draws.clamp(0) * gain).var()) == pytest.approx(
            float(carried.encoded[colour, level]), rel=0.1
        )


def even_noise(sigma: float, level: float) -> PlainNoise:
    """Noise of one deviation in encoded values, and what that is in light about one of them."""
    light = (sigma / float(_slope()[int(level * WHITE)])) ** 2
    return PlainNoise(torch.full((3, WHITE + 1), sigma**2), torch.zeros(3, 1, 1), torch.full((3, 1, 1), light))


def bring_back(restored: Tensor, plain: Tensor, noise: PlainNoise) -> Tensor:
    lights = [_block_means(decode(each)) for each in (restored, plain)]
    return recovered(restored, plain.clone(), *lights, noise)


def _scene(size: int = 128) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    base = torch.linspace(0.2, 0.7, size).expand(3, size, size).clone()
    texture = torch.rand(3, size, size // 2, generator=generator) - 0.5
    base[:, :, size // 2 :] += 0.2 * texture
    return base


def test_what_was_smoothed_away_comes_back_and_noise_does_not() -> None:
    scene, generator = _scene(), torch.Generator().manual_seed(2)
    smooth = scene.clone()
    smooth[:, :, 64:] = torch.linspace(0.2, 0.7, 128)[64:]
    sigma = 0.01
    plain = scene + sigma * torch.randn(scene.shape, generator=generator)
    better = bring_back(smooth, plain, even_noise(sigma, 0.45))
    textured, flat = (slice(None), slice(8, -8), slice(76, -8)), (slice(None), slice(8, -8), slice(8, 52))
    assert (better - scene)[textured].std() < 0.25 * (smooth - scene)[textured].std()
    assert (better - scene)[flat].std() < 0.1 * sigma
    unsure = bring_back(smooth, plain, plain_noise(UNKNOWN, 100.0, (2.0, 1.0, 1.5, 1.0)))
    assert torch.equal(unsure, smooth)


def test_hot_and_dead_pixels_do_not_come_back() -> None:
    frame = noisy_frame(200, 240, light=0.05)
    hurt = frame.mosaic.copy()
    hurt[::40, ::50] = 16000
    hurt[21::40, 31::50] = 512
    better = [
        Restorer(Blur(), options(), "cpu").photo(replace(frame, mosaic=mosaic), 2.0).pixels.astype(int)
        for mosaic in (frame.mosaic, hurt)
    ]
    assert np.abs(better[1] - better[0]).max() < 0.06 * 65535
    planes = torch.rand(4, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(without_outliers(planes, UNKNOWN), planes)


def test_a_tint_comes_back_without_its_noise() -> None:
    scene, sigma = torch.full((3, 96, 96), 0.5), 0.02
    plain = scene + sigma * torch.randn(scene.shape, generator=torch.Generator().manual_seed(3))
    tinted = scene + torch.tensor([0.1, 0.0, -0.1])[:, None, None]
    better = bring_back(tinted, plain, even_noise(sigma, 0.5))
    assert (better - scene).mean((1, 2)).abs().max() < 0.004
    assert (better - scene).std((1, 2)).max() < sigma / 4


def test_a_small_patch_gets_its_colour_back_and_what_is_around_stays() -> None:
    gray, sigma = torch.full((3, 96, 96), 0.3), 0.02
    scene = gray.clone()
    scene[:, 40:56, 40:56] = torch.tensor([0.25, 0.3, 0.5])[:, None, None]
    plain = scene + sigma * torch.randn(scene.shape, generator=torch.Generator().manual_seed(4))
    better = bring_back(gray, plain, even_noise(sigma, 0.3))
    inside, outside = (slice(None), slice(44, 52), slice(44, 52)), (slice(None), slice(0, 24), slice(0, 96))
    assert (better - scene)[inside].mean((1, 2)).abs().max() < 0.02
    assert (better - scene)[outside].abs().mean() < sigma / 20


def test_the_surest_colour_decides_for_all_so_that_hues_stay() -> None:
    # Green and blue lack too little to be sure of by themselves; taking red alone back would be another colour.
    missing = torch.tensor([0.02, 0.004, 0.006])[:, None, None]
    shown = torch.full((3, 40, 40), 0.1)
    noise = PlainNoise(torch.zeros(3, WHITE + 1), torch.zeros(3, 1, 1), torch.full((3, 1, 1), 2e-4))
    restored = encode(torch.full((3, 80, 80), 0.1))
    found = recovered(restored, restored.clone(), shown, shown + missing, noise)
    shares = (decode(found) - 0.1).mean((1, 2)) / missing.flatten()
    assert shares.min() > 0.3 and shares.max() - shares.min() < 0.01


def test_noise_that_is_clipped_at_black_lifts_no_shadow() -> None:
    sigma = 0.02
    light = sigma * torch.randn((3, 128, 128), generator=torch.Generator().manual_seed(5))
    noise = plain_noise(NoiseLevel(0.0, sigma**2), 1.0, (1.0, 1.0, 1.0, 1.0))
    black = torch.zeros_like(light)
    plain = encode(light.clamp(0))
    assert plain.mean() > 0.03
    found = recovered(black, plain, _block_means(black), _block_means(light), noise)
    assert found.mean() < 1e-3


class Blur(Copy):
    """A network that gives one gray for everything."""

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        image = super().restore(frames, base, noise).image
        return Restoration(torch.full_like(image, 0.3), ())


def options(**changes: object) -> RestorerOptions:
    return replace(RestorerOptions(precision="fp32", detail=True), **changes)  # type: ignore[arg-type]


def test_a_bright_photo_comes_back_whatever_the_network_does() -> None:
    frame = noisy_frame(300, 420, light=0.1)
    network = Blur()
    without = Restorer(network, options(detail=False), "cpu").photo(frame, 1.0).pixels.astype(float)
    found = Restorer(network, options(), "cpu").photo(frame, 1.0).pixels.astype(float)
    plain = Restorer(network, options(detail=False, strength=0.0), "cpu").photo(frame, 1.0).pixels.astype(float)
    assert np.abs(without - plain).mean() > 4000
    assert np.abs(found - plain).mean() < 0.1 * np.abs(without - plain).mean()


@pytest.mark.parametrize("kind", [Restorer, DeviceRestorer])
def test_a_window_is_that_of_the_whole(kind: type[Restorer]) -> None:
    frame = noisy_frame(361, 420, light=0.02)
    restorer = kind(Blur(), options(ensemble=4), "cpu")
    whole = restorer.photo(frame, 5.0).pixels.astype(int)
    for x, y, width, height in ((101, 55, 200, 131), (0, 0, 64, 64), (311, 250, 109, 111)):
        part = restorer.photo(frame, 5.0, window=(x, y, width, height)).pixels.astype(int)
        assert np.abs(part - whole[y : y + height, x : x + width]).max() <= 8
    linear = restorer.photo(frame, 5.0, window=(101, 55, 200, 131), keep_linear=True).linear
    assert linear is not None and linear.pixels.shape == (131, 200, 3)


def test_any_number_of_threads_gives_the_same_picture() -> None:
    frame = noisy_frame(5 * BAND_ROWS + 7, 420, light=0.02)
    pictures = []
    for threads in (1, 2, 3, MOST + 2):
        torch.set_num_threads(threads)
        pictures.append(Restorer(Blur(), options(), "cpu").photo(frame, 5.0).pixels)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    assert all(np.array_equal(pictures[0], other) for other in pictures[1:])


def test_a_window_that_ends_inside_a_block_is_exactly_that_of_the_whole() -> None:
    frame = noisy_frame(160, 200, light=0.02)
    restorer = Restorer(Copy(), options(), "cpu")
    whole = restorer.photo(frame, 5.0).pixels
    for x, y, width, height in ((10, 10, 51, 33), (11, 9, 60, 34)):
        part = restorer.photo(frame, 5.0, window=(x, y, width, height)).pixels
        np.testing.assert_array_equal(part, whole[y : y + height, x : x + width])


def test_a_device_gives_the_same_picture() -> None:
    frame = noisy_frame(300, 420, light=0.02)
    one, other = (
        kind(Blur(), options(), "cpu").photo(frame, 5.0).pixels.astype(int) for kind in (Restorer, DeviceRestorer)
    )
    assert np.abs(one - other).max() <= 65535 / 255


def test_a_window_grows_by_what_decides_about_it_and_keeps_to_the_blocks() -> None:
    window, (rows, cols) = grown((101, 3, 50, 40), (60, 400))
    assert window[0] % 2 == window[1] % 2 == 0 and window[1] + window[3] == 56
    assert (window[0] + cols.start, window[1] + rows.start) == (101, 3)
    assert (cols.stop - cols.start, rows.stop - rows.start) == (50, 40)


def test_hypotheses_are_left_as_they_are() -> None:
    frame = night_frame(200, 300)
    network = Blur()
    with_detail, without = (
        Restorer(network, options(detail=detail), "cpu").photo(frame, 60.0, noise=()).pixels for detail in (True, False)
    )
    np.testing.assert_array_equal(with_detail, without)


@pytest.mark.parametrize("kind", [Restorer, DeviceRestorer])
def test_mistaken_colours_get_none_unless_it_is_asked_for(kind: type[Restorer]) -> None:
    frame = noisy_frame(160, 200, light=0.02)
    mistaken, recommending = replace(frame, wrong_pattern=True), Copy(detail=True)
    usual = kind(recommending, options(detail=None), "cpu")
    without = kind(recommending, options(detail=False), "cpu")
    assert np.array_equal(usual.photo(mistaken, 5.0).pixels, without.photo(frame, 5.0).pixels)
    assert not np.array_equal(usual.photo(frame, 5.0).pixels, without.photo(frame, 5.0).pixels)
    asked = kind(recommending, options(), "cpu")
    assert np.array_equal(asked.photo(mistaken, 5.0).pixels, asked.photo(frame, 5.0).pixels)


def test_weights_recommend_it_and_others_refuse_it() -> None:
    config = {"upscale": 2, "output_colour": "camera", "detail": True}
    assert model_config("sid-net-slim", config).traits().detail
    for wrong in ({"upscale": 1}, {"output_colour": "srgb"}):
        with pytest.raises(ConfigError, match="camera colour at upscale 2"):
            model_config("sid-net-slim", {**config, **wrong})
    with pytest.raises(UsageError, match="--detail"):
        Restorer(Copy(upscale=1), options(), "cpu")
    assert Restorer(Copy(detail=True), RestorerOptions(precision="fp32"), "cpu").detail


def test_demosaicing_keeps_sites_and_is_exact_for_planes_of_light() -> None:
    ys, xs = torch.meshgrid(torch.arange(12.0), torch.arange(20.0), indexing="ij")
    light = 0.3 + 0.01 * ys + 0.015 * xs
    planes = torch.stack([light[row::2, col::2] for row, col in ((0, 0), (0, 1), (1, 1), (1, 0))])
    rgb = demosaic(planes)
    torch.testing.assert_close(rgb[:, 2:-2, 2:-2], light[2:-2, 2:-2].expand(3, -1, -1), rtol=1e-5, atol=1e-6)
    for colour, plane, row, col in ((0, 0, 0, 0), (1, 1, 0, 1), (1, 3, 1, 0), (2, 2, 1, 1)):
        assert torch.equal(rgb[colour, row::2, col::2], planes[plane])
    assert demosaic(torch.full((4, 1, 1), 0.5)).eq(0.5).all()


def test_demosaicing_tells_the_colours_apart() -> None:
    ys, xs = torch.meshgrid(torch.arange(12.0), torch.arange(20.0), indexing="ij")
    light = 0.3 + 0.01 * ys + 0.015 * xs
    wanted = torch.stack((light + 0.1, light, light - 0.15))
    sites = ((0, 0, 0), (1, 0, 1), (2, 1, 1), (1, 1, 0))  # colour, row and column of R, G1, B, G2
    rgb = demosaic(torch.stack([wanted[colour, row::2, col::2] for colour, row, col in sites]))
    torch.testing.assert_close(rgb[:, 2:-2, 2:-2], wanted[:, 2:-2, 2:-2], rtol=0, atol=1e-5)


def test_demosaicing_beside_edges_stays_in_range() -> None:
    planes = torch.zeros(4, 6, 8)
    planes[:, :, 4:] = 1
    rgb = demosaic(planes)
    assert rgb.min() == 0 and rgb.max() == 1


def test_noise_below_black_counts() -> None:
    noise, light = NoiseLevel(4e-5, 4e-8), 2e-5
    found = measure_noise(Burst.single(noisy_frame(900, 1200, noise, light)))
    assert found.shot * light + found.read == pytest.approx(noise.shot * light + noise.read, rel=0.15)


def test_what_clips_does_not_make_noise_look_small() -> None:
    light = torch.linspace(0.001, 0.5, 2400)
    variance = 4e-5 * light + 9e-9
    clipped = torch.ones(800)
    found = fit_noise(torch.cat((light, clipped)), torch.cat((variance, 0 * clipped)))
    alone = fit_noise(light, variance)
    assert found.shot == pytest.approx(alone.shot) and found.read == pytest.approx(alone.read)


def test_content_in_some_lights_is_no_noise() -> None:
    light = torch.linspace(0.001, 0.5, 2400)
    variance = 4e-5 * light + 9e-9
    textured = (light > 0.2) & (light < 0.3)
    found = fit_noise(light, torch.where(textured, 3 * variance, variance))
    assert found.shot < 1.5 * 4e-5
