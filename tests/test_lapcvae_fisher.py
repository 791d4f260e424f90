"""The Fisher divergence of each level of a pyramid, in place of its bound."""

import pytest
import torch
from lapcvae_material import batch_for, faces_model, generator, raw_model, train
from torch.distributions import Normal

from lowlight.core.config import from_dict
from lowlight.core.errors import ConfigError
from lowlight.objectives.fisher import FisherConfig
from lowlight.objectives.lapcvae import LapCvaeObjectiveConfig, lapcvae
from lowlight.ops.gaussian import standard_noise

MAKERS = [faces_model, raw_model]
WHOLE = FisherConfig(warmup=0.0, detach_c=False)


def squares(values: torch.Tensor) -> torch.Tensor:
    return values.square().flatten(1).sum(1)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("active", [1, 2, 3])
def test_each_level_has_the_divergence_of_its_own_densities(make, active: int) -> None:  # type: ignore[no-untyped-def]
    """The scores of the textbook densities by automatic differentiation, in double precision."""
    model = make().double()
    batch = batch_for(model)
    batch = type(batch)(batch.frames.double(), batch.target.double(), batch.ratio)
    config = LapCvaeObjectiveConfig(fisher=WHOLE)
    done = (3 - active + 0.5) / 3
    loss = lapcvae(model, batch, done, generator(7), config)
    assert loss.parts["level"] == active

    again = generator(7)
    (term,) = model.terms(batch.frames, batch.target, again, active, differentiate_bands=True)
    q, p = (Normal(g.mean, (0.5 * g.log_variance).exp()) for g in (term.latent.posterior, term.latent.prior))
    z = (q.mean + q.stddev * standard_noise(q.mean, again)).detach().requires_grad_()
    (a,) = torch.autograd.grad(q.log_prob(z).sum(), z, retain_graph=True)
    (b,) = torch.autograd.grad(p.log_prob(z).sum(), z, retain_graph=True)
    error = term.target - term.decode(z)
    (c,) = torch.autograd.grad(-0.5 * error.square().sum(), z, retain_graph=True)
    (e,) = torch.autograd.grad(q.log_prob(z).sum(), term.read)
    known = {name: each.mean().item() for name, each in (("fisher", squares(a - b - c)), ("D", squares(error)))}
    known["E"] = squares(e).mean().item()
    for name, value in known.items():
        assert loss.parts[name].item() == pytest.approx(value, rel=1e-6), name
    assert loss.total.item() == pytest.approx(0.5 * sum(known.values()), rel=1e-6)


@pytest.mark.parametrize("make", MAKERS)
def test_gradients_reach_the_level_and_its_prior_alone(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    batch = batch_for(model)
    loss = lapcvae(model, batch, 0.5, generator(1), LapCvaeObjectiveConfig(fisher=WHOLE))
    loss.total.backward()
    assert loss.parts["level"] == 2
    touched = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.abs().sum() > 0}
    assert all(name.startswith(("pyramid.1.", "encoder.1.")) for name in touched)
    assert {"pyramid.1.prior.mean.0.weight", "pyramid.1.prior.log_variance.0.weight"} <= touched
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())
    with torch.no_grad():
        seen = lapcvae(model, batch, 0.5, generator(1), LapCvaeObjectiveConfig(fisher=WHOLE))
    assert torch.equal(seen.total, loss.total) and not seen.total.requires_grad


def test_all_levels_at_once_are_named_and_warm_up_with_each_level() -> None:
    model = faces_model()
    batch = batch_for(model)
    joint = lapcvae(model, batch, 0.5, generator(1), LapCvaeObjectiveConfig(schedule="joint", fisher=WHOLE))
    assert {"fisher_1", "D_2", "E_3", "kl_1", "neg_elbo_3"} <= set(joint.parts)
    slow = LapCvaeObjectiveConfig(fisher=FisherConfig(warmup=1.0))
    start = lapcvae(model, batch, 1 / 3, generator(1), slow)  # the first step of the second level
    assert start.parts["level"] == 2 and torch.allclose(start.total, 0.5 * start.parts["D"])


@pytest.mark.parametrize("make", MAKERS)
def test_a_short_run_learns(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    batch = batch_for(model)
    config = LapCvaeObjectiveConfig(fisher=FisherConfig(), shares=(1.0, 0.0, 0.0))

    def error() -> float:
        return lapcvae(model, batch, 0.0, generator(1), config).parts["D"].item()

    before = error()
    train(model, lambda step: batch, 20, config, clip_norm=1.0)
    assert error() < 0.9 * before


def test_what_bands_cannot_have_is_refused() -> None:
    known = from_dict(LapCvaeObjectiveConfig, {"fisher": {"detach_c": False}}, "options of objective lapcvae")
    assert known.fisher == FisherConfig(detach_c=False) and LapCvaeObjectiveConfig().fisher is None
    for wrong in (FisherConfig(c_likelihood="bernoulli"), FisherConfig(alpha=0.5)):
        with pytest.raises(ConfigError, match=r'c_likelihood = "gaussian" and alpha = 1'):
            LapCvaeObjectiveConfig(fisher=wrong)
    with pytest.raises(ConfigError, match="leave out one"):
        LapCvaeObjectiveConfig(fisher=WHOLE, weights=(2.0,))


def test_the_warm_up_starts_anew_where_the_shares_say() -> None:
    model = faces_model()
    slow = LapCvaeObjectiveConfig(fisher=FisherConfig(warmup=1.0), shares=(0.5, 0.25, 0.25))
    start = lapcvae(model, batch_for(model), 0.5, generator(1), slow)  # the first step of the second level
    assert start.parts["level"] == 2 and torch.allclose(start.total, 0.5 * start.parts["D"])
