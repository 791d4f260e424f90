"""FusionVAE from its presets to its table: networks folded for scoring, `lowlight eval`, and tiles that agree."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from lowlight.checkpoint import save_weights
from lowlight.cli import app
from lowlight.core.errors import LowlightError
from lowlight.models import build_model, model_config
from lowlight.models.fusion_folding import folded
from lowlight.models.fusion_options import FusionRawConfig
from lowlight.models.fusion_vae import FusionVae
from lowlight.workflows.evaluating.fusion_published import published_rows
from lowlight.workflows.training.config import load_config
from lowlight.workflows.training.presets import list_presets

MODELS = ("fcn", "fcn-s", "fusion", "fusion-cvae", "fusion-cvae-s")
VARIANTS = [f"{how}-{where}" for how in ("bayes", "max", "mean") for where in ("add", "all")]
PAPER = {
    "fusion-mnist": (400, 800, 0.01, 75),
    "fusion-celeba": (90, 32, 0.1, 5086),
    "fusion-tless": (500, 32, 0.1, 182),
}
SMALL: dict[str, Any] = {"base_channels": 4, "groups": ((8, 2), (4, 1))}


def lively(name: str, seed: int = 1, **options: Any) -> nn.Module:
    """A small network whose norms have seen something."""
    model = build_model(name, model_config(name, {**SMALL, **options}), seed).eval()
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.mark.parametrize("data", PAPER)
def test_presets_have_the_papers_settings(data: str) -> None:
    epochs, batch, spectral, steps = PAPER[data]
    names = {name.removeprefix(f"{data}/") for name in list_presets() if name.startswith(f"{data}/")}
    assert names == {*MODELS, *(VARIANTS if data == "fusion-mnist" else ())}
    for name in names:
        config = load_config(None, {}, f"{data}/{name}")
        rates, run = config.optimiser, config.run
        assert config.model.name == (name if name in MODELS else "fusion")
        assert (config.data.name, config.objective.name) == (data, "fusion")
        assert config.objective.options["spectral_weight"] == spectral
        assert (run.epochs, rates.batch, rates.warmup_steps) == (epochs, batch, 5 * steps)
        assert (rates.name, rates.learning_rate, rates.eps, rates.weight_decay) == ("adamax", 0.01, 1e-3, 3e-4)
        assert (rates.schedule, rates.final) == ("cosine", 0.01)
        if name in VARIANTS:
            options = config.model.options
            assert f"{options['aggregation']}-{options['aggregate']}" == name


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [0, 2])
def test_folded_networks_compute_the_same(name: str, count: int) -> None:
    model: Any = lively(name)
    quicker: Any = folded(model)
    generator = torch.Generator().manual_seed(3)
    frames, target = torch.rand(2, count, 1, 32, 32, generator=generator), torch.rand(2, 1, 32, 32, generator=generator)
    with torch.no_grad():
        for way in (lambda net: net.restore(frames), lambda net: net.reconstruct(frames, target, seeded())):
            torch.testing.assert_close(way(quicker).image, way(model).image, atol=2e-5, rtol=1e-4)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in quicker.modules())
    assert left < sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) / 2


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def weights_of(path: Path, name: str, dataset: str = "shapes-fusion", **options: Any) -> Path:
    model = lively(name, **options)
    trained = {
        "dataset": dataset,
        "dataset_options": {"digits": 20, "validation_digits": 30},
        "epochs": 3,
        "minutes": 1,
    }
    state = model.state_dict()
    save_weights(path, name, model.config, state, trained=trained, scores={}, dtype=torch.float32, with_posterior=True)
    return path


def evaluate(*arguments: object) -> Any:
    environment = {"NO_COLOR": "1", "LOWLIGHT_DEVICE": "cpu", "COLUMNS": "200"}
    return CliRunner().invoke(app, ["eval", *map(str, arguments)], env=environment)


def test_eval_prints_and_writes_a_row_for_each_number_of_frames(tmp_path: Path) -> None:
    files = [weights_of(tmp_path / f"{name}.safetensors", name) for name in ("fcn", "fusion")]
    named = [word for file in files for word in ("--weights", file)]
    wanted = ("--samples", 3, "--images", 20, "--split", "val")
    outputs = ("--json", tmp_path / "a.json", "--rows", tmp_path / "a.csv")
    result = evaluate(tmp_path, *named, *wanted, *outputs)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["table"]
    assert [(row["name"], row["frames"]) for row in rows] == [
        (name, frames) for name in ("fcn", "fusion") for frames in (0, 1, 2, 3, "mean")
    ]
    plain, hierarchy = rows[:5], rows[5:]
    assert all(row["nll"] is None and row["samples"] == 1 for row in plain)
    assert all(row["nll"] > 0 and row["samples"] == 3 and row["images"] == 20 for row in hierarchy)
    assert rows[4]["mse_min"] == pytest.approx(sum(row["mse_min"] for row in rows[:4]) / 4)
    assert "published_nll" not in rows[5]  # these are no digits of MNIST
    assert len((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()) == 11
    assert "20 validation images" in result.stdout and "MSE_min" in result.stdout
    assert "fusion, 2 frames: mse_min" in result.stderr


def test_the_whole_measures_are_refused_to_other_networks(tmp_path: Path) -> None:
    model = build_model("digit-vae", config := model_config("digit-vae", {}), 0)
    path = tmp_path / "vae.safetensors"
    save_weights(path, "digit-vae", config, model.state_dict(), trained={}, scores={}, with_posterior=True)
    result = evaluate(tmp_path, "--weights", path, "--samples", 3)
    assert result.exit_code != 0 and isinstance(result.exception, LowlightError | SystemExit)
    said = str(result.exception) + result.output
    assert "about networks that fuse pictures" in said


def test_every_variant_is_called_as_the_paper_calls_it(tmp_path: Path) -> None:
    from lowlight.workflows.evaluating.fusion_tables import method_of
    from lowlight.workflows.evaluating.image_models import load_scored

    expected = {("max", "add"): "fusion", ("max", "all"): "MaxAggAll", ("bayes", "add"): "BayAggAdd"}
    for (how, where), name in expected.items():
        path = weights_of(tmp_path / "w.safetensors", "fusion", aggregation=how, aggregate=where)
        assert method_of(load_scored(path)) == name
        assert published_rows("fusion-celeba", name)
    path = weights_of(tmp_path / "w.safetensors", "fusion", posterior="xy")
    assert published_rows("fusion-celeba", method_of(load_scored(path)))


@pytest.mark.parametrize("agree", [True, False])
def test_far_pixels_are_not_seen_where_tiles_shall_agree(agree: bool) -> None:
    own = {"norm": "channel", "squeeze": False, "flat_start": True} if agree else {}
    sizes: dict[str, Any] = {"base_channels": 4, "channel_cap": 8, "latent": 2, "groups": ((32, 1),)}
    model = FusionVae(FusionRawConfig(**sizes, **own), torch.Generator().manual_seed(1)).eval()
    frames = torch.rand(1, 2, 4, 32, 640, generator=torch.Generator().manual_seed(2))
    moved = frames.clone()
    moved[..., :8] = 1 - moved[..., :8]
    with torch.no_grad():
        one, other = model.restore(frames).image, model.restore(moved).image
    assert torch.equal(one[..., 400:], other[..., 400:]) == agree
    assert not torch.equal(one[..., :8], other[..., :8])


def test_the_options_of_tiles_keep_the_counts_of_the_preset() -> None:
    def count(**options: Any) -> int:
        with torch.device("meta"):
            model = FusionVae(FusionRawConfig(**options), torch.Generator())
        return sum(parameter.numel() for parameter in model.parameters())

    assert count() == count(norm="channel") == 5_221_735
    assert count(flat_start=True) == 5_221_735 - 128 * 63
    assert count(squeeze=False) < 5_221_735 and count(norm="none") < 5_221_735
    assert asdict(FusionRawConfig())["norm"] == "group"
