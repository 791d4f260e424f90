"""Options of `lowlight eval` that say nothing about what is scored, or that contradict one another."""

import typer

from lowlight.cli.given import typed_option
from lowlight.core.errors import UsageError

ENSEMBLES = (1, 2, 4, 8)
# What means something to networks on pictures; the rest of the options is about RAW photos.
IMAGE_OPTIONS = {
    "data",
    "weights",
    "split",
    "seed",
    "device",
    "json_file",
    "rows_files",
    "figures",
    "samples",
    "images",
}
PICTURES_OPTIONS = {"pictures", "json_file"}  # what means something to two folders of pictures
TILINGS = {"strategy", "stride", "overlap", "merge", "power"}
NETWORK_OPTIONS = TILINGS | {
    *("versions", "oracle_posterior", "strategies", "frames", "ensemble", "detail", "precision", "batch"),
}


def refuse_idle_options(context: typer.Context, baseline: str | None) -> None:
    """Refuse options on the command line that say nothing about folders of pictures, or about a baseline.

    So are a named strategy beside `--strategies`, and a number of views that there is not.
    """
    given = context.params
    if given["pictures"] is not None and (option := typed_option(context, given.keys() - PICTURES_OPTIONS)):
        raise UsageError(
            f"{option} says nothing about two folders of pictures, which have a table and --json; leave it."
        )
    if baseline is not None and (option := typed_option(context, NETWORK_OPTIONS)):
        raise UsageError(f"{option} is about networks, and the baseline {baseline} is none; leave it.")
    if given["strategies"] is not None and (option := typed_option(context, TILINGS)):
        raise UsageError(f"--strategies names whole tilings; leave out {option}.")
    if given["ensemble"] not in (None, *ENSEMBLES):
        raise UsageError(f"--ensemble is {given['ensemble']}; expected {', '.join(map(str, ENSEMBLES))}.")


def refuse_raw_options(context: typer.Context) -> None:
    """Refuse options on the command line that say nothing about networks on pictures."""
    if option := typed_option(context, context.params.keys() - IMAGE_OPTIONS):
        raise UsageError(f"{option} is about RAW photos, and these are weights of a network on pictures; leave it.")
