"""How much a network would gain if its latent came from the truth: posterior against prior reconstructions.

At test time z is the mean of p(z|y). Here it is the mean of q(z|x), which has seen the bright picture; the gap of the
two is what the prior does not know. Source: thesis, section on training.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lowlight.core.errors import DataError, UsageError, WeightsError
from lowlight.core.restoration import Latent, Restoration, RestorationModel
from lowlight.data.packed_set import half_truth
from lowlight.data.pairs import Pair
from lowlight.ops.color import apply_matrix, decode, encode
from lowlight.raw.bayer import origin_padding
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.evaluating.scoring import Pixels
from lowlight.workflows.evaluating.validation import as_planes, gray_like


class OracleModel(nn.Module):
    """A network whose `restore` takes its latent from the posterior of the tiles' truths.

    The truths wait in `targets`, in the order in which the restorer asks for tiles.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        assert isinstance(network, RestorationModel)
        self.network = network
        self.traits = network.traits
        self.targets: deque[Tensor] = deque()

    def condition(self, frames: Tensor, base: Tensor | None = None) -> object:
        """As the network does."""
        return self.network.condition(frames, base)

    def posterior(self, target: Tensor) -> object:
        """As the network does."""
        return self.network.posterior(target)

    def decode(self, z: Tensor, condition: object) -> Tensor:
        """As the network does."""
        return self.network.decode(z, condition)  # type: ignore[arg-type]

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Tensor | None = None) -> Restoration:
        """Decode the posterior's mean of the next waiting truths; they leave the queue when that worked."""
        waiting = [self.targets[index] for index in range(len(frames))]
        condition = self.network.condition(frames, base)
        posterior = self.network.posterior(torch.stack(waiting).to(frames.device, frames.dtype))
        image = self.network.decode(posterior.mean, condition)
        for _ in waiting:
            self.targets.popleft()
        return Restoration(image, (Latent(posterior.mean, condition.prior, posterior),))


class Oracle:
    """Makes the pictures that a network would give if it knew the truth's latent."""

    def __init__(self, network: nn.Module, options: RestorerOptions, device: torch.device) -> None:
        if not isinstance(network, RestorationModel):
            raise UsageError(
                "--oracle-posterior needs a network with one latent, such as sid-net; those of this one depend on "
                "each other"
            )
        self._model = OracleModel(network)
        self._restorer = Restorer(self._model, options, device)

    def picture(self, pair: Pair) -> Pixels:
        """Restore the pair's dark frame with the latents of its truth; size and colours as the restorer's own."""
        self._model.targets.clear()
        self._model.targets.extend(self._targets(pair))
        return self._restorer.photo(pair.frame, pair.ratio).pixels

    def _targets(self, pair: Pair) -> Iterator[Tensor]:
        traits, frame = self._restorer.traits, pair.frame
        u = traits.upscale
        grid = self._restorer.grid(frame)
        truth = _truth_planes(pair, u, traits.out_channels, camera=traits.output_colour == "camera")
        top, left = origin_padding(frame.pattern) if u == 2 else (0, 0)
        height, width = (u * size for size in grid.padded)
        below, right = max(height - truth.shape[1] - top, 0), max(width - truth.shape[2] - left, 0)
        planes = torch.from_numpy(np.pad(truth, ((0, 0), (top, below), (left, right)), mode="reflect"))
        side = u * grid.tile
        for row in grid.rows:
            for col in grid.cols:
                yield planes[:, u * row : u * row + side, u * col : u * col + side]


def require_posterior(path: Path, has_posterior: bool) -> None:
    """Raise `WeightsError` where a weights file came without its posterior encoder."""
    if not has_posterior:
        raise WeightsError(
            f"{path.name} has no posterior encoder, which weights for enhancing leave out; --oracle-posterior needs "
            "weights that were saved with it"
        )


def _truth_planes(pair: Pair, upscale: int, channels: int, *, camera: bool) -> npt.NDArray[np.float32]:
    """Give the truth as the network was trained on it: `[C', H, W]` in [0, 1], of its output's size and colours."""
    truth = pair.truth
    if upscale == 1:
        truth = half_truth(pair)
    elif truth.shape[:2] != pair.frame.size:
        raise DataError(
            f"the truth of {pair.name} has half the sensor's size; the posterior of this network sees full size"
        )
    if channels == 1:
        truth = gray_like(np.empty((1, 1, 1), np.uint16), truth)
    planes = as_planes(truth)
    matrix = pair.frame.camera_to_srgb
    if camera and matrix is not None:
        back = torch.from_numpy(np.linalg.inv(matrix.astype(np.float64)))
        planes = encode(apply_matrix(decode(planes.double()), back).clamp(0, 1)).float()
    return planes.numpy()
