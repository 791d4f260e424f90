"""Scores of digit networks, beside the thesis' Table 1.

Reconstruction: sum of squared errors per image (no 1/2). The thesis says "ten samples ... then average", which is
read as the error of the mean of ten decoded draws; the mean of their ten errors stands beside it. Transfer: summed
absolute error of the prior path, mean over ten corruptions of every image.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowlight.data.digits import Digits, Task, digit_batch, read_digits, stream
from lowlight.models.vae import DigitVae
from lowlight.ops.gaussian import draw, kl_divergence, standard_noise
from lowlight.workflows.digits.config import task_of
from lowlight.workflows.digits.weights import load_digit_weights

DRAWS = 10  # samples of z, or corruptions
BATCH = 1000
_CORRUPTION_STREAM, _SAMPLE_STREAM = 11, 12


class Published(NamedTuple):
    """What the thesis gives for a network: errors on training and validation images."""

    train: float | None
    validation: float


# Table 1 (SSE), and the text on image transfer (L1).
PUBLISHED: dict[str, Published] = {
    "ae": Published(27.00, 31.68),
    "vae-2": Published(31.47, 32.83),
    "vae-5": Published(25.32, 25.63),
    "vae-10": Published(24.32, 24.32),
    "vae-cnn": Published(19.24, 19.55),
    "cvae": Published(22.82, 22.96),
    "vae-50": Published(24.37, 24.41),
    "transfer": Published(None, 17.78),
    "transfer-noskip": Published(None, 36.56),
}
MEASURE: dict[Task, str] = {"reconstruction": "sse", "transfer": "l1"}  # that the thesis publishes for a task


@torch.no_grad()
def score_reconstruction(model: DigitVae, digits: Digits, seed: int = 0, samples: int = DRAWS) -> dict[str, float]:
    """Mean over `digits` of `sse` (of the mean image), `sse_per_sample` (mean of the samples' errors) and `kl`."""
    rows: list[Tensor] = []
    generator = stream(seed, _SAMPLE_STREAM)
    for start in range(0, len(digits), BATCH):
        chosen = slice(start, start + BATCH)
        batch = digit_batch(digits.images[chosen], digits.labels[chosen], "reconstruction", generator)
        condition = model.condition(batch.frames, batch.labels)
        posterior = model.posterior(batch.target)
        mean, errors = torch.zeros_like(batch.target), torch.zeros(len(batch.target))
        for _ in range(samples):
            image = model.decode(draw(posterior, standard_noise(posterior.mean, generator)), condition)
            mean += image / samples
            errors += _squared_error(image, batch.target) / samples
        kl = kl_divergence(posterior, condition.prior) if model.config.variance else torch.zeros_like(errors)
        rows.append(torch.stack((_squared_error(mean, batch.target), errors, kl)))
    sse, per_sample, kl_mean = torch.cat(rows, dim=1).double().mean(1).tolist()
    return {"sse": sse, "sse_per_sample": per_sample, "kl": kl_mean}


@torch.no_grad()
def score_transfer(model: DigitVae, digits: Digits, seed: int = 0, corruptions: int = DRAWS) -> dict[str, float]:
    """Mean over `digits` and corruptions of the restored image's summed absolute error, `l1`."""
    errors = []
    generator = stream(seed, _CORRUPTION_STREAM)
    for start in range(0, len(digits), BATCH):
        chosen = slice(start, start + BATCH)
        for _ in range(corruptions):
            batch = digit_batch(digits.images[chosen], digits.labels[chosen], "transfer", generator)
            image = model.restore(batch.frames).image
            errors.append((image - batch.target).abs().flatten(1).sum(1))
    return {"l1": torch.cat(errors).double().mean().item()}


def evaluate_digits(
    weights: Sequence[Path], data: Path, *, seed: int = 0, train_split: bool = True
) -> list[dict[str, Any]]:
    """Score weights files, or runs' folders, in fp32 on the CPU; one row each.

    A row has `model`, `parameters`, `task`, `validation` and `train` (scores, see above), `published` where the thesis
    has numbers, `trained` and `weights_sha256`. Without `train_split` the training images are not scored.
    """
    splits = {"validation": read_digits(data, "validation")}
    if train_split:
        splits["train"] = read_digits(data, "train")
    rows = []
    for path in weights:
        model, header = load_digit_weights(path)
        task = task_of(model.config)
        score = score_transfer if task == "transfer" else score_reconstruction
        file = path / "weights.safetensors" if path.is_dir() else path
        row: dict[str, Any] = {
            "model": header["model"],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "task": task,
            "data": data.resolve().name,
            "images": {name: len(digits) for name, digits in splits.items()},
            **{name: score(model, digits, seed) for name, digits in splits.items()},
            "draws": DRAWS,
            "seed": seed,
            "trained": header["trained"],
            "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        if published := PUBLISHED.get(header["model"]):
            row["published"] = {"measure": MEASURE[task], **published._asdict()}
        rows.append(row)
    return rows


def _squared_error(image: Tensor, target: Tensor) -> Tensor:
    return (image - target).square().flatten(1).sum(1)
