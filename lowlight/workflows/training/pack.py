"""Packing photos and validation pairs into one file to train from elsewhere."""

import math
from dataclasses import dataclass
from pathlib import Path

from lowlight.core.errors import UsageError
from lowlight.data.packed_set import write_packed_set
from lowlight.data.pairs import files_of, load_pair, read_manifest, validation_rows
from lowlight.data.photos import open_photos
from lowlight.workflows.evaluating.own_inputs import refuse_own_inputs

SUFFIX = ".zip"


@dataclass(frozen=True)
class Packed:
    """What a packed file holds."""

    path: Path
    photos: int
    held_out: int  # of the photos, kept out of training
    left_out: int  # photos that the limit did not allow
    unusable: int  # photos that are unreadable or too small
    pairs: int
    bytes: int


def pack_files(
    photos: Path,
    target: Path,
    manifest: Path | None = None,
    max_mib: float | None = None,
    *,
    overwrite: bool = False,
) -> Packed:
    """Pack a folder of photos, and the pairs of a manifest that validate, into `target`, at most `max_mib` large.

    Which these are `validation_rows` says. Pairs are decoded, their truths brought to half size, so the file is read
    without any RAW library.
    """
    if max_mib is not None and not 0 < max_mib < math.inf:
        raise UsageError(f"--max-mib is {max_mib:g}; expected a finite number above 0")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists already; choose another name, or --overwrite")
    listed = read_manifest(manifest) if manifest else []
    read = [photos, *([manifest] if manifest else []), *files_of(listed)]
    refuse_own_inputs([target], read)
    if target.exists() and target.suffix.lower() != SUFFIX:
        raise UsageError(f"{target} is no packed file; --overwrite replaces one whose name ends in {SUFFIX}")
    collection = open_photos(photos)
    rows = validation_rows(listed) if listed else []
    limit_bytes = None if max_mib is None else int(max_mib * 2**20)
    counts = write_packed_set(target, collection, (load_pair(row) for row in rows), limit_bytes)
    return Packed(target, **counts)
