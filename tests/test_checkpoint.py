"""Weights files explain themselves, and say what is wrong with them in a sentence."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from training_material import TINY_MODEL

from lowlight import checkpoint
from lowlight.checkpoint import find_weights, load_state, load_weights, read_header, save_state, save_weights
from lowlight.core.errors import OutputError, UsageError, WeightsError
from lowlight.models import build_model, model_config

NAME = "sid-net-slim"
OPTIONS = {**TINY_MODEL[NAME], "upscale": 2, "base": "lowpass"}


def network() -> nn.Module:
    return build_model(NAME, model_config(NAME, OPTIONS), seed=3)


def write(path: Path, **options: Any) -> Path:
    trained = {"steps": 7, "data": {"photos": 2}}
    scores = {"validation": {"psnr": 21.5}}
    config = model_config(NAME, OPTIONS)
    save_weights(path, NAME, config, network().state_dict(), trained=trained, scores=scores, **options)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.safetensors")


def rewrite(path: Path, change: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Change the header, and the tensors, of a weights file."""
    header = {**read_header(path), **change}
    save_file(tensors or load_file(path), path, metadata={"lowlight": json.dumps(header)})
    return path


def test_what_was_saved_is_loaded_in_fp16_precision_without_the_encoder(weights: Path) -> None:
    assert all(tensor.dtype == torch.float16 for tensor in load_file(weights).values())
    model, header = load_weights(weights)
    assert model.encoder is None
    assert not model.training
    wanted = {k: v for k, v in network().state_dict().items() if not k.startswith("encoder.")}
    found = model.state_dict()
    assert set(found) == set(wanted)
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor.half().float()), key
    assert header["trained"]["steps"] == 7
    assert header["config"]["upscale"] == 2


def test_loading_leaves_pytorchs_compiler_alone(weights: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lowlight.checkpoint import load_weights; "
        "load_weights(Path(sys.argv[1])); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(weights)], check=False).returncode == 0


def test_the_encoder_and_full_precision_are_kept_on_request(tmp_path: Path) -> None:
    model, _ = load_weights(write(tmp_path / "all.safetensors", dtype=torch.float32, with_posterior=True))
    for key, tensor in network().state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_channels_last_weights_can_be_saved(tmp_path: Path) -> None:
    model = network().to(memory_format=torch.channels_last)
    path = tmp_path / "last.safetensors"
    save_weights(path, NAME, model_config(NAME, OPTIONS), model.state_dict(), trained={}, scores={})
    frames = torch.rand(1, 1, 4, 256, 256)
    with torch.no_grad():
        assert torch.allclose(
            load_weights(path)[0].restore(frames).image, model.eval().half().float().restore(frames).image, atol=1e-5
        )


def test_the_header_says_what_the_file_is(weights: Path) -> None:
    header = read_header(weights)
    assert header["model"] == NAME
    assert header["format"] == 1
    assert header["scores"]["validation"]["psnr"] == 21.5
    assert header["config"]["base_channels"] == 2


def test_nothing_is_left_beside_a_file_and_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.safetensors"), write(tmp_path / "b.safetensors")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_weights_can_be_read_by_whom_the_user_lets_read(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert write(tmp_path / "a.safetensors").stat().st_mode == plain.stat().st_mode


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no weights file"):
        load_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not safetensors", b"\xff" * 64])
def test_what_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is no weights file"):
        load_weights(path)


def test_a_truncated_file_is_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(WeightsError):
        load_weights(weights)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="of another program"):
        load_weights(path)


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    for text, sentence in (("{", "damaged header"), ("[1]", "format None"), ('{"format": 1}', "which model")):
        save_file({"a": torch.zeros(2)}, path, metadata={"lowlight": text})
        with pytest.raises(WeightsError, match=sentence):
            read_header(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "has weights format 2; this version reads 1"),
        ({"model": "gpt"}, "a model called 'gpt', which this version does not have"),
        ({"config": {"base_channel": 2}}, "cannot build: unknown key 'base_channel'"),
        ({"config": {**OPTIONS, "latent": 9}}, r"has shape \(8, 2048\), expected \(9, 2048\)"),
        ({"config": {**OPTIONS, "skips": False}}, "does not fit"),
        ({"posterior": True}, "encoder.*is missing"),
    ],
)
def test_what_does_not_fit_is_said(weights: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence) as raised:
        load_weights(rewrite(weights, change))
    assert "\n" not in str(raised.value)


def test_missing_and_surplus_tensors_are_named(weights: Path) -> None:
    tensors = load_file(weights)
    with pytest.raises(WeightsError, match="tensor extra is one too many"):
        load_weights(rewrite(weights, {}, {**tensors, "extra": torch.zeros(1)}))
    del tensors["decoder.expand.bias"]
    with pytest.raises(WeightsError, match=r"tensor decoder\.expand\.bias is missing"):
        load_weights(rewrite(weights, {}, tensors))


def test_weights_are_found_by_path_then_in_the_package_then_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, checkout = tmp_path / "lowlight" / "weights", tmp_path / "weights"
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "lowlight" / "checkpoint.py"))
    with pytest.raises(UsageError, match="shipped are none"):
        find_weights(None)
    beside = checkout / f"{checkpoint.DEFAULT_WEIGHTS}.safetensors"
    checkout.mkdir()
    beside.touch()
    assert find_weights(None) == beside
    inside = package / beside.name
    package.mkdir(parents=True)
    inside.touch()
    assert find_weights(None) == find_weights(checkpoint.DEFAULT_WEIGHTS) == inside
    named = tmp_path / "mine"
    named.touch()
    assert find_weights(named) == named
    assert find_weights("missing.safetensors") == Path("missing.safetensors")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(WeightsError, match=r"no weights file in .*run; expected best.safetensors or last.safetensors"):
        find_weights(run)
    for name in ("last.safetensors", "best.safetensors"):
        (run / name).touch()
        assert find_weights(run) == run / name
    with pytest.raises(
        UsageError, match=f"'pix2pix', and no file is called so; shipped are {checkpoint.DEFAULT_WEIGHTS}"
    ):
        find_weights("pix2pix")


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file\nand more")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OutputError, match=r"state\.pt could not be written \(PytorchStreamWriter failed writing file\);"
    ):
        save_state(tmp_path / "state.pt", {})
    assert not list(tmp_path.iterdir())


def test_states_hold_tensors_and_plain_values_and_run_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"step": 3, "best": float("-inf"), "tensors": {"a": torch.arange(3)}})
    state = load_state(path)
    assert state["step"] == 3
    assert torch.equal(state["tensors"]["a"], torch.arange(3))
    torch.save({"path": Path("x")}, path)
    with pytest.raises(WeightsError, match="cannot be resumed from"):
        load_state(path)
    for content in (b"", b"garbage"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be resumed from"):
            load_state(path)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize(
    "change",
    [
        {"trained": []},
        {"scores": []},
        {"scores": {"validation": "x"}},
        {"config": {**OPTIONS, "base_channels": -1}},
        {"config": {**OPTIONS, "base_channels": 10**12}},
        {"config": {**OPTIONS, "latent": 10**40}},
        {"model": "fusion", "config": {"pre_blocks": 10**7}},
        {"model": "fusion-cvae", "config": {"latent": 0}},
        {"model": "pix2pix", "config": {"base_channels": 0}},
    ],
)
def test_headers_of_no_network_are_sentences(weights: Path, change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"damaged record|cannot build: .* expected 1 to (65536|64)"):
        load_weights(rewrite(weights, change))


def test_a_header_without_end_is_a_sentence(tmp_path: Path) -> None:
    for text in ("[" * 100_000, "1" * 5000):
        save_file({"a": torch.zeros(2)}, tmp_path / "deep.safetensors", metadata={"lowlight": text})
        with pytest.raises(WeightsError, match="damaged header"):
            read_header(tmp_path / "deep.safetensors")
