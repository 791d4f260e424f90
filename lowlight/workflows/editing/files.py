"""`lowlight edit`: the coarse picture of a photo's result as a file, and the photo rendered anew from it, painted.

The exported picture is what a viewer shows: sRGB primaries, upright. Painted values go back into the model's colours as
differences to what was exported, so that what was not painted stays exactly as the network gave it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lowlight import __version__
from lowlight.core.atomic import remove_leftovers, replacing
from lowlight.core.errors import OutputError, UsageError
from lowlight.core.folders import check_writable, make_folder
from lowlight.core.hashing import file_sha256
from lowlight.core.photo import Picture, RawFrame
from lowlight.core.restoration import Noise
from lowlight.data.pictures import READERS, read_picture
from lowlight.ops.orient import turn_upright, upright_size
from lowlight.raw.bayer import origin_padding, packed_size
from lowlight.raw.read import read_raw
from lowlight.restorer import Pixels
from lowlight.workflows.editing.masks import blend_mask, changed_region
from lowlight.workflows.editing.photos import Sidecar, level_size
from lowlight.workflows.editing.pyramid import WHITE, EditOptions, Floats, Pyramid
from lowlight.workflows.editing.regions import Region, check_samples, read_mask
from lowlight.workflows.enhancing.inputs import printable
from lowlight.workflows.enhancing.outputs import refuse_cameras_picture
from lowlight.workflows.enhancing.photo_steps import meter, refuse_black
from lowlight.workflows.enhancing.samples import MOST_SAMPLES, sample_paths, sample_seed
from lowlight.writers import WriterOptions, write_picture, writer_for

_TURNED_BACK = {6: 8, 8: 6}  # EXIF orientations that undo one another; all others undo themselves


class Exported(NamedTuple):
    """What an export wrote: the coarse picture, `width` x `height`, and its sidecar."""

    picture: Path
    sidecar: Path
    ratio: float
    width: int
    height: int


class Imported(NamedTuple):
    """What an import wrote: the pictures, and the share of the coarse picture that was painted.

    `left_share` is how much of what was painted lies in none of the regions, and so is not seen.
    """

    pictures: tuple[Path, ...]
    painted_share: float
    left_share: float = 0.0


def sidecar_path(picture: Path) -> Path:
    """Where the sidecar of an exported picture lies."""
    return picture.with_suffix(".json")


def export_coarse(photo: Path, picture: Path, level: int, ratio: float | None, options: EditOptions) -> Exported:
    """Write the picture of a level of a photo's result as a 16-bit PNG, and beside it what it belongs to.

    Level 1 is the result itself; each further one has half the size, down to the coarsest of the model. Without a
    ratio the photo is metered.
    """
    if picture.suffix.lower() != ".png":
        raise UsageError(f"{picture.name} is no name of a PNG; coarse pictures are exported as .png")
    outputs = (picture, sidecar_path(picture))
    sidecar = outputs[1]
    # A run that was killed between the two leaves a sidecar alone, which may be written again as it is.
    alone = sidecar.is_file() and not picture.exists() and not options.overwrite
    _check_places(outputs[:1] if alone else outputs, photo, options.overwrite)
    pyramid = Pyramid(options)
    pyramid.check_level(level)
    frame = read_raw(photo)
    ratio = ratio or meter(frame)
    frame = pyramid.seen(frame)
    size = level_size(*packed_size(frame.size, frame.pattern), level, pyramid.traits.upscale)
    height, width = upright_size(size, frame.orientation)
    belongs = Sidecar(
        photo=photo.name,
        photo_sha256=file_sha256(photo),
        ratio=ratio,
        weights=pyramid.weights.name,
        weights_sha256=pyramid.sha256,
        level=level,
        width=width,
        height=height,
    )
    if alone and not belongs.is_at(sidecar):
        raise UsageError(
            f"{sidecar} exists already, of another export whose picture is not there; name another place, or write "
            "over it with --overwrite"
        )
    shown = turn_upright(pyramid.developed(frame, pyramid.picture(frame, ratio, level)), frame.orientation)
    assert shown.shape[:2] == (height, width)
    refuse_black(shown, photo.name)
    said = (f"lowlight {__version__}", f"weights {pyramid.weights.name}", f"ratio {ratio:.6g}", f"level {level}")
    make_folder(picture.parent)
    remove_leftovers(outputs)
    _write_pair(picture, Picture(shown, frame.metadata, said), sidecar, belongs)
    return Exported(*outputs, ratio, width, height)


def _write_pair(path: Path, picture: Picture, sidecar: Path, belongs: Sidecar) -> None:
    """Write a picture and its sidecar, so that no picture ever lies beside the sidecar of another one.

    Both are whole before either has its name. The sidecar gets its own first: alone it is known as unfinished, where a
    picture alone might have been painted.
    """
    try:
        with replacing(path) as whole, replacing(sidecar) as told:
            writer_for(path).write(whole, picture, WriterOptions(bits=16))
            belongs.write(told)
            if path.is_file():
                Path(os.path.realpath(path)).unlink()
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}.") from error


def import_coarse(
    photo: Path,
    picture: Path,
    out: Path,
    options: EditOptions,
    *,
    samples: int = 0,
    seed: int = 0,
    regions: Sequence[Region] = (),
) -> Imported:
    """Render a photo from its painted coarse picture and write it to `out`; `samples` more vary in the finer levels.

    Painted is what differs from the exported picture by more than 2/255; further away than the blend reaches the
    picture is that of `lowlight enhance` with these weights and the exported ratio, value for value. With `regions`
    their masks take the place of what was painted: each shows its sample, the last one on top, all else is as before.
    Raises `UsageError` where the picture was exported from another photo, with other weights, or in another size.
    """
    if not 0 <= samples <= MOST_SAMPLES:
        raise UsageError(f"{samples} samples cannot be drawn; expected 0 to {MOST_SAMPLES}")
    check_samples(regions, samples)
    writer_for(out)
    if out.suffix.lower() == ".dng":
        raise UsageError("an edited picture has no linear form; name a PNG, TIFF, JPEG or JPEG XL")
    outputs = (out, *sample_paths(out, samples))
    _check_places(outputs, photo, options.overwrite)
    for read in (picture, *(region.mask for region in regions)):
        if any(path.exists() and read.exists() and path.samefile(read) for path in outputs):
            raise OutputError(f"{read} would be overwritten by its own result; name another place")
    belongs = Sidecar.read(sidecar_path(picture))
    if belongs.level == 1 and (samples or any(region.sample for region in regions)):
        option = "--samples" if samples else "--region"
        raise UsageError(
            f"{picture.name} is of level 1, and samples vary in finer levels than that of the picture; leave out "
            f"{option}, or export a level above 1"
        )
    painted = read_picture(picture)
    if painted.shape[:2] != (belongs.height, belongs.width):
        raise UsageError(
            f"{picture.name} has {painted.shape[1]} x {painted.shape[0]} pixels and was exported with {belongs.width} "
            f"x {belongs.height}; paint it without changing its size"
        )
    masks = [read_mask(region.mask, (belongs.height, belongs.width)) for region in regions]
    if file_sha256(_existing(photo)) != belongs.photo_sha256:
        raise UsageError(
            f"{picture.name} was exported from {belongs.photo}, and {photo.name} is not that file; name the photo it "
            "belongs to, or export again"
        )
    pyramid = Pyramid(options)
    if pyramid.sha256 != belongs.weights_sha256:
        raise UsageError(
            f"{picture.name} was exported with other weights ({belongs.weights}) than {pyramid.weights}; name those "
            "with --weights, or export again"
        )
    pyramid.check_level(belongs.level)
    edit = _Edit(pyramid, pyramid.seen(read_raw(photo)), belongs, painted)
    # JSON can say what no picture can hold.
    frame, weights = edit.frame, printable(belongs.weights)
    said = (f"lowlight {__version__}", f"weights {weights}", f"ratio {belongs.ratio:.6g}")

    def draw(number: int) -> Noise | None:
        return pyramid.noise(frame, sample_seed(seed, number), belongs.level) if number else None

    make_folder(out.parent)
    for number, path in enumerate(outputs):
        drawn = [f"sample {number}, seed {seed}"] if number else []
        if regions and not number:
            drawn = [f"sample {region.sample} in {printable(region.mask.name)}, seed {seed}" for region in regions]
            pixels = edit.result
            for region, mask in zip(regions, masks, strict=True):
                pixels = edit.laid_over(pixels, edit.layer(edit.turned_back(mask)), draw(region.sample))
        else:
            pixels = edit.laid_over(edit.result, edit.layer(edit.region), draw(number))
        recorded = (*said, f"edited at level {belongs.level}", *drawn)
        write_picture(path, Picture(turn_upright(pixels, frame.orientation), frame.metadata, recorded))
    return Imported(outputs, edit.painted_share, edit.left_out(masks))


class _Edit:
    """One photo with its painted coarse picture."""

    def __init__(self, pyramid: Pyramid, frame: RawFrame, belongs: Sidecar, painted: Pixels) -> None:
        self.pyramid, self.frame, self.level, self.ratio = pyramid, frame, belongs.level, belongs.ratio
        upscale = pyramid.traits.upscale
        height, width = packed_size(frame.size, frame.pattern)
        if upright_size(level_size(height, width, self.level, upscale), frame.orientation) != painted.shape[:2]:
            raise UsageError(f"the sidecar of the painted picture does not fit {frame.path}; export it again")
        painted = turn_upright(painted, self._back)
        exported = pyramid.picture(frame, self.ratio, self.level)
        shown = pyramid.developed(frame, exported)
        if painted.shape != shown.shape:
            raise UsageError(
                f"the painted picture has {painted.shape[2]} colour channels and the exported one {shown.shape[2]}; "
                "save it with as many"
            )
        self.region = region = changed_region(_planes(painted), _planes(shown))
        self.painted_share = float(region.float().mean())
        change = pyramid.undeveloped(frame, painted).astype(np.int32) - pyramid.undeveloped(frame, shown)
        change[~region[0, 0].numpy()] = 0
        self.painted = np.clip(exported + change, 0, WHITE).astype(np.float32).transpose(2, 0, 1) / np.float32(WHITE)
        self.result = pyramid.restorer.photo(frame, self.ratio).pixels
        # From the packed frame, which may begin a row or column outside the mosaic, to the visible one.
        above, left = origin_padding(frame.pattern)
        self.window = (slice(above, above + self.result.shape[0]), slice(left, left + self.result.shape[1]))
        self.factor = (1 << (self.level - 1)) * upscale if self.level > 1 else 1
        self.padded_size = upscale * height, upscale * width

    @property
    def _back(self) -> int:
        """The orientation that turns upright pictures to how the mosaic lies."""
        return _TURNED_BACK.get(self.frame.orientation, self.frame.orientation)

    def turned_back(self, mask: Tensor) -> Tensor:
        """An upright mask `[1, 1, h, w]` as the mosaic lies."""
        return torch.from_numpy(turn_upright(mask[0, 0].numpy()[..., None], self._back)[..., 0].copy())[None, None]

    def left_out(self, masks: Sequence[Tensor]) -> float:
        """How much of what was painted lies in none of some upright masks; 0 where there are no masks."""
        if not masks or not self.region.any():
            return 0.0
        outside = ~torch.stack([self.turned_back(mask) for mask in masks]).any(0)
        return float((self.region & outside).sum() / self.region.sum())

    def layer(self, region: Tensor) -> Floats:
        """How much of what is rendered is seen in each pixel of the padded frame, from a coarse region."""
        mask: Floats = blend_mask(region, self.factor, self.padded_size)[0, 0].numpy()
        return mask

    def laid_over(self, below: Pixels, layer: Floats, noise: Noise | None) -> Pixels:
        """A picture of the photo with what was painted rendered into it; the very values below where the layer is 0."""
        mask = layer[self.window]
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        pixels = below.copy()
        if not len(rows):
            return pixels
        painted = (self.painted, self.level)
        whole = self.pyramid.picture(self.frame, self.ratio, 1, painted, noise or (), layer > 0)[self.window]
        box = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
        anew, before = self.pyramid.developed(self.frame, whole[box]), pixels[box].astype(np.float32)
        weight = mask[box][..., None]
        mixed = (before + weight * (anew - before) + 0.5).astype(np.uint16)
        pixels[box] = np.where(weight > 0, mixed, pixels[box])
        return pixels


def _planes(pixels: Pixels) -> Tensor:
    """uint16 `[h, w, C]` as `[1, C, h, w]` in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(WHITE)).permute(2, 0, 1)[None]


def _existing(photo: Path) -> Path:
    if not photo.is_file():
        raise UsageError(f"there is no photo {photo}; name one RAW file")
    return photo


def _check_places(outputs: tuple[Path, ...], photo: Path, overwrite: bool) -> None:
    """Refuse, before any work, to write over the photo or, unless asked to, over anything else."""
    _existing(photo)
    for path in outputs:
        if path.exists() and path.samefile(photo):
            raise OutputError(f"{path} would be overwritten by its own result; name another place")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists already; name another place, or write over it with --overwrite")
        beside = path.resolve().parent == photo.resolve().parent and path.suffix.lower() in READERS
        # A picture that was exported and then painted may say nothing of us any more, but still has its sidecar.
        if beside and path.exists() and not sidecar_path(path).is_file():
            refuse_cameras_picture(path)
    check_writable(outputs[0].parent)
