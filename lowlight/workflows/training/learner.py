"""What learns: a network, its optimiser and its averaged weights, one step at a time."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lowlight.core.errors import ConfigError, LowlightError
from lowlight.core.restoration import Batch
from lowlight.objectives import Model, Objective
from lowlight.workflows.team import Team, shared_dropout
from lowlight.workflows.training.compute import seeded
from lowlight.workflows.training.config import OptimiserSection, TrainConfig
from lowlight.workflows.training.graphs import StepGraphs
from lowlight.workflows.training.schedules import averaging, rate_factor, rate_progress


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
        if config.run.graphs:
            check_recordable(objective, device, team)
        check_shareable(model, team)
        self.seed, self.rates = config.run.seed, rates
        self.model, self.objective, self.device, self.dtype, self.team = model, objective, device, dtype, team
        self.parameters = list(model.parameters())
        self.norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        self.statistics = [buffer for norm in self.norms for buffer in norm.buffers()]
        self.optimiser = build_optimiser(rates, self.parameters, device, recorded=config.run.graphs)
        self.average = AveragedModel(model, multi_avg_fn=averaging(rates.ema)) if rates.ema else None
        self.graphs = self._new_graphs() if config.run.graphs else None
        self.frozen = False  # whether batch norms use their running numbers

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def learn(self, batch: Batch, progress: float, step: int) -> dict[str, float] | None:
        """Take one step and give its losses; None where loss or gradient is not finite: the network stays as it was.

        `batch` is this process's share; the losses are of the whole batch, and so is the decision to skip.
        """
        self._set_rate(progress, step)
        self.model.train()
        if progress >= self.rates.freeze_norms:
            self._freeze_norms()
        # Batch norms look at a step before its loss is known, and would carry on what is not finite.
        kept = [statistic.clone() for statistic in self.statistics]
        seed = (self.seed + 2) * 1_000_003 + step
        try:
            names, numbers = self._gradients(batch.to(self.device), progress, seed)
        except torch.OutOfMemoryError as error:
            raise LowlightError(
                f"{self.device} has too little memory for {len(batch.target)} items a step; use a smaller --batch"
            ) from error
        # One transfer from the device for all numbers of the step.
        size, total, *parts = numbers.tolist()
        (bad,) = self.team.largest(float(not (math.isfinite(size) and math.isfinite(total))))
        if bad:
            for statistic, before in zip(self.statistics, kept, strict=True):
                statistic.copy_(before)
        else:
            self._update()
        self.optimiser.zero_grad(set_to_none=True)
        return None if bad else {"loss": total, **dict(zip(names, parts, strict=True))}

    def _freeze_norms(self) -> None:
        """Let batch norms do in training what they do afterwards, so that the weights learn to live with it."""
        for norm in self.norms:
            norm.eval()
        if self.graphs and not self.frozen:
            self.graphs = self._new_graphs()  # what was recorded measures each batch
        self.frozen = True

    def _new_graphs(self) -> StepGraphs:
        return StepGraphs(self.device, self.parameters, self._recordable, self.optimiser.step)

    def _set_rate(self, progress: float, step: int) -> None:
        done = rate_progress(self.objective.config, cast(Model, self.model).traits, progress)
        rate = self.rates.learning_rate * rate_factor(self.rates, done, step)
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # a recorded step reads it there
            else:
                group["lr"] = rate

    def _gradients(self, batch: Batch, progress: float, seed: int) -> tuple[tuple[str, ...], Tensor]:
        """Leave a step's gradients in the parameters; gives its parts' names, and the norm, the loss and the parts."""
        with seeded(seed, self.device), shared_dropout(self.model, batch.share):
            if self.graphs:
                return self.graphs.backward(batch, progress, seed)
            place = self.device if self.device.type == "cuda" else torch.device("cpu")
            return self._backward(batch, progress, torch.Generator(place).manual_seed(seed))

    def _recordable(self, batch: Batch, progress: Tensor) -> tuple[tuple[str, ...], Tensor]:
        assert self.graphs is not None
        return self._backward(batch, progress, self.graphs.generator)

    def _backward(
        self, batch: Batch, progress: float | Tensor, generator: torch.Generator
    ) -> tuple[tuple[str, ...], Tensor]:
        weight = self.team.weight(batch)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.objective(cast(Model, self.model), batch, progress, generator)
        (loss.total * weight).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        losses = weight * torch.stack([_scalar(loss.total), *map(_scalar, loss.parts.values())])
        self.team.add_up([*gradients, losses])
        if self.rates.clip_norm:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.rates.clip_norm)
        else:
            norm = nn.utils.get_total_norm(gradients)
        return tuple(loss.parts), torch.cat([norm.float().reshape(1), losses])

    def _update(self) -> None:
        if self.graphs:
            self.graphs.update()
        else:
            self.optimiser.step()
        if self.average:
            self.average.update_parameters(self.model)

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
        saved = state["optimiser"]
        # Whether steps are recorded is this run's own affair.
        own = [{key: group[key] for key in ("lr", "capturable")} for group in self.optimiser.param_groups]
        groups = [{**group, **mine} for group, mine in zip(saved["param_groups"], own, strict=True)]
        self.optimiser.load_state_dict({**saved, "param_groups": groups})
        if self.average:
            self.average.load_state_dict(state["average"])


def check_recordable(objective: Objective, device: torch.device, team: Team) -> None:
    """Refuse to record steps that cannot be, with a `ConfigError`."""
    if device.type != "cuda":
        raise ConfigError(
            f"run.graphs records steps on CUDA devices, and this run is on {device.type}; set it to false"
        )
    if team.size > 1:
        raise ConfigError("run.graphs records steps of one process; set it to false to train with several")
    if not objective.recordable:
        raise ConfigError(f"steps of objective {objective.name!r} cannot be recorded; set run.graphs to false")


def check_shareable(model: nn.Module, team: Team) -> None:
    """Refuse to share batches of a network whose norms look at a whole batch, with a `ConfigError`."""
    if team.size > 1 and any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise ConfigError(
            "the batch norms of this network would see one process's share of a batch; train it with one process, "
            "or set model.options.norm to group"
        )


def build_optimiser(
    rates: OptimiserSection, parameters: list[nn.Parameter], device: torch.device, *, recorded: bool = False
) -> torch.optim.Optimizer:
    """Make the optimiser that a run's section names, in one kernel for all parameters where there is one.

    One whose steps are to be `recorded` as CUDA graphs has all that changes on the device, its rate too.
    """
    common: dict[str, Any] = {"lr": rates.learning_rate, "eps": rates.eps, "weight_decay": rates.weight_decay}
    if recorded:
        common |= {"lr": torch.tensor(rates.learning_rate, device=device), "capturable": True}
    if rates.name == "adamax":
        return torch.optim.Adamax(parameters, **common)
    kind = torch.optim.Adam if rates.name == "adam" else torch.optim.AdamW
    return kind(parameters, **common, fused=device.type != "mps")


def _scalar(value: Tensor) -> Tensor:
    return value.detach().float()
