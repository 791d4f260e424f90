"""Several processes that train as one: the same steps, joint decisions, one that writes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_material import TINY_MODEL, tiny_values, write_packed

from lowlight.checkpoint import load_state, read_header
from lowlight.core.config import to_dict, to_toml
from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Share
from lowlight.workflows.team import Team, join_team, shared_dropout
from lowlight.workflows.training.config import TrainConfig, resolve
from lowlight.workflows.training.parts import fresh_model
from lowlight.workflows.training.train import train
from lowlight.workflows.training_log import TrainingLog

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-2  # of how far a tensor has moved
FEW = 1e-3  # of its values, those with tiny gradients, may be further apart: one of 4608 by 1.2e-2 was measured


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packed(tmp_path_factory.mktemp("packed"), pairs=1)


def two_processes(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Start two gloo processes on this machine's CPU through torchrun."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOWLIGHT_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return subprocess.run(
        [*launcher, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def values_for(packed: Path, name: str, objective: str, batch: int) -> dict[str, Any]:
    values = tiny_values(packed, steps=3, log_every=1, validate_every=2)
    values["model"] = {"name": name, "options": dict(TINY_MODEL[name])}
    values["objective"] = {"name": objective}
    values["data"]["validation"] = str(packed)
    values["optimiser"] |= {"batch": batch, "clip_norm": 1e4}
    return values


CASES = {
    "hybrid": ("sid-net", "hybrid", 3),  # noise of two kinds, and shares of different size
    "dropout": ("pix2pix", "cvae", 2),
}

WORKER = """
import math, signal, sys
from pathlib import Path

from test_team import CASES, values_for

from lowlight.workflows.training.config import resolve
from lowlight.workflows.training.run import Run
from lowlight.workflows.stopping import StopFlag, stop_on_signal
from lowlight.workflows.team import join_team


class Altered:
    def __init__(self, source):
        self.source, self.describe = source, source.describe

    def batch(self, step):
        batch = self.source.batch(step)
        if step == 1:
            batch.frames[-1] = math.nan  # an item of the second process alone
        return batch


def learn_and_note(batch, progress, step):
    losses.append(learn(batch, progress, step))
    if step == 3 and not team.leads:
        signal.raise_signal(signal.SIGTERM)  # comes to the second process alone
    return losses[-1]


packed, folder = map(Path, sys.argv[1:])
with join_team("cpu", 2) as team:
    for name, case in CASES.items():
        Run(resolve(values_for(packed, *case)), folder / name, team=team).loop(StopFlag())

    values = values_for(packed, "sid-net-slim", "l1", 2)
    values["run"] |= {"steps": None, "minutes": 9.0}
    run = Run(resolve(values), folder / "decisions", team=team)
    run.source, learn, losses = Altered(run.source), run.learner.learn, []
    run.learner.learn = learn_and_note
    with stop_on_signal() as stopped:
        run.loop(stopped)
    assert stopped.signal == signal.SIGTERM and run.step == 4, (stopped.signal, run.step)
    assert [loss is None for loss in losses] == [False, True, False, False] and run.skipped == 1
    checksum = sum(float(p.detach().double().abs().sum()) for p in run.model.parameters())
    assert team.largest(checksum, -checksum) == [checksum, -checksum]
    assert (run.board is None) == (not team.leads)
    print(f"process {team.rank} is content", flush=True)
"""


@pytest.fixture(scope="module")
def together(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes, by name."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "worker.py").write_text(WORKER, encoding="utf-8")
    done = two_processes(folder / "worker.py", packed, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    # The two share one stream, where a line of one may begin before that of the other has ended.
    assert all(f"process {rank} is content" in done.stdout for rank in range(2)), done.stdout
    return folder


def assert_same_run(one: Path, two: Path, config: TrainConfig) -> None:
    """Two runs took the same steps, up to rounding."""
    states = [load_state(folder / "state.pt") for folder in (one, two)]
    fresh = fresh_model(config, start=False).state_dict()
    for key, tensor in states[0]["model"].items():
        # Not bit for bit: sums over the batch are added up in another order, in convolutions too. Adam divides by the
        # size of the gradient, so where that is small, rounding weighs more.
        moved = float((tensor - fresh[key]).abs().max())
        apart = (tensor - states[1]["model"][key]).abs()
        assert apart.max() <= 5 * TOLERANCE * moved, key
        assert (apart > TOLERANCE * moved).float().mean() <= FEW, key
    logs = [TrainingLog(folder / "log.jsonl").rows() for folder in (one, two)]
    assert len(logs[0]) == len(logs[1]) > 3
    for first, second in zip(*logs, strict=True):
        assert first.keys() == second.keys() and first["step"] == second["step"]
        for key in {"loss", "kl", "rate"} & first.keys():
            assert first[key] == pytest.approx(second[key], rel=1e-4), key
    headers = [read_header(folder / "last.safetensors") for folder in (one, two)]
    for header in headers:
        del header["trained"]["minutes"]
    assert headers[0] == headers[1]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(packed: Path, together: Path, tmp_path: Path, name: str) -> None:
    config = resolve(values_for(packed, *CASES[name]))
    train(config, tmp_path / "one")
    assert_same_run(tmp_path / "one", together / name, config)
    # The test can fail: with other noise and dropout the steps are others.
    other = resolve({**values_for(packed, *CASES[name]), "run": {**to_dict(config.run), "seed": 1}})
    train(other, tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "other", together / name, config)


def test_skipping_and_stopping_are_decided_together(together: Path) -> None:
    state = load_state(together / "decisions" / "state.pt")
    assert (state["step"], state["skipped"]) == (4, 1)


@pytest.mark.slow
def test_the_command_runs_under_torchrun(packed: Path, tmp_path: Path) -> None:
    values = values_for(packed, "sid-net-slim", "cvae", 2)
    file = tmp_path / "run.toml"
    file.write_text(to_toml(values), encoding="utf-8")
    done = two_processes("-m", "lowlight", "train", "--config", file, "-o", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "two" / "best.safetensors")]  # one speaks
    train(resolve(values), tmp_path / "one")
    assert_same_run(tmp_path / "one", tmp_path / "two", resolve(values))


@pytest.mark.parametrize(("items", "size"), [(5, 2), (4, 4), (7, 3), (6, 1)])
def test_shares_cover_a_batch_once(items: int, size: int) -> None:
    shares = [list(range(items))[Team(rank, size).share(items)] for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    whole = Batch(torch.arange(items)[:, None], torch.arange(items), torch.ones(items, 1))
    parts = [Team(rank, size).share_of(whole) for rank in range(size)]
    assert sum(Team(rank, size).weight(part) for rank, part in enumerate(parts)) == pytest.approx(1)
    assert [part.target.tolist() for part in parts] == shares
    assert all(part.base is None and len(part.ratio) == len(part.frames) for part in parts)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shared_dropout_drops_what_one_process_would_have(layout: torch.memory_format) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.2)).train()
    x = torch.rand(5, 6, 4, 4).contiguous(memory_format=layout) + 1
    torch.manual_seed(3)
    whole = model(x)
    for first, count in ((0, 3), (3, 2)):
        torch.manual_seed(3)
        with shared_dropout(model, Share(first, 5)):
            assert torch.equal(model(x[first : first + count]), whole[first : first + count])
    torch.manual_seed(3)
    assert torch.equal(model(x), whole)  # as it was
    assert not torch.equal(whole[0] == 0, whole[1] == 0)


def test_impossible_teams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with join_team("cpu", 1) as team:
        assert team.leads and team.size == 1 and team.largest(2.0, 3.0) == [2.0, 3.0]
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="3 items cannot be shared by 4 processes"), join_team("cpu", 3):
        pass
