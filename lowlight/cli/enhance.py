"""`lowlight enhance`: dark RAW photos in, bright pictures out."""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lowlight.cli import enhance_options as typed
from lowlight.cli.bench import print_stages
from lowlight.cli.enhance_output import Report
from lowlight.cli.enhance_values import balance_value, crop_value, format_suffix, listed_names, ratio_value
from lowlight.core.errors import UsageError

if TYPE_CHECKING:
    from lowlight.workflows.enhancing.options import EnhanceOptions
    from lowlight.workflows.enhancing.scenes import Scene


def enhance(
    context: typer.Context,
    paths: typed.Paths = None,
    out: typed.Output = None,
    from_file: typed.FromFile = None,
    recursive: typed.Recursive = False,
    fuse: typed.Fuse = False,
    group: typed.Group = None,
    samples: typed.Samples = 0,
    temperature: typed.Temperature = 1.0,
    fix_from: typed.FixFrom = None,
    seed: typed.Seed = 0,
    overwrite: typed.Overwrite = False,
    dry_run: typed.DryRun = False,
    image_format: typed.ImageFormat = None,
    bits: typed.Bits = None,
    quality: typed.Quality = 95,
    compression: typed.Compression = "zstd",
    size: typed.Size = None,
    crop: typed.Crop = None,
    contact_sheet: typed.ContactSheet = False,
    ratio: typed.Ratio = "auto",
    ev: typed.Stops = 0.0,
    wb: typed.Balance = "camera",
    black: typed.Black = None,
    white: typed.White = None,
    strength: typed.Strength = 1.0,
    levels: typed.Levels = 1,
    weights: typed.Weights = None,
    model: typed.Model = None,
    strategy: typed.Strategy = "baseline",
    ensemble: typed.Ensemble = None,
    detail: typed.Detail = None,
    stride: typed.Stride = None,
    overlap: typed.Overlap = None,
    merge: typed.Merge = None,
    power: typed.Power = None,
    device: typed.Device = "auto",
    precision: typed.Precision = "auto",
    batch: typed.Batch = None,
    jobs: typed.Jobs = 1,
    compile_network: typed.Compile = False,
    profile: typed.Profile = False,
    shard: typed.ShardOption = None,
    ray: typed.Ray = None,
    as_json: typed.AsJson = False,
) -> None:
    """Enhance dark RAW photos: files, folders or patterns; with --fuse or --group several frames make one picture.

    Existing outputs are skipped, originals are never touched, and one bad photo does not stop the rest. Exit code 0:
    all fine, 1: some photos failed, 2: wrong use, 130: interrupted.
    """
    from lowlight.workflows.stopping import stop_on_signal

    if out is None:
        raise UsageError("say where the pictures go with -o FOLDER (or -o FILE for one photo)")
    names = listed_names(paths or [], from_file)
    if not names:
        raise UsageError("name at least one RAW file or folder")
    if profile and ray is not None:
        raise UsageError("--profile times this process alone, and with --ray the work is done by others; drop one")
    with stop_on_signal() as stop:
        from lowlight.core.compute import keep_freed_memory

        keep_freed_memory()
        from lowlight.ops.strategies import choose_tiling
        from lowlight.restorer import RestorerOptions
        from lowlight.workflows.enhancing.inputs import find_photos
        from lowlight.workflows.enhancing.options import EnhanceOptions
        from lowlight.workflows.enhancing.samples import SampleOptions
        from lowlight.workflows.enhancing.scenes import find_scenes
        from lowlight.workflows.sharding import parse_shard
        from lowlight.writers import WriterOptions

        tiling = choose_tiling(strategy, stride=stride, overlap=overlap, merge=merge, power=power)
        options = EnhanceOptions(
            out=out,
            suffix=_suffix(context, image_format, out),
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
            shard=None if shard is None else parse_shard(shard),
            device=device,
            restorer=RestorerOptions(
                grid=tiling.grid,
                merge=tiling.merge,
                power=tiling.power,
                ensemble=ensemble,
                detail=detail,
                strength=strength,
                levels=levels,
                precision=precision,
                batch=batch,
                size=size or "native",
                compile=compile_network,
            ),
            samples=SampleOptions(samples, temperature, seed, fix_from),
            writer=WriterOptions(bits=bits, quality=quality, compression=compression),
        )
        scenes = find_scenes(find_photos(names, recursive=recursive), fuse=fuse, group=group, levels=(black, white))
        total = options.shard.size(len(scenes)) if options.shard else len(scenes)
        with Report(total, as_json=as_json) as report:
            _run(scenes, options, report, lambda: bool(stop), ray, profile)
        report.summary()
        if report.left and stop:
            raise typer.Exit(130)
    if report.count("failed"):
        raise typer.Exit(1)


def _run(
    scenes: "list[Scene]",
    options: "EnhanceOptions",
    report: Report,
    stop: Callable[[], bool],
    ray: str | None,
    profile: bool,
) -> None:
    """Hand the photos to this process or to a cluster; in this process it can be told where the time went."""
    from lowlight.workflows.enhancing.enhance import enhance_files

    if ray is not None:
        from lowlight.workflows.enhancing.ray_job import enhance_on_ray

        # Ray tells of lost workers on stdout, where a list is to be.
        with redirect_stdout(sys.stderr) if report.as_json else nullcontext():
            rows = enhance_on_ray(scenes, options, address=ray, on_row=report.row, on_meter=report.metered, stop=stop)
        report.in_order(rows)
        return
    if not profile:
        enhance_files(scenes, options, on_row=report.row, on_meter=report.metered, on_sheet=report.sheet, stop=stop)
        return
    from lowlight.workflows.benchmarking.stages import staged

    began = time.monotonic()
    with staged() as clock:
        try:
            enhance_files(scenes, options, on_row=report.row, on_meter=report.metered, on_sheet=report.sheet, stop=stop)
        finally:
            print_stages(clock.seconds(), time.monotonic() - began)


def _suffix(context: typer.Context, image_format: str | None, out: Path) -> str | None:
    """The format that was named; that of an output file on the command line goes before the environment's."""
    from lowlight.workflows.enhancing.outputs import is_file_name

    source = getattr(context.get_parameter_source("image_format"), "name", "")
    return None if source == "ENVIRONMENT" and is_file_name(out) else format_suffix(image_format)


def _weights(context: typer.Context, weights: Path | None, model: str | None) -> Path | str | None:
    """The one that was named; the command line goes before the environment."""
    if weights is None or model is None:
        return weights or model
    sources = [getattr(context.get_parameter_source(name), "name", "") for name in ("weights", "model")]
    if sources[0] == sources[1]:
        raise UsageError("give either --weights or --model, not both")
    return weights if sources[0] == "COMMANDLINE" else model
