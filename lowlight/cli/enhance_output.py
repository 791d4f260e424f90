"""What `lowlight enhance` prints: rows as they come on stdout, progress and everything else on stderr."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lowlight.cli.streams import mute, visible
from lowlight.core.errors import LowlightError, OutputError

STATUSES = ("done", "planned", "skipped", "failed")


class Report:
    """Shows a run while it goes on; with `as_json` stdout gets one JSON list at the end, of what was finished."""

    def __init__(self, total: int, *, as_json: bool) -> None:
        self.total, self.as_json = total, as_json
        self.rows: list[dict[str, Any]] = []
        self.unsaid: str | None = None  # why stdout could not be written to
        self._began = time.monotonic()
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # else rows meant for a file would end up on the terminal
        )
        self._metering = self._progress.add_task("metering", total=total, visible=False)
        self._enhancing = self._progress.add_task("enhancing", total=total)

    def __enter__(self) -> "Report":
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the display and print the list, unless nothing could begin."""
        self._progress.stop()
        if self.as_json and not isinstance(error, LowlightError):
            self._say("[" + ",".join("\n" + json.dumps(row, allow_nan=False) for row in self.rows) + "\n]")

    @property
    def left(self) -> int:
        """Photos that have no row yet."""
        return self.total - len(self.rows)

    def count(self, status: str) -> int:
        """Rows of one status."""
        return sum(row["status"] == status for row in self.rows)

    def metered(self, done: int, total: int) -> None:
        """Show how far the pass for one common ratio is."""
        self._progress.update(self._metering, completed=done, visible=done < total)

    def row(self, row: dict[str, Any]) -> None:
        """Show one photo's row."""
        self.rows.append(row)
        self._progress.advance(self._enhancing)
        if self.as_json:
            return
        place = f"{len(self.rows)}/{self.total}"
        if row["status"] == "failed":
            self._note(f"failed   {place} {row['file']}: {row['error']}")
            return
        more = "".join(f" + {name}" for name in row["frames"][1:])
        line = f"{row['status']:8} {place} {row['file']}{more} -> {row['output']}"
        if row["status"] == "skipped":
            line += "  exists already; --overwrite does it again"
        if row["status"] == "done":
            line += f"  x{row['ratio']:.3g} ({row['ratio_source']}), {row['seconds']:.1f} s{self._remaining()}"
        self._say(visible(line))
        # That a skipped photo has its output is in its line.
        for note in row["notes"][1 if row["status"] == "skipped" else 0 :]:
            self._note(f"note     {place} {row['file']}: {note}")

    def in_order(self, rows: list[dict[str, Any]]) -> None:
        """Take the rows in the order of the photos, in place of that in which they were finished."""
        self.rows = rows

    def sheet(self, path: Path) -> None:
        """Say where a contact sheet is."""
        self._note(f"sheet    {path}")

    def summary(self) -> None:
        """Say how it went, and what an interrupted run leaves to do."""
        if self.left:
            kept = self.count("done") + self.count("skipped")
            self._note(f"lowlight: interrupted; {kept} finished photos are kept, the same command does the rest")
        elif self.total > 1 and not self.as_json:
            counts = [(self.count(status), status) for status in STATUSES]
            self._note(", ".join(f"{count} {status}" for count, status in counts if count))
        if self.unsaid:
            raise OutputError(f"what was done could not be written to stdout: {self.unsaid}")

    def _note(self, line: str) -> None:
        """Write to stderr, if anybody reads it and there is room; the photos go on in any case."""
        try:
            typer.echo(visible(line), err=True)
        except OSError:
            mute(sys.stderr)

    def _say(self, line: str) -> None:
        """Write to stdout; where that cannot be, say so once at the end, and let the photos go on.

        A reader that has enough, as `head`, is nothing to speak of.
        """
        try:
            # Not by `typer.echo`, which goes past the progress display and into its bar.
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            mute(sys.stdout)
        except OSError as error:
            self.unsaid = error.strerror or str(error)
            mute(sys.stdout)

    def _remaining(self) -> str:
        """Where no bar tells it: about how long the rest takes."""
        worked = self.count("done") + self.count("failed")
        if not self.left or self._console.is_terminal:
            return ""
        seconds = (time.monotonic() - self._began) / worked * self.left
        return f", {int(seconds) // 60}:{int(seconds) % 60:02} left"
