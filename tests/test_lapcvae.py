"""The Laplacian pyramid CVAE: its size, its bounds, and that only the level whose turn it is learns."""

import copy

import pytest
import torch
from lapcvae_material import batch_for, faces_model, generator, numbers, raw_model, train
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from lowlight.core.errors import ConfigError, UsageError
from lowlight.core.restoration import Batch, Gaussian, HierarchicalModel, Share
from lowlight.data.faces import drawn_face
from lowlight.metrics.fidelity import psnr
from lowlight.models import build_model, model_config
from lowlight.models.lapcvae import LapCvae, LapCvaeConfig
from lowlight.models.lapcvae_parts import PriorNetwork
from lowlight.models.lapcvae_raw import LapCvaeRaw, LapCvaeRawConfig
from lowlight.objectives.lapcvae import (
    LapCvaeObjectiveConfig,
    PyramidModel,
    active_level,
    gaussian_nll,
    lapcvae,
    level_progress,
    negative_log_likelihood,
)
from lowlight.ops.gaussian import kl_divergence
from lowlight.ops.pyramid import down, up
from lowlight.workflows.editing.pictures import draw_noise, reconstruct

# E, D, M of each level, finest first (64: the last three).
LEVELS = [
    (3_903_840, 3_987_812, 66_176),
    (2_855_008, 2_906_212, 66_176),
    (1_281_888, 1_298_404, 66_176),
    (624_864, 609_188, 0),
]
RAW_LEVELS = [24_419_235, 17_929_379, 6_712_739, 2_396_259]
MODELS = {"faces": faces_model, "raw": raw_model}


def parameters(part: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in part.parameters()) if part else 0


def trained_parts(model: nn.Module) -> set[int]:
    """The levels that have a gradient."""
    found = set()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found.add(int(name.split(".")[1]) + 1)
    return found


@pytest.mark.parametrize(("side_px", "levels", "total"), [(64, 3, 9_707_916), (128, 4, 17_665_744)])
def test_sizes_of_the_pyramids_of_faces(side_px: int, levels: int, total: int) -> None:
    with torch.device("meta"):
        model = LapCvae(LapCvaeConfig(side_px=side_px, levels=levels), generator())
    parts = [tuple(map(parameters, (level.encoder, level.decoder, level.prior))) for level in model.pyramid]
    assert parts == LEVELS[-levels:]
    assert parameters(model) == total


def test_the_plain_vae_of_faces_has_the_size_of_the_pyramid() -> None:
    sizes = []
    for name in ("lapcvae-faces", "vae-faces"):
        with torch.device("meta"):
            sizes.append(parameters(build_model(name, model_config(name))))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.03)


def test_size_of_the_pyramid_on_raw() -> None:
    with torch.device("meta"):
        model = LapCvaeRaw(LapCvaeRawConfig(), generator())
    assert model.encoder is not None
    parts = [parameters(level) + parameters(e) for level, e in zip(model.pyramid, model.encoder, strict=True)]
    assert parts == RAW_LEVELS
    assert parameters(model) == 51_457_612
    kept = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("encoder."))
    assert kept == 36_042_412


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_models_keep_their_promises(make) -> None:  # type: ignore[no-untyped-def]
    model = make().eval()
    assert isinstance(model, HierarchicalModel) and isinstance(model, PyramidModel)
    batch, traits = batch_for(model), model.traits
    trained = model.reconstruct(batch.frames, batch.target, generator(1))
    levels = len(traits.latents)
    assert torch.equal(trained.image, trained.levels[0]) and trained.image.shape == batch.target.shape
    assert [level.shape[-1] for level in trained.levels] == [traits.tile >> k for k in range(levels)]
    assert all(latent.posterior is not None and latent.sample.shape[1] == 6 for latent in trained.latents)
    assert trained.latents[0].prior.log_variance.eq(0).all()
    tested = model.restore(batch.frames)
    again = model.restore(batch.frames, None, draw_noise(tested.latents, generator(4)))
    assert torch.equal(tested.image, model.restore(batch.frames).image)
    assert not torch.equal(again.image, tested.image)
    preview = model.restore(batch.frames, levels=2)
    assert torch.equal(preview.image, up(tested.levels[1]))
    assert len(preview.levels) == levels - 1


def test_a_level_on_raw_corrects_what_the_coarser_ones_made_of_a_known_picture() -> None:
    model = raw_model().eval()
    batch = batch_for(model)
    known, pictures, levels = model.reconstruct(batch.frames, batch.target, None), model.pictures(batch.target), 3
    assert len(pictures) == levels
    for level in range(1, levels):
        posterior, coarser = known.latents[levels - level].posterior, known.levels[level]
        read = model._posterior(level, pictures[level - 1] - up(coarser), coarser)
        assert posterior is not None
        torch.testing.assert_close(posterior.mean, read.mean)


@pytest.mark.parametrize(
    "options",
    [{"cond": "latents+image"}, {"sigma": "pixel"}, {"sigma": "fixed"}, {"unseen": "chain"}, {"filter": "binomial"}],
    ids=str,
)
def test_options_of_faces(options: dict[str, str]) -> None:
    model = faces_model(**options)
    batch = batch_for(model)
    for schedule in ("greedy", "joint"):
        loss = lapcvae(model, batch, 1.0, generator(), LapCvaeObjectiveConfig(schedule=schedule))
        loss.total.backward()
        assert torch.isfinite(loss.total)
    assert torch.isfinite(model.restore(batch.frames).image).all()


@pytest.mark.parametrize(
    "options", [{"width": "gaussian"}, {"unseen": "re-encode"}, {"upscale": 2}, {"out_channels": 1}], ids=str
)
def test_options_of_raw(options: dict[str, object]) -> None:
    model = raw_model(**options)
    batch = batch_for(model)
    for schedule in ("greedy", "joint"):
        loss = lapcvae(model, batch, 1.0, generator(), LapCvaeObjectiveConfig(schedule=schedule))
        loss.total.backward()
        assert torch.isfinite(loss.total)
    restored = model.restore(batch.frames)
    assert restored.image.shape == batch.target.shape
    assert model.restore(batch.frames, levels=3).image.shape == batch.target.shape
    assert model.reconstruct(batch.frames, batch.target, generator()).image.shape == batch.target.shape


@pytest.mark.parametrize(
    ("options", "said"),
    [({"levels": 4}, "fewer levels"), ({"side_px": 48}, "power of two"), ({"hidden": 0}, "hidden is 0")],
)
def test_impossible_pyramids_of_faces_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        faces_model(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"levels": 4}, "4 levels"), ({"base": "lowpass"}, "base to none"), ({"prior_share": 2.0}, "share from 0 to 1")],
)
def test_impossible_pyramids_on_raw_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        raw_model(**options)


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="32 x 32"):
        faces_model().sample_finer(numbers(1, 3, 16, 16), 1)


def test_learned_priors_diverge_as_the_textbook_says() -> None:
    model = faces_model(levels=3)
    terms = model.terms(numbers(2, 0, 3, 32, 32), numbers(2, 3, 32, 32), generator(1))
    for term in terms:
        q, p = term.latent.posterior, term.latent.prior
        assert q is not None
        normals = [Normal(one.mean, (one.log_variance / 2).exp()) for one in (q, p)]
        assert torch.allclose(kl_divergence(q, p), reference_kl(*normals).sum(1), rtol=1e-4)
        assert torch.equal(kl_divergence(p, Gaussian(*p)), torch.zeros(2))
    assert not terms[1].latent.prior.mean.eq(0).all()


def test_a_prior_that_left_its_range_finds_back() -> None:
    prior = PriorNetwork(4, 8)
    prior.log_variance[-1].bias.data.fill_(30.0)
    below = Gaussian(numbers(2, 4), numbers(2, 4))
    found = prior(below)
    assert torch.allclose(found.log_variance, torch.tensor(2.0))
    kl_divergence(Gaussian(*map(torch.zeros_like, below)), found).sum().backward()
    assert (prior.log_variance[-1].bias.grad > 0).all()  # type: ignore[operator]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_only_the_active_level_gets_gradients(make) -> None:  # type: ignore[no-untyped-def]
    for level, progress in ((3, 0.0), (2, 0.5), (1, 1.0)):
        model = make(levels=3)
        assert active_level(progress, 3) == level
        lapcvae(model, batch_for(model), progress, generator(), LapCvaeObjectiveConfig()).total.backward()
        assert trained_parts(model) == {level}
        prior = model.pyramid[level - 1].prior
        assert all(p.grad.abs().sum() > 0 for p in prior.parameters()) if prior else level == 3
    model = make(levels=3)
    loss = lapcvae(model, batch_for(model), 0.0, generator(), LapCvaeObjectiveConfig(schedule="joint"))
    loss.total.backward()
    assert trained_parts(model) == {1, 2, 3} and "kl_3" in loss.parts


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_frozen_levels_stay_bit_for_bit(make) -> None:  # type: ignore[no-untyped-def]
    model = make(levels=3)
    batch = batch_for(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)

    def step(progress: float) -> None:
        lapcvae(model, batch, progress, generator(), LapCvaeObjectiveConfig()).total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step(0.1)
    before, shown = copy.deepcopy(model.state_dict()), model.restore(batch.frames, levels=3).image
    step(0.5)
    changed = {
        int(name.split(".")[1]) + 1 for name, v in model.state_dict().items() if not torch.equal(v, before[name])
    }
    assert changed == {2}
    assert torch.equal(model.restore(batch.frames, levels=3).image, shown)


def test_turns_of_a_greedy_run() -> None:
    assert [active_level(i / 6, 3) for i in range(7)] == [3, 3, 2, 2, 1, 1, 1]
    assert [active_level(p, 2, (1.0, 3.0)) for p in (0.0, 0.24, 0.25, 1.0)] == [2, 2, 1, 1]
    assert [active_level(p, 2, (0.0, 1.0)) for p in (0.0, 1.0)] == [1, 1]
    assert [level_progress(p, 2) for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 0.0, 1.0]
    with pytest.raises(ConfigError, match="3 shares for 2 levels"):
        active_level(0.5, 2, (1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="2 weights for 3 levels"):
        model = faces_model(levels=3)
        lapcvae(model, batch_for(model), 0.0, generator(), LapCvaeObjectiveConfig(weights=(1.0, 2.0)))


def test_weights_of_the_divergence() -> None:
    model = raw_model()
    batch = batch_for(model)
    plain = lapcvae(model, batch, 0.0, generator(), LapCvaeObjectiveConfig())
    expected = plain.parts["reconstruction"] + 2.0 * plain.parts["kl"]
    assert torch.allclose(plain.total, expected)
    other = lapcvae(model, batch, 0.0, generator(), LapCvaeObjectiveConfig(weights=(9.0, 9.0, 0.5)))
    assert torch.allclose(other.total, plain.parts["reconstruction"] + 0.5 * plain.parts["kl"])


def test_gaussian_likelihood_is_the_textbook_one_and_its_best_width_the_error() -> None:
    mean, target = numbers(2, 3, 8, 8), numbers(2, 3, 8, 8, seed=1)
    log_variance = torch.tensor([-2.0, 0.5]).view(2, 1, 1, 1)
    expected = -Normal(mean, (log_variance / 2).exp()).log_prob(target).flatten(1).sum(1).mean()
    assert torch.allclose(gaussian_nll(mean, log_variance, target), expected, rtol=1e-5)
    best = (mean - target).square().flatten(1).mean(1).log().view(2, 1, 1, 1).requires_grad_()
    gaussian_nll(mean, best, target).backward()
    assert best.grad is not None and best.grad.abs().max() < 1e-3


def test_a_fixed_width_gives_half_the_squared_error() -> None:
    model = faces_model(sigma="fixed")
    (term,) = model.terms(numbers(2, 0, 3, 32, 32), numbers(2, 3, 32, 32), generator(), level=1)
    expected = 0.5 * (term.mean - term.target).square().sum() / 2
    assert torch.allclose(negative_log_likelihood(term, "gaussian"), expected)


def test_partial_samples_keep_what_was_kept() -> None:
    model = faces_model(levels=3).eval()
    picture = numbers(2, 3, 32, 32)
    whole = reconstruct(model, picture)
    encoded = model.reconstruct(picture.new_empty(2, 0, 3, 32, 32), picture, None)
    assert torch.allclose(whole.image, encoded.image, atol=1e-6)
    noises = [draw_noise(whole.latents, generator(seed)) for seed in (1, 2)]
    assert torch.equal(model.sample_finer(picture, 1, noises[0]).image, whole.image)
    for level in (2, 3):
        first, second = (model.sample_finer(picture, level, noise) for noise in noises)
        for one, other, true in zip(first.levels, second.levels, whole.levels, strict=True):
            if one.shape[-1] <= 32 >> (level - 1):
                assert torch.equal(one, other) and torch.allclose(one, true, atol=1e-6)
            else:
                assert not torch.allclose(one, other)


def test_samples_of_the_finer_levels_depend_on_the_coarse_sample() -> None:
    for unseen in ("re-encode", "chain"):
        model = faces_model(unseen=unseen).eval()
        noise = draw_noise(model.restore(torch.empty(1, 0, 3, 32, 32)).latents, generator(1))
        still = tuple(map(torch.zeros_like, noise[1:]))
        first, second = (model.restore(torch.empty(1, 0, 3, 32, 32), None, (z, *still)) for z in (noise[0], -noise[0]))
        assert not torch.allclose(first.latents[1].prior.mean, second.latents[1].prior.mean)
        assert not torch.allclose(first.levels[0] - up(first.levels[1]), second.levels[0] - up(second.levels[1]))


def test_raw_training_sees_the_prior_path_and_grades() -> None:
    """Each of the three coins changes what the finer level is given, and none touches y."""
    target, frames = numbers(4, 3, 64, 64), numbers(4, 1, 4, 64, 64, seed=1)
    plain = raw_model(own_picture_share=0.0, prior_share=0.0, grade_share=0.0)

    def term(**shares: float):  # type: ignore[no-untyped-def]
        model = raw_model(**{"own_picture_share": 0.0, "prior_share": 0.0, "grade_share": 0.0, **shares})
        model.load_state_dict(plain.state_dict())
        (found,) = model.terms(frames, target, generator(3), level=2)
        return found

    true, own, prior, graded = term(), term(own_picture_share=1.0), term(prior_share=1.0), term(grade_share=1.0)
    assert torch.equal(true.low, down(down(target)))
    assert torch.equal(own.low, plain.restore(frames, levels=3).levels[0])
    # The residual is what is missing from the picture that was given.
    for one in (true, own):
        assert torch.allclose(one.target + up(one.low), down(target), atol=1e-6)
    assert torch.equal(prior.low, true.low)
    assert not torch.allclose(prior.latent.prior.mean, true.latent.prior.mean)
    assert not torch.allclose(prior.mean, true.mean)
    assert not torch.allclose(graded.low, true.low)
    mixed = term(own_picture_share=0.5)
    kinds = [torch.equal(mixed.low[i], true.low[i]) + 2 * torch.equal(mixed.low[i], own.low[i]) for i in range(4)]
    assert set(kinds) <= {1, 2}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_shares_of_a_batch_learn_what_the_whole_does(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    batch = batch_for(model, 4)
    config = LapCvaeObjectiveConfig()
    whole = lapcvae(model, batch, 1.0, generator(), config).total
    halves = [
        lapcvae(
            model,
            Batch(batch.frames[i : i + 2], batch.target[i : i + 2], batch.ratio[i : i + 2], share=Share(i, 4)),
            1.0,
            generator(),
            config,
        ).total
        for i in (0, 2)
    ]
    assert torch.allclose(torch.stack(halves).mean(), whole, rtol=1e-4)


def test_raw_weights_without_posteriors_still_restore() -> None:
    model = raw_model()
    frames = batch_for(model).frames
    expected = model.restore(frames).image
    model.register_module("encoder", None)
    assert torch.equal(model.restore(frames).image, expected)
    with pytest.raises(UsageError, match="keep_posterior"):
        model.reconstruct(frames, numbers(2, 3, 64, 64), generator())


def test_a_painted_level_is_carried_to_full_size() -> None:
    model = raw_model()
    frames = batch_for(model).frames
    plain = model.restore(frames)
    same = model.restore(frames, painted=plain.levels[1], painted_level=2)
    assert torch.allclose(same.image, plain.image, atol=1e-6)
    brighter = model.restore(frames, painted=plain.levels[1] + 0.5, painted_level=2)
    assert torch.allclose(brighter.levels[1], plain.levels[1] + 0.5)
    assert not torch.allclose(brighter.image, plain.image, atol=0.05)


def test_finer_levels_on_raw_beat_the_enlarged_coarse_one() -> None:
    """The tiny pyramid on one batch of pictures with detail that y shows too."""
    model = raw_model(base_channels=4)
    faces = torch.stack([drawn_face(index, 64).picture for index in range(2)])
    frames = torch.cat((faces, faces[:, 1:2]), dim=1)[:, None]
    batch = Batch(frames, faces, frames.new_ones(2, 1))
    train(model, lambda step: batch, 75, rate=5e-3)
    with torch.no_grad():
        fine, coarse = (model.restore(frames, levels=levels).image.clamp(0, 1) for levels in (1, 3))
    scores = [psnr(one.flatten(0, 1), faces.flatten(0, 1)) for one in (fine, coarse)]
    assert scores[0] > scores[1] + 0.5, scores
