"""Convolutions whose weights are learned as a length and a direction."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lowlight.checkpoint import load_weights
from lowlight.core.restoration import PenalisedModel
from lowlight.models import build_model, model_config
from lowlight.models.fusion_folding import folded
from lowlight.models.weight_norm import LogNorm
from lowlight.workflows.training.config import load_config
from lowlight.workflows.training.train import train

SMALL = {"base_channels": 4, "pre_blocks": 1, "groups": ((8, 1), (4, 1)), "image_px": 16, "crop_px": 0}
NAMES = ("fusion", "fcn-s", "fusion-cvae")


def network(name: str, **options: Any) -> nn.Module:
    return build_model(name, model_config(name, {**SMALL, **options}))


def restored(model: Any) -> Tensor:
    frames = torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        image: Tensor = model.eval().restore(frames).image
    return image


def test_a_weight_is_its_length_times_its_direction() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    direction, log_norm = LogNorm().right_inverse(weight)
    torch.testing.assert_close(log_norm.exp(), torch.tensor([5.0, 2.0]))
    torch.testing.assert_close(LogNorm()(7 * direction, log_norm), weight)
    torch.testing.assert_close(LogNorm()(direction, log_norm + 1), weight * torch.e)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_starts_at_the_same_function_with_one_number_more_a_channel(name: str) -> None:
    plain, taken_apart = network(name), network(name, weight_norm=True)
    torch.testing.assert_close(restored(taken_apart), restored(plain))
    convs = [module for module in plain.modules() if isinstance(module, nn.Conv2d)]
    more = sum(module.out_channels for module in convs if module.bias is not None)
    sizes = [sum(parameter.numel() for parameter in each.parameters()) for each in (plain, taken_apart)]
    assert sizes[1] - sizes[0] == more > 0
    between_norms = [
        module for module in taken_apart.modules() if isinstance(module, nn.Conv2d) and module.bias is None
    ]
    assert between_norms and not any(parametrize.is_parametrized(module) for module in between_norms)
    penalties = []
    for each in (plain.train(), taken_apart.train()):
        assert isinstance(each, PenalisedModel)
        penalties.append(each.penalty())
    torch.testing.assert_close(penalties[0], penalties[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_network_has_plain_weights_and_computes_the_same(name: str) -> None:
    model = network(name, weight_norm=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    expected, quicker = restored(model), folded(model)
    assert not any(parametrize.is_parametrized(module) for module in quicker.modules())
    assert torch.equal(restored(model), expected)
    torch.testing.assert_close(restored(quicker), restored(model), atol=2e-5, rtol=1e-4)


def test_a_run_trains_keeps_and_scores_them(tmp_path: Path) -> None:
    options = {"digits": 16, "validation_digits": 4}
    values = {
        "model": {"options": {**SMALL, "image_px": 32, "pre_blocks": 2, "crop_px": 2, "weight_norm": True}},
        "data": {"name": "shapes-fusion", "options": options},
        "optimiser": {"batch": 4, "warmup_steps": 1},
        "run": {"steps": 2, "device": "cpu", "validate_every": 2, "log_every": 1},
    }
    best = train(load_config(None, values, "fusion-mnist/fusion"), tmp_path)
    loaded, header = load_weights(best)
    assert header["config"]["weight_norm"] is True
    started = build_model("fusion", model_config("fusion", header["config"]))
    moved = {name for name, value in loaded.state_dict().items() if not torch.equal(value, started.state_dict()[name])}
    assert {f"shared.stem.parametrizations.weight.original{part}" for part in (0, 1)} <= moved
