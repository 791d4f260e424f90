"""Training: resumes exactly, stops cleanly, skips what is not finite, and records what it did."""

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import typer
from safetensors.torch import load_file
from torch import nn
from training_material import TINY_MODEL, tiny_run, tiny_values, write_packed
from typer.testing import CliRunner

from lowlight.checkpoint import load_state, load_weights, read_header
from lowlight.cli.train import train_command
from lowlight.cli.train_progress import training_progress
from lowlight.core.config import to_toml
from lowlight.core.errors import ConfigError, DataError, InterruptedRunError, LowlightError, WeightsError
from lowlight.core.restoration import Batch
from lowlight.data import Source
from lowlight.data.pairs import PairRow, validation_rows
from lowlight.objectives import build_objective
from lowlight.report.curves import curves_svg, thinned
from lowlight.workflows.stopping import StopFlag, stop_on_signal
from lowlight.workflows.team import Team
from lowlight.workflows.training import run as training_run
from lowlight.workflows.training.config import OptimiserSection, TrainConfig, load_config, resolve
from lowlight.workflows.training.learner import build_optimiser, check_shareable
from lowlight.workflows.training.parts import fresh_model, same_data
from lowlight.workflows.training.run import Progress, Run, Watcher
from lowlight.workflows.training.schedules import averaging, rate_factor
from lowlight.workflows.training.train import summarise, train
from lowlight.workflows.training.validating import open_validation_of
from lowlight.workflows.training.weights_files import Standing, WeightsFiles, epoch_files
from lowlight.workflows.training_log import TrainingLog

TIMES = ("elapsed_s", "data_share", "seconds")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packed(tmp_path_factory.mktemp("packed"), pairs=1)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """The same number of threads in every run: sums are then the same to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_of(packed: Path, name: str, objective: str, **run: Any) -> TrainConfig:
    values = tiny_values(packed, **run)
    values["model"] = {"name": name, "options": TINY_MODEL[name]}
    values["objective"] = {"name": objective}
    values["data"]["validation"] = str(packed)
    values["optimiser"]["clip_norm"] = 1e4
    return resolve(values)


def stop_at(step: int, number: signal.Signals) -> Watcher:
    """Send a real signal to this process once that step is done."""

    def watch(progress: Progress) -> None:
        if progress.step == step:
            signal.raise_signal(number)

    return watch


def rows(folder: Path) -> list[dict[str, Any]]:
    found = TrainingLog(folder / "log.jsonl").rows()
    return [{key: value for key, value in row.items() if key not in TIMES} for row in found]


def assert_same(first: Any, second: Any, where: str = "state") -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            if key not in TIMES:
                assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert first == second, where


def assert_same_run(first: Path, second: Path) -> None:
    assert_same(load_state(first / "state.pt"), load_state(second / "state.pt"))
    for name in ("last.safetensors", "best.safetensors"):
        assert_same(load_file(first / name), load_file(second / name), name)
        assert read_header(first / name)["trained"]["steps"] == read_header(second / name)["trained"]["steps"]
    assert rows(first) == rows(second)


@pytest.mark.parametrize(
    ("name", "objective", "stop", "number"),
    [
        ("sid-net-slim", "l1", 3, signal.SIGINT),
        ("sid-net", "cvae", 2, signal.SIGTERM),
        ("pix2pix", "cvae", 3, signal.SIGINT),  # draws dropout
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(
    packed: Path, tmp_path: Path, name: str, objective: str, stop: int, number: signal.Signals
) -> None:
    config = config_of(packed, name, objective, steps=5, validate_every=2, checkpoint_every=100)
    torch.manual_seed(1)
    whole = train(config, tmp_path / "whole")
    torch.manual_seed(2)  # the global generator must not matter
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError, match=f"stopped at step {stop}") as raised:
        train(config, tmp_path / "parts", watch=stop_at(stop, number))
    assert raised.value.exit_code == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert load_state(tmp_path / "parts" / "state.pt")["step"] == stop
    parts = train(config, tmp_path / "parts", resume=True)
    assert whole.name == parts.name == "best.safetensors"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    # Losses and validations; the last steps, fewer than a row's, have one too.
    assert [row["step"] for row in rows(parts.parent)] == [2, 2, 4, 4, 5, 5]
    assert "loss" in rows(parts.parent)[-2]


def test_what_is_shown_of_few_steps_is_their_mean(capsys: pytest.CaptureFixture[str]) -> None:
    with training_progress() as watch:
        for step, loss in enumerate((4.0, 2.0, 3.0), 1):
            watch(Progress(step, step / 3, 0.1 * step, 0, loss, steps=3))
        watch(Progress(3, 1.0, 0.4, 0, None, steps=3))  # as after the last validation
    assert capsys.readouterr().err.splitlines() == ["33%, step 1 of 3, loss 4", "100%, step 3 of 3, loss 3"]


def test_a_validation_without_pairs_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone = write_packed(tmp_path / "set", pairs=0)
    values = tiny_values(alone)
    values["data"]["validation"] = str(alone)
    assert len(open_validation_of(resolve(values))) == 0
    assert f"{alone} holds no pairs, so nothing validates" in caplog.text


def test_a_killed_run_goes_on_from_its_last_state(packed: Path, tmp_path: Path) -> None:
    config = config_of(packed, "sid-net-slim", "l1", steps=6, validate_every=2, checkpoint_every=3, log_every=1)
    train(config, tmp_path / "whole")

    def die(progress: Progress) -> None:
        if progress.step == 5:
            raise MemoryError  # as abrupt as a kill: nothing is saved on the way out

    with pytest.raises(MemoryError):
        train(config, tmp_path / "killed", watch=die)
    assert load_state(tmp_path / "killed" / "state.pt")["step"] == 3
    assert rows(tmp_path / "killed")[-1]["step"] == 5
    with (tmp_path / "killed" / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "elap')
    train(config, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_validation_that_was_stopped_is_done_again(packed: Path, tmp_path: Path) -> None:
    config = config_of(packed, "sid-net-slim", "l1", steps=3, validate_every=2)
    train(config, tmp_path / "whole")
    run, stopped = Run(config, tmp_path / "parts"), StopFlag()
    read = run.validation.pairs[0]

    def read_and_stop() -> Any:
        stopped.signal = signal.SIGINT
        return read()

    run.validation.pairs = [read_and_stop, read]  # the signal comes during the first pair
    run.loop(stopped)
    assert (run.step, run.validated_at) == (2, 0)
    assert "validation" not in json.dumps(rows(tmp_path / "parts"))
    train(config, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_validation_leaves_training_as_it_was(packed: Path, tmp_path: Path) -> None:
    often = config_of(packed, "pix2pix", "l1", steps=3, validate_every=1)
    never = replace(often, data=replace(often.data, validation=None))
    for name, config in (("often", often), ("never", never)):
        train(config, tmp_path / name)
    first, second = (load_state(tmp_path / name / "state.pt") for name in ("often", "never"))
    for key in ("model", "optimiser", "average"):
        assert_same(first[key], second[key], key)
    assert train(never, tmp_path / "never", resume=True).name == "last.safetensors"
    run = Run(often, tmp_path / "one")
    run.model.train()
    run.validate(StopFlag())
    assert run.model.training
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_best_weights_are_those_of_the_best_validation(packed: Path, tmp_path: Path) -> None:
    config = config_of(packed, "sid-net-slim", "l1", steps=4, validate_every=1)
    best = train(config, tmp_path)
    scored = [(row["validation"]["psnr"], row["step"]) for row in rows(tmp_path) if "validation" in row]
    assert len(scored) == 4
    header = read_header(best)
    psnr, step = max(scored)
    assert header["scores"]["validation"]["psnr"] == psnr
    assert header["trained"]["steps"] == step
    assert header["trained"]["data"]["photos"] == 2
    assert read_header(tmp_path / "last.safetensors")["trained"]["steps"] == 4


class Altered:
    """A real source with the frames of some steps changed."""

    def __init__(self, source: Source, bad: set[int], value: float) -> None:
        self.source, self.bad, self.value = source, bad, value

    def batch(self, step: int) -> Batch:
        batch = self.source.batch(step)
        return replace(batch, frames=batch.frames * self.value) if step in self.bad else batch

    def describe(self) -> dict[str, Any]:
        return self.source.describe()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_steps_that_are_not_finite_are_skipped_and_counted(packed: Path, tmp_path: Path, value: float) -> None:
    run = Run(tiny_run(packed, steps=1, log_every=1), tmp_path)
    run.loop(StopFlag())
    before = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
    average = {key: tensor.clone() for key, tensor in run.weights().items()}
    moments = copy.deepcopy(run.optimiser.state_dict()["state"])
    run.config = tiny_run(packed, steps=3, log_every=1)
    run.source = Altered(run.source, {1}, value)
    seen: list[Progress] = []
    stopped = StopFlag()

    def stop_after_the_bad_step(progress: Progress) -> None:
        seen.append(progress)
        stopped.signal = signal.SIGINT

    run.loop(stopped, stop_after_the_bad_step)
    assert (run.step, run.skipped, seen[0].loss) == (2, 1, None)
    assert_same(before, dict(run.model.state_dict()))
    assert_same(average, run.weights())
    assert_same(run.optimiser.state_dict()["state"], moments)
    run.loop(StopFlag())
    assert (run.step, run.skipped) == (3, 1)
    assert [row["skipped"] for row in rows(tmp_path)] == [0, 1, 1]
    assert ["loss" in row for row in rows(tmp_path)] == [True, False, True]
    assert all(torch.isfinite(tensor).all() for tensor in run.weights().values())
    assert read_header(tmp_path / "last.safetensors")["trained"]["skipped_steps"] == 1


def test_a_run_that_only_skips_gives_up(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "MAX_SKIPPED_IN_A_ROW", 3)
    run = Run(tiny_run(packed, steps=9), tmp_path)
    run.source = Altered(run.source, set(range(9)), math.nan)
    with pytest.raises(LowlightError, match=r"3 steps in a row .* not finite; lower the learning rate"):
        run.loop(StopFlag())
    assert run.step == 2


def test_one_batch_can_be_learned_by_heart(packed: Path, tmp_path: Path) -> None:
    values = tiny_values(packed, steps=60, log_every=1)
    values["model"]["options"] |= {"base_channels": 4, "latent": 16}
    values["optimiser"] = {"batch": 1, "learning_rate": 3e-3}
    run = Run(resolve(values), tmp_path)
    one = run.source.batch(0)

    class Same(Altered):
        def batch(self, step: int) -> Batch:
            return one

    run.source = Same(run.source, set(), 1.0)
    run.loop(StopFlag())
    errors = [row["loss"] / one.target[0].numel() for row in rows(tmp_path)]
    assert errors[-1] < errors[0] / 3
    assert errors[-1] < 0.08


def test_the_average_is_what_is_shipped_and_follows_the_weights(packed: Path, tmp_path: Path) -> None:
    run = Run(tiny_run(packed, steps=3), tmp_path)
    run.loop(StopFlag())
    shipped = load_file(tmp_path / "last.safetensors")
    key = "decoder.expand.weight"
    assert torch.equal(shipped[key], run.weights()[key].half())
    assert not torch.equal(run.weights()[key], run.model.state_dict()[key])


def test_averaging_starts_fast_and_ends_at_its_decay() -> None:
    update = averaging(0.9)
    for count, kept in ((1, 2 / 11), (8, 0.5), (1000, 0.9)):
        averaged = [torch.ones(2)]
        update(averaged, [torch.zeros(2)], torch.tensor(count))
        assert averaged[0].tolist() == pytest.approx([kept, kept])


def test_learning_rates_follow_their_schedule() -> None:
    cosine = OptimiserSection(schedule="cosine", warmup_steps=10)
    assert rate_factor(cosine, 0.0, 0) == pytest.approx(0.1)
    assert rate_factor(cosine, 0.1, 10) == pytest.approx(1.0)  # the cosine begins after the warm-up
    assert rate_factor(cosine, 0.55, 55) == pytest.approx(0.5)
    assert rate_factor(cosine, 1.0, 200) == pytest.approx(0)
    floor = OptimiserSection(schedule="cosine", final=0.01)
    assert [rate_factor(floor, p, 9) for p in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.505, 0.01])
    milestone = OptimiserSection(schedule="milestone", milestone=0.5)
    assert [rate_factor(milestone, p, 9) for p in (0.0, 0.49, 0.5, 1.0)] == [1, 1, 0.1, 0.1]
    assert rate_factor(OptimiserSection(), 0.7, 3) == 1


@pytest.mark.parametrize("name", ["adamw", "adam", "adamax"])
def test_optimisers_are_those_of_torch(name: str) -> None:
    rates = OptimiserSection(name=name, learning_rate=0.1, eps=1e-3, weight_decay=0.3)
    ours, theirs = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "adamax": torch.optim.Adamax}
    for weight, optimiser in (
        (ours, build_optimiser(rates, [ours], torch.device("cpu"))),
        (theirs, kinds[name]([theirs], lr=0.1, eps=1e-3, weight_decay=0.3)),
    ):
        for _ in range(3):
            optimiser.zero_grad()
            (weight * torch.tensor([0.1, 1.0])).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, torch.tensor([1.0, -2.0]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimiser": {"batch": 2}}, "optimiser.batch was 1 and is 2"),
        ({"run": {"seed": 9}}, "run.seed was 0 and is 9"),
        ({"objective": {"name": "cvae"}}, "objective.name was 'l1' and is 'cvae'"),
        ({"optimiser": {"name": "adamax"}}, "optimiser.name was 'adamw' and is 'adamax'"),
    ],
)
def test_another_configuration_cannot_resume(
    packed: Path, tmp_path: Path, change: dict[str, dict[str, Any]], sentence: str
) -> None:
    train(tiny_run(packed, steps=1), tmp_path)
    before = (tmp_path / "config.toml").read_bytes()
    values = tiny_values(packed, steps=1)
    for section, entries in change.items():
        values[section] = {**values[section], **entries}
    with pytest.raises(ConfigError, match=sentence):
        train(resolve(values), tmp_path, resume=True)
    assert (tmp_path / "config.toml").read_bytes() == before


def test_other_photos_cannot_resume(packed: Path, tmp_path: Path) -> None:
    train(tiny_run(packed, steps=1), tmp_path / "run")
    from training_material import training_names, write_photos

    other = write_photos(tmp_path / "other", training_names(3))
    with pytest.raises(ConfigError, match="trained from other data"):
        train(tiny_run(other, steps=2), tmp_path / "run", resume=True)


def test_a_longer_budget_goes_on(packed: Path, tmp_path: Path) -> None:
    train(tiny_run(packed, steps=2), tmp_path)
    train(tiny_run(packed, steps=3), tmp_path, resume=True)
    assert load_state(tmp_path / "state.pt")["step"] == 3


def test_states_of_before_this_version_can_be_resumed(packed: Path, tmp_path: Path) -> None:
    config = tiny_run(packed, steps=2)
    train(config, tmp_path)
    state = load_state(tmp_path / "state.pt")
    for key in ("validated_at", "scores", "window", "data"):
        del state[key]
    del state["best"]
    torch.save({**state, "best_psnr": 31.5}, tmp_path / "state.pt")
    train(tiny_run(packed, steps=3), tmp_path, resume=True)
    state = load_state(tmp_path / "state.pt")
    assert (state["step"], state["best"]) == (3, 31.5)


def test_a_folder_with_a_run_is_not_overwritten(packed: Path, tmp_path: Path) -> None:
    config = tiny_run(packed, steps=1)
    last = train(config, tmp_path)
    before = last.read_bytes()
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config, tmp_path)
    assert last.read_bytes() == before


@pytest.mark.parametrize("name", ["config.toml", "log.jsonl"])
def test_files_that_are_of_no_run_stay(packed: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"holds no run but a {name}"):
        train(tiny_run(packed, steps=1), tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.skipif(os.name == "nt", reason="links need permission")
def test_a_log_that_is_a_link_stays_one(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    log.path.symlink_to(tmp_path / "kept.jsonl")
    for step in (1, 2):
        log.append({"step": step})
    log.keep_until(1)
    assert log.path.is_symlink() and (tmp_path / "kept.jsonl").read_text() == '{"step": 1}\n'


def test_photos_in_a_folder_of_any_bytes_train_and_resume(packed: Path, tmp_path: Path) -> None:
    photos = tmp_path / os.fsdecode(b"ph\xff.zip")
    try:
        shutil.copy(packed, photos)
    except OSError:
        pytest.skip("a file system of UTF-8 alone")
    train(tiny_run(photos, steps=1), tmp_path / "run")
    config = load_config(tmp_path / "run" / "config.toml", {"run": {"steps": 2}})
    assert config.data.path == photos
    train(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("change", [{"step": "x"}, {"window": 5}, {"scores": 3.0}, {"elapsed_s": None}])
def test_a_state_of_other_values_is_refused(packed: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    train(tiny_run(packed, steps=1), tmp_path)
    torch.save({**load_state(tmp_path / "state.pt"), **change}, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="does not fit this run"):
        train(tiny_run(packed, steps=2), tmp_path, resume=True)


def test_what_a_killed_run_left_unfinished_is_removed(packed: Path, tmp_path: Path) -> None:
    train(tiny_run(packed, steps=1), tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours, other = (f"{name}.{ended.pid}-0123abcd.part" for name in (".state.pt", ".mine.pt"))
    epoch = f".epoch-3.safetensors.{ended.pid}-0123abcd.part"
    for name in (ours, other, epoch):
        (tmp_path / name).write_bytes(b"half")
    train(tiny_run(packed, steps=2), tmp_path, resume=True)
    assert [path.name for path in tmp_path.glob(".*.part")] == [other]


def test_a_broken_state_is_refused(packed: Path, tmp_path: Path) -> None:
    config = tiny_run(packed, steps=1)
    train(config, tmp_path)
    torch.save({"step": 1}, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="does not fit this run"):
        train(config, tmp_path, resume=True)


def test_minutes_are_a_budget_too(packed: Path, tmp_path: Path) -> None:
    train(tiny_run(packed, steps=None, minutes=0.005), tmp_path)
    state = load_state(tmp_path / "state.pt")
    assert state["step"] >= 1
    assert state["elapsed_s"] >= 0.3


@pytest.mark.parametrize(("keep", "kept"), [(0, []), (2, [4, 5]), (9, [1, 2, 3, 4, 5])])
def test_the_weights_of_the_last_epochs_are_kept(packed: Path, tmp_path: Path, keep: int, kept: list[int]) -> None:
    seen: list[Progress] = []
    train(tiny_run(packed, steps=None, epochs=5, keep_last=keep), tmp_path, watch=seen.append)
    assert [progress.step for progress in seen][-1] == 10  # two photos, one item a step
    assert seen[-1].steps == 10 and seen[4].fraction == 0.5
    assert sorted(epoch_files(tmp_path)) == kept
    for epoch, path in epoch_files(tmp_path).items():
        assert read_header(path)["trained"]["steps"] == 2 * epoch
        assert read_header(path)["trained"]["epoch"] == epoch
    if kept:
        assert_same(load_file(tmp_path / "epoch-5.safetensors"), load_file(tmp_path / "last.safetensors"))
        for name in ("state.pt", "last.safetensors"):
            (tmp_path / name).unlink()
        with pytest.raises(ConfigError, match="holds a run already"):
            train(tiny_run(packed, steps=1), tmp_path)


def test_a_resumed_run_keeps_the_same_epochs(packed: Path, tmp_path: Path) -> None:
    config = tiny_run(packed, steps=None, epochs=4, keep_last=2)
    train(config, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train(config, tmp_path / "parts", watch=stop_at(7, signal.SIGTERM))
    assert sorted(epoch_files(tmp_path / "parts")) == [3]
    train(config, tmp_path / "parts", resume=True)
    for epoch in (3, 4):
        first, second = (load_file(epoch_files(tmp_path / name)[epoch]) for name in ("whole", "parts"))
        assert_same(first, second)
    # More epochs: those that are no longer among the last go.
    train(tiny_run(packed, steps=None, epochs=6, keep_last=2), tmp_path / "parts", resume=True)
    assert sorted(epoch_files(tmp_path / "parts")) == [5, 6]


def test_without_a_known_end_the_last_epochs_roll(packed: Path, tmp_path: Path) -> None:
    run = Run(tiny_run(packed, steps=None, minutes=60.0, keep_last=2), tmp_path)
    stopped = StopFlag()

    def stop(progress: Progress) -> None:
        stopped.signal = signal.SIGINT if progress.step == 8 else None

    run.loop(stopped, stop)
    assert sorted(epoch_files(tmp_path)) == [3, 4]


def test_loss_curves_are_drawn(packed: Path, tmp_path: Path) -> None:
    config = config_of(packed, "sid-net", "cvae", steps=3, validate_every=1, log_every=1, checkpoint_every=2)
    seen: list[bool] = []
    train(config, tmp_path, watch=lambda progress: seen.append((tmp_path / "curves.svg").exists()))
    assert seen == [False, True, True]
    picture = ElementTree.parse(tmp_path / "curves.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{svg}svg"
    names = {text.text for text in picture.iter(f"{svg}text") if text.get("class") == "name"}
    assert {"loss", "reconstruction", "kl", "validation psnr"} <= names
    assert names.isdisjoint({"rate", "skipped", "data_share", "elapsed_s"})
    assert len(picture.findall(f"{svg}svg")) == len(names)


def test_long_curves_are_thinned_and_empty_ones_not_drawn() -> None:
    points = [(float(step), step / 2) for step in range(5000)]
    thin = thinned(points)
    assert 300 < len(thin) <= 400
    assert all(y == x / 2 for x, y in thin) and thin[0][0] < 10
    assert thinned(points[:7]) == points[:7]
    assert curves_svg([]) is None
    assert curves_svg([{"step": 1, "elapsed_s": 2.0, "skipped": 0}]) is None


def test_tensorboard_gets_the_scalars_where_it_is_installed(packed: Path, tmp_path: Path) -> None:
    config = config_of(packed, "sid-net", "cvae", steps=2, validate_every=1, log_every=1)
    if find_spec("tensorboard") is None:
        train(config, tmp_path)
        assert not (tmp_path / "tensorboard").exists()
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"training/loss", "training/kl", "validation/psnr"} <= set(events.Tags()["scalars"])
    logged = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert [event.value for event in events.Scalars("training/loss")] == pytest.approx(logged)


def test_training_starts_from_weights_that_fit(packed: Path, tmp_path: Path) -> None:
    first = train(tiny_run(packed, steps=1), tmp_path / "first")
    values = tiny_values(packed, steps=1)
    values["model"]["options"] |= {"init": "normal02"}  # how it was drawn does not matter any more
    for named in (first.parent, first):  # a run's folder stands for its weights
        values["model"]["start_from"] = str(named)
        model = fresh_model(resolve(values), start=True)
        assert_same(dict(load_weights(first)[0].state_dict()), dict(model.state_dict()))
    second = train(resolve(values), tmp_path / "second")
    assert read_header(second)["trained"]["started_from"] == "last.safetensors"
    first.unlink()
    values["run"]["steps"] = 2
    train(resolve(values), tmp_path / "second", resume=True)  # the state holds all it needs
    values["model"]["options"] |= {"latent": 9}
    with pytest.raises(ConfigError, match="has latent 8 and this run's model 9"):
        values["model"]["start_from"] = str(second)
        fresh_model(resolve(values), start=True)


def test_a_failing_validation_does_not_end_training(packed: Path, tmp_path: Path) -> None:
    run = Run(tiny_run(packed, steps=2, validate_every=1), tmp_path)

    def fail() -> Any:
        raise DataError("the pair is gone")

    run.validation.pairs = [fail]
    run.loop(StopFlag())
    assert run.step == 2
    assert [row["validation_error"] for row in rows(tmp_path) if "validation_error" in row] == ["the pair is gone"] * 2


def test_memory_that_a_validation_lacks_does_not_end_training(packed: Path, tmp_path: Path) -> None:
    run = Run(tiny_run(packed, steps=2, validate_every=1), tmp_path)

    def fail() -> Any:
        raise MemoryError("not even a single tile fits")

    run.validation.pairs = [fail]
    run.loop(StopFlag())
    assert run.step == 2 and (tmp_path / "state.pt").is_file()


def test_the_best_on_other_pairs_says_nothing_of_these(packed: Path, tmp_path: Path) -> None:
    train(config_of(packed, "sid-net-slim", "l1", steps=1, validate_every=1), tmp_path)
    state = load_state(tmp_path / "state.pt")
    assert state["judged_on"]["pairs"] == 1
    # The same run, as if its pairs had been much easier.
    torch.save({**state, "best": 90.0, "judged_on": {"pairs": 7, "list_sha256": "easier"}}, tmp_path / "state.pt")
    (tmp_path / "best.safetensors").unlink()
    train(config_of(packed, "sid-net-slim", "l1", steps=2, validate_every=1), tmp_path, resume=True)
    assert read_header(tmp_path / "best.safetensors")["trained"]["steps"] == 2
    assert load_state(tmp_path / "state.pt")["best"] < 90


def test_what_validates_is_what_does_not_train() -> None:
    rows = {split: PairRow(Path(f"{split}.dng"), Path("b.png"), split=split) for split in ("train", "val", "test", "")}
    assert validation_rows(list(rows.values())) == [rows["val"]]
    assert validation_rows([rows["train"], rows["test"]]) == [rows["test"]]
    assert validation_rows([rows["train"]]) == [rows["train"]]


def test_descriptions_are_compared_by_what_both_tell() -> None:
    old, new = {"name": "mnist", "images": 9}, {"name": "mnist", "images": 9, "sha256": "a"}
    assert same_data(old, new) and same_data({}, new) and same_data(new, {**new, "name": "moved"})
    assert not same_data(new, {**new, "sha256": "b"}) and not same_data(old, {**new, "name": "kmnist"})


def test_batch_norms_are_not_shared_out() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3))
    check_shareable(network, Team())
    check_shareable(nn.Sequential(nn.GroupNorm(1, 3)), Team(size=2))
    with pytest.raises(ConfigError, match="one process"):
        check_shareable(network, Team(size=2))


def test_missing_pairs_are_refused_before_training(packed: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "pairs.csv"
    manifest.write_text("dark,bright\na.dng,b.png\n")
    values = tiny_values(packed)
    values["data"]["validation"] = str(manifest)
    with pytest.raises(DataError, match=r"names .*a\.dng, which does not exist"):
        train(resolve(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_second_signal_ends_at_once() -> None:
    with stop_on_signal() as stopped:
        assert not stopped
        signal.raise_signal(signal.SIGTERM)
        assert stopped.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_prefetching_thread_leaves_the_threads_alone(packed: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    train(tiny_run(packed, steps=1), tmp_path)
    assert torch.get_num_threads() == 2


def test_training_leaves_the_draws_of_the_caller_alone(packed: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(config_of(packed, "pix2pix", "cvae", steps=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_summary_counts_without_running(packed: Path, tmp_path: Path) -> None:
    config = config_of(packed, "sid-net-slim", "l1")
    summary = summarise(config)
    trained = sum(p.numel() for p in fresh_model(config, start=False).parameters())
    assert (summary.parameters, summary.items, summary.validation) == (trained, 2, 1)
    assert (summary.noun, summary.validation_noun) == ("photos", "pairs")
    assert (summary.device, summary.precision) == ("cpu", "float32")


APP = typer.Typer()
APP.command()(train_command)


def command(*arguments: object) -> Any:
    return CliRunner().invoke(APP, [str(argument) for argument in arguments], env={"NO_COLOR": "1"})


def test_the_command_trains_and_names_the_weights(packed: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(to_toml(tiny_values(packed)), encoding="utf-8")
    arguments = ("--config", file, "-o", tmp_path / "run", "--steps", 1, "--set", "run.log_every=1")
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "run" / "last.safetensors")
    assert "step 1 of 1" in result.stderr
    assert isinstance(command(*arguments).exception, ConfigError)
    # Resuming needs no file: the run kept its own.
    again = command("-o", tmp_path / "run", "--resume", "--steps", 2)
    assert again.exit_code == 0, again.output
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]


def test_a_dry_run_prints_toml_and_writes_nothing(packed: Path, tmp_path: Path) -> None:
    import tomllib

    file = tmp_path / "run.toml"
    file.write_text(to_toml(tiny_values(packed)), encoding="utf-8")
    result = command("--config", file, "--dry-run", "--minutes", 3, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    shown = tomllib.loads(result.stdout)
    assert shown["run"]["minutes"] == 3
    assert "steps" not in shown["run"]
    assert shown["data"]["options"]["noise"]["prnu"] > 0
    assert "2 photos, 2 steps an epoch, 0 validation pairs, cpu, float32" in result.stdout
    assert not (tmp_path / "run").exists()


def test_settings_of_the_environment_may_hold_spaces(packed: Path) -> None:
    settings = "data.options.ratio=[50, 300]  run.steps=3\nmodel.options.latent = 8"
    result = CliRunner().invoke(
        APP, ["--photos", str(packed), "--dry-run"], env={"NO_COLOR": "1", "LOWLIGHT_TRAIN_SET": settings}
    )
    assert result.exit_code == 0, result.output
    assert all(line in result.stdout for line in ("ratio = [50.0, 300.0]", "steps = 3", "latent = 8"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--steps", 1), "name it with -o"),
        (("-o", "x", "--steps", 1, "--set", "run.stesp=2"), "did you mean 'steps'"),
        (("-o", "x"), "either steps or minutes or epochs"),
        (("-o", "x", "--epochs", 1, "--minutes", 2), "either --minutes or --epochs"),
        (("-o", "x", "--steps", 1, "--precision", "fp16"), "expected one of auto, fp32, bf16"),
        (("-o", "x", "--steps", 1, "--photos", "/nowhere"), "/nowhere does not exist"),
        (("-o", "x", "--steps", 1, "--objective", "bound"), "objective 'bound' cannot train model 'sid-net'"),
        (
            ("-o", "x", "--steps", 1, "--model", "digit-vae", "--objective", "bound"),
            "dataset 'synthetic' cannot train model 'digit-vae'; for this model there are digits",
        ),
        (("-o", "x", "--steps", 1, "--set", "optimiser.final=2"), "final is 2.0; expected from 0 to 1"),
        (("-o", "x", "--steps", 1, "--set", "optimiser.name=sgd"), "expected one of adamw, adam, adamax"),
    ],
)
def test_wrong_use_is_said(arguments: tuple[object, ...], sentence: str) -> None:
    error = command(*arguments).exception
    assert isinstance(error, LowlightError)
    assert sentence in str(error)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("name", "objective"), [("sid-net-slim", "l1"), ("pix2pix", "cvae")])
def test_training_runs_and_resumes_on_cuda(packed: Path, tmp_path: Path, name: str, objective: str) -> None:
    config = config_of(packed, name, objective, steps=3, validate_every=2, device="cuda", precision="auto")
    with pytest.raises(InterruptedRunError):
        train(config, tmp_path, watch=stop_at(1, signal.SIGTERM))
    train(config, tmp_path, resume=True)
    assert all("validation_error" not in row for row in rows(tmp_path))
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / "last.safetensors").values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_skipped_step_leaves_batch_norms_as_they_were(tmp_path: Path, value: float) -> None:
    options = {"base_channels": 4, "latent": 2, "groups": [[8, 1], [4, 1]], "image_px": 32}
    config = resolve(
        {
            "model": {"name": "fusion", "options": options},
            "objective": {"name": "fusion", "options": {"spectral_weight": 0.01}},
            "data": {"name": "shapes-fusion", "path": ".", "options": {"digits": 8, "validation_digits": 2}},
            "optimiser": {"batch": 4},
            "run": {"steps": 9, "device": "cpu", "precision": "fp32"},
        }
    )
    run = Run(config, tmp_path)
    step = next(step for step in range(99) if run.source.batch(step).frames.shape[1])
    good = run.source.batch(step)
    assert run.learner.learn(good, 0.5, 0)

    def state() -> dict[str, torch.Tensor]:
        # The penalty's vectors follow the weights, whatever the step was.
        return {k: v.clone() for k, v in run.model.state_dict().items() if not k.startswith("size_penalty")}

    before = state()
    assert any("running_mean" in key for key in before)
    assert run.learner.learn(replace(good, frames=good.frames * value), 0.5, 1) is None
    assert_same(before, state())
    assert run.learner.learn(good, 0.5, 2)
    assert run.model.eval().restore(good.frames).image.isfinite().all()


def test_weights_that_enhance_by_encoding_again_have_their_encoders(tmp_path: Path) -> None:
    options = {"base_channels": 2, "most_channels": 4, "latent": 4, "prior_hidden": 4, "levels": 2, "tile_px": 32}
    names = set()
    for unseen in ("chain", "re-encode"):
        config = resolve(
            {
                "model": {"name": "lapcvae", "options": {**options, "unseen": unseen}},
                "objective": {"name": "lapcvae"},
                "data": {"path": "."},
                "run": {"steps": 1, "device": "cpu", "precision": "fp32"},
            }
        )
        network = fresh_model(config, start=True)
        files = WeightsFiles(tmp_path, config, build_objective("lapcvae"), {})
        files.write(f"{unseen}.safetensors", network.state_dict(), Standing(1, 0.1, 0, 1))
        model, header = load_weights(tmp_path / f"{unseen}.safetensors")
        assert model.restore(torch.rand(1, 1, 4, 32, 32)).image.isfinite().all()
        names.add((unseen, header["posterior"]))
    assert names == {("chain", False), ("re-encode", True)}
