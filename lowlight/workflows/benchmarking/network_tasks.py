"""The network alone, and its training: what they take in the process that calls them.

`side` is `lowlight` or `plain`, as in the other tasks.
"""

import statistics
from functools import partial
from typing import Any, cast

import torch

from lowlight.core.compute import choose_device, choose_precision, keep_freed_memory
from lowlight.core.restoration import Batch, ModelTraits, RestorationModel
from lowlight.models import build_model, model_config
from lowlight.models.macs import count_macs
from lowlight.models.onednn import pack_weights
from lowlight.objectives import build_objective
from lowlight.tile_batches import default_batch
from lowlight.workflows.benchmarking.limits import Spent, matrix_rate, peak_mib, spent
from lowlight.workflows.benchmarking.material import RATIO
from lowlight.workflows.benchmarking.plain import plain_steps
from lowlight.workflows.team import Team
from lowlight.workflows.training.compute import fast_kernels
from lowlight.workflows.training.config import RunSection, TrainConfig
from lowlight.workflows.training.learner import Learner

Values = dict[str, Any]
WARM_STEPS = 1  # of training: the first one makes the optimiser's state


def forward_task(
    side: str, model: str, options: Values, device: str, precision: str, batch: int | None, repeats: int
) -> Values:
    """The network alone, in turn with matrix products: seconds per tile, GFLOP/s, share of the limit."""
    plain = side == "plain"
    place = choose_device(device)
    dtype = torch.float32 if plain else choose_precision(precision, place)
    if not plain:
        keep_freed_memory()
    network = _network(model, options).eval().requires_grad_(False)
    macs = count_macs(network).true
    network = network.to(place, dtype)
    if not plain:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    restore = cast(RestorationModel, network)
    traits = restore.traits
    count = batch or default_batch(traits, place)
    if not plain:
        pack_weights(network, count)
    tiles = torch.rand(count, traits.in_channels, traits.tile, traits.tile, dtype=torch.float32).to(place, dtype)
    entered = (tiles if plain else tiles.contiguous(memory_format=torch.channels_last)).unsqueeze(1)
    taken: list[Spent] = []
    limits: list[float] = []
    with torch.inference_mode():
        restore.restore(entered)
        for _ in range(repeats):
            limits.append(matrix_rate(place, dtype, 1).gflops)
            taken.append(spent(lambda: restore.restore(entered), place))
    rates = [2e-9 * macs * count / one.on(place) for one in taken]
    shares = [rate / limit for rate, limit in zip(rates, limits, strict=True)]
    return {
        "seconds_per_tile": statistics.median(one.wall_s for one in taken) / count,
        "cpu_seconds_per_tile": statistics.median(one.cpu_s for one in taken) / count,
        "gflops": statistics.median(rates),
        "limit_gflops": statistics.median(limits),
        "share_of_limit": statistics.median(shares),
        "batch": count,
        "peak_mib": peak_mib(place),
        "precision": str(dtype).removeprefix("torch."),
    }


def train_task(side: str, model: str, options: Values, device: str, precision: str, batch: int, steps: int) -> Values:
    """Steps of the CVAE's training on random patches: seconds per step, patches per second."""
    place = choose_device(device)
    dtype = torch.float32 if side == "plain" else choose_precision(precision, place)
    network = _network(model, options).to(place)
    traits = cast(RestorationModel, network).traits
    material = _patches(traits, batch, place)
    objective = build_objective("cvae")
    if side == "plain":
        step = plain_steps(network, objective, material)
    else:
        keep_freed_memory()
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        learner = Learner(TrainConfig(run=RunSection(steps=1)), network, objective, place, dtype, Team())

        def step(number: int) -> None:
            learner.learn(material, 0.5, number)

    with fast_kernels(place):
        taken = [spent(partial(step, number), place) for number in range(WARM_STEPS + steps)][WARM_STEPS:]
    each = statistics.median(one.wall_s for one in taken)
    return {
        "seconds_per_step": each,
        "cpu_seconds_per_step": statistics.median(one.cpu_s for one in taken),
        "patches_per_second": batch / each,
        "batch": batch,
        "peak_mib": peak_mib(place),
        "precision": str(dtype).removeprefix("torch."),
    }


def _network(name: str, options: Values) -> torch.nn.Module:
    return build_model(name, model_config(name, options))


def _patches(traits: ModelTraits, batch: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    u = traits.upscale
    target = torch.rand(batch, traits.out_channels, u * traits.tile, u * traits.tile, generator=generator)
    return Batch(
        frames=torch.rand(batch, 1, traits.in_channels, traits.tile, traits.tile, generator=generator).to(device),
        target=target.to(device),
        ratio=torch.full((batch, 1), RATIO, device=device),
        base=target.to(device) if traits.base != "none" else None,
    )
