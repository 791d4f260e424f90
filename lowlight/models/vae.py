"""The small autoencoders of the thesis' MNIST experiments, on images of 28 x 28 gray pixels.

Source: O. Eriksson, Real-world Low-light Image Enhancement Using Variational Autoencoders, Lund 2020, chapter on
MNIST. `x` is the digit, `z` the latent, `y` a corrupted digit. The posterior q(z|x) and the decoder p(x|z) are a
multilayer perceptron or a convolutional network; the prior p(z) is N(0, I), or N(mu(label), I), or N(mu(y), I) of a
network that also gives skip features. The source leaves open the slope of LeakyReLU (0.2 here) and the output's
activation (none here, it is the mean of a Gaussian).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Condition, Gaussian, Latent, LatentShape, ModelTraits, Noise, Restoration
from lowlight.models.blocks import initialise, leaky, unit_gaussian
from lowlight.models.options import require_sizes
from lowlight.ops.gaussian import clamp_log_variance, draw

SIDE_PX = 28
PIXELS = SIDE_PX**2
CLASSES = 10
MLP_HIDDEN = 512
CNN_HIDDEN = 256
CHANNELS = (32, 64, 64)  # at 14 x 14, 7 x 7 and 4 x 4 pixels
DEEPEST_PX = 4


@dataclass(frozen=True, kw_only=True)
class DigitVaeConfig:
    """What a digit network is made of."""

    body: Literal["mlp", "cnn"] = "mlp"
    latent: int = 10
    variance: bool = True  # False: an autoencoder, whose z is not drawn
    prior: Literal["standard", "label", "image"] = "standard"  # what p(z|.) depends on
    skips: bool = False  # the decoder sees the features of the image prior
    output: Literal["linear", "sigmoid"] = "linear"

    def __post_init__(self) -> None:
        require_sizes(self, "latent")
        if self.skips and (self.prior, self.body) != ("image", "cnn"):
            raise ConfigError("skips need the image prior and the cnn body")

    def traits(self) -> ModelTraits:
        """Promise one gray frame where the prior reads an image, none elsewhere."""
        return ModelTraits(
            kind="image",
            in_channels=1,
            out_channels=1,
            max_frames=int(self.prior == "image"),
            likelihood="laplace" if self.prior == "image" else "gaussian",
            tile=SIDE_PX,
            latents=(LatentShape(self.latent),),
        )


class MlpEncoder(nn.Module):
    """784 to 512 (LeakyReLU), then linear heads."""

    def __init__(self, latent: int, heads: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(PIXELS, MLP_HIDDEN), leaky())
        self.heads = nn.ModuleList(nn.Linear(MLP_HIDDEN, latent) for _ in range(heads))

    def forward(self, x: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Head outputs of `[B, 1, 28, 28]`; there are no skip features."""
        features = self.hidden(x.flatten(1))
        return [head(features) for head in self.heads], ()


class MlpDecoder(nn.Module):
    """z to 512 (LeakyReLU) to 784."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(latent, MLP_HIDDEN), leaky(), nn.Linear(MLP_HIDDEN, PIXELS))

    def forward(self, z: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """`z [B, Z]` to `[B, 1, 28, 28]`."""
        image: Tensor = self.layers(z)
        return image.view(-1, 1, SIDE_PX, SIDE_PX)


class CnnEncoder(nn.Module):
    """Three 3 x 3 convolutions of stride 2, then 256 hidden numbers and linear heads, LeakyReLU between."""

    def __init__(self, latent: int, heads: int) -> None:
        super().__init__()
        before = (1, *CHANNELS[:-1])
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), leaky())
            for i, o in zip(before, CHANNELS, strict=True)
        )
        self.hidden = nn.Sequential(nn.Linear(CHANNELS[-1] * DEEPEST_PX**2, CNN_HIDDEN), leaky())
        self.heads = nn.ModuleList(nn.Linear(CNN_HIDDEN, latent) for _ in range(heads))

    def forward(self, x: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Head outputs of `[B, 1, 28, 28]`, and the features of each convolution, finest first."""
        skips = []
        for conv in self.convs:
            x = conv(x)
            skips.append(x)
        features = self.hidden(x.flatten(1))
        return [head(features) for head in self.heads], tuple(skips)


class CnnDecoder(nn.Module):
    """The encoder mirrored; skip features are joined on before each transposed convolution."""

    def __init__(self, latent: int, *, skips: bool) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            nn.Linear(latent, CNN_HIDDEN), leaky(), nn.Linear(CNN_HIDDEN, CHANNELS[-1] * DEEPEST_PX**2), leaky()
        )
        joined = 2 if skips else 1
        before = tuple(reversed(CHANNELS))
        after = (*before[1:], 1)
        added_px = (0, 1, 1)  # 4 to 7, 7 to 14, 14 to 28
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(joined * i, o, 3, stride=2, padding=1, output_padding=more)
            for i, o, more in zip(before, after, added_px, strict=True)
        )

    def forward(self, z: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """`z [B, Z]` and skip features finest first (none without skips) to `[B, 1, 28, 28]`."""
        x: Tensor = self.expand(z).view(-1, CHANNELS[-1], DEEPEST_PX, DEEPEST_PX)
        for level, up in enumerate(self.ups):
            if level:
                x = F.leaky_relu(x, leaky().negative_slope)
            if skips:
                x = torch.cat((x, skips[-1 - level]), dim=1)
            x = up(x)
        return x


class LabelPrior(nn.Sequential):
    """mu(label): the class as a one-hot vector, 10 hidden numbers (LeakyReLU), z."""

    def __init__(self, latent: int) -> None:
        super().__init__(nn.Linear(CLASSES, CLASSES), leaky(), nn.Linear(CLASSES, latent))


class DigitVae(nn.Module):
    """An autoencoder of digits with the named steps of every network here."""

    def __init__(self, config: DigitVaeConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = config.traits()
        encoder = MlpEncoder if config.body == "mlp" else CnnEncoder
        self.prior: nn.Module | None = None
        if config.prior == "label":
            self.prior = LabelPrior(config.latent)
        elif config.prior == "image":
            self.prior = encoder(config.latent, heads=1)
        self.encoder = encoder(config.latent, heads=2 if config.variance else 1)
        self.decoder: nn.Module = (
            MlpDecoder(config.latent) if config.body == "mlp" else CnnDecoder(config.latent, skips=config.skips)
        )
        initialise(self, "kaiming", generator)

    def condition(self, frames: Tensor, base: Tensor | None = None, labels: Tensor | None = None) -> Condition:
        """The prior of z, and the skips: from frames `[B, 1, 1, 28, 28]`, from labels `[B]`, or N(0, I).

        Networks that read no image take frames `[B, 0, 1, 28, 28]`, which say how many items there are. There is no
        base picture to add to.
        """
        if self.prior is None:
            return Condition(unit_gaussian(frames.new_zeros(len(frames), self.config.latent)), ())
        if self.config.prior == "label":
            if labels is None:
                raise ConfigError("this network's prior needs the labels of the digits, and the batch has none")
            return Condition(unit_gaussian(self.prior(F.one_hot(labels, CLASSES).to(frames.dtype))), ())
        (mean,), skips = self.prior(frames[:, 0])
        return Condition(unit_gaussian(mean), skips if self.config.skips else ())

    def posterior(self, target: Tensor) -> Gaussian:
        """q(z|x) of digits `[B, 1, 28, 28]`; an autoencoder's has no width, so that a draw is its mean."""
        (mean, *rest), _ = self.encoder(target)
        if not rest:
            return Gaussian(mean, torch.full_like(mean, -torch.inf))
        return Gaussian(mean, clamp_log_variance(rest[0]))

    def decode(self, z: Tensor, condition: Condition) -> Tensor:
        """Mean of p(x|z) or p(x|y,z), `[B, 1, 28, 28]`, not clipped."""
        image: Tensor = self.decoder(z, condition.skips)
        return image.sigmoid() if self.config.output == "sigmoid" else image

    def restore(
        self,
        frames: Tensor,
        base: Tensor | None = None,
        noise: Noise | None = None,
        labels: Tensor | None = None,
    ) -> Restoration:
        """Prior path: z is the prior's mean, plus one `noise [B, Z]` where it is given."""
        condition = self.condition(frames, base, labels)
        z = condition.prior.mean if noise is None else draw(condition.prior, noise[0])
        return Restoration(self.decode(z, condition), (Latent(z, condition.prior),))
