"""The Fisher autoencoder: its parts against closed forms, its gradient against differences, and where it applies."""

import importlib
import logging
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as torch_kl
from torch.nn import functional as F
from training_material import TINY_MODEL

from lowlight.core.errors import ConfigError, LowlightError
from lowlight.core.restoration import Batch, Condition, Gaussian, ModelTraits, Share
from lowlight.models import build_model, model_config
from lowlight.models.repair import EnergyPrior, RepairNet, RepairNetConfig
from lowlight.models.vae import DigitVae, DigitVaeConfig
from lowlight.objectives.beta import BetaConfig, beta, cross_entropy
from lowlight.objectives.elbo import CvaeConfig, cvae
from lowlight.objectives.fisher import FisherConfig, Terms, fisher, fisher_terms, log_likelihood, normal_score
from lowlight.ops import expfam
from lowlight.ops.gaussian import standard_noise

EXACT = {"rtol": 0, "atol": 1e-12}
SMALL = 6  # numbers of a small picture
PLAIN = FisherConfig(detach_c=False, warmup=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


class SmallNet(nn.Module):
    """The steps of every network, in double precision, on pictures `[B, 1, 2, 3]`; smooth, so that differences work."""

    traits = ModelTraits(kind="raw", in_channels=1, out_channels=1, likelihood="gaussian")

    def __init__(self, latent: int = 2, *, reads_y: bool = True) -> None:
        super().__init__()
        self.mean, self.log_variance = nn.Linear(SMALL, latent), nn.Linear(SMALL, latent)
        self.prior, self.expand, self.out = nn.Linear(SMALL, latent), nn.Linear(latent, 4), nn.Linear(4, SMALL)
        self.reads_y = reads_y
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.normal_(0, 0.4, generator=generator(i))
        self.double()

    def condition(self, frames: Tensor, base: Tensor | None = None) -> Condition:
        mean = self.prior(frames.flatten(1)) if self.reads_y else frames.new_zeros(len(frames), 2)
        return Condition(Gaussian(mean, torch.zeros_like(mean)), ())

    def posterior(self, target: Tensor) -> Gaussian:
        flat = target.flatten(1).tanh()
        return Gaussian(self.mean(flat), 0.3 * self.log_variance(flat))

    def decode(self, z: Tensor, condition: Condition) -> Tensor:
        return self.out(self.expand(z).tanh()).view(-1, 1, 2, 3)

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: object = None) -> object:
        raise NotImplementedError


def small_batch(count: int = 2) -> Batch:
    frames, target = numbers(count, 1, 1, 2, 3, seed=5), numbers(count, 1, 2, 3, seed=6)
    return Batch(frames, target, torch.ones(count, 1))


def terms_of(
    mean: Callable[[Tensor], Tensor],
    log_variance: Callable[[Tensor], Tensor],
    x: Tensor,
    noise: Tensor,
    **options: object,
) -> Terms:
    x = x.clone().requires_grad_()
    decoder = numbers(noise.shape[1], x.shape[1], seed=8)
    config = FisherConfig(**{"detach_c": False, **options})  # type: ignore[arg-type]
    return fisher_terms(
        Gaussian(mean(x), log_variance(x)),
        x,
        x.detach(),
        noise,
        decode=lambda z: z @ decoder,
        score=lambda z: -z,
        config=config,
    )


def linear_truth() -> tuple[Tensor, Tensor, Gaussian]:
    """V with orthogonal columns, x, and the true posterior of `p(z) = N(0, I)`, `p(x|z) = N(Vz, I)`."""
    v = torch.linalg.qr(numbers(7, 3, seed=1)).Q * torch.tensor([0.7, 1.9, 3.1], dtype=torch.float64)
    x, m = numbers(5, 7, seed=2), 1 + (v * v).sum(0)
    return v, x, Gaussian(x @ v / m, -m.log().expand(5, 3))


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_true_posterior_has_no_mismatch_and_a_shifted_one_the_expected(shift: float) -> None:
    v, x, truth = linear_truth()
    q = Gaussian(truth.mean + shift, truth.log_variance)
    normal = normal_score(Gaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean)))
    config = FisherConfig(e_mode="latent", detach_c=False)
    found = fisher_terms(q, x, x, numbers(5, 3, seed=3), decode=lambda z: z @ v.T, score=normal, config=config)
    expected = (shift * (1 + (v * v).sum(0))).square().sum().expand(5)
    assert torch.allclose(found.mismatch, expected, rtol=1e-12, atol=1e-24)


def test_a_is_minus_noise_over_sigma_and_the_gradient_at_fixed_z() -> None:
    q, noise = Gaussian(numbers(4, 3), numbers(4, 3, seed=1)), numbers(4, 3, seed=2)
    sigma = (0.5 * q.log_variance).exp()
    z = (q.mean + sigma * noise).requires_grad_()
    (a,) = torch.autograd.grad(Normal(q.mean, sigma).log_prob(z).sum(), z)
    assert torch.allclose(a, -noise / sigma, **EXACT)
    # With B = 0 and a decoder that ignores z all but A is gone.
    flat = fisher_terms(
        q, z, z, noise, decode=lambda z: 0 * z, score=torch.zeros_like, config=FisherConfig(e_mode="latent")
    )
    assert torch.allclose(flat.mismatch, a.square().sum(1), **EXACT)
    assert torch.allclose(flat.stability, a.square().sum(1), **EXACT)


def test_stability_is_the_closed_form_for_affine_encoders() -> None:
    to_mean, to_log, offset = numbers(6, 3, seed=1), 0.3 * numbers(6, 3, seed=2), numbers(3, seed=3)
    x, noise = numbers(4, 6, seed=4), numbers(4, 3, seed=5)
    affine = (lambda x: x @ to_mean + offset), (lambda x: x @ to_log - 0.2)
    sigma = (0.5 * affine[1](x)).exp()
    partial = (noise / sigma) @ to_mean.T + 0.5 * (noise.square() - 1) @ to_log.T
    assert torch.allclose(terms_of(*affine, x, noise).stability, partial.square().sum(1), **EXACT)
    # The same from automatic differentiation of log q at a fixed z.
    leaf = x.clone().requires_grad_()
    z = affine[0](x) + sigma * noise
    log_q = Normal(affine[0](leaf), (0.5 * affine[1](leaf)).exp()).log_prob(z).sum()
    (reference,) = torch.autograd.grad(log_q, leaf)
    assert torch.allclose(reference, partial, **EXACT)
    total = terms_of(*affine, x, noise, e_mode="total").stability
    assert torch.allclose(total, (-0.5 * to_log.sum(1)).square().sum().expand(4), **EXACT)
    latent = terms_of(*affine, x, noise, e_mode="latent").stability
    assert torch.allclose(latent, (noise / sigma).square().sum(1), **EXACT)


def test_total_stability_is_what_differentiating_through_the_draw_gives_and_0_for_a_fixed_variance() -> None:
    net, x, noise = SmallNet(), numbers(3, 1, 2, 3).requires_grad_(), numbers(3, 2, seed=1)
    q = net.posterior(x)
    z = q.mean + (0.5 * q.log_variance).exp() * noise
    (through,) = torch.autograd.grad(Normal(q.mean, (0.5 * q.log_variance).exp()).log_prob(z).sum(), x)
    q = net.posterior(x)
    config = FisherConfig(e_mode="total")
    found = fisher_terms(q, x, x, noise, decode=lambda z: net.decode(z, None), score=lambda z: -z, config=config)
    assert torch.allclose(found.stability, through.square().flatten(1).sum(1), **EXACT)
    fixed = (lambda x: x[:, :3]), (lambda x: torch.zeros(4, 3).double()), numbers(4, 6), numbers(4, 3)
    assert terms_of(*fixed).stability.min() > 0
    assert torch.equal(terms_of(*fixed, e_mode="total").stability, torch.zeros(4).double())


def test_bernoulli_c_is_that_of_linear_logits() -> None:
    w, z = numbers(9, 3, seed=1), numbers(4, 3, seed=2).requires_grad_()
    x = torch.rand((4, 9), generator=generator(3), dtype=torch.float64)
    (c,) = torch.autograd.grad(log_likelihood(z @ w.T, x, "bernoulli").sum(), z)
    assert torch.allclose(c, (x - (z @ w.T).sigmoid()) @ w, **EXACT)
    bce = F.binary_cross_entropy((z @ w.T).sigmoid(), x, reduction="sum")
    assert torch.allclose(c, -torch.autograd.grad(bce, z)[0], rtol=1e-9)
    assert torch.allclose(cross_entropy(z @ w.T, x), bce / 4)


def test_saturated_pixels_are_pulled_back() -> None:
    logits = torch.tensor([[-80.0, -20.0, 0.0, 20.0, 80.0]]).repeat(2, 1).requires_grad_()
    x = torch.tensor([[1.0] * 5, [0.0] * 5])
    (first,) = torch.autograd.grad(log_likelihood(logits, x, "bernoulli").sum(), logits, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), logits)
    assert torch.allclose(first, x - logits.sigmoid()) and first[0, 0] == 1 and first[1, 4] == -1
    assert torch.allclose(second, -logits.sigmoid() * (1 - logits.sigmoid()), atol=1e-7)


def test_a_prior_at_0_that_nobody_reads_gives_the_unconditional_loss() -> None:
    net, batch = SmallNet(reads_y=False), small_batch()
    conditional = fisher(net, batch, 1.0, generator(), PLAIN)  # type: ignore[arg-type]
    x = batch.target.clone().requires_grad_()
    q = net.posterior(x)
    noise = standard_noise(q.mean, generator())
    plain = fisher_terms(
        q, x, batch.target, noise, decode=lambda z: net.decode(z, None), score=lambda z: -z, config=PLAIN
    )
    expected = 0.5 * (plain.mismatch + plain.squared_error + plain.stability).mean()
    assert torch.allclose(conditional.total, expected, **EXACT)
    z, mean = numbers(4, 3), numbers(4, 3, seed=1)
    assert torch.equal(normal_score(Gaussian(mean, torch.zeros_like(mean)))(z), -(z - mean))
    wide = normal_score(Gaussian(mean, torch.full_like(mean, 4.0).log()))
    assert torch.allclose(wide(z), -(z - mean) / 4, **EXACT)


def test_the_parts_and_their_weights_are_where_they_belong() -> None:
    net, batch = SmallNet(), small_batch()
    parts = fisher(net, batch, 1.0, generator(), PLAIN).parts  # type: ignore[arg-type]
    weighted = FisherConfig(detach_c=False, warmup=0.5, w_fisher=2.0, w_recon=3.0, w_stab=5.0)
    for progress, risen in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)):
        loss = fisher(net, batch, progress, generator(), weighted)  # type: ignore[arg-type]
        expected = 0.5 * (risen * 2 * parts["fisher"] + 3 * parts["D"] + risen * 5 * parts["E"])
        assert torch.allclose(loss.total, expected, **EXACT)
    assert torch.allclose(parts["neg_elbo"], parts["D"] / 2 + parts["kl"])
    l1 = fisher(net, batch, 1.0, generator(), FisherConfig(detach_c=False, warmup=0.0, recon="l1"))  # type: ignore[arg-type]
    assert torch.allclose(l1.total, 0.5 * (parts["fisher"] + parts["E"]) + l1.parts["l1"])
    mixed = fisher(net, batch, 1.0, generator(), FisherConfig(detach_c=False, warmup=0.0, alpha=0.25))  # type: ignore[arg-type]
    plain = 0.5 * (parts["fisher"] + parts["D"] + parts["E"])
    assert torch.allclose(mixed.total, 0.25 * plain + 0.75 * mixed.parts["prior_reconstruction"], **EXACT)


def test_two_draws_are_the_mean_of_two() -> None:
    net, batch, noise = SmallNet(), small_batch(), generator(3)
    singles = [fisher(net, batch, 1.0, noise, PLAIN).total for _ in range(2)]  # type: ignore[arg-type]
    both = fisher(net, batch, 1.0, generator(3), FisherConfig(samples=2, detach_c=False, warmup=0.0))  # type: ignore[arg-type]
    assert singles[0] != singles[1]
    assert torch.allclose(both.total, torch.stack(singles).mean(), **EXACT)


@pytest.mark.parametrize(
    "options",
    [{}, {"e_mode": "total"}, {"e_mode": "latent"}, {"c_likelihood": "bernoulli"}, {"alpha": 0.5, "samples": 2}],
    ids=str,
)
def test_the_gradient_is_that_of_the_value(options: dict[str, object]) -> None:
    """Differences of the whole objective, the draws' noise fixed, against its gradient in every weight."""
    net, batch = SmallNet(), small_batch()
    if "c_likelihood" in options:
        net.traits = ModelTraits(in_channels=1, out_channels=1, likelihood="bernoulli")
        net.logits = net.decode
        batch = Batch(batch.frames, batch.target.sigmoid(), batch.ratio)
    config = FisherConfig(**{"detach_c": False, "warmup": 0.0, **options})  # type: ignore[arg-type]
    names = [name for name, _ in net.named_parameters()]

    def value(*weights: Tensor) -> Tensor:
        stand_in = SimpleNamespace(traits=net.traits)
        for step in ("condition", "posterior", "decode", "logits"):
            setattr(stand_in, step, _with(net, dict(zip(names, weights, strict=True)), step))
        return fisher(stand_in, batch, 1.0, generator(), config).total  # type: ignore[arg-type]

    weights = tuple(parameter.detach().clone().requires_grad_() for parameter in net.parameters())
    assert torch.autograd.gradcheck(value, weights, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


def _with(net: nn.Module, weights: dict[str, Tensor], step: str) -> Callable[..., object]:
    """A step of a network with other weights."""

    class Caller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, *inputs: object) -> object:
            return getattr(self.net, step)(*inputs)

    renamed = {f"net.{name}": weight for name, weight in weights.items()}
    return lambda *inputs: torch.func.functional_call(Caller(), renamed, inputs)


def test_detaching_c_changes_gradients_and_not_the_value() -> None:
    found = []
    for detach in (True, False):
        net = SmallNet()
        loss = fisher(net, small_batch(), 1.0, generator(), FisherConfig(detach_c=detach, warmup=0.0))  # type: ignore[arg-type]
        loss.total.backward()
        found.append((loss.total.detach(), net.out.weight.grad, net.mean.weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.allclose(found[0][1], found[1][1])
    assert not torch.allclose(found[0][2], found[1][2])


def test_validation_without_gradients_gives_the_same_value_and_keeps_no_graph() -> None:
    net, batch = SmallNet(), small_batch()
    wanted = fisher(net, batch, 1.0, generator(), PLAIN).total  # type: ignore[arg-type]
    for frozen in (False, True):
        net.requires_grad_(not frozen)
        with torch.no_grad():
            loss = fisher(net, batch, 1.0, generator(), PLAIN)  # type: ignore[arg-type]
        assert torch.equal(loss.total, wanted) and not loss.total.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


def test_shares_of_a_batch_add_up_to_the_whole() -> None:
    net, batch = SmallNet(), small_batch(3)
    whole = fisher(net, batch, 1.0, generator(), PLAIN).total  # type: ignore[arg-type]
    total = torch.zeros((), dtype=torch.float64)
    for rows in (slice(0, 2), slice(2, 3)):
        part = Batch(batch.frames[rows], batch.target[rows], batch.ratio[rows], share=Share(rows.start, 3))
        total += fisher(net, part, 1.0, generator(), PLAIN).total * len(part.target) / 3  # type: ignore[arg-type]
    assert torch.allclose(total, whole, **EXACT)


def raw_batch(model: nn.Module, count: int = 1) -> Batch:
    traits, g = model.traits, generator(2)
    shape = (count, traits.out_channels, traits.tile, traits.tile)
    frames = torch.rand((count, 1, traits.in_channels, traits.tile, traits.tile), generator=g)
    return Batch(frames, torch.rand(shape, generator=g), torch.full((count, 1), 100.0))


@pytest.mark.parametrize("name", ["sid-net", "pix2pix"])
@pytest.mark.parametrize("detach", [True, False])
def test_raw_networks_train_with_finite_gradients_everywhere(name: str, detach: bool) -> None:
    model = build_model(name, model_config(name, TINY_MODEL[name]), seed=1)
    loss = fisher(model, raw_batch(model), 1.0, generator(), FisherConfig(detach_c=detach))  # type: ignore[arg-type]
    loss.total.backward()
    assert loss.total.isfinite() and all(part.isfinite() for part in loss.parts.values())
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


def test_bf16_autocast_changes_nothing() -> None:
    net = RepairNet(RepairNetConfig(latent=4), generator())
    batch = digit_batch()
    plain = fisher(net, batch, 1.0, generator(), FisherConfig(c_likelihood="bernoulli"))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = fisher(net, batch, 1.0, generator(), FisherConfig(c_likelihood="bernoulli"))
    mixed.total.backward()
    assert torch.equal(plain.total, mixed.total)
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def digit_batch(count: int = 3) -> Batch:
    clean = torch.rand(count, 1, 28, 28, generator=generator(1))
    damaged = clean + 0.25 * torch.randn(clean.shape, generator=generator(2))
    return Batch(damaged[:, None], clean, torch.ones(count, 1), labels=torch.arange(count))


@pytest.mark.parametrize("prior", ["standard", "label"])
def test_digit_networks_train_too(prior: str) -> None:
    net = DigitVae(DigitVaeConfig(prior=prior, latent=4), generator())  # type: ignore[arg-type]
    batch = digit_batch()
    for loss in (
        fisher(net, batch, 1.0, generator(), FisherConfig()),
        beta(net, batch, 1.0, generator(), BetaConfig()),
    ):
        net.zero_grad()
        loss.total.backward()
        assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_networks_that_repair_encode_the_frame_and_the_others_the_target() -> None:
    seen = []

    class Watching(RepairNet):
        def posterior(self, target: Tensor) -> Gaussian:
            seen.append(target.detach().clone())
            return super().posterior(target)

    batch = digit_batch()
    net = Watching(RepairNetConfig(latent=4), generator())
    beta(net, batch, 1.0, generator(), BetaConfig())
    fisher(net, batch, 1.0, generator(), FisherConfig())
    assert all(torch.equal(read, batch.frames[:, 0]) for read in seen) and len(seen) == 2
    seen.clear()
    net.traits = replace(net.traits, posterior_reads="target")
    beta(net, batch, 1.0, generator(), BetaConfig(reconstruction="mse"))
    assert torch.equal(seen[0], batch.target)


def test_beta_is_the_textbook_bound_and_beta_1_the_vae() -> None:
    net, batch = RepairNet(RepairNetConfig(latent=4), generator()), digit_batch()
    q = net.posterior(batch.frames[:, 0])
    ours = Independent(Normal(q.mean, (0.5 * q.log_variance).exp()), 1)
    kl = torch_kl(ours, Independent(Normal(torch.zeros_like(q.mean), 1.0), 1)).mean()
    z = q.mean + (0.5 * q.log_variance).exp() * standard_noise(q.mean, generator(7))
    bce = F.binary_cross_entropy(net.decode(z, net.condition(batch.frames)), batch.target, reduction="sum") / 3
    for weight in (0.0, 1.0, 4.0):
        loss = beta(net, batch, 1.0, generator(7), BetaConfig(beta=weight))
        assert torch.allclose(loss.total, bce + weight * kl, rtol=1e-5)
    assert torch.allclose(loss.parts["neg_elbo"], bce + kl, rtol=1e-5)


def test_beta_on_raw_is_the_thesis_objective_bit_for_bit() -> None:
    model = build_model("sid-net", model_config("sid-net", TINY_MODEL["sid-net"]), seed=1)
    batch = raw_batch(model)
    ours = beta(model, batch, 0.0, generator(3), BetaConfig())  # type: ignore[arg-type]
    thesis = cvae(model, batch, 0.0, generator(3), CvaeConfig(beta=4.0))  # type: ignore[arg-type]
    assert torch.equal(ours.total, thesis.total)


def test_what_does_not_apply_is_refused_with_a_sentence() -> None:
    batch = digit_batch()
    with pytest.raises(ConfigError, match="has no step condition, posterior, decode"):
        fisher(nn.Linear(1, 1), batch, 0.0, generator(), FisherConfig())  # type: ignore[arg-type]
    flat = RepairNet(RepairNetConfig(variance=False), generator())
    with pytest.raises(ConfigError, match="a posterior with a width"):
        fisher(flat, batch, 0.0, generator(), FisherConfig())
    assert beta(flat, batch, 0.0, generator(), BetaConfig(beta=0.0)).total.isfinite()
    with pytest.raises(ConfigError, match="set beta to 0"):
        beta(flat, batch, 0.0, generator(), BetaConfig(beta=1.0))
    digits = DigitVae(DigitVaeConfig(), generator())
    with pytest.raises(ConfigError, match="needs the logits"):
        fisher(digits, batch, 0.0, generator(), FisherConfig(c_likelihood="bernoulli"))
    learned = RepairNet(RepairNetConfig(prior="expfam"), generator())
    with pytest.raises(ConfigError, match="from a learned prior"):
        beta(learned, batch, 0.0, generator(), BetaConfig())
    for wrong in ({"samples": 0}, {"w_stab": -1.0}, {"warmup": 2.0}, {"alpha": 0.0}):
        with pytest.raises(ConfigError, match="fisher needs"):
            FisherConfig(**wrong)  # type: ignore[arg-type]


def test_l1_is_said_to_be_a_heuristic(caplog: pytest.LogCaptureFixture) -> None:
    # The package has a function of the same name, which hides the module.
    importlib.import_module("lowlight.objectives.fisher")._warn_of_l1.cache_clear()
    with caplog.at_level(logging.WARNING):
        FisherConfig(recon="l1")
        FisherConfig(recon="l1")
    assert [record.message for record in caplog.records] == [
        "fisher with recon l1 is a heuristic and not a Fisher divergence"
    ]


def test_the_learned_prior_has_the_gradient_of_its_density_and_learns_in_some_steps() -> None:
    c, z = 0.1 * numbers(5, 3), numbers(4, 3, seed=1).requires_grad_()
    log_density = torch.stack([c[m - 1] * z**m for m in range(1, 6)]).sum()
    (reference,) = torch.autograd.grad(log_density, z)
    assert torch.allclose(expfam.score(c, z), reference, **EXACT)
    net, batch = RepairNet(RepairNetConfig(latent=4, prior="expfam"), generator()), digit_batch()
    learned = 0
    for seed in range(40):
        net.zero_grad()
        loss = fisher(net, batch, 1.0, generator(seed), FisherConfig(c_likelihood="bernoulli"))
        loss.total.backward()
        learned += net.learned_prior.coefficients.grad is not None
    assert 2 <= learned <= 18
    assert "kl" not in loss.parts


def test_a_small_network_as_prior_begins_near_the_normal_one_and_learns() -> None:
    net = RepairNet(RepairNetConfig(latent=4, prior="energy"), generator())
    prior, batch, z = net.learned_prior, digit_batch(), numbers(5, 4, seed=1).float()
    assert isinstance(prior, EnergyPrior)
    assert 0 < (prior.score(z, True) + z).abs().max() < 0.2
    with torch.no_grad():
        prior.energy[2].weight.mul_(30)
        still = prior.score(z, True)
    # The gradient of the log-density, by differences of the density itself.
    wide, step = prior.double(), 1e-5
    at, along = z.double(), torch.eye(4, dtype=torch.float64)

    def log_density(point: torch.Tensor) -> torch.Tensor:
        return -point.square().sum(1) / 2 - wide.energy(point)[:, 0]

    slopes = [(log_density(at + step * e) - log_density(at - step * e)) / (2 * step) for e in along]
    assert torch.allclose(still.double(), torch.stack(slopes, 1), atol=1e-4)
    prior.float()
    learned = 0
    for seed in range(40):
        net.zero_grad()
        loss = fisher(net, batch, 1.0, generator(seed), FisherConfig(c_likelihood="bernoulli"))
        loss.total.backward()
        learned += prior.energy[0].weight.grad is not None
    assert 2 <= learned <= 18 and loss.total.isfinite() and net.recognition.heads[0].weight.grad is not None
    assert net.draw_prior(6, generator(), steps=20).isfinite().all()


def test_draws_of_a_normal_density_have_its_mean_and_width_and_an_improper_one_fails() -> None:
    c = torch.zeros(2, 2)
    c[0], c[1] = torch.tensor([1.0, -2.0]), torch.tensor([-0.5, -2.0])  # N(1, 1) and N(-0.5, 1/4)
    start = torch.rand(80, 2, generator=generator())
    points = expfam.draw_by_svgd(lambda z: expfam.score(c, z), start, steps=300, rate=0.05)
    assert torch.allclose(points.mean(0), torch.tensor([1.0, -0.5]), atol=0.1)
    assert torch.allclose(points.std(0), torch.tensor([1.0, 0.5]), atol=0.2)
    with pytest.raises(LowlightError, match="ran to the border"):
        expfam.draw_by_svgd(lambda z: z, start, steps=300, rate=0.1)
    with pytest.raises(LowlightError, match="ran to the border"):  # in one of two coordinates
        expfam.draw_by_svgd(lambda z: torch.stack((z[:, 0], -z[:, 1]), 1), start, steps=300, rate=0.1)
    with pytest.raises(LowlightError, match="not finite"):
        expfam.draw_by_svgd(lambda z: z * torch.nan, start, steps=3)
