"""Small pyramids and a loop that trains them, for tests."""

import torch
from torch import nn

from lowlight.core.restoration import Batch
from lowlight.models.lapcvae import LapCvae, LapCvaeConfig
from lowlight.models.lapcvae_raw import LapCvaeRaw, LapCvaeRawConfig
from lowlight.objectives.lapcvae import LapCvaeObjectiveConfig, lapcvae

SMALL = {"side_px": 32, "latent": 6, "base_channels": 4, "hidden": 24, "prior_hidden": 8}
SMALL_RAW = {"tile_px": 64, "levels": 3, "latent": 6, "base_channels": 8, "prior_hidden": 8, "init": "kaiming"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def faces_model(seed: int = 1, **options: object) -> LapCvae:
    return LapCvae(LapCvaeConfig(**{**SMALL, **options}), generator(seed))  # type: ignore[arg-type]


def raw_model(seed: int = 1, **options: object) -> LapCvaeRaw:
    return LapCvaeRaw(LapCvaeRawConfig(**{**SMALL_RAW, **options}), generator(seed))  # type: ignore[arg-type]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=generator(seed))


def batch_for(model: nn.Module, count: int = 2, seed: int = 2) -> Batch:
    traits = model.traits
    frames = numbers(count, traits.max_frames, traits.in_channels, traits.tile, traits.tile, seed=seed)
    side = traits.upscale * traits.tile
    return Batch(frames, numbers(count, traits.out_channels, side, side, seed=seed + 1), frames.new_ones(count, 1))


def train(  # type: ignore[no-untyped-def]
    model, batch_of, steps, config=None, first=0, whole=None, rate=1e-3, seed=5, clip_norm=None
):
    """Steps `first` to `first + steps` of a run of `whole` steps; gives the last losses."""
    config = config or LapCvaeObjectiveConfig()
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for step in range(first, first + steps):
        loss = lapcvae(model, batch_of(step), step / (whole or steps), generator(seed + step), config)
        loss.total.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return {name: float(part) for name, part in loss.parts.items()}
