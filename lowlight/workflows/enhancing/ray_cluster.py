"""A Ray cluster to work on: found, or started on this machine."""

import os
import signal
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from lowlight.core.errors import UsageError

ANSWER_S = 5.0  # for a cluster to take a connection


def import_ray() -> Any:
    """Give the package; `UsageError` where it is missing."""
    missing = "--ray needs the package ray; install it with pip install 'ray>=2.40'"
    try:
        # An extra: types are checked with and without it.
        import ray  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UsageError(missing) from error
    if not hasattr(ray, "init"):  # a folder of that name lies where Python looks for packages
        raise UsageError(missing)
    return ray


def connect(ray: Any, address: str) -> bool:
    """Connect to a cluster, or start one here; whether the connection is ours to end.

    `address` is `HOST:PORT`, `local` for a new one on this machine, or `auto`: the one that RAY_ADDRESS names, else
    the one that `ray start` left here, else a new one. Raises `UsageError` where nothing answers.
    """
    if ray.is_initialized():
        return False
    if address == "auto":
        # Ray's own `auto` would also take the private cluster of another run on this machine, and end with it.
        address = os.environ.get("RAY_ADDRESS", "")
        if address in ("", "auto"):
            started = _started_here()
            address = started if started and _answers(started) else "local"
    if not _answers(address):
        raise UsageError(f"no Ray cluster answers at {address!r}; expected auto, local or HOST:PORT")
    quiet = {"log_to_driver": False, "configure_logging": False}
    # Ray puts its own handlers in place of those that stop a run.
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if in_main else {}
    try:
        ray.init(address=address, **quiet, **({"include_dashboard": False} if address == "local" else {}))
    except Exception as error:  # Ray raises what it likes here, plain exceptions too
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"no Ray cluster answers at {address!r} ({reason}); expected auto, local or HOST:PORT"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return True


def _started_here() -> str | None:
    """Where the cluster is that `ray start` has started on this machine or connected it to."""
    with suppress(OSError):
        folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
        return (folder / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip() or None
    return None


def _answers(address: str) -> bool:
    """Whether anybody takes connections at `HOST:PORT`, which Ray would wait minutes for; other forms are Ray's."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S):
            return True
    except (OSError, OverflowError):
        return False
