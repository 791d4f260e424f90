"""The digit networks, their data and their objective."""

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_material import COUNTS, drawn_digits, idx_bytes, write_digit_set
from torch.distributions import Independent, Normal, kl_divergence

from lowlight.core.errors import BrokenFileError, ConfigError, DataError
from lowlight.data.digits import Digits, DigitSource, digit_batch, invert_at_random, read_digits, read_idx, stream
from lowlight.models.digits import DIGIT_MODELS, build_digit_model, digit_config
from lowlight.objectives.digits import BoundConfig, bound, half_squared_error
from lowlight.workflows.digits.config import objective_of, task_of

# All parameters; of the convolutional ones encoder and decoder apart.
PUBLISHED = {"vae-2": 807_700, "vae-5": 812_314, "vae-10": 820_004, "vae-50": 881_524, "vae-cnn": 644_949}


def parameters(module: torch.nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


def network(name: str, **options: object) -> "torch.nn.Module":
    return build_digit_model(digit_config(name, options), seed=3)


def some_digits(count: int = 40) -> Digits:
    images, labels = drawn_digits(count, 5)
    return Digits("drawn", torch.from_numpy(images).float() / 255, torch.from_numpy(labels).long())


def batch_for(name: str, count: int = 6):
    digits = some_digits(count)
    return digit_batch(digits.images, digits.labels, task_of(digit_config(name)), stream(1))


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


@pytest.mark.parametrize("name", DIGIT_MODELS)
def test_shapes_and_gradients(name: str) -> None:
    model, batch = network(name), batch_for(name)
    latent = model.config.latent
    condition = model.condition(batch.frames, batch.labels)
    assert condition.prior.mean.shape == (6, latent) and not condition.prior.log_variance.any()
    wanted = [(6, 32, 14, 14), (6, 64, 7, 7), (6, 64, 4, 4)] if name == "transfer" else []
    assert [skip.shape for skip in condition.skips] == wanted
    assert model.restore(batch.frames, batch.labels).image.shape == (6, 1, 28, 28)
    loss = bound(model, batch, 0.0, stream(2), objective_of(model.config, 1.0))
    loss.total.backward()
    assert loss.total.isfinite()
    untouched = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not untouched, untouched
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_bound_is_that_of_a_gaussian_and_the_divergence_torchs() -> None:
    model, batch = network("cvae"), batch_for("cvae")
    loss = bound(model, batch, 0.0, stream(2), BoundConfig())
    q, p = model.posterior(batch.target), model.condition(batch.frames, batch.labels).prior
    q_torch, p_torch = (Independent(Normal(g.mean, (0.5 * g.log_variance).exp()), 1) for g in (q, p))
    torch.testing.assert_close(loss.parts["kl"], kl_divergence(q_torch, p_torch).mean())
    z = q.mean + (0.5 * q.log_variance).exp() * torch.randn(q.mean.shape, generator=stream(2))
    image = model.decode(z, model.condition(batch.frames, batch.labels))
    logs = Independent(Normal(image, 1.0), 3).log_prob(batch.target)
    expected = -(logs + 784 / 2 * np.log(2 * np.pi)).mean()
    torch.testing.assert_close(loss.parts["reconstruction"], expected)
    torch.testing.assert_close(loss.total, loss.parts["reconstruction"] + loss.parts["kl"])


def test_objectives_fit_their_networks() -> None:
    assert objective_of(digit_config("ae"), 1.0) == BoundConfig(likelihood="gaussian", beta=0)
    assert objective_of(digit_config("vae-2"), 1.0) == BoundConfig(likelihood="gaussian", beta=1)
    assert objective_of(digit_config("transfer"), 1.0) == BoundConfig(likelihood="laplace", beta=1)
    ones = torch.ones(2, 1, 28, 28)
    assert half_squared_error(3 * ones, ones) == 784 * 2


def test_an_autoencoder_draws_nothing() -> None:
    model, batch = network("ae"), batch_for("ae")
    first, second = (bound(model, batch, 0.0, stream(seed), BoundConfig(beta=0)).total for seed in (1, 2))
    assert first == second
    image = model.decode(model.posterior(batch.target).mean, model.condition(batch.frames))
    assert first == half_squared_error(image, batch.target)


def test_the_label_prior_knows_the_label_and_needs_it() -> None:
    model, batch = network("cvae"), batch_for("cvae")
    means = model.condition(batch.frames, batch.labels).prior.mean
    same = batch.labels[:, None] == batch.labels[None]
    torch.testing.assert_close(torch.cdist(means, means) < 1e-5, same)
    with pytest.raises(ConfigError, match="labels"):
        model.condition(batch.frames)


@pytest.mark.parametrize(
    ("name", "options"),
    [("vae-10", {"latent": 0}), ("vae-10", {"skips": True}), ("vae-10", {"lattent": 3}), ("vae-3", {})],
)
def test_impossible_networks_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        digit_config(name, options)


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
    assert set(re.findall(r"^lowlight digits train (\S+)", text, re.MULTILINE)) == set(DIGIT_MODELS)
