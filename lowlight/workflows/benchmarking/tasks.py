"""What is measured, each in a fresh process of its own, so that its memory and its settings are its own.

A task takes plain values and gives plain values. `side` is `lowlight` or `plain`. Only the first keeps freed memory, as
the command line does.
"""

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from lowlight.burst import Burst, align
from lowlight.checkpoint import load_weights
from lowlight.core.compute import choose_device, choose_precision, keep_freed_memory
from lowlight.core.errors import LowlightError
from lowlight.core.photo import Picture, RawFrame
from lowlight.core.restoration import RestorationModel
from lowlight.core.threads import one_thread
from lowlight.device_restorer import DeviceRestorer, open_restorer
from lowlight.models.macs import count_macs
from lowlight.models.options import TILE_PX
from lowlight.ops.blending import BandBlender, tile_weights
from lowlight.ops.strategies import choose_tiling
from lowlight.ops.tiling import TileGrid, dense
from lowlight.raw.bayer import packed_size
from lowlight.raw.read import read_raw
from lowlight.restorer import Restored, Restorer, RestorerOptions
from lowlight.workflows.benchmarking.limits import Spent, matrix_rate, peak_mib, spent
from lowlight.workflows.benchmarking.material import RATIO, photo_like
from lowlight.workflows.benchmarking.network_tasks import forward_task, train_task
from lowlight.workflows.benchmarking.plain import PNG_LEVEL, plain_photo
from lowlight.workflows.benchmarking.precision import precision_task
from lowlight.workflows.benchmarking.stages import StageClock, staged
from lowlight.workflows.enhancing.enhance import enhance_jobs
from lowlight.workflows.enhancing.enhancer import Enhancer
from lowlight.workflows.enhancing.inputs import Photo
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.planning import plan_jobs
from lowlight.writers import write_picture

Values = dict[str, Any]
WARM_PHOTOS = 3  # on a device, before its clock is believed


def photo_task(
    side: str,
    frame: str,
    weights: str,
    device: str,
    precision: str,
    strategy: str,
    batch: int | None,
    stride: int | None = None,
    frames: int = 1,
) -> Values:
    """One photo after start-up: seconds, CPU seconds, seconds of each stage, and the network's share of the limit.

    With several `frames` the same one is aligned with itself and fused, which costs what a burst on a tripod does.
    One view is computed, whatever the weights recommend. The network's rate is None where it sees several frames: its
    operations are counted for one.
    """
    tiling = choose_tiling(strategy, stride=stride)
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
            enhance = plain_photo(model, tiling.grid.fitted(traits.tile), clock)
        else:
            options = RestorerOptions(
                grid=tiling.grid,
                merge=tiling.merge,
                power=tiling.power,
                precision=precision,
                batch=batch,
                ensemble=1,
            )
            restorer = open_restorer(model, options, place)

            def enhance(path: Path, out: Path, ratio: float) -> None:
                with clock.stage("read"):
                    raws = [read_raw(path) for _ in range(frames)]
                with clock.stage("align"):
                    scene = align(raws)
                pixels = restorer.photo(scene, ratio).pixels
                with clock.stage("encode"):
                    write_picture(out, Picture(pixels))

        began, cpu = time.perf_counter(), time.process_time()
        with clock.stage("rest"):
            enhance(Path(frame), out, RATIO)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        peak = peak_mib(place)
    raw = read_raw(Path(frame))
    rule = tiling.grid.fitted(traits.tile)
    tiles = TileGrid.cover(*packed_size(raw.size, raw.pattern), traits.tile, rule, traits.latent_stride).count
    at_ease = _device_seconds(restorer, raw) if side == "lowlight" else None
    stages, cpu_stages = clock.seconds(), clock.cpu_seconds()
    limit = matrix_rate(place, dtype)
    rate = 2e-9 * macs * tiles / Spent(stages["network"], cpu_stages["network"]).on(place)
    gflops = rate if frames == 1 or traits.max_frames == 1 else None
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": peak,
        "stages": stages,
        "cpu_stages": cpu_stages,
        "tiles": tiles,
        "frames": frames,
        "device_seconds": at_ease,
        "not_network": 1 - cpu_stages["network"] / cpu_seconds,
        "gflops": gflops,
        "limit_gflops": limit.gflops,
        "limit_by": limit.how,
        "share_of_limit": None if gflops is None else gflops / limit.gflops,
        "precision": str(dtype).removeprefix("torch."),
    }


def _device_seconds(restorer: Restorer, frame: RawFrame) -> float | None:
    """The device's seconds for a photo that is not timed stage by stage, which makes it wait; None without a device."""
    if not isinstance(restorer, DeviceRestorer) or restorer.device.type != "cuda":
        return None
    for _ in range(WARM_PHOTOS):
        restorer.photo(frame, RATIO)
    return statistics.median(restorer.device_seconds[-WARM_PHOTOS:])


def folder_task(folder: str, weights: str, device: str, precision: str, strategy: str, jobs: int) -> Values:
    """A whole folder as `enhance` does it, network loading included: images per second, and how busy the network is.

    On CUDA the latter is the share of the time in which a photo is on the device; there nothing else is timed, since
    that would make the stages wait for each other.
    """
    keep_freed_memory()
    tiling = choose_tiling(strategy)
    photos = [Photo(path, Path(path.name)) for path in sorted(Path(folder).iterdir())]
    timed = staged() if choose_device(device).type != "cuda" else nullcontext(StageClock())
    with tempfile.TemporaryDirectory() as out, timed as clock:
        options = EnhanceOptions(
            out=Path(out),
            weights=Path(weights),
            device=device,
            jobs=jobs,
            restorer=RestorerOptions(
                grid=tiling.grid, merge=tiling.merge, power=tiling.power, precision=precision, ensemble=1
            ),
        )
        began, cpu = time.perf_counter(), time.process_time()
        enhancer = Enhancer(options)
        rows = enhance_jobs(enhancer, plan_jobs(photos, options), None, overwrite=False)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    for row in rows:
        if row["status"] != "done":
            raise LowlightError(f"the benchmark's own frame could not be enhanced: {row['error']}")
    stages = clock.seconds()
    restorer = enhancer.restorer
    at_work = sum(restorer.device_seconds) if isinstance(restorer, DeviceRestorer) else stages["network"]
    return {
        "photos": len(rows),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "images_per_second": len(rows) / seconds,
        "network_busy": at_work / seconds,
        "stages": stages,
        "peak_mib": peak_mib(choose_device(device)),
    }


def fed_task(frame: str, weights: str, device: str, precision: str, strategy: str, photos: int, feeders: int) -> Values:
    """The same frame again and again from memory to finished pixels in memory: what the device's path does alone.

    `feeders` threads send frames ahead and as many wait for pictures, as in a folder job, which reads and writes files
    there. The first photos, in which libraries choose their kernels, are not counted.
    """
    keep_freed_memory()
    place = choose_device(device)
    tiling = choose_tiling(strategy)
    options = RestorerOptions(grid=tiling.grid, merge=tiling.merge, power=tiling.power, precision=precision, ensemble=1)
    model = load_weights(Path(weights), choose_precision(precision, place))[0]
    restorer = DeviceRestorer(model, options, place)
    raw = read_raw(Path(frame))
    for _ in range(WARM_PHOTOS):
        restorer.photo(raw, RATIO)
    restorer.device_seconds.clear()
    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(feeders) as senders, ThreadPoolExecutor(feeders) as takers:
        sent = deque(senders.submit(restorer.upload, Burst.single(raw)) for _ in range(min(feeders + 1, photos)))
        taken: deque[Future[Restored]] = deque()
        for number in range(photos):
            scene = sent.popleft().result()
            if number + feeders + 1 < photos:
                sent.append(senders.submit(restorer.upload, Burst.single(raw)))
            taken.append(takers.submit(restorer.start(scene, RATIO)))
            while len(taken) > feeders:
                taken.popleft().result()
        for last in taken:
            last.result()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    at_work = sum(restorer.device_seconds)
    return {
        "photos": photos,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "images_per_second": photos / seconds,
        "device_seconds": statistics.median(restorer.device_seconds) if restorer.device_seconds else None,
        "network_busy": at_work / seconds if restorer.device_seconds else None,
        "batch": restorer.batch,
        "peak_mib": peak_mib(place),
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
        with one_thread():
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
    "fed": fed_task,
    "pieces": pieces_task,
    "precision": precision_task,
}


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
