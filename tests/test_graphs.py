"""Training steps recorded as CUDA graphs: the same steps, and refused where there can be none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training_material import tiny_run, tiny_values, write_packed

from lowlight.core.config import to_dict
from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch
from lowlight.objectives import OBJECTIVES, build_objective
from lowlight.workflows.team import Team
from lowlight.workflows.training.config import TrainConfig, first_difference, resolve
from lowlight.workflows.training.graphs import EAGER_STEPS, form_of
from lowlight.workflows.training.learner import check_recordable
from lowlight.workflows.training.run import Run

CUDA = torch.device("cuda")


def shapes_run(name: str = "fusion", freeze_norms: float = 1.0, **run: Any) -> TrainConfig:
    """FusionVAE or a baseline on drawn digits, narrow."""
    rates = {"name": "adamax", "learning_rate": 0.01, "eps": 1e-3, "batch": 16, "schedule": "cosine"}
    return resolve(
        {
            "model": {"name": name, "options": {"base_channels": 4, "groups": [[8, 2], [4, 1]]}},
            "objective": {"name": "fusion", "options": {"spectral_weight": 0.01}},
            "data": {"name": "shapes-fusion", "options": {"digits": 64, "validation_digits": 16}},
            "optimiser": {**rates, "freeze_norms": freeze_norms},
            "run": {"steps": 40, "precision": "fp32", "validate_every": 100, **run},
        }
    )


def test_a_form_is_what_a_batch_holds_and_how_large_it_is() -> None:
    frames, target, ratio = torch.zeros(2, 3, 1, 8, 8), torch.zeros(2, 1, 8, 8), torch.ones(2, 3)
    batch = Batch(frames, target, ratio)
    assert form_of(batch) == form_of(Batch(frames + 1, target, ratio))
    assert form_of(batch) != form_of(Batch(frames[:, :2], target, ratio[:, :2]))
    assert form_of(batch) != form_of(Batch(frames, target, ratio, target))
    hash(form_of(batch))


def test_what_cannot_be_recorded_is_refused() -> None:
    fusion = build_objective("fusion")
    check_recordable(fusion, CUDA, Team())
    with pytest.raises(ConfigError, match="this run is on cpu"):
        check_recordable(fusion, torch.device("cpu"), Team())
    with pytest.raises(ConfigError, match="one process"):
        check_recordable(fusion, CUDA, Team(0, 2))
    with pytest.raises(ConfigError, match="'lapcvae' cannot be recorded"):
        check_recordable(build_objective("lapcvae"), CUDA, Team())
    assert {name for name, entry in OBJECTIVES.items() if entry.recordable} == {"fusion", "l1"}


def test_a_run_on_the_cpu_says_that_it_cannot_record(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.graphs"):
        Run(shapes_run(graphs=True, device="cpu"), tmp_path)


def test_a_resumed_run_may_record_or_not() -> None:
    assert first_difference(shapes_run(), shapes_run(graphs=True)) is None


def test_a_run_goes_on_without_graphs_from_a_state_of_recorded_steps(tmp_path: Path) -> None:
    run = Run(shapes_run(device="cpu"), tmp_path)
    losses = [run.learner.learn(run.source.batch(step), step / 40, step) for step in range(4)]
    state = run.learner.state()
    for group in state["optimiser"]["param_groups"]:  # as it is where steps are recorded
        group |= {"lr": torch.tensor(group["lr"]), "capturable": True}
    again = Run(shapes_run(device="cpu"), tmp_path)
    again.learner.load_state(state)
    (group,) = again.optimiser.param_groups
    assert isinstance(group["lr"], float) and not group["capturable"]
    following = [each.learner.learn(run.source.batch(4), 0.1, 4) for each in (run, again)]
    assert following[0] == following[1] and all(losses)


@pytest.mark.parametrize("name", ["fusion", "fcn-s"])
def test_frozen_norms_train_what_is_used_afterwards(tmp_path: Path, name: str) -> None:
    run = Run(shapes_run(name, freeze_norms=0.5, device="cpu"), tmp_path)
    learner, numbers = run.learner, [statistic.clone() for statistic in run.learner.statistics]
    assert numbers and learner.learn(run.source.batch(0), 0.49, 0)
    assert not all(map(torch.equal, learner.statistics, numbers))  # this step measured its batch
    numbers = [statistic.clone() for statistic in learner.statistics]
    learner.model.eval()
    used = learner.objective(learner.model, run.source.batch(1), 0.5, torch.Generator().manual_seed(2 * 1_000_003 + 1))
    found = learner.learn(run.source.batch(1), 0.5, 1)
    assert found and found["loss"] == pytest.approx(used.total.item(), rel=1e-5)
    assert all(map(torch.equal, learner.statistics, numbers))
    assert learner.learn(run.source.batch(2), 0.9, 2) and all(map(torch.equal, learner.statistics, numbers))


def test_what_is_not_there_cannot_be_frozen() -> None:
    values = to_dict(shapes_run(freeze_norms=0.5))
    values["model"]["options"]["norm"] = "group"
    with pytest.raises(ConfigError, match=r"freeze_norms is 0\.5, and fusion as set has no batch norms"):
        resolve(values)
    values["optimiser"]["freeze_norms"] = 1.0
    resolve(values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["fusion", "fcn-s", "fusion-cvae"])
def test_recorded_steps_are_those_that_are_not(tmp_path: Path, name: str) -> None:
    losses = {}
    for graphs in (False, True):
        run = Run(shapes_run(name, freeze_norms=0.5, graphs=graphs, device="cuda"), tmp_path / str(graphs))
        losses[graphs] = [run.learner.learn(run.source.batch(step), step / 40, step) for step in range(40)]
        assert graphs == (run.learner.graphs is not None)
    assert len({form_of(run.source.batch(step)) for step in range(40)}) == 4 and EAGER_STEPS < 5
    for step, (eager, recorded) in enumerate(zip(losses[False], losses[True], strict=True)):
        assert eager is not None and recorded is not None and eager.keys() == recorded.keys()
        assert recorded["loss"] == pytest.approx(eager["loss"], rel=0.02), (step, eager, recorded)
        assert recorded.get("beta") == pytest.approx(eager.get("beta"))
    assert losses[True][-1]["loss"] < losses[True][0]["loss"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_recorded_steps_train_raw_networks_with_averaged_weights(tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "set")
    last = {}
    for graphs in (False, True):
        values = tiny_values(packed, steps=8, device="cuda", graphs=graphs)
        run = Run(resolve(values), tmp_path / str(graphs))
        assert all(run.learner.learn(run.source.batch(step), step / 8, step) for step in range(8))
        last[graphs] = run.weights()
    for key, value in last[False].items():
        torch.testing.assert_close(last[True][key], value, rtol=2e-2, atol=2e-3)
    assert tiny_run(packed).run.graphs is False
