"""Repairing damaged digits: the damage, the splits, the network, its scores and the sweep over beta."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_material import COUNTS, drawn_digits, write_digit_set
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from typer.testing import CliRunner, Result

from lowlight.checkpoint import save_weights
from lowlight.cli import app
from lowlight.core.config import from_dict, read_toml
from lowlight.core.errors import ConfigError, DataError
from lowlight.core.restoration import Batch, ModelTraits, RestorationModel
from lowlight.data.digits import Digits
from lowlight.data.repair import (
    SMALL_DIGITS,
    RepairConfig,
    RepairSource,
    RepairSplits,
    black_boxes,
    damage,
    fixed_batches,
    fixed_damage,
    open_repair,
    read_small_digits,
    split_digits,
)
from lowlight.metrics import METRICS
from lowlight.models.repair import RepairNet, RepairNetConfig
from lowlight.objectives.beta import BetaConfig, beta
from lowlight.objectives.fisher import FisherConfig, fisher
from lowlight.report.tables import DASH, finite
from lowlight.workflows.evaluating.repair_figures import repair_grid, validation_curves
from lowlight.workflows.evaluating.repair_scores import (
    IDENTITY,
    about_repairs,
    open_repairs,
    repair_table,
    repair_tables,
    score_repair,
    score_repairs,
)

PRESETS = Path(__file__).resolve().parents[1] / "examples" / "presets" / "kmnist"
NOISE = RepairConfig(sigma=0.25)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_digits(count: int = 20) -> Digits:
    images, labels = drawn_digits(count, 5)
    return Digits("drawn", torch.from_numpy(images).float() / 255, torch.from_numpy(labels).long())


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5])
def test_noise_has_its_deviation_and_is_not_clipped(sigma: float) -> None:
    clean = torch.rand(100, 1, 28, 28, generator=generator())
    found = damage(clean, RepairConfig(sigma=sigma), generator(1))
    noise = found.images - clean
    assert abs(float(noise.std()) / sigma - 1) < 0.02 and abs(float(noise.mean())) < 0.01 * sigma
    assert found.images.min() < 0 and found.images.max() > 1 and not found.boxes.any()
    variance = damage(clean, RepairConfig(sigma=sigma**2, noise_is_variance=True), generator(1))
    assert torch.allclose(variance.images, found.images, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    area=st.tuples(st.floats(0.02, 0.33), st.floats(0.02, 0.33)).map(sorted).map(tuple),
    size=st.tuples(st.integers(12, 40), st.integers(12, 40)),
    seed=st.integers(0, 99),
)
def test_boxes_are_one_rectangle_each_with_the_area_asked_for(
    area: tuple[float, float], size: tuple[int, int], seed: int
) -> None:
    config = RepairConfig(damage="box", box_area=area)
    boxes = black_boxes(30, size, config, generator(seed))
    pixels = size[0] * size[1]
    for box in boxes[:, 0]:
        rows, cols = box.any(1), box.any(0)
        height, width = int(rows.sum()), int(cols.sum())
        assert int(box.sum()) == height * width > 0
        for line in (rows, cols):
            where = line.nonzero()
            assert int(where[-1] - where[0]) + 1 == len(where)
        slack = max(height, width)
        assert area[0] * pixels - slack <= height * width <= area[1] * pixels + slack


def test_boxes_reach_every_place_and_have_many_shapes() -> None:
    boxes = black_boxes(2000, (28, 28), RepairConfig(damage="box"), generator())
    assert boxes.any(0).all()
    share = boxes.float().mean((1, 2, 3))
    assert abs(float(share.mean()) - 0.1) < 0.003
    tall = boxes.any(3).sum((1, 2)).double() / boxes.any(2).sum((1, 2)).double()
    assert 0.25 < float(tall.min()) < 0.4 and 2.8 < float(tall.max()) < 3.8
    assert abs(float(tall.log().mean())) < 0.05  # even in its logarithm


def test_boxes_are_black_and_leave_the_rest_alone() -> None:
    clean = torch.rand(5, 1, 28, 28, generator=generator()) + 0.1
    found = damage(clean, RepairConfig(damage="box"), generator(1))
    assert found.boxes.flatten(1).any(1).all()
    assert torch.equal(found.images, torch.where(found.boxes, torch.zeros(()), clean))
    both = damage(clean, RepairConfig(damage="noise+box"), generator(1))
    assert not both.images[both.boxes].any() and not torch.equal(both.images, found.images)


@pytest.mark.parametrize("kind", ["noise", "box"])
def test_fixed_damage_depends_on_seed_and_index_alone(kind: str) -> None:
    config = RepairConfig(damage=kind)  # type: ignore[arg-type]
    clean = torch.rand(6, 1, 28, 28, generator=generator())
    whole = fixed_damage(clean, config, 3).images
    assert torch.equal(whole[2:5], fixed_damage(clean[2:5], config, 3, first=2).images)
    assert not torch.equal(whole, fixed_damage(clean, config, 4).images)
    assert not torch.equal(whole[0] - clean[0], whole[1] - clean[1])


def splits_of(count: int = 40) -> RepairSplits:
    digits = some_digits(count)
    return RepairSplits(digits, digits.first(8), digits.first(6), "drawn")


def test_training_damage_is_new_each_epoch_and_the_same_each_run() -> None:
    source, again = (RepairSource(splits_of(), NOISE, 10, seed=7) for _ in range(2))
    first, other = source.batch(0), source.batch(4)
    assert source.steps_per_epoch == 4 and first.frames.shape == (10, 1, 1, 28, 28)
    assert torch.equal(first.frames, again.batch(0).frames)
    noise = first.frames[:, 0] - first.target
    assert abs(float(noise.std()) - 0.25) < 0.01
    assert not torch.equal(noise, other.frames[:, 0] - other.target)
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(source.validation(), again.validation(), strict=True))
    blind = RepairSource(splits_of(), RepairConfig(target="damaged"), 10, seed=7).batch(0)
    assert torch.equal(blind.target, blind.frames[:, 0])


def test_a_whole_set_keeps_its_test_images_and_a_test_set_alone_is_split(tmp_path: Path) -> None:
    folder = write_digit_set(tmp_path / "set")
    splits = split_digits(folder)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (240, 60, COUNTS["t10k"])
    (folder / "train-images-idx3-ubyte.gz").unlink()
    alone = split_digits(folder)
    assert (len(alone.train), len(alone.validation), len(alone.test)) == (48, 6, 6)
    assert "training images are not there, split 48 / 6 / 6" in alone.told
    parts = [digits.images.flatten(1) for digits in alone[:3]]  # type: ignore[union-attr]
    assert len(torch.cat(parts).unique(dim=0)) == 60
    assert torch.equal(split_digits(folder).train.images, alone.train.images)
    assert not torch.equal(split_digits(folder, seed=1).train.images, alone.train.images)
    traits = RepairNet(RepairNetConfig(), generator()).traits
    told = open_repair(folder, traits, NOISE, 8, 0, torch.device("cpu")).describe()
    assert told["split"] == alone.told and told["damage"] == "noise 0.25" and told["images"] == 48
    (folder / "train-images-idx3-ubyte").write_bytes(b"broken")
    with pytest.raises(Exception, match="no idx file"):
        split_digits(folder)


def test_networks_and_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use repair-net"):
        open_repair(tmp_path, ModelTraits(), NOISE, 8, 0, torch.device("cpu"))
    with pytest.raises(DataError, match="there is no folder"):
        split_digits(tmp_path / "nowhere")
    for wrong in ({"sigma": -1.0}, {"box_area": (0.3, 0.1)}, {"box_aspect": (0.0, 1.0)}, {"limit": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is"):
            RepairConfig(**wrong)  # type: ignore[arg-type]


def test_the_network_has_the_published_size_and_repairs_what_it_reads() -> None:
    net = RepairNet(RepairNetConfig(), generator())
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_082_680
    assert isinstance(net, RestorationModel)
    frames = torch.rand(3, 1, 1, 28, 28, generator=generator(1))
    made = net.restore(frames)
    q = net.posterior(frames[:, 0])
    assert torch.equal(made.image, net.decode(q.mean, net.condition(frames))) and made.image.shape == (3, 1, 28, 28)
    assert made.image.detach().aminmax().min >= 0 and made.image.detach().aminmax().max <= 1
    noise = torch.randn(3, 20, generator=generator(2))
    drawn = net.restore(frames, noise=(noise,))
    assert torch.allclose(drawn.latents[0].sample, q.mean + (0.5 * q.log_variance).exp() * noise)
    same = RepairNet(RepairNetConfig(), generator())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), same.parameters(), strict=True))
    learned = RepairNet(RepairNetConfig(prior="expfam"), generator())
    assert learned.draw_prior(4, generator(), steps=3).shape == net.draw_prior(4, generator()).shape == (4, 20)


class Halving(torch.nn.Module):
    """A network whose repair is known: half of the damaged picture."""

    def restore(self, frames: torch.Tensor) -> object:
        return type("Made", (), {"image": frames[:, 0] / 2})


def test_scores_are_those_of_single_pictures() -> None:
    digits = some_digits(5)
    identity, halved = score_repairs({"half": Halving()}, digits, NOISE, seed=3)  # type: ignore[dict-item]
    clean = digits.images[:, None]
    damaged = fixed_damage(clean, NOISE, 3).images
    for row, made in ((identity, damaged.clamp(0, 1)), (halved, (damaged / 2).clamp(0, 1))):
        assert row["mse"] == pytest.approx(float(F.mse_loss(made, clean)), rel=1e-5)
        for name in ("psnr", "ssim"):
            each = [METRICS[name](a, b) for a, b in zip(made, clean, strict=True)]
            assert row[name] == pytest.approx(np.mean(each), rel=1e-6), name
        assert "box_mse" not in row
    assert (identity["model"], halved["model"], halved["images"]) == (IDENTITY, "half", 5)
    boxed = score_repairs({}, digits, RepairConfig(damage="box"))
    found = fixed_damage(clean, RepairConfig(damage="box"), 0)
    assert boxed[0]["box_mse"] == pytest.approx(float(clean[found.boxes].square().mean()), rel=1e-5)
    table = repair_table([*boxed, halved], "drawn")
    assert table.rows[0][:2] == ("black box", IDENTITY) and table.rows[1][-1] == "-" and "drawn" in table.note


def test_grids_and_curves_show_everything() -> None:
    digits = some_digits(5)
    grid = repair_grid({"half": Halving()}, digits, RepairConfig(damage="box"))  # type: ignore[dict-item]
    assert grid.shape == (3 * 86 - 2, 5 * 86 - 2, 1)
    clean = (digits.images[1].numpy() * 65535).round()
    assert np.abs(grid[0:84:3, 86:170:3, 0] - clean).max() <= 1
    svg = validation_curves({"vae": [(1, 2.0), (2, 1.0)], "a < b": [(1, 3.0)]}, "loss")
    assert svg.count("<path") == 2 and "a &lt; b" in svg and svg.startswith("<svg xmlns")


def test_all_networks_get_the_same_diagnostics(tmp_path: Path) -> None:
    opened = open_repairs(write_digit_set(tmp_path), NOISE, "validation")
    assert len(opened) == 60
    scores = score_repair(RepairNet(RepairNetConfig(latent=4), generator()), opened, torch.device("cpu"), 0)
    measures = {"mse", "psnr", "ssim", "identity_mse", "identity_psnr", "identity_ssim"}
    assert measures | {"fisher", "D", "E", "kl", "neg_elbo", "fisher_loss"} == set(scores)
    assert scores["fisher_loss"] == pytest.approx((scores["fisher"] + scores["D"] + scores["E"]) / 2, rel=1e-5)
    row = {"name": "net", "data": "d", "images": {"validation": 60}, "about": about_repairs(opened)}
    broken = finite({**row, "validation": {**scores, "mse": math.nan, "kl": math.inf}})
    shown = [cells for table in repair_tables([broken]) for cells in table.rows]
    assert shown[1][2] == DASH and shown[-1].count(DASH) == 1
    flat = score_repair(RepairNet(RepairNetConfig(variance=False), generator()), opened, torch.device("cpu"), 0)
    assert set(flat) == measures
    assert scores["identity_mse"] == flat["identity_mse"] > 0


def repairing_run(folder: Path, seed: int, **damaged: object) -> Path:
    """The folder of a run that never happened: untrained weights and a log of two validations."""
    folder.mkdir()
    config = RepairNetConfig(latent=4)
    state = RepairNet(config, generator(seed)).state_dict()
    trained = {"dataset": "repair", "dataset_options": damaged}
    save_weights(
        folder / "best.safetensors", "repair-net", config, state, trained=trained, scores={}, with_posterior=True
    )
    rows = [{"step": step, "validation": {"mse": 1 / step, "neg_elbo": 200.0}} for step in (1, 2)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_eval_reports_the_test_digits_for_every_damage(tmp_path: Path) -> None:
    """Where the training images are missing the test images are split, and the table says so."""
    digits = write_digit_set(tmp_path / "digits")
    (digits / "train-images-idx3-ubyte.gz").unlink()
    runs = [repairing_run(tmp_path / name, seed, sigma=0.5) for seed, name in enumerate(("one", "two"))]
    runs.append(repairing_run(tmp_path / "boxes", 0, damage="box"))

    def evaluate(*more: object) -> Result:
        words = ["eval", digits, *(word for run in runs for word in ("--weights", run)), "--device", "cpu", *more]
        return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})

    done = evaluate("--json", tmp_path / "rows.json", "--figures", tmp_path / "figures")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "rows.json").read_text())["table"]
    splits = split_digits(digits)
    assert [row["images"] for row in rows] == [{"test": 6, "validation": 6}] * 3
    assert [row["about"]["damage"] for row in rows] == ["noise 0.5", "noise 0.5", "black box"]
    for row, seed in zip(rows, (0, 1, 0), strict=True):
        config = from_dict(RepairConfig, row["trained"]["dataset_options"], "test")
        net = RepairNet(RepairNetConfig(latent=4), generator(seed))
        for name in ("test", "validation"):
            known = score_repairs({"net": net.half().float()}, getattr(splits, name), config)
            assert row[name]["mse"] == pytest.approx(known[1]["mse"], rel=1e-5)
            assert row[name]["identity_psnr"] == pytest.approx(known[0]["psnr"], rel=1e-5)
    told = " ".join(done.output.split())
    assert "6 images; test digits of digits: the published test images, as the training images are not there" in told
    assert "split 48 / 6 / 6" in told and f"{rows[2]['test']['box_mse']:.5f}" in told
    assert told.index("noise 0.5 damaged, clipped") < told.index("noise 0.5 two") < told.index("black box boxes")
    kinds = ("grid.png", "mse.svg", "neg_elbo.svg")
    drawn = sorted(f"{damage}-{kind}" for damage in ("noise-0.5", "black-box") for kind in kinds)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == drawn
    curves = (tmp_path / "figures" / "noise-0.5-mse.svg").read_text()
    assert curves.count("<path") == 2 and ">two<" in curves
    only = evaluate("--split", "val", "--json", "-")
    assert "test" not in json.loads(only.stdout)["table"][0] and only.exit_code == 0


@pytest.mark.parametrize("name", ["ae", "vae", "beta-vae", "fisher", "fisher-detached"])
def test_presets_say_what_the_objectives_understand(name: str) -> None:
    values = read_toml(PRESETS / f"{name}.toml")
    model = from_dict(RepairNetConfig, values["model"]["options"], name)
    config = {"beta": BetaConfig, "fisher": FisherConfig}[values["objective"]["name"]]
    objective = from_dict(config, values["objective"]["options"], name)
    assert model.latent == 20 and model.variance == (name != "ae")
    assert from_dict(RepairConfig, values["data"]["options"], name) == NOISE
    if name.startswith("fisher"):
        assert (objective.c_likelihood, objective.warmup) == ("bernoulli", 0.0)
        assert objective.detach_c == (name == "fisher-detached")
    else:
        assert objective.beta == {"ae": 0.0, "vae": 1.0, "beta-vae": 4.0}[name]


def test_the_sweep_trains_scores_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lowlight.workflows.evaluating.scorers import SCORERS, Scorer
    from lowlight.workflows.training.beta_sweep import BETAS, sweep_betas, sweep_table
    from lowlight.workflows.training.config import resolve

    scorer = Scorer(open_repairs, score_repair, ("mse",), highest=False, title="Repaired digits")
    monkeypatch.setitem(SCORERS, "repair", scorer)
    assert BETAS[0] == 2 and BETAS[-1] == 6 and len(BETAS) == 17
    values = read_toml(PRESETS / "beta-vae.toml")
    values["data"]["path"] = str(write_digit_set(tmp_path / "digits"))
    values["run"] = {"steps": 2, "device": "cpu"}
    rows = sweep_betas(resolve(values), tmp_path / "sweep", betas=(2.0, 6.0))
    assert [row["beta"] for row in rows] == [2.0, 6.0]
    assert rows[0]["loss"] == pytest.approx(rows[0]["neg_elbo"] + rows[0]["kl"], rel=1e-5)
    assert sweep_betas(resolve(values), tmp_path / "sweep", betas=(2.0, 6.0)) == rows
    table = sweep_table(rows)
    assert table.rows[1][0] == "6.00" and re.search(r"neg_elbo at \d", table.note)
    values["objective"]["name"] = "fisher"
    values["objective"]["options"] = {}
    with pytest.raises(ConfigError, match="needs objective beta"):
        sweep_betas(resolve(values), tmp_path / "other")


OBJECTIVES_OF = {
    "vae": (beta, BetaConfig(beta=1.0)),
    "beta-vae": (beta, BetaConfig()),
    "fisher": (fisher, FisherConfig(c_likelihood="bernoulli", detach_c=False, warmup=0.0)),
}


def trained(name: str, splits: RepairSplits, config: RepairConfig, steps: int, batch: int = 64) -> RepairNet:
    function, options = OBJECTIVES_OF[name]
    source = RepairSource(splits, config, batch, seed=0)
    net = RepairNet(RepairNetConfig(), generator())
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(steps):
        items: Batch = source.batch(step)
        function(net, items, step / steps, generator(step), options).total.backward()  # type: ignore[operator]
        optimiser.step()
        optimiser.zero_grad()
    return net.eval()


@pytest.mark.parametrize(
    ("name", "sigma", "steps"),
    [
        ("vae", 0.25, 40),
        ("fisher", 0.25, 40),
        pytest.param("beta-vae", 0.25, 400, marks=pytest.mark.slow),  # it begins with the mean of all digits
        ("vae", 0.5, 40),
        ("fisher", 0.5, 40),
        ("beta-vae", 0.5, 40),
    ],
)
def test_a_short_run_repairs_better_than_leaving_the_noise(name: str, sigma: float, steps: int) -> None:
    """On drawn digits, so that it runs everywhere; the next test has real ones."""
    digits = some_digits(320)
    splits = RepairSplits(digits, digits.first(8), Digits("drawn", digits.images[-64:], digits.labels[-64:]), "")
    config = RepairConfig(sigma=sigma)
    net = trained(name, RepairSplits(digits.first(256), splits.validation, splits.test, ""), config, steps, 16)
    row = score_repairs({name: net}, splits.test, config)[1]
    clean = splits.test.images[:, None]
    identity = float(F.mse_loss(fixed_damage(clean, config, 0).images, clean))
    assert row["mse"] < identity, (row, identity)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.25, 0.5])
@pytest.mark.parametrize("name", list(OBJECTIVES_OF))
def test_a_short_run_on_small_real_digits(name: str, sigma: float) -> None:
    pytest.importorskip("sklearn")
    config, splits = RepairConfig(sigma=sigma), split_digits(SMALL_DIGITS)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1438, 180, 179)
    row = score_repairs({name: trained(name, splits, config, 300)}, splits.test, config)[1]
    clean = splits.test.images[:, None]
    assert row["mse"] < float(F.mse_loss(fixed_damage(clean, config, 0).images, clean)), row


def test_small_digits_are_enlarged_or_their_absence_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    small = np.stack((np.zeros((8, 8)), np.full((8, 8), 16.0)))
    bundle = type("Bundle", (), {"images": small, "target": np.array([3, 4])})
    module = type("Module", (), {"load_digits": staticmethod(lambda: bundle)})
    monkeypatch.setitem(sys.modules, "sklearn.datasets", module)  # type: ignore[arg-type]
    digits = read_small_digits()
    assert digits.images.shape == (2, 28, 28) and digits.labels.tolist() == [3, 4]
    assert not digits.images[0].any() and torch.allclose(digits.images[1], torch.ones(28, 28))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        read_small_digits()


@pytest.mark.shared
def test_the_real_test_images_are_split_8000_1000_1000(shared_data: Path) -> None:
    splits = split_digits(shared_data / "kmnist")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (8000, 1000, 1000)
    assert "the training images are not there, split 8000 / 1000 / 1000" in splits.told
    assert len(fixed_batches(splits.test.first(30), RepairConfig(damage="box"), 10)) == 3
