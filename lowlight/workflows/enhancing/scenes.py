"""Which photos show one scene: those named together, those of a folder, or those of a burst.

A burst is shot in one go: same camera and size, one frame right after the other, the same exposure, and in the
pictures the same scene, by the registration of coarse block means.
"""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor, tensor

from lowlight.burst import same_scene
from lowlight.core.errors import UsageError
from lowlight.core.photo import CfaPattern, Metadata
from lowlight.ops.exposure import amplify, block_means, choose_ratio
from lowlight.ops.registration import register
from lowlight.raw.bayer import pack
from lowlight.raw.exif import read_metadata
from lowlight.raw.read import read_raw
from lowlight.workflows.enhancing.inputs import Photo

GROUPS = ("burst", "folder")
GAP_S = 2.0  # between the end of one frame of a burst and the beginning of the next
SAME_EXPOSURE_STOPS = 1.0
COARSE_SIDE = 512  # blocks along the shorter side of a coarse picture, at least
LARGEST_SHIFT_PX = 64.0  # packed pixels
CLOCK_S = 0.05  # that times with fractions of a second may be wrong by

Levels = tuple[float | None, float | None]  # black and white that the user gave


@dataclass(frozen=True)
class Scene:
    """Photos that make one picture. `notes` say how they were found."""

    photos: tuple[Photo, ...]
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Photo:
        """The photo that names the picture and is the reference: the first that is there."""
        return next((photo for photo in self.photos if not photo.problem), self.photos[0])

    @property
    def names(self) -> list[str]:
        """File names of all frames."""
        return [photo.path.name for photo in self.photos]


def find_scenes(
    photos: Sequence[Photo], *, fuse: bool = False, group: str | None = None, levels: Levels = (None, None)
) -> list[Scene]:
    """Put photos together that show one scene; without `fuse` and `group` each is a scene of its own.

    `fuse` takes all of them for one scene. `group` "folder" takes those of each folder for one, "burst" finds bursts
    in each folder, reading their photos with `levels`. Scenes are in the order of their first photos. Raises
    `UsageError` for options that contradict each other or are not known.
    """
    if fuse and group:
        raise UsageError("--fuse makes one scene of all photos and --group several; give one of the two")
    if group is not None and group not in GROUPS:
        raise UsageError(f"there is no group {group!r}; there are {' and '.join(GROUPS)}")
    if fuse:
        return [Scene(tuple(photos))]
    if group is None:
        return [Scene((photo,)) for photo in photos]
    folders: dict[Path, list[Photo]] = {}
    for photo in photos:
        folders.setdefault(photo.path if photo.problem else photo.path.absolute().parent, []).append(photo)
    if group == "folder":
        return [Scene(tuple(inside)) for inside in folders.values()]
    place = {photo: number for number, photo in enumerate(photos)}
    scenes = [scene for inside in folders.values() for scene in _bursts(inside, levels)]
    return sorted(scenes, key=lambda scene: place[scene.first])


@dataclass(frozen=True)
class _Shot:
    """A photo with when and how it was taken, as its metadata say."""

    photo: Photo
    metadata: Metadata
    began_s: float | None

    @classmethod
    def of(cls, photo: Photo) -> "_Shot":
        metadata = Metadata() if photo.problem else read_metadata(photo.path)
        began = None
        if metadata.taken_at:
            # The camera's clock, whatever its zone and season: taken for UTC, which has no jumps.
            local = datetime.strptime(metadata.taken_at, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
            began = local.timestamp() + (metadata.subsec_s or 0.0)
        return cls(photo, metadata, began)

    @property
    def camera(self) -> tuple[str | None, str | None]:
        """Make and model; frames of two cameras may alternate."""
        return self.metadata.make, self.metadata.model

    def may_follow(self, last: "_Shot") -> bool:
        """Whether by its metadata alone this could be the next frame of a burst."""
        ours, theirs = self.metadata, last.metadata
        if self.camera != last.camera or (self.began_s is None) != (last.began_s is None):
            return False
        if self.began_s is not None and last.began_s is not None:
            # Whole seconds may hide up to one more.
            unsure = CLOCK_S if ours.subsec_s is not None and theirs.subsec_s is not None else 1.0
            pause = self.began_s - last.began_s - (theirs.exposure_s or 0.0)
            # Not while the last frame was being exposed: that would be the same exposure in another file.
            if not -unsure <= pause <= GAP_S + unsure:
                return False
        return _stops(ours, theirs) <= (SAME_EXPOSURE_STOPS if self.began_s is not None else 0.01)


def _stops(first: Metadata, second: Metadata) -> float:
    """How far two exposures are apart, by time, sensitivity and aperture; what one does not tell is infinitely far."""
    total = 0.0
    for name, power in (("exposure_s", 1), ("iso", 1), ("aperture", -2)):
        ours, theirs = getattr(first, name), getattr(second, name)
        if (ours is None) != (theirs is None):
            return math.inf
        if ours is not None:
            total += power * (math.log2(ours) - math.log2(theirs))
    return abs(total)


@dataclass(frozen=True, eq=False)
class _Look:
    """A photo in coarse blocks, `[4, h, w]`, amplified and balanced, with what must be equal within a scene.

    The `checksum` of two files is equal where they hold one exposure.
    """

    size: tuple[int, int]
    pattern: CfaPattern
    block_px: int
    planes: Tensor
    checksum: int

    @classmethod
    def at(cls, photo: Photo, levels: Levels) -> "_Look | None":
        """None where the photo cannot be read; its row will say why."""
        try:
            frame = read_raw(photo.path, black=levels[0], white=levels[1])
        except Exception:  # whatever it is, the work on this photo meets it again and says so
            return None
        signed = pack(frame, clip=False)
        bright = amplify(signed, choose_ratio(signed), tensor(frame.wb_gains), "wb")
        block = max(min(bright.shape[1:]) // COARSE_SIDE, 1)
        planes = block_means(bright, block).clamp_(min=0)
        return cls(frame.size, frame.pattern, block, planes, zlib.crc32(frame.mosaic.data))

    def shows(self, other: "_Look") -> bool:
        if (self.size, self.pattern) != (other.size, other.pattern):
            return False
        return same_scene(register(self.planes, other.planes, LARGEST_SHIFT_PX / self.block_px))


@dataclass(eq=False)
class _Burst:
    """Shots of one camera that follow each other; `copies` are exposures that are there already, in another file."""

    shots: list[_Shot]
    levels: Levels
    first: _Look | None = None  # what the first one shows, once somebody asked
    checksums: set[int] = field(default_factory=set)
    copies: list[_Shot] = field(default_factory=list)

    def take(self, shot: _Shot) -> "_Burst | None":
        """Take the next shot of this camera, or give the burst that it begins."""
        if not shot.may_follow(self.shots[-1]):
            return _Burst([shot], self.levels)
        if self.first is None:
            self.first = _Look.at(self.shots[0].photo, self.levels)
            self.checksums = {self.first.checksum} if self.first else set()
        look = _Look.at(shot.photo, self.levels) if self.first else None
        if look and look.checksum in self.checksums:
            self.copies.append(shot)
            return None
        if not (self.first and look and self.first.shows(look)):
            return _Burst([shot], self.levels, look, {look.checksum} if look else set())
        self.shots.append(shot)
        self.checksums.add(look.checksum)
        return None

    def scenes(self) -> list[Scene]:
        """The burst, and each copy as a photo of its own."""
        return [_scene(self.shots), *(_scene([copy]) for copy in self.copies)]


def _bursts(photos: Iterable[Photo], levels: Levels) -> list[Scene]:
    """The bursts among the photos of one folder; each other photo alone."""
    shots = sorted(
        (_Shot.of(photo) for photo in photos),
        key=lambda shot: (shot.began_s is None, shot.began_s or 0.0, shot.photo.path.name),
    )
    bursts: list[_Burst] = []
    latest: dict[tuple[str | None, str | None], _Burst] = {}
    for shot in shots:
        last = latest.get(shot.camera)
        begun = last.take(shot) if last else _Burst([shot], levels)
        if begun:
            bursts.append(begun)
            latest[shot.camera] = begun
    return [scene for burst in bursts for scene in burst.scenes()]


def _scene(burst: list[_Shot]) -> Scene:
    photos = tuple(shot.photo for shot in burst)
    if len(burst) == 1:
        return Scene(photos)
    began, ended = burst[0].began_s, burst[-1].began_s
    how = "by their names and likeness, as they do not tell when they were taken"
    if began is not None and ended is not None:
        how = f"within {ended - began:.3g} s"
    return Scene(photos, (f"A burst of {len(burst)} frames was found {how}.",))
