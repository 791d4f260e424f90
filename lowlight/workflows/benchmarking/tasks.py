"""What is measured, each in a fresh process of its own, so that its memory and its settings are its own.

A task takes plain values and gives plain values. `side` is `lowlight` or `plain`. Only the first keeps freed memory, as
the command line does.
"""

import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from lowlight.checkpoint import load_weights
from lowlight.core.compute import choose_device, choose_precision, keep_freed_memory
from lowlight.core.errors import LowlightError, UsageError
from lowlight.core.photo import Picture
from lowlight.core.restoration import Batch, ModelTraits, RestorationModel
from lowlight.models import build_model, model_config
from lowlight.models.macs import count_macs
from lowlight.models.options import TILE_PX
from lowlight.objectives import build_objective
from lowlight.ops.blending import BandBlender, tile_weights
from lowlight.ops.strategies import choose_tiling
from lowlight.ops.tiling import TileGrid, dense
from lowlight.raw.bayer import packed_size
from lowlight.raw.read import read_raw
from lowlight.restorer import BATCH, Restorer, RestorerOptions
from lowlight.workflows.benchmarking.limits import Spent, matrix_rate, spent
from lowlight.workflows.benchmarking.material import RATIO, photo_like
from lowlight.workflows.benchmarking.plain import PNG_LEVEL, plain_photo, plain_steps
from lowlight.workflows.benchmarking.stages import staged
from lowlight.workflows.enhancing.enhance import enhance_files
from lowlight.workflows.enhancing.inputs import Photo
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.training.compute import fast_kernels
from lowlight.workflows.training.config import RunSection, TrainConfig
from lowlight.workflows.training.learner import Learner
from lowlight.workflows.training.team import Team
from lowlight.writers import write_picture

Values = dict[str, Any]
SIDES = ("plain", "lowlight")
WARM_STEPS = 1  # of training: the first one makes the optimiser's state


def photo_task(
    side: str, frame: str, weights: str, device: str, precision: str, strategy: str, batch: int | None
) -> Values:
    """One photo after start-up: seconds, CPU seconds, seconds of each stage, and the network's share of the limit."""
    tiling = choose_tiling(strategy)
    place = torch.device("cpu") if side == "plain" else choose_device(device)
    dtype = torch.float32 if side == "plain" else choose_precision(precision, place)
    if side == "lowlight":
        keep_freed_memory()
    model = load_weights(Path(weights), dtype)[0]
    traits = cast(RestorationModel, model).traits
    macs = count_macs(model).true
    with tempfile.TemporaryDirectory() as folder, staged(place) as clock:
        out = Path(folder) / "out.png"
        if side == "plain":
            enhance = plain_photo(model, tiling.grid, clock)
        else:
            options = RestorerOptions(
                grid=tiling.grid, merge=tiling.merge, power=tiling.power, precision=precision, batch=batch
            )
            restorer = Restorer(model, options, place)

            def enhance(path: Path, out: Path, ratio: float) -> None:
                with clock.stage("read"):
                    raw = read_raw(path)
                pixels = restorer.photo(raw, ratio).pixels
                with clock.stage("encode"):
                    write_picture(out, Picture(pixels))

        began, cpu = time.perf_counter(), time.process_time()
        with clock.stage("rest"):
            enhance(Path(frame), out, RATIO)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        peak = peak_mib(place)
    raw = read_raw(Path(frame))
    tiles = TileGrid.cover(*packed_size(raw.size, raw.pattern), traits.tile, tiling.grid, traits.latent_stride).count
    stages, cpu_stages = clock.seconds(), clock.cpu_seconds()
    limit = matrix_rate(place, dtype)
    gflops = 2e-9 * macs * tiles / Spent(stages["network"], cpu_stages["network"]).on(place)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": peak,
        "stages": stages,
        "cpu_stages": cpu_stages,
        "tiles": tiles,
        "not_network": 1 - cpu_stages["network"] / cpu_seconds,
        "gflops": gflops,
        "limit_gflops": limit.gflops,
        "limit_by": limit.how,
        "share_of_limit": gflops / limit.gflops,
        "precision": str(dtype).removeprefix("torch."),
    }


def forward_task(
    side: str, model: str, options: Values, device: str, precision: str, batch: int | None, frames: int, repeats: int
) -> Values:
    """The network alone, in turn with matrix products: seconds per tile, GFLOP/s, share of the limit."""
    plain = side == "plain"
    place = choose_device(device)
    dtype = torch.float32 if plain else choose_precision(precision, place)
    if not plain:
        keep_freed_memory()
    network = _network(model, options).eval()
    macs = count_macs(network).true
    network = network.to(place, dtype)
    if not plain:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    restore = cast(RestorationModel, network)
    traits = restore.traits
    if frames > traits.max_frames:
        raise UsageError(f"{model} takes {traits.max_frames} frame at most, not {frames}; measure a model of sets")
    count = batch or BATCH[place.type]
    entered = torch.rand(count, frames, traits.in_channels, traits.tile, traits.tile, dtype=torch.float32)
    entered = entered.to(place, dtype)
    if not plain:
        flat = entered.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        entered = flat.unflatten(0, (count, frames))  # type: ignore[no-untyped-call]
    taken: list[Spent] = []
    limits: list[float] = []
    with torch.inference_mode():
        restore.restore(entered)
        for _ in range(repeats):
            limits.append(matrix_rate(place, dtype, 1).gflops)
            taken.append(spent(lambda: restore.restore(entered), place))
    rates = [2e-9 * macs * count / one.on(place) for one in taken]
    shares = [rate / limit for rate, limit in zip(rates, limits, strict=True)]
    single = frames == 1  # the operations are counted for one frame
    return {
        "seconds_per_tile": statistics.median(one.wall_s for one in taken) / count,
        "cpu_seconds_per_tile": statistics.median(one.cpu_s for one in taken) / count,
        "gflops": statistics.median(rates) if single else None,
        "limit_gflops": statistics.median(limits),
        "share_of_limit": statistics.median(shares) if single else None,
        "batch": count,
        "frames": frames,
        "peak_mib": peak_mib(place),
        "precision": str(dtype).removeprefix("torch."),
    }


def train_task(side: str, model: str, options: Values, device: str, precision: str, batch: int, steps: int) -> Values:
    """Steps of the CVAE's training on random patches: seconds per step, patches per second."""
    place = choose_device(device)
    dtype = torch.float32 if side == "plain" else choose_precision(precision, place)
    network = _network(model, options).to(place)
    traits = cast(RestorationModel, network).traits
    material = _patches(traits, batch, place)
    objective = build_objective("cvae")
    if side == "plain":
        step = plain_steps(network, objective, material)
    else:
        keep_freed_memory()
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        learner = Learner(TrainConfig(run=RunSection(steps=1)), network, objective, place, dtype, Team())

        def step(number: int) -> None:
            learner.learn(material, 0.5, number)

    with fast_kernels(place):
        taken = [spent(partial(step, number), place) for number in range(WARM_STEPS + steps)][WARM_STEPS:]
    each = statistics.median(one.wall_s for one in taken)
    return {
        "seconds_per_step": each,
        "cpu_seconds_per_step": statistics.median(one.cpu_s for one in taken),
        "patches_per_second": batch / each,
        "batch": batch,
        "peak_mib": peak_mib(place),
        "precision": str(dtype).removeprefix("torch."),
    }


def folder_task(folder: str, weights: str, device: str, precision: str, strategy: str, jobs: int) -> Values:
    """A whole folder as `enhance` does it, network loading included: images per second, and how busy the network is."""
    keep_freed_memory()
    tiling = choose_tiling(strategy)
    photos = [Photo(path, Path(path.name)) for path in sorted(Path(folder).iterdir())]
    with tempfile.TemporaryDirectory() as out, staged() as clock:
        options = EnhanceOptions(
            out=Path(out),
            weights=Path(weights),
            device=device,
            jobs=jobs,
            restorer=RestorerOptions(grid=tiling.grid, merge=tiling.merge, power=tiling.power, precision=precision),
        )
        began, cpu = time.perf_counter(), time.process_time()
        rows = enhance_files(photos, options)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    for row in rows:
        if row["status"] != "done":
            raise LowlightError(f"the benchmark's own frame could not be enhanced: {row['error']}")
    stages = clock.seconds()
    return {
        "photos": len(rows),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "images_per_second": len(rows) / seconds,
        "network_busy": stages["network"] / seconds,
        "stages": stages,
        "peak_mib": peak_mib(choose_device(device)),
    }


def pieces_task(height: int, width: int, repeats: int) -> Values:
    """Merging the tiles of a frame, and PNG against libpng at level 6, in one thread: milliseconds, and the sizes."""
    import imagecodecs

    keep_freed_memory()
    here = torch.device("cpu")
    grid = TileGrid.cover(height // 2, width // 2, TILE_PX, dense())
    tile = np.random.default_rng(0).random((3, TILE_PX, TILE_PX), dtype=np.float32)
    blender = BandBlender(grid.rows, grid.cols, grid.padded[1], 3, tile_weights(TILE_PX))
    picture = Picture(photo_like(height // 2, width // 2))

    def merge() -> None:
        for _ in blender.merge(itertools.repeat(tile, grid.count)):
            pass

    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.png", Path(folder) / "theirs.png"
        works: dict[str, Callable[[], object]] = {
            "merge": merge,
            "png": lambda: write_picture(ours, picture),
            "libpng": lambda: theirs.write_bytes(imagecodecs.png_encode(picture.pixels, level=PNG_LEVEL)),
        }
        for work in works.values():
            work()
        taken = [{name: spent(work, here).cpu_s for name, work in works.items()} for _ in range(repeats)]
        sizes = ours.stat().st_size / theirs.stat().st_size
    return {
        **{f"{name}_cpu_ms": 1e3 * statistics.median(one[name] for one in taken) for name in works},
        "png_faster": statistics.median(one["libpng"] / one["png"] for one in taken),
        "png_size": sizes,
    }


TASKS: dict[str, Callable[..., Values]] = {
    "photo": photo_task,
    "forward": forward_task,
    "train": train_task,
    "folder": folder_task,
    "pieces": pieces_task,
}


def peak_mib(device: torch.device) -> float:
    """Largest memory this process has had: on CUDA the device's, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:  # `ru_maxrss` counts what the parent had before this program was loaded, too
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _network(name: str, options: Values) -> torch.nn.Module:
    return build_model(name, model_config(name, options))


def _patches(traits: ModelTraits, batch: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    u = traits.upscale
    target = torch.rand(batch, traits.out_channels, u * traits.tile, u * traits.tile, generator=generator)
    return Batch(
        frames=torch.rand(batch, 1, traits.in_channels, traits.tile, traits.tile, generator=generator).to(device),
        target=target.to(device),
        ratio=torch.full((batch, 1), RATIO, device=device),
        base=target.to(device) if traits.base != "none" else None,
    )


def main() -> None:
    """Run the task that the arguments name and write its values as the last line."""
    name, arguments = sys.argv[1:]
    try:
        values = TASKS[name](**json.loads(arguments))
    except LowlightError as error:
        values = {"error": str(error)}
    sys.stdout.write("\n" + json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
