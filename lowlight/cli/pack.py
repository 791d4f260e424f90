"""`lowlight pack`: photos and validation pairs into one file."""

from pathlib import Path
from typing import Annotated

import typer


def pack(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS", help="A folder of clean photos.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="The file to write.")],
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs", envvar="LOWLIGHT_PACK_PAIRS", metavar="CSV", help="A manifest of real pairs to score on."
        ),
    ] = None,
    max_mib: Annotated[
        float | None,
        typer.Option("--max-mib", envvar="LOWLIGHT_PACK_MAX_MIB", metavar="N", help="Leave out photos beyond this."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", envvar="LOWLIGHT_OVERWRITE", help="Replace OUT.zip if it exists.")
    ] = False,
) -> None:
    """Pack PHOTOS, and pairs to validate on, into one file a machine without RAW libraries can train from."""
    from lowlight.workflows.training.pack import pack_files

    packed = pack_files(photos, out, pairs, max_mib, overwrite=overwrite)
    typer.echo(
        f"{packed.photos} photos ({packed.held_out} held out of training) and {packed.pairs} pairs, "
        f"{packed.bytes / 2**20:.1f} MiB",
        err=True,
    )
    if packed.left_out:
        typer.echo(f"{packed.left_out} photos left out to stay within {max_mib:g} MiB", err=True)
    if packed.unusable:
        typer.echo(f"{packed.unusable} photos left out because they are unreadable or too small", err=True)
    typer.echo(packed.path)
