"""Scores of networks that repair digits, for every kind of damage, beside the damaged picture itself.

The published report has no numbers, only an order: Fisher best, beta-VAE better than VAE. Rows here are dictionaries
with `model`, `damage`, `images`, `mse`, `psnr`, `ssim` and, where there are boxes, `box_mse`, the mean squared error
inside them. Test images get damage that depends on the seed and their index alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.restoration import Batch, RestorationModel
from lowlight.data.digits import Digits
from lowlight.data.repair import Damaged, RepairConfig, fixed_batches, fixed_damage, split_digits
from lowlight.metrics.fidelity import ssim
from lowlight.objectives import Objective, build_objective
from lowlight.report.curves import STYLE, thinned
from lowlight.report.digit_figures import image_grid
from lowlight.report.plots import HEIGHT, WIDTH, Series, line_plot
from lowlight.report.tables import DASH, Table

# The report's three levels of noise, and its box.
DAMAGES: tuple[RepairConfig, ...] = (
    RepairConfig(sigma=0.05),
    RepairConfig(sigma=0.25),
    RepairConfig(sigma=0.5),
    RepairConfig(damage="box"),
)
IDENTITY = "damaged, clipped"  # the baseline as one would look at it
BATCH = 1000
EXAMPLES = 12  # digits in a grid
_COLOURS = ("#2f6f73", "#c4622d", "#6b5ca5", "#a3a02f", "#b83b5e", "#4a7fb0")  # of curves
_KEYS, _KEY_X, _KEY_WIDTH, _KEY_HEIGHT = 3, 70, 160, 18  # names in a row below the curves, drawing units


@torch.no_grad()
def score_repairs(
    models: Mapping[str, RestorationModel], digits: Digits, config: RepairConfig, seed: int = 0
) -> list[dict[str, Any]]:
    """One row for the damaged pictures and one for each of the models, of the same damaged digits.

    A repaired picture is `f(mu(x~))`. `psnr` is the mean over the pictures whose error is not 0.
    """
    clean = digits.images[:, None]
    damaged = fixed_damage(clean, config, seed)
    rows = [_row(IDENTITY, damaged.images.clamp(0, 1), clean, damaged, config)]
    rows += [_row(name, repair(model, damaged.images), clean, damaged, config) for name, model in models.items()]
    return rows


def repair(model: RestorationModel, damaged: Tensor) -> Tensor:
    """`f(mu(x~))` of damaged pictures `[N, 1, 28, 28]`, clipped to [0, 1]."""
    images = [model.restore(part[:, None]).image for part in torch.split(damaged, BATCH)]
    return torch.cat(images).clamp(0, 1)


@dataclass(frozen=True)
class OpenRepairs:
    """One part of a set of digits, and the damage they get."""

    digits: Digits
    config: RepairConfig
    told: str  # where they are from

    def __len__(self) -> int:
        """How many digits there are."""
        return len(self.digits)


def open_repairs(path: Path, options: RepairConfig, split: Literal["train", "validation", "test"]) -> OpenRepairs:
    """Open a part of a folder's digits, all of it whatever the options leave out of training."""
    splits = split_digits(path, options.split_seed)
    return OpenRepairs(getattr(splits, split), options, splits.told)


def score_repair(model: Any, opened: OpenRepairs, device: torch.device, seed: int) -> dict[str, float]:
    """Score one network: `mse`, `psnr`, `ssim`, `box_mse`, `identity_mse` (the damaged picture), and diagnostics.

    Diagnostics are the Fisher autoencoder's parts with its loss (`fisher_loss`), `kl` and `neg_elbo`, whatever trained
    the network, so that the curves of different objectives can be compared.
    """
    digits = opened.digits.to(device)
    identity, row = score_repairs({"network": model}, digits, opened.config, seed)
    measures = ("mse", "psnr", "ssim", "box_mse")
    scores: dict[str, float] = {name: row[name] for name in measures if name in row}
    scores["identity_mse"] = identity["mse"]
    if model.config.variance:
        options = {"c_likelihood": "bernoulli", "warmup": 0.0}
        batches = fixed_batches(digits, opened.config, BATCH, seed)
        losses = validation_losses(model, build_objective("fisher", options), batches, seed)
        scores |= {"fisher_loss": losses.pop("loss"), **losses}
    return scores


@torch.no_grad()
def validation_losses(
    model: RestorationModel, objective: Objective, batches: Sequence[Batch], seed: int = 0
) -> dict[str, float]:
    """Mean of an objective (`loss`) and its parts over batches, with its weights as they are at the end of a run."""
    generator, sums, count = torch.Generator().manual_seed(seed), dict[str, float](), 0
    for batch in batches:
        loss = objective(model, batch, 1.0, generator)
        for name, value in {"loss": loss.total, **loss.parts}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch.target)
        count += len(batch.target)
    return {name: value / count for name, value in sums.items()}


def repair_table(rows: Sequence[dict[str, Any]], told: str = "") -> Table:
    """All models x damages; `told` says where the digits are from."""
    columns = (("damage", False), ("model", False), *((name, True) for name in ("MSE", "PSNR", "SSIM", "MSE in boxes")))
    cells = []
    for row in rows:
        numbers = (("mse", 5), ("psnr", 2), ("ssim", 4), ("box_mse", 5))
        texts = (DASH if row.get(key) is None else f"{row[key]:.{digits}f}" for key, digits in numbers)
        cells.append((row["damage"], row["model"], *texts))
    count = f"{rows[0]['images']} images" if rows else ""
    return Table("Repaired digits", columns, tuple(cells), "; ".join(filter(None, (count, told))))


@torch.no_grad()
def repair_grid(
    models: Mapping[str, RestorationModel], digits: Digits, config: RepairConfig, seed: int = 0
) -> npt.NDArray[np.uint16]:
    """A picture `[H, W, 1]` with a column for each of the first digits: clean, damaged, repaired by each model."""
    clean = digits.first(EXAMPLES).images[:, None]
    damaged = fixed_damage(clean, config, seed).images
    strips = [clean, damaged, *(repair(model, damaged) for model in models.values())]
    images: npt.NDArray[np.float32] = torch.cat(strips, dim=1).transpose(0, 1).float().cpu().numpy()
    return image_grid(images, gap_px=2, zoom=3)


def validation_curves(logs: Mapping[str, Sequence[tuple[float, float]]], title: str, unit: str = "epoch") -> str:
    """Validation losses of several runs over their epochs as one standalone SVG; no run has more than 400 points."""
    series = [Series(name, thinned(points), index) for index, (name, points) in enumerate(logs.items())]
    plot = line_plot(title, series, unit, title).replace("<svg ", f'<svg width="{WIDTH}" height="{HEIGHT}" ', 1)
    names = []
    for index, each in enumerate(series):
        x, y = _KEY_X + _KEY_WIDTH * (index % _KEYS), HEIGHT + _KEY_HEIGHT * (index // _KEYS + 1)
        colour = _COLOURS[index % len(_COLOURS)]
        names.append(f'<text x="{x}" y="{y}" style="fill:{colour}">{escape(each.name)}</text>')
    colours = "".join(f".s{index}{{stroke:{colour}}}" for index, colour in enumerate(_COLOURS))
    height = HEIGHT + _KEY_HEIGHT * (-(-len(series) // _KEYS) + 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<style>{STYLE}{colours}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f"{plot}{''.join(names)}</svg>\n"
    )


def _row(name: str, made: Tensor, clean: Tensor, damaged: Damaged, config: RepairConfig) -> dict[str, Any]:
    squares = (made - clean).double().square()
    of_each = squares.flatten(1).mean(1)
    of_each = of_each[of_each > 0]  # identical pictures have no finite PSNR
    row: dict[str, Any] = {
        "model": name,
        "damage": str(config),
        "images": len(clean),
        "mse": float(squares.mean()),
        "psnr": float(-10 * of_each.log10().mean()) if len(of_each) else math.inf,
        # Pictures in place of channels: the mean over them is the same.
        "ssim": ssim(made[:, 0], clean[:, 0]),
    }
    if damaged.boxes.any():
        row["box_mse"] = float(squares[damaged.boxes].mean())
    return row
