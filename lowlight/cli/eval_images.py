"""What `lowlight eval` does with weights of networks on finished pictures, such as digits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from lowlight.cli.eval_tables import print_table
from lowlight.cli.progress import with_progress
from lowlight.core.errors import UsageError

SPLITS = {"train": ("train",), "val": ("validation",), "test": ("test",), None: None}  # None: what fits the weights


def evaluate_image_weights(
    weights: Sequence[Path],
    data: Path,
    *,
    split: str | None,
    seed: int,
    device: str,
    json_file: Path | None,
    rows_files: Sequence[Path],
    figures: Path | None,
    samples: int | None = None,
    images: int | None = None,
) -> None:
    """Score weights files or runs' folders on a folder of pictures, print and write what was asked for.

    With `samples` or `images` networks that fuse pictures get the whole measures; else all get the quick look.
    """
    whole = samples is not None or images is not None
    if split not in SPLITS or (whole and split == "test"):
        raise UsageError(f"there is no split {split!r} of these pictures; there are train, val and, of some, test")
    from lowlight.core.atomic import write_text
    from lowlight.report.tables import finite, plain_rows_as_csv, plain_rows_as_jsonl
    from lowlight.workflows.evaluating.image_models import check_figures, draw_figures, evaluate_images, files_read
    from lowlight.workflows.evaluating.own_inputs import refuse_own_inputs, refuse_strangers

    report_file = None if str(json_file) == "-" else json_file
    written = [*([report_file] if report_file else []), *rows_files]
    refuse_own_inputs(written, files_read(weights, data))
    refuse_strangers(written)
    if figures is not None:
        check_figures(weights, figures)
    if whole:
        from lowlight.workflows.evaluating.fusion_tables import evaluate_fusion

        rows = evaluate_fusion(
            weights,
            data,
            samples=samples,
            images=images,
            split="train" if split == "train" else "validation",
            seed=seed,
            device=device,
            progress=lambda sentence: typer.echo(sentence, err=True),
        )
    else:
        rows = with_progress(
            lambda tick: evaluate_images(weights, data, seed=seed, splits=SPLITS[split], device=device, progress=tick)
        )
    rows = finite(rows)
    text = json.dumps({"table": rows}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    to_stdout = report_file is None and json_file is not None
    if to_stdout:
        typer.echo(text, nl=False)
    else:
        (_print_fusion if whole else _print_scored)(rows)
    if report_file is not None:
        write_text(report_file, text)
    for path in rows_files:
        write_text(path, (plain_rows_as_csv if path.suffix.lower() == ".csv" else plain_rows_as_jsonl)(rows))
    if figures is not None:
        for path in draw_figures(weights, data, figures, seed=seed):
            typer.echo(path, err=to_stdout)


def _print_scored(rows: Sequence[dict[str, Any]]) -> None:
    """Print the tables that some datasets have of their own, and one for all others."""
    from lowlight.workflows.evaluating.image_models import tables_of

    tables, others = tables_of(rows)
    for table in tables:
        print_table(table)
    _print_scores(others)


def _print_scores(rows: Sequence[dict[str, Any]]) -> None:
    """Print one line a network: its errors beside the published ones; then what else was measured."""
    for title in dict.fromkeys(row["title"] for row in rows):
        alike = [row for row in rows if row["title"] == title]
        presets = ["preset"] if any(row["preset"] for row in alike) else []
        numbers = ("epochs", "train", "published", "val", "published")
        _print_table(title, ("network", *presets), numbers, [_cells(row, bool(presets)) for row in alike])
        split = "validation" if "validation" in alike[0] else "train"
        others = list(dict.fromkeys(name for row in alike for name in row[split] if name != row["measure"]))
        if others:
            lines = [[row["name"], *(_number(row[split].get(name)) for name in others)] for row in alike]
            _print_table(f"Also measured, {split} images", ("network",), others, lines)
    if any(row["chosen"] for row in rows):
        typer.echo("* chosen by its score on the validation images, which flatters it.")


def _print_fusion(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each number of frames: what was measured in 1e-2, and the paper's numbers."""
    first, samples = rows[0], max(row["samples"] for row in rows)
    published = {row.get("published_samples", samples) for row in rows} - {samples}
    theirs = f" (published: {', '.join(map(str, sorted(published)))})" if published else ""
    title = (
        f"{first['images']} {first['split']} images of {first['data']}, {samples} samples{theirs}; "
        "NLL in 1e-2 bits a dimension, MSE_min in 1e-2"
    )
    names = ("network", "frames")
    numbers = ("epochs", "minutes", "NLL", "+-", "published", "MSE_min", "+-", "published")
    lines = []
    for row in rows:
        lines.append([row["name"], str(row["frames"]), *(str(row["trained"].get(n, "-")) for n in numbers[:2])])
        for measure in ("nll", "mse_min"):
            for key in (measure, f"{measure}_error", f"published_{measure}"):
                value = row.get(key)
                lines[-1].append(
                    "-" if value is None else f"{100 * value:.3f}" if "err" in key else f"{100 * value:.2f}"
                )
    _print_table(title, names, numbers, lines)


def _print_table(title: str, names: Sequence[str], numbers: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from lowlight.report.tables import Table

    columns = (*((name, False) for name in names), *((name, True) for name in numbers))
    print_table(Table(title, columns, tuple(map(tuple, lines))))


def _cells(row: dict[str, Any], with_preset: bool) -> list[str]:
    measure, published = row["measure"], row.get("published", {})
    epochs = row["trained"].get("epochs")
    cells = [row["name"] + (" *" if row["chosen"] else ""), *([row["preset"] or "-"] if with_preset else [])]
    cells.append("-" if epochs is None else str(epochs))
    for split in ("train", "validation"):
        cells += [_number(row.get(split, {}).get(measure)), _number(published.get(split))]
    return cells


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) < 1:
        return f"{value:.4f}"
    return str(int(value)) if float(value).is_integer() else f"{value:.2f}"
