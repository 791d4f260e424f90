"""Every network under the name users type. To add one: write its file, add its entry."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from lowlight.core.config import from_dict
from lowlight.core.errors import ConfigError
from lowlight.models.fusion_baselines import FusionCvae, FusionFcn
from lowlight.models.fusion_options import FcnConfig, FusionConfig, FusionCvaeConfig, FusionRawConfig
from lowlight.models.fusion_vae import FusionVae
from lowlight.models.lapcvae import LapCvae, LapCvaeConfig
from lowlight.models.lapcvae_raw import LapCvaeRaw, LapCvaeRawConfig
from lowlight.models.pix2pix import Pix2Pix, Pix2PixConfig
from lowlight.models.repair import RepairNet, RepairNetConfig
from lowlight.models.sid_net import SidNet, SidNetConfig
from lowlight.models.vae import DigitVae, DigitVaeConfig


@dataclass(frozen=True)
class Entry:
    """A network: its configuration (a frozen dataclass), how to build it, what the name presets, and its kind."""

    config: type[Any]
    build: Callable[[Any, torch.Generator], nn.Module]
    summary: str
    preset: dict[str, Any] = field(default_factory=dict)
    kind: Literal["raw", "image"] = "raw"  # that of its traits


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
    "fusion-raw": Entry(FusionRawConfig, FusionVae, "FusionVAE on dark frames of one scene"),
    "lapcvae": Entry(LapCvaeRawConfig, LapCvaeRaw, "Laplacian pyramid of CVAEs, coarse to fine"),
    "digit-vae": Entry(DigitVaeConfig, DigitVae, "the thesis' autoencoders of digits, 28 x 28 pixels", kind="image"),
    "repair-net": Entry(RepairNetConfig, RepairNet, "repairs damaged digits, 28 x 28 pixels", kind="image"),
    "fusion": Entry(FusionConfig, FusionVae, "FusionVAE on pictures seen in parts", kind="image"),
    "fcn": Entry(FcnConfig, FusionFcn, "FusionVAE's baseline without latents", kind="image"),
    "fcn-s": Entry(FcnConfig, FusionFcn, "the same with shortcuts", {"shortcuts": True}, kind="image"),
    "fusion-cvae": Entry(FusionCvaeConfig, FusionCvae, "FusionVAE's baseline with one latent", kind="image"),
    "fusion-cvae-s": Entry(FusionCvaeConfig, FusionCvae, "the same with shortcuts", {"shortcuts": True}, kind="image"),
    "lapcvae-faces": Entry(LapCvaeConfig, LapCvae, "Laplacian pyramid of CVAEs, faces of 64 pixels", kind="image"),
    "lapcvae-faces-128": Entry(
        LapCvaeConfig, LapCvae, "the same, 128 pixels", {"side_px": 128, "levels": 4}, kind="image"
    ),
    "vae-faces": Entry(
        LapCvaeConfig, LapCvae, "one VAE of its size beside it", {"levels": 1, "latent": 192, "hidden": 944}, "image"
    ),
}

# Names that weights files of earlier versions carry; their configuration is whole.
FORMER_NAMES: dict[str, str] = dict.fromkeys(
    ("ae", "vae-2", "vae-5", "vae-10", "vae-cnn", "cvae", "vae-50", "transfer", "transfer-noskip"), "digit-vae"
)


def current_name(name: str) -> str | None:
    """The name of a model that a weights file calls `name`, perhaps in an earlier version; None where there is none."""
    name = FORMER_NAMES.get(name, name)
    return name if name in MODELS else None


def model_config(name: str, options: dict[str, Any] | None = None) -> Any:
    """The configuration of the model called `name`, with `options` over its preset. Unknown keys are refused."""
    if name not in MODELS:
        raise ConfigError(f"there is no model called {name!r}; there are {', '.join(MODELS)}")
    entry = MODELS[name]
    return from_dict(entry.config, {**entry.preset, **(options or {})}, f"options of model {name}")


def build_model(name: str, config: Any, seed: int = 0) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights. The caller's draws stay the same."""
    # PyTorch's layers draw weights from the global generator, which are then replaced.
    with torch.random.fork_rng(devices=[]):
        return MODELS[name].build(config, torch.Generator().manual_seed(seed))
