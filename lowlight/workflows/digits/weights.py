"""Weights files of digit networks: the format of every weights file, whole networks in fp32."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lowlight.checkpoint import read_header, save_weights
from lowlight.core.errors import ConfigError, WeightsError
from lowlight.models.digits import build_digit_model, digit_config
from lowlight.models.vae import DigitVae, DigitVaeConfig


def save_digit_weights(
    path: Path, name: str, config: DigitVaeConfig, state: dict[str, Tensor], trained: dict[str, Any]
) -> None:
    """Write a digit network with its posterior encoder, which the scores and figures need."""
    save_weights(path, name, config, state, trained=trained, scores={}, dtype=torch.float32, with_posterior=True)


def load_digit_weights(path: Path) -> tuple[DigitVae, dict[str, Any]]:
    """Load a digit network, ready for inference on the CPU, and its file's header; a run's folder will do as well."""
    if path.is_dir():
        path = path / "weights.safetensors"
    header = read_header(path)
    try:
        model = build_digit_model(digit_config(header["model"], header["config"]))
        model.load_state_dict(load_file(path))
    except (ConfigError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise WeightsError(f"{path} holds no digit network this version can build: {reason}") from error
    return model.eval().requires_grad_(False), header
