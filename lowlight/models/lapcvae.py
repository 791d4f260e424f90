"""Laplacian pyramid of conditional VAEs for finished pictures, and the plain VAE beside it (one level).

Source: G. Dorta et al., Laplacian Pyramid of Conditional Variational Autoencoders, CVMP 2017. Level k = 1 is the
finest, K the coarsest. `x_k = h_k + u(x_{k+1})`. Level K is a plain VAE of x_K with prior N(0, I). Below it (k < K)
the posterior is q(z_k | h_k, u(x_{k+1})), the likelihood p(h_k | z_k ... z_K), and a small network gives the prior of
z_k from the mean and variance of z_{k+1}. Where nothing was encoded (samples, painted pictures), these are read from
the coarse picture as it stands (`re-encode`), or are what z_{k+1} was drawn from (`chain`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Gaussian, Latent, LatentShape, ModelTraits, Noise, Restoration, Share
from lowlight.models.blocks import Init, initialise, unit_gaussian
from lowlight.models.lapcvae_parts import DEEPEST_PX, MID_GRAY, LevelDecoder, LevelEncoder, PriorNetwork, moved
from lowlight.models.options import require_sizes
from lowlight.ops.gaussian import standard_noise
from lowlight.ops.pyramid import PyramidFilter, PyramidLevel, gaussian_pyramid, up


@dataclass(frozen=True, kw_only=True)
class LapCvaeConfig:
    """Size of the pyramid and of each level's networks."""

    side_px: int = 64  # of the pictures, a power of two
    levels: int = 3  # K; 1 is a plain VAE
    latent: int = 64  # Z of each level
    base_channels: int = 32  # of the first convolution; each further one has twice as many
    most_channels: int = 256
    hidden: int = 512
    prior_hidden: int = 256
    filter: PyramidFilter = "box"
    sigma: Literal["scalar", "pixel", "fixed"] = "scalar"  # width of the likelihood: one a picture, one a value, 1
    cond: Literal["latents", "latents+image"] = "latents"  # what a decoder sees of the coarser levels
    unseen: Literal["re-encode", "chain"] = "re-encode"  # statistics of a level that was not encoded
    init: Init = "kaiming"

    def __post_init__(self) -> None:
        if self.side_px < 2 * DEEPEST_PX or self.side_px & (self.side_px - 1):
            raise ConfigError(f"side_px is {self.side_px}; expected a power of two, at least {2 * DEEPEST_PX}")
        if self.levels < 1 or self.side_px >> (self.levels - 1) < 2 * DEEPEST_PX:
            raise ConfigError(
                f"{self.levels} levels of pictures of {self.side_px} pixels cannot be; the coarsest has at least "
                f"{2 * DEEPEST_PX} pixels a side, so take fewer levels"
            )
        require_sizes(self, "latent", "base_channels", "most_channels", "hidden", "prior_hidden")

    def channels(self, level: int) -> list[int]:
        """Channels of the convolutions of a level, down to 4x4 pixels."""
        steps = ((self.side_px >> (level - 1)) // DEEPEST_PX).bit_length() - 1
        return [min(self.base_channels << step, self.most_channels) for step in range(steps)]

    def traits(self) -> ModelTraits:
        """Promise pictures of one size, made from no frames."""
        return ModelTraits(
            kind="image",
            in_channels=3,
            out_channels=3,
            max_frames=0,
            likelihood="gaussian",
            latents=(LatentShape(self.latent),) * self.levels,
            tile=self.side_px,
        )


class Level(nn.Module):
    """The networks of one level: E_k, D_k, and M_k at all but the coarsest."""

    def __init__(self, config: LapCvaeConfig, level: int) -> None:
        super().__init__()
        coarsest = level == config.levels
        channels, colours = config.channels(level), 3
        self.encoder = LevelEncoder(colours if coarsest else 2 * colours, channels, config.hidden, config.latent)
        self.decoder = LevelDecoder(
            config.latent * (config.levels - level + 1),
            channels,
            config.hidden,
            colours,
            config.sigma,
            config.cond == "latents+image" and not coarsest,
        )
        self.prior = None if coarsest else PriorNetwork(config.latent, config.prior_hidden)


@dataclass(frozen=True)
class _Walk:
    """How far the way from coarse to fine has come: pictures and latents coarsest first, statistics of the last."""

    pictures: tuple[Tensor, ...]
    latents: tuple[Latent, ...]
    statistics: Gaussian


class LapCvae(nn.Module):
    """The levels under the names of the paper. `restore` and its kin walk from the coarsest level to the finest."""

    def __init__(self, config: LapCvaeConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = config.traits()
        levels = [Level(config, level) for level in range(1, config.levels + 1)]
        self.pyramid = nn.ModuleList(levels)
        initialise(self, config.init, generator)
        for level in levels:
            level.decoder.start_flat(MID_GRAY if level.prior is None else 0.0)
            if level.prior is not None:
                level.prior.start_small()

    def terms(
        self,
        frames: Tensor,
        target: Tensor,
        generator: torch.Generator | None,
        level: int | None = None,
        share: Share | None = None,
        differentiate_bands: bool = False,
    ) -> tuple[PyramidLevel, ...]:
        """What an objective scores: `level` alone, the coarser ones without gradients, or all levels for None.

        Coarse latents are drawn from their posteriors and the low-frequency pictures are the true ones. Without a
        generator latents are the posteriors' means. With `differentiate_bands` what the encoders read of the bands
        that are scored requires gradients.
        """
        pictures = self.pictures(target)
        terms: list[PyramidLevel] = []
        samples: list[Tensor] = []
        statistics: Gaussian | None = None
        for k in range(self.config.levels, (level or 1) - 1, -1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and level in (None, k)):
                low = None if k == self.config.levels else up(pictures[k], self.config.filter)
                band = pictures[k - 1] if low is None else pictures[k - 1] - low
                read = band.detach().requires_grad_() if differentiate_bands and level in (None, k) else band
                posterior = self._encode(k, read, low)
                noise = None if generator is None else (standard_noise(posterior.mean, generator, share),)
                samples.append(moved(posterior, noise, 0))
                if level in (None, k):
                    latent = Latent(samples[-1], self._prior(k, statistics, target), posterior)
                    mean, log_variance = self._decode(k, samples, low)
                    decode = partial(self._mean_of, k, tuple(samples[:-1]), low)
                    terms.append(PyramidLevel(k, band, mean, latent, log_variance, low, read, decode))
                statistics = posterior
        return tuple(terms)

    def reconstruct(
        self,
        frames: Tensor,
        target: Tensor,
        generator: torch.Generator | None,
        base: Tensor | None = None,
        share: Share | None = None,
    ) -> Restoration:
        """Encode every level of `[B, 3, n, n]` and decode; latents are posterior means without a generator."""
        terms = self.terms(frames, target, generator, share=share)
        pictures: list[Tensor] = []
        for term in terms:
            pictures.append(term.mean + up(pictures[-1], self.config.filter) if pictures else term.mean)
        return Restoration(pictures[-1], tuple(term.latent for term in terms), levels=tuple(reversed(pictures)))

    def restore(
        self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None, levels: int = 1
    ) -> Restoration:
        """A sample for each item of `frames [B, 0, ...]`: latents are prior means, moved by `noise` (coarsest first).

        `levels` is the finest level that is run; from there on the picture is enlarged by interpolation.
        """
        count, top = len(frames), self.config.levels
        prior = unit_gaussian(next(self.parameters()).new_zeros(count, self.config.latent))
        z = moved(prior, noise, 0)
        mean, _ = self._decode(top, [z], None)
        start = _Walk((mean,), (Latent(z, prior),), self._statistics(top, mean, None, prior, z))
        return self._descend(start, noise, levels)

    def sample_finer(self, target: Tensor, level: int, noise: Noise | None = None, levels: int = 1) -> Restoration:
        """Keep z_k ... z_K of pictures `[B, 3, n, n]` (posterior means), k = `level`; draw the finer ones.

        `noise` has one tensor for every latent, those of kept levels are not used. `level` 1 is the reconstruction.
        """
        return self._descend(self._encoded(target, level), noise, levels)

    def paint(self, painted: Tensor, level: int, noise: Noise | None = None) -> Restoration:
        """Render pictures of which the coarse picture x_k `[B, 3, n/2^(k-1), ...]` is given, k = `level`.

        Levels k ... K are encoded from the painted picture, which stays as it is; finer levels are drawn.
        """
        small = self._encoded(painted, level, first=level)
        kept = _Walk((*small.pictures[:-1], painted), small.latents, small.statistics)
        return self._descend(kept, noise, 1)

    def _encoded(self, target: Tensor, level: int, first: int = 1) -> _Walk:
        """Levels K ... `level` of pictures by their posterior means; `first` is the level that `target` shows."""
        pictures = self.pictures(target, first)
        shown: list[Tensor] = []
        samples: list[Tensor] = []
        latents: list[Latent] = []
        statistics: Gaussian | None = None
        for k in range(self.config.levels, level - 1, -1):
            picture = pictures[k - first]
            low = None if k == self.config.levels else up(pictures[k - first + 1], self.config.filter)
            posterior = self._encode(k, picture if low is None else picture - low, low)
            samples.append(posterior.mean)
            latents.append(Latent(posterior.mean, self._prior(k, statistics, target), posterior))
            mean, _ = self._decode(k, samples, low)
            shown.append(mean + up(shown[-1], self.config.filter) if shown else mean)
            statistics = posterior
        assert statistics is not None
        return _Walk(tuple(shown), tuple(latents), statistics)

    def _descend(self, walk: _Walk, noise: Noise | None, last: int) -> Restoration:
        """Go on from the last level of a walk to level `last` by the prior."""
        if not 1 <= last <= self.config.levels:
            raise ConfigError(f"levels is {last}; this model has levels 1 (finest) to {self.config.levels}")
        top = self.config.levels
        for k in range(top - len(walk.pictures), last - 1, -1):
            prior = self._prior(k, walk.statistics, walk.pictures[0])
            z = moved(prior, noise, top - k)
            low = up(walk.pictures[-1], self.config.filter)
            band, _ = self._decode(k, [*(latent.sample for latent in walk.latents), z], low)
            statistics = self._statistics(k, band, low, prior, z) if k > last else prior
            walk = _Walk((*walk.pictures, band + low), (*walk.latents, Latent(z, prior)), statistics)
        image = walk.pictures[-1]
        for _ in range(top - len(walk.pictures)):
            image = up(image, self.config.filter)
        return Restoration(image, walk.latents, levels=tuple(reversed(walk.pictures)))

    def _statistics(self, level: int, band: Tensor, low: Tensor | None, prior: Gaussian, z: Tensor) -> Gaussian:
        if self.config.unseen == "chain":
            return Gaussian(z, prior.log_variance)
        return self._encode(level, band, low)

    def pictures(self, target: Tensor, first: int = 1) -> tuple[Tensor, ...]:
        """The pictures of levels `first` (which `target` shows) to K, finest first."""
        side = self.config.side_px >> (first - 1)
        if target.shape[1:] != (3, side, side):
            raise ConfigError(
                f"level {first} of this model takes colour pictures of {side} x {side} pixels, got "
                f"{tuple(target.shape[1:])}; resize them first"
            )
        return gaussian_pyramid(target, self.config.levels - first + 1, self.config.filter)

    def _level(self, level: int) -> Level:
        found = self.pyramid[level - 1]
        assert isinstance(found, Level)
        return found

    def _encode(self, level: int, band: Tensor, low: Tensor | None) -> Gaussian:
        posterior: Gaussian = self._level(level).encoder(band if low is None else torch.cat((band, low), dim=1))
        return posterior

    def _prior(self, level: int, statistics: Gaussian | None, like: Tensor) -> Gaussian:
        if statistics is None:
            return unit_gaussian(like.new_zeros(len(like), self.config.latent))
        network = self._level(level).prior
        assert network is not None
        prior: Gaussian = network(statistics)
        return prior

    def _mean_of(self, level: int, coarser: tuple[Tensor, ...], low: Tensor | None, z: Tensor) -> Tensor:
        return self._decode(level, [*coarser, z], low)[0]

    def _decode(self, level: int, samples: list[Tensor], low: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance of the band; `samples` are z_K ... z_k."""
        z = torch.cat(tuple(reversed(samples)), dim=1)
        decoded: tuple[Tensor, Tensor | None] = self._level(level).decoder(
            z, low if self.config.cond == "latents+image" else None
        )
        return decoded
