"""Scores of the thesis' digit networks, beside its Table 1.

Reconstruction: sum of squared errors per image (no 1/2). The thesis says "ten samples ... then average", which is
read as the error of the mean of ten decoded draws; the mean of their ten errors stands beside it. Transfer: summed
absolute error of the prior path, mean over ten corruptions of every image.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowlight.data.digits import Digits, DigitsConfig, Split, Task, digit_batch, read_digits
from lowlight.data.draws import stream
from lowlight.models.vae import DigitVae, DigitVaeConfig
from lowlight.ops.gaussian import draw, kl_divergence, standard_noise

DRAWS = 10  # samples of z, or corruptions
BATCH = 1000  # digits that share their draws
PIECE = 250  # digits that go through a network at once: what it makes of 1000 does not fit a processor's cache
_CORRUPTION_STREAM, _SAMPLE_STREAM = 11, 12


Tick = Callable[[int], None]  # so many digits more are scored


class Published(NamedTuple):
    """What the thesis gives for a network: errors on training and validation images."""

    train: float | None
    validation: float


# Table 1 (SSE), and the text on image transfer (L1): each row's network and its numbers.
ROWS: dict[str, tuple[DigitVaeConfig, Published]] = {
    "ae": (DigitVaeConfig(latent=2, variance=False), Published(27.00, 31.68)),
    "vae-2": (DigitVaeConfig(latent=2), Published(31.47, 32.83)),
    "vae-5": (DigitVaeConfig(latent=5), Published(25.32, 25.63)),
    "vae-10": (DigitVaeConfig(latent=10), Published(24.32, 24.32)),
    "vae-cnn": (DigitVaeConfig(body="cnn"), Published(19.24, 19.55)),
    "cvae": (DigitVaeConfig(prior="label"), Published(22.82, 22.96)),
    "vae-50": (DigitVaeConfig(latent=50), Published(24.37, 24.41)),
    "transfer": (DigitVaeConfig(body="cnn", prior="image", skips=True), Published(None, 17.78)),
    "transfer-noskip": (DigitVaeConfig(body="cnn", prior="image"), Published(None, 36.56)),
}
MEASURE: dict[Task, str] = {"reconstruction": "sse", "transfer": "l1"}  # that the thesis publishes for a task


def task_of(config: DigitVaeConfig) -> Task:
    """What a network is for: a prior that reads an image restores it, the others reconstruct."""
    return "transfer" if config.prior == "image" else "reconstruction"


def open_scored_digits(path: Path, options: DigitsConfig, split: Split) -> Digits:
    """Read the images of a split; all of them, whatever the options leave out of training."""
    return read_digits(path, split)


def score_digits(
    model: DigitVae, digits: Digits, device: torch.device, seed: int, tick: Tick = lambda count: None
) -> dict[str, float]:
    """Score a network at what it is for, in the number format of its weights."""
    score = score_transfer if task_of(model.config) == "transfer" else score_reconstruction
    return score(model, digits.to(device), seed, tick=tick)


def published_digits(model: DigitVae) -> dict[str, Any] | None:
    """Give what the thesis has for a network of this configuration: `row`, `measure`, `train` and `validation`.

    The output's activation does not count: the source does not tell it.
    """
    for name, (config, published) in ROWS.items():
        if config == replace(model.config, output=config.output):
            return {"row": name, "measure": MEASURE[task_of(config)], **published._asdict()}
    return None


@torch.no_grad()
def score_reconstruction(
    model: DigitVae, digits: Digits, seed: int = 0, samples: int = DRAWS, tick: Tick = lambda count: None
) -> dict[str, float]:
    """Mean over `digits` of `sse` (of the mean image), `sse_per_sample` (mean of the samples' errors) and `kl`."""
    rows: list[Tensor] = []
    generator = stream(seed, _SAMPLE_STREAM)
    for start in range(0, len(digits), BATCH):
        chosen = slice(start, start + BATCH)
        batch = digit_batch(digits.images[chosen], digits.labels[chosen], "reconstruction", generator)
        condition = model.condition(batch.frames, labels=batch.labels)
        posterior = model.posterior(batch.target)
        mean, errors = torch.zeros_like(batch.target), batch.target.new_zeros(len(batch.target))
        for _ in range(samples):
            image = model.decode(draw(posterior, standard_noise(posterior.mean, generator)), condition)
            mean += image / samples
            errors += _squared_error(image, batch.target) / samples
        kl = kl_divergence(posterior, condition.prior) if model.config.variance else torch.zeros_like(errors)
        rows.append(torch.stack((_squared_error(mean, batch.target), errors, kl)))
        tick(len(batch.target))
    sse, per_sample, kl_mean = torch.cat(rows, dim=1).double().mean(1).tolist()
    return {"sse": sse, "sse_per_sample": per_sample, "kl": kl_mean}


@torch.no_grad()
def score_transfer(
    model: DigitVae, digits: Digits, seed: int = 0, corruptions: int = DRAWS, tick: Tick = lambda count: None
) -> dict[str, float]:
    """Mean over `digits` and corruptions of the restored image's summed absolute error, `l1`."""
    errors = []
    generator = stream(seed, _CORRUPTION_STREAM)
    for start in range(0, len(digits), BATCH):
        chosen = slice(start, start + BATCH)
        for _ in range(corruptions):
            batch = digit_batch(digits.images[chosen], digits.labels[chosen], "transfer", generator)
            frames = [batch.frames[first : first + PIECE] for first in range(0, len(batch.frames), PIECE)]
            image = torch.cat([model.restore(piece).image for piece in frames])
            errors.append((image - batch.target).abs().flatten(1).sum(1))
        tick(len(batch.target))
    return {"l1": torch.cat(errors).double().mean().item()}


def _squared_error(image: Tensor, target: Tensor) -> Tensor:
    return (image - target).square().flatten(1).sum(1)
