"""How pyramids learn: starts that do not run away, rates that fall in each level, and the paper's claim."""

import math

import pytest
import torch
from lapcvae_material import batch_for, faces_model, generator, numbers, raw_model, train
from torch import nn

from lowlight.core.restoration import Batch
from lowlight.data.faces import drawn_face, face_batch
from lowlight.models.lapcvae import LapCvae, LapCvaeConfig
from lowlight.objectives.lapcvae import LapCvaeObjectiveConfig, negative_log_likelihood
from lowlight.workflows.evaluating.face_scores import drawn_faces, rmse, score_faces
from lowlight.workflows.training.config import OptimiserSection
from lowlight.workflows.training.schedules import rate_factor, rate_progress


def parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.slow
def test_the_pyramid_keeps_faces_better_than_a_plain_vae_of_its_size() -> None:
    """The paper's claim, on drawn faces of 32 pixels after equally many multiplications; both must have learned.

    A greedy step trains one level alone, and cheaply: for one picture a step at each level, with what the frozen
    encoder needs, takes 61.5 million multiplications, a step of the plain VAE 51.9 million.
    """
    faces = torch.stack([drawn_face(index, 32).picture for index in range(512)])
    pyramid = LapCvae(LapCvaeConfig(side_px=32, levels=2), generator(1))
    plain = LapCvae(LapCvaeConfig(side_px=32, levels=1, latent=128, hidden=768), generator(1))
    assert abs(math.log(parameters(pyramid) / parameters(plain))) < 0.1
    plain_steps = 800  # 50 epochs
    steps_a_level = int(plain_steps * 51.9 / 61.5)

    def batch_of(step: int) -> Batch:
        chosen = torch.randint(len(faces), (32,), generator=generator(1000 + step))
        return face_batch(faces[chosen])

    unseen = drawn_faces(64, 32)
    mean_picture = faces.mean(0, keepdim=True).expand(len(unseen), -1, -1, -1)
    know_nothing = float(rmse(mean_picture, torch.stack([face.picture for face in unseen])).mean())
    scores = []
    for model, steps in ((pyramid, 2 * steps_a_level), (plain, plain_steps)):
        train(model, batch_of, steps, clip_norm=100.0)
        scores.append(score_faces(model.eval(), unseen)["rmse_mean"])
    assert max(scores) < 0.75 * know_nothing
    assert scores[0] <= scores[1], f"RMSE of the pyramid {scores[0]:.1f}, of the plain VAE {scores[1]:.1f}"


def test_a_width_that_left_its_range_finds_back() -> None:
    """Stuck at the upper limit it would leave the mean without a gradient worth the name."""
    model = faces_model(levels=1)
    decoder = model.pyramid[0].decoder
    decoder.spread.bias.data.fill_(30.0)
    batch = batch_for(model)
    (term,) = model.terms(batch.frames, batch.target, generator(), level=1)
    assert term.log_variance.eq(4.0).all()
    negative_log_likelihood(term, "gaussian").backward()
    assert (decoder.spread.bias.grad > 0).all()


def test_training_starts_near_a_flat_picture_of_width_one() -> None:
    model = LapCvae(LapCvaeConfig(side_px=32, levels=2), generator(1))
    for term in model.terms(numbers(2, 0, 3, 32, 32), numbers(2, 3, 32, 32), generator(1)):
        assert term.log_variance is not None and term.log_variance.eq(0).all()
        assert term.mean.abs().mean() < 0.5


def test_the_first_steps_of_a_plain_vae_learn() -> None:
    """It used to lose its width within five steps, and with it everything else."""
    faces = torch.stack([drawn_face(index, 32).picture for index in range(8)])
    model = LapCvae(LapCvaeConfig(side_px=32, levels=1, hidden=256, base_channels=16), generator(1))
    train(model, lambda step: face_batch(faces), 40, clip_norm=100.0)
    (term,) = model.terms(faces.new_empty(8, 0, 3, 32, 32), faces, None)
    error = (term.mean - faces).square().mean()
    assert error < 0.8 * faces.var()
    assert term.log_variance.exp().mean() < 4 * error


def test_rates_fall_in_each_level_of_a_greedy_run() -> None:
    traits = faces_model(levels=3).traits
    rates = OptimiserSection(schedule="milestone", milestone=0.6)

    def factors(config: object) -> list[float]:
        return [rate_factor(rates, rate_progress(config, traits, i / 15), 99) for i in range(15)]

    assert factors(LapCvaeObjectiveConfig()) == [1, 1, 1, 0.1, 0.1] * 3
    assert factors(LapCvaeObjectiveConfig(schedule="joint")) == [1.0] * 9 + [0.1] * 6
    assert rate_progress(LapCvaeObjectiveConfig(shares=(1.0, 1.0, 2.0)), traits, 0.75) == 0.5


def test_pictures_on_raw_keep_full_precision_in_half_the_bits() -> None:
    """The sum of the bands has finer steps than the networks compute in."""
    model = raw_model().eval()
    frames = batch_for(model).frames
    full = model.restore(frames).image
    half = model.bfloat16().restore(frames.bfloat16())
    assert half.image.dtype == torch.float32
    assert (half.image - full).abs().mean() < 0.05
    assert not torch.equal(half.image, half.image.bfloat16().float())
