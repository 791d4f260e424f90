"""Laying dark frames on one another: shifts are found in noise, undone exactly, and what moved is not trusted."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlight.core.photo import RawFrame
from lowlight.data.dark_photos import synthetic_burst
from lowlight.data.scenes import procedural_scene
from lowlight.ops.agreement import agreement, agreement_pixels
from lowlight.ops.exposure import amplify, choose_ratio
from lowlight.ops.registration import (
    MIN_CONFIDENCE,
    correlation,
    overlap_cuts,
    phase_peak,
    register,
)
from lowlight.ops.resampling import margin_px, mirrored, resample, resample_each, shifted
from lowlight.raw.bayer import pack
from lowlight.raw.read import read_raw

Planes = torch.Tensor


def bright(frame: RawFrame, ratio: float) -> Planes:
    return amplify(pack(frame), ratio, torch.tensor(frame.wb_gains), "wb")


def noise(shape: tuple[int, ...], seed: int = 0) -> Planes:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth(height: int, width: int, shift: tuple[float, float] = (0.0, 0.0), seed: int = 0) -> Planes:
    """Four planes of waves known everywhere, `shift` further down and right, in about [0.1, 0.6]."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width].astype(float)
    total = np.zeros((height, width))
    for wave_px in np.geomspace(7, 90, 24):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        along = np.cos(angle) * (rows - shift[0]) + np.sin(angle) * (cols - shift[1])
        total += np.cos(2 * np.pi / wave_px * along + phase)
    light = torch.from_numpy(0.35 + 0.03 * total).float().clamp(0, 1)
    return torch.stack([light * level for level in (0.8, 1.0, 0.7, 1.0)])


@settings(max_examples=8, deadline=None)
@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0.6, 1.5), st.integers(0, 9))
def test_shifts_are_found_to_a_fraction_of_a_pixel(down: float, right: float, gain: float, seed: int) -> None:
    reference = (smooth(128, 144, seed=seed) + 0.06 * noise((4, 128, 144), seed)).clamp(0, 1)
    frame = smooth(128, 144, (down, right), seed)
    frame = (gain * (frame + 0.06 * noise((4, 128, 144), seed + 50))).clamp(0, 1)
    assert register(reference, frame).shift == pytest.approx((down, right), abs=0.15)


@pytest.mark.parametrize(("ratio", "within"), [(100.0, 0.12), (300.0, 0.25)])
def test_shifts_of_raw_frames_are_found_at_high_ratios(ratio: float, within: float) -> None:
    photo = procedural_scene(3, 384)
    reference, *others = synthetic_burst(photo, 3, (ratio, ratio, ratio / 2), 1, shake_px=6.0)[0]
    hand = torch.Generator().manual_seed(1 + 1_000_003)
    for frame, its_ratio in zip(others, (ratio, ratio / 2), strict=True):
        wanted = (torch.rand(2, generator=hand) * 12 - 6).tolist()
        found = register(bright(reference, ratio), bright(frame, its_ratio))
        assert found.shift == pytest.approx(wanted, abs=within)
        assert found.correlation > 0.8


def test_frames_of_two_scenes_and_of_no_light_do_not_fit() -> None:
    first, other = smooth(128, 128, seed=1), smooth(128, 128, seed=2)
    found = register(first, other)
    assert found.confidence < MIN_CONFIDENCE
    assert found.correlation < 0.5
    first, other = ((0.1 * noise((4, 128, 128), seed)).clamp(0, 1) for seed in (1, 2))
    assert register(first, other).confidence < MIN_CONFIDENCE
    assert register(torch.zeros(4, 64, 64), torch.zeros(4, 64, 64)).correlation == 0


def test_larger_shifts_than_asked_for_are_not_found() -> None:
    first, far = smooth(96, 128), smooth(96, 128, (14.0, 0.0))
    assert register(first, far, largest_px=20).shift == pytest.approx((14, 0), abs=0.2)
    assert max(map(abs, register(first, far, largest_px=6).shift)) < 14


def test_hot_pixels_do_not_hold_the_frame() -> None:
    hot = torch.rand(96, 128, generator=torch.Generator().manual_seed(3)) < 0.01
    first, second = (smooth(96, 128, shift).masked_fill(hot, 1.0) for shift in ((0.0, 0.0), (2.4, -3.3)))
    assert register(first, second).shift == pytest.approx((2.4, -3.3), abs=0.15)


def test_frames_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="laid on one another"):
        register(torch.rand(4, 32, 32), torch.rand(4, 32, 34))


def test_each_picture_of_a_batch_is_moved_by_its_own_shift() -> None:
    pictures = torch.rand(4, 3, 30, 41, generator=torch.Generator().manual_seed(0))
    shifts = torch.tensor([[0.0, 0.0], [1.3, -2.6], [-3.0, 5.0], [0.5, 40.2]])
    moved = resample_each(pictures, shifts)
    for picture, shift, found in zip(pictures, shifts.tolist(), moved, strict=True):
        torch.testing.assert_close(found, resample(picture, (shift[0], shift[1])), atol=2e-5, rtol=0)
    assert torch.equal(moved[0], pictures[0]) and torch.equal(moved[2], resample(pictures[2], (-3.0, 5.0)))


@given(st.integers(-9, 9), st.integers(-9, 9))
@settings(max_examples=20, deadline=None)
def test_whole_shifts_are_undone_exactly_and_mirrored_outside(down: int, right: int) -> None:
    planes = torch.rand(2, 11, 13, generator=torch.Generator().manual_seed(0))
    rows, cols = (np.pad(np.arange(n), 10, mode="reflect")[10 + s :][:n] for n, s in ((11, down), (13, right)))
    assert torch.equal(shifted(planes, (down, right)), planes[:, rows][:, :, cols])
    assert mirrored(torch.arange(-3, 7), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]


def test_fractions_are_undone_and_smooth_noise_as_documented() -> None:
    frame, wanted = smooth(64, 80, (1.5, -2.25)), smooth(64, 80)
    inside = (slice(None), slice(5, -5), slice(5, -5))
    assert (shifted(frame, (1.5, -2.25)) - wanted)[inside].abs().max() < 0.01
    white = noise((1, 300, 300))
    assert float(resample(white, (0.5, 0.0)).var() / white.var()) == pytest.approx(0.64, abs=0.02)
    assert float(resample(white, (0.5, 3.5)).var() / white.var()) == pytest.approx(0.41, abs=0.02)


def test_resampling_beside_a_step_stays_in_range() -> None:
    step = torch.zeros(1, 8, 8)
    step[..., 4:] = 1
    assert resample(step, (0.0, 0.5)).max() > 1
    assert shifted(step, (0.0, 0.5)).max() <= 1
    assert torch.equal(step[..., 4:], torch.ones(1, 8, 4))


@given(st.floats(-6, 6), st.floats(-3, 3), st.integers(0, 30), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_bands_with_a_margin_are_what_the_whole_frame_gives(down: float, right: float, top: int, rows: int) -> None:
    planes = torch.rand(4, 60, 12, generator=torch.Generator().manual_seed(1))
    margin = margin_px((down, right))
    low, high = max(top - margin, 0), min(top + rows + margin, 60)
    band = shifted(planes[:, low:high], (down, right))[:, top - low :][:, :rows]
    # At the frame's own border both are mirrored there, unless the band is cut on the far side of the mirror.
    if top - margin >= 0 and top + rows + margin <= 60:
        assert torch.allclose(band, shifted(planes, (down, right))[:, top : top + rows], atol=1e-6)
    assert band.shape == (4, min(rows, high - top), 12)


def test_overlaps_and_peaks_of_planes() -> None:
    first = resample(noise((1, 60, 70)), (0.5, 0.5))[0]
    second = torch.roll(first, (3, -2), (0, 1))
    assert phase_peak(first, second).shift == pytest.approx((3, -2), abs=0.3)
    ours, theirs = overlap_cuts((60, 70), (3, -2))
    assert torch.equal(first[ours], second[theirs])
    assert correlation(first[ours], second[theirs]) == pytest.approx(1)
    assert correlation(first[:2, :2], second[:2, :2]) == 0


@pytest.mark.parametrize("gain", [1.0, 0.8])
@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_noise_and_gain_are_trusted_and_motion_is_not(sigma: float, gain: float) -> None:
    light = smooth(160, 200)
    moved = light.clone()
    moved[:, 48:96, 64:112] = smooth(160, 200, seed=5)[:, 48:96, 64:112] * 0.3
    reference, still, other = (
        (plane + sigma * noise((4, 160, 200), seed)).clamp(0, 1) for seed, plane in enumerate((light, light, moved))
    )
    weights = agreement(reference, gain * still)
    assert weights.shape == (20, 25)
    assert weights.mean() > 0.97
    weights = agreement(reference, gain * other)
    assert weights[7:11, 9:13].mean() < 0.05
    outside = weights.clone()
    outside[5:13, 7:15] = 1
    assert outside.mean() > 0.97


def test_half_a_pixel_of_misplacement_is_tolerated_where_nothing_is_noisy() -> None:
    light, beside = (smooth(128, 128, shift) + 0.01 * noise((4, 128, 128), 1) for shift in ((0.0, 0.0), (0.3, 0.3)))
    assert agreement(light, beside).mean() > 0.95
    assert agreement(light, smooth(128, 128, (6.0, 6.0))).mean() < 0.5


def test_weights_of_odd_sizes_and_tiny_frames() -> None:
    for height, width in ((37, 50), (9, 9), (8, 16)):
        planes = smooth(height, width)
        weights = agreement(planes, planes)
        assert weights.shape == (-(-height // 8), -(-width // 8))
        assert torch.equal(weights, torch.ones_like(weights))


def test_weights_spread_alike_in_bands_and_as_a_whole() -> None:
    weights = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    whole = agreement_pixels(weights, 0, 37, 45)
    bands = [agreement_pixels(weights, top, height, 45) for top, height in ((0, 5), (5, 20), (25, 12))]
    assert torch.allclose(torch.cat(bands), whole)
    assert whole.shape == (37, 45)
    assert torch.allclose(agreement_pixels(torch.ones(1, 1), 0, 8, 8), torch.ones(8, 8))
    between = agreement_pixels(torch.tensor([[0.0], [1.0]]), 0, 16, 8)[:, 0]
    assert between[[3, 4, 11, 12]].tolist() == pytest.approx([0.0, 0.0625, 0.9375, 1.0])


@pytest.mark.shared
def test_frames_of_a_real_burst_lie_where_they_were_cut(shared_data: Path) -> None:
    frames = [read_raw(shared_data / "burst_imx296" / f"static_a_{index:02d}.dng") for index in range(4)]
    ratio = choose_ratio(pack(frames[0], clip=False))
    planes = [bright(frame, ratio) for frame in frames]
    for first, second in combinations(range(4), 2):
        found = register(planes[first], planes[second])
        # Out of focus and flat from top to bottom: its light changes by little over many rows.
        assert abs(found.shift[0]) < 0.5
        assert abs(found.shift[1]) < 0.15
        assert found.confidence > MIN_CONFIDENCE
        assert found.correlation > 0.99
        assert agreement(planes[first], planes[second]).mean() > 0.99
    height, width = frames[1].size
    for down, right in ((2, 0), (8, -6)):
        cuts = [slice(8 - step, length - 8 - step) for step, length in ((down, height), (right, width))]
        cut = replace(frames[1], mosaic=frames[1].mosaic[cuts[0], cuts[1]])
        still = replace(frames[0], mosaic=frames[0].mosaic[8 : height - 8, 8 : width - 8])
        found = register(bright(still, ratio), bright(cut, ratio))
        assert found.shift == pytest.approx((down / 2, right / 2), abs=0.5)
    changed = planes[1].clone()
    changed[:, 200:296, 300:420] = planes[1][:, 20:116, 100:220]
    weights = agreement(planes[0], changed)
    assert weights[26:36, 39:51].max() < 0.1
    weights[24:38, 36:54] = 1
    assert weights.mean() > 0.99


def test_shifts_of_large_frames_are_in_packed_pixels() -> None:
    frames = [smooth(1030, 1030, shift) for shift in ((0.0, 0.0), (6.0, -9.0))]
    assert register(*frames).shift == pytest.approx((6, -9), abs=0.05)


def test_noise_that_is_not_white_is_trusted_too() -> None:
    light = smooth(160, 200)
    first, second = (light + 0.15 * F.avg_pool2d(noise((4, 160, 200), seed)[None], 3, 1, 1)[0] for seed in (0, 1))
    assert agreement(first.clamp(0, 1), second.clamp(0, 1)).mean() > 0.94


def test_light_that_changes_by_a_few_percent_across_the_frame_is_trusted() -> None:
    light, flicker = smooth(160, 200), torch.linspace(0.97, 1.03, 200)
    first, second = (plane + 0.002 * noise((4, 160, 200), seed) for seed, plane in enumerate((light, light * flicker)))
    assert agreement(first, second).mean() > 0.98
