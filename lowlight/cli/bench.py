"""`lowlight bench`: what a photo, a folder, a network and a training step cost on this machine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lowlight.cli.eval_values import expect_folders
from lowlight.cli.given import typed_option
from lowlight.cli.tables import add_names, add_numbers, show
from lowlight.core.errors import UsageError

WHAT, HOW = "What is measured", "How"


def bench(
    context: typer.Context,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights file instead of the default."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A model of `lowlight models` with random weights instead.")
    ] = None,
    upscale: Annotated[
        int, typer.Option(min=1, max=2, help="Of --model: 1 gives packed size, 2 the sensor's full size.")
    ] = 1,
    megapixels: Annotated[
        str,
        typer.Option(metavar="MP,MP,...", help="Frame sizes; of a folder's photos the first.", rich_help_panel=WHAT),
    ] = "12",
    plain: Annotated[
        bool,
        typer.Option("--plain", help="A plain pipeline too, in turn with ours.", rich_help_panel=WHAT),
    ] = False,
    forward: Annotated[
        bool,
        typer.Option("--forward", help="The network alone, beside matrix products.", rich_help_panel=WHAT),
    ] = False,
    train: Annotated[
        bool,
        typer.Option("--train", help="Training steps, plain 32-bit and ours.", rich_help_panel=WHAT),
    ] = False,
    photos: Annotated[int, typer.Option(min=0, metavar="N", help="A folder of N photos.", rich_help_panel=WHAT)] = 0,
    fed: Annotated[
        bool,
        typer.Option("--fed", help="The N photos from memory to memory too, without files.", rich_help_panel=WHAT),
    ] = False,
    pieces: Annotated[
        bool,
        typer.Option("--pieces", help="Merging tiles, and PNG beside libpng.", rich_help_panel=WHAT),
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST", help="What 16 bits cost on pairs as eval reads them, in dB.", rich_help_panel=WHAT
        ),
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            metavar="megapixels|photos|batch|frames|stride",
            help="Time and memory while one thing grows, instead of all else.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each; medians are shown.", rich_help_panel=HOW)] = 5,
    strategy: Annotated[
        str,
        typer.Option(
            envvar="LOWLIGHT_STRATEGY",
            help="baseline, faster1, faster2 or fastest: grid and merge as published.",
            rich_help_panel=HOW,
        ),
    ] = "baseline",
    jobs: Annotated[
        int,
        typer.Option(
            min=1, envvar="LOWLIGHT_JOBS", help="Reading and writing threads of the folder.", rich_help_panel=HOW
        ),
    ] = 1,
    batch: Annotated[
        int | None, typer.Option(min=1, envvar="LOWLIGHT_BATCH", help="Tiles at a time.", rich_help_panel=HOW)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the network; without it all cores.", rich_help_panel=HOW)
    ] = None,
    device: Annotated[
        str,
        typer.Option(envvar="LOWLIGHT_DEVICE", help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=HOW),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(envvar="LOWLIGHT_PRECISION", help="auto, fp32, bf16 or fp16.", rich_help_panel=HOW),
    ] = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every run as JSON; - is stdout.")
    ] = None,
) -> None:
    """Measure seconds and memory on generated frames, and how far they are from this machine's limit.

    Each measurement is a process of its own; the clock starts when the network is loaded, of a folder before that.
    CPU seconds are the figure to trust where other programs run, and rates on a CPU are per core.
    """
    from lowlight.core.atomic import write_text
    from lowlight.workflows.benchmarking.benchmark import BenchConfig, files_read, run_benchmark
    from lowlight.workflows.evaluating.own_inputs import refuse_own_inputs, refuse_strangers

    _refuse_idle_jobs(context, photos, curve)
    config = BenchConfig(
        weights=weights,
        model=model,
        upscale=upscale,
        megapixels=_sizes(megapixels),
        device=device,
        precision=precision,
        strategy=strategy,
        batch=batch,
        threads=threads,
        repeat=repeat,
        photos=photos,
        fed=fed,
        jobs=jobs,
        plain=plain,
        forward=forward,
        train=train,
        pieces=pieces,
        pairs=pairs,
        curve=curve,
    )
    report_file = None if str(json_file) == "-" else json_file
    if report_file is not None:
        _expect_file(report_file)
        refuse_own_inputs([report_file], files_read(config))
        refuse_strangers([report_file])
    result = run_benchmark(config, on_row=_show_run)
    text = json.dumps(result, indent=1) + "\n"
    if json_file is not None and report_file is None:
        typer.echo(text, nl=False)
        return
    _print_tables(result)
    if report_file is not None:
        write_text(report_file, text)


def _expect_file(path: Path) -> None:
    expect_folders([path])
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file for --json")


def _refuse_idle_jobs(context: typer.Context, photos: int, curve: str | None) -> None:
    """Raise `UsageError` for a typed --jobs that nothing listens to; the environment may mean other commands."""
    if typed_option(context, {"jobs"}) and not photos and curve != "photos":
        raise UsageError("--jobs is about a folder of photos; name how many with --photos, or leave it out")


def _sizes(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"the frame sizes are {text!r}; expected megapixels, as in 3,12") from None


def _show_run(row: dict[str, Any]) -> None:
    at = "" if row["at"] is None else f" {row['at']:g}"
    typer.echo(f"{row['measure']}{at}, {row['side']}, run {row['run'] + 1}", err=True)


# What a line of the summary may hold: how it is called on the terminal, its key, and how it is written.
_FIGURES = (
    ("seconds", "seconds", ".2f"),
    ("CPU seconds", "cpu_seconds", ".2f"),
    ("seconds a megapixel", "seconds_per_mp", ".3f"),
    ("ms a tile", "seconds_per_tile", "ms"),
    ("CPU ms a tile", "cpu_seconds_per_tile", "ms"),
    ("seconds a step", "seconds_per_step", ".3f"),
    ("CPU seconds a step", "cpu_seconds_per_step", ".3f"),
    ("patches a second", "patches_per_second", ".2f"),
    ("images a second", "images_per_second", ".3f"),
    ("network busy", "network_busy", "%"),
    ("tiles", "tiles", ".0f"),
    ("frames fused", "frames", ".0f"),
    ("ms on the device", "device_seconds", "ms"),
    ("peak MiB", "peak_mib", ".0f"),
    ("MiB a megapixel", "mib_per_mp", ".1f"),
    ("network, GFLOP/s", "gflops", ".0f"),
    ("matrix rate, GFLOP/s", "limit_gflops", ".0f"),
    ("share of it", "share_of_limit", "%"),
    ("not the network", "not_network", "%"),
    ("merge, CPU ms", "merge_cpu_ms", ".1f"),
    ("16-bit PNG, CPU ms", "png_cpu_ms", ".1f"),
    ("libpng level 6, CPU ms", "libpng_cpu_ms", ".0f"),
    ("PNG faster than libpng", "png_faster", ".1f"),
    ("PNG size of libpng's", "png_size", ".3f"),
    ("pairs", "pairs", ".0f"),
    ("PSNR in 32 bits, dB", "psnr_fp32", ".3f"),
    ("PSNR in 16 bits, dB", "psnr", ".3f"),
    ("lost, dB", "psnr_lost", ".4f"),
    ("lost at most, dB", "psnr_lost_most", ".4f"),
    ("times faster", "faster", ".2f"),
    ("times less CPU", "faster_cpu", ".2f"),
    ("of the memory", "memory", ".2f"),
)


def _print_tables(result: dict[str, Any]) -> None:
    """One table for each measure: a line for each figure, a column for each side and size; stages last."""
    from rich.table import Table

    told = ", ".join(f"{name} {value}" for name, value in result["machine"].items() if value is not None)
    typer.echo(told)
    lines = result["summary"]
    for measure in dict.fromkeys(line["measure"] for line in lines):
        chosen = [line for line in lines if line["measure"] == measure]
        table = Table(title=f"{measure}, medians of {chosen[0]['runs']}")
        add_names(table, "")
        sides = {line["side"] for line in chosen}
        for line in chosen:
            at = "" if line["at"] is None else f"{line['at']:g}"
            add_numbers(table, f"{line['side']} {at}".strip() if len(sides) > 1 or not at else at)
        for title, key, form in _FIGURES:
            if any(line.get(key) is not None for line in chosen):
                table.add_row(title, *(_written(line.get(key), form) for line in chosen))
        for name in dict.fromkeys(name for line in chosen for name in line.get("stages", {})):
            table.add_row(f"  {name}, s", *(_written(line["stages"].get(name), ".3f") for line in chosen))
        show(table)


def print_stages(seconds: dict[str, float], wall_s: float) -> None:
    """Say on stderr where the time of a run went; stages of different threads overlap, so shares may pass 100 %."""
    told = ", ".join(f"{name} {value:.2f} s ({100 * value / wall_s:.1f} %)" for name, value in seconds.items())
    typer.echo(f"lowlight: {wall_s:.2f} s, of which {told or 'nothing was measured'}", err=True)


def _written(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    if form == "%":
        return f"{100 * value:.1f} %"
    return f"{1e3 * value:.1f}" if form == "ms" else f"{value:{form}}"
