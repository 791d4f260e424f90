"""Edits: what was not painted stays, what was painted is carried over."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from lapcvae_material import faces_model, generator, numbers, raw_model

from lowlight.core.errors import BrokenFileError, UsageError
from lowlight.core.restoration import Noise, Restoration
from lowlight.models.lapcvae_raw import LapCvaeRaw
from lowlight.ops.gaussian import fix_from
from lowlight.ops.pyramid import gaussian_pyramid
from lowlight.ops.tiling import GridRule
from lowlight.workflows.editing.masks import blend, blend_mask, changed_region, dilate, feather
from lowlight.workflows.editing.photos import Sidecar, level_size, render
from lowlight.workflows.editing.pictures import draw_noise, edit, reconstruct
from lowlight.workflows.evaluating.face_scores import drawn_faces, rmse, score_faces, take_off_glasses


def test_a_change_counts_from_two_steps_of_eight_bits() -> None:
    before = torch.full((1, 3, 4, 4), 0.5)
    after = before.clone()
    after[0, 1, 0, 0] += 1.9 / 255
    after[0, 2, 2, 1] -= 2.1 / 255
    assert changed_region(after, before).nonzero().tolist() == [[0, 0, 2, 1]]
    with pytest.raises(UsageError, match="without changing its size"):
        changed_region(after[..., :2], before)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_the_mask_covers_what_was_painted_and_ends_soon(factor: int) -> None:
    region = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    region[0, 0, 3, 4] = True
    mask = blend_mask(region, factor, (8 * factor, 8 * factor))[0, 0]
    painted = mask[3 * factor : 4 * factor, 4 * factor : 5 * factor]
    assert painted.min() > 0.85
    rows = mask.amax(1).nonzero().flatten()
    assert rows.min() == max((3 - 2) * factor, 0) and rows.max() == min((4 + 2) * factor, 8 * factor) - 1
    assert torch.allclose(mask, mask.clamp(0, 1))
    assert blend_mask(region, factor, (8 * factor - 1, 8 * factor + 3)).shape[-2:] == (8 * factor - 1, 8 * factor + 3)


def test_dilation_and_feather_keep_whole_and_empty_masks() -> None:
    for value in (0.0, 1.0):
        mask = torch.full((1, 1, 9, 7), value)
        assert torch.equal(dilate(mask, 2), mask)
        assert torch.allclose(feather(mask, 2), mask)
    assert feather(torch.zeros(1, 1, 9, 7), 2).eq(0).all()


def test_a_blend_shows_what_is_rendered_in_the_mask_alone() -> None:
    base = numbers(1, 3, 4, 4)
    left = torch.zeros(1, 1, 4, 4)
    left[..., :2] = 1
    joined = blend(base, base + 1, left)
    assert torch.allclose(joined[..., :2], base[..., :2] + 1) and torch.equal(joined[..., 2:], base[..., 2:])
    assert torch.equal(blend(base, base + 1, torch.zeros(1, 1, 4, 4)), base)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_an_edit_touches_nothing_else(level: int) -> None:
    model = faces_model().eval()
    picture = numbers(1, 3, 32, 32)
    with torch.no_grad():
        original = reconstruct(model, picture)
        same = edit(model, original, original.levels[level - 1], level)
        assert torch.equal(same.samples[0], original.image) and same.mask.eq(0).all()
        painted = original.levels[level - 1].clone()
        painted[..., 1, 1] += 0.5
        changed = edit(model, original, painted, level, samples=2, generator=generator(1))
    for sample in changed.samples:
        outside = (changed.mask == 0).expand_as(sample)
        assert outside.any() and torch.equal(sample[outside], original.image[outside])
        assert not torch.equal(sample, original.image)
    if level > 1:
        assert not torch.equal(*changed.samples)


def test_regions_show_their_samples_and_nothing_else_changes() -> None:
    model = faces_model(levels=3, side_px=64).eval()
    left, low = (torch.zeros(1, 1, 32, 32, dtype=torch.bool) for _ in range(2))
    left[..., :8], low[..., 24:, :] = True, True
    with torch.no_grad():
        original = reconstruct(model, numbers(1, 3, 64, 64))
        painted = original.levels[1] + 0.2
        edited = edit(model, original, painted, 2, 3, generator(1), regions=[(left, 2), (low, 0)])
        plain = edit(model, original, painted, 2, 3, generator(1))
    assert plain.composed is None and edited.composed is not None
    for ours, theirs in zip(edited.samples, plain.samples, strict=True):
        assert torch.equal(ours, theirs)
    first, third = plain.samples[0], plain.samples[2]
    shown = edited.composed
    assert torch.allclose(shown[..., :40, :14], third[..., :40, :14]) and not torch.allclose(first, third)
    assert torch.allclose(shown[..., 50:, :], first[..., 50:, :])  # the last one lies on top
    assert torch.equal(shown[..., : 48 - 4, 16 + 4 :], original.image[..., : 48 - 4, 16 + 4 :])


def test_a_painted_picture_is_what_its_level_shows() -> None:
    model = faces_model().eval()
    painted = numbers(1, 3, 16, 16)
    rendered = model.paint(painted, 2)
    assert torch.equal(rendered.levels[1], painted) and rendered.image.shape == (1, 3, 32, 32)


def test_fixed_levels_do_not_vary() -> None:
    model = raw_model().eval()
    frames = numbers(1, 1, 4, 64, 64)
    plain = model.restore(frames)
    drawn = model.restore(frames, None, fix_from(draw_noise(plain.latents, generator(1)), 2))
    assert torch.equal(drawn.levels[1], plain.levels[1]) and torch.equal(drawn.levels[2], plain.levels[2])
    assert not torch.equal(drawn.image, plain.image)


def test_impossible_edits_are_refused() -> None:
    model = faces_model().eval()
    original = reconstruct(model, numbers(1, 3, 32, 32))
    with pytest.raises(UsageError, match="levels 1"):
        edit(model, original, original.image, 4)
    with pytest.raises(UsageError, match="seed"):
        edit(model, original, original.image, 1, samples=2)
    mask = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    with pytest.raises(UsageError, match="asks for sample 1; expected 0 to 0"):
        edit(model, original, original.image, 1, regions=[(mask, 1)])
    with pytest.raises(UsageError, match="that of the painted picture"):
        edit(model, original, original.image, 1, regions=[(mask[..., :16], 0)])


class Faithful:
    """A pyramid that keeps every picture as it is and renders painted levels by their bands."""

    traits = faces_model(side_px=64).traits

    def pictures(self, target: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return gaussian_pyramid(target, 3)

    def sample_finer(
        self, target: torch.Tensor, level: int, noise: Noise | None = None, levels: int = 1
    ) -> Restoration:
        return Restoration(target, levels=gaussian_pyramid(target, 3))

    def paint(self, painted: torch.Tensor, level: int, noise: Noise | None = None) -> Restoration:
        for _ in range(level - 1):
            painted = torch.nn.functional.interpolate(painted, scale_factor=2, mode="bilinear")
        return Restoration(painted)


def test_scores_of_faces_by_a_faithful_model() -> None:
    faces = drawn_faces(6, 64, glasses_share=0.7)
    scores = score_faces(Faithful(), faces, level=2)
    assert scores["faces"] == 6 and 0 < scores["edited"] <= 6
    assert scores["rmse_mean"] == 0 and scores["change_outside"] == 0
    assert scores["rmse_level_2"] == 0 and scores["rmse_level_3"] == 0 and "rmse_level_4" not in scores
    # Twice the pixel is nearly sharp: most of the glasses are gone, the face about them hardly changes.
    assert scores["glasses_after"] < 0.5 * scores["glasses_before"]
    assert scores["outside_before"] < 1 and scores["outside_after"] < 10
    assert rmse(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)).tolist() == [127.5]
    picture, twin, mask = faces[0].picture[None], faces[0].picture[None], torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    none = take_off_glasses(Faithful(), picture, twin, mask, 2)
    assert torch.equal(none.samples[0], none.reconstruction)


def test_a_whole_frame_has_the_size_of_its_level() -> None:
    model = raw_model().eval()
    frame = numbers(4, 70, 100)
    rule = GridRule(stride=40)
    for level, size in ((1, (70, 100)), (2, (35, 50)), (3, (18, 25))):
        assert level_size(70, 100, level) == size
        picture = render(model, frame, level=level, rule=rule)
        assert picture.shape == (3, *size) and picture.min() >= 0 and picture.max() <= 1
    small = render(model, frame[:, :30, :50])
    assert small.shape == (3, 30, 50)


def test_a_whole_frame_of_one_tile_is_what_the_network_gives() -> None:
    model = raw_model().eval()
    frame = numbers(4, 64, 64)
    with torch.no_grad():
        expected = model.restore(frame[None, None])
    for level in (1, 2, 3):
        merged = render(model, frame, level=level)
        assert np.allclose(merged, expected.levels[level - 1][0].clamp(0, 1).numpy(), atol=1e-5)


def test_a_painting_of_another_size_is_refused() -> None:
    model, frame, rule = raw_model().eval(), numbers(4, 64, 104), GridRule(stride=40)
    painted = render(model, frame, level=2, rule=rule)
    with pytest.raises(UsageError, match="52 x 32"):
        render(model, frame, painted=painted[..., :-1], painted_level=2, rule=rule)


class Counting:
    """A pyramid that counts the tiles it is asked for."""

    def __init__(self, model: LapCvaeRaw) -> None:
        self.model, self.traits, self.tiles = model, model.traits, 0

    def restore(self, frames: torch.Tensor, *rest: object, **options: object) -> Restoration:
        self.tiles += len(frames)
        return self.model.restore(frames, *rest, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_only_tiles_that_the_change_reaches_are_rendered(level: int, upscale: int) -> None:
    """What shows of them is bit for bit what all tiles would give."""
    model = Counting(raw_model(upscale=upscale).eval())
    frame, rule = numbers(4, 90, 230), GridRule(stride=40)
    painted = numbers(3, *level_size(90, 230, level, upscale), seed=3).numpy()
    all_tiles = render(model, frame, painted=painted, painted_level=level, rule=rule)
    before, model.tiles = model.tiles, 0
    wanted = np.zeros(all_tiles.shape[-2:], dtype=bool)
    wanted[5 * upscale : 12 * upscale, 20 * upscale : 30 * upscale] = True
    few_tiles = render(model, frame, painted=painted, painted_level=level, rule=rule, wanted=wanted)
    assert before == 12 and model.tiles == 3  # one tile, and a batch of three at a time
    assert np.array_equal(few_tiles[:, wanted], all_tiles[:, wanted])
    assert not np.allclose(few_tiles[..., -20 * upscale :], all_tiles[..., -20 * upscale :])


def test_the_sidecar_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "coarse.json"
    sidecar = Sidecar(
        photo="a.dng",
        photo_sha256="ab12",
        ratio=100.0,
        weights="w.safetensors",
        weights_sha256="cd34",
        level=3,
        width=25,
        height=18,
    )
    sidecar.write(path)
    assert Sidecar.read(path) == sidecar and dataclasses.asdict(sidecar)["level"] == 3
    for text in ("{", "[]", '{"photo": 3}'):
        path.write_text(text)
        with pytest.raises(BrokenFileError, match="export it again"):
            Sidecar.read(path)
