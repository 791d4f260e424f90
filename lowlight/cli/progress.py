"""A progress line for commands that count what they have done."""

import os
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
Report = Callable[[int, int], None]  # done, in all


def with_progress(work: Callable[[Report], Result]) -> Result:
    """Run `work` with a progress line on the standard error, gone when it is done; of several processes the first."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    errors = Console(stderr=True)
    hidden = not errors.is_terminal or os.environ.get("RANK", "0") != "0"
    with Progress(*columns, console=errors, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=None)
        return work(lambda done, total: bar.update(task, completed=done, total=total))
