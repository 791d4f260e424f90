"""The figures of the thesis' MNIST chapter, drawn from weights files and the validation images.

Latents are posterior means. A network of two latent numbers gets them as a scatter and, where N(0, I) is the prior to
draw from, the manifold of its decoded images; a larger one the first two principal components of its latents; image
transfer triples of corrupted, restored and true digits.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.data.digits import Digits, DigitsConfig, digit_batch, read_digits
from lowlight.data.draws import stream
from lowlight.models.vae import SIDE_PX, DigitVae
from lowlight.report.digit_figures import class_scatter, image_grid
from lowlight.workflows.evaluating.digit_scores import task_of

EXAMPLES = 12  # digits in a strip
MANIFOLD = 20  # images along each side
_CORRUPTION_STREAM = 21


@torch.no_grad()
def digit_figures(
    model: DigitVae, data: Path, options: DigitsConfig, title: str, seed: int
) -> dict[str, str | npt.NDArray[np.uint16]]:
    """Draw what fits a network, by kind: SVGs as text, pictures as pixels `[H, W, 1]`."""
    digits = read_digits(data, "validation")
    return {kind: figure(model, digits, f"{title}: {kind}", seed) for kind, figure in _figures(model).items()}


def principal_components(points: Tensor) -> tuple[Tensor, Tensor]:
    """Project points `[N, Z]` onto their two directions of largest variance: `[N, 2]`, and the shares of variance.

    Each direction is turned so that its largest entry is positive, so that equal points give equal figures.
    """
    centred = points.double() - points.double().mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(points))
    chosen = directions[:, -2:].flip(1)
    largest = chosen.gather(0, chosen.abs().argmax(0, keepdim=True))
    return centred @ (chosen * largest.sign()), variances.flip(0)[:2] / variances.sum()


Figure = Callable[[DigitVae, Digits, str, int], str | npt.NDArray[np.uint16]]


def _figures(model: DigitVae) -> dict[str, Figure]:
    if task_of(model.config) == "transfer":
        return {"triples": _triples}
    figures: dict[str, Figure] = {"reconstructions": _reconstructions}
    if model.config.latent > 2:
        figures["pca"] = _components
    elif model.config.latent == 2:
        figures["latent"] = _latent
        if model.config.variance and model.config.prior == "standard":
            figures["manifold"] = _manifold
    return figures


def _latents(model: DigitVae, digits: Digits) -> Tensor:
    return model.posterior(digits.images[:, None]).mean


def _latent(model: DigitVae, digits: Digits, title: str, seed: int) -> str:
    points = _latents(model, digits).double().numpy()
    return class_scatter(title, points, digits.labels.tolist(), ("z1", "z2"))


def _components(model: DigitVae, digits: Digits, title: str, seed: int) -> str:
    points, shares = principal_components(_latents(model, digits))
    first, second = (f"component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares.tolist()))
    return class_scatter(title, points.numpy(), digits.labels.tolist(), (first, second))


def _manifold(model: DigitVae, digits: Digits, title: str, seed: int) -> npt.NDArray[np.uint16]:
    """Decode a grid of z at equally likely values of N(0, I); z1 grows to the right, z2 upwards."""
    values = torch.special.ndtri((torch.arange(MANIFOLD) + 0.5) / MANIFOLD)
    down, right = torch.meshgrid(values.flip(0), values, indexing="ij")
    z = torch.stack((right.flatten(), down.flatten()), dim=1)
    condition = model.condition(z.new_empty(len(z), 0, 1, SIDE_PX, SIDE_PX))
    return image_grid(_square(model.decode(z, condition), MANIFOLD))


def _reconstructions(model: DigitVae, digits: Digits, title: str, seed: int) -> npt.NDArray[np.uint16]:
    """Digits above, their reconstructions from the posterior's mean below."""
    chosen = digits.first(EXAMPLES)
    batch = digit_batch(chosen.images, chosen.labels, "reconstruction", stream(seed))
    image = model.decode(model.posterior(batch.target).mean, model.condition(batch.frames, labels=batch.labels))
    return image_grid(_square(torch.cat((batch.target, image)), len(chosen)), gap_px=2, zoom=2)


def _triples(model: DigitVae, digits: Digits, title: str, seed: int) -> npt.NDArray[np.uint16]:
    """Corrupted digits above, restored ones in the middle, true ones below."""
    chosen = digits.first(EXAMPLES)
    batch = digit_batch(chosen.images, chosen.labels, "transfer", stream(seed, _CORRUPTION_STREAM))
    restored = model.restore(batch.frames).image
    return image_grid(_square(torch.cat((batch.frames[:, 0], restored, batch.target)), len(chosen)), gap_px=2, zoom=2)


def _square(images: Tensor, columns: int) -> npt.NDArray[np.float32]:
    rows: npt.NDArray[np.float32] = images.view(-1, columns, SIDE_PX, SIDE_PX).float().numpy()
    return rows
