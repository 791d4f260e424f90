"""`lowlight models`: the list, and a weights file's header."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lowlight.checkpoint import save_weights
from lowlight.cli.models import models
from lowlight.core.errors import LowlightError
from lowlight.models import MODELS, build_model, model_config

APP = typer.Typer()
APP.command()(models)


def output(*arguments: str, width: int = 160) -> str:
    result = CliRunner().invoke(APP, list(arguments), env={"COLUMNS": str(width), "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    config = model_config("pix2pix", {"base_channels": 1})
    path = tmp_path / "tiny.safetensors"
    state = build_model("pix2pix", config).state_dict()
    save_weights(path, "pix2pix", config, state, trained={"steps": 3, "data": "[red]"}, scores={})
    return path


def test_json_is_a_list_of_objects() -> None:
    rows = json.loads(output("--json"))
    by_name = {row["name"]: row for row in rows}
    assert list(by_name) == list(MODELS)
    assert by_name["sid-net"]["parameters"] == 49_476_163
    assert by_name["sid-net"]["macs"] == 14_006_878_208
    assert by_name["sid-net"]["macs_published_convention"] == 15_855_583_232


def test_table_names_every_model_even_in_a_narrow_window() -> None:
    assert "49 476 163" in output()
    narrow = output(width=60)
    assert all(name in narrow for name in MODELS)


def test_a_weights_file_says_what_it_is(weights: Path) -> None:
    header = json.loads(output(str(weights), "--json"))
    assert header["model"] == "pix2pix"
    assert header["config"]["base_channels"] == 1
    shown = output(str(weights))
    for text in ("tiny.safetensors", "config.base_channels", "trained.steps", "[red]"):
        assert text in shown


def test_a_shipped_name_stands_for_its_file() -> None:
    assert json.loads(output("sid-net-slim", "--json"))["model"] == "sid-net-slim"


@pytest.mark.parametrize("named", ["none.safetensors", "nonesuch", "run"])
def test_weights_that_are_not_there_are_wrong_use(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    failed = CliRunner().invoke(APP, [named]).exception
    assert isinstance(failed, LowlightError) and failed.exit_code == 2 and named in str(failed)


def test_environment_can_ask_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWLIGHT_JSON", "1")
    assert json.loads(output())


def test_help_needs_no_torch() -> None:
    code = "import lowlight.cli.models, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
