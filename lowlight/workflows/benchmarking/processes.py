"""Tasks in processes of their own, and what the machine says of itself."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from lowlight import __version__
from lowlight.core.compute import choose_device, native_bf16
from lowlight.core.errors import LowlightError, UsageError

_TASKS = "lowlight.workflows.benchmarking.tasks"


def run_task(name: str, threads: int | None = None, **arguments: Any) -> dict[str, Any]:
    """Run a task in a fresh process and give its values; `UsageError` with the sentence of an error of ours."""
    package = Path(__file__).resolve().parents[3]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, "-m", _TASKS, name, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
    lines = done.stdout.decode().splitlines()
    if done.returncode or not lines:
        raise LowlightError(f"measuring {name} ended with exit code {done.returncode}; try a smaller frame or batch")
    values: dict[str, Any] = json.loads(lines[-1])
    if "error" in values:
        raise UsageError(values["error"])
    return values


def machine(device: str, threads: int | None) -> dict[str, Any]:
    """What was measured on."""
    place = choose_device(device)
    return {
        "lowlight": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "native_bf16": native_bf16(place),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # of other programs too
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
