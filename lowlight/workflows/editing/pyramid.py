"""The pyramid that photos are edited with: its weights, and its pictures of whole frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.checkpoint import find_weights, load_weights, read_header
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.errors import UsageError, WeightsError
from lowlight.core.hashing import file_sha256
from lowlight.core.photo import RawFrame
from lowlight.core.restoration import Noise
from lowlight.ops.dark_srgb import dark_srgb
from lowlight.ops.exposure import amplify
from lowlight.ops.gaussian import fix_from
from lowlight.raw.bayer import pack
from lowlight.raw.develop import develop
from lowlight.restorer import Pixels, Restorer, RestorerOptions
from lowlight.tile_source import RAW_CHANNELS
from lowlight.workflows.editing.photos import PyramidModel, render

PYRAMID = "lapcvae"
HOW_TO_TRAIN = "train some with `lowlight train --preset cpu/lapcvae` and name them with --weights"
WHITE = 65535
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """With which network a photo is edited, and where."""

    weights: Path | None = None  # None: those shipped for the pyramid
    device: str = "auto"
    precision: str = "auto"
    overwrite: bool = False


class Pyramid:
    """Weights of a pyramid with the way they are used on whole frames."""

    def __init__(self, options: EditOptions) -> None:
        self.weights = _pyramid_weights(options.weights)
        device = choose_device(options.device)
        self.dtype = choose_precision(options.precision, device)
        network, _ = load_weights(self.weights, self.dtype)
        self.restorer = Restorer(network, RestorerOptions(precision=options.precision), device)
        self.device, self.traits = device, self.restorer.traits
        self.sha256 = file_sha256(self.weights)

    @property
    def model(self) -> PyramidModel:
        """The network."""
        model: PyramidModel = self.restorer.model
        return model

    def check_level(self, level: int) -> None:
        """Refuse a level the network does not have."""
        levels = len(self.traits.latents)
        if not 1 <= level <= levels:
            raise UsageError(f"level is {level}; {self.weights.name} has levels 1 (finest) to {levels}")

    def seen(self, frame: RawFrame) -> RawFrame:
        """A frame as the network packs it, which all other methods take."""
        return self.restorer.seen(frame).reference

    def picture(
        self,
        frame: RawFrame,
        ratio: float,
        level: int,
        painted: tuple[Floats, int] | None = None,
        noise: Noise = (),
        wanted: npt.NDArray[np.bool_] | None = None,
    ) -> Pixels:
        """The whole frame's picture of a level in the model's colours, `[h, w, C']`, packed origin included.

        With `wanted [h, w]` only these pixels are the picture's, see `render`.
        """
        values = render(
            self.model,
            self._read(frame, ratio).to(self.device, self.dtype),
            level=level,
            painted=painted[0] if painted else None,
            painted_level=painted[1] if painted else None,
            noise=noise or None,
            batch=self.restorer.batch,
            wanted=wanted,
        )
        return np.asarray(values.transpose(1, 2, 0) * WHITE + 0.5).astype(np.uint16)

    def developed(self, frame: RawFrame, pixels: Pixels) -> Pixels:
        """A picture in the model's colours as it is shown."""
        return develop(pixels, self._matrix(frame))

    def undeveloped(self, frame: RawFrame, shown: Pixels) -> Pixels:
        """A shown picture in the model's colours, as far as these hold it."""
        matrix = self._matrix(frame)
        if matrix is None:
            return shown
        return develop(shown, np.linalg.inv(matrix.astype(np.float64)).astype(np.float32))

    def noise(self, frame: RawFrame, seed: int, level: int) -> Noise:
        """Draw for the levels finer than `level`."""
        drawn = self.restorer.noise(frame, torch.Generator().manual_seed(seed))
        return fix_from(tuple(one[None].to(self.device, self.dtype) for one in drawn), level)

    def _read(self, frame: RawFrame, ratio: float) -> Tensor:
        """What the network reads of a frame, as in `TileSource`."""
        packed, gains = pack(frame), torch.tensor(frame.wb_gains)
        if self.traits.in_channels == RAW_CHANNELS:
            return amplify(packed, ratio, gains, self.traits.input_colour)
        matrix = torch.eye(3) if frame.camera_to_srgb is None else torch.from_numpy(frame.camera_to_srgb)
        return dark_srgb(packed[None], torch.tensor([ratio]), gains[None], matrix, self.traits.amplify)[0]

    def _matrix(self, frame: RawFrame) -> Floats | None:
        return frame.camera_to_srgb if self.traits.output_colour == "camera" else None


def _pyramid_weights(named: Path | None) -> Path:
    """The weights file to edit with; `UsageError` where it is none of a pyramid on RAW."""
    try:
        weights = find_weights(named or PYRAMID)
        model = str(read_header(weights)["model"])
    except (UsageError, WeightsError) as error:
        if named:
            raise
        raise UsageError(
            f"editing needs weights of the pyramid `{PYRAMID}`, and none are shipped yet; {HOW_TO_TRAIN}"
        ) from error
    if model != PYRAMID:
        raise UsageError(
            f"{weights} is of model {model}; editing photos needs weights of `{PYRAMID}`, which has coarse levels of "
            f"RAW photos to paint on, so {HOW_TO_TRAIN}"
        )
    return weights
