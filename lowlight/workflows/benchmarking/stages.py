"""Where the seconds go, stage by stage, measured from outside: the code that is timed carries no clocks."""

import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch

from lowlight.core.compute import wait_for

STAGES = (
    "load",
    "read",
    "align",
    "meter",
    "upload",
    "pack",
    "network",
    "batch",
    "merge",
    "detail",
    "develop",
    "download",
    "encode",
)


class Point(NamedTuple):
    """A function of a stage, by the name it is called under; a `lazy` one gives its work piece by piece."""

    stage: str
    module: str
    name: str
    lazy: bool = False


_ENHANCING = "lowlight.workflows.enhancing"
POINTS = (
    Point("load", f"{_ENHANCING}.enhancer", "load_weights"),
    Point("read", f"{_ENHANCING}.reading", "read_raw"),
    Point("align", f"{_ENHANCING}.reading", "align"),
    Point("meter", f"{_ENHANCING}.reading", "meter_scene"),
    Point("pack", "lowlight.tile_source", "TileSource.tiles", lazy=True),  # and amplify
    Point("pack", "lowlight.tile_source", "TileSource.stacks", lazy=True),
    Point("network", "lowlight.tile_batches", "BatchRunner._restore"),
    Point("batch", "lowlight.tile_batches", "BatchRunner.images", lazy=True),  # what handing tiles to and fro takes
    Point("batch", "lowlight.tile_batches", "BatchRunner.stacks", lazy=True),
    Point("merge", "lowlight.ops.blending", "BandBlender.merge", lazy=True),
    Point("merge", "lowlight.device_restorer", "merge_tensors"),
    Point("detail", "lowlight.restorer", "add_detail"),
    Point("detail", "lowlight.device_restorer", "detailed"),
    Point("develop", "lowlight.restorer", "develop"),
    Point("develop", "lowlight.device_restorer", "DeviceRestorer._developed"),
    Point("upload", "lowlight.device_restorer", "upload"),
    Point("download", "lowlight.device_restorer", "_Down.wait"),  # and waiting for the device
    Point("encode", f"{_ENHANCING}.enhancer", "write_picture"),
    Point("encode", f"{_ENHANCING}.samples", "write_picture"),
)


class StageClock:
    """Adds up seconds by stage over all threads; a stage within a stage counts for itself alone."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._local = threading.local()
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._cpu_seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a block for a stage."""
        stack: list[str] = self._local.__dict__.setdefault("stack", [])
        self._switch(stack)
        stack.append(name)
        try:
            yield
        finally:
            self._switch(stack)
            stack.pop()

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage that was met, in the order of a photo's way."""
        return self._ordered(self._seconds)

    def cpu_seconds(self) -> dict[str, float]:
        """The process's CPU seconds in each stage; they mean something where stages do not overlap."""
        return self._ordered(self._cpu_seconds)

    def _ordered(self, seconds: dict[str, float]) -> dict[str, float]:
        with self._lock:
            known = dict(seconds)
        return {name: known[name] for name in (*STAGES, *sorted(known.keys() - set(STAGES))) if name in known}

    def _switch(self, stack: list[str]) -> None:
        """Charge the time since the last switch to the stage that this thread is in."""
        if self._device is not None:
            wait_for(self._device)
        now = time.perf_counter(), time.process_time()
        if stack:
            began = self._local.since
            with self._lock:
                for totals, end, begin in zip((self._seconds, self._cpu_seconds), now, began, strict=True):
                    totals[stack[-1]] = totals.get(stack[-1], 0.0) + end - begin
        self._local.since = now


@contextmanager
def staged(device: torch.device | None = None) -> Iterator[StageClock]:
    """Time the stages of whatever is enhanced in a block. On CUDA the stages wait for one another, which costs time."""
    clock = StageClock(device)
    with ExitStack() as stack:
        for point in POINTS:
            owner, name = _owner(point)
            if owner is not None:
                function = getattr(owner, name)
                stack.callback(setattr, owner, name, function)
                setattr(owner, name, (_lazily if point.lazy else _at_once)(clock, point.stage, function))
        yield clock


def _owner(point: Point) -> tuple[Any, str]:
    """The module or class that holds a point, None where there is no such thing any more."""
    owner: Any = importlib.import_module(point.module)
    *path, name = point.name.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    return (owner if hasattr(owner, name) else None), name


def _at_once(clock: StageClock, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any, **named: Any) -> Any:
        with clock.stage(stage):
            return function(*arguments, **named)

    return timed


def _lazily(clock: StageClock, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any, **named: Any) -> Iterator[Any]:
        with clock.stage(stage):
            pieces = iter(function(*arguments, **named))
        while True:
            with clock.stage(stage):
                try:
                    piece = next(pieces)
                except StopIteration:
                    return
            yield piece

    return timed
