"""The thesis' digit experiments through `lowlight train` and `lowlight eval`: train, resume, score, draw."""

import json
import os
import signal
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digit_material import write_digit_set
from PIL import Image
from typer.testing import CliRunner

from lowlight.checkpoint import load_state, load_weights, read_header, save_weights
from lowlight.cli import app
from lowlight.core.errors import (
    ConfigError,
    InterruptedRunError,
    LowlightError,
    OutputError,
    UsageError,
    WeightsError,
)
from lowlight.data.digits import DigitsConfig, read_digits
from lowlight.models import build_model, model_config
from lowlight.report.digit_figures import MAX_DOTS, class_scatter, image_grid
from lowlight.workflows.evaluating import image_models
from lowlight.workflows.evaluating.digit_figures import digit_figures, principal_components
from lowlight.workflows.evaluating.digit_scores import ROWS, score_reconstruction
from lowlight.workflows.evaluating.image_models import (
    are_image_weights,
    draw_figures,
    evaluate_images,
    expand_patterns,
    weights_file,
)
from lowlight.workflows.evaluating.scorers import SCORERS
from lowlight.workflows.training.config import TrainConfig, load_config
from lowlight.workflows.training.train import saved_config, summarise, train
from lowlight.workflows.training_log import TrainingLog

STEPS = 10  # of an epoch: 300 images, 30 at a time


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digit_set(tmp_path_factory.mktemp("digits"))


def run_of(data: Path, name: str = "vae-2", **run: Any) -> TrainConfig:
    quick = {"epochs": 2, "precision": "fp32", "device": "cpu", "log_every": STEPS, "validate_every": STEPS, **run}
    return load_config(None, {"data": {"path": str(data)}, "optimiser": {"batch": 30}, "run": quick}, f"mnist/{name}")


def logged(folder: Path, key: str) -> list[Any]:
    return [row[key] for row in TrainingLog(folder / "log.jsonl").rows() if key in row]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("vae-2", "cvae", "transfer", "ae"):
        train(run_of(data, name), folder / name)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["vae-2", "cvae", "transfer", "ae"])
def test_training_lowers_the_loss(runs: dict[str, Path], name: str) -> None:
    first, last = logged(runs[name], "loss")
    assert last < 0.9 * first


def test_two_epochs_reconstruct_better_than_none(data: Path, runs: dict[str, Path]) -> None:
    model, header = load_weights(runs["vae-2"] / "last.safetensors")
    trained = header["trained"]
    assert (header["model"], trained["epochs"], trained["steps"], trained["preset"]) == (
        "digit-vae",
        2,
        20,
        "mnist/vae-2",
    )
    assert (trained["dataset"], trained["objective"], trained["precision"]) == ("digits", "bound", "float32")
    assert header["posterior"] and all(value.dtype == torch.float32 for value in model.state_dict().values())
    digits = read_digits(data, "validation")
    scores = score_reconstruction(model, digits)
    fresh = score_reconstruction(build_model("digit-vae", model.config), digits)
    assert scores["sse"] < scores["sse_per_sample"] and scores["sse"] < 0.5 * fresh["sse"]
    # A network of zeros says gray, the sigmoid of 0, and misses by what that is away.
    model.load_state_dict({key: torch.zeros_like(value) for key, value in model.state_dict().items()})
    away = (digits.images - 0.5).square().sum((1, 2)).mean().item()
    assert score_reconstruction(model, digits)["sse"] == pytest.approx(away, rel=1e-5)


@pytest.mark.parametrize(("name", "measure"), [("vae-2", "sse"), ("transfer", "l1")])
def test_the_smallest_error_on_the_validation_images_decides(
    data: Path, runs: dict[str, Path], name: str, measure: str
) -> None:
    validated = logged(runs[name], "validation")
    assert len(validated) == 2 and logged(runs[name], "images") == [60, 60]
    header = read_header(runs[name] / "best.safetensors")
    best = min(validated, key=lambda scores: scores[measure])
    assert header["scores"]["validation"] == {**best, "images": 60}
    assert header["trained"]["epochs"] == 1 + validated.index(best)
    (row,) = evaluate_images([runs[name] / "best.safetensors"], data, splits=("validation",))
    assert row["validation"] == pytest.approx(best, rel=1e-5)  # the very scores of the run
    assert load_state(runs[name] / "state.pt")["best"] == best[measure]


def test_a_worse_validation_keeps_the_best_weights(data: Path, tmp_path: Path) -> None:
    # At this rate the network gets worse, without a sigmoid that would end at black once and for all.
    config = run_of(data, "ae", validate_every=1, epochs=1)
    linear = replace(config.model, options={**config.model.options, "output": "linear"})
    train(replace(config, model=linear, optimiser=replace(config.optimiser, learning_rate=3.0)), tmp_path)
    errors = [scores["sse"] for scores in logged(tmp_path, "validation")]
    assert min(errors) < errors[-1]
    assert read_header(tmp_path / "best.safetensors")["scores"]["validation"]["sse"] == min(errors)


@pytest.mark.parametrize("name", ["vae-2", "transfer"])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    data: Path, runs: dict[str, Path], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    train(run_of(data, name, epochs=1), folder)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(run_of(data, name), folder)
    with pytest.raises(ConfigError, match="seed was 0 and is 1"):
        train(run_of(data, name, seed=1), folder, resume=True)
    train(run_of(data, name), folder, resume=True)
    whole, parts = (load_weights(each / "last.safetensors")[0].state_dict() for each in (runs[name], folder))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert logged(folder, "loss") == logged(runs[name], "loss")
    assert logged(folder, "validation") == logged(runs[name], "validation")


def test_a_signal_ends_a_run_with_its_state_saved(data: Path, tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.step == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match="stopped at step 13"):
        train(run_of(data), tmp_path, watch=stop)
    path = saved_config(tmp_path)
    assert path and load_config(path, {}) == run_of(data)
    train(run_of(data), tmp_path, resume=True)
    assert len(logged(tmp_path, "loss")) == 2


def test_a_summary_counts_images(data: Path) -> None:
    assert "300 images, 10 steps an epoch, 60 validation images" in str(summarise(run_of(data)))
    few = load_config(
        None, {"data": {"path": str(data), "options": {"limit": 90}}, "optimiser": {"batch": 30}}, "mnist/ae"
    )
    assert (summarise(few).items, summarise(few).epoch_steps) == (90, 3)


def test_rows_hold_the_published_numbers(data: Path, runs: dict[str, Path]) -> None:
    heard: list[tuple[int, int]] = []
    rows = evaluate_images(
        [runs["vae-2"], runs["transfer"] / "last.safetensors"], data, progress=lambda *told: heard.append(told)
    )
    assert heard == [(60, 720), (360, 720), (420, 720), (720, 720)]
    assert rows[1]["trained"]["dataset_options"] == {"task": "transfer"}
    assert rows == json.loads(json.dumps(rows))
    assert rows[0]["published"] == {"row": "vae-2", "measure": "sse", "train": 31.47, "validation": 32.83}
    assert rows[0]["images"] == {"validation": 60, "train": 300} and rows[0]["parameters"] == 807_700
    assert (rows[0]["measure"], rows[1]["measure"]) == ("sse", "l1")
    assert rows[1]["published"]["validation"] == 17.78 and rows[1]["validation"]["l1"] > 0
    assert [(row["name"], row["preset"], row["chosen"]) for row in rows] == [
        ("vae-2", "mnist/vae-2", True),
        ("transfer-last", "mnist/transfer", False),
    ]
    again = evaluate_images([runs["vae-2"], runs["ae"]], data, splits=("validation",))
    assert again[0]["validation"] == rows[0]["validation"] and (again[1]["name"], again[1]["chosen"]) == ("ae", True)
    assert "train" not in evaluate_images([runs["ae"]], data, splits=("validation",))[0]


def test_networks_that_the_thesis_does_not_have_stand_alone(data: Path, tmp_path: Path) -> None:
    values = {"model": {"options": {"latent": 3}}, "data": {"path": str(data)}, "optimiser": {"batch": 30}}
    train(load_config(None, {**values, "run": {"steps": 1, "device": "cpu"}}, "mnist/vae-2"), tmp_path)
    (row,) = evaluate_images([tmp_path], data)
    assert "published" not in row and row["preset"] == "mnist/vae-2"


@pytest.mark.parametrize("name", ROWS)
def test_weights_of_earlier_versions_are_read(data: Path, tmp_path: Path, name: str) -> None:
    config = ROWS[name][0]
    state = build_model("digit-vae", config, seed=1).state_dict()
    task = "transfer" if name.startswith("transfer") else "reconstruction"
    trained = {"data": {"name": "mnist", "images": 60000, "task": task}, "epochs": 200}
    path = tmp_path / name / "weights.safetensors"
    save_weights(path, name, config, state, trained=trained, scores={}, dtype=torch.float32, with_posterior=True)
    (row,) = evaluate_images([path.parent], data, splits=("validation",))
    assert (row["name"], row["published"]["row"], row["trained"]["epochs"]) == (name, name, 200)


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
    with pytest.raises(OutputError, match="is a file; name a folder"):
        draw_figures([runs["ae"]], data, tmp_path / "vae-2-latent.svg")


def test_kinds_of_weights_are_told_apart(tiny_weights: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    assert are_image_weights([runs["ae"], runs["vae-2"] / "last.safetensors"])
    assert not are_image_weights([tiny_weights]) and not are_image_weights([Path("sid-net-slim")])
    with pytest.raises(UsageError, match="is about RAW photos and other weights are not; score them apart"):
        are_image_weights([runs["ae"], tiny_weights])
    with pytest.raises(WeightsError, match=r"there is no weights file in .*expected best\.safetensors or last"):
        weights_file(tmp_path)


def test_patterns_name_several_files(data: Path, runs: dict[str, Path]) -> None:
    found = expand_patterns([runs["ae"] / "*.safetensors", runs["vae-2"], Path("sid-net-slim")])
    assert found == (*(runs["ae"] / f"{name}.safetensors" for name in ("best", "last")), runs["vae-2"], found[-1])
    shown = lowlight("eval", data, "--weights", runs["ae"] / "*.safetensors", "--split", "val", "--json", "-").stdout
    assert [row["name"] for row in json.loads(shown)["table"]] == ["ae", "ae-last"]
    with pytest.raises(UsageError, match=r"no file matches .*none-\*"):
        expand_patterns([runs["ae"], runs["ae"] / "none-*.safetensors"])


def test_weights_without_their_encoder_are_refused(data: Path, tmp_path: Path) -> None:
    config = model_config("digit-vae")
    path = tmp_path / "a.safetensors"
    save_weights(path, "digit-vae", config, build_model("digit-vae", config).state_dict(), trained={}, scores={})
    with pytest.raises(WeightsError, match="lacks the encoder"):
        evaluate_images([path], data)


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


def lowlight(*arguments: object) -> Any:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "LOWLIGHT_DEVICE": "cpu", "LOWLIGHT_TRAIN_DEVICE": "cpu"}
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    if isinstance(result.exception, LowlightError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_the_commands(data: Path, tmp_path: Path) -> None:
    run = ("train", "--preset", "mnist/vae-5", "--photos", data, "--batch", 60, "--epochs", 1, "-o", tmp_path / "v")
    assert 'preset = "mnist/vae-5"' in lowlight(*run, "--dry-run").stdout and not (tmp_path / "v").exists()
    done = lowlight(*run)
    assert done.stdout.strip() == str(tmp_path / "v" / "best.safetensors")
    assert "validation sse" in done.stderr
    files = ("--json", tmp_path / "a.json", "--rows", tmp_path / "a.csv", "--rows", tmp_path / "a.jsonl")
    shown = lowlight("eval", data, "--weights", tmp_path / "v", *files, "--figures", tmp_path / "f").stdout
    assert "25.63" in shown and "25.32" in shown and "mnist/vae-5" in shown and "v *" in shown and "kl" in shown
    assert str(tmp_path / "f" / "v-pca.svg") in shown.replace("\n", "")
    (row,) = json.loads((tmp_path / "a.json").read_text())["table"]
    assert row["trained"]["epochs"] == 1
    assert json.loads((tmp_path / "a.jsonl").read_text()) == row
    assert f",{row['validation']['sse']}," in (tmp_path / "a.csv").read_text()
    again = lowlight("eval", data, "--weights", tmp_path / "v", "--json", "-")
    assert json.loads(again.stdout) == {"table": [row]}
    only = json.loads(lowlight("eval", data, "--weights", tmp_path / "v", "--split", "val", "--json", "-").stdout)
    assert "train" not in only["table"][0]
    assert "820 004" in lowlight("models").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--protocol", "paper"), "--protocol is about RAW photos"),
        (("--strategies", "all"), "--strategies is about RAW photos"),
        (("--split", "test"), "there are train and val"),
    ],
)
def test_options_of_photos_are_refused(
    data: Path, runs: dict[str, Path], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        lowlight("eval", data, "--weights", runs["ae"], *arguments)


def broken_run(folder: Path) -> Path:
    """Weights of a network of which training left nothing."""
    config = model_config("digit-vae", {"latent": 2})
    state = {key: value * np.nan for key, value in build_model("digit-vae", config).state_dict().items()}
    trained = {"dataset": "digits"}
    save_weights(
        folder / "best.safetensors", "digit-vae", config, state, trained=trained, scores={}, with_posterior=True
    )
    return folder


def test_scores_that_are_no_numbers_are_told_as_nothing(data: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("a.json", "a.jsonl", "a.csv")]
    named = [
        word for option, path in zip(("--json", "--rows", "--rows"), outputs, strict=True) for word in (option, path)
    ]
    said = lowlight("eval", data, "--weights", broken_run(tmp_path / "broken"), "--split", "val", *named).stdout
    assert "broken" in said and "nan" not in said
    (row,) = json.loads(outputs[0].read_text())["table"]
    assert row["validation"]["sse"] is None and json.loads(outputs[1].read_text()) == row
    assert "nan" not in outputs[2].read_text()


def test_the_table_is_printed_before_anything_is_written(
    data: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("lowlight.core.atomic.write_text", full)
    words = ("eval", data, "--weights", runs["ae"], "--split", "val", "--rows", tmp_path / "a.csv")
    done = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200", "LOWLIGHT_DEVICE": "cpu"})
    assert isinstance(done.exception, OSError) and "Errors per image" in done.stdout


@pytest.mark.parametrize("option", ["--json", "--rows"])
def test_digits_weights_and_logs_are_never_written_over(
    data: Path, runs: dict[str, Path], tmp_path: Path, option: str
) -> None:
    inputs = [runs["ae"] / "log.jsonl", runs["ae"] / "best.safetensors", data / "t10k-images-idx3-ubyte.gz"]
    for path in inputs[: 1 if option == "--rows" else 3]:
        before = path.read_bytes()
        with pytest.raises(UsageError, match="would replace a file that it is made from"):
            lowlight("eval", data, "--weights", runs["ae"], option, path)
        assert path.read_bytes() == before


def test_figures_that_cannot_be_are_refused_before_the_scoring(
    data: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("scored before its options were looked at")

    monkeypatch.setattr(image_models, "evaluate_images", never)
    words = ("eval", data, "--weights", runs["ae"], "--figures")
    with pytest.raises(UsageError, match="two of the weights are called 'ae'"):
        lowlight(*words, tmp_path, "--weights", runs["ae"] / "best.safetensors")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="is a file; name a folder"):
        lowlight(*words, tmp_path / "file")
    none = replace(SCORERS["digits"], figures=None)
    monkeypatch.setitem(SCORERS, "digits", none)
    with pytest.raises(UsageError, match="there are no figures of networks such as"):
        lowlight(*words, tmp_path)


def test_figures_are_not_drawn_of_photos(tmp_path: Path, tiny_weights: Path) -> None:
    with pytest.raises(UsageError, match="--figures is about networks on digits"):
        lowlight("eval", tmp_path, "--weights", tiny_weights, "--figures", tmp_path / "f")


@pytest.mark.parametrize(
    ("name", "options", "kinds"),
    [
        ("cvae", {"latent": 2}, {"reconstructions", "latent"}),  # its prior needs labels, which a manifold has not
        ("vae-2", {"latent": 1}, {"reconstructions"}),
        ("vae-2", {"latent": 3}, {"reconstructions", "pca"}),
    ],
)
def test_only_figures_that_a_network_can_have_are_drawn(
    data: Path, runs: dict[str, Path], name: str, options: dict[str, int], kinds: set[str]
) -> None:
    model, _ = load_weights(runs[name] / "last.safetensors")
    other = build_model("digit-vae", replace(model.config, **options)).eval()
    assert digit_figures(other, data, DigitsConfig(), "title", 0).keys() == kinds
