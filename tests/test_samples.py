"""Hypotheses drawn from latents: the same across tiles, the same for a seed, and a map of their spread."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from burst_material import RATIO, frame, light, write
from lapcvae_material import raw_model
from torch import Tensor, nn

from lowlight.checkpoint import load_weights
from lowlight.core.errors import UsageError
from lowlight.core.photo import RawFrame
from lowlight.core.restoration import LatentShape, ModelTraits, Noise, Restoration
from lowlight.data.pictures import read_picture
from lowlight.hypotheses import Hypotheses
from lowlight.ops.tiling import GridRule, TileGrid
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.tile_source import TileSource
from lowlight.workflows.enhancing import enhancer as module
from lowlight.workflows.enhancing.enhance import enhance_files
from lowlight.workflows.enhancing.inputs import find_photos
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.samples import SampleOptions, Spread, spread_map, spread_note
from lowlight.writers import WriterOptions

TILE = 64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Hierarchy(nn.Module):
    """A set network with a latent for the whole tile and two spatial ones, which it shows in random colours."""

    def __init__(self, strength: float = 1.0, **traits: object) -> None:
        super().__init__()
        latents = (LatentShape(3), LatentShape(2, 16), LatentShape(2, 8))
        given = {"latents": latents, "tile": TILE, "latent_stride": 16, "max_frames": 4, "halo": 4, **traits}
        self.traits = ModelTraits(output_colour="camera", **given)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(3)
        self.colours = nn.ParameterList(torch.randn(3, 2, 1, 1, generator=generator) for _ in range(2))
        self.strength = strength

    def reconstruct(self, *given: object) -> Restoration:
        raise NotImplementedError

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        r, g1, b, g2 = frames.mean(1).unbind(1)
        image = torch.stack((r, (g1 + g2) / 2, b), 1) * 0.3 + 0.4
        if noise is not None:
            whole, *fields = noise
            image = image + self.strength * 0.01 * whole[:, :, None, None]
            for field, weight in zip(fields, self.colours, strict=True):
                shown = nn.functional.conv2d(field, weight.to(field))
                image = image + self.strength * 0.01 * nn.functional.interpolate(shown, size=self.traits.tile)
        return Restoration(image)


class Bound(nn.Module):
    """A latent without extent: what it does is bound to places of the tile, but for a `common` part of it.

    Near its border a tile is `faulty`, as a network is that sees zeros beyond it.
    """

    def __init__(self, common: float = 0.0, faulty: float = 0.0, upscale: int = 1) -> None:
        super().__init__()
        self.traits = ModelTraits(output_colour="camera", latents=(LatentShape(8),), tile=TILE, upscale=upscale)
        generator, side = torch.Generator().manual_seed(4), TILE * upscale
        own = torch.randn(8, 3, side, side, generator=generator)
        both = common * torch.randn(8, 3, 1, 1, generator=generator) + (1 - common**2) ** 0.5 * own
        inside = torch.arange(side)
        near = torch.minimum(inside, side - 1 - inside).clamp(max=4 * upscale) / (4 * upscale)
        self.shown = both * (1 - faulty * (1 - near * near[:, None]))

    def reconstruct(self, *given: object) -> Restoration:
        raise NotImplementedError

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        r, g1, b, g2 = frames.mean(1).unbind(1)
        image = torch.stack((r, (g1 + g2) / 2, b), 1) * 0.1 + 0.4
        image = nn.functional.interpolate(image, size=self.shown.shape[-1])
        if noise is not None:
            image = image + 0.01 * torch.einsum("bz,zchw->bchw", noise[0].to(self.shown), self.shown)
        return Restoration(image)


def restorer(model: nn.Module | None = None, rule: GridRule | None = None) -> Restorer:
    options = RestorerOptions(precision="fp32", grid=rule or GridRule(stride=40))
    return Restorer(model or Hierarchy(), options, "cpu")


@cache
def night() -> RawFrame:
    return frame(light(250, 330), 1)


def drawn(using: Restorer, seed: int = 1, temperature: float = 1.0, **given: Any) -> np.ndarray:
    photo = night()
    noise = using.noise(photo, torch.Generator().manual_seed(seed), temperature)
    return using.photo(photo, RATIO, noise=noise, **given).pixels


@pytest.mark.parametrize("rule", [GridRule(stride=40), GridRule(overlap=6), GridRule(stride=64)])
@pytest.mark.parametrize(("height", "width"), [(125, 165), (64, 64), (30, 200), (128, 129)])
def test_tile_starts_are_multiples_and_leave_no_gap(height: int, width: int, rule: GridRule) -> None:
    grid = TileGrid.cover(height, width, TILE, rule, 16)
    for starts, length in ((grid.rows, height), (grid.cols, width)):
        assert starts[0] == 0 and not any(start % 16 for start in starts)
        assert all(0 < after - before <= TILE for before, after in pairwise(starts))
        assert length <= starts[-1] + TILE < length + max(16, TILE - length + 1)
    assert grid.padded == (grid.rows[-1] + TILE, grid.cols[-1] + TILE)
    with pytest.raises(ValueError, match="do not fit"):
        TileGrid.cover(height, width, TILE, rule, 24)


def test_a_frame_padded_to_the_last_tile_is_cut_back() -> None:
    photo = night()
    whole = restorer().photo(photo, RATIO).pixels
    assert whole.shape == (125, 165, 3)
    other = restorer(Hierarchy(latent_stride=1)).photo(photo, RATIO).pixels
    assert np.abs(whole.astype(int) - other).max() <= 1
    halves = RestorerOptions(precision="fp32", grid=GridRule(stride=40), strength=0.5)
    mixed, plain = (
        Restorer(Hierarchy(), replace(halves, strength=strength), "cpu").photo(photo, RATIO).pixels.astype(int)
        for strength in (0.5, 0.0)
    )
    assert np.abs(2 * mixed - plain - whole).max() <= 4


def largest_difference_between_grids() -> int:
    rules = (GridRule(stride=40), GridRule(stride=20), GridRule(overlap=6))
    first, *others = (drawn(restorer(rule=rule)).astype(int) for rule in rules)
    return max(int(np.abs(first - other).max()) for other in others)


def test_draws_are_one_for_a_photo_whatever_the_tiles() -> None:
    assert largest_difference_between_grids() <= 1
    mean = restorer().photo(night(), RATIO).pixels
    assert np.abs(drawn(restorer()).astype(int) - mean).mean() > 500


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_tile_with_a_draw_of_its_own_would_be_seen(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail for each of the latents."""
    generator = torch.Generator().manual_seed(0)
    shared = TileSource._noise

    def own(self: TileSource, row: int, col: int) -> Noise | None:
        cuts = list(shared(self, row, col) or ())
        cuts[which] = torch.randn(cuts[which].shape, generator=generator)
        return tuple(cuts)

    monkeypatch.setattr(TileSource, "_noise", own)
    assert largest_difference_between_grids() > 500


def test_the_spread_has_no_step_where_tiles_end() -> None:
    using = restorer(rule=GridRule(overlap=16))
    spread = Spread()
    for seed in range(6):
        spread.add(drawn(using, seed))
    found = spread.deviation()[..., 0]
    grid = using.grid(night())
    for axis, starts in ((0, grid.rows), (1, grid.cols)):
        ends = {place for start in starts for place in (start, start + TILE) if 0 < place < found.shape[axis]}
        jump = np.abs(np.diff(found, axis=axis)).mean(axis=1 - axis)
        # The fields themselves step every 8 packed pixels, so tile ends are compared with other such places.
        usual = [jump[place - 1] for place in range(8, found.shape[axis], 8) if place not in ends]
        assert max(jump[place - 1] for place in ends) < 2 * np.mean(usual)
    # Where two tiles overlap, independent draws would be averaged and their spread smaller.
    overlapping = found[:, [col for col in range(165) if sum(s <= col < s + TILE for s in grid.cols) > 1]]
    assert overlapping.mean() == pytest.approx(found.mean(), rel=0.1)


def spread_of(using: Restorer, count: int = 24) -> np.ndarray:
    hypotheses = Hypotheses(using, night(), RATIO)
    spread = Spread()
    for seed in range(count):
        spread.add(hypotheses.draw(torch.Generator().manual_seed(seed)).pixels)
    return spread.deviation()[..., 0]


def plain_spread_of(using: Restorer, count: int = 24) -> np.ndarray:
    spread = Spread()
    for seed in range(count):
        spread.add(drawn(using, seed))
    return spread.deviation()[..., 0]


def covers(using: Restorer, size: tuple[int, int]) -> np.ndarray:
    """How many tiles lie over each pixel."""
    grid, u = using.grid(night()), using.traits.upscale
    count = np.zeros(size, int)
    for row in grid.rows:
        for col in grid.cols:
            count[u * row : u * (row + TILE), u * col : u * (col + TILE)] += 1
    return count


@pytest.mark.parametrize("common", [0.0, 0.6])
@pytest.mark.parametrize("upscale", [1, 2])
def test_the_spread_is_as_large_where_tiles_overlap(common: float, upscale: int) -> None:
    using = restorer(Bound(common, upscale=upscale), GridRule(overlap=24))
    assert Hypotheses(using, night(), RATIO).agreement == pytest.approx(common**2, abs=0.15)
    found, plain = spread_of(using), plain_spread_of(using, 12)
    single = covers(using, found.shape) == 1
    assert found[~single].mean() == pytest.approx(found[single].mean(), rel=0.07)
    assert plain[~single].mean() < (0.8 if not common else 0.9) * plain[single].mean()


def test_the_spread_does_not_show_where_tiles_end() -> None:
    using = restorer(Bound(faulty=1.0), GridRule(overlap=24))
    single = covers(using, (125, 165)) == 1

    def step(found: np.ndarray) -> float:
        """Steps from places under one tile to places under two, against those between places under two."""
        within, across = [], []
        for axis in (0, 1):
            jumps = np.abs(np.diff(found, axis=axis))
            one, other = (np.take(single, range(n, single.shape[axis] - 1 + n), axis) for n in (0, 1))
            across.append(jumps[one != other].mean())
            within.append(jumps[~one & ~other].mean())
        return float(np.mean(across) / np.mean(within))

    plain, found = step(plain_spread_of(using)), step(spread_of(using))
    assert found < 1.25 < plain


def test_latents_that_tiles_agree_on_are_merged_as_they_are() -> None:
    photo = night()
    for model in (Hierarchy(latents=(LatentShape(2, 16), LatentShape(2, 8))), Bound(common=1.0)):
        if isinstance(model, Hierarchy):
            model.restore = lambda frames, base=None, noise=None, keep=model.restore: keep(  # type: ignore[method-assign]
                frames, base, noise and (torch.zeros(len(frames), 3), *noise)
            )
        using = restorer(model)
        hypotheses = Hypotheses(using, photo, RATIO)
        assert hypotheses.agreement == pytest.approx(1, abs=1e-4)
        plain = Restorer(model, replace(using.options, merge="feather"), "cpu")
        expected = plain.photo(photo, RATIO, noise=plain.noise(photo, torch.Generator().manual_seed(3))).pixels
        found = hypotheses.draw(torch.Generator().manual_seed(3)).pixels
        assert np.abs(found.astype(int) - expected).max() <= 2


def test_hypotheses_in_a_window_at_half_size_and_without_temperature() -> None:
    photo = night()
    half = Restorer(Bound(upscale=2), RestorerOptions(precision="fp32", grid=GridRule(stride=40), size="half"), "cpu")
    for using, window, place in (
        (restorer(Bound()), (62, 90, 140, 60), (slice(45, 75), slice(31, 101))),
        (restorer(Bound(upscale=2)), (62, 90, 140, 60), (slice(90, 150), slice(62, 202))),
        (half, (62, 90, 140, 60), (slice(45, 75), slice(31, 101))),
    ):
        whole, part = (Hypotheses(using, photo, RATIO, window=w, keep_linear=True) for w in (None, window))
        one, other = (each.draw(torch.Generator().manual_seed(5)) for each in (whole, part))
        assert np.abs(one.pixels[place].astype(int) - other.pixels).max() <= 2
        assert one.linear is not None and other.linear is not None
        assert np.abs(one.linear.pixels[place].astype(int) - other.linear.pixels).max() <= 2
        still = Hypotheses(using, photo, RATIO, 0.0).draw(torch.Generator().manual_seed(5)).pixels
        mean = Restorer(using.model, replace(using.options, merge="feather"), "cpu").photo(photo, RATIO).pixels
        np.testing.assert_array_equal(still, mean)
        assert np.abs(one.pixels.astype(int) - mean).mean() > 200


def test_a_window_shows_the_same_sample() -> None:
    whole = drawn(restorer())
    part = drawn(restorer(), window=(62, 90, 140, 60))
    assert np.abs(whole[45:75, 31:101].astype(int) - part).max() <= 1


def test_seeds_and_temperatures() -> None:
    using = restorer()
    mean = using.photo(night(), RATIO).pixels.astype(int)
    np.testing.assert_array_equal(drawn(using, 7), drawn(using, 7))
    assert (drawn(using, 7) != drawn(using, 8)).mean() > 0.9
    np.testing.assert_array_equal(drawn(using, 7, 0.0), mean)
    full, half = (drawn(using, 7, temperature) - mean for temperature in (1.0, 0.5))
    assert np.abs(full - 2 * half).mean() < 0.01 * np.abs(full).mean() + 2
    numbers = {
        tuple(torch.randn(4, generator=SampleOptions(3, seed=s).generator(n)).tolist())
        for s in (0, 1)
        for n in (1, 2, 3)
    }
    assert len(numbers) == 6


def test_the_spread_is_the_deviation_of_the_samples() -> None:
    samples = np.random.default_rng(0).integers(20_000, 21_000, (5, 300, 7, 3)).astype(np.uint16)
    spread = Spread()
    for pixels in samples:
        spread.add(pixels)
    expected = np.sqrt(samples.astype(float).var(axis=0, ddof=1).mean(axis=2, keepdims=True))
    np.testing.assert_allclose(spread.deviation(), expected, rtol=1e-3)
    assert spread_map(expected.astype(np.float32)) == pytest.approx(16 * expected, abs=1)
    assert spread_map(np.full((1, 1, 1), 9000, np.float32))[0, 0, 0] == 65535
    assert "next to nothing" in spread_note(np.full((2, 2, 1), 0.4, np.float32), 3)
    assert "too little to be seen" in spread_note(np.full((2, 2, 1), 200, np.float32), 3)
    seen = spread_note(np.full((2, 2, 1), 655.35, np.float32), 3)
    assert "deviate by 1 % of white" in seen and "too little" not in seen


def run(paths: list[Path], out: Path, weights: Path, count: int = 2, **changes: Any) -> list[dict[str, Any]]:
    samples = changes.pop("samples", SampleOptions(count))
    given = {"samples": samples, "restorer": RestorerOptions(precision="fp32"), **changes}
    return enhance_files(
        find_photos([str(path) for path in paths]), EnhanceOptions(out=out, weights=weights, device="cpu", **given)
    )


def test_samples_stand_beside_the_picture(tiny_weights: Path, dark_dng: Path, tmp_path: Path) -> None:
    (row,) = run([dark_dng], tmp_path, tiny_weights)
    names = ["dark.sample-01.png", "dark.sample-02.png", "dark.spread.png"]
    assert [Path(path).name for path in row["samples"]] == names and row["status"] == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dark.png", *names]
    assert "samples" in row["notes"][-1]
    shapes = [read_picture(tmp_path / name).shape for name in names]
    assert shapes == [(176, 120, 3)] * 2 + [(176, 120, 1)]
    before = (tmp_path / names[0]).read_bytes()
    assert b"sample 1, seed 0, temperature 1" in before
    assert run([dark_dng], tmp_path, tiny_weights)[0]["status"] == "skipped"
    (tmp_path / names[0]).unlink()
    assert run([dark_dng], tmp_path, tiny_weights)[0]["status"] == "done"
    assert (tmp_path / names[0]).read_bytes() == before
    run([dark_dng], tmp_path / "other", tiny_weights, samples=SampleOptions(2, seed=5))
    assert (tmp_path / "other" / names[0]).read_bytes() != before


def test_the_map_is_16_bit_whatever_the_samples_are(tiny_weights: Path, dark_dng: Path, tmp_path: Path) -> None:
    (row,) = run([dark_dng], tmp_path / "x.jpg", tiny_weights, writer=WriterOptions(bits=8))
    assert [Path(path).name for path in row["samples"]] == ["x.sample-01.jpg", "x.sample-02.jpg", "x.spread.png"]
    header = (tmp_path / "x.spread.png").read_bytes()[:33]
    assert (header[24], header[25]) == (16, 0)  # bits and colour type: gray


def test_latents_that_carry_nothing_are_named(tiny_weights: Path, dark_dng: Path, tmp_path: Path) -> None:
    (row,) = run([dark_dng], tmp_path, tiny_weights, samples=SampleOptions(2, temperature=1e-6))
    assert "next to nothing" in row["notes"][-1]
    assert read_picture(tmp_path / "dark.spread.png").max() <= 40


def test_a_network_of_sets_with_spatial_latents_goes_through_the_workflow(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_weights", lambda path, dtype: (Hierarchy(tile=256), {}))
    (row,) = run([write(tmp_path / "a.dng", light(250, 330), 1)], tmp_path / "out", tiny_weights, 3)
    assert row["status"] == "done" and len(row["samples"]) == 4 and "deviate by" in row["notes"][-1]
    assert read_picture(tmp_path / "out" / "a.spread.png").mean() > 1000


def test_samples_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="strength"):
        EnhanceOptions(tmp_path, samples=SampleOptions(2), restorer=RestorerOptions(strength=0.0))


def test_hypotheses_have_no_detail_in_their_mean_either() -> None:
    options = RestorerOptions(precision="fp32", grid=GridRule(stride=40), detail=True)
    detailed = Restorer(Bound(0.5, upscale=2), options, "cpu")
    drawn = Hypotheses(detailed, night(), RATIO).draw(torch.Generator().manual_seed(1)).pixels
    plain = Restorer(Bound(0.5, upscale=2), replace(options, detail=False), "cpu")
    np.testing.assert_array_equal(
        drawn, Hypotheses(plain, night(), RATIO).draw(torch.Generator().manual_seed(1)).pixels
    )


def test_weights_without_latents_and_impossible_options_are_refused(
    tiny_weights: Path, dark_dng: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_weights(tiny_weights)[0]
    model.traits = replace(model.traits, latents=())  # type: ignore[arg-type]
    monkeypatch.setattr(module, "load_weights", lambda path, dtype: (model, {}))
    with pytest.raises(UsageError, match="no latents"):
        run([dark_dng], tmp_path, tiny_weights)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="no latents"):
        Restorer(model, device="cpu").noise(frame(light(20, 20)), torch.Generator())
    for bad in ((1, 1.0, 0), (-2, 1.0, 0), (100, 1.0, 0), (2, -1.0, 0), (2, float("nan"), 0), (2, 1.0, -1)):
        with pytest.raises(UsageError):
            SampleOptions(*bad)


def test_levels_of_a_pyramid_that_are_fixed_stay_and_finer_ones_vary() -> None:
    def drawn_to(finest: int, fix_from: int | None) -> tuple[np.ndarray, np.ndarray]:
        using = Restorer(pyramid(), RestorerOptions(precision="fp32", levels=finest), "cpu")
        hypotheses = Hypotheses(using, night(), RATIO, fix_from=fix_from)
        mean = Hypotheses(using, night(), RATIO, temperature=0.0)
        first = torch.Generator().manual_seed(1)
        return hypotheses.draw(first).pixels, mean.draw(first).pixels

    for finest, fix_from, same in ((1, 2, False), (2, 2, True), (2, 3, False), (2, None, False), (1, 1, True)):
        sample, mean = drawn_to(finest, fix_from)
        assert np.array_equal(sample, mean) is same, (finest, fix_from)


def test_levels_that_leave_nothing_to_draw_are_refused(
    tiny_weights: Path, dark_dng: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="have no levels"):
        run([dark_dng], tmp_path, tiny_weights, samples=SampleOptions(2, fix_from=2))
    monkeypatch.setattr(module, "load_weights", lambda path, dtype: (pyramid(), {}))
    for finest, level, told in ((1, 1, "expected 2 to 3"), (1, 4, "expected 2 to 3"), (3, 3, "only level 3")):
        options = RestorerOptions(precision="fp32", levels=finest)
        with pytest.raises(UsageError, match=told):
            run([dark_dng], tmp_path, tiny_weights, samples=SampleOptions(2, fix_from=level), restorer=options)
    assert not list(tmp_path.iterdir())
    (row,) = run([dark_dng], tmp_path, tiny_weights, samples=SampleOptions(2, fix_from=2))
    assert row["status"] == "done" and len(row["samples"]) == 3


def pyramid() -> nn.Module:
    """A pyramid whose numbers are large enough for every level's draws to be seen."""
    model = raw_model()
    with torch.no_grad():
        for level in model.pyramid:
            for parameter in level.decoder.parameters():
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return model
