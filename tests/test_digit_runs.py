"""`lowlight digits`: train, resume, score, draw."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_material import write_digit_set
from PIL import Image
from typer.testing import CliRunner

from lowlight.cli.digits import digits as app
from lowlight.core.errors import ConfigError, InterruptedRunError, UsageError, WeightsError
from lowlight.data.digits import read_digits
from lowlight.models.digits import DIGIT_MODELS, build_digit_model
from lowlight.report.digit_figures import MAX_DOTS, class_scatter, image_grid
from lowlight.workflows.digits import train as training
from lowlight.workflows.digits.config import resolve
from lowlight.workflows.digits.evaluate import PUBLISHED, evaluate_digits, score_reconstruction
from lowlight.workflows.digits.figures import draw_figures, principal_components
from lowlight.workflows.digits.train import train_digits
from lowlight.workflows.digits.weights import load_digit_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digit_set(tmp_path_factory.mktemp("digits"))


def run_of(data: Path, model: str = "vae-2", **values: object):
    return resolve({"model": model, "data": data, "batch": 30, "epochs": 2, "precision": "fp32", **values})


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for model in ("vae-2", "cvae", "transfer", "ae"):
        train_digits(run_of(data, model), folder / model)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("model", ["vae-2", "cvae", "transfer", "ae"])
def test_training_lowers_the_loss(runs: dict[str, Path], model: str) -> None:
    first, last = losses(runs[model])
    assert last < 0.9 * first


def test_two_epochs_reconstruct_better_than_none(data: Path, runs: dict[str, Path]) -> None:
    model, header = load_digit_weights(runs["vae-2"])
    digits = read_digits(data, "validation")
    assert (header["model"], header["trained"]["epochs"]) == ("vae-2", 2)
    trained = score_reconstruction(model, digits)
    fresh = score_reconstruction(build_digit_model(model.config), digits)
    assert trained["sse"] < trained["sse_per_sample"] and trained["sse"] < 0.5 * fresh["sse"]
    # A network that always says black misses by the ink itself.
    model.load_state_dict({key: torch.zeros_like(value) for key, value in model.state_dict().items()})
    ink = digits.images.square().sum((1, 2)).mean().item()
    assert score_reconstruction(model, digits)["sse"] == pytest.approx(ink, rel=1e-5)


@pytest.mark.parametrize("model", ["vae-2", "transfer"])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    data: Path, runs: dict[str, Path], model: str, tmp_path: Path
) -> None:
    train_digits(run_of(data, model, epochs=1), tmp_path / "a")
    with pytest.raises(ConfigError, match="holds a run already"):
        train_digits(run_of(data, model), tmp_path / "a")
    with pytest.raises(ConfigError, match="seed was 0 and is 1"):
        train_digits(run_of(data, model, seed=1), tmp_path / "a", resume=True)
    train_digits(run_of(data, model), tmp_path / "a", resume=True)
    whole, parts = (load_digit_weights(folder)[0].state_dict() for folder in (runs[model], tmp_path / "a"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert losses(tmp_path / "a") == losses(runs[model])


def test_a_signal_ends_a_run_with_its_state_saved(data: Path, tmp_path: Path) -> None:
    import os
    import signal

    with pytest.raises(InterruptedRunError, match="after epoch 1"):
        train_digits(run_of(data), tmp_path, watch=lambda done: os.kill(os.getpid(), signal.SIGTERM))
    assert training.saved_run(tmp_path) == run_of(data)
    train_digits(run_of(data), tmp_path, resume=True)
    assert len(losses(tmp_path)) == 2


def test_rows_hold_the_published_numbers(data: Path, runs: dict[str, Path]) -> None:
    rows = evaluate_digits([runs["vae-2"], runs["transfer"] / "weights.safetensors"], data)
    assert rows == json.loads(json.dumps(rows))
    assert rows[0]["published"] == {"measure": "sse", "train": 31.47, "validation": 32.83}
    assert rows[0]["images"] == {"validation": 60, "train": 300} and rows[0]["parameters"] == 807_700
    assert rows[1]["published"]["validation"] == 17.78 and rows[1]["validation"]["l1"] > 0
    assert rows == evaluate_digits([runs["vae-2"], runs["transfer"]], data)
    assert "train" not in evaluate_digits([runs["ae"]], data, train_split=False)[0]
    assert set(PUBLISHED) == set(DIGIT_MODELS)


def test_every_network_gets_its_figures(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    written = {path.name for path in draw_figures(list(runs.values()), data, tmp_path)}
    assert (
        written
        == {
            "vae-2-latent.svg",
            "vae-2-manifold.png",
            "vae-2-reconstructions.png",
            "ae-latent.svg",
            "ae-reconstructions.png",
            "cvae-pca.svg",
            "cvae-reconstructions.png",
            "transfer-triples.png",
        }
        == {path.name for path in tmp_path.iterdir()}
    )
    assert Image.open(tmp_path / "vae-2-manifold.png").size == (560, 560)
    assert len(ElementTree.parse(tmp_path / "cvae-pca.svg").getroot().findall("{*}circle")) >= 60
    with pytest.raises(UsageError, match="two of the weights are called 'ae'"):
        draw_figures([runs["ae"], runs["ae"]], data, tmp_path)


def test_other_weights_are_refused(tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no digit network"):
        load_digit_weights(tiny_weights)
    with pytest.raises(WeightsError, match="there is no weights file"):
        load_digit_weights(tmp_path)


def test_grids_keep_every_pixel_in_its_place() -> None:
    images = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    sheet = image_grid(images, gap_px=1, zoom=2)
    assert sheet.shape == (2 * 8 + 1, 3 * 10 + 2, 1)
    assert np.array_equal(sheet[9::2, 22::2, 0], np.round(images[1, 2] * 65535).astype(np.uint16))
    assert (sheet[8] == 32768).all()
    assert image_grid(np.array([[[[-1.0, 2.0]]]], np.float32)).ravel().tolist() == [0, 65535]


def test_scatters_are_drawings_of_their_points() -> None:
    points = np.random.default_rng(0).normal(size=(MAX_DOTS + 1, 2))
    root = ElementTree.fromstring(
        class_scatter("a < b", points, [index % 3 for index in range(len(points))], ("x", "y"))
    )
    assert "a < b" in "".join(root.itertext())
    dots = [circle for circle in root.findall("{*}circle") if circle.get("r") == "2.2"]
    assert MAX_DOTS / 2 <= len(dots) <= MAX_DOTS
    assert all(56 <= float(dot.get("cx", 0)) <= 616 and 56 <= float(dot.get("cy", 0)) <= 616 for dot in dots)


def test_principal_components_are_those_of_the_data() -> None:
    random = np.random.default_rng(1)
    wide = torch.from_numpy(random.normal(size=(500, 2)) * (5, 2))
    basis = torch.linalg.qr(torch.from_numpy(random.normal(size=(6, 6))))[0][:, :2]
    points, shares = principal_components(wide @ basis.T + 3)
    torch.testing.assert_close(shares.sum().item(), 1.0)
    centred = wide - wide.mean(0)
    own = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(points.abs(), (own.U * own.S).abs())


def test_the_commands(data: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160", "NO_COLOR": "1"})
        assert result.exit_code == 0, result.output
        return result.stdout

    run = ("train", "vae-5", "--data", str(data), "-o", str(tmp_path / "v"), "--batch", "60", "--epochs", "1")
    assert 'model = "vae-5"' in said(*run, "--dry-run") and not (tmp_path / "v").exists()
    assert said(*run).strip() == str(tmp_path / "v" / "weights.safetensors")
    assert "25.63" in said("eval", str(tmp_path / "v"), "--data", str(data), "--json", str(tmp_path / "rows.json"))
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["trained"]["epochs"] == 1
    assert json.loads(said("eval", str(tmp_path / "v"), "--data", str(data), "--json", "-")) == [row]
    assert "v-pca.svg" in said("figures", str(tmp_path / "v"), "--data", str(data), "-o", str(tmp_path / "f"))
    assert "377" not in said("list") and "644 949" in said("list")
