"""Likelihoods of pictures: textbook values, and probabilities that sum to 1."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Laplace, Normal

from lowlight.core.restoration import Gaussian, Restoration
from lowlight.ops.aggregation import fuse_max, fuse_mean, fuse_normals, mean_frame
from lowlight.ops.gaussian import log_normal, standard_normal
from lowlight.ops.likelihoods import LIKELIHOODS, MIXTURE, crop_border, log_likelihood, reconstruction_error

LEVELS = torch.arange(256) / 255


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mixture(channels: int, seed: int = 0, mean: float | None = None, log_scale: float | None = None) -> Tensor:
    """Parameters of one pixel `[1, P, 1, 1]`; those of all channels may be set to one mean and scale."""
    parameters = numbers(1, LIKELIHOODS["logistic-mixture"].parameter_channels(channels), 1, 1, seed=seed)
    if mean is not None:
        parameters[:, MIXTURE : MIXTURE * (1 + channels)] = mean
    if log_scale is not None:
        parameters[:, MIXTURE * (1 + channels) : MIXTURE * (1 + 2 * channels)] = log_scale
    return parameters


def probabilities(parameters: Tensor, targets: Tensor) -> Tensor:
    """Probabilities of the values `[N, C']` of one pixel."""
    many = parameters.expand(len(targets), -1, -1, -1)
    return LIKELIHOODS["logistic-mixture"].log_prob(many, targets[:, :, None, None]).double().exp()


@pytest.mark.parametrize(
    ("name", "reference"),
    [("laplace", lambda m: Laplace(m, 1.0)), ("gaussian", lambda m: Normal(m, 1.0))],
)
def test_simple_likelihoods_are_the_textbook_ones(name: str, reference: object) -> None:
    mean, target = numbers(3, 2, 5, 4), numbers(3, 2, 5, 4, seed=1)
    entry = LIKELIHOODS[name]  # type: ignore[index]
    expected = reference(mean).log_prob(target).flatten(1).sum(1)  # type: ignore[operator]
    assert torch.allclose(entry.log_prob(mean, target), expected, rtol=1e-5)
    assert entry.mean(mean) is mean and entry.only_mean and entry.parameter_channels(3) == 3


def test_bernoulli_takes_gray_targets_as_they_are() -> None:
    logits = numbers(4, 1, 6, 6)
    entry = LIKELIHOODS["bernoulli"]
    black_white = (numbers(4, 1, 6, 6, seed=1) > 0).float()
    expected = Bernoulli(logits=logits).log_prob(black_white).flatten(1).sum(1)
    assert torch.allclose(entry.log_prob(logits, black_white), expected, rtol=1e-5)
    gray = torch.full_like(logits, 0.25)
    p = logits.sigmoid()
    by_hand = (0.25 * p.log() + 0.75 * (1 - p).log()).flatten(1).sum(1)
    assert torch.allclose(entry.log_prob(logits, gray), by_hand, rtol=1e-4)
    assert torch.equal(entry.mean(logits), p)


def test_mixture_has_a_hundred_channels_for_colour() -> None:
    channels = LIKELIHOODS["logistic-mixture"].parameter_channels
    assert (channels(3), channels(1)) == (100, 30)


@given(
    mean=st.sampled_from([-1.5, -1.0, -0.993, 0.0, 0.31, 0.993, 1.0, 1.5]),
    log_scale=st.sampled_from([-12.0, -7.0, -4.0, -2.0, 0.0, 1.0]),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_probabilities_of_all_8_bit_values_sum_to_one(mean: float, log_scale: float, seed: int) -> None:
    total = probabilities(mixture(1, seed, mean, log_scale), LEVELS[:, None]).sum()
    assert abs(total - 1) < 1e-4


def test_random_mixtures_sum_to_one() -> None:
    for seed in range(20):
        assert abs(probabilities(mixture(1, seed), LEVELS[:, None]).sum() - 1) < 1e-4


def test_later_channels_sum_to_the_probability_of_the_earlier_ones() -> None:
    parameters = mixture(3, 3)
    red = 97
    pairs = torch.cartesian_prod(LEVELS, LEVELS)
    values = torch.cat((torch.full((len(pairs), 1), red / 255), pairs), 1)
    weights, means, log_scales, _ = parameters.split([MIXTURE, 3 * MIXTURE, 3 * MIXTURE, 3 * MIXTURE], 1)
    alone = torch.cat((weights, means[:, :MIXTURE], log_scales[:, :MIXTURE]), 1)
    expected = probabilities(alone, LEVELS[red].view(1, 1))[0]
    assert torch.isclose(probabilities(parameters, values).sum(), expected, rtol=1e-4)


def test_coefficients_move_later_means_by_the_true_earlier_values() -> None:
    # One narrow distribution: green lies at 0.8 red, blue at -0.5 red + 0.25 green (from -1 to 1).
    parameters = torch.zeros(1, 100, 1, 1)
    parameters[:, 40:70] = -5.0
    for pair, coefficient in enumerate((0.8, -0.5, 0.25)):
        parameters[:, 70 + 10 * pair : 80 + 10 * pair] = math.atanh(coefficient)
    red = 0.5
    green, blue = 0.8 * red, -0.5 * red + 0.25 * 0.8 * red
    middle = (torch.tensor([[red, green, blue]]) + 1) / 2
    error = LIKELIHOODS["logistic-mixture"].error
    best = error(parameters, middle[:, :, None, None])
    for channel in (1, 2):
        for step in (-0.05, 0.05):
            moved = middle.clone()
            moved[0, channel] += step
            assert error(parameters, moved[:, :, None, None]) > best + 1
    parameters[:, 10:20] = red
    assert torch.allclose(LIKELIHOODS["logistic-mixture"].mean(parameters).flatten(), middle[0], atol=1e-6)


def test_mixture_mean_is_the_expected_value_and_within_the_range() -> None:
    parameters = mixture(1, 5, log_scale=-3.5)
    parameters[:, MIXTURE : 2 * MIXTURE] *= 0.4  # away from the edges, where bins hold the tails
    expected = (probabilities(parameters, LEVELS[:, None]) * LEVELS).sum()
    mean = LIKELIHOODS["logistic-mixture"].mean
    assert abs(mean(parameters).item() - expected.item()) < 2e-3
    wild = mean(100 * numbers(2, 100, 3, 3))
    assert wild.shape == (2, 3, 3, 3) and wild.min() >= 0 and wild.max() <= 1


def test_extreme_parameters_give_finite_gradients() -> None:
    for name, entry in LIKELIHOODS.items():
        parameters = (50 * numbers(2, entry.parameter_channels(3), 4, 4)).requires_grad_()
        error = entry.error(parameters, torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)))
        error.sum().backward()  # type: ignore[no-untyped-call]
        assert error.shape == (2,) and error.isfinite().all() and parameters.grad.isfinite().all(), name  # type: ignore[union-attr]


def test_pictures_of_different_shapes_are_not_compared() -> None:
    for name in ("laplace", "gaussian", "bernoulli", "logistic-mixture"):
        entry = LIKELIHOODS[name]  # type: ignore[index]
        with pytest.raises(AssertionError):
            entry.error(torch.zeros(2, entry.parameter_channels(3), 8, 8), torch.zeros(2, 1, 8, 8))


def test_padding_does_not_count() -> None:
    logits, target = numbers(2, 1, 32, 32), torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    said = Restoration(logits.sigmoid(), (), logits)
    cropped = log_likelihood("bernoulli", said, target, 2)
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:30, 2:30] = False
    other = Restoration(said.image, (), torch.where(border, -logits, logits))
    assert torch.equal(log_likelihood("bernoulli", other, target, 2), cropped)
    assert not torch.equal(log_likelihood("bernoulli", other, target), log_likelihood("bernoulli", said, target))
    assert crop_border(target, 2).shape == (2, 1, 28, 28) and crop_border(target, 0) is target
    picture = Restoration(target + 0.5)
    assert torch.allclose(reconstruction_error("laplace", picture, target, 2), torch.tensor(0.5 * 784))


def test_log_density_of_a_draw_is_the_textbook_one() -> None:
    z, p = numbers(3, 2, 4, 4), Gaussian(numbers(3, 2, 4, 4, seed=1), numbers(3, 2, 4, 4, seed=2))
    expected = Normal(p.mean, (p.log_variance / 2).exp()).log_prob(z).flatten(1).sum(1)
    assert torch.allclose(log_normal(z, p), expected, rtol=1e-5)
    plain = log_normal(z, standard_normal(z))
    assert torch.allclose(plain, Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1), rtol=1e-5)


def members(count: int, seed: int = 0) -> Gaussian:
    return Gaussian(numbers(2, count, 3, 4, 4, seed=seed), numbers(2, count, 3, 4, 4, seed=seed + 1))


def test_bayes_is_weighting_by_precision() -> None:
    said = members(4)
    precision = (-said.log_variance.double()).exp()
    variance = 1 / precision.sum(1)
    mean = variance * (precision * said.mean).sum(1)
    fused = fuse_normals(said)
    assert torch.allclose(fused.mean.double(), mean, atol=1e-5)
    assert torch.allclose(fused.log_variance.double(), variance.log(), atol=1e-5)


@pytest.mark.parametrize("deviations", [False, True])
def test_bayes_minds_no_order_and_leaves_one_alone(deviations: bool) -> None:
    said, order = members(4), [2, 0, 3, 1]
    fused = fuse_normals(said, deviations=deviations)
    turned = fuse_normals(Gaussian(said.mean[:, order], said.log_variance[:, order]), deviations=deviations)
    for one, other in zip(fused, turned, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    alone = fuse_normals(members(1), deviations=deviations)
    assert torch.equal(alone.mean, members(1).mean[:, 0])
    assert torch.allclose(alone.log_variance, members(1).log_variance[:, 0], atol=1e-6)


def test_deviations_in_place_of_variances_give_another_answer() -> None:
    said = members(2)
    sigma = (said.log_variance / 2).exp()
    expected = 1 / (1 / sigma).sum(1)
    fused = fuse_normals(said, deviations=True)
    assert torch.allclose((fused.log_variance / 2).exp(), expected, rtol=1e-4)
    assert not torch.allclose(fused.mean, fuse_normals(said).mean, atol=1e-2)


def test_sets_of_features() -> None:
    features, order = numbers(2, 3, 5, 4, 4), [2, 0, 1]
    assert torch.equal(fuse_max(features), fuse_max(features[:, order]))
    assert torch.equal(fuse_max(features), fuse_max(features[:, [0, 1, 2, 1]]))
    assert (fuse_max(features) >= fuse_max(features[:, :2])).all()
    assert torch.allclose(fuse_mean(features), fuse_mean(features[:, order]), atol=1e-6)
    assert torch.equal(mean_frame(features), mean_frame(features[:, order]))
    assert torch.allclose(mean_frame(features), features.mean(1, keepdim=True), atol=1e-6)
