"""Every network under the name users type. To add one: write its file, add its entry."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lowlight.core.config import from_dict
from lowlight.core.errors import ConfigError
from lowlight.models.options import RawModelOptions
from lowlight.models.pix2pix import Pix2Pix, Pix2PixConfig
from lowlight.models.sid_net import SidNet, SidNetConfig


@dataclass(frozen=True)
class Entry:
    """A network: its configuration class, how to build it, and what the name presets."""

    config: type[RawModelOptions]
    build: Callable[[Any, torch.Generator], nn.Module]
    summary: str
    preset: dict[str, Any] = field(default_factory=dict)


MODELS: dict[str, Entry] = {
    "sid-net": Entry(SidNetConfig, SidNet, "the thesis' main network"),
    "sid-net-noskip": Entry(SidNetConfig, SidNet, "SID-net without skip connections", {"skips": False}),
    "sid-net-small": Entry(
        SidNetConfig, SidNet, "SID-net with half the channels", {"base_channels": 16, "latent": 768}
    ),
    "sid-net-slim": Entry(
        SidNetConfig,
        SidNet,
        "half the channels and a narrow bottleneck, for laptops",
        {"base_channels": 16, "latent": 64, "init": "kaiming"},
    ),
    "pix2pix": Entry(Pix2PixConfig, Pix2Pix, "the thesis' Pix2Pix generator as a CVAE"),
}


def model_config(name: str, options: dict[str, Any] | None = None) -> RawModelOptions:
    """The configuration of the model called `name`, with `options` over its preset. Unknown keys are refused."""
    if name not in MODELS:
        raise ConfigError(f"there is no model called {name!r}; there are {', '.join(MODELS)}")
    entry = MODELS[name]
    return from_dict(entry.config, {**entry.preset, **(options or {})}, f"options of model {name}")


def build_model(name: str, config: RawModelOptions, seed: int = 0) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights."""
    return MODELS[name].build(config, torch.Generator().manual_seed(seed))
