"""The networks of the thesis' MNIST experiments under the name users type.

They stand beside the table of RAW networks because they promise something else: 28 x 28 gray pixels, and a prior
that may come from labels or from nothing.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from lowlight.core.config import from_dict
from lowlight.core.errors import ConfigError
from lowlight.models.vae import DigitVae, DigitVaeConfig


@dataclass(frozen=True)
class DigitEntry:
    """A digit network: the options its name presets, and what it is."""

    summary: str
    preset: dict[str, Any] = field(default_factory=dict)


DIGIT_MODELS: dict[str, DigitEntry] = {
    "ae": DigitEntry("autoencoder, MLP, 2 latent numbers", {"latent": 2, "variance": False}),
    "vae-2": DigitEntry("VAE, MLP, 2 latent numbers", {"latent": 2}),
    "vae-5": DigitEntry("VAE, MLP, 5 latent numbers", {"latent": 5}),
    "vae-10": DigitEntry("VAE, MLP, 10 latent numbers", {"latent": 10}),
    "vae-cnn": DigitEntry("VAE, convolutional, 10 latent numbers", {"body": "cnn"}),
    "cvae": DigitEntry("VAE whose prior knows the label, MLP, 10 latent numbers", {"prior": "label"}),
    "vae-50": DigitEntry("VAE, MLP, 50 latent numbers", {"latent": 50}),
    "transfer": DigitEntry(
        "restores inverted pixels, convolutional, with skips", {"body": "cnn", "prior": "image", "skips": True}
    ),
    "transfer-noskip": DigitEntry("restores inverted pixels, without skips", {"body": "cnn", "prior": "image"}),
}


def digit_config(name: str, options: dict[str, Any] | None = None) -> DigitVaeConfig:
    """The configuration of the digit network called `name`, with `options` over its preset; unknown keys raise."""
    if name not in DIGIT_MODELS:
        raise ConfigError(f"there is no digit network called {name!r}; there are {', '.join(DIGIT_MODELS)}")
    return from_dict(DigitVaeConfig, {**DIGIT_MODELS[name].preset, **(options or {})}, f"options of {name}")


def build_digit_model(config: DigitVaeConfig, seed: int = 0) -> DigitVae:
    """A freshly initialised network; the same seed gives the same weights."""
    return DigitVae(config, torch.Generator().manual_seed(seed))
