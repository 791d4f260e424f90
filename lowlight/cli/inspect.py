"""`lowlight inspect`: what RAW files say, and whether they can be enhanced."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lowlight.cli.tables import plain


def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="RAW files to look at.")],
    as_json: Annotated[
        bool, typer.Option("--json", envvar="LOWLIGHT_JSON", help="Print a JSON list, one object per file.")
    ] = False,
) -> None:
    """Print levels, colours and exposure of RAW FILEs, and whether and why not each can be enhanced.

    Exit code 1 says that some cannot.
    """
    from lowlight.workflows.inspect import inspect_file

    rows = []
    for file in files:
        rows.append(inspect_file(file))
        if not as_json:
            _print_row(rows[-1])
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def _print_row(row: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(plain(row["file"], "bold"), soft_wrap=True)
    if not row["ok"]:
        console.print(Text.assemble(("  cannot be enhanced: ", "red"), plain(row["reason"])), soft_wrap=True)
        return
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _lines(row):
        table.add_row(Text(key, style="dim"), plain(value))
    console.print(table)
    for note in row["notes"]:
        console.print(Text.assemble(("  note: ", "yellow"), plain(note)), soft_wrap=True)
    console.print(Text("  can be enhanced", style="green"))


def _lines(row: dict[str, Any]) -> list[tuple[str, str]]:
    seconds, gps = row["exposure_s"], row["gps"]
    exposure = [
        _shutter(seconds) if seconds else "",
        f"f/{row['aperture']:.3g}" if row["aperture"] else "",
        f"ISO {row['iso']:g}" if row["iso"] else "",
        f"{row['focal_length_mm']:g} mm" if row["focal_length_mm"] else "",
    ]
    wb = " ".join(f"{gain:.3f}" for gain in row["wb"])
    lines = {
        "camera": row["camera"] or "unknown",
        "lens": row["lens"],
        "exposure": ", ".join(part for part in exposure if part) or "unknown",
        "taken": row["taken_at"],
        "position": gps and f"{gps['latitude']:.5f}, {gps['longitude']:.5f}",
        "size": f"{row['width']} x {row['height']}, {row['pattern']}, orientation {row['orientation']}",
        "black": f"{_same(row['black'])} ({row['black_source']})",
        "white": _same(row["white"]),
        "white balance": f"{wb} ({row['wb_source']}; R G1 B G2)",
        "colour matrix": "yes" if row["camera_to_srgb"] else "none",
    }
    return [(key, value) for key, value in lines.items() if value]


def _same(values: list[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{value:g}" for value in values)


def _shutter(seconds: float) -> str:
    return f"1/{1 / seconds:.0f} s" if seconds < 0.3 else f"{seconds:g} s"
