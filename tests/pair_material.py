"""A tiny set in SID's layout, for the tests of caches, real pairs and pair checks."""

from pathlib import Path

from lowlight.workflows.pairing.sid_tree import SidTreeOptions, write_sid_tree

SIZE = (192, 224)  # sensor pixels


def write_tree(folder: Path, frames: int = 2, train: int = 2) -> Path:
    """`train` scenes to train on and one to test on, two exposures each, bursts of `frames`."""
    write_sid_tree(folder, SidTreeOptions(scenes=(("0", train), ("1", 1)), frames=frames, size=SIZE))
    return folder
