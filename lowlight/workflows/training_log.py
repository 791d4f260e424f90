"""The loss curves of a run: one JSON object a line, each with its `step` and `elapsed_s`."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from lowlight.core.atomic import write_text
from lowlight.core.config import parse_json
from lowlight.core.errors import ConfigError
from lowlight.report.tables import finite

LOG = "log.jsonl"  # in a run's folder


class TrainingLog:
    """Appends rows to a JSONL file and, for a resumed run, drops the rows that will be written again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: dict[str, Any]) -> None:
        """Write one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows; what is none, such as a line cut short by a killed process, is left out."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ConfigError):
                row = parse_json(line)
                if isinstance(row, dict) and isinstance(row.get("step", 0), int):
                    rows.append(row)
        return rows

    def keep_until(self, step: int) -> None:
        """Drop every row that was written after `step`."""
        if not self.path.exists():
            return
        kept = [_line(row) for row in self.rows() if row.get("step", 0) <= step]
        write_text(self.path, "".join(kept))


def _line(row: dict[str, Any]) -> str:
    """One row as strict JSON, which has null for what is no number."""
    return json.dumps(finite(row), allow_nan=False) + "\n"
