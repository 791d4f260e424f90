"""`lowlight enhance`: dark RAW photos in, bright pictures out."""

from pathlib import Path
from typing import Annotated

import typer

from lowlight.cli.enhance_output import Report
from lowlight.cli.enhance_values import balance_value, crop_value, format_suffix, listed_names, ratio_value
from lowlight.core.errors import UsageError

SELECT, PICTURE, LIGHT, NETWORK = "Which photos", "The picture", "Light and colour", "Network and machine"
SCENES = "Several frames, several pictures"


def enhance(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH...", help="RAW files, folders or patterns; - reads names from stdin."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", envvar="LOWLIGHT_OUTPUT", help="A folder, or a file for one photo."),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            envvar="LOWLIGHT_FROM_FILE",
            help="Read names from a file, one per line; - is stdin.",
            rich_help_panel=SELECT,
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive",
            "-r",
            envvar="LOWLIGHT_RECURSIVE",
            help="Go into folders; the tree is mirrored.",
            rich_help_panel=SELECT,
        ),
    ] = False,
    fuse: Annotated[
        bool,
        typer.Option("--fuse", envvar="LOWLIGHT_FUSE", help="All photos are one scene.", rich_help_panel=SCENES),
    ] = False,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="burst|folder",
            envvar="LOWLIGHT_GROUP",
            help="Bursts that are found, or the photos of each folder, are one scene.",
            rich_help_panel=SCENES,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(envvar="LOWLIGHT_SAMPLES", help="Draw so many hypotheses too.", rich_help_panel=SCENES),
    ] = 0,
    temperature: Annotated[
        float,
        typer.Option(envvar="LOWLIGHT_TEMPERATURE", help="Of the draws; 1 as trained.", rich_help_panel=SCENES),
    ] = 1.0,
    seed: Annotated[int, typer.Option(envvar="LOWLIGHT_SEED", help="Of the draws.", rich_help_panel=SCENES)] = 0,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            envvar="LOWLIGHT_OVERWRITE",
            help="Do photos again whose output exists.",
            rich_help_panel=SELECT,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            envvar="LOWLIGHT_DRY_RUN",
            help="Say what would be done.",
            rich_help_panel=SELECT,
        ),
    ] = False,
    image_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            envvar="LOWLIGHT_FORMAT",
            help="png (default), tiff, jpg, jxl, or dng (linear).",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            envvar="LOWLIGHT_BITS",
            help="8 or 16 bits a channel; without it the most the format has.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    quality: Annotated[
        int,
        typer.Option(envvar="LOWLIGHT_QUALITY", help="Of JPEG and 8-bit JPEG XL, 1 to 100.", rich_help_panel=PICTURE),
    ] = 95,
    size: Annotated[
        str | None,
        typer.Option(
            envvar="LOWLIGHT_SIZE",
            help="full or half of the sensor; without it what the weights give.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            envvar="LOWLIGHT_CROP",
            help="Only this window of the picture, for a quick look.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    contact_sheet: Annotated[
        bool,
        typer.Option(
            "--contact-sheet",
            envvar="LOWLIGHT_CONTACT_SHEET",
            help="Also write sheets with before and after.",
            rich_help_panel=PICTURE,
        ),
    ] = False,
    ratio: Annotated[
        str,
        typer.Option(
            metavar="auto|N|same",
            envvar="LOWLIGHT_RATIO",
            help="Amplification: metered, a number, or one metered ratio for all.",
            rich_help_panel=LIGHT,
        ),
    ] = "auto",
    ev: Annotated[
        float,
        typer.Option(envvar="LOWLIGHT_EV", help="Stops on top of the ratio.", rich_help_panel=LIGHT),
    ] = 0.0,
    wb: Annotated[
        str,
        typer.Option(
            metavar="camera|auto|daylight|R,G,B",
            envvar="LOWLIGHT_WB",
            help="White balance.",
            rich_help_panel=LIGHT,
        ),
    ] = "camera",
    black: Annotated[
        float | None,
        typer.Option(envvar="LOWLIGHT_BLACK", help="Black level, instead of the file's.", rich_help_panel=LIGHT),
    ] = None,
    white: Annotated[
        float | None,
        typer.Option(envvar="LOWLIGHT_WHITE", help="White level, instead of the file's.", rich_help_panel=LIGHT),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            envvar="LOWLIGHT_STRENGTH",
            help="1 is the network's picture, 0 plain amplification.",
            rich_help_panel=LIGHT,
        ),
    ] = 1.0,
    weights: Annotated[
        Path | None,
        typer.Option(envvar="LOWLIGHT_WEIGHTS", help="A weights file.", rich_help_panel=NETWORK),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(envvar="LOWLIGHT_MODEL", help="Shipped weights by their model's name.", rich_help_panel=NETWORK),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            envvar="LOWLIGHT_STRATEGY",
            help="baseline, faster1, faster2 or fastest: grid and merge as published.",
            rich_help_panel=NETWORK,
        ),
    ] = "baseline",
    stride: Annotated[
        int | None,
        typer.Option(envvar="LOWLIGHT_STRIDE", help="Largest step between tiles.", rich_help_panel=NETWORK),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(envvar="LOWLIGHT_OVERLAP", help="Overlap of tiles, instead of a stride.", rich_help_panel=NETWORK),
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(envvar="LOWLIGHT_MERGE", help="idw or feather.", rich_help_panel=NETWORK),
    ] = None,
    power: Annotated[
        float | None,
        typer.Option(min=0, envvar="LOWLIGHT_POWER", help="Of the inverse distance.", rich_help_panel=NETWORK),
    ] = None,
    device: Annotated[
        str,
        typer.Option(envvar="LOWLIGHT_DEVICE", help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=NETWORK),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(envvar="LOWLIGHT_PRECISION", help="auto, fp32, bf16 or fp16.", rich_help_panel=NETWORK),
    ] = "auto",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="LOWLIGHT_BATCH",
            help="Tiles at a time; halved if memory runs out.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            envvar="LOWLIGHT_JOBS",
            help="Threads that read, and as many that write.",
            rich_help_panel=NETWORK,
        ),
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="LOWLIGHT_JSON", help="Print a JSON list, a row per photo.")
    ] = False,
) -> None:
    """Enhance dark RAW photos: files, folders or patterns; with --fuse or --group several frames make one picture.

    Existing outputs are skipped, originals are never touched, and one bad photo does not stop the rest. Exit code 0:
    all fine, 1: some photos failed, 2: wrong use, 130: interrupted.
    """
    from lowlight.workflows.training.stopping import stop_on_signal

    if out is None:
        raise UsageError("say where the pictures go with -o FOLDER (or -o FILE for one photo)")
    names = listed_names(paths or [], from_file)
    if not names:
        raise UsageError("name at least one RAW file or folder")
    with stop_on_signal() as stop:
        from lowlight.core.compute import keep_freed_memory

        keep_freed_memory()
        from lowlight.ops.strategies import choose_tiling
        from lowlight.restorer import RestorerOptions
        from lowlight.workflows.enhancing.enhance import enhance_files
        from lowlight.workflows.enhancing.inputs import find_photos
        from lowlight.workflows.enhancing.options import EnhanceOptions
        from lowlight.workflows.enhancing.samples import SampleOptions
        from lowlight.workflows.enhancing.scenes import find_scenes
        from lowlight.writers import WriterOptions

        tiling = choose_tiling(strategy, stride=stride, overlap=overlap, merge=merge, power=power)
        options = EnhanceOptions(
            out=out,
            suffix=format_suffix(image_format),
            weights=_weights(context, weights, model),
            ratio=ratio_value(ratio),
            ev=ev,
            wb=balance_value(wb),
            black=black,
            white=white,
            crop=crop_value(crop),
            overwrite=overwrite,
            dry_run=dry_run,
            contact_sheet=contact_sheet,
            jobs=jobs,
            device=device,
            restorer=RestorerOptions(
                grid=tiling.grid,
                merge=tiling.merge,
                power=tiling.power,
                strength=strength,
                precision=precision,
                batch=batch,
                size=size or "native",
            ),
            samples=SampleOptions(samples, temperature, seed),
            writer=WriterOptions(bits=bits, quality=quality),
        )
        scenes = find_scenes(find_photos(names, recursive=recursive), fuse=fuse, group=group)
        with Report(len(scenes), as_json=as_json) as report:
            enhance_files(scenes, options, on_row=report.row, on_meter=report.metered, stop=lambda: bool(stop))
        report.summary()
        if report.left and stop:
            raise typer.Exit(130)
    if report.count("failed"):
        raise typer.Exit(1)


def _weights(context: typer.Context, weights: Path | None, model: str | None) -> Path | str | None:
    """The one that was named; the command line goes before the environment."""
    if weights is None or model is None:
        return weights or model
    sources = [getattr(context.get_parameter_source(name), "name", "") for name in ("weights", "model")]
    if sources[0] == sources[1]:
        raise UsageError("give either --weights or --model, not both")
    return weights if sources[0] == "COMMANDLINE" else model
