"""Which photos a command means."""

import functools
import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path

from lowlight.core.errors import UsageError
from lowlight.raw.exif import PHOTOMETRIC, tiff_tags
from lowlight.raw.suffixes import RAW_SUFFIXES

_SOFTWARE, _LINEAR_RAW = 305, 34892
_NAME, _ABOUT_BYTES = b"lowlight ", 1 << 16
_TIME = re.compile(rb"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d(?=\0)")


@dataclass(frozen=True)
class Photo:
    """One input, and its place below the folder it was found in (just its name for a file named outright).

    `problem` says why there is nothing to be read, as for a folder without photos.
    """

    path: Path
    relative: Path
    problem: str | None = None


def find_photos(named: list[str], *, recursive: bool = False) -> list[Photo]:
    """Expand files, folders and glob patterns into photos, in a fixed order and each file once.

    In a folder only RAW suffixes count, in either case; hidden files and our own linear DNGs are left out. Missing
    files, folders that cannot be read or hold no photos and patterns without a match stay in the list, so that they
    become a row with a reason; where there is nothing else, `UsageError` is raised.
    """
    photos: list[Photo] = []
    for text in named:
        name = os.path.expanduser(text)
        if os.path.isdir(name):
            photos += _in_folder(Path(name), recursive)
        elif os.path.lexists(name) or not glob.has_magic(name):
            photos.append(_outright(Path(name)))
        else:
            photos += _matching(name, recursive)
    if photos and all(photo.problem for photo in photos):
        raise UsageError(str(photos[0].problem))
    first = {place_of(photo.path): photo for photo in reversed(photos)}
    return [photo for photo in photos if first[place_of(photo.path)] is photo]


def place_of(path: Path) -> str:
    """One text for all ways to a file, through folders that are links too; a file that is a link is one of its own."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(real_folder(folder), name)


@functools.lru_cache(maxsize=64)
def real_folder(folder: str) -> str:
    """Where a folder is, links followed."""
    return os.path.realpath(folder)


def _outright(path: Path) -> Photo:
    return Photo(path, Path(path.name))


def _in_folder(folder: Path, recursive: bool) -> list[Photo]:
    found: list[Path] = []
    unreadable: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    photos = [Photo(path, path.relative_to(folder)) for path in sorted(found) if _is_raw(path)]
    problems = [(Path(error.filename), f"{error.filename} cannot be read: {error.strerror}") for error in unreadable]
    if not photos and not problems:
        advice = "" if recursive else "; --recursive looks into its folders too"
        problems = [(folder, f"{folder} holds no RAW files{advice}")]
    return photos + [Photo(path, Path(path.name or "folder"), problem) for path, problem in problems]


def _is_raw(path: Path) -> bool:
    suffix = path.suffix.lower()
    # A broken link is kept, so that somebody hears of it; a pipe or a device would be waited for.
    usual = os.path.isfile(path) or os.path.islink(path)
    return suffix in RAW_SUFFIXES and usual and not (suffix == ".dng" and is_own_result(path))


def printable(name: str) -> str:
    """A file name as text: it may hold bytes that are no characters."""
    return name.encode("utf-8", "replace").decode("utf-8")


def is_own_result(path: Path) -> bool:
    """Whether a file is a linear DNG of ours: enhancing a folder into itself must not take results for photos."""
    tags = tiff_tags(path)
    return tags.get(PHOTOMETRIC) == _LINEAR_RAW and str(tags.get(_SOFTWARE, "")).startswith("lowlight ")


def names_us(path: Path) -> bool:
    """Whether a picture says that lowlight has written it: its tags stand near the beginning, a TIFF's at the end."""
    try:
        with path.open("rb") as file:
            found = _NAME in file.read(_ABOUT_BYTES)
            if not found:
                file.seek(max(file.seek(0, os.SEEK_END) - _ABOUT_BYTES, 0))
                found = _NAME in file.read()
            return found
    except OSError:
        return False


def told_times(path: Path) -> set[str]:
    """The times that a picture of ours tells in its tags, as EXIF writes them; empty for any other file."""
    try:
        with path.open("rb") as file:
            found = file.read(_ABOUT_BYTES)
            file.seek(max(file.seek(0, os.SEEK_END) - _ABOUT_BYTES, 0))
            found += file.read()
    except OSError:
        return set()
    return {time.decode() for time in _TIME.findall(found)} if _NAME in found else set()


def _expanded(pattern: str) -> list[str]:
    """What a pattern matches. `**` enters no folder that is a link: one to a folder above would have no end."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return glob.glob(pattern)
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    below, rest = Path(*parts[:plain]), parts[plain:]
    found = [path.relative_to(below).parts for path in below.glob(os.path.join(*rest))]
    shown = (inner for inner in found if not any(part.startswith(".") for part in inner))
    return [os.path.join(below, *inner) for inner in shown]


def _matching(pattern: str, recursive: bool) -> list[Photo]:
    found: list[Photo] = []
    for text in sorted(_expanded(pattern)):
        found += _in_folder(Path(text), recursive) if os.path.isdir(text) else [_outright(Path(text))]
    if not found:
        return [Photo(Path(pattern), Path("pattern"), f"nothing matches {pattern!r}; check it, or name a folder")]
    return found
