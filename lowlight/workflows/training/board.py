"""Scalars for TensorBoard, where it is installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any


class Board:
    """Writes the numbers of log rows as TensorBoard scalars into the run's folder; does nothing without TensorBoard.

    A resumed run hides what was written after the step it goes on from.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        make: Any = SummaryWriter
        self._writer = make(str(folder), purge_step=step + 1)

    def add(self, row: dict[str, Any]) -> None:
        """Write one row of the log; nested numbers go under their name."""
        if self._writer is None:
            return
        for key, value in row.items():
            for name, number in (
                ((f"{key}/{inner}", number) for inner, number in value.items())
                if isinstance(value, dict)
                else ((f"training/{key}", value),)
            ):
                if key != "step" and isinstance(number, int | float):
                    self._writer.add_scalar(name, number, row["step"])

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
