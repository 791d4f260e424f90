"""`lowlight models`: the models there are, or what a weights file says about itself."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lowlight.cli.tables import add_names, add_numbers, plain, show


def models(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="Weights: a file, a run's folder or a shipped name; the header is printed."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="LOWLIGHT_JSON", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """List the models with their parameters and multiply-accumulates, or print a weights FILE's header."""
    if file is not None:
        from lowlight.checkpoint import find_weights, read_header

        header = read_header(find_weights(file))
        _print_json(header) if as_json else _print_header(file, header)
        return
    from lowlight.workflows.models import list_models

    rows = list_models()
    _print_json(rows) if as_json else _print_models(rows)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_models(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(
        caption="Prior and decoder, for one tile of 256 x 256 packed pixels; G = 10^9. Networks on pictures: all "
        "parameters.",
    )
    table.add_column("model", no_wrap=True)
    for title in ("parameters", "GMACs", "as published"):
        add_numbers(table, title)
    add_names(table, "")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['parameters']:,}".replace(",", " "),
            *(f"{row[key] / 1e9:.3f}" if row[key] else "-" for key in ("macs", "macs_published_convention")),
            row["summary"],
        )
    show(table)


def _print_header(file: Path, header: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=plain(file.name), show_header=False)
    table.add_column(no_wrap=True)
    add_names(table, "")
    for key, value in _flatten(header):
        table.add_row(plain(key), plain(value))
    show(table)


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += _flatten(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)))
    return lines
