"""Tables on stdout: folded to a terminal's width where they can be, whole in files and pipes, which have none."""

from typing import TYPE_CHECKING

from lowlight.cli.streams import visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

FOLDED = 16  # characters of a name that stay in one line however narrow a terminal is
MOST = 10_000  # characters of a line in a file


def plain(text: str, style: str = "") -> "Text":
    """What others have named: no markup, and nothing that a terminal would obey."""
    from rich.text import Text

    return Text(visible(text), style=style)


def add_names(table: "Table", title: str, widest: int = FOLDED) -> None:
    """Add a column of names, which a narrow terminal folds, but never to less than its title."""
    table.add_column(plain(title), overflow="fold", min_width=max(len(title), min(widest, FOLDED)))


def add_numbers(table: "Table", title: str) -> None:
    """Add a column of numbers, which stay whole."""
    table.add_column(plain(title), justify="right", no_wrap=True)


def show(table: "Table") -> None:
    """Print a table. Where a terminal is too narrow even for its numbers, it breaks the lines, and nothing is lost."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    folding = [column for column in table.columns if column.overflow == "fold"] if console.is_terminal else []
    for column in folding:
        column.max_width = column.min_width
    needed = Measurement.get(console, console.options.update(width=MOST), table).maximum
    for column in folding:
        column.max_width = None
    console.width = max(console.width, needed)
    console.print(table)
