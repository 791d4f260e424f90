"""`lowlight check-pairs`: find pairs that are moved, mixed up or mislabelled."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lowlight.cli.progress import with_progress
from lowlight.cli.tables import add_names, add_numbers, plain, show
from lowlight.core.errors import UsageError

if TYPE_CHECKING:
    from lowlight.workflows.pairing.check_pairs import PairCheck


def check_pairs_command(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A CSV manifest, a folder with SID's names, or a cache.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            envvar="LOWLIGHT_CHECK_OUTPUT",
            help="Write the pairs that are not fine as an exclude file.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", envvar="LOWLIGHT_CHECK_SPLIT", help="train, val or test only."),
    ] = None,
    burst: Annotated[
        Literal["first", "any"],
        typer.Option(envvar="LOWLIGHT_CHECK_BURST", help="All frames of a burst, or the first alone."),
    ] = "any",
    exclude: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="LOWLIGHT_CHECK_EXCLUDE", help="Pairs not to look at, as -o writes them."),
    ] = None,
    max_shift: Annotated[
        float,
        typer.Option(min=0, metavar="PX", envvar="LOWLIGHT_CHECK_MAX_SHIFT", help="Shift allowed, packed pixels."),
    ] = 1.0,
    max_level: Annotated[
        float,
        typer.Option(
            min=0, metavar="EV", envvar="LOWLIGHT_CHECK_MAX_LEVEL", help="Allowed between the ratio and the light."
        ),
    ] = 0.5,
    max_exposure: Annotated[
        float,
        typer.Option(
            min=0, metavar="EV", envvar="LOWLIGHT_CHECK_MAX_EXPOSURE", help="Allowed between ratio and exposure times."
        ),
    ] = 0.25,
    jobs: Annotated[int, typer.Option(min=1, envvar="LOWLIGHT_CHECK_JOBS", help="Pairs looked at at a time.")] = 2,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", envvar="LOWLIGHT_OVERWRITE", help="Replace the exclude file if it exists.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="LOWLIGHT_JSON", help="Print a JSON list, a row per pair.")
    ] = False,
) -> None:
    """Find pairs whose files do not lie on each other, show different scenes or have another ratio than they claim.

    Shifts come from phase correlation, levels from the light in both pictures, exposure times from files and names.

    Exit code 1 says that some pairs are not fine.
    """
    if output is not None and output.exists() and not overwrite:
        raise UsageError(f"{output} exists already and may hold lines of yours; choose another name, or --overwrite")
    from lowlight.data.sid import read_exclude_file
    from lowlight.workflows.evaluating.own_inputs import refuse_own_inputs
    from lowlight.workflows.pairing.check_pairs import (
        CheckOptions,
        check_pairs,
        files_read,
        rows_json,
        write_exclude_file,
    )

    if output is not None:
        refuse_own_inputs([output], [*files_read(data, output), *([exclude] if exclude else [])])
    options = CheckOptions(
        split=split,
        burst=burst,
        exclude=read_exclude_file(exclude) if exclude else (),
        max_shift_px=max_shift,
        max_level_ev=max_level,
        max_exposure_ev=max_exposure,
        jobs=jobs,
    )
    rows = with_progress(lambda report: check_pairs(data, options, report))
    if as_json:
        typer.echo(rows_json(rows))
    else:
        _print_rows(rows)
    if output is not None:
        write_exclude_file(output, rows, overwrite=overwrite)
    bad = sum(row.verdict != "ok" for row in rows)
    typer.echo(f"{len(rows)} pairs, {bad} not fine", err=True)
    if bad:
        raise typer.Exit(1)


def _print_rows(rows: "list[PairCheck]") -> None:
    from rich.table import Table

    table = Table(caption="Shift: how far the truth lies down and right, in packed pixels.")
    add_names(table, "dark")
    for title in ("ratio", "measured", "exposures", "shift"):
        add_numbers(table, title)
    add_names(table, "verdict")
    for row in rows:
        shift = "-" if row.shift_px is None else f"{row.shift_px[0]:+.1f} {row.shift_px[1]:+.1f}"
        numbers = (_number(value) for value in (row.ratio, row.measured_ratio, row.exposure_ratio))
        reasons = f": {'; '.join(row.reasons)} (truth {row.bright})"
        verdict = row.verdict if row.verdict == "ok" else row.verdict + reasons
        style = "green" if row.verdict == "ok" else "red"
        table.add_row(plain(row.dark), *numbers, shift, plain(verdict, style))
    show(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
