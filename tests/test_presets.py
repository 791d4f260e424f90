"""Presets: the rows of the thesis' tables, by name, and each of them trained and scored."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lowlight.checkpoint import load_weights, read_header
from lowlight.cli import app
from lowlight.core.config import read_toml
from lowlight.core.errors import ConfigError
from lowlight.models import model_config
from lowlight.workflows.pairing.sid_tree import SidTreeOptions, write_sid_tree
from lowlight.workflows.stopping import StopFlag
from lowlight.workflows.training.config import load_config
from lowlight.workflows.training.parts import fresh_model, plan_model
from lowlight.workflows.training.presets import find_preset, list_presets
from lowlight.workflows.training.run import Run
from lowlight.workflows.training_log import TrainingLog

# name: model, objective, its options, task, milestone epoch, parameters in millions that are trained
ROWS: dict[str, tuple[str, str, dict[str, Any], str, int, int]] = {
    "sid-net": ("sid-net", "cvae", {"beta": 2.0, "samples": 1}, "main", 2000, 87_743_843),
    "no-skip": ("sid-net-noskip", "cvae", {"beta": 2.0, "samples": 1}, "main", 2000, 84_601_187),
    "small": ("sid-net-small", "cvae", {"beta": 2.0, "samples": 1}, "main", 3000, 55_502_771),
    "pix2pix": ("pix2pix", "cvae", {"beta": 10.0, "samples": 1}, "main", 1000, 78_141_251),
    "hybrid-0.9": ("sid-net", "hybrid", {"beta": 2.0, "samples": 1, "alpha": 0.9}, "main", 2000, 87_743_843),
    "hybrid-0.5": ("sid-net", "hybrid", {"beta": 2.0, "samples": 1, "alpha": 0.5}, "main", 2000, 87_743_843),
    "l1": ("sid-net", "l1", {"scales": 0}, "main", 2000, 49_476_163),
    "cvae-l5": ("sid-net", "cvae", {"beta": 2.0, "samples": 5}, "main", 2000, 87_743_843),
    "gray": ("sid-net", "cvae", {"beta": 1.0, "samples": 1}, "gray", 2000, 87_743_201),
    "srgb": ("sid-net", "cvae", {"beta": 1.0, "samples": 1}, "srgb", 2000, 87_743_555),
}
PRESETS = [f"thesis/{name}" for name in ROWS]


def lowlight(*arguments: object) -> Any:
    environment = {"NO_COLOR": "1", "LOWLIGHT_DEVICE": "cpu", "LOWLIGHT_TRAIN_DEVICE": "cpu"}
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sid")
    write_sid_tree(folder, SidTreeOptions(scenes=(("0", 2), ("1", 1)), exposures_s=(0.1,), size=(64, 96)))
    return folder


def test_every_row_of_the_tables_has_a_preset() -> None:
    assert [name for name in list_presets() if name.startswith("thesis/")] == sorted(PRESETS)


def test_the_shell_completes_names_of_presets() -> None:
    typed = {
        "_LOWLIGHT_COMPLETE": "complete_bash",
        "COMP_WORDS": "lowlight train --preset mnist/vae-",
        "COMP_CWORD": "3",
    }
    said = CliRunner().invoke(app, [], prog_name="lowlight", env=typed).output.split()
    assert said == [name for name in list_presets() if name.startswith("mnist/vae-")] and len(said) > 3


@pytest.mark.parametrize("name", list_presets())
def test_presets_load_and_say_their_name(name: str) -> None:
    assert load_config(None, {}, name).preset == name


@pytest.mark.parametrize("name", ROWS)
def test_presets_are_the_thesis(name: str) -> None:
    model, objective, options, task, milestone, parameters = ROWS[name]
    config = load_config(None, {}, f"thesis/{name}")
    run, rates = config.run, config.optimiser
    assert (config.model.name, config.objective.name) == (model, objective)
    assert {key: value for key, value in config.objective.options.items() if key != "reconstruction"} == options
    assert config.objective.options.get("reconstruction", "l1") == "l1"
    assert (config.data.name, config.data.options["task"], config.data.options["burst"]) == ("pairs", task, "first")
    assert config.data.options["srgb_amplify"] == "linear" and config.data.options["split"] == "train"
    assert (rates.learning_rate, rates.batch, rates.schedule, rates.weight_decay) == (1e-4, 5, "milestone", 0)
    assert (rates.ema, rates.clip_norm, rates.warmup_steps) == (0, 0, 0)
    assert (run.epochs, run.keep_last, run.steps, run.minutes) == (4000, 4, None, None)
    assert rates.milestone * run.epochs == milestone
    assert model_config(config.model.name, config.model.options).init == "normal02"
    assert sum(parameter.numel() for parameter in plan_model(config).parameters()) == parameters


def test_l1_gives_the_optimiser_no_encoder() -> None:
    for name, expected in (("l1", False), ("sid-net", True)):
        config = load_config(None, {"model": {"options": {"base_channels": 2, "latent": 4}}}, f"thesis/{name}")
        names = {key.split(".")[0] for key, _ in fresh_model(config, start=False).named_parameters()}
        assert ("encoder" in names) == expected and {"prior", "decoder"} <= names


def narrow(name: str) -> tuple[str, ...]:
    width = ("model.options.base_channels=2", "model.options.init=kaiming")
    latent = () if "pix2pix" in name else ("model.options.latent=4",)
    return tuple(word for setting in (*width, *latent) for word in ("--set", setting))


def train_and_score(name: str, tree: Path, folder: Path, *settings: object) -> None:
    """Two epochs of a preset on the tree, with the weights of both scored as versions of one model."""
    run = folder / "run"
    lowlight("train", "--preset", name, "--photos", tree, "--epochs", 2, "--batch", 1, *settings, "-o", run)
    saved = read_toml(run / "config.toml")
    assert (saved["run"]["epochs"], saved["run"]["keep_last"], saved["optimiser"]["batch"]) == (2, 4, 1)
    assert saved["preset"] == read_header(run / "last.safetensors")["trained"]["preset"] == name
    assert saved["objective"]["name"] == ROWS[name.removeprefix("thesis/")][1]
    assert (run / "curves.svg").read_text(encoding="utf-8").startswith("<svg ")
    assert sorted(path.name for path in run.glob("epoch-*")) == ["epoch-1.safetensors", "epoch-2.safetensors"]
    assert [read_header(run / f"epoch-{n}.safetensors")["trained"]["steps"] for n in (1, 2)] == [2, 4]
    lowlight("eval", tree, "--weights", run / "epoch-*.safetensors", "--json", folder / "scores.json")
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert [row["preset"] for row in scores["table"]] == [name] * 2
    assert [(row["count"], row["failed"]) for row in scores["table"]] == [(1, 0), (1, 0)]
    (versions,) = scores["versions"]
    assert versions["count"] == 2
    assert versions["mean"]["psnr"] == pytest.approx(sum(row["psnr"] for row in scores["table"]) / 2)


@pytest.mark.parametrize("name", PRESETS)
def test_narrow_presets_train_and_are_scored(name: str, tree: Path, tmp_path: Path) -> None:
    train_and_score(name, tree, tmp_path, *narrow(name), "--set", "run.log_every=1")


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_full_width_train_and_are_scored(name: str, tree: Path, tmp_path: Path) -> None:
    train_and_score(name, tree, tmp_path, "--set", "run.log_every=1")


def test_saved_and_loaded_weights_predict_the_same(tree: Path, tmp_path: Path) -> None:
    sizes = {"base_channels": 2, "latent": 4, "init": "kaiming"}
    values = {"model": {"options": sizes}, "data": {"path": str(tree)}, "run": {"epochs": 1, "device": "cpu"}}
    run = Run(load_config(None, values, "thesis/sid-net"), tmp_path)
    run.loop(StopFlag())
    frames = torch.rand(2, 1, 4, 256, 256, generator=torch.Generator().manual_seed(1))
    pictures = []
    with torch.no_grad():
        for _ in range(2):
            pictures.append(load_weights(tmp_path / "epoch-1.safetensors")[0].restore(frames).image)
        trained = fresh_model(run.config, start=False)  # the run's own lies in memory in another order
        trained.load_state_dict({key: value.half().float() for key, value in run.weights().items()})
        pictures.append(trained.eval().restore(frames).image)
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])


def test_a_dry_run_needs_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    *shown, about = lowlight("train", "--preset", "thesis/sid-net", "--dry-run").stdout.strip().splitlines()
    assert tomllib.loads("\n".join(shown))["preset"] == "thesis/sid-net"
    assert about.startswith("# ") and "SID" in about
    assert not list(tmp_path.iterdir())


def test_a_dry_run_shows_the_resolved_preset(tree: Path, tmp_path: Path) -> None:
    arguments = ("--preset", "thesis/hybrid-0.5", "--photos", tree, "--learning-rate", 3e-4, *narrow("hybrid"))
    shown = tomllib.loads(lowlight("train", *arguments, "--dry-run", "-o", tmp_path / "run").stdout)
    assert shown["objective"]["options"] == {"alpha": 0.5, "beta": 2.0, "samples": 1, "reconstruction": "l1"}
    assert (shown["run"]["epochs"], shown["optimiser"]["learning_rate"]) == (4000, 3e-4)
    assert shown["model"]["options"]["base_channels"] == 2
    assert not (tmp_path / "run").exists()


def test_wrong_names_and_keys_are_refused(tree: Path) -> None:
    with pytest.raises(ConfigError, match=r"no preset called 'thesis/sidnet'; there are .*thesis/cvae-l5, "):
        find_preset("thesis/sidnet")
    for name in ("../default-weights", "/etc/passwd", ""):
        with pytest.raises(ConfigError, match="no preset called"):
            find_preset(name)
    with pytest.raises(ConfigError, match="did you mean 'samples'"):
        lowlight("train", "--preset", "thesis/cvae-l5", "--set", "objective.options.sample=3", "--dry-run")


def test_narrow_runs_of_a_preset_resume_without_being_named(tree: Path, tmp_path: Path) -> None:
    first = ("--preset", "thesis/l1", "--photos", tree, *narrow("l1"), "--set", "run.log_every=1", "--batch", 1)
    lowlight("train", *first, "--epochs", 1, "-o", tmp_path)
    lowlight("train", "--resume", "--epochs", 6, "--set", "run.keep_last=2", "-o", tmp_path)
    assert [row["step"] for row in TrainingLog(tmp_path / "log.jsonl").rows()][-1] == 12
    assert sorted(path.name for path in tmp_path.glob("epoch-*")) == ["epoch-5.safetensors", "epoch-6.safetensors"]
