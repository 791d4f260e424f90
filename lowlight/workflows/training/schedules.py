"""What changes over a run: the learning rate, and how fast the averaged weights follow."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lowlight.core.restoration import ModelTraits
from lowlight.objectives.lapcvae import LapCvaeObjectiveConfig, level_progress
from lowlight.workflows.training.config import OptimiserSection

MILESTONE_FACTOR = 0.1


def rate_factor(rates: OptimiserSection, progress: float, step: int) -> float:
    """By how much the learning rate is multiplied at `step` (from 0), with `progress` in [0, 1] of the run done.

    A cosine begins after the warm-up (FusionVAE, supplement) and ends with the run.
    """
    factor = 1.0
    if step and rates.schedule == "cosine":
        warmed = min(rates.warmup_steps * progress / step, 1.0)  # the warm-up's share of the run
        progress = max(progress - warmed, 0.0) / (1 - warmed) if warmed < 1 else 0.0
    if rates.schedule == "cosine":
        factor = rates.final + (1 - rates.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    elif rates.schedule == "milestone" and progress >= rates.milestone:
        factor = MILESTONE_FACTOR
    if step < rates.warmup_steps:
        factor *= (step + 1) / rates.warmup_steps
    return factor


def rate_progress(objective: Any, traits: ModelTraits, progress: float) -> float:
    """How much of its schedule the learning rate has behind it, from the progress of the run and its objective.

    A greedy pyramid trains one level after another, each from scratch, so that the schedule starts anew for each.
    """
    if isinstance(objective, LapCvaeObjectiveConfig) and objective.schedule == "greedy":
        return level_progress(progress, len(traits.latents), objective.shares)
    return progress


def averaging(decay: float) -> Callable[..., Any]:
    """Exponential averaging for `AveragedModel`: starts fast, so that the first random weights are soon forgotten."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        seen = int(count)
        weight = 1 - min(decay, (1 + seen) / (10 + seen))
        torch._foreach_lerp_(averaged, current, weight)

    return update
