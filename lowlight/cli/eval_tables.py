"""What `lowlight eval` says on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from lowlight.cli.streams import visible
from lowlight.cli.tables import add_names, add_numbers, plain, show

if TYPE_CHECKING:
    from lowlight.report.tables import Table


def print_report(report: dict[str, Any]) -> None:
    """Print one method's photos and mean, and the groups where there is more than one."""
    from lowlight.report.tables import group_table, measures, oracle_table, photos_table, seconds_table

    photos, mean = photos_table(report), report["mean"]
    last = (f"mean of {mean['count']}", *[""] * (len(photos.columns) - 1 - len(measures(mean))), *measures(mean))
    print_table(photos, caption=_caption(report), last=last)
    if "statistics" in report:
        groups = [group_table([report], key) for key in ("by_ratio", "by_iso")]
        several = (group for group in groups if len(group.rows) > 1)
        for table in (seconds_table([report]), *several, oracle_table([report])):
            if table:
                print_table(table)


def print_reports(reports: Sequence[dict[str, Any]], versions: Sequence[dict[str, Any]]) -> None:
    """Print several methods as rows, the versions of models, and the groups."""
    from lowlight.report.tables import group_table, methods_table, oracle_table, seconds_table, versions_table

    print_table(methods_table(reports), caption=_where(reports[0]["settings"]))
    groups = [group_table(reports, key) for key in ("by_ratio", "by_iso")]
    tables = [
        versions_table(versions) if versions else None,
        seconds_table(reports),
        *(group for group in groups if len({row[0] for row in group.rows}) > 1),
        oracle_table(reports),
    ]
    for table in tables:
        if table:
            print_table(table)


def print_problems(report: dict[str, Any]) -> None:
    """Say on the standard error which rows failed and which pictures had no partner."""
    for row in report["rows"]:
        if "error" in row:
            typer.echo(visible(f"{row.get('dark') or row.get('picture')}: {row['error']}"), err=True)
    for side, names in report.get("unmatched", {}).items():
        if names:
            folder = report["settings"][side]
            typer.echo(visible(f"not scored, no partner of that name for {', '.join(names)} in {folder}"), err=True)


def print_table(table: "Table", *, caption: str = "", last: tuple[str, ...] | None = None) -> None:
    """Print a table with its note; `last` is a row below a line."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Grid

    about = plain(" ".join(filter(None, (caption, table.note))))
    grid = Grid(title=plain(table.title), title_justify="left", caption=about, caption_justify="left", box=SIMPLE_HEAD)
    for place, (title, number) in enumerate(table.columns):
        if number:
            add_numbers(grid, title)
        else:
            add_names(grid, title, max((len(row[place]) for row in table.rows), default=0))
    for row in table.rows:
        grid.add_row(*map(plain, row))
    if last:
        grid.add_section()
        grid.add_row(*map(plain, last), style="bold")
    show(grid)


def _where(settings: dict[str, Any]) -> str:
    where = f"{settings['pairs']} pairs, protocol {settings['protocol']}, compared at {settings['size']} size."
    return f"{where} Scored is {settings['views']}." if settings.get("views") else where


def _caption(report: dict[str, Any]) -> str:
    settings, mean = report["settings"], report["mean"]
    about = "Colour is the CIEDE2000 error of 32x32 block means."
    if mean["infinite_psnr"]:
        about += f" {mean['infinite_psnr']} identical pairs (infinite PSNR) are not in the mean PSNR."
    if "size" in settings:
        about = f"{settings['name']}, {_where(settings)} {about}"
    if settings.get("chosen"):
        about += f" These weights were {settings['chosen']}."
    return about
