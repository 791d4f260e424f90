"""A tiny set with the layout of See-in-the-Dark: the project's own RAW files in the set's naming, with list files.

Every scene is procedural, exposed for 10 s for the truth and shorter for bursts of dark frames, as CFA DNGs.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from lowlight.core.atomic import write_text
from lowlight.core.errors import OutputError, UsageError
from lowlight.data.pairs import exposure_ratio
from lowlight.data.scenes import procedural_scene
from lowlight.data.sid import SPLIT_OF_DIGIT
from lowlight.ops.color import srgb_decode
from lowlight.workflows.demo import BRIGHT_EXPOSURE_S, write_dark_raw

SMALLEST_PX = 256  # that a procedural scene can be drawn at
F_NUMBER = 8
ISO = 200


@dataclass(frozen=True, kw_only=True)
class SidTreeOptions:
    """How large the set is. Exposure times are of the dark frames; the truth always takes 10 s."""

    scenes: tuple[tuple[str, int], ...] = (
        ("0", 2),
        ("2", 1),
        ("1", 1),
    )  # first digit (0 train, 2 val, 1 test): how many
    exposures_s: tuple[float, ...] = (0.1, 0.04)
    frames: int = 1  # of the burst at every exposure
    size: tuple[int, int] = (320, 384)  # height and width in sensor pixels, even
    light: float = 0.5  # how bright the scenes are: 1 is what the procedural scenes have
    seed: int = 0


def write_sid_tree(folder: Path, options: SidTreeOptions | None = None) -> int:
    """Write `short`, `long` and `Sony_{train,val,test}_list.txt` into `folder`; returns the number of pairs.

    The same options give the same files.
    """
    options = options or SidTreeOptions()
    height, width = options.size
    if height % 2 or width % 2 or min(height, width) < 2:
        raise UsageError(f"frames of {width}x{height} cannot be made; both sides must be even")
    try:
        for name in ("short", "long"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error
    count = 0
    for digit, scenes in options.scenes:
        lines = [line for number in range(scenes) for line in _write_scene(folder, digit, number, options)]
        count += len(lines)
        write_text(folder / f"Sony_{SPLIT_OF_DIGIT[digit]}_list.txt", "".join(f"{line}\n" for line in lines))
    return count


def _write_scene(folder: Path, digit: str, number: int, options: SidTreeOptions) -> list[str]:
    """Write the files of one scene; gives its lines of the list file."""
    height, width = options.size
    seed = options.seed * 100_000 + int(digit) * 10_000 + number  # a scene's number has four digits
    picture = procedural_scene(seed, max(height, width, SMALLEST_PX))[:height, :width]
    light = srgb_decode(torch.from_numpy(picture).movedim(-1, 0).float() / 255) * options.light
    scene = f"{digit}{number + 1:04d}"
    long = f"long/{scene}_00_{BRIGHT_EXPOSURE_S:g}s.dng"
    write_dark_raw(folder / long, light, 1.0, seed, iso=ISO)
    lines: list[str] = []
    for exposure_s in options.exposures_s:
        for frame in range(options.frames):
            short = f"short/{scene}_{frame:02d}_{exposure_s:g}s.dng"
            ratio = exposure_ratio(exposure_s, BRIGHT_EXPOSURE_S)
            noise_seed = seed * 100 + frame * 10 + len(lines) + 1
            write_dark_raw(folder / short, light, ratio, noise_seed, iso=ISO)
            lines.append(f"./Sony/{short} ./Sony/{long} ISO{ISO} F{F_NUMBER}")
    return lines
