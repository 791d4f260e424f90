"""FusionVAE and its baselines: published sizes, sets of frames, and the paths of training and of the test."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lowlight.core.config import from_dict, to_dict
from lowlight.core.errors import ConfigError, WeightsError
from lowlight.core.restoration import HierarchicalModel, LatentShape, PenalisedModel, Restoration, Share
from lowlight.models.fusion_baselines import FusionCvae, FusionFcn
from lowlight.models.fusion_blocks import FIRST_ITERATIONS, DepthwiseConv, HalvedSkip, SizePenalty, initialise_uniform
from lowlight.models.fusion_options import FcnConfig, FusionConfig, FusionCvaeConfig, FusionRawConfig
from lowlight.models.fusion_vae import FusionVae
from lowlight.models.macs import count_parameters, layer_macs
from lowlight.ops.gaussian import kl_divergence

CELEBA: dict[str, Any] = {
    "base_channels": 32,
    "pre_blocks": 1,
    "pre_cells": 2,
    "cells": 2,
    "groups": ((32, 10), (16, 5), (8, 2)),
    "image_px": 64,
    "channels": 3,
    "likelihood": "logistic-mixture",
    "crop_px": 0,
}
TLESS = {**CELEBA, "channels": 1, "likelihood": "bernoulli"}
TINY_PICTURE: dict[str, Any] = {
    "base_channels": 4,
    "pre_blocks": 1,
    "groups": ((8, 2), (4, 2)),
    "image_px": 16,
    "crop_px": 0,
}
TINY_RAW: dict[str, Any] = {"base_channels": 4, "channel_cap": 16, "pre_blocks": 3, "latent": 3}
VARIANTS = [(how, where) for how in ("max", "mean", "bayes") for where in ("add", "all")]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def on_meta(kind: type[nn.Module], config: Any) -> nn.Module:
    with torch.device("meta"):
        return kind(config, generator())


def tiny(**options: Any) -> FusionVae:
    return FusionVae(FusionConfig(**{**TINY_PICTURE, "latent": 3, **options}), generator(1)).eval()


def tiny_raw(**options: Any) -> FusionVae:
    return FusionVae(FusionRawConfig(**{**TINY_RAW, "groups": ((32, 2), (16, 1)), **options}), generator(1)).eval()


def tiny_baselines() -> Iterator[nn.Module]:
    for shortcuts in (False, True):
        yield FusionFcn(FcnConfig(**TINY_PICTURE, shortcuts=shortcuts), generator(1)).eval()
        yield FusionCvae(FusionCvaeConfig(**TINY_PICTURE, latent=3, shortcuts=shortcuts), generator(1)).eval()


def pictures(members: int, seed: int = 2, channels: int = 1, side_px: int = 16) -> Tensor:
    return torch.rand((2, members, channels, side_px, side_px), generator=generator(seed))


def picture(seed: int = 3, channels: int = 1, side_px: int = 16) -> Tensor:
    return torch.rand((2, channels, side_px, side_px), generator=generator(seed))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def noise_for(said: Restoration, seed: int = 9) -> tuple[Tensor, ...]:
    g = generator(seed)
    return tuple(torch.randn(latent.sample.shape, generator=g) for latent in said.latents)


@pytest.mark.parametrize(
    ("options", "literal", "expected"),
    [
        ({}, False, 670_173),
        ({}, True, 1_020_189),
        ({**CELEBA, "latent": 20}, False, 18_357_480),
        ({**CELEBA, "latent": 20}, True, 50_788_968),
        ({**TLESS, "latent": 20}, False, 18_328_293),
        ({**TLESS, "latent": 20}, True, 50_759_781),
    ],
)
def test_paper_presets_have_the_size_of_the_specification(
    options: dict[str, Any], literal: bool, expected: int
) -> None:
    assert parameters(on_meta(FusionVae, FusionConfig(**options, literal_groups=literal))) == expected


@pytest.mark.parametrize(
    ("options", "expected", "gmacs"),
    [
        ({}, 5_221_735, 8.53),
        ({"base_channels": 8, "channel_cap": 64, "groups": ((32, 2), (16, 1), (8, 1))}, 1_115_519, 1.91),
        ({"base_channels": 32, "channel_cap": 256}, 19_344_607, 32.8),
    ],
)
def test_raw_presets_have_their_size_and_cost_for_three_frames(
    options: dict[str, Any], expected: int, gmacs: float
) -> None:
    model = on_meta(FusionVae, FusionRawConfig(**options)).eval()
    assert parameters(model) == expected
    posterior = parameters(model.encoder)  # a stem of 3 channels and a head per group
    assert count_parameters(model) == expected - posterior and posterior < 0.1 * expected
    counted: list[int] = []
    for layer in model.modules():
        if not list(layer.children()):
            layer.register_forward_hook(
                lambda layer, entered, left: counted.append(layer_macs(layer, entered[0], left).true)
            )
    model.restore(torch.zeros(1, 3, 4, 256, 256, device="meta"))
    assert sum(counted) / 1e9 == pytest.approx(gmacs, rel=3e-3)


@pytest.mark.parametrize(("options", "size"), [({}, 670_173), (CELEBA, 18_357_480), (TLESS, 18_328_293)])
def test_baselines_are_as_large_as_fusion_vae_within_a_tenth(options: dict[str, Any], size: int) -> None:
    fcn = on_meta(FusionFcn, FcnConfig(**options))
    cvae = on_meta(FusionCvae, FusionCvaeConfig(**options, latent=20 if options else 10))
    for model in (fcn, cvae):
        assert abs(parameters(model) / size - 1) < 0.1


def test_shortcuts_need_no_parameters() -> None:
    fcn, cvae, *with_shortcuts = map(parameters, tiny_baselines())
    assert with_shortcuts == [fcn, cvae]


def test_traits_say_what_is_drawn_and_where() -> None:
    traits = FusionConfig().traits()
    assert (traits.kind, traits.tile, traits.likelihood, traits.crop_px) == ("image", 32, "bernoulli", 2)
    assert traits.latents == (LatentShape(10, 8),) * 2 + (LatentShape(10, 4),) * 5
    raw = FusionRawConfig(upscale=2, base="lowpass", input_colour="wb", output_colour="camera").traits()
    assert (raw.kind, raw.likelihood, raw.max_frames, raw.latent_stride) == ("raw", "laplace", 4, 32)
    assert raw.latents == (LatentShape(20, 32),) + (LatentShape(20, 16),) * 2 + (LatentShape(20, 8),) * 3
    assert (raw.upscale, raw.base, raw.input_colour, raw.output_colour) == (2, "lowpass", "wb", "camera")
    with_latents = [model.traits.latents for model in tiny_baselines()]
    assert with_latents == [(), (LatentShape(3, 4),)] * 2


@pytest.mark.parametrize("config", [FusionConfig(literal_groups=True), FusionRawConfig(), FusionCvaeConfig()])
def test_configurations_survive_being_written(config: Any) -> None:
    assert from_dict(type(config), to_dict(config), "test") == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": ((16, 5), (8, 2))},
        {"groups": ((4, 2), (8, 5))},
        {"groups": ()},
        {"base_channels": 7},
        {"channel_cap": 4},
        {"image_px": 30, "groups": ((7, 1), (3, 1))},
        {"latent": 0},
        {"channels": 2},
        {"crop_px": 16},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FusionConfig(**wrong)


def test_raw_configuration_checks_both_kinds_of_options() -> None:
    for wrong in ({"upscale": 3}, {"groups": ((64, 1),)}, {"out_channels": 1, "base": "lowpass"}):
        with pytest.raises(ConfigError):
            FusionRawConfig(**wrong)  # type: ignore[arg-type]


def train_once(model: nn.Module, frames: Tensor, target: Tensor, base: Tensor | None = None) -> Restoration:
    """Both paths, all numbers finite, and gradients of everything that is compared in training."""
    model.train()
    said: Restoration = model.reconstruct(frames, target, generator(4), base)
    shown = said.image if said.parameters is None else said.parameters
    total = shown.square().mean()
    for latent in said.latents:
        assert latent.posterior is not None
        total = total + kl_divergence(latent.posterior, latent.prior).mean()
    total.backward()
    assert total.isfinite() and said.image.shape == target.shape
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    return said


def untouched(model: nn.Module) -> set[str]:
    """Weights that no gradient reached.

    Biases are left out: before a batch norm they move nothing. So are the factors of a squeeze-excite, whose four
    hidden numbers may all be below 0.
    """
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum()}
    return {name for name, _ in model.named_parameters() if ".factors." not in name and "bias" not in name} - reached


@pytest.mark.parametrize(("how", "where"), VARIANTS)
@pytest.mark.parametrize("members", range(4))
def test_any_number_of_frames_trains_every_aggregation(how: str, where: str, members: int) -> None:
    model = tiny(aggregation=how, aggregate=where)
    said = train_once(model, pictures(members), picture())
    assert len(said.latents) == 4
    if members:
        assert not untouched(model)
    elif (how, where) == ("bayes", "all"):
        assert {name.split(".")[-2] for name in untouched(model)} == {"prior_head"}
    else:
        assert untouched(model) == {"decoder.groups.0.prior_head.weight"}
    with torch.no_grad():
        restored = model.eval().restore(pictures(members))
    assert restored.image.isfinite().all() and restored.image.min() >= 0 and restored.image.max() <= 1
    assert all(latent.posterior is None for latent in restored.latents)


@pytest.mark.parametrize(
    "options",
    [
        {"posterior": "xy"},
        {"residual_q": True},
        {"posterior": "xy", "aggregation": "bayes", "bayes_sigma": True},
        {"norm": "group"},
        {"skip": "max"},
        {"mean_element": True},
        {"channels": 3, "likelihood": "logistic-mixture"},
        {"likelihood": "laplace"},
        {"pre_cells": 2, "cells": 2},
    ],
)
@pytest.mark.parametrize("members", [0, 2])
def test_options_train(options: dict[str, Any], members: int) -> None:
    channels = options.get("channels", 1)
    said = train_once(tiny(**options), pictures(members, channels=channels), picture(channels=channels))
    assert (said.parameters is None) == (options.get("likelihood") == "laplace")


def test_without_frames_the_first_prior_is_exactly_standard() -> None:
    for model in (tiny(), tiny(aggregation="bayes", aggregate="all"), list(tiny_baselines())[1]):
        with torch.no_grad():
            said = model.reconstruct(pictures(0), picture(), generator())
        latent = said.latents[0]
        assert latent.posterior is not None
        assert not latent.prior.mean.any() and not latent.prior.log_variance.any()
        mean, log_variance = latent.posterior
        closed = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
        assert torch.allclose(kl_divergence(latent.posterior, latent.prior), closed, rtol=1e-5)


def test_no_frames_say_nothing_of_the_target() -> None:
    model = tiny()
    with torch.no_grad():
        assert torch.equal(model.restore(pictures(0)).image[0], model.restore(pictures(0)).image[1])


@pytest.mark.parametrize(("how", "where"), VARIANTS)
def test_order_of_frames_does_not_matter(how: str, where: str) -> None:
    model, frames = tiny(aggregation=how, aggregate=where, mean_element=True, skip="max"), pictures(3)
    with torch.no_grad():
        noise = noise_for(model.restore(frames))
        image = model.restore(frames, noise=noise).image
        turned = model.restore(frames[:, [2, 0, 1]], noise=noise).image
    if how == "max":
        assert torch.equal(image, turned)
    assert torch.allclose(image, turned, atol=1e-5)
    assert not torch.allclose(image, model.restore(pictures(3, seed=7), noise=noise).image, atol=1e-6)


def test_twice_the_same_frame_is_once_and_more_frames_only_raise_the_maximum() -> None:
    model, frames = tiny(), pictures(2)
    with torch.no_grad():
        once, twice = model.restore(frames), model.restore(frames[:, [0, 1, 0]])
        # Matrix products of other batch sizes round differently, in the last bit.
        assert torch.allclose(once.image, twice.image, rtol=0, atol=2e-7)
        few, many = model.read(frames[:, :1]).frames, model.read(frames).frames
        assert few is not None and many is not None
        for one, other in zip(few.taps, many.taps, strict=True):
            assert (other.amax(1) >= one.amax(1) - 1e-6).all()
        doubled = tiny(mean_element=True)
        assert torch.equal(doubled.restore(frames[:, :1]).image, model.restore(frames[:, :1]).image)
        assert not torch.equal(doubled.restore(frames).image, model.restore(frames).image)


def test_posterior_reads_the_frames_only_where_asked() -> None:
    for posterior, changes in (("y", False), ("xy", True)):
        model = tiny(posterior=posterior)
        with torch.no_grad():
            one, other = (model.reconstruct(pictures(2, seed), picture(), generator()) for seed in (2, 8))
        (a, b) = (said.latents[0].posterior for said in (one, other))
        assert a is not None and b is not None
        assert torch.equal(a.mean, b.mean) != changes


def test_restoring_needs_no_posterior() -> None:
    cvae = list(tiny_baselines())[1]
    for model, channels in ((tiny_raw(), 4), (tiny(), 1), (cvae, 1)):
        frames = pictures(2, channels=channels, side_px=64 if channels == 4 else 16)
        with torch.no_grad():
            whole = model.restore(frames).image
            model.register_module("encoder", None)
            assert torch.equal(model.restore(frames).image, whole)
        with pytest.raises(WeightsError, match="posterior"):
            model.reconstruct(frames, whole, generator())


def test_residual_posterior_starts_at_the_prior() -> None:
    model = tiny(residual_q=True)
    for name, parameter in model.named_parameters():
        if name.startswith("encoder."):
            nn.init.zeros_(parameter)
    with torch.no_grad():
        said = model.reconstruct(pictures(2), picture(), generator())
    for latent in said.latents:
        assert latent.posterior is not None
        assert torch.equal(latent.posterior.mean, latent.prior.mean)
        assert not kl_divergence(latent.posterior, latent.prior).any()


def test_sigmas_and_means_keep_their_limits() -> None:
    model = tiny()
    for name, parameter in model.named_parameters():
        if "_head" in name or name.startswith("encoder."):
            nn.init.normal_(parameter, 0.0, 50.0, generator=generator())
    with torch.no_grad():
        said = model.reconstruct(pictures(1), picture(), generator())
    for latent in said.latents:
        for normal in (latent.prior, latent.posterior):
            assert normal is not None and normal.mean.abs().max() <= 5
            sigma = (normal.log_variance / 2).exp()
            assert sigma.min() >= 0.01 and sigma.max() <= 148.5


def test_noise_moves_the_latents_by_their_deviation() -> None:
    model, frames = tiny(), pictures(2)
    with torch.no_grad():
        still = model.restore(frames)
        noise = noise_for(still)
        moved = model.restore(frames, noise=noise)
        zero = model.restore(frames, noise=tuple(torch.zeros_like(one) for one in noise))
    assert torch.equal(zero.image, still.image) and not torch.equal(moved.image, still.image)
    first, prior = moved.latents[0].sample, moved.latents[0].prior
    assert torch.allclose(first, prior.mean + (prior.log_variance / 2).exp() * noise[0])
    shapes = [(shape.channels, 16 // (shape.stride or 1)) for shape in model.traits.latents]
    assert [(one.shape[1], one.shape[2]) for one in noise] == shapes


def test_a_halved_skip_is_four_convolutions_of_stride_two() -> None:
    for channels in (4, 16):
        skip = HalvedSkip(channels, 2 * channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn((4, channels, 32, 32), generator=generator()).requires_grad_()
        found = skip(x.contiguous(memory_format=torch.channels_last))
        # In 64 bits, where convolutions with a stride may be relied on.
        strided = [
            nn.functional.conv2d(
                nn.functional.silu(x.double())[:, :, row:, col:], phase.weight.double(), phase.bias.double(), stride=2
            )
            for phase, (row, col) in zip(skip.phases, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True)
        ]
        expected = torch.cat(strided, 1)
        assert torch.allclose(found.double(), expected, atol=1e-5)
        inputs = [x, *skip.parameters()]
        wanted, gradients = (torch.autograd.grad(out.square().sum(), inputs) for out in (expected, found))
        for one, other in zip(gradients, wanted, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_gradients_lie_in_memory_as_the_activations_do() -> None:
    # Where they do not, nothing is wrong but the time that training takes.
    astray: list[str] = []

    def look(name: str, gradient: Tensor) -> None:
        if gradient.shape[1] > 1 and gradient.stride(1) != 1:
            astray.append(name)

    def watch(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            output.register_hook(partial(look, name))

    # PyTorch's types of `Module.to` do not know the argument.
    model = tiny().train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, layer in model.shared.tower.named_modules():
        layer.register_forward_hook(partial(watch, name))
    found = model.reconstruct(pictures(2), picture(), generator())
    (found.image.sum() + sum(kl_divergence(z.posterior, z.prior).sum() for z in found.latents)).backward()
    assert astray == []


def test_reading_once_and_drawing_often_is_the_same() -> None:
    frames, target = pictures(2), picture()
    for model in (tiny(), *tiny_baselines()):
        with torch.no_grad():
            reading = model.read(frames, target)
            assert torch.equal(
                model.draw_posterior(reading, generator(5)).image, model.reconstruct(frames, target, generator(5)).image
            )
            assert torch.equal(model.draw_prior(model.read(frames)).image, model.restore(frames).image)
            many = model.draw_posterior(reading.repeat(3), generator(5))
            apart = model.reconstruct(*(x.repeat_interleave(3, 0) for x in (frames, target)), generator(5))
        assert torch.allclose(many.image, apart.image, atol=1e-6)
        assert torch.equal(many.image[0], many.image[1]) == (not model.traits.latents)


def test_a_share_of_a_batch_is_drawn_as_in_the_whole() -> None:
    frames, target = (torch.cat(parts) for parts in ((pictures(2), pictures(2, 9)), (picture(), picture(7))))
    for model in (tiny(), *tiny_baselines()):
        with torch.no_grad():
            whole = model.reconstruct(frames, target, generator(5)).image
            part = model.reconstruct(frames[1:3], target[1:3], generator(5), share=Share(1, 4)).image
        assert torch.allclose(part, whole[1:3], atol=1e-6)


def test_evaluation_uses_the_running_numbers_of_one_set_of_norms() -> None:
    model = tiny()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any("target" in name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        frames = pictures(2)
        assert torch.allclose(model.restore(frames).image[:1], model.restore(frames[:1]).image, atol=1e-6)
        before = [norm.running_mean.clone() for norm in norms]
        model.restore(frames)
        assert all(torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True))
        for members in (3, 0, 1):
            model.train().reconstruct(pictures(members), picture(), generator())
    assert {int(norm.num_batches_tracked) for norm in norms} == {3}
    assert not any(torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True))


@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("base", ["none", "lowpass"])
def test_raw_frames_at_both_sizes_with_and_without_a_base(upscale: int, base: str) -> None:
    model = tiny_raw(upscale=upscale, base=base)
    frames, target = pictures(2, channels=4, side_px=64), picture(channels=3, side_px=64 * upscale)
    picture_below = None if base == "none" else picture(6, channels=3, side_px=64 * upscale)
    with torch.no_grad():
        restored = model.restore(frames, picture_below).image
    assert restored.shape == target.shape
    if picture_below is not None:
        assert torch.equal(restored, picture_below)
        head = list(model.decoder.head.children())[-1]
        assert not head.weight.any() and not head.bias.any()
        nn.init.normal_(head.weight, 0.0, 0.1, generator=generator())
    train_once(model, frames, target, picture_below)
    assert not untouched(model)


@pytest.mark.parametrize("members", [0, 1, 3])
def test_raw_tiles_of_any_multiple_of_the_stride(members: int) -> None:
    model = tiny_raw(groups=((32, 1), (16, 1), (8, 1)))
    for height, width in ((32, 32), (64, 96), (160, 32)):
        frames = torch.rand((1, members, 4, height, width), generator=generator())
        with torch.no_grad():
            said = model.restore(frames)
            said = model.restore(frames, noise=noise_for(said))
        assert said.image.shape == (1, 3, height, width) and said.image.isfinite().all()
        places = [(height // (one.stride or 1), width // (one.stride or 1)) for one in model.traits.latents]
        assert [tuple(latent.sample.shape[2:]) for latent in said.latents] == places
    with pytest.raises(AssertionError):
        model.restore(torch.zeros(1, 1, 4, 48, 64))


def test_small_tiles_train_all_of_the_first_state() -> None:
    model = tiny_raw(groups=((32, 1), (16, 1), (8, 1)))
    train_once(model, pictures(1, channels=4, side_px=64), picture(channels=3, side_px=64))
    assert model.decoder.start.shape[1:] == (8, 8)
    assert (model.decoder.start.grad != 0).all()  # type: ignore[union-attr]


def test_skips_show_the_frames_and_nothing_without_them() -> None:
    for skip, grows in (("max", True), ("none", False)):
        model = tiny_raw(skip=skip)
        assert (model.decoder.merges is not None) == grows
        frames = pictures(2, channels=4, side_px=64)
        with torch.no_grad():
            reading = model.read(frames)
            blind = reading._replace(
                frames=reading.frames._replace(levels=tuple(map(torch.zeros_like, reading.frames.levels)))
            )  # type: ignore[union-attr]
            same = torch.equal(model.draw_prior(reading).image, model.draw_prior(blind).image)
        assert same != grows


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_bf16_stays_finite(norm: str) -> None:
    model = tiny_raw(norm=norm, mean_element=True, upscale=2, base="lowpass")
    frames, target = pictures(2, channels=4, side_px=64), picture(channels=3, side_px=128)
    with torch.autocast("cpu", torch.bfloat16):
        for members in (0, 2):
            said = train_once(model, frames[:, :members], target, target)
            for latent in said.latents:
                assert latent.prior.mean.dtype == latent.sample.dtype == torch.float32
        assert model.eval().restore(frames, target).image.isfinite().all()


def test_channels_by_themselves_train_in_full_precision_on_a_cpu() -> None:
    conv, x = DepthwiseConv(8), torch.randn(2, 8, 12, 12, generator=generator(3))
    wide, narrow = x.clone().requires_grad_(), x.bfloat16().requires_grad_()
    conv(wide).square().sum().backward()
    exact, conv.weight.grad = conv.weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        said = conv(narrow)
        assert said.dtype == torch.float32
        with torch.no_grad():
            assert conv(narrow).dtype == torch.bfloat16
    said.square().sum().backward()
    assert exact is not None and conv.weight.grad is not None
    # Only the rounding of what went in is left: 2^-9 of each number, far less of their sums.
    torch.testing.assert_close(conv.weight.grad, exact, rtol=4e-3, atol=4e-3 * exact.abs().max().item())


@pytest.mark.parametrize("flat", [False, True])
def test_weights_in_16_bits_restore_pictures_of_any_size(flat: bool) -> None:
    model = tiny_raw(norm="channel", squeeze=False, flat_start=flat, upscale=2).to(torch.bfloat16).eval()
    frames = pictures(2, channels=4, side_px=64).to(torch.bfloat16)
    with torch.inference_mode():
        image = model.restore(frames).image
    assert image.shape[-1] == 128 and image.isfinite().all()


@pytest.mark.parametrize("members", range(4))
def test_baselines_train_with_any_number_of_frames(members: int) -> None:
    for model in tiny_baselines():
        assert isinstance(model, HierarchicalModel) and isinstance(model, PenalisedModel)
        said = train_once(model, pictures(members), picture())
        assert len(said.latents) == len(model.traits.latents)
        with torch.no_grad():
            frames = pictures(members)
            image = model.eval().restore(frames, noise=noise_for(said)).image
            if members:
                # Not to the last bit: some convolutions round by the place that a picture has in a batch.
                turned = model.restore(frames.flip(1), noise=noise_for(said)).image
                torch.testing.assert_close(turned, image, rtol=0, atol=1e-5)
                assert untouched(model) <= {"start"}


def test_shortcuts_carry_the_frames_past_the_bottleneck() -> None:
    for model in tiny_baselines():
        frames = pictures(1)
        with torch.no_grad():
            plain = model.restore(frames).image
            # Whatever the bottleneck is made to say, only shortcuts still tell one frame from another.
            model.shared.tower.coarsest.register_forward_hook(lambda *step: torch.zeros_like(step[2]))
            carried = [model.restore(frames).image, model.restore(pictures(1, seed=8)).image]
        assert plain.shape == carried[0].shape
        assert torch.equal(*carried) != model.config.shortcuts


def test_the_same_seed_gives_the_same_weights() -> None:
    one, other = (FusionVae(FusionConfig(**TINY_PICTURE), generator(1)).state_dict() for _ in range(2))
    third = FusionVae(FusionConfig(**TINY_PICTURE), generator(2)).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], third[name]) for name in one)


@pytest.mark.parametrize("init", ["uniform", "kaiming", "normal02"])
def test_raw_networks_start_as_their_options_say(init: str) -> None:
    weight = tiny_raw(init=init).shared.stem.weight.detach()
    fan_in = weight[0].numel()
    expected = {"uniform": (3 * fan_in) ** -0.5, "kaiming": (2 / 1.04 / fan_in) ** 0.5, "normal02": 0.02}[init]
    assert weight.std().item() == pytest.approx(expected, rel=0.2)


def expected_penalty(model: nn.Module) -> float:
    convs = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    norms = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    singular = sum(torch.linalg.matrix_norm(weight.flatten(1).double(), 2) for weight in convs)
    return float((singular + sum(weight.abs().max() for weight in norms)).detach())


def test_penalty_is_the_sum_of_singular_values_and_goes_on_where_it_was() -> None:
    model = tiny().train()
    exact = expected_penalty(model)
    first = model.penalty()
    # The power method comes from below, and nearer with each step.
    assert first.item() > 0.97 * exact and first.item() <= exact * (1 + 1e-5)
    for _ in range(20):
        last = model.penalty()
    assert first.item() < last.item() <= exact * (1 + 1e-5) and last.item() == pytest.approx(exact, rel=3e-3)
    last.backward()  # type: ignore[no-untyped-call]
    weight = model.shared.stem.weight
    left, _, right = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
    assert torch.allclose(weight.grad.flatten(1), torch.outer(left[:, 0], right[0]), atol=1e-2)  # type: ignore[union-attr]
    resumed = tiny().train()
    resumed.load_state_dict(model.state_dict())
    assert torch.equal(resumed.penalty(), model.penalty())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval().penalty()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_penalty_leaves_convolutions_between_norms_out() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 1, bias=False))
    initialise_uniform(network, generator())
    penalty = SizePenalty(network, generator())
    assert FIRST_ITERATIONS == 40 and [len(b) for n, b in penalty.named_buffers() if "vectors" in n] == [1]
    exact = torch.linalg.matrix_norm(network[0].weight.flatten(1), 2)
    assert penalty(network).item() == pytest.approx(exact.item(), rel=1e-3)


def test_networks_without_a_penalty_say_so() -> None:
    with pytest.raises(ConfigError, match="penalised"):
        tiny_raw().penalty()
    assert not any("vectors" in name for name in tiny_raw().state_dict())
    raw = FusionRawConfig(**{**TINY_RAW, "penalised": True})
    assert on_meta(FusionVae, raw) and dataclasses.replace(raw, penalised=False) == FusionRawConfig(**TINY_RAW)
