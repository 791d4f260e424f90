"""Where results go: their names, their folders, and what killed runs have left there."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from lowlight.core.errors import OutputError, UsageError
from lowlight.core.folders import check_writable
from lowlight.raw.suffixes import RAW_SUFFIXES
from lowlight.workflows.enhancing.inputs import Photo, is_own_result, names_us, place_of, real_folder
from lowlight.writers import WRITERS

MOST_FOLDERS = 8  # that tell two photos of one name apart
# An output with such a name is meant to be a picture, and would otherwise become a folder.
OTHER_PICTURES = frozenset((".avif", ".bmp", ".exr", ".gif", ".hdr", ".heic", ".heif", ".jp2", ".ppm", ".psd", ".webp"))


def plan_outputs(
    photos: list[Photo],
    out: Path,
    suffix: str,
    others: Iterable[Photo] = (),
    beside: Callable[[Path], Iterable[Path]] = lambda output: (),
) -> list[Path]:
    """An output path for each photo below `out`; a single photo may name its file.

    Photos whose outputs would share a name (`a.nef` and `a.dng`, or `a.nef` of two folders) are told apart: first by
    keeping the RAW suffix in the name, then by the name of the folder they were found in, then by those of the folders
    above it, as far as it takes, so that a name does not depend on how many photos there are, then by a number. Names
    that differ only in case count as the same, since many disks hold them so. The place of an input, or of `others`
    that are read, is no place for an output, nor is that of a file which an output has `beside` it.
    """
    if is_file_name(out):
        if len(photos) != 1:
            raise UsageError(f"{out} names one file, but there are {len(photos)} photos; name a folder")
        return [out]
    _check_folder(out)
    forms: list[Callable[[Photo], Path]] = [
        lambda photo: photo.relative.with_suffix(suffix),
        lambda photo: photo.relative.with_name(photo.relative.name + suffix),
        *(partial(_below_folders, suffix=suffix, count=count) for count in range(1, MOST_FOLDERS + 1)),
    ]
    inputs = {_place(photo.path) for photo in (*photos, *others)}
    names = [out / forms[0](photo) for photo in photos]
    for form in forms[1:]:
        at = [_place(name) for name in names]
        counts = Counter(at)
        shared = [counts[place] > 1 or place in inputs for place in at]
        if not any(shared):
            break
        names = [
            out / form(photo) if is_shared else name
            for photo, name, is_shared in zip(photos, names, shared, strict=True)
        ]
    taken = inputs
    unique = []
    for name in names:
        number, candidate = 1, name
        while not taken.isdisjoint(places := {_place(path) for path in (candidate, *beside(candidate))}):
            number += 1
            candidate = name.with_name(f"{name.stem}-{number}{name.suffix}")
        taken |= places
        unique.append(candidate)
    return unique


def is_file_name(out: Path) -> bool:
    """Whether an output path means one picture and not a folder."""
    return out.suffix.lower() in WRITERS and not os.path.isdir(out)


def _check_folder(out: Path) -> None:
    if os.path.isdir(out):
        return
    if str(out) == "-":
        raise UsageError("pictures cannot be written to stdout; name a folder or a file")
    if os.path.lexists(out):
        raise UsageError(f"{out} is a file; name a folder, or a picture with one of the suffixes {', '.join(WRITERS)}")
    if out.suffix.lower() in OTHER_PICTURES | RAW_SUFFIXES:
        raise UsageError(
            f"{out.name} names no picture format that can be written; the suffixes are {', '.join(WRITERS)}"
        )


def _below_folders(photo: Photo, suffix: str, count: int) -> Path:
    """The output's name with those of the folder a photo was found in and of the folders above it, so many in all."""
    depth = len(photo.relative.parts)
    parents = Path(os.path.abspath(photo.path)).parents
    above = [folder.name for folder in parents[min(depth, len(parents)) - 1 :] if folder.name][:count]
    prefix = "-".join(reversed(above)) or "root"
    return photo.relative.with_name(f"{prefix}-{photo.relative.name}{suffix}")


def _place(path: Path) -> str:
    """One text for all names of a place, whether or not the disk tells upper from lower case."""
    return unicodedata.normalize("NFC", place_of(path)).casefold()


def all_exist(outputs: Iterable[Path], inputs: Iterable[Path], *, overwrite: bool) -> bool:
    """Whether all outputs are there and may stay; `OutputError` where one cannot be written.

    That is so where a photo lies or a folder, the folder above cannot be written to, or an input would be replaced,
    or the picture that a camera has written beside an input.
    """
    outputs, inputs = list(outputs), list(inputs)
    cameras = {_folder_of(path) for path in inputs}
    there = [output for output in outputs if os.path.exists(output)]
    for path in inputs:
        if os.path.exists(path) and any(os.path.samefile(output, path) for output in there):
            raise OutputError(f"{path} would be overwritten by its own result; name another place")
    for output in filter(os.path.islink, outputs):
        led_to = Path(os.path.realpath(output))
        if led_to.suffix.lower() in RAW_SUFFIXES:
            raise OutputError(f"{output} is a link to the photo {led_to}, which is left alone; name another place")
    for output in there:
        if os.path.isdir(output):
            raise OutputError(f"{output} is a folder; move it, or name another place")
        if output.suffix.lower() == ".dng" and not is_own_result(output):
            raise OutputError(f"{output} is no result of lowlight but a photo, and is left alone; name another place")
        if _folder_of(output) in cameras:
            refuse_cameras_picture(output)
    if len(there) == len(outputs) and not overwrite:
        return True
    check_writable(outputs[0].parent)
    return False


def refuse_cameras_picture(beside: Path) -> None:
    """Raise `OutputError` where a picture beside a photo is no result of ours, as a camera writes them."""
    if not names_us(beside):
        raise OutputError(
            f"{beside} lies beside the photo and is no result of lowlight but perhaps the camera's own picture, so it "
            "is left alone; name another folder"
        )


def _folder_of(path: Path) -> str:
    return real_folder(os.path.abspath(path.parent))
