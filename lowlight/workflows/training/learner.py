"""What learns: a network, its optimiser and its averaged weights, one step at a time."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lowlight.core.errors import LowlightError
from lowlight.core.restoration import Batch
from lowlight.objectives import Model, Objective
from lowlight.workflows.training.compute import batch_on, seeded
from lowlight.workflows.training.config import OptimiserSection, TrainConfig
from lowlight.workflows.training.schedules import averaging, rate_factor, rate_progress
from lowlight.workflows.training.team import Team, shared_dropout


class Learner:
    """A network in training; every process of a team has its own, and all stay equal."""

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        objective: Objective,
        device: torch.device,
        dtype: torch.dtype,
        team: Team,
    ) -> None:
        rates = config.optimiser
        self.seed, self.rates = config.run.seed, rates
        self.model, self.objective, self.device, self.dtype, self.team = model, objective, device, dtype, team
        self.parameters = list(model.parameters())
        self.optimiser = build_optimiser(rates, self.parameters, device)
        self.average = AveragedModel(model, multi_avg_fn=averaging(rates.ema)) if rates.ema else None

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def learn(self, batch: Batch, progress: float, step: int) -> dict[str, float] | None:
        """Take one step and give its losses; None, and nothing changed, where loss or gradient is not finite.

        `batch` is this process's share; the losses are of the whole batch, and so is the decision to skip.
        """
        rates, seed = self.rates, (self.seed + 2) * 1_000_003 + step
        done = rate_progress(self.objective.config, cast(Model, self.model).traits, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rates.learning_rate * rate_factor(rates, done, step)
        self.model.train()
        autocast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        weight = self.team.weight(batch)
        try:
            with seeded(seed, self.device), autocast, shared_dropout(self.model, batch.share):
                generator = torch.Generator().manual_seed(seed)
                model = cast(Model, self.model)
                loss = self.objective(model, batch_on(batch, self.device), progress, generator)
            (loss.total * weight).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            raise LowlightError(
                f"{self.device} has too little memory for {len(batch.target)} items a step; use a smaller --batch"
            ) from error
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        losses = weight * torch.stack([_scalar(loss.total), *map(_scalar, loss.parts.values())])
        self.team.add_up([*gradients, losses])
        if rates.clip_norm:
            norm = nn.utils.clip_grad_norm_(self.parameters, rates.clip_norm)
        else:
            norm = nn.utils.get_total_norm(gradients)
        # One transfer from the device for all numbers of the step.
        size, total, *parts = torch.cat([norm.float().reshape(1), losses]).tolist()
        (bad,) = self.team.largest(float(not (math.isfinite(size) and math.isfinite(total))))
        if not bad:
            self.optimiser.step()
            if self.average:
                self.average.update_parameters(self.model)
        self.optimiser.zero_grad(set_to_none=True)
        return None if bad else {"loss": total, **dict(zip(loss.parts, parts, strict=True))}

    def weights(self) -> dict[str, Tensor]:
        """Give the state dict to ship: averaged where averaging is on."""
        model = self.average.module if self.average else self.model
        state: dict[str, Tensor] = model.state_dict()
        return state

    def state(self) -> dict[str, Any]:
        """Give all that is needed to go on exactly."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average:
            self.average.load_state_dict(state["average"])


def build_optimiser(
    rates: OptimiserSection, parameters: list[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """Make the optimiser that a run's section names, in one kernel for all parameters where there is one."""
    common: dict[str, Any] = {"lr": rates.learning_rate, "eps": rates.eps, "weight_decay": rates.weight_decay}
    if rates.name == "adamax":
        return torch.optim.Adamax(parameters, **common)
    kind = torch.optim.Adam if rates.name == "adam" else torch.optim.AdamW
    return kind(parameters, **common, fused=device.type != "mps")


def _scalar(value: Tensor) -> Tensor:
    return value.detach().float()
