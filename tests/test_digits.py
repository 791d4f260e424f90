"""The digit networks, their data and their objective."""

import gzip
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from digit_material import COUNTS, drawn_digits, idx_bytes, write_digit_set
from torch.distributions import Independent, Normal, kl_divergence

from lowlight.core.errors import BrokenFileError, ConfigError, DataError
from lowlight.core.restoration import Batch, Share
from lowlight.data.digits import (
    Digits,
    DigitsConfig,
    DigitSource,
    digit_batch,
    invert_at_random,
    open_digits,
    read_digits,
    read_idx,
    stream,
)
from lowlight.data.prepared import read_prepared
from lowlight.data.repair import RepairConfig, open_repair
from lowlight.models import build_model, model_config
from lowlight.models.vae import DigitVae, DigitVaeConfig
from lowlight.objectives import build_objective, require_fit
from lowlight.objectives.beta import BoundConfig, bound
from lowlight.objectives.elbo import half_squared_error
from lowlight.workflows.evaluating.digit_scores import ROWS, published_digits, task_of
from lowlight.workflows.team import Team
from lowlight.workflows.training.config import TrainConfig, load_config, resolve

# All parameters; of the convolutional ones encoder and decoder apart.
PUBLISHED = {"vae-2": 807_700, "vae-5": 812_314, "vae-10": 820_004, "vae-50": 881_524, "vae-cnn": 644_949}


def parameters(module: torch.nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


def preset(name: str) -> TrainConfig:
    return load_config(None, {}, f"mnist/{name}")


def network(name: str) -> "torch.nn.Module":
    config = preset(name).model
    return build_model(config.name, model_config(config.name, config.options), seed=3)


def some_digits(count: int = 40) -> Digits:
    images, labels = drawn_digits(count, 5)
    return Digits("drawn", torch.from_numpy(images).float() / 255, torch.from_numpy(labels).long())


def batch_for(name: str, count: int = 6):
    digits = some_digits(count)
    return digit_batch(digits.images, digits.labels, task_of(ROWS[name][0]), stream(1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_the_size_of_the_thesis(name: str) -> None:
    assert parameters(network(name)) == PUBLISHED[name]


def test_parts_have_the_size_of_the_thesis() -> None:
    cnn = network("vae-cnn")
    assert (parameters(cnn.encoder), parameters(cnn.decoder)) == (323_284, 321_665)
    assert parameters(network("cvae").prior) == 220
    assert parameters(network("ae")) == 807_700 - 2 * (512 + 1)  # no variance head
    assert parameters(network("transfer").decoder) == 377_249
    assert parameters(network("transfer-noskip").decoder) == 321_665


@pytest.mark.parametrize("name", ROWS)
def test_shapes_and_gradients(name: str) -> None:
    model, batch = network(name), batch_for(name)
    latent = model.config.latent
    condition = model.condition(batch.frames, labels=batch.labels)
    assert condition.prior.mean.shape == (6, latent) and not condition.prior.log_variance.any()
    wanted = [(6, 32, 14, 14), (6, 64, 7, 7), (6, 64, 4, 4)] if name == "transfer" else []
    assert [skip.shape for skip in condition.skips] == wanted
    assert model.restore(batch.frames, labels=batch.labels).image.shape == (6, 1, 28, 28)
    objective = preset(name).objective
    require_fit(objective.name, model, name)
    loss = build_objective(objective.name, objective.options)(model, batch, 0.0, stream(2))
    loss.total.backward()
    assert loss.total.isfinite()
    untouched = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not untouched, untouched
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_bound_is_that_of_a_gaussian_and_the_divergence_torchs() -> None:
    model, batch = network("cvae"), batch_for("cvae")
    loss = bound(model, batch, 0.0, stream(2), BoundConfig())
    q, p = model.posterior(batch.target), model.condition(batch.frames, labels=batch.labels).prior
    q_torch, p_torch = (Independent(Normal(g.mean, (0.5 * g.log_variance).exp()), 1) for g in (q, p))
    torch.testing.assert_close(loss.parts["kl"], kl_divergence(q_torch, p_torch).mean())
    z = q.mean + (0.5 * q.log_variance).exp() * torch.randn(q.mean.shape, generator=stream(2))
    image = model.decode(z, model.condition(batch.frames, labels=batch.labels))
    logs = Independent(Normal(image, 1.0), 3).log_prob(batch.target)
    expected = -(logs + 784 / 2 * np.log(2 * np.pi)).mean()
    torch.testing.assert_close(loss.parts["reconstruction"], expected)
    torch.testing.assert_close(loss.total, loss.parts["reconstruction"] + loss.parts["kl"])


def test_presets_are_the_rows_of_the_thesis() -> None:
    presets = Path(__file__).resolve().parents[1] / "examples" / "presets" / "mnist"
    assert {path.stem for path in presets.glob("*.toml")} == set(ROWS)
    for name, (config, _) in ROWS.items():
        run = preset(name)
        assert model_config(run.model.name, run.model.options) == replace(config, output="sigmoid"), name
        transfer = name.startswith("transfer")
        beta = 0.0 if name == "ae" else 1.0
        assert run.objective.options == {"likelihood": "laplace" if transfer else "gaussian", "beta": beta}
        assert run.data.options == {"task": task_of(config)} and (task_of(config) == "transfer") == transfer
        rates = run.optimiser
        assert (rates.name, rates.learning_rate, rates.eps, rates.weight_decay) == ("adam", 1e-3, 1e-8, 0)
        assert (rates.batch, rates.schedule, rates.ema, rates.clip_norm, run.run.epochs) == (
            1000,
            "constant",
            0,
            0,
            200,
        )


def test_errors_have_no_half_too_many() -> None:
    ones = torch.ones(2, 1, 28, 28)
    assert half_squared_error(3 * ones, ones) == 784 * 2


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ({"prior": "image", "body": "cnn"}, {}, "set data.options.task to 'transfer'"),
        ({}, {"task": "transfer"}, "set data.options.task to 'reconstruction'"),
        ({}, {"limit": 0}, "limit is 0"),
    ],
)
def test_tasks_that_a_network_cannot_do_are_refused(
    tmp_path: Path, model: dict[str, object], options: dict[str, object], said: str
) -> None:
    write_digit_set(tmp_path)
    with pytest.raises(ConfigError, match=said):
        options = DigitsConfig(**options)
        open_digits(tmp_path, model_config("digit-vae", model).traits(), options, 10, 0, torch.device("cpu"))


def test_a_network_for_repair_and_one_for_digits_are_told_apart(tmp_path: Path) -> None:
    write_digit_set(tmp_path)
    here = torch.device("cpu")
    with pytest.raises(ConfigError, match="dataset repair"):
        open_digits(
            tmp_path,
            build_model("repair-net", model_config("repair-net")).traits,
            DigitsConfig(task="transfer"),
            10,
            0,
            here,
        )
    with pytest.raises(ConfigError, match="repair-net"):
        open_repair(tmp_path, model_config("digit-vae", {"prior": "image"}).traits(), RepairConfig(), 10, 0, here)


def test_digits_are_known_by_what_they_show(tmp_path: Path) -> None:
    write_digit_set(tmp_path)
    digits = read_digits(tmp_path, "train")
    assert digits.sha256 == digits.to(torch.device("cpu")).sha256 != digits.first(len(digits) - 1).sha256


def test_networks_of_photos_cannot_learn_digits(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="dataset 'digits' cannot train model 'sid-net'; for this model there are syn"
    ):
        resolve({"data": {"name": "digits"}, "run": {"steps": 1}})
    with pytest.raises(ConfigError, match="choose another dataset or model digit-vae"):
        traits = model_config("sid-net").traits()
        open_digits(tmp_path, traits, DigitsConfig(), 10, 0, torch.device("cpu"))


def test_shares_of_a_batch_add_up_to_the_whole() -> None:
    model, batch = network("vae-10"), batch_for("vae-10")
    whole = bound(model, batch, 0.0, stream(2), BoundConfig()).total
    total = torch.zeros(())
    for rows in (slice(0, 4), slice(4, 6)):
        part = Batch(batch.frames[rows], batch.target[rows], batch.ratio[rows], share=Share(rows.start, 6))
        total = total + bound(model, part, 0.0, stream(2), BoundConfig()).total * len(part.target) / 6
    torch.testing.assert_close(total, whole)


def test_labels_travel_with_their_batch() -> None:
    batch = batch_for("cvae")
    moved = replace(batch, labels=batch.labels).to(torch.device("meta"))
    assert moved.labels is not None and moved.labels.device.type == "meta"
    part = Team(1, 2).share_of(batch)
    assert part.labels is not None and torch.equal(part.labels, batch.labels[3:])


def test_an_autoencoder_draws_nothing() -> None:
    model, batch = network("ae"), batch_for("ae")
    first, second = (bound(model, batch, 0.0, stream(seed), BoundConfig(beta=0)).total for seed in (1, 2))
    assert first == second
    image = model.decode(model.posterior(batch.target).mean, model.condition(batch.frames))
    assert first == half_squared_error(image, batch.target)


def test_the_label_prior_knows_the_label_and_needs_it() -> None:
    model, batch = network("cvae"), batch_for("cvae")
    means = model.condition(batch.frames, labels=batch.labels).prior.mean
    same = batch.labels[:, None] == batch.labels[None]
    torch.testing.assert_close(torch.cdist(means, means) < 1e-5, same)
    with pytest.raises(ConfigError, match="labels"):
        model.condition(batch.frames)


@pytest.mark.parametrize("options", [{"latent": 0}, {"skips": True}, {"lattent": 3}])
def test_impossible_networks_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        model_config("digit-vae", options)


def test_inversion_keeps_only_the_distance_from_gray() -> None:
    images = torch.rand(300, 28, 28, generator=stream(4))
    inverted = invert_at_random(images, stream(5))
    torch.testing.assert_close((inverted - 0.5).abs(), (images - 0.5).abs())
    changed = (inverted - (1 - images)).abs() < 1e-7
    kept = inverted == images
    assert (changed | kept).all()
    assert abs(changed.float().mean().item() - 0.5) < 0.005  # 235 200 fair coins: five deviations
    # Independent per pixel: neighbours agree as often as not.
    assert abs((changed[:, :, 1:] == changed[:, :, :-1]).float().mean().item() - 0.5) < 0.005
    correlation = torch.corrcoef(torch.stack((inverted.flatten(), images.flatten())))[0, 1]
    assert abs(correlation) < 0.02


def test_corruption_is_drawn_anew_at_each_load_and_depends_on_seed_and_step_alone() -> None:
    digits = some_digits()
    source, again, other = (DigitSource(digits, "transfer", 8, seed) for seed in (1, 1, 2))
    steps = source.steps_per_epoch
    assert steps == 5
    first = [source.batch(step) for step in range(2 * steps)]
    for step in reversed(range(2 * steps)):  # in another order
        same = again.batch(step)
        assert torch.equal(same.frames, first[step].frames) and torch.equal(same.target, first[step].target)
    assert not torch.equal(other.batch(0).target, first[0].target)
    # An epoch shows every image once; the next epoch shows them inverted elsewhere.
    epochs = [torch.cat([b.target for b in first[i : i + steps]]).flatten(1) for i in (0, steps)]
    assert not torch.equal(*epochs)
    assert torch.equal(*(epoch.sum(1).sort().values for epoch in epochs))
    alone = DigitSource(digits.first(8), "transfer", 8, 1)
    shown = [alone.batch(step) for step in (0, 1)]
    by_image = [batch.frames[batch.target.flatten(1).sum(1).argsort()] for batch in shown]
    assert (by_image[0] != by_image[1]).float().mean() > 0.3


def test_batches_carry_labels_and_frames_only_where_something_is_restored() -> None:
    batch = DigitSource(some_digits(), "reconstruction", 8, 0).batch(0)
    assert batch.frames.shape == (8, 0, 1, 28, 28) and batch.ratio.shape == (8, 0)
    assert batch.target.shape == (8, 1, 28, 28) and batch.labels is not None and batch.labels.shape == (8,)
    assert DigitSource(some_digits(), "transfer", 8, 0).batch(0).frames.shape == (8, 1, 1, 28, 28)
    with pytest.raises(DataError, match="a batch of 50 cannot be made from 40"):
        DigitSource(some_digits(), "transfer", 50, 0)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read(tmp_path: Path, packed: bool) -> None:
    write_digit_set(tmp_path, packed=packed)
    digits = read_digits(tmp_path, "train")
    images, labels = drawn_digits(COUNTS["train"], 0)
    assert np.array_equal((digits.images * 255).round().numpy(), images) and digits.images.max() <= 1
    assert digits.labels.tolist() == labels.tolist()
    assert len(read_digits(tmp_path, "validation")) == COUNTS["t10k"]


def test_npz_files_are_read(tmp_path: Path) -> None:
    images, labels = drawn_digits(20, 1)
    np.savez(tmp_path / "kmnist-test-imgs.npz", images)
    np.savez(tmp_path / "kmnist-test-labels.npz", labels)
    digits = read_digits(tmp_path, "validation")
    assert digits.labels.tolist() == labels.tolist() and digits.images.shape == (20, 28, 28)
    with pytest.raises(DataError, match="has no train images"):
        read_digits(tmp_path, "train")
    np.savez(tmp_path / "kmnist-test-labels.npz", other=labels)
    with pytest.raises(BrokenFileError, match="arr_0"):
        read_digits(tmp_path, "validation")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"\x93NUMPY\x01\x00\x10\x00{'descr': (oops", b"text"])
def test_broken_npz_files_are_sentences(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kmnist-test-imgs.npz").write_bytes(content)
    (tmp_path / "kmnist-test-labels.npz").write_bytes(content)
    with pytest.raises(BrokenFileError, match=r"cannot be read as numpy arrays .*; fetch it again"):
        read_digits(tmp_path, "validation")
    with pytest.raises(BrokenFileError, match=r"cannot be read as numpy arrays .*; prepare faces again"):
        read_prepared(tmp_path / "kmnist-test-imgs.npz", {"training": 4}, "faces")


GOOD = idx_bytes(np.zeros((3, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no idx file"),
        (b"\x89PNG" + GOOD, "no idx file: it begins with 89504e47"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "type 0x0d; expected 0x08"),
        (GOOD[:9], "ends within its header"),
        (GOOD[:-1], "holds 2351 values but its header promises 2352"),
        (GOOD + b"\0", "holds 2353 values"),
    ],
)
def test_broken_idx_files_are_sentences(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(BrokenFileError, match=said):
        read_idx(path)


def test_a_cut_archive_and_wrong_partners_are_sentences(tmp_path: Path) -> None:
    write_digit_set(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenFileError, match="fetch it again"):
        read_digits(tmp_path, "train")
    images.write_bytes(whole)
    labels.write_bytes(gzip.compress(idx_bytes(np.zeros(7, np.uint8))))
    with pytest.raises(DataError, match="7 labels for 300 images"):
        read_digits(tmp_path, "train")
    labels.write_bytes(gzip.compress(idx_bytes(np.full(300, 10, np.uint8))))
    with pytest.raises(DataError, match="class 10"):
        read_digits(tmp_path, "train")
    labels.unlink()
    with pytest.raises(DataError, match="put the labels beside them"):
        read_digits(tmp_path, "train")
    with pytest.raises(DataError, match="there is no folder"):
        read_digits(tmp_path / "nowhere", "train")


@pytest.mark.shared
def test_real_mnist_is_the_published_one(shared_data: Path) -> None:
    folder = shared_data / "mnist"
    content = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    train, validation = read_digits(folder, "train"), read_digits(folder, "validation")
    assert (len(train), len(validation)) == (60_000, 10_000)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(train.images.mean().item() - 0.1307) < 1e-4
    assert len(read_digits(shared_data / "kmnist", "validation")) == 10_000


def test_tables_of_networks_are_told_in_the_examples() -> None:
    text = (Path(__file__).resolve().parents[1] / "examples" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^lowlight train --preset mnist/(\S+)", text, re.MULTILINE)) == set(ROWS)


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_published_numbers_are_found_whatever_the_output(output: Literal["linear", "sigmoid"]) -> None:
    model = DigitVae(DigitVaeConfig(latent=5, output=output), stream(0))
    published = published_digits(model)
    assert published is not None and (published["row"], published["validation"]) == ("vae-5", 25.63)
    assert published_digits(DigitVae(DigitVaeConfig(latent=6, output=output), stream(0))) is None
