"""Which weight of the divergence repairs best: one short run for each, and a table of them.

The student report "Repairing Images with Fisher Autoencoder" tried 2.00, 2.25 ... 6.00 and took 4 for its validation
loss. That loss contains beta itself, so it grows with it by definition; the bound at beta 1 and the error of the
repaired pictures stand beside it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lowlight.checkpoint import load_weights
from lowlight.core.config import from_dict, to_dict
from lowlight.core.errors import ConfigError
from lowlight.data.repair import RepairConfig, fixed_batches
from lowlight.objectives import build_objective
from lowlight.report.tables import Table
from lowlight.workflows.evaluating.repair_scores import BATCH, open_repairs, score_repairs, validation_losses
from lowlight.workflows.training.config import TrainConfig, resolve
from lowlight.workflows.training.train import train

BETAS: tuple[float, ...] = tuple(2 + 0.25 * i for i in range(17))


def sweep_betas(config: TrainConfig, folder: Path, betas: Sequence[float] = BETAS) -> list[dict[str, Any]]:
    """Train one network for each beta into `folder/beta-2.00` and so on; runs that are there are gone on with.

    `config` is a run with objective `beta` on the dataset `repair`. A row has `beta` and, over the validation images,
    `loss` (the objective), `neg_elbo`, `kl`, `mse`, `psnr` and `ssim`.
    """
    if (config.objective.name, config.data.name) != ("beta", "repair"):
        raise ConfigError(
            f"the sweep needs objective beta on dataset repair, and the run has {config.objective.name} on "
            f"{config.data.name}; begin with preset kmnist/beta-vae"
        )
    options = from_dict(RepairConfig, config.data.options, "options of dataset repair")
    opened = open_repairs(config.data.validation or config.data.path, options, "validation")
    batches = fixed_batches(opened.digits, options, BATCH)
    rows: list[dict[str, Any]] = []
    for beta in betas:
        objective = build_objective("beta", {**config.objective.options, "beta": float(beta)})
        section = replace(config.objective, options=to_dict(objective.config))
        run = folder / f"beta-{beta:.2f}"
        weights = train(resolve(to_dict(replace(config, objective=section))), run, resume=True)
        model: Any = load_weights(weights)[0]
        losses = validation_losses(model, objective, batches)
        _, scores = score_repairs({"network": model}, opened.digits, options)
        kept = {str(name): losses[name] for name in ("loss", "neg_elbo", "kl") if name in losses}
        measured = {str(name): scores[name] for name in ("mse", "psnr", "ssim")}
        rows.append({"beta": float(beta), **kept, **measured})
    return rows


def sweep_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One row a beta; the note names the best by the objective, by the bound and by the error."""
    names = {"loss": 2, "neg_elbo": 2, "kl": 2, "mse": 5, "psnr": 2, "ssim": 4}
    cells = [
        (f"{row['beta']:.2f}", *(f"{row[n]:.{d}f}" if n in row else "-" for n, d in names.items())) for row in rows
    ]
    best = {n: min(rows, key=lambda row: row.get(n, torch.inf))["beta"] for n in ("loss", "neg_elbo", "mse")}
    note = "Smallest " + ", ".join(f"{name} at {beta:.2f}" for name, beta in best.items())
    columns = (("beta", True), *((name, True) for name in names))
    return Table("Validation over beta", columns, tuple(cells), f"{note}. The loss contains beta itself.")
