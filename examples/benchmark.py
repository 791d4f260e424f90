"""How much lowlight gains over a plain pipeline: both sides in one run, alternating, medians.

    python examples/benchmark.py                  SID-net, 12 megapixels, pictures at packed size
    python examples/benchmark.py --upscale 2      pictures at full sensor size
    python examples/benchmark.py --model sid-net-slim --runs 3

The plain side is what one writes first: a stack of all tiles, the network in eager 32-bit floats, a 64-bit merge,
libpng at level 6. `lowlight bench --model sid-net --plain` measures the same and more; this shows how to call it from
Python.
"""

import argparse
import json
import sys
from pathlib import Path

from lowlight.workflows.benchmarking.benchmark import BenchConfig, run_benchmark


def main() -> None:
    """Run both sides in turn and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sid-net")
    parser.add_argument("--upscale", type=int, default=1, choices=(1, 2))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megapixels", type=float, default=12.0, help="of the sensor")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    config = BenchConfig(
        model=arguments.model,
        upscale=arguments.upscale,
        megapixels=(arguments.megapixels,),
        device="cpu",
        repeat=arguments.runs,
        plain=True,
    )
    result = run_benchmark(config, lambda row: print(row["side"], f"{row['seconds']:.2f} s", file=sys.stderr))
    print(f"{arguments.model}, upscale {arguments.upscale}, {arguments.megapixels:g} MP, {arguments.runs} runs a side")
    print(f"{'':10} {'seconds':>9} {'CPU s':>9} {'network s':>10} {'peak MiB':>9}")
    for line in result["summary"]:
        times = f"{line['seconds']:9.2f} {line['cpu_seconds']:9.2f} {line['stages']['network']:10.2f}"
        print(f"{line['side']:10} {times} {line['peak_mib']:9.0f}")
    ours = result["summary"][-1]
    print(f"{ours['faster']:.2f} times faster, {ours['memory']:.2f} of the memory, ", end="")
    print(f"{100 * ours['not_network']:.1f} % of the time is not the network")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
