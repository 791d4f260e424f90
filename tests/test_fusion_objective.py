"""The fusion objective: warm-up, balancing, and the bound of networks with many latents, one or none."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Gaussian, LatentShape, Share
from lowlight.data.scenes import procedural_scene
from lowlight.models.fusion_baselines import FusionCvae, FusionFcn
from lowlight.models.fusion_options import FcnConfig, FusionConfig, FusionCvaeConfig, FusionRawConfig
from lowlight.models.fusion_vae import FusionVae
from lowlight.objectives.fusion import FusionObjectiveConfig, balance_weights, fusion, warm_up
from lowlight.ops.likelihoods import log_likelihood

TINY: dict[str, Any] = {"base_channels": 4, "pre_blocks": 1, "groups": ((8, 2), (4, 1)), "image_px": 16, "crop_px": 2}
PLAIN = FusionObjectiveConfig()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(**options: Any) -> FusionVae:
    return FusionVae(FusionConfig(**{**TINY, "latent": 3, **options}), generator(1))


def batch(members: int = 2, items: int = 3, channels: int = 1) -> Batch:
    frames = torch.rand((items, members, channels, 16, 16), generator=generator(2))
    target = torch.rand((items, channels, 16, 16), generator=generator(3))
    return Batch(frames, target, torch.ones(items, members))


def divergences(model: FusionVae, given: Batch) -> Tensor:
    """KL of each group by torch.distributions, `[B, L]`, for the latents that seed 5 draws."""
    with torch.no_grad():
        said = model.reconstruct(given.frames, given.target, generator(5))

    def normal(gaussian: Gaussian | None) -> Normal:
        assert gaussian is not None
        return Normal(gaussian.mean.double(), (gaussian.log_variance.double() / 2).exp())

    groups = [reference_kl(normal(one.posterior), normal(one.prior)).flatten(1).sum(1) for one in said.latents]
    return torch.stack(groups, 1)


def test_beta_rises_from_next_to_nothing_to_one() -> None:
    assert float(warm_up(0.0, 0.3)) == pytest.approx(1e-4) and float(warm_up(1.0, 0.3)) == 1.0
    assert float(warm_up(0.15, 0.3)) == pytest.approx((0.15 - 1e-4) / 0.3)
    assert float(warm_up(0.3 + 1e-4, 0.3)) == pytest.approx(1.0) and float(warm_up(0.0, 0.0)) == 1.0
    assert warm_up(torch.tensor(0.15), 0.3) == warm_up(0.15, 0.3)
    values = [float(warm_up(step / 100, 0.3)) for step in range(101)]
    assert values == sorted(values)


def test_balance_has_mean_one_and_the_numbers_of_the_specification() -> None:
    shapes = (*(LatentShape(3, 8),) * 2, *(LatentShape(3, 4),) * 5)
    kl = torch.rand((6, 7), generator=generator()) * 20
    weights = balance_weights(kl.requires_grad_(), shapes)
    assert not weights.requires_grad and weights.mean().item() == pytest.approx(1)
    sizes = [1 / 2] * 2 + [4 / 5] * 5
    expected = torch.tensor([(kl[:, i].abs().mean().item() + 0.01) / (sizes[i] / min(sizes)) for i in range(7)])
    assert torch.allclose(weights, expected / expected.mean(), rtol=1e-5)
    assert torch.allclose(balance_weights(torch.ones(2, 3), (LatentShape(4),) * 3), torch.ones(3))


def test_divergence_is_the_sum_of_the_textbook_ones() -> None:
    model, given = network().eval(), batch()
    loss = fusion(model, given, 1.0, generator(5), PLAIN)
    expected = divergences(model, given).sum(1).mean()
    assert loss.parts["kl"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.parts["beta"].item() == 1.0
    assert loss.total.item() == pytest.approx((loss.parts["reconstruction"] + expected).item(), rel=1e-5)


def test_balance_counts_only_while_beta_rises() -> None:
    model, given = network().eval(), batch()
    kl = divergences(model, given)
    weighted = (balance_weights(kl, model.traits.latents) * kl).sum(1).mean()
    for balance, sum_of_kl in ((True, weighted), (False, kl.sum(1).mean())):
        loss = fusion(model, given, 0.1, generator(5), FusionObjectiveConfig(balance=balance))
        beta = (0.1 - 1e-4) / 0.3
        expected = loss.parts["reconstruction"] + beta * sum_of_kl
        assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
        # What is logged is the divergence itself.
        assert loss.parts["kl"].item() == pytest.approx(kl.sum(1).mean().item(), rel=1e-5)
    later = [fusion(model, given, 0.5, generator(5), FusionObjectiveConfig(balance=b)).total for b in (True, False)]
    assert torch.equal(*later)


def test_reconstruction_is_the_likelihood_without_constant_and_padding() -> None:
    given = batch()
    for likelihood, constant in (("bernoulli", 0.0), ("laplace", math.log(2)), ("logistic-mixture", 0.0)):
        model = network(likelihood=likelihood).eval()
        with torch.no_grad():
            said = model.reconstruct(given.frames, given.target, generator(5))
        expected = -log_likelihood(model.traits.likelihood, said, given.target, 2).mean() - 144 * constant
        found = fusion(model, given, 1.0, generator(5), PLAIN).parts["reconstruction"]
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_networks_without_latents_have_the_reconstruction_alone() -> None:
    model = FusionFcn(FcnConfig(**TINY), generator(1))
    loss = fusion(model, batch(), 0.1, generator(5), PLAIN)
    assert list(loss.parts) == ["reconstruction"] and torch.equal(loss.total.detach(), loss.parts["reconstruction"])


def test_penalty_is_added_where_it_has_weight() -> None:
    model, given = network(), batch()
    loss = fusion(model, given, 1.0, generator(5), FusionObjectiveConfig(spectral_weight=0.01))
    bound = loss.parts["reconstruction"] + loss.parts["kl"]
    assert loss.total.item() == pytest.approx((bound + 0.01 * loss.parts["penalty"]).item(), rel=1e-5)
    assert "penalty" not in fusion(model, given, 1.0, generator(5), PLAIN).parts
    with pytest.raises(ConfigError, match="penalised"):
        fusion(network(penalised=False), given, 1.0, generator(5), FusionObjectiveConfig(spectral_weight=0.01))


@pytest.mark.parametrize("wrong", [{"kl_anneal": 1.5}, {"beta": -1.0}, {"spectral_weight": -0.1}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        FusionObjectiveConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("members", range(4))
def test_gradients_are_finite_for_any_number_of_frames(members: int) -> None:
    cvae = FusionCvae(FusionCvaeConfig(**TINY, latent=3, shortcuts=True), generator(1))
    for model in (network(), network(aggregation="bayes", aggregate="all"), cvae):
        model.train()
        loss = fusion(model, batch(members), 0.2, generator(5), FusionObjectiveConfig(spectral_weight=0.01))
        loss.total.backward()  # type: ignore[no-untyped-call]
        assert loss.total.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        assert not any(part.requires_grad for part in loss.parts.values())


def test_items_of_a_share_get_their_own_noise() -> None:
    # Without group norm each item would depend on its batch; with all of beta, so would its weights.
    model, whole = network(norm="group").eval(), batch(items=4)
    expected = fusion(model, whole, 1.0, generator(5), PLAIN).total
    parts = []
    for first in (0, 2):
        rows = slice(first, first + 2)
        part = Batch(whole.frames[rows], whole.target[rows], whole.ratio[rows], share=Share(first, 4))
        parts.append(fusion(model, part, 1.0, generator(5), PLAIN).total)
    assert torch.stack(parts).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_few_steps_bring_the_bound_down() -> None:
    model, given = network(), batch()
    optimiser = torch.optim.Adamax(model.parameters(), lr=0.01, eps=1e-3)
    losses = []
    for step in range(20):
        loss = fusion(model, given, 1.0, generator(step), PLAIN)
        optimiser.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.total.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@cache
def scenes(first: int, count: int) -> Tensor:
    """Small pictures `[N, 3, 64, 64]`."""
    large = torch.stack([torch.from_numpy(procedural_scene(first + i, 256).copy()) for i in range(count)])
    return torch.nn.functional.avg_pool2d(large.permute(0, 3, 1, 2).float() / 255, 4)


def noisy_scenes(targets: Tensor, members: int, g: torch.Generator) -> Tensor:
    """Frames `[B, K, 4, 64, 64]` of pictures, each with noise of its own about as strong as the light."""
    clean = targets[:, [0, 1, 2, 1]].unsqueeze(1).expand(-1, members, -1, -1, -1)
    return (clean + 0.3 * torch.randn(clean.shape, generator=g)).clamp(0, 1)


def psnr(model: nn.Module, members: int) -> float:
    targets = scenes(1000, 16)
    frames = noisy_scenes(targets, 3, generator(99))[:, :members]
    with torch.no_grad():
        error = (model.eval().restore(frames).image - targets).square().mean()
    return -10 * math.log10(error.item())


@pytest.mark.slow
def test_three_raw_frames_are_better_than_one_after_a_short_run() -> None:
    config = FusionRawConfig(base_channels=8, channel_cap=32, pre_blocks=1, groups=((128, 1), (64, 1)))
    model = FusionVae(config, generator(1))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps, g = 80, generator(2)
    for step in range(steps):
        members = 1 + int(torch.randint(3, (), generator=g))
        targets = scenes(0, 32)[torch.randint(32, (4,), generator=g)]
        given = Batch(noisy_scenes(targets, members, g), targets, torch.ones(4, members))
        loss = fusion(model.train(), given, step / steps, g, PLAIN)
        optimiser.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    one, three = (psnr(model, members) for members in (1, 3))
    assert one > 16 and three > one + 0.3


def test_beta_weighs_the_divergences() -> None:
    model, given = network().eval(), batch()
    loss = fusion(model, given, 1.0, generator(5), replace(PLAIN, beta=0.25))
    assert loss.parts["beta"].item() == 0.25
    expected = loss.parts["reconstruction"] + 0.25 * loss.parts["kl"]
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
