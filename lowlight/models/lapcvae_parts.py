"""Parts of the Laplacian pyramid of conditional VAEs that reads nothing but the picture itself.

Source: G. Dorta, S. Vicente, L. Agapito, N. Campbell, S. Prince, I. Simpson, Laplacian Pyramid of Conditional
Variational Autoencoders, CVMP 2017. The source gives no layer sizes; these are ours.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from lowlight.core.restoration import Gaussian, Noise
from lowlight.models.blocks import leaky
from lowlight.ops.gaussian import clamp_log_variance, draw

DEEPEST_PX = 4
WIDTH_RANGE = (-8.0, 4.0)  # of the likelihood's log-variance
PRIOR_RANGE = (-6.0, 2.0)  # of a learned prior's
PRIOR_START = 0.1  # by how much its output layers are made smaller, so that training starts near N(0, I)
MID_GRAY = 0.5  # of the pictures of the coarsest level; bands lie about 0
MEAN_START = 0.1  # the same of a decoder's mean: a first picture far from [0, 1] throws the learned width off


def moved(of: Gaussian, noise: Noise | None, index: int) -> Tensor:
    """The draw of a latent that the noise with this number gives; its mean without noise."""
    return of.mean if noise is None else draw(of, noise[index])


def limited(free: Tensor, span: tuple[float, float]) -> Tensor:
    """Clamp to a span, with gradients as if it were not: a number that has once left it finds back."""
    return free + (free.clamp(*span) - free).detach()


class LevelEncoder(nn.Module):
    """E_k: 4x4 convolutions of stride 2 down to 4x4 pixels, a hidden layer, and the mean and log-variance of z_k."""

    def __init__(self, channels_in: int, channels: list[int], hidden: int, latent: int) -> None:
        super().__init__()
        before = [channels_in, *channels[:-1]]
        steps = ((nn.Conv2d(i, o, 4, 2, 1), leaky()) for i, o in zip(before, channels, strict=True))
        self.convs = nn.Sequential(*(module for step in steps for module in step))
        self.hidden = nn.Sequential(nn.Linear(channels[-1] * DEEPEST_PX**2, hidden), leaky())
        self.heads = nn.ModuleList(nn.Linear(hidden, latent) for _ in range(2))

    def forward(self, x: Tensor) -> Gaussian:
        """`[B, C, n, n]` to the posterior of z_k, `[B, Z]`."""
        features = self.hidden(self.convs(x).flatten(1))
        mean, log_variance = (head(features) for head in self.heads)
        return Gaussian(mean, clamp_log_variance(log_variance))


class LevelDecoder(nn.Module):
    """D_k: the latents of this level and all coarser ones to the mean and the width of the band's likelihood.

    `width` is `scalar` (one learned log-variance a picture), `pixel` (one a value) or `fixed` (none). With
    `sees_image` the last convolution also reads the low-frequency picture. The width is kept within [-8, 4], and
    gradients pass through that limit: one stuck at e^4 would leave the picture unlearned.
    """

    def __init__(
        self, latent: int, channels: list[int], hidden: int, channels_out: int, width: str, sees_image: bool
    ) -> None:
        super().__init__()
        self.width, self.deepest, self.colours = width, channels[-1], channels_out
        self.hidden = nn.Sequential(nn.Linear(latent, hidden), leaky())
        self.expand = nn.Sequential(nn.Linear(hidden, channels[-1] * DEEPEST_PX**2), leaky())
        upwards = [*reversed(channels), channels[0]]
        steps = ((nn.ConvTranspose2d(i, o, 4, 2, 1), leaky()) for i, o in pairwise(upwards))
        self.convs = nn.Sequential(*(module for step in steps for module in step))
        outputs = 2 * channels_out if width == "pixel" else channels_out
        self.head = nn.Conv2d(channels[0] + (channels_out if sees_image else 0), outputs, 3, padding=1)
        self.spread = nn.Linear(hidden, 1) if width == "scalar" else None

    def start_flat(self, value: float) -> None:
        """Start with a mean near `value` and a scalar width of 1, after the weights were drawn.

        A picture that starts at 0 would be lifted by a latent sooner than by a bias, and samples of N(0, I) lack that.
        """
        with torch.no_grad():
            self.head.weight.mul_(MEAN_START)
            assert self.head.bias is not None
            self.head.bias[: self.colours].fill_(value)
            if self.spread is not None:
                self.spread.weight.zero_()

    def forward(self, z: Tensor, low: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`z [B, sum of Z]` to the mean `[B, C', n, n]` and the log-variance (broadcasts to it; None: fixed)."""
        hidden = self.hidden(z)
        features = self.convs(self.expand(hidden).view(-1, self.deepest, DEEPEST_PX, DEEPEST_PX))
        if low is not None:
            features = torch.cat((features, low), dim=1)
        out: Tensor = self.head(features)
        if self.width == "pixel":
            out, log_variance = out.chunk(2, dim=1)
            return out, limited(log_variance, WIDTH_RANGE)
        if self.spread is None:
            return out, None
        return out, limited(self.spread(hidden), WIDTH_RANGE).view(-1, 1, 1, 1)


class PriorNetwork(nn.Module):
    """M_k = {R_k, S_k}: mean and log-variance of z_k, each from the same number of the level below.

    `extra` numbers of a condition may join each. The log-variance is kept within [-6, 2], and gradients pass through
    that limit: a number that has once left the range would stay outside for ever, and samples of it are far off.
    """

    def __init__(self, latent: int, hidden: int, extra: int = 0) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(latent + extra, hidden), leaky(), nn.Linear(hidden, latent)) for _ in range(2)
        )

    def start_small(self) -> None:
        """Shrink the output layers, after the weights were drawn."""
        for network in (self.mean, self.log_variance):
            last = network[-1]
            assert isinstance(last, nn.Linear)
            with torch.no_grad():
                last.weight.mul_(PRIOR_START)

    def forward(self, below: Gaussian, code: Tensor | None = None) -> Gaussian:
        """The prior p(z_k) given the distribution of z_{k+1}, all `[B, Z]`."""
        mean, log_variance = below
        if code is not None:
            mean, log_variance = torch.cat((mean, code), dim=1), torch.cat((log_variance, code), dim=1)
        return Gaussian(self.mean(mean), limited(self.log_variance(log_variance), PRIOR_RANGE))
