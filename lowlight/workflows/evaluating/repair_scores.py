"""Scores of networks that repair digits, for every kind of damage, beside the damaged picture itself.

The published report has no numbers, only an order: Fisher best, beta-VAE better than VAE. Rows here are dictionaries
with `model`, `damage`, `images`, `mse`, `psnr`, `ssim` and, where there are boxes, `box_mse`, the mean squared error
inside them. Test images get damage that depends on the seed and their index alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lowlight.core.restoration import Batch, RestorationModel
from lowlight.data.digits import Digits
from lowlight.data.repair import Damaged, RepairConfig, fixed_batches, fixed_damage, split_digits
from lowlight.metrics.fidelity import ssim
from lowlight.objectives import Objective, build_objective
from lowlight.report.tables import DASH, Table

IDENTITY = "damaged, clipped"  # the baseline as one would look at it
BATCH = 1000
MEASURES = {"mse": ("MSE", 5), "psnr": ("PSNR", 2), "ssim": ("SSIM", 4), "box_mse": ("MSE in boxes", 5)}  # decimals
LOSSES = {"neg_elbo": "-ELBO", "kl": "KL", "fisher_loss": "Fisher loss", "fisher": "|A-B-C|^2", "D": "D", "E": "E"}


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
    """Score one network: `mse`, `psnr`, `ssim`, `box_mse`, the same of the damaged picture (`identity_mse` ...).

    Diagnostics are the Fisher autoencoder's parts with its loss (`fisher_loss`), `kl` and `neg_elbo`, whatever trained
    the network, so that the curves of different objectives can be compared.
    """
    digits = opened.digits.to(device)
    identity, row = score_repairs({"network": model}, digits, opened.config, seed)
    measures = [name for name in MEASURES if name in row]
    scores: dict[str, float] = {name: row[name] for name in measures}
    scores |= {f"identity_{name}": identity[name] for name in measures}
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


def about_repairs(opened: OpenRepairs) -> dict[str, str]:
    """What a row should tell besides its scores: the damage, and where the digits are from."""
    return {"damage": str(opened.config), "digits": opened.told}


def repair_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """The networks that `lowlight eval` scored, those of one damage together, and the losses they have in common.

    Shown are the first scores of each row, those of the test digits unless others were asked for.
    """
    split = next(name for name in ("test", "validation", "train") if name in rows[0])
    shown: list[dict[str, Any]] = []
    for damage in dict.fromkeys(row["about"]["damage"] for row in rows):
        alike = [row for row in rows if row["about"]["damage"] == damage]
        about = {"damage": damage, "images": alike[0]["images"][split]}
        identity = {name: alike[0][split].get(f"identity_{name}") for name in MEASURES}
        shown.append({"model": IDENTITY, **about, **identity})
        shown += [{"model": row["name"], **about, **row[split]} for row in alike]
    sources = "; ".join(dict.fromkeys(row["about"]["digits"] for row in rows))
    tables = [repair_table(shown, f"{split} digits of {rows[0]['data']}: {sources}")]
    if with_losses := [row for row in shown if "neg_elbo" in row]:
        cells = tuple((row["damage"], row["model"], *(_text(row[name], 2) for name in LOSSES)) for row in with_losses)
        columns = (("damage", False), ("model", False), *((title, True) for title in LOSSES.values()))
        tables.append(Table(f"Losses per digit, {split} digits, whatever trained the network", columns, cells))
    return tables


def repair_table(rows: Sequence[dict[str, Any]], told: str = "") -> Table:
    """All models x damages; `told` says where the digits are from."""
    columns = (("damage", False), ("model", False), *((title, True) for title, _ in MEASURES.values()))
    cells = []
    for row in rows:
        texts = (_text(row.get(name), digits) for name, (_, digits) in MEASURES.items())
        cells.append((row["damage"], row["model"], *texts))
    count = f"{rows[0]['images']} images" if rows else ""
    return Table("Repaired digits", columns, tuple(cells), "; ".join(filter(None, (count, told))))


def _text(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


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
