"""The measures of the FusionVAE paper: how likely the truth is, and how near the best of many hypotheses comes.

Source: F. Duffhauss et al., "FusionVAE" (ECCV 2022), section 5.4. Both are taken for every number of frames apart,
and then averaged. Letters: S samples, B pictures, K frames.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from lowlight.core.errors import UsageError
from lowlight.core.restoration import Batch, HierarchicalModel, ModelTraits, Noise, Restoration
from lowlight.data.draws import stream
from lowlight.data.fusion_source import FIXED_BLOCK, FixedFrames
from lowlight.models.fusion_folding import folded
from lowlight.ops.gaussian import log_normal
from lowlight.ops.likelihoods import crop_border, log_likelihood

# Pixels of pictures times samples in one pass. On a CPU what stays in its caches is fastest.
FOLD_PX = {"cpu": 100_000, "cuda": 4_000_000}
MEASURES = ("nll", "bound", "mse_min")
_POSTERIOR_STREAM, _PRIOR_STREAM = 51, 52


class Reading(Protocol):
    """What a network has read from frames and targets."""

    def repeat(self, times: int) -> "Reading":
        """Each item so many times in a row."""
        ...


@runtime_checkable
class ReadOnceModel(Protocol):
    """A network whose encoder can run once for many draws."""

    def read(self, frames: Tensor, target: Tensor | None = None) -> Reading:
        """Run the encoder."""
        ...

    def draw_posterior(self, reading: Any, generator: Generator, base: Tensor | None = None) -> Restoration:
        """The rest of `reconstruct`."""
        ...

    def draw_prior(self, reading: Any, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """The rest of `restore`."""
        ...


def score_fusion(
    model: HierarchicalModel,
    pictures: FixedFrames,
    *,
    samples: int = 100,
    images: int | None = None,
    frames: Sequence[int] = (0, 1, 2, 3),
    seed: int = 0,
    fold: int | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Score the first `images` of `pictures`, all by default, for each number of frames; the last row is the mean.

    A row has `frames` (K, or "mean"), `nll` and `bound` (-log2 p(y|x) by importance weighting, and by the evidence
    lower bound; bits per dimension), `mse_min`, the standard errors `nll_error` and `mse_min_error` of these means,
    `images`, `samples` and `seconds`. A model without latents has one output and no likelihood that it was trained
    to bound: `nll` and `bound` are None. The border of padding that the model's traits name is left out.

    `fold`, pictures times samples in one pass, limits the memory. The same seed gives the same rows on the same kind
    of device and with the same `fold`. `progress` is given each row when it is known.
    """
    count = len(pictures) if images is None else min(images, len(pictures))
    if count < 1 or samples < 1 or not frames:
        raise UsageError(f"{count} images, {samples} samples and frames {list(frames)} cannot be scored; ask for some")
    rows: list[dict[str, Any]] = []
    with evaluating(model) as device:
        model = _quicker(model)
        for number in frames:
            started = time.perf_counter()
            values = _measure(model, pictures, number, samples, count, seed, fold, device)
            row: dict[str, Any] = {"frames": number}
            for name in MEASURES:
                row[name] = values[name].mean().item() if name in values else None
            for name in ("nll", "mse_min"):
                row[f"{name}_error"] = _standard_error(values[name]) if name in values else None
            row |= {"images": count, "samples": samples if model.traits.latents else 1}
            rows.append({**row, "seconds": round(time.perf_counter() - started, 2)})
            if progress:
                progress(rows[-1])
    return [*rows, mean_row(rows)]


def mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Average rows of different numbers of frames, as the paper's column "avg" does."""
    mean: dict[str, Any] = {"frames": "mean"}
    # The rows share their pictures, so their errors go together: the mean of them is on the safe side.
    for name in (*MEASURES, "nll_error", "mse_min_error"):
        values = [row[name] for row in rows]
        mean[name] = None if None in values else sum(values) / len(values)
    same = {name: rows[0][name] for name in ("images", "samples")}
    return {**mean, **same, "seconds": round(sum(row["seconds"] for row in rows), 2)}


def log_weights(
    model: HierarchicalModel, batch: Batch, samples: int, generator: Generator, *, fold: int | None = None
) -> Tensor:
    """`log p(y|x,z) + log p(z|x) - log q(z|y)` for draws z ~ q, `[S, B]`, float64, in nats.

    Balanced or annealed weights of a training objective do not enter. `fold` limits the pictures times samples that
    are computed at once; the encoder runs once where the model allows it.
    """
    draw = _posterior_of(model, batch, generator)
    parts = []
    for together in _portions(samples, batch.target, fold):
        found = draw(together)
        target = batch.target.repeat_interleave(together, 0)
        total = log_likelihood(model.traits.likelihood, found, target, model.traits.crop_px).double()
        for latent in found.latents:
            assert latent.posterior is not None, "a training path has posteriors"
            total += log_normal(latent.sample, latent.prior).double()
            total -= log_normal(latent.sample, latent.posterior).double()
        parts.append(total.view(-1, together).T)
    return torch.cat(parts)


def log_likelihoods(weights: Tensor) -> Tensor:
    """The importance-weighted bound on log p(y|x) of each picture: log of the mean weight of `[S, B]`, float64.

    Source: Y. Burda et al., "Importance Weighted Autoencoders" (ICLR 2016), equation 8. One sample gives the evidence
    lower bound; more can only raise it in expectation, and infinitely many give log p(y|x).
    """
    return torch.logsumexp(weights.double(), 0) - math.log(len(weights))


def least_errors(
    model: HierarchicalModel, batch: Batch, samples: int, generator: Generator, *, fold: int | None = None
) -> Tensor:
    """The mean squared error of each picture's best sample of the prior path, `[B]`, float64.

    What is compared is the likelihood's mean. A model without latents gives its one output.
    """
    if not model.traits.latents:
        samples = 1
    draw, crop_px = _prior_of(model, batch, generator), model.traits.crop_px
    truth = crop_border(batch.target, crop_px)
    least = torch.full((len(truth),), torch.inf, dtype=torch.float64, device=truth.device)
    for together in _portions(samples, batch.target, fold):
        image = crop_border(draw(together).image.float(), crop_px)
        errors = (
            (image.reshape(len(truth), together, *truth.shape[1:]) - truth[:, None])
            .square()
            .flatten(2)
            .mean(2)
            .double()
        )
        least = torch.minimum(least, errors.amin(1))
    return least


def prior_noise(traits: ModelTraits, target: Tensor, generator: Generator) -> Noise | None:
    """Standard normal numbers for all latents of pictures like `target [B, C', u*h, u*w]`; None without latents."""
    number, _, *size = target.shape
    noise = []
    for latent in traits.latents:
        stride = latent.stride
        extent = [] if stride is None else [side // traits.upscale // stride for side in size]
        drawn = torch.randn((number, latent.channels, *extent), generator=generator, device=generator.device)
        noise.append(drawn.to(target.device))
    return tuple(noise) or None


@contextmanager
def evaluating(model: HierarchicalModel) -> Iterator[torch.device]:
    """Put a network into its test mode, without gradients, and give its device; then put it back."""
    if not isinstance(model, nn.Module):
        with torch.no_grad():
            yield torch.device("cpu")
        return
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    finally:
        model.train(was_training)


def seeded_generator(device: torch.device, *numbers: int) -> Generator:
    """A generator on a device whose draws depend on the numbers alone."""
    return Generator(device).manual_seed(stream(*numbers).initial_seed())


def _quicker(model: HierarchicalModel) -> HierarchicalModel:
    """A network whose batch norms are folded into its convolutions, where it has some."""
    if not isinstance(model, nn.Module) or not any(isinstance(m, nn.BatchNorm2d) for m in model.modules()):
        return model
    quicker: Any = folded(model)
    return quicker  # type: ignore[no-any-return]


def _measure(
    model: HierarchicalModel,
    pictures: FixedFrames,
    number: int,
    samples: int,
    count: int,
    seed: int,
    fold: int | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """Every measure of every picture, `[count]`, for one number of frames."""
    found: dict[str, list[Tensor]] = {}
    for first in range(0, count, FIXED_BLOCK):
        batch = pictures.validation_batch(first, min(FIXED_BLOCK, count - first), number).to(device)
        values = {}
        if model.traits.latents:
            generator = seeded_generator(device, seed, _POSTERIOR_STREAM, number, first)
            weights = log_weights(model, batch, samples, generator, fold=fold)
            bits = -1 / (math.log(2) * crop_border(batch.target, model.traits.crop_px)[0].numel())
            values["nll"], values["bound"] = log_likelihoods(weights) * bits, weights.mean(0) * bits
        generator = seeded_generator(device, seed, _PRIOR_STREAM, number, first)
        values["mse_min"] = least_errors(model, batch, samples, generator, fold=fold)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(parts) for name, parts in found.items()}


def _posterior_of(model: HierarchicalModel, batch: Batch, generator: Generator) -> Callable[[int], Restoration]:
    """A function that draws each item so many times in a row from the posterior."""
    if isinstance(model, ReadOnceModel):
        once, reading = model, model.read(batch.frames, batch.target)
        return lambda times: once.draw_posterior(reading.repeat(times), generator, _repeated(batch.base, times))

    def draw(times: int) -> Restoration:
        frames, target = (part.repeat_interleave(times, 0) for part in (batch.frames, batch.target))
        return model.reconstruct(frames, target, generator, _repeated(batch.base, times))

    return draw


def _prior_of(model: HierarchicalModel, batch: Batch, generator: Generator) -> Callable[[int], Restoration]:
    """A function that draws each item so many times in a row from the prior."""

    def noise(times: int) -> Noise | None:
        return prior_noise(model.traits, batch.target.repeat_interleave(times, 0), generator)

    if isinstance(model, ReadOnceModel):
        once, reading = model, model.read(batch.frames)
        return lambda times: once.draw_prior(reading.repeat(times), _repeated(batch.base, times), noise(times))

    def draw(times: int) -> Restoration:
        frames = batch.frames.repeat_interleave(times, 0)
        return model.restore(frames, _repeated(batch.base, times), noise(times))

    return draw


def _repeated(base: Tensor | None, times: int) -> Tensor | None:
    return None if base is None else base.repeat_interleave(times, 0)


def _portions(samples: int, target: Tensor, fold: int | None) -> list[int]:
    """Cut so many samples into portions that hold at most `fold` pictures, but at least one sample of each."""
    number, *_, height, width = target.shape
    if fold is None:
        fold = FOLD_PX.get(target.device.type, FOLD_PX["cpu"]) // (height * width)
    most = max(1, fold // number)
    return [min(most, samples - first) for first in range(0, samples, most)]


def _standard_error(values: Tensor) -> float | None:
    """Of the mean of independent values; None for a single one."""
    return None if len(values) < 2 else values.std().item() / math.sqrt(len(values))
