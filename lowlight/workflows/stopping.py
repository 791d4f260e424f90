"""Ending long work cleanly when a signal asks for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopFlag:
    """True once a signal asked the work to end; `signal` is its number."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a flag while the block runs; a second one ends the program at once.

    Outside the main thread signals cannot be handled, and the flag stays down.
    """
    flag = StopFlag()
    received = 0  # by this process; the flag may have gone up for a signal to another one of its team

    def note(number: int, frame: Any) -> None:
        nonlocal received
        received += 1
        if received > 1:
            raise KeyboardInterrupt
        flag.signal = number

    previous: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                previous[number] = signal.signal(number, note)
            except ValueError:  # not in the main thread: signals are somebody else's business
                break
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
