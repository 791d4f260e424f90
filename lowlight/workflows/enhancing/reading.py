"""From the photos of a scene to frames that lie on one another, with the ratio they are to be amplified by."""

from dataclasses import replace
from typing import NamedTuple

from lowlight import __version__
from lowlight.burst import Burst, align
from lowlight.core.errors import LowlightError
from lowlight.core.photo import RawFrame
from lowlight.raw.read import read_raw
from lowlight.raw.refusals import check_file
from lowlight.views import Window
from lowlight.workflows.enhancing.inputs import Photo, printable
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.photo_steps import balanced, crop_window, meter_scene
from lowlight.workflows.enhancing.scenes import Scene


class Read(NamedTuple):
    """A scene that was read and metered; `exists` says that its output is there and only the sheet wants it."""

    burst: Burst
    ratio: float
    source: str
    window: Window | None
    exists: bool
    notes: tuple[str, ...]

    @property
    def frame(self) -> RawFrame:
        """The frame that the others lie on."""
        return self.burst.reference


def check_scene(scene: Scene) -> None:
    """Raise what the first frame of a scene raises where none of them looks like a RAW file, by their first bytes."""
    problems = []
    for photo in scene.photos:
        try:
            check_file(photo.path)
        except (LowlightError, OSError) as error:
            problems.append(error)
    if len(problems) == len(scene.photos):
        raise problems[0]


def read_scene(scene: Scene, options: EnhanceOptions, same_ratio: float | None, *, only_sheet: bool) -> Read:
    """Read all frames of a scene and lay them on one another.

    Frames that cannot be read are left out with a note; the first that can is the reference. Where none can, the
    reason of the first is raised. For the sheet alone one frame is enough.
    """
    frames: list[RawFrame] = []
    notes: list[str] = []
    problems: list[Exception] = []
    for photo in scene.photos:
        if only_sheet and frames:
            break
        try:
            frames.append(_read(photo, options))
        except Exception as error:  # decoders raise what they like, and the other frames are there
            problems.append(error)
            # Most errors begin with the name.
            notes.append(f"{photo.path.name} was left out: {str(error).replace(f'{photo.path.name} ', 'it ', 1)}")
    if not frames:
        raise problems[0]
    if notes and not only_sheet and frames[0].path != scene.first.path:
        notes.append(f"{frames[0].path.name if frames[0].path else 'The next'} is the reference instead.")
    frames[0] = balanced(frames[0], options.wb)
    burst = align(frames)
    window = crop_window(frames[0], options.crop) if options.crop else None
    said = (*frames[0].notes, *scene.notes, *notes, *burst.notes)
    if len(scene.photos) > 1 and len(burst.frames) == 1:
        advice = "; to take another as the reference, name it first" if len(scene.photos) > 2 else ""
        said = (*said, f"No other frame was of use, so the picture is made from one{advice}.")
    return Read(burst, *_ratio(burst, options, same_ratio), window, only_sheet, said)


def read_first(scene: Scene, options: EnhanceOptions) -> RawFrame:
    """The reference of a scene alone: its first photo that can be read."""
    return read_scene(scene, replace(options, crop=None, ratio=1.0), None, only_sheet=True).frame


def _read(photo: Photo, options: EnhanceOptions) -> RawFrame:
    return read_raw(photo.path, black=options.black, white=options.white)


def _ratio(burst: Burst, options: EnhanceOptions, same_ratio: float | None) -> tuple[float, str]:
    """How much to amplify the reference, and where that comes from."""
    if same_ratio is not None:
        ratio, source = same_ratio, "same"
    elif isinstance(options.ratio, str):
        ratio, source = meter_scene(burst), "auto"
    else:
        ratio, source = options.ratio, "given"
    return ratio * 2.0**options.ev, source


def recorded(read: Read, weights: str, options: EnhanceOptions) -> tuple[str, ...]:
    """The lines that say in a picture how it was made."""
    lines = [f"lowlight {__version__}", f"weights {printable(weights)}", f"ratio {read.ratio:.6g} ({read.source})"]
    if len(read.burst.frames) > 1:
        paths = (aligned.frame.path for aligned in read.burst.frames)
        names = ", ".join(path.name for path in paths if path)
        lines.append("frames " + printable(names))
    if options.wb != "camera":
        lines.append(f"white balance {read.frame.wb_source}")
    if options.restorer.strength < 1:
        lines.append(f"strength {options.restorer.strength:g}")
    return tuple(lines)
