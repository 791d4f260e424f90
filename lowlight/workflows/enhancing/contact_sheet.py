"""Sheets of small pictures, before and after, to look through a whole run at a glance."""

import io
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from lowlight.core.photo import RawFrame
from lowlight.ops.color import apply_matrix, encode
from lowlight.ops.exposure import amplify, block_means, packed_to_rgb
from lowlight.ops.orient import turn_upright
from lowlight.raw.bayer import pack
from lowlight.workflows.enhancing.inputs import printable
from lowlight.writers import replacing
from lowlight.writers.depth import to_uint8

logger = logging.getLogger(__name__)

THUMB_PX = 480  # longest side
MARGIN_PX = 12
LABEL_PX = 22
PHOTOS_A_SHEET = 12
COLUMNS = ("as shot", "amplified", "enhanced")
BACKGROUND, INK = (24, 24, 24), (220, 220, 220)
MARK, MARK_BYTES = b"lowlight contact sheet", 4096  # a comment in each sheet, and how far in it may stand
Small = npt.NDArray[np.uint8]
Window = tuple[int, int, int, int]  # x, y, width, height in sensor pixels


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """One photo's row on a sheet: three small upright pictures, uint8 `[h, w, 3]`; the last is None where unknown."""

    label: str
    pictures: tuple[Small, Small, Small | None]


def thumbnails(
    label: str, frame: RawFrame, ratio: float, result: npt.NDArray[np.uint16] | None, window: Window | None = None
) -> Thumbnails:
    """Shrink a photo as it was shot, as plain amplification shows it, and as it came out.

    `result` is the finished picture, upright, uint16 `[H, W, C]`; with a `window` it shows only that part.
    """
    if window:
        frame = cut_mosaic(frame, window)
    factor = max(-(-max(frame.size) // (2 * THUMB_PX)), 1)
    small = block_means(pack(frame), factor)
    plain = [_developed(frame, small, amount) for amount in (1.0, ratio)]
    shot, amplified = (turn_upright(picture, frame.orientation) for picture in plain)
    after = None if result is None else _shrunk(result, shot.shape[:2])
    return Thumbnails(label, (to_uint8(shot), to_uint8(amplified), after))


def cut_mosaic(frame: RawFrame, window: Window) -> RawFrame:
    """Cut a window out of the mosaic, with the colours its corner then has."""
    x, y, width, height = window
    (a, b), (c, d) = (tuple(frame.pattern[(y + row) % 2][(x + col) % 2] for col in (0, 1)) for row in (0, 1))
    return replace(frame, mosaic=frame.mosaic[y : y + height, x : x + width], pattern=((a, b), (c, d)))


def _developed(frame: RawFrame, small: torch.Tensor, ratio: float) -> npt.NDArray[np.uint16]:
    rgb = packed_to_rgb(amplify(small, ratio, torch.tensor(frame.wb_gains), "wb"))
    if frame.camera_to_srgb is not None:
        rgb = apply_matrix(rgb, torch.from_numpy(frame.camera_to_srgb)).clamp_(0, 1)
    return (encode(rgb) * 65535 + 0.5).movedim(0, -1).numpy().astype(np.uint16)


def _shrunk(result: npt.NDArray[np.uint16], size: tuple[int, ...]) -> Small:
    pixels = np.broadcast_to(to_uint8(result), (*result.shape[:2], 3))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))


class ContactSheets:
    """Writes `contact-sheet-1.jpg` and so on into a folder, each as soon as it is full, and tells `written` of it.

    Numbers that are taken are passed over, unless a sheet of an earlier run is there and is to be overwritten; so are
    those of the `outputs` of this run. A sheet that cannot be written is reported and costs nothing else.
    """

    def __init__(
        self,
        folder: Path,
        written: Callable[[Path], None] = lambda path: None,
        *,
        overwrite: bool = False,
        outputs: Collection[Path] = (),
    ) -> None:
        self.folder, self.overwrite, self.outputs, self._written = folder, overwrite, outputs, written
        self._number = 0
        self._rows: list[Thumbnails] = []

    def add(self, row: Thumbnails) -> None:
        """Take the next photo's row."""
        self._rows.append(row)
        if len(self._rows) == PHOTOS_A_SHEET:
            self.flush()

    def flush(self) -> None:
        """Write what is left."""
        if not self._rows:
            return
        path = self._next_path()
        while path in self.outputs or (path.exists() and not (self.overwrite and _is_sheet(path))):
            path = self._next_path()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                encoded = io.BytesIO()  # into a file Pillow writes as much as the disk takes, and says nothing
                _sheet(self._rows).save(encoded, "JPEG", quality=90, subsampling=0, comment=MARK)
                temporary.write_bytes(encoded.getbuffer())
            self._written(path)
        except OSError as error:
            logger.warning("%s could not be written: %s", path, error.strerror or error)
        self._rows = []

    def _next_path(self) -> Path:
        self._number += 1
        return self.folder / f"contact-sheet-{self._number}.jpg"


def _is_sheet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return MARK in file.read(MARK_BYTES)
    except OSError:
        return False


def _sheet(rows: list[Thumbnails]) -> Image.Image:
    cell = max(side for row in rows for side in row.pictures[0].shape[:2])
    heights = [row.pictures[0].shape[0] + LABEL_PX + MARGIN_PX for row in rows]
    width = len(COLUMNS) * (cell + MARGIN_PX) + MARGIN_PX
    sheet = Image.new("RGB", (width, sum(heights) + MARGIN_PX), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (title, picture) in enumerate(zip(COLUMNS, row.pictures, strict=True)):
            left = MARGIN_PX + column * (cell + MARGIN_PX)
            draw.text((left, top + 4), printable(row.label if column == 0 else title), fill=INK)
            if picture is not None:
                sheet.paste(Image.fromarray(picture), (left, top + LABEL_PX))
        top += height
    return sheet
