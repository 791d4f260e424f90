"""How much the tuned pipeline gains over a plain one: both sides in one run, alternating, medians.

    python examples/benchmark.py                  SID-net, 12 megapixels, pictures at packed size
    python examples/benchmark.py --upscale 2      pictures at full sensor size
    python examples/benchmark.py --model sid-net-slim --runs 3

The plain side is what one writes first: rawpy, a stack of all tiles, the network in eager 32-bit floats, a 64-bit
merge, libpng at level 6. The other side is lowlight. Each measurement is a process of its own; the clock starts when
imports are done and the weights are loaded. Weights are random, the same for both.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEIGHT, WIDTH = 2848, 4256
RATIO = 100.0
SIDES = ("plain", "lowlight")


def main() -> None:
    """Run both sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sid-net")
    parser.add_argument("--upscale", type=int, default=1, choices=(1, 2))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", default=f"{HEIGHT}x{WIDTH}", help="of the sensor, HEIGHTxWIDTH")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "FRAME", "WEIGHTS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        side, frame, weights = arguments.child
        print(json.dumps(measure(side, Path(frame), Path(weights))))
        return
    height, width = (int(part) for part in arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        frame, weights = Path(folder) / "dark.dng", Path(folder) / "weights.safetensors"
        make_frame(frame, height, width)
        make_weights(weights, arguments.model, arguments.upscale)
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(arguments.runs):
            for side in SIDES:
                runs[side].append(run_child(side, frame, weights))
                print(side, runs[side][-1], file=sys.stderr)
    report(runs, arguments)


def run_child(side: str, frame: Path, weights: Path) -> dict[str, float]:
    """Measure one side in a process of its own."""
    command = [sys.executable, __file__, "--child", side, str(frame), str(weights)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def report(runs: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    """Print medians, and medians of the pairwise ratios."""
    keys = ("seconds", "cpu_seconds", "network_seconds", "peak_mib")
    medians = {side: {key: statistics.median(r[key] for r in runs[side]) for key in keys} for side in SIDES}
    pairs = list(zip(runs["plain"], runs["lowlight"], strict=True))
    faster = statistics.median(plain["seconds"] / ours["seconds"] for plain, ours in pairs)
    memory = statistics.median(ours["peak_mib"] / plain["peak_mib"] for plain, ours in pairs)
    other = statistics.median(1 - r["network_seconds"] / r["seconds"] for r in runs["lowlight"])
    print(f"{arguments.model}, upscale {arguments.upscale}, {arguments.size}, {arguments.runs} runs a side")
    print(f"{'':10} {'seconds':>9} {'CPU s':>9} {'network s':>10} {'peak MiB':>9}")
    for side in SIDES:
        m = medians[side]
        print(
            f"{side:10} {m['seconds']:9.2f} {m['cpu_seconds']:9.2f} {m['network_seconds']:10.2f} {m['peak_mib']:9.0f}"
        )
    print(f"{faster:.2f} times faster, {memory:.2f} of the memory, {100 * other:.1f} % of the time is not the network")
    if arguments.json:
        figures = {"faster": faster, "memory": memory, "not_network": other, "medians": medians, "runs": runs}
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def make_frame(path: Path, height: int, width: int) -> None:
    """Write a dark 14-bit RAW of smooth light with detail and noise."""
    import numpy as np

    from lowlight.core.photo import RGGB
    from lowlight.writers.cfa_dng import write_cfa_dng

    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    light = 0.16 + 0.08 * np.sin(xs / 97) * np.cos(ys / 61) + 0.04 * np.sign(np.sin(xs / 13 + ys / 29))
    electrons = rng.poisson(light * 15871 / RATIO)
    reading = np.clip(np.rint(512 + electrons + rng.normal(0, 1.3, light.shape)), 0, 16383).astype(np.uint16)
    write_cfa_dng(path, reading, pattern=RGGB, black=(512,) * 4, white=16383, wb=(2.0, 1.0, 1.6, 1.0))


def make_weights(path: Path, name: str, upscale: int) -> None:
    """Write random weights that keep a signal alive."""
    from lowlight.checkpoint import save_weights
    from lowlight.models import build_model, model_config

    config = model_config(name, {"upscale": upscale, "init": "kaiming"})
    save_weights(path, name, config, build_model(name, config).state_dict(), trained={}, scores={})


def measure(side: str, frame: Path, weights: Path) -> dict[str, float]:
    """Enhance the frame once on this side and say what it took."""
    network = NetworkClock()
    photo = (plain_side if side == "plain" else tuned_side)(weights, network)
    began, cpu = time.perf_counter(), time.process_time()
    photo(frame, frame.with_name(f"{side}.png"))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "network_seconds": network.seconds,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """Largest resident memory of this process; `ru_maxrss` would count what the parent had before the start too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class NetworkClock:
    """Adds up the seconds spent inside the network."""

    def __init__(self):
        self.seconds = 0.0

    def around(self, function):
        """The same function, timed."""

        def timed(*arguments, **named):
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def plain_side(weights: Path, network: NetworkClock):
    """What one writes first."""
    import imagecodecs
    import numpy as np
    import rawpy
    import torch

    from lowlight.checkpoint import load_weights

    model = load_weights(weights)[0].float()
    upscale = model.traits.upscale
    restore = network.around(lambda tile: model.restore(tile[None, None]).image[0])

    def photo(frame: Path, out: Path) -> None:
        with rawpy.imread(str(frame)) as raw:
            mosaic = raw.raw_image_visible.astype(np.float32)
        mosaic = np.maximum(mosaic - 512, 0) / (16383 - 512)
        packed = np.stack((mosaic[0::2, 0::2], mosaic[0::2, 1::2], mosaic[1::2, 1::2], mosaic[1::2, 0::2]))
        packed = np.minimum(packed * RATIO, 1).astype(np.float32)
        rows, cols = starts(packed.shape[1]), starts(packed.shape[2])
        corners = [(row, col) for row in rows for col in cols]
        tiles = torch.stack([torch.from_numpy(packed[:, r : r + 256, c : c + 256]) for r, c in corners])
        with torch.no_grad():
            outputs = torch.stack([restore(tile) for tile in tiles]).clamp(0, 1).numpy()
        side = 256 * upscale
        offset = np.arange(side) - (side - 1) / 2
        weight = 1 / (offset[:, None] ** 2 + offset[None] ** 2)
        total = np.zeros((3, packed.shape[1] * upscale, packed.shape[2] * upscale))
        norm = np.zeros(total.shape[1:])
        for (row, col), tile in zip(corners, outputs, strict=True):
            where = (slice(row * upscale, row * upscale + side), slice(col * upscale, col * upscale + side))
            total[:, where[0], where[1]] += weight * tile.astype(np.float64)
            norm[where] += weight
        picture = ((total / norm).transpose(1, 2, 0) * 65535 + 0.5).astype(np.uint16)
        out.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), level=6))

    return photo


def starts(length: int) -> list[int]:
    """The dense grid of the thesis."""
    count = -(-(length - 256) // 146) + 1
    return [(2 * i * (length - 256) + count - 1) // (2 * (count - 1)) for i in range(count)]


def tuned_side(weights: Path, network: NetworkClock):
    """What the command line does with one photo."""
    import torch

    from lowlight.core.compute import choose_precision, keep_freed_memory

    keep_freed_memory()
    from lowlight.checkpoint import load_weights
    from lowlight.core.photo import Picture
    from lowlight.raw.read import read_raw
    from lowlight.restorer import Restorer
    from lowlight.writers import write_picture

    precision = choose_precision("auto", torch.device("cpu"))
    restorer = Restorer(load_weights(weights, precision)[0], device="cpu")
    restorer.model.restore = network.around(restorer.model.restore)

    def photo(frame: Path, out: Path) -> None:
        write_picture(out, Picture(restorer.photo(read_raw(frame), RATIO).pixels))

    return photo


if __name__ == "__main__":
    main()
