"""`lowlight eval`: how close enhanced pictures are to the truth."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lowlight.core.errors import UsageError

if TYPE_CHECKING:
    from lowlight.workflows.evaluate import Progress

_TITLES = {"psnr": "PSNR dB", "ssim": "SSIM", "mae": "MAE", "colour_error": "colour"}
_DIGITS = {"psnr": 2, "ssim": 4, "mae": 4, "colour_error": 2}


def evaluate_command(
    context: typer.Context,
    manifest: Annotated[
        Path | None,
        typer.Argument(metavar="MANIFEST", help="CSV of pairs: scene,split,dark,bright,ratio,iso,burst_index."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", envvar="LOWLIGHT_WEIGHTS", help="Weights file to score."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", envvar="LOWLIGHT_MODEL", help="Shipped model to score."),
    ] = None,
    baseline: Annotated[
        Literal["amplified", "wavelet"] | None,
        typer.Option(envvar="LOWLIGHT_BASELINE", help="Score a classical method instead of a network."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            envvar="LOWLIGHT_JSON_FILE",
            help="Write rows, mean and settings to FILE; - for the standard output.",
        ),
    ] = None,
    size: Annotated[
        Literal["half", "full"],
        typer.Option(envvar="LOWLIGHT_SIZE", help="Compare at half the sensor's size (2x2 means), or at full size."),
    ] = "half",
    strategy: Annotated[
        Literal["baseline", "faster1", "faster2", "fastest"],
        typer.Option(envvar="LOWLIGHT_STRATEGY", help="Named grid and merge, from most careful to fastest."),
    ] = "baseline",
    merge: Annotated[
        Literal["idw", "feather"] | None,
        typer.Option(envvar="LOWLIGHT_MERGE", help="How overlapping tiles are merged."),
    ] = None,
    power: Annotated[
        float | None, typer.Option(envvar="LOWLIGHT_POWER", help="Power of the inverse distance of idw.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(metavar="PX", envvar="LOWLIGHT_STRIDE", help="Largest step between tiles, packed pixels."),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(metavar="PX", envvar="LOWLIGHT_OVERLAP", help="Overlap of tiles, packed pixels."),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(envvar="LOWLIGHT_PRECISION", help="Number format of the network."),
    ] = "auto",
    device: Annotated[str, typer.Option(envvar="LOWLIGHT_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    batch: Annotated[int | None, typer.Option(min=1, envvar="LOWLIGHT_BATCH", help="Tiles computed at a time.")] = None,
    pictures: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B",
            envvar="LOWLIGHT_PICTURES",
            help="Score the pictures of folder A against those of the same name in folder B, without a model.",
        ),
    ] = None,
) -> None:
    """Score a network on the pairs of MANIFEST, or two folders of pictures: PSNR, SSIM, MAE and colour error.

    Each dark frame is enhanced by its pair's ratio and compared with the bright picture.

    Exit code 1 says that some pairs could not be scored.
    """
    if (manifest is None) == (pictures is None):
        raise UsageError("Name either a MANIFEST of pairs or two folders with --pictures A B.")
    to_stdout = json_file is not None and str(json_file) == "-"
    if json_file is not None and not to_stdout and not json_file.resolve().parent.is_dir():
        raise UsageError(f"There is no folder {json_file.resolve().parent} to write {json_file.name} into.")
    from lowlight.core.compute import keep_freed_memory
    from lowlight.ops.strategies import choose_tiling
    from lowlight.workflows.evaluate import (
        EvaluateOptions,
        evaluate,
        evaluate_pictures,
        report_json,
        write_report,
    )

    if pictures is not None:
        report = _with_progress(lambda tick: evaluate_pictures(*pictures, progress=tick))
    else:
        assert manifest is not None
        tiling = choose_tiling(
            strategy,
            stride=stride,
            overlap=overlap,
            merge=merge,
            power=power,
        )
        options = EvaluateOptions(
            weights=_named_weights(context, weights, model, baseline),
            baseline=baseline,
            size=size,
            tiling=tiling,
            precision=precision,
            device=device,
            batch=batch,
        )
        keep_freed_memory()
        report = _with_progress(lambda tick: evaluate(manifest, options, tick))
    if json_file is not None and not to_stdout:
        write_report(json_file, report)
    if to_stdout:
        typer.echo(report_json(report), nl=False)
    else:
        _print_report(report)
    _print_problems(report)
    if report["mean"]["failed"]:
        raise typer.Exit(1)


def _named_weights(
    context: typer.Context, weights: Path | None, model: str | None, baseline: str | None
) -> str | Path | None:
    """Choose what to score: the command line beats the environment, and only one of the three may be left."""
    given = {"weights": weights, "model": model, "baseline": baseline}
    named = {name: value for name, value in given.items() if value is not None}
    sources = {name: context.get_parameter_source(name) for name in named}
    typed = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    left = typed or list(named)
    if len(left) > 1:
        raise UsageError(f"Only one of {' and '.join(f'--{name}' for name in left)} can be scored at a time.")
    return None if not left or left[0] == "baseline" else given[left[0]]


def _with_progress(work: "Callable[[Progress], dict[str, Any]]") -> dict[str, Any]:
    """Run `work` with a progress line on the standard error, gone when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=None)
        return work(lambda done, total: bar.update(task, completed=done, total=total))


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows, mean = report["rows"], report["mean"]
    names = [name for name in ("dark", "scene", "ratio", "picture", "reference") if name in rows[0]]
    table = Table(caption=_caption(report))
    for name in names:
        table.add_column(name, justify="right" if name == "ratio" else "left", overflow="fold")
    for title in _TITLES.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        # Text, not str: names from a manifest must not be read as markup.
        about = [Text(f"{row[n]:g}" if isinstance(row[n], float) else str(row[n] or "")) for n in names]
        table.add_row(*about, *_measures(row))
    table.add_section()
    first = f"mean of {mean['count']}"
    table.add_row(first, *[""] * (len(names) - 1), *_measures(mean), style="bold")
    Console().print(table)


def _caption(report: dict[str, Any]) -> str:
    settings, mean = report["settings"], report["mean"]
    about = "Colour is the CIEDE2000 error of 32x32 block means."
    if mean["infinite_psnr"]:
        about += f" {mean['infinite_psnr']} identical pairs (infinite PSNR) are not in the mean PSNR."
    if "size" in settings:
        what = settings.get("baseline") or settings["weights"]
        about = f"{what}, compared at {settings['size']} size. {about}"
    return about


def _measures(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return ["failed", "", "", ""]
    return ["-" if row[name] is None else f"{row[name]:.{_DIGITS[name]}f}" for name in _TITLES]


def _print_problems(report: dict[str, Any]) -> None:
    """Say on the standard error which rows failed and which pictures had no partner."""
    for row in report["rows"]:
        if "error" in row:
            typer.echo(f"{row.get('dark') or row.get('picture')}: {row['error']}", err=True)
    for side, names in report.get("unmatched", {}).items():
        if names:
            folder = report["settings"][side]
            typer.echo(f"not scored, no partner of that name for {', '.join(names)} in {folder}", err=True)
