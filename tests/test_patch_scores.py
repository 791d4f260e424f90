"""What validation says of a network beside its pictures: divergence, the posterior's error, and the levels."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lapcvae_material import SMALL_RAW
from torch import nn
from training_material import TINY_MODEL, make_pair, tiny_values, write_packed

from lowlight.checkpoint import read_header
from lowlight.core.restoration import Restoration
from lowlight.data.pairs import Pair
from lowlight.metrics.fidelity import psnr
from lowlight.models import build_model, model_config
from lowlight.ops.exposure import amplify
from lowlight.ops.gaussian import kl_divergence
from lowlight.ops.pyramid import gaussian_pyramid
from lowlight.raw.bayer import pack
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.evaluating.oracle import Oracle
from lowlight.workflows.evaluating.patch_scores import chosen, mean_patches, score_patch
from lowlight.workflows.evaluating.validation import as_planes
from lowlight.workflows.training.config import resolve
from lowlight.workflows.training.train import train

OF_POSTERIOR = {"kl", "mae_posterior", "mae_prior"}
OF_LEVELS = {"psnr_level_1", "psnr_level_2", "psnr_level_3"}


def network(name: str, **options: object) -> nn.Module:
    small = SMALL_RAW if name == "lapcvae" else {"base_channels": 2, "latent": 8, "init": "kaiming"}
    return build_model(name, model_config(name, {**small, **options}), 3).eval()


def opened(model: nn.Module) -> Restorer:
    return Restorer(model, RestorerOptions(precision="fp32"), torch.device("cpu"))


def full_size_truth(pair: Pair) -> Pair:
    return replace(pair, truth=pair.truth.repeat(2, axis=0).repeat(2, axis=1))


def middle(pair: Pair, top: int, left: int, tile: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The amplified dark tile `[1, 1, 4, t, t]` and its truth, cut by hand."""
    dark = amplify(pack(pair.frame), pair.ratio, torch.tensor(pair.frame.wb_gains), "raw")
    here = (..., slice(top, top + tile), slice(left, left + tile))
    return dark[here][None, None], as_planes(pair.truth)[here][None]


def test_numbers_of_the_posterior_are_those_of_the_middle_tile() -> None:
    pair = make_pair(size=(2 * 420, 2 * 300))  # tiles at rows 0, 82 and 164, columns 0 and 44
    restorer = opened(network("sid-net"))
    scores = score_patch(restorer, pair)
    frames, target = middle(pair, 82, 44, 256)
    with torch.no_grad():
        condition, posterior = restorer.model.condition(frames), restorer.model.posterior(target)
        pictures = [restorer.model.decode(z, condition).clamp(0, 1) for z in (posterior.mean, condition.prior.mean)]
    assert set(scores) == OF_POSTERIOR and scores["kl"] > 0
    assert scores["kl"] == pytest.approx(float(kl_divergence(posterior, condition.prior)), rel=1e-4)
    for name, picture in zip(("mae_posterior", "mae_prior"), pictures, strict=True):
        assert scores[name] == pytest.approx(float((picture - target).abs().mean()), rel=1e-4)
    assert scores["mae_posterior"] != scores["mae_prior"]


@pytest.mark.parametrize("options", [{"upscale": 2, "output_colour": "camera"}, {"base": "lowpass"}, {}], ids=str)
def test_a_photo_of_one_tile_has_the_error_of_its_oracle(options: dict[str, object]) -> None:
    """Where a tile is the photo, `eval --oracle-posterior` makes the very picture, but for the rounding."""
    pair = full_size_truth(make_pair(size=(512, 512)))
    plain = replace(pair, frame=replace(pair.frame, camera_to_srgb=None))  # developing changes nothing but colours
    restorer = opened(network("sid-net-slim", **options))
    oracle = Oracle(restorer.model, restorer.options, restorer.device).picture(plain)
    truth = plain.truth if options.get("upscale") == 2 else plain.truth[::2, ::2]
    error = (as_planes(oracle) - as_planes(truth)).abs().mean()
    assert score_patch(restorer, plain)["mae_posterior"] == pytest.approx(float(error), abs=1e-4)


def test_levels_are_compared_with_the_pictures_they_should_be() -> None:
    pair = make_pair(size=(2 * 64, 2 * 64))
    restorer = opened(network("lapcvae"))
    scores = score_patch(restorer, pair)
    frames, target = middle(pair, 0, 0, 64)
    with torch.no_grad():
        levels = restorer.model.restore(frames).levels
        known = restorer.model.reconstruct(frames, target, None)
    assert set(scores) == OF_POSTERIOR | OF_LEVELS
    for level, true in enumerate(gaussian_pyramid(target, 3), 1):
        assert scores[f"psnr_level_{level}"] == pytest.approx(psnr(levels[level - 1][0].clamp(0, 1), true[0]), abs=1e-3)
    divergence = sum(float(kl_divergence(one.posterior, one.prior)) for one in known.latents)
    assert scores["kl"] == pytest.approx(divergence, rel=1e-4)
    assert scores["mae_posterior"] == pytest.approx(float((known.image.clamp(0, 1) - target).abs().mean()), rel=1e-4)


def test_fusion_vae_draws_its_latents_alike_each_time() -> None:
    small = {"base_channels": 4, "channel_cap": 8, "latent": 2, "upscale": 1, "output_colour": "srgb"}
    model = build_model("fusion-raw", model_config("fusion-raw", small), 3).eval()
    restorer, pair = opened(model), make_pair()
    assert set(score_patch(restorer, pair)) == OF_POSTERIOR
    assert score_patch(restorer, pair) == score_patch(restorer, pair)


def test_what_cannot_be_known_is_left_out() -> None:
    pair = make_pair()
    without, pyramid = network("sid-net"), network("lapcvae")
    for model in (without, pyramid):
        model.register_module("encoder", None)
    assert score_patch(opened(without), pair) == {}
    assert set(score_patch(opened(pyramid), pair)) == OF_LEVELS
    assert score_patch(opened(network("sid-net", upscale=2)), pair) == {}  # its truth has half the size
    assert set(score_patch(opened(network("sid-net", upscale=2)), full_size_truth(pair))) == OF_POSTERIOR


def test_a_perfect_level_has_no_number() -> None:
    class Knowing(nn.Module):
        traits = network("sid-net").traits

        def pictures(self, target: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (target,)

        def reconstruct(self, frames: torch.Tensor, target: torch.Tensor, generator: None) -> Restoration:
            raise AssertionError

        def restore(self, frames: torch.Tensor, base: torch.Tensor | None = None) -> Restoration:
            return Restoration(frames[:, 0, :3], levels=(truth,))

    pair = make_pair(size=(512, 512))
    truth = as_planes(pair.truth)[None]
    assert score_patch(opened(Knowing()), pair) == {}


def test_few_pairs_are_looked_at_and_all_parts_of_a_list() -> None:
    assert chosen(0) == frozenset() and chosen(3) == {0, 1, 2}
    assert len(chosen(234)) == 8 and min(chosen(234)) == 0 and max(chosen(234)) > 200
    assert mean_patches([]) == {} and mean_patches([{"kl": 1.0}, {"kl": 3.0, "mae_prior": 0.5}]) == {
        "kl": 2.0,
        "mae_prior": 0.5,
    }


@pytest.mark.parametrize(
    "name,objective,told",
    [
        ("sid-net", "cvae", OF_POSTERIOR),
        ("sid-net", "l1", set()),
        ("lapcvae", "lapcvae", OF_POSTERIOR | OF_LEVELS),
    ],
)
def test_a_training_logs_them_beside_its_scores(tmp_path: Path, name: str, objective: str, told: set[str]) -> None:
    packed = write_packed(tmp_path)
    values = tiny_values(packed, validate_every=2)
    options = SMALL_RAW if name == "lapcvae" else TINY_MODEL["sid-net"]
    values |= {"model": {"name": name, "options": dict(options)}, "objective": {"name": objective}}
    values["data"]["validation"] = str(packed)
    train(resolve(values), tmp_path / "run")
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    validated = [row["validation"] for row in logged if "validation" in row]
    assert len(validated) == 2
    for scores in validated:
        assert set(scores) - {"psnr", "ssim", "mae", "colour_error"} == told and "psnr" in scores
    header = read_header(tmp_path / "run" / "best.safetensors")
    assert header["scores"]["validation"]["psnr"] == max(scores["psnr"] for scores in validated)
