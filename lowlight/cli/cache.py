"""`lowlight cache`: decode a set of pairs once, to train from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lowlight.cli.progress import with_progress

if TYPE_CHECKING:
    from lowlight.workflows.pairing.cache_options import Forecast


def cache_command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A CSV manifest, or a folder with SID's names.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of the cache; an unfinished one goes on.")],
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", envvar="LOWLIGHT_CACHE_SPLIT", help="train, val or test only."),
    ] = None,
    burst: Annotated[
        Literal["first", "any"],
        typer.Option(envvar="LOWLIGHT_CACHE_BURST", help="All frames of a burst, or the first alone."),
    ] = "any",
    exclude: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="LOWLIGHT_CACHE_EXCLUDE", help="Scenes, files or pairs to leave out, one a line."
        ),
    ] = None,
    truth: Annotated[
        Literal["half", "full"],
        typer.Option(envvar="LOWLIGHT_CACHE_TRUTH", help="Truths at half the sensor's size, or full for upscale 2."),
    ] = "half",
    levels: Annotated[
        str,
        typer.Option(
            metavar="NAME", envvar="LOWLIGHT_CACHE_LEVELS", help="Pin black and white: sony-sid (512 and 16383)."
        ),
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, envvar="LOWLIGHT_CACHE_JOBS", help="Files decoded at a time.")] = 2,
    verify: Annotated[
        bool,
        typer.Option("--verify", envvar="LOWLIGHT_CACHE_VERIFY", help="Hash what is there; decode damaged ones again."),
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", envvar="LOWLIGHT_CACHE_PRUNE", help="Remove what these pairs do not need.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="LOWLIGHT_CACHE_DRY_RUN", help="Say how large it gets and stop.")
    ] = False,
) -> None:
    """Decode the pairs of DATA into OUT: packed frames and truths that training maps into memory.

    The size is printed first; a disk that is too small is refused. An interrupted run goes on with the same command.
    Exit code 1 says that some files could not be decoded, or that the data or the folder cannot be used.
    """
    from lowlight.data.sid import read_exclude_file
    from lowlight.workflows.pairing.cache_options import CacheOptions, size_in_words
    from lowlight.workflows.pairing.cache_pairs import cache_pairs, forecast_cache

    options = CacheOptions(
        split=split,
        burst=burst,
        exclude=read_exclude_file(exclude) if exclude else (),
        truth_size=truth,
        levels=levels,
        jobs=jobs,
        verify=verify,
        prune=prune,
    )
    if dry_run:
        _print_forecast(forecast_cache(data, out, options))
        return

    summary = with_progress(lambda report: cache_pairs(data, out, options, report, _print_forecast))
    removed = f", {summary.removed} removed" if summary.removed else ""
    typer.echo(
        f"{summary.pairs} pairs, {size_in_words(summary.bytes)}: {summary.decoded} files decoded, {summary.kept} kept"
        f"{removed}",
        err=True,
    )
    for file, reason in summary.failed.items():
        typer.echo(f"{file}: {reason}", err=True)
    typer.echo(summary.folder)
    if summary.failed:
        raise typer.Exit(1)


def _print_forecast(forecast: "Forecast") -> None:
    from lowlight.workflows.pairing.cache_options import size_in_words

    typer.echo(
        f"{forecast.pairs} pairs of {forecast.frames} dark frames and {forecast.truths} truths take "
        f"{size_in_words(forecast.bytes)}, {size_in_words(forecast.missing_bytes)} of it still to write; "
        f"{size_in_words(forecast.free_bytes)} are free"
        + (f"; {forecast.unneeded} decoded files are there that they do not need" if forecast.unneeded else ""),
        err=True,
    )
