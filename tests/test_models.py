"""Networks: the sizes the thesis publishes, and the steps every model promises."""

import copy
import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training_material import TINY_MODEL

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import RestorationModel
from lowlight.models import (
    FORMER_NAMES,
    MODELS,
    build_model,
    current_name,
    folded_join,
    fused_bias,
    model_config,
    onednn,
)
from lowlight.models.blocks import LEAK, DoubleConv, HalvingPool, UpConv
from lowlight.models.folded_join import FoldedJoin
from lowlight.models.fused_bias import add_bias, can_fuse, working_kernel
from lowlight.models.macs import count_macs, count_parameters
from lowlight.models.onednn import LeakyConv, PackedLinear
from lowlight.models.sub_pixel import SubPixelHead, filter_of_blocks
from lowlight.workflows.models import list_models

# Prior, encoder, decoder.
PARTS = {
    "sid-net": (21_490_240, 38_267_680, 27_985_923),
    "sid-net-noskip": (21_490_240, 38_267_680, 24_843_267),
    "sid-net-small": (13_762_592, 26_346_128, 15_394_051),
    "pix2pix": (19_536_832, 23_730_624, 34_873_795),
}
# Prior and decoder; true MACs; MACs as published.
PUBLISHED = {
    "sid-net": (49_476_163, 14_006_878_208, 15_855_583_232),
    "sid-net-noskip": (46_333_507, 10_986_979_328, 12_835_684_352),
    "sid-net-small": (29_156_643, 3_538_944_000, 4_010_409_984),
    "pix2pix": (54_410_627, 6_064_963_584, 18_163_366_400),
}
SID_SKIPS = [(32, 256), (64, 128), (128, 64), (256, 32), (512, 16)]
PIX2PIX_SKIPS = [(64, 128), (128, 64), (256, 32), (512, 16), (512, 8), (512, 4), (512, 2)]


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, model_config(name, options))


def tiny(name: str, **options: object) -> nn.Module:
    return build_model(name, model_config(name, {"init": "kaiming", **TINY_MODEL[name], **options})).eval()


# Those that the tests below know how to use; digits have tests of their own.
SINGLE = [name for name, entry in MODELS.items() if entry.kind == "raw" and isinstance(on_meta(name), RestorationModel)]


def numbers(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.parametrize("name", PARTS)
def test_each_part_has_the_size_of_the_thesis(name: str) -> None:
    model = on_meta(name)
    assert (parameters(model.prior), parameters(model.encoder), parameters(model.decoder)) == PARTS[name]
    assert parameters(model) == sum(PARTS[name])
    assert count_parameters(model) == PUBLISHED[name][0]


@pytest.mark.parametrize(("options", "expected"), [({"out_channels": 1}, 49_476_097), ({"in_channels": 3}, 49_475_875)])
def test_gray_and_srgb_tasks_differ_in_channels_only(options: dict[str, int], expected: int) -> None:
    assert count_parameters(on_meta("sid-net", **options)) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_counts_of_macs_are_the_published_ones(name: str) -> None:
    macs = count_macs(on_meta(name), (4, 256, 256))
    assert (macs.true, macs.published) == PUBLISHED[name][1:]


@pytest.mark.parametrize("name", SINGLE)
def test_true_macs_are_half_the_flops_torch_counts(name: str) -> None:
    model = on_meta(name, upscale=2).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.restore(torch.zeros(1, 1, 4, 256, 256, device="meta"))
    assert 2 * count_macs(model).true == counter.get_total_flops()


def test_counting_leaves_the_model_as_it_was() -> None:
    model = tiny("pix2pix").train()
    count_macs(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_list_follows_the_table_and_is_json() -> None:
    rows = json.loads(json.dumps(list_models()))
    assert [row["name"] for row in rows] == list(MODELS)
    for row in rows:
        keys = ("parameters", "macs", "macs_published_convention")
        assert row["name"] not in PUBLISHED or tuple(row[key] for key in keys) == PUBLISHED[row["name"]]
        assert row["summary"]
        assert (row["macs"] is None) == (row["kind"] == "image")
    assert next(row["parameters"] for row in rows if row["name"] == "digit-vae") == 820_004


@pytest.mark.parametrize("name", MODELS)
def test_the_table_tells_the_kind_of_the_traits(name: str) -> None:
    assert MODELS[name].kind == on_meta(name).traits.kind
    assert current_name(name) == name


def test_former_names_lead_to_models() -> None:
    assert set(FORMER_NAMES.values()) <= set(MODELS) and not set(FORMER_NAMES) & set(MODELS)
    assert (current_name("vae-10"), current_name("vae-11")) == ("digit-vae", None)


@pytest.mark.parametrize(
    ("name", "skips", "latent"),
    [
        ("sid-net", SID_SKIPS, 512),
        ("sid-net-noskip", [], 512),
        ("sid-net-small", [(channels // 2, size) for channels, size in SID_SKIPS], 768),
        ("pix2pix", PIX2PIX_SKIPS, 512),
    ],
)
def test_shapes_of_skips_and_latent(name: str, skips: list[tuple[int, int]], latent: int) -> None:
    model = on_meta(name)
    condition = model.condition(torch.zeros(2, 1, 4, 256, 256, device="meta"))
    assert [tuple(skip.shape) for skip in condition.skips] == [(2, c, size, size) for c, size in skips]
    assert condition.prior.mean.shape == condition.prior.log_variance.shape == (2, latent)


def test_pix2pix_bottleneck_is_one_pixel_without_activation() -> None:
    model = on_meta("pix2pix")
    (head,) = model.prior.heads
    assert isinstance(head, nn.Conv2d)
    assert head(torch.zeros(1, 512, 2, 2, device="meta")).shape == (1, 512, 1, 1)
    assert len(model.encoder.heads) == 2


def test_pix2pix_drops_out_in_three_blocks_and_only_in_training() -> None:
    model = tiny("pix2pix")
    with_dropout = [any(isinstance(m, nn.Dropout) for m in block) for block in model.decoder.blocks]
    assert with_dropout == [True] * 3 + [False] * 4
    frames = numbers((1, 1, 4, 256, 256))
    with torch.no_grad():
        assert torch.equal(model.restore(frames).image, model.restore(frames).image)
        model.train()
        assert not torch.equal(model.restore(frames).image, model.restore(frames).image)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("upscale", [1, 2])
def test_steps_of_a_tiny_model(name: str, upscale: int) -> None:
    model = tiny(name, upscale=upscale)
    assert isinstance(model, RestorationModel)
    assert (model.traits.upscale, model.traits.tile) == (upscale, 256)
    frames, size = numbers((2, 1, 4, 256, 256)), 256 * upscale
    with torch.no_grad():
        posterior = model.posterior(numbers((2, 3, size, size), 1))
        restoration = model.restore(frames)
        (latent,) = restoration.latents
        noisy = model.restore(frames, noise=(torch.ones_like(latent.sample),))
    assert restoration.image.shape == (2, 3, size, size)
    assert restoration.image.isfinite().all()
    assert restoration.image.std() > 0
    assert torch.equal(latent.sample, latent.prior.mean)
    assert posterior.mean.shape == posterior.log_variance.shape == latent.sample.shape
    # Each item of a batch is restored on its own, and noise moves the latent by the prior's deviation of 1.
    torch.testing.assert_close(noisy.latents[0].sample, latent.sample + 1)
    assert not torch.equal(noisy.image, restoration.image)
    with torch.no_grad():
        alone = model.restore(frames[1:]).image
    # Convolutions of another batch size sum in another order.
    torch.testing.assert_close(alone[0], restoration.image[1], rtol=0, atol=5e-4)
    assert (alone[0] - restoration.image[0]).abs().max() > 5e-3


@pytest.mark.parametrize("name", SINGLE)
def test_training_starts_at_the_base_picture(name: str) -> None:
    model = tiny(name, base="lowpass", upscale=2)
    base = numbers((1, 3, 512, 512), 3)
    with torch.no_grad():
        assert torch.equal(model.restore(numbers((1, 1, 4, 256, 256)), base).image, base)
        for parameter in model.decoder.head.parameters():
            parameter.fill_(0.01)
        frames = numbers((1, 1, 4, 256, 256))
        difference = model.restore(frames, base).image - model.restore(frames).image
    torch.testing.assert_close(difference, base, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SINGLE)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = tiny(name).train()
    condition = model.condition(numbers((1, 1, 4, 256, 256)))
    posterior = model.posterior(numbers((1, 3, 256, 256), 1))
    z = posterior.mean + posterior.log_variance.exp() + condition.prior.mean
    (model.decode(z, condition) - numbers((1, 3, 256, 256), 2)).abs().mean().backward()
    missing = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing


@pytest.mark.parametrize("name", SINGLE)
def test_a_seed_gives_one_set_of_weights(name: str) -> None:
    config = model_config(name, TINY_MODEL[name])
    one, same, other = (build_model(name, config, seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_initial_weights_of_the_thesis() -> None:
    model = build_model("sid-net", model_config("sid-net", {"base_channels": 8}))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert not module.bias.any()
            spread = 0.02 / math.sqrt(2 * module.weight.numel())  # of an estimated deviation
            assert float(module.weight.detach().std()) == pytest.approx(0.02, abs=5 * spread)


@pytest.mark.parametrize("name", SINGLE)
def test_kaiming_keeps_a_signal_in_a_small_network(name: str) -> None:
    model = tiny(name, **{"base_channels": 8})
    with torch.no_grad():
        restoration = model.restore(numbers((1, 1, 4, 256, 256)))
    assert 0.01 < float(restoration.latents[0].sample.std()) < 10
    assert 0.01 < float(restoration.image.std()) < 10


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_one_kernel_for_convolution_and_activation_gives_what_two_give(dtype: torch.dtype, tolerance: float) -> None:
    block = DoubleConv(4, 8).to(dtype)
    x = torch.randn(2, 4, 20, 12, dtype=dtype).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        apart = block(x)
    with torch.inference_mode():
        together = block(x)
    assert (apart < 0).any()
    assert (together - apart).abs().max() <= tolerance * apart.abs().max()
    assert block(x.clone()).requires_grad


def test_the_full_networks_run() -> None:
    frames = numbers((1, 1, 4, 256, 256))
    for name in ("sid-net", "pix2pix"):
        with torch.inference_mode():
            image = build_model(name, model_config(name)).eval().restore(frames).image
        assert image.shape == (1, 3, 256, 256)
        assert image.isfinite().all()


def test_wrong_options_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="there is no model called 'unet'"):
        model_config("unet")
    with pytest.raises(ConfigError, match="did you mean 'base_channels'"):
        model_config("pix2pix", {"base_chanels": 8})
    with pytest.raises(ConfigError, match="upscale is 3"):
        model_config("sid-net", {"upscale": 3})
    with pytest.raises(ConfigError, match="low-pass base"):
        model_config("pix2pix", {"base": "lowpass", "out_channels": 1})


@pytest.mark.parametrize("name", ["sid-net", "pix2pix"])
def test_more_filters_at_full_size_start_as_the_identity(name: str) -> None:
    one, three = (tiny(name, upscale=2, filters=count) for count in (1, 3))
    count = len(one.decoder.head)
    assert len(three.decoder.head) == count + 2
    state = three.state_dict()
    last = f"decoder.head.{count - 1}."
    for key, value in one.state_dict().items():
        state[key.replace(last, f"decoder.head.{count + 1}.")] = value
    three.load_state_dict(state)
    frames = numbers((1, 1, 4, 256, 256))
    with torch.no_grad():
        assert torch.equal(one.restore(frames).image, three.restore(frames).image)
    with pytest.raises(ConfigError, match="filters is 0"):
        model_config(name, {"filters": 0})


@pytest.mark.parametrize(("height", "width"), [(6, 9), (1, 1), (2, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_filter_at_full_size_may_be_applied_before_the_shuffle(height: int, width: int, channels: int) -> None:
    for first in (nn.Conv2d(5, 32, 1), nn.Conv2d(5, 32, 3, padding=1)):
        head = SubPixelHead(first, channels, 2)
        x = torch.randn(2, 5, height, width)
        with torch.no_grad():
            expected = head(x)
        found = torch.empty_like(expected)
        with torch.inference_mode():
            head.into(found, x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        weight, blocks = head[-1].weight.detach(), torch.randn(1, 32, 5, 7)
        inside = nn.functional.conv2d(blocks, filter_of_blocks(weight), padding=1)
        same = nn.functional.conv2d(nn.functional.pixel_shuffle(blocks, 2), weight, padding=1)
        torch.testing.assert_close(nn.functional.pixel_shuffle(inside, 2), same, rtol=1e-5, atol=1e-5)


def test_pooling_is_the_same_in_inference() -> None:
    x, pool = torch.randn(3, 5, 8, 6, generator=torch.Generator().manual_seed(0)), HalvingPool()
    with torch.inference_mode():
        found = pool(x)
    assert torch.equal(found, pool(x))


direct = pytest.mark.skipif(onednn._PACK_CONVOLUTION is None, reason="this PyTorch has no oneDNN to ask directly")


@direct
@pytest.mark.parametrize("batch", [3, 1_000_000_000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_packed_weights_give_what_plain_ones_give_for_any_size(
    dtype: torch.dtype, tolerance: float, batch: int
) -> None:
    layers = nn.ModuleList((DoubleConv(4, 8), PackedLinear(7, 40), UpConv(4, 6, 12))).to(dtype).requires_grad_(False)
    block, wide, up = layers
    onednn.pack_weights(layers, batch)
    assert all(weight.is_mkldnn for name, weight in layers.named_parameters() if name.endswith("weight"))
    for count, height, width in ((3, 20, 12), (1, 20, 12), (2, 8, 40)):
        x = torch.randn(count, 4, height, width, dtype=dtype).contiguous(memory_format=torch.channels_last)
        z = torch.randn(count, 7, dtype=dtype)
        skip = torch.randn(count, 3, 2 * height, 2 * width, dtype=dtype)
        with torch.inference_mode():
            found = block(x), wide(z), up.beside(x, skip), up.beside(x, skip)[:, :6]
            assert block[0].weight.is_mkldnn and wide.weight.is_mkldnn and up.weight.is_mkldnn
            twins = copy.deepcopy(layers)  # plain again
            expected = twins[0](x), twins[1](z), twins[2].beside(x, skip), twins[2](x)
        onednn.pack_weights(layers, batch)
        assert torch.equal(found[2][:, 6:], skip)
        for one, other in zip(found, expected, strict=True):
            assert (one - other).abs().max() <= tolerance * other.abs().max()


@direct
@pytest.mark.parametrize("skips", [6, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_folded_join_is_its_two_layers_border_and_all(
    dtype: torch.dtype, tolerance: float, skips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(folded_join.FOLDED_CHANNELS, torch.bfloat16, range(5, 6))
    up, conv = UpConv(4, 6, 12), LeakyConv(6 + skips, 5)
    join = FoldedJoin(up, conv)
    layers = nn.ModuleList((up, conv, join)).to(dtype)
    x, skip = (numbers((3, c, side, side)).to(dtype) - 0.5 for c, side in ((4, 12), (skips, 24)))
    with torch.inference_mode():
        expected = nn.functional.leaky_relu(conv(torch.cat((up(x), skip), 1)).float(), LEAK)
        onednn.pack_weights(layers, 3)
        assert join(x, skip, LEAK) is None  # its layers may still be trained
        layers.requires_grad_(False)
        onednn.pack_weights(layers, 3)
        assert not up.weight.is_mkldnn and not conv.weight.is_mkldnn  # what it can be made of again
        found = join(x, skip, LEAK)
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
        assert join(x[:, :, 1:], skip[:, :, 2:], LEAK) is None  # of another size
    assert join(x, skip, LEAK) is None  # gradients may be asked for
    layers.load_state_dict({name: 2 * value for name, value in layers.state_dict().items()})
    with torch.inference_mode():
        assert join(x, skip, LEAK) is None  # of weights that are no more
        onednn.pack_weights(layers, 3)
        doubled = nn.functional.leaky_relu(conv(torch.cat((up(x), skip), 1)).float(), LEAK)
        assert (join(x, skip, LEAK) - doubled).abs().max() <= tolerance * doubled.abs().max()


@direct
def test_few_or_many_channels_are_not_folded_in_16_bits() -> None:
    for channels, folded in ((32, False), (64, True), (256, True), (512, False)):
        join = FoldedJoin(UpConv(8, channels, 4), LeakyConv(2 * channels, channels))
        for layer in join.layers:
            layer.to(torch.bfloat16).requires_grad_(False)
        assert join.pack(1) is folded


@direct
def test_weights_are_packed_for_inference_alone_and_come_back_bit_for_bit() -> None:
    model = build_model("sid-net", model_config("sid-net", {"base_channels": 4, "latent": 8, "init": "kaiming"})).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frames = numbers((1, 1, 4, 256, 256))

    def packed() -> int:
        return sum(parameter.is_mkldnn for parameter in model.parameters())

    with torch.inference_mode():
        expected = model.restore(frames).image
        onednn.pack_weights(model, 1)
        assert packed() == 0  # it may still be trained
        model.requires_grad_(False)
        onednn.pack_weights(model, 1)
        assert packed() == 29  # 25 convolutions, 4 layers at the latent; the other 10 stand folded for themselves
        assert torch.allclose(model.restore(frames).image, expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(model.restore(frames).image, expected, atol=1e-5)
    assert packed() == 12  # of the encoder, which was not used
    for come_back in (model.state_dict, lambda: model.double().float().state_dict()):
        onednn.pack_weights(model, 1)
        assert packed() == 29
        state = come_back()
        assert packed() == 0 and all(torch.equal(state[name], value) for name, value in before.items())
    onednn.pack_weights(model, 1)
    twin = copy.deepcopy(model)
    model.load_state_dict({name: 2 * value for name, value in before.items()})
    assert torch.equal(model.state_dict()["prior.heads.0.weight"], 2 * before["prior.heads.0.weight"])
    assert torch.equal(twin.state_dict()["prior.heads.0.weight"], before["prior.heads.0.weight"])


def test_nothing_is_fused_by_hand_where_there_is_no_gpu() -> None:
    with torch.inference_mode():
        assert not can_fuse(torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16))


class FakeKernel:
    """What Triton's would do, on a CPU."""

    def __init__(self, offset: float = 0.0, error: Exception | None = None) -> None:
        self.offset, self.error = offset, error

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(x: torch.Tensor, bias: torch.Tensor, count: int, channels: int, slope: float, block: int) -> None:
            assert grid[0] * block >= count == x.numel() and x.shape[1] == channels == len(bias)
            if self.error:
                raise self.error
            x += bias[:, None, None] + self.offset
            torch.nn.functional.leaky_relu_(x, slope)

        return run


@pytest.mark.parametrize(
    ("kernel", "works"),
    [
        (None, False),
        (FakeKernel(), True),
        (FakeKernel(offset=0.5), False),
        (FakeKernel(error=RuntimeError("no compiler")), False),
    ],
)
def test_a_kernel_is_used_once_it_was_seen_to_work(
    kernel: FakeKernel | None, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    working_kernel.cache_clear()
    monkeypatch.setattr(fused_bias, "make_kernel", lambda: kernel)
    assert working_kernel(torch.device("cpu")) is (kernel if works else None)
    if works:
        x = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
        assert add_bias(x, torch.tensor([0.5]), 0.2).flatten().tolist() == pytest.approx([-0.1, 1.5])
    working_kernel.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 5, 33, 17), (3, 32, 64, 64)])
def test_bias_and_activation_in_one_pass(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=torch.channels_last)
    bias = torch.randn(shape[1], device="cuda").to(dtype)
    with torch.inference_mode():
        assert can_fuse(x)
        for slope in (1.0, LEAK):
            expected = torch.nn.functional.leaky_relu(x.float() + bias.float()[:, None, None], slope)
            found = add_bias(x.clone(memory_format=torch.preserve_format), bias, slope)
            torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-3)


@direct
def test_unpacked_weights_can_be_trained_where_that_was_asked_for() -> None:
    layer = PackedLinear(7, 40).requires_grad_(False)
    onednn.pack_weights(layer, 1)
    assert layer.weight.is_mkldnn
    layer.requires_grad_(True).train()
    assert not layer.weight.is_mkldnn
    layer(torch.ones(1, 7)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["sid-net", "pix2pix", "lapcvae", "fusion-raw"])
def test_every_network_has_the_filters_that_were_asked_for(name: str) -> None:
    counts = []
    with torch.device("meta"):
        for filters in (1, 3):
            model = build_model(name, model_config(name, {"upscale": 2, "filters": filters}))
            counts.append(sum(parameter.numel() for parameter in model.parameters()))
    assert counts[1] - counts[0] == 2 * (8 * 8 * 9 + 8)


def test_filters_of_a_network_drawn_uniformly_start_as_the_identity() -> None:
    options = {"base_channels": 4, "channel_cap": 16, "latent": 2, "groups": [[32, 1]], "upscale": 2, "filters": 2}
    model = build_model("fusion-raw", model_config("fusion-raw", options))
    assert not model.decoder.head[3].conv.weight.any()
