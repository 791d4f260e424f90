"""The nouns of learning: what goes into a network, what it promises and what comes out.

Letters: B batch, N frames of one scene, C input channels, C' output channels, h and w packed height and width,
u upscale factor (1 = packed size, 2 = full sensor size), Z latent size.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

InputColour = Literal["raw", "wb"]
OutputColour = Literal["srgb", "camera"]
BasePicture = Literal["none", "lowpass"]
Amplify = Literal["linear", "encoded"]
Likelihood = Literal["laplace", "gaussian", "bernoulli", "logistic-mixture"]
# Standard normal numbers, one tensor for each latent of the traits: [B, Z] or [B, Z, h', w'].
Noise = tuple[Tensor, ...]


class Gaussian(NamedTuple):
    """A diagonal normal distribution: mean and log-variance, both `[B, Z]` (log-variance 0 = unit variance).

    Latents that have an extent in space are `[B, Z, h', w']`.
    """

    mean: Tensor
    log_variance: Tensor


class Latent(NamedTuple):
    """A draw kept in the graph, beside the distributions it may be compared with."""

    sample: Tensor
    prior: Gaussian
    posterior: Gaussian | None = None


@dataclass(frozen=True)
class Restoration:
    """What a network says about the bright picture: `image [B, C', u*h, u*w]`, not clipped, and its latents.

    `parameters [B, P, u*h, u*w]` are the likelihood's where it has more than a mean. `levels` are the pictures of a
    pyramid, finest first, each half the size of the one before.
    """

    image: Tensor
    latents: tuple[Latent, ...] = ()
    parameters: Tensor | None = None
    levels: tuple[Tensor, ...] = ()


class Share(NamedTuple):
    """Which items of a larger batch a batch holds: those from `first` on, of `whole` items."""

    first: int
    whole: int


@dataclass(frozen=True)
class Batch:
    """Training items: frames `[B, N, C, h, w]` and target `[B, C', u*h, u*w]` in [0, 1]; damaged digits go beyond.

    `base` is the base picture a network adds its output to, `[B, C', u*h, u*w]`, or None. `ratio` is `[B, N]`.
    `labels [B]` are the classes of the targets, int64, or None where there are none.
    `share` tells the place of the items where several processes share a batch; None: these are all.
    """

    frames: Tensor
    target: Tensor
    ratio: Tensor
    base: Tensor | None = None
    labels: Tensor | None = None
    share: Share | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; nothing is copied where it is there already."""
        base = None if self.base is None else self.base.to(device)
        labels = None if self.labels is None else self.labels.to(device)
        frames, target, ratio = (tensor.to(device) for tensor in (self.frames, self.target, self.ratio))
        return replace(self, frames=frames, target=target, ratio=ratio, base=base, labels=labels)


class LatentShape(NamedTuple):
    """Size of one latent: its channels, and how many packed pixels apart its places are (None: one for a tile)."""

    channels: int
    stride: int | None = None


@dataclass(frozen=True)
class ModelTraits:
    """What the code around a network must know of it, and nothing more."""

    kind: Literal["raw", "image"] = "raw"  # what it reads: packed RAW of cameras, or finished pictures of one size
    in_channels: int = 4
    out_channels: int = 3
    likelihood: Likelihood = "laplace"  # p(x|z,y); `Restoration.image` is its mean
    levels: int = 1  # of a pyramid; a coarser one can be asked for
    max_frames: int = 1  # that it was made for; a network of sets takes more
    posterior_reads: Literal["target", "frames"] = "target"  # x of q(z|x); frames: a repair net
    latents: tuple[LatentShape, ...] = ()  # in the order in which they are drawn
    tile: int = 256  # packed pixels; a model with a fully connected bottleneck takes exactly this
    latent_stride: int = 1  # tile starts are rounded down to a multiple of this
    upscale: int = 1
    input_colour: InputColour = "raw"
    amplify: Amplify = "linear"  # of networks that read dark sRGB: where it is amplified, in light or as stored
    output_colour: OutputColour = "srgb"
    base: BasePicture = "none"
    halo: int = 0  # outer packed pixels of a tile that suffer from its border
    ensemble: int = 1  # views of a scene that are averaged unless somebody says otherwise
    detail: bool = False  # whether what it smooths away is brought back unless somebody says otherwise
    crop_px: int = 0  # border of padding that likelihoods and measures leave out
    cpu_batch: int = 3  # tiles at a time on a CPU unless somebody says otherwise: more take memory, fewer time

    @property
    def can_have_detail(self) -> bool:
        """Whether detail can be brought back: only in these pictures each colour has its own noise."""
        return (self.upscale, self.out_channels, self.output_colour) == (2, 3, "camera")


@dataclass(frozen=True)
class Condition:
    """What a model has read from the dark frames: the prior p(z|y), the skip features, the base picture."""

    prior: Gaussian
    skips: tuple[Tensor, ...]
    base: Tensor | None = None


@runtime_checkable
class RestorationModel(Protocol):
    """A network with named steps. It never computes its own loss."""

    traits: ModelTraits

    def condition(self, frames: Tensor, base: Tensor | None = None) -> Condition:
        """Read the dark frames `[B, N, C, h, w]`."""
        ...

    def posterior(self, target: Tensor) -> Gaussian:
        """q(z|x) from the bright target `[B, C', u*h, u*w]`."""
        ...

    def decode(self, z: Tensor, condition: Condition) -> Tensor:
        """Mean of p(x|y,z), `[B, C', u*h, u*w]`, not clipped."""
        ...

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """The test-time path: z is the prior's mean, moved by `noise` standard deviations where it is given."""
        ...


@runtime_checkable
class HierarchicalModel(Protocol):
    """A network whose latents depend on one another, so that drawing them and decoding cannot be told apart."""

    traits: ModelTraits

    def reconstruct(
        self,
        frames: Tensor,
        target: Tensor,
        generator: torch.Generator,
        base: Tensor | None = None,
        share: Share | None = None,
    ) -> Restoration:
        """The training path: latents drawn from q(z|x) or q(z|x,y), each with its prior and posterior.

        Items that are a `share` of a larger batch get the draws that they have in the whole batch.
        """
        ...

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """The test-time path: latents are the priors' means, moved by `noise` standard deviations where it is given."""
        ...


@runtime_checkable
class PenalisedModel(HierarchicalModel, Protocol):
    """A network that can say how large its own weights have become."""

    def penalty(self) -> Tensor:
        """A scalar in the graph of the weights, before any factor."""
        ...


class Loss(NamedTuple):
    """What is minimised, and its parts for the log (detached scalars by name)."""

    total: Tensor
    parts: dict[str, Tensor]
