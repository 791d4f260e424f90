"""FusionVAE: a hierarchical conditional VAE that fuses any number of frames of one scene, none included.

Source: F. Duffhauss et al., FusionVAE: A Deep Hierarchical Variational Autoencoder for RGB Image Fusion, ECCV 2022.
Notation as there: `y` is the target, `x` are the frames, `z_1` to `z_L` the latents, coarsest first, `h` the decoder's
first state. On RAW frames the picture may also see the frames' features (`skip`), which the bound allows and the
paper leaves unused.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight.core.errors import WeightsError
from lowlight.core.restoration import Gaussian, Latent, Likelihood, Noise, Restoration, Share
from lowlight.models.blocks import initialise
from lowlight.models.fusion_blocks import DecoderCell, SizePenalty, initialise_uniform
from lowlight.models.fusion_options import FusionConfig, FusionRawConfig, PictureOptions, TowerOptions
from lowlight.models.fusion_parts import (
    LatentGroup,
    PosteriorHeads,
    SharedEncoder,
    aggregate,
    grow_blocks,
    make_start,
    spread_start,
)
from lowlight.models.fusion_reading import FusionNetwork, Reading, read_pictures
from lowlight.models.sub_pixel import SubPixelHead, head_channels
from lowlight.models.weight_norm import normalise_weights
from lowlight.ops.gaussian import draw, standard_noise
from lowlight.ops.likelihoods import LIKELIHOODS

# The place of a latent, its prior and its posterior to the z that is drawn.
Source = Callable[[int, Gaussian, Gaussian | None], Tensor]


class Decoder(nn.Module):
    """The latent groups with the state that runs through them, the blocks after them and the head."""

    def __init__(self, config: FusionConfig | FusionRawConfig, generator: torch.Generator) -> None:
        super().__init__()
        traits, widths = config.traits(), config.widths()
        self.start = make_start(config, generator)
        self.groups = nn.ModuleList()
        self.doubles = nn.ModuleDict()  # by the place of the group they come before
        scales = list(zip(widths[config.pre_blocks :], config.group_counts(), strict=True))
        wider = None
        for width, count in reversed(scales):
            if wider is not None:
                self.doubles[str(len(self.groups))] = DecoderCell(wider, width, expansion=6, **config.cell_style())
            for _ in range(count):
                self.groups.append(LatentGroup(config, width, first=not self.groups))
            wider = width
        self.grow = grow_blocks(config)
        finest = widths[: config.pre_blocks][::-1]
        self.merges = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in finest) if config.skip == "max" else None
        channels = LIKELIHOODS[traits.likelihood].parameter_channels(traits.out_channels)
        filters = config.filters if isinstance(config, FusionRawConfig) else 1
        conv = nn.Conv2d(widths[0], head_channels(channels, traits.upscale), 3, padding=1)
        self.head = SubPixelHead(conv, channels, traits.upscale, filters)

    def forward(
        self, reading: Reading, source: Source, stride: int, posterior_heads: PosteriorHeads | None
    ) -> tuple[Tensor, tuple[Latent, ...]]:
        """Draw the latents from `source`, coarsest first, and give the head's output with them."""
        height, width = reading.size
        state = spread_start(self.start, reading.items, (height // stride, width // stride))
        latents = []
        for place, group in enumerate(self.groups):
            assert isinstance(group, LatentGroup)
            if str(place) in self.doubles:
                state = self.doubles[str(place)](state)
            state, guide = group.step(state)
            of_frames = None if reading.frames is None else reading.frames.taps[place]
            prior, posterior = group.prior(of_frames, guide, state), None
            if reading.target is not None and posterior_heads is not None:
                posterior = posterior_heads(place, reading.target.taps[place], of_frames, guide, prior)
            z = source(place, prior, posterior)
            latents.append(Latent(z, prior, posterior))
            state = group.advance(state, z)
        for step, block in enumerate(self.grow):
            state = block(state)
            if self.merges is not None:
                level = len(self.grow) - 1 - step
                shown = torch.zeros_like(state)
                if reading.frames is not None:
                    shown = aggregate(reading.frames.levels[level], "max")
                state = self.merges[step](torch.cat((state, shown.to(state)), 1))
        return self.head(F.elu(state)), tuple(latents)


class FusionVae(FusionNetwork):
    """FusionVAE on pictures of one size, or on RAW frames."""

    def __init__(self, config: FusionConfig | FusionRawConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = traits = config.traits()
        self.shared = SharedEncoder(config, traits.in_channels)
        # Only training needs it; weights for enhancing come without.
        target_channels = traits.out_channels * traits.upscale**2
        self.encoder: PosteriorHeads | None = PosteriorHeads(config, traits.in_channels, target_channels)
        self.decoder = Decoder(config, generator)
        self.to_packed = nn.PixelUnshuffle(traits.upscale)
        start_weights(self, config, generator)
        if traits.base != "none":
            # The output is a difference to the base picture, so training starts at the base picture.
            self.decoder.head.start_at_zero()
            nn.init.zeros_(list(self.decoder.head.parameters())[-1])
        self.size_penalty = SizePenalty(self, generator) if config.penalised else None

    def read(self, frames: Tensor, target: Tensor | None = None) -> Reading:
        """Run the shared encoder, which both paths below start with."""
        if target is None:
            return read_pictures(self.shared, self.config, frames)
        if self.encoder is None:
            raise WeightsError(
                "these weights lack the posterior, which reading a target needs; train with run.keep_posterior = true"
            )
        return read_pictures(self.shared, self.config, frames, self.to_packed(target), self.encoder.stem)

    def draw_posterior(
        self, reading: Reading, generator: torch.Generator, base: Tensor | None = None, share: Share | None = None
    ) -> Restoration:
        """Draw every latent from its posterior, for a reading of a target."""

        def source(place: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            assert posterior is not None
            return draw(posterior, standard_noise(posterior.mean, generator, share))

        return self._restoration(reading, source, base)

    def draw_prior(self, reading: Reading, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """Take every latent from its prior: the mean, or `noise` standard deviations away from it."""

        def source(place: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            return prior.mean if noise is None else draw(prior, noise[place])

        return self._restoration(reading, source, base)

    def _restoration(self, reading: Reading, source: Source, base: Tensor | None) -> Restoration:
        parameters, latents = self.decoder(reading, source, self.config.stride, self.encoder)
        return make_restoration(self.traits.likelihood, parameters, latents, base)


def make_restoration(
    likelihood: Likelihood, parameters: Tensor, latents: tuple[Latent, ...] = (), base: Tensor | None = None
) -> Restoration:
    """What a head's output says under a likelihood; a base picture, if any, is added to its mean."""
    entry = LIKELIHOODS[likelihood]
    image = entry.mean(parameters)
    if base is not None:
        image = image + base
    return Restoration(image, latents, None if entry.only_mean else parameters)


def start_weights(network: nn.Module, config: TowerOptions, generator: torch.Generator) -> None:
    """Draw a network's first weights: on RAW frames as its options say, else uniformly by fan-in.

    With `weight_norm` they are taken apart afterwards, so that training starts at the same function.
    """
    init = config.init if isinstance(config, FusionRawConfig) else "uniform"
    if init == "uniform":
        initialise_uniform(network, generator)
    else:
        initialise(network, init, generator)
    if isinstance(config, PictureOptions) and config.weight_norm:
        normalise_weights(network)
