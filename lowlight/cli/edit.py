"""`lowlight edit`: a photo's coarse picture out, painted in any editor, and the photo rendered anew from it."""

from pathlib import Path
from typing import Annotated

import typer

from lowlight.cli.enhance_values import ratio_value
from lowlight.cli.given import typed_option
from lowlight.core.errors import UsageError


def edit(
    context: typer.Context,
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A RAW file.")],
    export_to: Annotated[
        Path | None,
        typer.Option("--export", metavar="PNG", help="Write the coarse picture here, to be painted."),
    ] = None,
    import_from: Annotated[
        Path | None,
        typer.Option("--import", metavar="PNG", help="The painted picture; its .json must lie beside it."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the edited picture goes.")
    ] = None,
    level: Annotated[
        int,
        typer.Option(envvar="LOWLIGHT_LEVEL", help="To export: 1 is full size, each further one half of it."),
    ] = 3,
    samples: Annotated[
        int, typer.Option(envvar="LOWLIGHT_EDIT_SAMPLES", help="Draw the detail so many times more.")
    ] = 0,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MASK:SAMPLE",
            help="Show the sample of this number (0: no draw) where the picture MASK, as large as the painted one, is "
            "white. Repeatable; where masks overlap the last lies on top.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, envvar="LOWLIGHT_SEED", help="Of the samples.")] = 0,
    ratio: Annotated[
        str,
        typer.Option(
            metavar="auto|N", envvar="LOWLIGHT_RATIO", help="Amplification of an export, metered or a number."
        ),
    ] = "auto",
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="LOWLIGHT_EDIT_WEIGHTS", help="Weights of a pyramid.")
    ] = None,
    device: Annotated[str, typer.Option(envvar="LOWLIGHT_DEVICE", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(envvar="LOWLIGHT_PRECISION", help="auto, fp32, bf16 or fp16.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over files that exist.")] = False,
) -> None:
    """Repair the colours of PHOTO at a coarse level and let the network redo the detail.

    With --export the coarse picture of the result is written; paint or grade it in any program, keeping its size and
    name. With --import the photo is rendered from it; what was not touched stays as it was. With --region each mask
    shows a sample of its own, and what lies in none of them stays as it was.
    """
    if (export_to is None) == (import_from is None):
        raise UsageError("say either --export PNG, to get a picture to paint, or --import PNG -o FILE, to render it")
    if import_from is not None and out is None:
        raise UsageError("say where the edited picture goes with -o FILE")
    if export_to is not None and (out is not None or samples or region):
        raise UsageError("-o, --samples and --region belong to --import; an export writes the one picture it names")
    if import_from is not None and (option := typed_option(context, ("level", "ratio"))):
        raise UsageError(f"{option} belongs to --export; an import takes it from the picture's .json, so leave it")
    from lowlight.workflows.enhancing.options import LARGEST_RATIO

    amplification = ratio_value(ratio)
    if amplification == "same" or (isinstance(amplification, float) and not 0 < amplification <= LARGEST_RATIO):
        raise UsageError(f"--ratio is {ratio!r}; expected auto, or a number above 0 and at most {LARGEST_RATIO:.0f}")
    from lowlight.core.compute import keep_freed_memory

    keep_freed_memory()
    from lowlight.workflows.editing.files import export_coarse, import_coarse
    from lowlight.workflows.editing.pyramid import EditOptions
    from lowlight.workflows.editing.regions import parse_region

    regions = [parse_region(text) for text in region or ()]
    options = EditOptions(weights=weights, device=device, precision=precision, overwrite=overwrite)
    if export_to is not None:
        exported = export_coarse(
            photo, export_to, level, None if isinstance(amplification, str) else amplification, options
        )
        typer.echo(f"{exported.picture}  {exported.width}x{exported.height}, level {level}, ratio {exported.ratio:.4g}")
        typer.echo(f"Paint it, keep {exported.sidecar.name} beside it, and render it with --import.")
        return
    assert import_from is not None and out is not None
    imported = import_coarse(photo, import_from, out, options, samples=samples, seed=seed, regions=regions)
    for path in imported.pictures:
        typer.echo(str(path))
    if imported.painted_share == 0:
        what = "only detail is new, where the masks are" if regions else "the picture is the unedited result"
        typer.echo(f"Nothing was painted: {what}.")
    else:
        typer.echo(f"{imported.painted_share:.1%} of the coarse picture was painted.")
    if imported.left_share:
        typer.echo(
            f"{imported.left_share:.1%} of what was painted lies in none of the masks and is not in the picture."
        )
