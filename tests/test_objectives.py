"""Objectives: the thesis' sums, and finite gradients for every network."""

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal
from torch.distributions import kl_divergence as reference_kl
from training_material import TINY_MODEL

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Gaussian, RestorationModel, Share
from lowlight.models import MODELS, build_model, model_config
from lowlight.objectives import OBJECTIVES, build_objective, require_fit
from lowlight.objectives.elbo import absolute_error, absolute_error_of_scales, half_squared_error
from lowlight.ops.gaussian import draw, kl_divergence, standard_noise

OPTIONS = {"cvae": {"samples": 2}, "hybrid": {"alpha": 0.5}, "l1": {}}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(name: str, **options: object) -> nn.Module:
    return build_model(name, model_config(name, {**TINY_MODEL[name], **options}), seed=1)


def batch_for(model: nn.Module, count: int = 2) -> Batch:
    traits, g = model.traits, generator(2)
    size = traits.upscale * traits.tile
    shape = (count, traits.out_channels, size, size)
    base = torch.rand(shape, generator=g) if traits.base != "none" else None
    frames = torch.rand((count, 1, traits.in_channels, traits.tile, traits.tile), generator=g)
    return Batch(frames, torch.rand(shape, generator=g), torch.full((count, 1), 100.0), base)


def gaussians(general: bool) -> tuple[Gaussian, Gaussian]:
    g = generator(4)
    q, p = (Gaussian(*(torch.randn(5, 7, generator=g, dtype=torch.float64) for _ in range(2))) for _ in range(2))
    return q, p if general else Gaussian(p.mean, torch.zeros_like(p.mean))


@pytest.mark.parametrize("general", [False, True])
def test_divergence_is_the_textbook_one(general: bool) -> None:
    q, p = gaussians(general)
    normals = [Normal(one.mean, (one.log_variance / 2).exp()) for one in (q, p)]
    expected = reference_kl(*normals).sum(1)
    assert torch.allclose(kl_divergence(q, p).double(), expected, rtol=1e-6)
    assert torch.equal(kl_divergence(q, q), torch.zeros(5))


def test_reconstruction_is_the_laplace_likelihood_without_its_constant() -> None:
    g = generator()
    image, target = (torch.rand(3, 3, 8, 8, generator=g) for _ in range(2))
    log_likelihood = Laplace(image, 1.0).log_prob(target).flatten(1).sum(1).mean()
    values = image[0].numel()
    expected = -log_likelihood - values * torch.log(torch.tensor(2.0))
    assert torch.allclose(absolute_error(image, target), expected, rtol=1e-5)


def test_squared_reconstruction_is_the_normal_likelihood_without_its_constant() -> None:
    g = generator()
    image, target = (torch.rand(3, 3, 8, 8, generator=g) for _ in range(2))
    log_likelihood = Normal(image, 1.0).log_prob(target).flatten(1).sum(1).mean()
    expected = -log_likelihood - image[0].numel() / 2 * torch.log(torch.tensor(2 * torch.pi))
    assert torch.allclose(half_squared_error(image, target), expected, rtol=1e-4)
    model = network("sid-net").eval()
    batch = batch_for(model)
    absolute, squared = (
        build_objective("cvae", {"reconstruction": name})(model, batch, 0.0, generator(3))  # type: ignore[arg-type]
        for name in ("l1", "mse")
    )
    assert squared.parts["reconstruction"] != absolute.parts["reconstruction"]
    assert squared.parts["kl"] == absolute.parts["kl"]


def test_pictures_of_different_shapes_are_not_compared() -> None:
    with pytest.raises(AssertionError):
        absolute_error(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, model_config(name))


SINGLE = [name for name, entry in MODELS.items() if entry.kind == "raw" and isinstance(on_meta(name), RestorationModel)]


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if OBJECTIVES[name].fits(on_meta("sid-net"))])
@pytest.mark.parametrize("name", SINGLE)
def test_every_pair_gives_finite_losses_and_gradients(name: str, objective: str) -> None:
    model = network(name, upscale=2, base="lowpass")
    with torch.no_grad():  # a base starts the head at zero, which keeps gradients from what lies before it
        for parameter in model.decoder.head.parameters():
            parameter.add_(0.01)
    bound = build_objective(objective, OPTIONS.get(objective))
    if not bound.uses_posterior:
        model.register_module("encoder", None)
    loss = bound(model, batch_for(model, 1), 0.5, generator())  # type: ignore[arg-type]
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(part) and not part.requires_grad for part in loss.parts.values())
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_cvae_is_reconstruction_plus_weighted_divergence() -> None:
    model = network("sid-net").eval()
    batch = batch_for(model)
    loss = build_objective("cvae", {"beta": 3.0})(model, batch, 0.0, generator(9))  # type: ignore[arg-type]
    with torch.no_grad():
        condition, posterior = model.condition(batch.frames), model.posterior(batch.target)
        z = draw(posterior, standard_noise(posterior.mean, generator(9)))
        reconstruction = absolute_error(model.decode(z, condition), batch.target)
        kl = kl_divergence(posterior, condition.prior).mean()
    assert torch.allclose(loss.total, reconstruction + 3 * kl)
    assert torch.allclose(loss.parts["reconstruction"], reconstruction)
    assert torch.allclose(loss.parts["kl"], kl)


def test_two_samples_are_two_draws_averaged() -> None:
    model = network("sid-net").eval()
    with torch.no_grad():
        model.decoder.expand.weight.mul_(100)  # so that the latent matters
    batch, two = batch_for(model), build_objective("cvae", {"beta": 0.0, "samples": 2})
    loss = two(model, batch, 0.0, generator(9))  # type: ignore[arg-type]
    noise, one = generator(9), build_objective("cvae", {"beta": 0.0})
    singles = [one(model, batch, 0.0, noise).total for _ in range(2)]  # type: ignore[arg-type]
    assert singles[0] != singles[1]
    assert torch.allclose(loss.total, torch.stack(singles).mean())


def test_l1_uses_the_mean_of_the_prior_and_neither_noise_nor_encoder() -> None:
    model = network("sid-net")
    model.register_module("encoder", None)
    batch, objective = batch_for(model), build_objective("l1")
    losses = [objective(model, batch, 0.0, generator(seed)).total for seed in (1, 2)]  # type: ignore[arg-type]
    assert torch.equal(losses[0], losses[1])
    condition = model.condition(batch.frames)
    assert torch.allclose(losses[0], absolute_error(model.decode(condition.prior.mean, condition), batch.target))
    assert not objective.uses_posterior


def losses_and_gradients(model: nn.Module, batch: Batch, name: str, **options: object) -> dict[str, torch.Tensor]:
    """The loss of one batch under "loss", and every gradient there is."""
    model.zero_grad(set_to_none=True)
    total = build_objective(name, options)(model, batch, 0.0, generator(9)).total  # type: ignore[arg-type]
    total.backward()
    found = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    return {"loss": total.detach(), **found}


def test_scales_weigh_large_errors_more_than_noise() -> None:
    target = torch.zeros(2, 3, 16, 16)
    blotch = target + 0.1
    assert torch.allclose(absolute_error_of_scales(blotch, target, 4), absolute_error(blotch, target))
    checks = 0.1 * (1 - 2 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2)).float().expand(2, 3, 16, 16)
    # Block means of a chequerboard are 0, so only one scale of five sees it.
    assert torch.allclose(absolute_error_of_scales(checks, target, 4), absolute_error(checks, target) / 5)
    assert torch.equal(absolute_error_of_scales(checks, target, 0), absolute_error(checks, target))


@pytest.mark.parametrize("samples", [1, 2])
def test_hybrid_with_alpha_1_is_cvae_bit_for_bit(samples: int) -> None:
    model = network("sid-net")
    batch = batch_for(model)
    plain = losses_and_gradients(model, batch, "cvae", samples=samples)
    mixed = losses_and_gradients(model, batch, "hybrid", samples=samples, alpha=1.0)
    assert plain.keys() == mixed.keys()
    assert all(torch.equal(plain[key], mixed[key]) for key in plain)


def test_hybrid_with_alpha_0_samples_the_prior_and_leaves_the_encoder_alone() -> None:
    model = network("sid-net")
    with torch.no_grad():
        model.decoder.expand.weight.mul_(100)  # so that the latent matters
    batch = batch_for(model)
    found = losses_and_gradients(model, batch, "hybrid", alpha=0.0)
    assert any(key.startswith("prior.") for key in found)
    assert not any(key.startswith("encoder.") for key in found)
    with torch.no_grad():
        condition = model.condition(batch.frames)
        noise = standard_noise(condition.prior.mean, generator(9))
        expected = absolute_error(model.decode(condition.prior.mean + noise, condition), batch.target)
        at_the_mean = absolute_error(model.decode(condition.prior.mean, condition), batch.target)
    assert torch.allclose(found["loss"], expected)
    assert not torch.allclose(found["loss"], at_the_mean)
    objective = build_objective("hybrid", {"alpha": 0.0})
    assert not objective.uses_posterior and build_objective("hybrid").uses_posterior
    model.register_module("encoder", None)
    assert torch.equal(objective(model, batch, 0.0, generator(9)).total, found["loss"])  # type: ignore[arg-type]


def test_hybrid_weighs_the_bound_by_alpha_and_the_prior_by_the_rest() -> None:
    model = network("sid-net").eval()
    batch, alpha = batch_for(model), 0.9
    mixed = build_objective("hybrid", {"alpha": alpha})(model, batch, 0.0, generator(9))  # type: ignore[arg-type]
    parts = mixed.parts
    bound = parts["reconstruction"] + 2.0 * parts["kl"]
    assert torch.allclose(mixed.total, alpha * bound + (1 - alpha) * parts["prior_reconstruction"])


@pytest.mark.parametrize(
    ("name", "options"),
    [("cvae", {"samples": 2}), ("hybrid", {"alpha": 0.3}), ("l1", {}), ("beta", {"samples": 2})],
)
def test_shares_of_a_batch_add_up_to_the_whole(name: str, options: dict[str, object]) -> None:
    model = network("sid-net").eval()
    with torch.no_grad():
        model.decoder.expand.weight.mul_(100)
    batch = batch_for(model, 3)
    whole = losses_and_gradients(model, batch, name, **options)
    summed = {key: torch.zeros_like(value) for key, value in whole.items()}
    for rows in (slice(0, 2), slice(2, 3)):
        frames, target, ratio = batch.frames[rows], batch.target[rows], batch.ratio[rows]
        part = Batch(frames, target, ratio, share=Share(rows.start, 3))
        for key, value in losses_and_gradients(model, part, name, **options).items():
            summed[key] += value * len(frames) / 3
    for key, value in whole.items():
        assert torch.allclose(summed[key], value, rtol=0, atol=5e-3 * float(value.abs().max())), key


def test_what_cannot_train_a_network_is_refused() -> None:
    sid_net, digits = on_meta("sid-net"), on_meta("digit-vae")
    require_fit("cvae", sid_net, "sid-net")
    require_fit("bound", digits, "digit-vae")
    with pytest.raises(ConfigError, match=r"'bound' cannot train model 'sid-net'; for this model there are cvae, hyb"):
        require_fit("bound", sid_net, "sid-net")
    with pytest.raises(ConfigError, match=r"'cvae' cannot train model 'digit-vae'; for this model there are .*bound"):
        require_fit("cvae", digits, "digit-vae")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("elbow", {}, "no objective called 'elbow'"),
        ("cvae", {"bet": 1.0}, "did you mean 'beta'"),
        ("cvae", {"samples": 0}, "samples >= 1"),
        ("cvae", {"reconstruction": "huber"}, "expected one of l1, mse"),
        ("hybrid", {"alpha": 1.1}, "alpha from 0 .* to 1"),
        ("hybrid", {"alpha": 0.0, "samples": 5}, "5 samples cannot be drawn"),
        ("l1", {"reconstruction": "mse"}, "unknown key 'reconstruction'"),
        ("l1", {"beta": 1.0}, "unknown key 'beta'"),
    ],
)
def test_wrong_names_and_options_are_refused(name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_objective(name, options)
