"""The networks FusionVAE is compared with: a plain fully convolutional one and a conditional VAE of one latent.

Both keep FusionVAE's encoder, shared by all frames, and its cells; frames are fused by maximum at the bottleneck.
With `shortcuts` (+S) the decoder's state becomes the maximum of itself and the frames' features wherever it has grown
to a size the encoder knew. Source: F. Duffhauss et al., FusionVAE, ECCV 2022, section 5.3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight.core.errors import WeightsError
from lowlight.core.restoration import Gaussian, Latent, Noise, Restoration, Share
from lowlight.models.fusion_blocks import DecoderCell, SizePenalty
from lowlight.models.fusion_options import FcnConfig, FusionCvaeConfig
from lowlight.models.fusion_parts import (
    Features,
    SharedEncoder,
    aggregate,
    grow_blocks,
    make_start,
    spread_start,
    to_gaussian,
)
from lowlight.models.fusion_reading import FusionNetwork, Reading, read_pictures
from lowlight.models.fusion_vae import make_restoration, start_weights
from lowlight.ops.gaussian import draw, standard_noise, standard_normal
from lowlight.ops.likelihoods import LIKELIHOODS


class PlainDecoder(nn.Module):
    """FusionVAE's decoder without its latents: as many cells for each group, the first one included."""

    def __init__(self, config: FcnConfig) -> None:
        super().__init__()
        widths, counts, style = config.widths(), config.group_counts(), config.cell_style()
        scales: list[nn.Module] = []
        wider = None
        for width, count in reversed(list(zip(widths[config.pre_blocks :], counts, strict=True))):
            cells: list[nn.Module] = [] if wider is None else [DecoderCell(wider, width, expansion=6, **style)]
            cells += [DecoderCell(width, expansion=6, **style) for _ in range(count * config.cells)]
            scales.append(nn.Sequential(*cells))
            wider = width
        self.first = scales[0]
        self.blocks = nn.ModuleList([*scales[1:], *grow_blocks(config)])  # each begins with the cell that doubles
        channels = LIKELIHOODS[config.likelihood].parameter_channels(config.channels)
        self.head = nn.Conv2d(widths[0], channels, 3, padding=1)
        self.shortcuts = config.shortcuts

    def forward(self, state: Tensor, frames: Features | None) -> Tensor:
        """The coarsest state to the likelihood's parameters."""
        state = self.first(state)
        for step, block in enumerate(self.blocks):
            assert isinstance(block, nn.Sequential)
            state = block[0](state)
            if self.shortcuts and frames is not None:
                state = torch.maximum(state, aggregate(frames.levels[-2 - step], "max").to(state))
            state = block[1:](state)
        parameters: Tensor = self.head(F.elu(state))
        return parameters


class FusionFcn(FusionNetwork):
    """FCN and FCN+S: the frames' features, fused at the bottleneck, go straight into the decoder; nothing is drawn."""

    def __init__(self, config: FcnConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = config.traits()
        self.shared = SharedEncoder(config, config.channels)
        self.start = make_start(config, generator)
        width = config.widths()[-1]
        self.bottleneck = nn.Conv2d(width, width, 3, padding=1)
        self.decoder = PlainDecoder(config)
        start_weights(self, config, generator)
        self.size_penalty = SizePenalty(self, generator) if config.penalised else None

    def read(self, frames: Tensor, target: Tensor | None = None) -> Reading:
        """Run the encoder on the frames; there is no posterior that could read the target."""
        return read_pictures(self.shared, self.config, frames)

    def draw_posterior(
        self, reading: Reading, generator: torch.Generator, base: Tensor | None = None, share: Share | None = None
    ) -> Restoration:
        """The same as `draw_prior`: nothing is drawn."""
        return self.draw_prior(reading, base)

    def draw_prior(self, reading: Reading, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """Decode the fused frames; without any, the bottleneck is a tensor that was learned."""
        if reading.frames is None:
            state = coarsest_start(self.start, reading, self.config.stride)
        else:
            state = aggregate(reading.frames.taps[0], "max")
        state = self.bottleneck(F.elu(state))
        return make_restoration(self.traits.likelihood, self.decoder(state, reading.frames), (), base)


class FusionCvae(FusionNetwork):
    """CVAE and CVAE+S: one latent of the coarsest size, p(z|x) from the fused features, q(z|y) from the target's."""

    def __init__(self, config: FusionCvaeConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = config.traits()
        self.shared = SharedEncoder(config, config.channels)
        self.start = make_start(config, generator)
        width, numbers = config.widths()[-1], 2 * config.latent
        self.prior_head = nn.Conv2d(width, numbers, 3, padding=1)
        # q's own part, which only training needs.
        self.encoder: nn.Module | None = nn.Conv2d(width, numbers, 3, padding=1)
        self.join = nn.Conv2d(width + config.latent, width, 1)
        self.decoder = PlainDecoder(config)
        start_weights(self, config, generator)
        self.size_penalty = SizePenalty(self, generator) if config.penalised else None

    def read(self, frames: Tensor, target: Tensor | None = None) -> Reading:
        """Run the shared encoder, which both paths below start with."""
        return read_pictures(self.shared, self.config, frames, target)

    def draw_posterior(
        self, reading: Reading, generator: torch.Generator, base: Tensor | None = None, share: Share | None = None
    ) -> Restoration:
        """Draw the latent from its posterior, for a reading of a target."""
        if reading.target is None or self.encoder is None:
            raise WeightsError(
                "these weights lack the posterior, which reading a target needs; train with run.keep_posterior = true"
            )
        posterior = to_gaussian(self.encoder(reading.target.taps[0]))
        z = draw(posterior, standard_noise(posterior.mean, generator, share))
        return self._restoration(reading, Latent(z, self._prior(reading), posterior), base)

    def draw_prior(self, reading: Reading, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """Take the latent from its prior: the mean, or `noise` standard deviations away from it."""
        prior = self._prior(reading)
        z = prior.mean if noise is None else draw(prior, noise[0])
        return self._restoration(reading, Latent(z, prior), base)

    def _prior(self, reading: Reading) -> Gaussian:
        if reading.frames is None:
            start = coarsest_start(self.start, reading, self.config.stride)
            return standard_normal(start[:, :1].expand(-1, self.config.latent, -1, -1))
        return to_gaussian(self.prior_head(F.elu(aggregate(reading.frames.taps[0], "max"))))

    def _restoration(self, reading: Reading, latent: Latent, base: Tensor | None) -> Restoration:
        start = coarsest_start(self.start, reading, self.config.stride)
        state = self.join(torch.cat((start, latent.sample.to(start)), 1))
        return make_restoration(self.traits.likelihood, self.decoder(state, reading.frames), (latent,), base)


def coarsest_start(start: Tensor, reading: Reading, stride: int) -> Tensor:
    """Give h for the items of a reading, `[B, C, h', w']`."""
    height, width = reading.size
    return spread_start(start, reading.items, (height // stride, width // stride))
