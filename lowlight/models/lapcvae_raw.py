"""The Laplacian pyramid of conditional VAEs on RAW: a dark frame is enhanced from coarse to fine.

After G. Dorta et al., Laplacian Pyramid of Conditional Variational Autoencoders, CVMP 2017, with the blocks of
O. Eriksson's SID-net (Lund 2020) at every level; joining the two is our choice. `y` is the dark frame, `x` the bright
picture; both get a pyramid, y of block means alone. Level k has a conditioning network F_k (skips and a code c_k), a
posterior network E_k, a decoder D_k, and below the coarsest level a prior network fed with the code and the
distribution of z_{k+1}. At test time no posterior is needed (`chain`: the coarser prior's numbers are passed on).
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from lowlight.core.errors import UsageError
from lowlight.core.restoration import Gaussian, Latent, Noise, Restoration, Share
from lowlight.models.blocks import initialise, unit_gaussian
from lowlight.models.lapcvae_parts import moved
from lowlight.models.lapcvae_raw_parts import LapCvaeRawConfig, Level
from lowlight.models.sid_net import Down
from lowlight.ops.gaussian import clamp_log_variance, standard_noise
from lowlight.ops.grade import draw_grade, uniform_rows
from lowlight.ops.pyramid import PyramidLevel, down, gaussian_pyramid, up


@dataclass(frozen=True)
class _Walk:
    """The prior path so far, coarsest first: pictures, latents, and what each level hands to the next one's prior."""

    pictures: tuple[Tensor, ...] = ()
    latents: tuple[Latent, ...] = ()
    statistics: tuple[Gaussian, ...] = ()


class LapCvaeRaw(nn.Module):
    """All levels; `encoder` holds the posterior networks, which only training and `re-encode` need."""

    def __init__(self, config: LapCvaeRawConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = config.traits()
        levels = [Level(config, level) for level in range(1, config.levels + 1)]
        self.pyramid = nn.ModuleList(levels)
        self.encoder: nn.ModuleList | None = nn.ModuleList(
            Down(self._encoder_channels(level), config.channels(level), config.latent, heads=2)
            for level in range(1, config.levels + 1)
        )
        self.to_packed = nn.PixelUnshuffle(config.upscale)
        initialise(self, config.init, generator)
        for level in levels:
            level.decoder.start_small()
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

        Drawn for each item: whether the pictures are graded, whether the low-frequency picture is the prior path's
        own, and whether the coarser latents and their statistics are the prior path's. A residual is always the true
        picture less the low-frequency picture that was given. Without a generator nothing is drawn: the pictures are
        true and latents are the posteriors' means. With `differentiate_bands` what the encoders read of the bands
        that are scored requires gradients.
        """
        config, last = self.config, level or 1
        dark = self._dark(frames)
        coins = torch.ones(len(target), 2, device=target.device)
        own = _Walk()
        if generator is not None and last < config.levels:
            coins = uniform_rows(target, 2, generator, share)
            with torch.no_grad():
                own = self._descend(dark, own, None, last + 1)
            grade = draw_grade(target, config.grade_share, generator, share)
            target = grade(target)
            own = replace(own, pictures=tuple(map(grade, own.pictures)))
        use_picture = (coins[:, 0] < config.own_picture_share).view(-1, 1, 1, 1)
        use_prior = (coins[:, 1] < config.prior_share).view(-1, 1)
        pictures = self.pictures(target)
        terms: list[PyramidLevel] = []
        samples: list[Tensor] = []
        below: Gaussian | None = None
        for k in range(config.levels, last - 1, -1):
            index = config.levels - k
            with torch.set_grad_enabled(torch.is_grad_enabled() and level in (None, k)):
                low = None
                if k < config.levels:
                    given = pictures[k]
                    low = torch.where(use_picture, own.pictures[index - 1], given) if own.pictures else given
                band = pictures[k - 1] if low is None else pictures[k - 1] - self._enlarged(k, low)
                read = band.detach().requires_grad_() if differentiate_bands and level in (None, k) else band
                posterior = self._posterior(k, read, low)
                noise = None if generator is None else (standard_noise(posterior.mean, generator, share),)
                z = moved(posterior, noise, 0)
                if level in (None, k):
                    code, skips = self._condition(k, dark, low)
                    latent = Latent(z, self._prior(k, below, code), posterior)
                    mean, log_variance = self._decode(k, [*samples, z], skips)
                    decode = partial(self._mean_of, k, tuple(samples), skips)
                    terms.append(PyramidLevel(k, band, mean, latent, log_variance, low, read, decode))
                below = posterior
                if k > last and own.pictures:
                    z = torch.where(use_prior, own.latents[index].sample, z)
                    below = _choose(use_prior, own.statistics[index], posterior)
                samples.append(z)
        return tuple(terms)

    def reconstruct(
        self,
        frames: Tensor,
        target: Tensor,
        generator: torch.Generator | None,
        base: Tensor | None = None,
        share: Share | None = None,
    ) -> Restoration:
        """Encode every level of the true, ungraded pictures; latents are posterior means without a generator.

        A level is given the picture that the coarser ones made, and its band is what the true picture has beyond it.
        """
        dark, pictures = self._dark(frames), self.pictures(target)
        shown: list[Tensor] = []
        latents: list[Latent] = []
        for k in range(self.config.levels, 0, -1):
            low = shown[-1] if shown else None
            true_band = pictures[k - 1] if low is None else pictures[k - 1] - self._enlarged(k, low)
            posterior = self._posterior(k, true_band, low)
            noise = None if generator is None else (standard_noise(posterior.mean, generator, share),)
            code, skips = self._condition(k, dark, low)
            prior = self._prior(k, latents[-1].posterior if latents else None, code)
            latents.append(Latent(moved(posterior, noise, 0), prior, posterior))
            band, _ = self._decode(k, [latent.sample for latent in latents], skips)
            shown.append(band.float() if low is None else band.float() + self._enlarged(k, low))
        return Restoration(shown[-1], tuple(latents), levels=tuple(reversed(shown)))

    def restore(
        self,
        frames: Tensor,
        base: Tensor | None = None,
        noise: Noise | None = None,
        levels: int = 1,
        painted: Tensor | None = None,
        painted_level: int | None = None,
    ) -> Restoration:
        """Test-time path, coarse to fine: latents are the priors' means, moved by `noise` (coarsest first) if given.

        `levels` is the finest level that is run; from there on the picture is enlarged by interpolation. `painted
        [B, C', n, n]` takes the place of the picture of `painted_level`, and the finer levels are rendered from it.
        """
        if not 1 <= levels <= self.config.levels:
            raise UsageError(f"levels is {levels}; this model has levels 1 (finest) to {self.config.levels}")
        dark = self._dark(frames)
        if painted is None or painted_level is None:
            walk = self._descend(dark, _Walk(), noise, levels)
        else:
            walk = self._descend(dark, _Walk(), noise, painted_level)
            walk = replace(walk, pictures=(*walk.pictures[:-1], painted))
            walk = self._descend(dark, walk, noise, levels)
        image = walk.pictures[-1]
        for level in range(levels - 1, 0, -1):
            image = self._enlarged(level, image)
        return Restoration(image, walk.latents, levels=tuple(reversed(walk.pictures)))

    def _descend(self, dark: tuple[Tensor, ...], walk: _Walk, noise: Noise | None, last: int) -> _Walk:
        """Go on from the last level of a walk to level `last` by the prior."""
        top = self.config.levels
        for k in range(top - len(walk.pictures), last - 1, -1):
            low = walk.pictures[-1] if walk.pictures else None
            code, skips = self._condition(k, dark, low)
            prior = self._prior(k, walk.statistics[-1] if walk.statistics else None, code)
            latent = Latent(moved(prior, noise, top - k), prior)
            band, _ = self._decode(k, [*(one.sample for one in walk.latents), latent.sample], skips)
            statistics = prior
            if self.config.unseen == "re-encode" and k > 1:
                statistics = self._posterior(k, band, low)
            # Pictures keep full precision whatever the networks compute in: bands are small, their sum is not.
            picture = band.float() if low is None else band.float() + self._enlarged(k, low)
            walk = _Walk((*walk.pictures, picture), (*walk.latents, latent), (*walk.statistics, statistics))
        return walk

    def _dark(self, frames: Tensor) -> tuple[Tensor, ...]:
        return gaussian_pyramid(frames[:, 0], self.config.levels)

    def pictures(self, target: Tensor) -> tuple[Tensor, ...]:
        """x_1 ... x_K of a target; at upscale 2 x_1 has twice the packed size, and x_2 still half of it."""
        kind = self.config.filter
        if self.config.upscale == 1 or self.config.levels == 1:
            return gaussian_pyramid(target, self.config.levels, kind)
        return (target, *gaussian_pyramid(down(target, kind), self.config.levels, kind)[1:])

    def _enlarged(self, level: int, low: Tensor) -> Tensor:
        """The low-frequency picture at the size of a level's band."""
        large = up(low, self.config.filter)
        return up(large, self.config.filter) if level == 1 and self.config.upscale == 2 else large

    def _level(self, level: int) -> Level:
        found = self.pyramid[level - 1]
        assert isinstance(found, Level)
        return found

    def _condition(self, level: int, dark: tuple[Tensor, ...], low: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        seen = dark[level - 1]
        if low is not None:
            seen = torch.cat((seen, up(low, self.config.filter).to(seen.dtype)), dim=1)
        (code,), skips = self._level(level).condition(seen)
        return code, skips

    def _posterior(self, level: int, band: Tensor, low: Tensor | None) -> Gaussian:
        if self.encoder is None:
            raise UsageError(
                "these weights lack the posterior networks that this needs; train with keep_posterior, or use chain"
            )
        seen = self.to_packed(band) if level == 1 else band
        if low is not None:
            seen = torch.cat((seen, up(low, self.config.filter).to(seen.dtype)), dim=1)
        (mean, log_variance), _ = self.encoder[level - 1](seen)
        return Gaussian(mean, clamp_log_variance(log_variance))

    def _encoder_channels(self, level: int) -> int:
        colours = self.config.out_channels
        band = colours * self.config.upscale**2 if level == 1 else colours
        return band + (0 if level == self.config.levels else colours)

    def _prior(self, level: int, below: Gaussian | None, code: Tensor) -> Gaussian:
        if below is None:
            return unit_gaussian(code)
        network = self._level(level).prior
        assert network is not None
        prior: Gaussian = network(below, code)
        return prior

    def _mean_of(self, level: int, coarser: tuple[Tensor, ...], skips: list[Tensor], z: Tensor) -> Tensor:
        return self._decode(level, [*coarser, z], skips)[0]

    def _decode(self, level: int, samples: list[Tensor], skips: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance of the band; `samples` are z_K ... z_k."""
        z = torch.cat(tuple(reversed(samples)), dim=1)
        decoded: tuple[Tensor, Tensor | None] = self._level(level).decoder(z, skips)
        return decoded


def _choose(first: Tensor, ours: Gaussian, theirs: Gaussian) -> Gaussian:
    return Gaussian(*(torch.where(first, a, b) for a, b in zip(ours, theirs, strict=True)))


__all__ = ["LapCvaeRaw", "LapCvaeRawConfig"]
