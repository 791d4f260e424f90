"""How much a network would gain if its latent came from the truth: posterior against prior reconstructions.

At test time z is the mean of p(z|y). Here it is the mean of q(z|x), which has seen the bright picture; the gap of the
two is what the prior does not know. Source: thesis, section on training.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from lowlight.core.errors import UsageError, WeightsError
from lowlight.core.restoration import Latent, Restoration, RestorationModel
from lowlight.data.pairs import Pair
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.evaluating.scoring import Pixels
from lowlight.workflows.evaluating.truths import padded_truth


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
        traits, grid = self._restorer.traits, self._restorer.grid(pair.frame)
        planes = padded_truth(pair, traits, grid)
        side = traits.upscale * grid.tile
        for row in grid.rows:
            for col in grid.cols:
                top, left = traits.upscale * row, traits.upscale * col
                yield planes[:, top : top + side, left : left + side]


def require_posterior(path: Path, has_posterior: bool) -> None:
    """Raise `WeightsError` where a weights file came without its posterior encoder."""
    if not has_posterior:
        raise WeightsError(
            f"{path.name} has no posterior encoder, which weights for enhancing leave out; --oracle-posterior needs "
            "weights that were saved with it"
        )
