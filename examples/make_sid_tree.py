"""Write a tiny set in the layout of See-in-the-Dark, to try training and evaluation without the real one.

python examples/make_sid_tree.py tiny-sid
lowlight cache tiny-sid tiny-cache
lowlight check-pairs tiny-sid
lowlight train --set data.name=pairs --set data.path=tiny-cache --model sid-net-slim --objective l1 --steps 20 -o run
"""

import argparse
from pathlib import Path

from lowlight.workflows.pairing.sid_tree import SidTreeOptions, write_sid_tree


def main() -> None:
    """Read the command line and write the set."""
    parser = argparse.ArgumentParser(description="Write a tiny set in the layout of See-in-the-Dark.")
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--train", type=int, default=4, help="scenes to train on")
    parser.add_argument("--val", type=int, default=1, help="scenes to validate on")
    parser.add_argument("--test", type=int, default=1, help="scenes to test on")
    parser.add_argument("--frames", type=int, default=2, help="frames of every burst")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 384), metavar=("H", "W"), help="in sensor pixels")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    options = SidTreeOptions(
        scenes=(("0", chosen.train), ("2", chosen.val), ("1", chosen.test)),
        frames=chosen.frames,
        size=(chosen.size[0], chosen.size[1]),
        seed=chosen.seed,
    )
    print(f"{write_sid_tree(chosen.folder, options)} pairs in {chosen.folder}")


if __name__ == "__main__":
    main()
