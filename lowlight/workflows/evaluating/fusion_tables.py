"""The whole measures of networks that fuse pictures, one row for each number of frames, beside the paper's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lowlight.core.compute import choose_device
from lowlight.core.config import from_dict
from lowlight.core.errors import UsageError
from lowlight.core.hashing import file_sha256
from lowlight.data import DATASETS
from lowlight.workflows.evaluating.fusion_published import PUBLISHED, beside_published
from lowlight.workflows.evaluating.fusion_scorer import SETS, open_fixed_frames
from lowlight.workflows.evaluating.fusion_scores import score_fusion
from lowlight.workflows.evaluating.image_models import Loaded, load_scored, names_of

SAMPLES = 100
_VARIANTS = {"max": "Max", "mean": "Mean", "bayes": "Bay"}


def evaluate_fusion(
    weights: Sequence[Path],
    data: Path,
    *,
    samples: int | None = None,
    images: int | None = None,
    split: Literal["validation", "train"] = "validation",
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Score weights files, or runs' folders, in fp32: for each a row for every number of frames, and their mean.

    A row has `name`, `model`, `method` (as the paper calls it), `preset`, what `score_fusion` measured with
    `samples` (100) on the first `images` (all), `published_nll`, `published_mse_min` and `published_samples`,
    `trained` and `weights_sha256`. `progress` is given a sentence a row.
    """
    place = choose_device(device)
    networks = [load_scored(path) for path in weights]
    for loaded in networks:
        if DATASETS[loaded.dataset].config not in SETS:
            raise UsageError(
                f"--samples and --images are about networks that fuse pictures, and {loaded.path} was trained on "
                f"{loaded.dataset!r}; leave them, or score these weights apart"
            )
    table: list[dict[str, Any]] = []
    for name, loaded in zip(names_of(weights), networks, strict=True):
        options = from_dict(DATASETS[loaded.dataset].config, loaded.options, f"options of dataset {loaded.dataset}")
        pictures = open_fixed_frames(data, options, split)
        rows = score_fusion(
            loaded.model.to(place),  # type: ignore[arg-type]
            pictures,
            samples=samples or SAMPLES,
            images=images,
            frames=range(pictures.max_frames + 1),
            seed=seed,
            progress=None if progress is None else _sentence(name, progress),
        )
        method = method_of(loaded)
        if method in PUBLISHED.get(loaded.dataset, {}):
            rows = beside_published(rows, loaded.dataset, method)
        about = {
            "name": name,
            "model": loaded.header["model"],
            "method": method,
            "preset": loaded.trained.get("preset"),
            "dataset": loaded.dataset,
            "data": data.resolve().name,
            "split": split,
        }
        end = {"seed": seed, "trained": loaded.trained, "weights_sha256": file_sha256(loaded.path)}
        table += [{**about, **row, **end} for row in rows]
    return table


def method_of(loaded: Loaded) -> str:
    """What the paper's tables call a network: its model, or how a variant of FusionVAE aggregates."""
    config: dict[str, Any] = loaded.header["config"]
    name: str = loaded.header["model"]
    if name != "fusion":
        return name
    if config.get("posterior") == "xy":
        return "fusion q(x,y)"
    variant = f"{_VARIANTS[config['aggregation']]}Agg{config['aggregate'].capitalize()}"
    return name if variant == "MaxAggAdd" else variant


def _sentence(name: str, progress: Callable[[str], None]) -> Callable[[dict[str, Any]], None]:
    def say(row: dict[str, Any]) -> None:
        nll = "" if row["nll"] is None else f", nll {row['nll']:.4f} bits a dimension"
        progress(f"{name}, {row['frames']} frames: mse_min {row['mse_min']:.5f}{nll} in {row['seconds']:.0f} s")

    return say
