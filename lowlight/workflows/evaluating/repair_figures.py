"""What networks make of damaged digits, as pictures: repaired digits side by side, and curves of their runs.

For each kind of damage there is a grid of the first test digits (clean, damaged, repaired by each network) and, where
the weights lie in the folders of their runs, curves of the validation.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lowlight.core.restoration import RestorationModel
from lowlight.data.digits import Digits
from lowlight.data.repair import RepairConfig, fixed_damage
from lowlight.report.curves import STYLE, thinned
from lowlight.report.digit_figures import image_grid
from lowlight.report.plots import HEIGHT, WIDTH, Series, line_plot
from lowlight.workflows.evaluating.repair_scores import open_repairs, repair
from lowlight.workflows.training_log import LOG, TrainingLog

EXAMPLES = 12  # digits in a grid
CURVES = {"mse": "squared error", "neg_elbo": "-ELBO", "fisher_loss": "Fisher loss"}
_COLOURS = ("#2f6f73", "#c4622d", "#6b5ca5", "#a3a02f", "#b83b5e", "#4a7fb0")  # of curves
_KEYS, _KEY_X, _KEY_WIDTH, _KEY_HEIGHT = 3, 70, 160, 18  # names in a row below the curves, drawing units


class Compared(NamedTuple):
    """One of several networks that are shown side by side."""

    name: str
    model: Any  # a RestorationModel
    options: RepairConfig
    folder: Path  # where its weights lie


def repair_figures(networks: Sequence[Compared], path: Path, seed: int) -> dict[str, str | npt.NDArray[np.uint16]]:
    """The figures of networks by name, those of one damage together; the digits are the test digits of `path`."""
    figures: dict[str, str | npt.NDArray[np.uint16]] = {}
    for damage in dict.fromkeys(str(network.options) for network in networks):
        alike = [network for network in networks if str(network.options) == damage]
        name = damage.replace(",", "").replace(" ", "-")
        digits = open_repairs(path, alike[0].options, "test").digits
        models = {network.name: network.model for network in alike}
        figures[f"{name}-grid"] = repair_grid(models, digits, alike[0].options, seed)
        logs = {network.name: _validations(network.folder) for network in alike}
        for measure, title in CURVES.items():
            curves = {
                name: [(step, row[measure]) for step, row in log if row.get(measure) is not None]
                for name, log in logs.items()
            }
            if drawn := {name: points for name, points in curves.items() if points}:
                figures[f"{name}-{measure}"] = validation_curves(drawn, f"{damage}: validation {title}")
    return figures


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


def validation_curves(logs: Mapping[str, Sequence[tuple[float, float]]], title: str, unit: str = "step") -> str:
    """Validation losses of several runs as one standalone SVG; no run has more than 400 points."""
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


def _validations(folder: Path) -> list[tuple[float, dict[str, float]]]:
    """Steps and scores of the validations of a run; none where a folder is not that of a run."""
    rows = TrainingLog(folder / LOG).rows()
    return [(row["step"], row["validation"]) for row in rows if "validation" in row]
