"""A demonstration without a camera: a picture becomes a dark RAW file, and the RAW file a picture again.

The picture is one that scikit-image carries. It is brought back to linear light, seen through a real camera's colour
matrix, mosaicked, darkened, given a sensor's noise and written as a CFA DNG. From there on everything is what
`enhance` does with any file.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor

from lowlight import __version__
from lowlight.core.colorimetry import SRGB_TO_XYZ
from lowlight.core.errors import LowlightError, OutputError, UsageError
from lowlight.core.photo import RGGB, PerColour, Picture
from lowlight.data.cameras import XYZ_TO_CAMERA, srgb_to_camera_matrices
from lowlight.data.noise import BLACK_DN, WHITE_DN, NoiseConfig, Sensor, expose
from lowlight.data.pictures import read_picture
from lowlight.ops.color import apply_matrix, encode, srgb_decode
from lowlight.ops.resize import mean_of_blocks
from lowlight.raw.exif import tiff_tags
from lowlight.raw.read import read_raw
from lowlight.workflows.enhancing.enhance import EnhanceOptions, enhance_files
from lowlight.workflows.enhancing.inputs import Photo, names_us
from lowlight.workflows.evaluating.baselines import amplified
from lowlight.workflows.evaluating.validation import measure
from lowlight.writers import WriterOptions, write_picture
from lowlight.writers.cfa_dng import write_cfa_dng

Pixels = npt.NDArray[np.uint16]

DARK, ENHANCED, TRUTH = "dark.dng", "enhanced.png", "truth.png"
SIDE_BY_SIDE = "before_after_truth.png"
FILES = (DARK, ENHANCED, TRUTH, SIDE_BY_SIDE)
MODEL = "demo"  # what the RAW file calls its camera
_UNIQUE_CAMERA_MODEL = 50708
RATIO_RANGE = (2.0, 300.0)
CAMERA = "Sony ILCE-7SM2"
BRIGHT_EXPOSURE_S = 10.0  # what the truth would have taken: the dark frame has the ratio's share of it
READ_NOISE_DN = 1.6  # measured on dark frames of this camera at the gain below, as is the gain
GAIN_DN = 0.9  # DN per electron
GAP_PX, LABEL_PX = 8, 24


@dataclass(frozen=True)
class Demo:
    """What came out. `before` and `after` hold `psnr` (dB), `ssim` and `mae` against the truth."""

    files: tuple[Path, ...]
    size: tuple[int, int]  # height and width of the RAW
    ratio: float
    before: dict[str, float | None]
    after: dict[str, float | None]


def run_demo(
    folder: Path,
    *,
    ratio: float = 100.0,
    seed: int = 0,
    weights: str | Path | None = None,
    device: str = "auto",
    photo: npt.NDArray[np.uint8] | None = None,
) -> Demo:
    """Write a dark RAW, its enhancement, the truth and all three side by side into `folder`.

    `ratio` says how much darker the RAW is than the truth, `seed` draws its noise: the same seed gives the same
    RAW file. `photo` is uint8 `[H, W, 3]` in the sRGB curve, by default scikit-image's picture of a garage.
    Files of an earlier demo are replaced; `UsageError` where others bear their names.
    """
    if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
        raise UsageError(f"The ratio of a demo is {RATIO_RANGE[0]:g} to {RATIO_RANGE[1]:g}, not {ratio:g}.")
    _refuse_strangers(folder)
    _make_folder(folder)
    light = _linear_light(carried_photo() if photo is None else photo)
    dark, enhanced = folder / DARK, folder / ENHANCED
    write_dark_raw(dark, light, ratio, seed)

    options = EnhanceOptions(
        out=enhanced, weights=weights, ratio=ratio, overwrite=True, device=device, writer=WriterOptions(bits=16)
    )
    (row,) = enhance_files([Photo(dark, Path(dark.name))], options)
    if row["status"] != "done":
        raise LowlightError(f"The demo's RAW file could not be enhanced: {row['error']}")

    truth = _to_pixels(encode(light))
    after = read_picture(enhanced)
    half = after.shape[0] < truth.shape[0]  # weights of the thesis' kind give packed size
    before = amplified(read_raw(dark), ratio, half=half)
    if half:
        truth = mean_of_blocks(truth)
    made = (f"lowlight {__version__}", "demo")
    write_picture(folder / TRUTH, Picture(truth, recorded=made), WriterOptions(bits=16))
    scores = [measure(picture, truth) for picture in (before, after)]
    labels = (f"before: x{ratio:g}, {_decibels(scores[0])}", f"after: {_decibels(scores[1])}", "truth")
    panel = side_by_side([before, after, truth], labels)
    write_picture(folder / SIDE_BY_SIDE, Picture(panel, recorded=made), WriterOptions(bits=8))
    files = tuple(folder / name for name in FILES)
    height, width = light.shape[1:]
    return Demo(files, (height, width), ratio, scores[0], scores[1])


def carried_photo() -> npt.NDArray[np.uint8]:
    """A garage with a motorcycle, uint8 `[500, 741, 3]`: D. Scharstein et al., Middlebury stereo data, 2014."""
    from skimage import data

    return np.asarray(data.stereo_motorcycle()[0], dtype=np.uint8)  # type: ignore[no-untyped-call]


def write_dark_raw(path: Path, light: Tensor, ratio: float, seed: int, *, iso: float | None = None) -> None:
    """Expose linear sRGB light `[3, H, W]` (even sizes, in [0, 1]) for too short a time; write the RAW file."""
    xyz_to_camera = np.array(XYZ_TO_CAMERA[CAMERA], dtype=np.float64).reshape(3, 3) / 1e4
    wb = _daylight_gains(xyz_to_camera)
    gains = torch.tensor([wb[0], wb[1], wb[2]]) / min(wb)
    matrix = srgb_to_camera_matrices()[list(XYZ_TO_CAMERA).index(CAMERA)]
    camera = apply_matrix(light, matrix).clamp_(min=0) / gains[:, None, None]
    mosaic = camera[1].clone()
    mosaic[0::2, 0::2] = camera[0, 0::2, 0::2]
    mosaic[1::2, 1::2] = camera[2, 1::2, 1::2]
    reading = expose(mosaic[None] / ratio, _sensor(), NoiseConfig(), Generator().manual_seed(seed))[0]
    write_cfa_dng(
        path,
        reading.numpy().astype(np.uint16),
        pattern=RGGB,
        black=(BLACK_DN,) * 4,
        white=int(WHITE_DN),
        wb=wb,
        xyz_to_camera=xyz_to_camera,
        exposure_s=BRIGHT_EXPOSURE_S / ratio,
        iso=iso,
        model=MODEL,
    )


def side_by_side(pictures: list[Pixels], labels: tuple[str, ...]) -> Pixels:
    """Put pictures of one size, uint16 `[H, W, 3]`, beside each other with a label above each."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = pictures[0].shape[:2]
    step = width + GAP_PX
    sheet = np.zeros((height + LABEL_PX, len(pictures) * step - GAP_PX, 3), dtype=np.uint16)
    strip = Image.new("L", (sheet.shape[1], LABEL_PX))
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(LABEL_PX * 2 // 3)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        draw.text((index * step + 4, 2), label, fill=230, font=font)
        sheet[LABEL_PX:, index * step : index * step + width] = picture
    sheet[:LABEL_PX] = np.asarray(strip, dtype=np.uint16)[..., None] * np.uint16(257)
    return sheet


def _linear_light(photo: npt.NDArray[np.uint8]) -> Tensor:
    """Linear sRGB `[3, H, W]` of a photo, cut to even sizes."""
    height, width = (size // 2 * 2 for size in photo.shape[:2])
    encoded = torch.from_numpy(photo[:height, :width].astype(np.float32) / 255).movedim(-1, 0)
    return srgb_decode(encoded)


def _daylight_gains(xyz_to_camera: npt.NDArray[np.float64]) -> PerColour:
    r, g, b = (float(value) for value in (xyz_to_camera @ np.array(SRGB_TO_XYZ)).sum(axis=1))
    return g / r, 1.0, g / b, 1.0


def _sensor() -> Sensor:
    """One good full-frame sensor; every number lies inside the ranges that networks are trained on."""

    def one(value: float) -> Tensor:
        return torch.tensor([value])

    return Sensor(
        gain=one(GAIN_DN),
        read=one(READ_NOISE_DN),
        tail=one(0.08),
        row=one(0.08),
        black_error=torch.zeros(1, 4),
        hot_share=one(1e-5),
        step=one(1.0),
    )


def _to_pixels(encoded: Tensor) -> Pixels:
    return (encoded * 65535 + 0.5).movedim(0, -1).numpy().astype(np.uint16)


def _decibels(scores: dict[str, float | None]) -> str:
    psnr = scores["psnr"]
    return "identical" if psnr is None else f"{psnr:.2f} dB"


def _refuse_strangers(folder: Path) -> None:
    for path in (folder / name for name in FILES):
        own = tiff_tags(path).get(_UNIQUE_CAMERA_MODEL) == f"lowlight {MODEL}" if path.name == DARK else names_us(path)
        if path.exists() and not own:
            raise UsageError(f"{path} is no file of an earlier demo, and is left alone; name another folder.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{folder} is a file; name a folder for the demo.") from None
    except OSError as error:
        raise OutputError(f"The folder {folder} could not be made: {error.strerror or error}.") from error
