"""The See-in-the-Dark set as it is published, and one way to open any set of real pairs.

Source: C. Chen et al., "Learning to See in the Dark" (CVPR 2018). The set has a folder `short` of dark frames and a
folder `long` of bright ones. A file is called `DSSSS_FF_<seconds>s.ARW`: `DSSSS` is the scene, whose first digit says
the split, `FF` the index in the burst. List files (`Sony_train_list.txt` and so on) name the pairs.
"""

import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from lowlight.core.errors import DataError
from lowlight.data.cache import is_cache
from lowlight.data.pairs import PairRow, exposure_ratio, read_manifest, split_name
from lowlight.data.pictures import READERS
from lowlight.raw.suffixes import RAW_SUFFIXES

logger = logging.getLogger(__name__)

Burst = Literal["first", "any"]
_Key = str | tuple[str, ...]  # how a line may be spelt, or the names of one file or both

MISALIGNED_SCENES = ("10034", "10045", "10172")  # the set's authors ask to leave them out of numbers
SPLITS = ("train", "val", "test")
SPLIT_OF_DIGIT = {"0": "train", "1": "test", "2": "val"}
_NAME = re.compile(r"(?P<scene>\d{5})_(?P<burst>\d{2,3})_(?P<seconds>\d+(?:\.\d+)?)s\.(?P<suffix>[A-Za-z0-9]+)")
_LIST = "Sony_{split}_list.txt"
_OTHER_LIST = "Fuji_{split}_list.txt"


@dataclass(frozen=True)
class SidName:
    """What a file's name says: scene (five digits), split, index in the burst and exposure time."""

    scene: str
    split: str
    burst_index: int
    exposure_s: float


def parse_name(name: str) -> SidName | None:
    """Read a name such as `00001_03_0.1s.ARW`, of any suffix; None for names of another form."""
    found = _NAME.fullmatch(name)
    if found is None or not float(found["seconds"]) > 0:
        return None
    scene = found["scene"]
    return SidName(scene, SPLIT_OF_DIGIT.get(scene[0], ""), int(found["burst"]), float(found["seconds"]))


def open_pairs(
    path: Path, split: str | None = None, *, burst: Burst = "any", exclude: Collection[str] = ()
) -> list[PairRow]:
    """List the pairs of a CSV manifest or of a folder with SID's names, nothing decoded.

    `split` is train, val or test, None for all; `burst` "first" keeps index 0 only. An entry of `exclude` is a
    scene, a file's name (with or without suffix) or a pair (dark and bright name), as in an exclude file. Raises
    `DataError` where nothing is left. Files are not checked to be there.
    """
    if is_cache(path):
        raise DataError(f"{path} is a cache, which is for training and check-pairs; name the data it was made from")
    rows = read_sid_folder(path) if path.is_dir() else read_manifest(path)
    return choose_rows(rows, path, split, burst=burst, exclude=exclude)


def choose_rows(
    rows: list[PairRow],
    source: Path,
    split: str | None = None,
    *,
    burst: Burst = "any",
    exclude: Collection[str] = (),
) -> list[PairRow]:
    """Pick rows by split, burst and exclusion; `DataError` names `source` where none is left."""
    wanted = split_name(split) if split else None
    keys = [_keys_of_row(row) for row in rows]
    known = set().union(*keys)
    excluded = set().union(*map(_keys_of_entry, exclude))
    for entry in exclude:
        if known.isdisjoint(_keys_of_entry(entry)) and entry not in MISALIGNED_SCENES:
            logger.warning("the excluded %r is no scene, file or pair of %s", entry, source)
    if wanted and not any(row.split == wanted for row in rows):
        present = ", ".join(sorted({row.split or "(none)" for row in rows}))
        raise DataError(f"{source} has no pairs of split {split!r}; its pairs are of {present}")
    chosen = [
        row
        for row, names in zip(rows, keys, strict=True)
        if (not wanted or row.split == wanted)
        and (burst == "any" or row.burst_index == 0)
        and excluded.isdisjoint(names)
    ]
    if not chosen:
        raise DataError(f"no pair of {source} is left after choosing split, burst and exclusions; exclude less")
    return chosen


def burst_of(row: PairRow) -> str:
    """Name the burst a dark frame belongs to: frames of one framing, which may be fused.

    Where names follow SID that is the scene; elsewhere it is the bright picture, for a scene of a manifest may be
    several crops of one photograph.
    """
    named = parse_name(row.dark.name)
    return f"scene {named.scene}" if named else f"bright {row.bright}"


def read_exclude_file(path: Path) -> tuple[str, ...]:
    """The entries of an exclude file: one scene, file name or pair a line; `#` begins a comment."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise DataError(f"cannot read the exclude file {path}: {reason}") from error
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


def read_sid_folder(folder: Path) -> list[PairRow]:
    """All pairs of a folder with SID's names: those its list files name, else every dark RAW of a known scene.

    The list files may stand in the folder or above it, and `short` and `long` in the folder or in `Sony` below it.
    Without `short` and `long` the folder itself is searched, and the longest exposure of a scene is the bright one.
    """
    root = folder / "Sony" if (folder / "Sony" / "short").is_dir() else folder
    lists = _find_lists(folder, root)
    if lists:
        rows = [row for split, file in lists for row in _read_list(file, split, root)]
    elif (root / "short").is_dir() and (root / "long").is_dir():
        rows = _match(_named_files(root / "short"), _named_files(root / "long"))
    else:
        rows = _match_flat(_named_files(root))
    if not rows:
        raise DataError(
            f"{folder} holds no pairs; expected a manifest (.csv), or the folders short and long with files called "
            "like 00001_00_0.1s.ARW"
        )
    return rows


def _keys_of_row(row: PairRow) -> set[_Key]:
    """All by which a line of an exclude file may mean a pair: its scene, dark or bright file, or both files."""
    dark, bright = row.dark, row.bright
    both = (dark.name, bright.name)
    names: set[_Key] = {row.scene, dark.name, dark.stem, bright.name, bright.stem, " ".join(both)}
    return {*names, (dark.name,), (bright.name,), both} - {""}


def _keys_of_entry(entry: str) -> set[_Key]:
    """What a line of an exclude file may mean; files may be named with their folders."""
    words = [PurePosixPath(word.replace("\\", "/")).name for word in entry.split()]
    return {entry, tuple(words[:2])}


def _find_lists(folder: Path, root: Path) -> list[tuple[str, Path]]:
    places = [folder, root] if root != folder else [folder]
    if (folder / "short").is_dir() and folder.resolve().name == "Sony":
        places.append(folder.resolve().parent)
    for place in places:
        found = [(split, place / _LIST.format(split=split)) for split in SPLITS]
        found = [(split, file) for split, file in found if file.is_file()]
        if found:
            return found
    if any((folder / _OTHER_LIST.format(split=split)).is_file() for split in SPLITS):
        raise DataError(
            f"{folder} has only the lists of SID's Fuji half, whose sensor is X-Trans; only the Sony half can be used"
        )
    return []


def _read_list(file: Path, split: str, root: Path) -> list[PairRow]:
    """One pair a line: `./Sony/short/00001_00_0.1s.ARW ./Sony/long/00001_00_10s.ARW ISO200 F8`."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {file}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            raise DataError(f"{file}, line {number}: {line!r} is no pair; expected a short and a long file")
        dark, bright = (
            _locate(word, file.parent, root, side) for word, side in zip(words, ("short", "long"), strict=False)
        )
        row = _row(dark, bright, iso=_tagged(words[2:], "ISO"))
        if row is None:
            raise DataError(f"{file}, line {number}: {line!r} names no file like 00001_00_0.1s.ARW")
        rows.append(replace(row, split=split))
    return rows


def _locate(word: str, place: Path, root: Path, side: str) -> Path:
    """Where a path of a list file is, however much of it is written; the usual place where it is nowhere."""
    relative = PurePosixPath(word.replace("\\", "/"))
    usual = root / side / relative.name
    for candidate in (usual, place / relative, root / relative):
        if candidate.is_file():
            return candidate
    return usual


def _tagged(words: Iterable[str], tag: str) -> float | None:
    for word in words:
        number = word.upper().removeprefix(tag)
        if number != word.upper() and number.replace(".", "", 1).isdigit():
            return float(number)
    return None


def _row(dark: Path, bright: Path, iso: float | None = None) -> PairRow | None:
    short, long = parse_name(dark.name), parse_name(bright.name)
    if short is None or long is None:
        return None
    return PairRow(
        dark=dark,
        bright=bright,
        scene=short.scene,
        split=short.split,
        ratio=exposure_ratio(short.exposure_s, long.exposure_s),
        iso=iso,
        burst_index=short.burst_index,
        dark_s=short.exposure_s,
        bright_s=long.exposure_s,
    )


def _named_files(folder: Path) -> list[tuple[SidName, Path]]:
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    named = ((parse_name(file.name), file) for file in files if _is_raw(file) or file.suffix.lower() in READERS)
    return [(name, file) for name, file in named if name is not None]


def _is_raw(file: Path) -> bool:
    return file.suffix.lower() in RAW_SUFFIXES


def _match(darks: list[tuple[SidName, Path]], brights: list[tuple[SidName, Path]]) -> list[PairRow]:
    """Pair each dark RAW with the longest exposure of its scene, the first of a burst, rather a RAW than a picture."""

    def rank(name: SidName, file: Path) -> tuple[float, int, bool]:
        return -name.exposure_s, name.burst_index, not _is_raw(file)

    darks = [(name, file) for name, file in darks if _is_raw(file)]  # cameras put a picture beside a RAW
    truth: dict[str, tuple[SidName, Path]] = {}
    for name, file in brights:
        best = truth.get(name.scene)
        if best is None or rank(name, file) < rank(*best):
            truth[name.scene] = (name, file)
    lonely = sorted({name.scene for name, _ in darks} - truth.keys())
    if lonely:
        logger.warning("%d scenes have dark frames but no bright one: %s", len(lonely), ", ".join(lonely[:5]))
    rows = (_row(file, truth[name.scene][1]) for name, file in darks if name.scene in truth)
    return [row for row in rows if row is not None]


def _match_flat(files: list[tuple[SidName, Path]]) -> list[PairRow]:
    longest: dict[str, float] = {}
    for name, _ in files:
        longest[name.scene] = max(longest.get(name.scene, 0.0), name.exposure_s)
    brights = [(name, file) for name, file in files if name.exposure_s == longest[name.scene]]
    darks = [(name, file) for name, file in files if name.exposure_s < longest[name.scene]]
    return _match(darks, brights)
