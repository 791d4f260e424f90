"""What to do where a standard stream is closed, or cannot be written to."""

import os
import re
import sys
from contextlib import suppress
from typing import TextIO


def open_closed_streams() -> None:
    """Give a process without standard streams, as some services are, ones that lead nowhere and hold nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as we run


def escape_unencodable() -> None:
    """Let stdout and stderr write as escapes what their encoding lacks, as a file name may hold it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    """Text of others, such as names in files, with its control characters as escapes: a terminal would obey them."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def mute(stream: TextIO) -> None:
    """Let what a stream still holds lead nowhere: it has refused it, and would again when the process ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
