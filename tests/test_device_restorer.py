"""Photos that stay on the device: the same pictures as band by band on the CPU, here and in `enhance`."""

from pathlib import Path
from typing import Any

import burst_material as scene
import numpy as np
import numpy.typing as npt
import pytest
import torch
from test_restorer import Copy, fp32, frame_of, random_mosaic
from torch import Tensor, nn

from lowlight import device_restorer, resident
from lowlight.burst import Burst, align
from lowlight.checkpoint import load_weights
from lowlight.core.errors import OutputError, UsageError
from lowlight.core.photo import BGGR, GBRG, GRBG, RGGB, CfaPattern, RawFrame
from lowlight.core.restoration import LatentShape, Noise, Restoration
from lowlight.data.pictures import read_picture
from lowlight.device_restorer import DeviceRestorer, batch_that_fits, open_restorer
from lowlight.models import build_model, model_config
from lowlight.ops.tiling import sparse
from lowlight.raw.bayer import pack
from lowlight.resident import ResidentScene, pack_tensor, seen_as, turn_back, upload
from lowlight.restorer import Restored, Restorer, RestorerOptions
from lowlight.tile_batches import BatchRunner, TileStack
from lowlight.views import VIEWS
from lowlight.workflows.enhancing import enhancer
from lowlight.workflows.enhancing.enhance import EnhanceOptions, enhance_files
from lowlight.workflows.enhancing.inputs import find_photos
from lowlight.workflows.enhancing.samples import SampleOptions

CPU = torch.device("cpu")
MATRIX = np.array([[1.7, -0.6, -0.1], [-0.2, 1.5, -0.3], [0.0, -0.5, 1.5]], dtype=np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """These pictures are too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tiny_weights: Path) -> nn.Module:
    return load_weights(tiny_weights)[0]


@pytest.fixture(scope="module")
def packed_size() -> nn.Module:
    """A network as in the thesis: raw in, sRGB of packed size out."""
    return build_model("sid-net", model_config("sid-net", {"base_channels": 2, "latent": 4, "init": "kaiming"}), seed=3)


def night(height: int = 301, width: int = 403, pattern: CfaPattern = RGGB) -> RawFrame:
    """A dark frame with noise, a lamp that is clipped, and levels that differ from colour to colour."""
    rows, cols = np.mgrid[0:height, 0:width]
    light = 60 + 50 * np.sin(rows / 37) * np.cos(cols / 23)
    mosaic = np.clip(np.random.default_rng(3).normal(512 + light, 3), 0, 16383).astype(np.uint16)
    mosaic[20:40, 30:50] = 65535
    black, white, wb = (511.0, 512.5, 514.0, 513.0), (16383.0, 16380.0, 16383.0, 16000.0), (2.0, 1.0, 1.5, 1.0)
    return RawFrame(mosaic, pattern, black, white, wb, "camera", MATRIX)


def options(**changes: Any) -> RestorerOptions:
    return RestorerOptions(**{"precision": "fp32", "ensemble": 1, **changes})


def both(model: nn.Module, frame: RawFrame | Burst, given: RestorerOptions, **how: Any) -> tuple[Restored, Restored]:
    first, second = (kind(model, given, "cpu").photo(frame, 60.0, **how) for kind in (Restorer, DeviceRestorer))
    return first, second


def steps_apart(first: npt.NDArray[np.uint16], second: npt.NDArray[np.uint16]) -> int:
    assert first.shape == second.shape and first.dtype == second.dtype == np.uint16
    return int(np.abs(first.astype(int) - second).max())


@pytest.mark.parametrize("pattern", [RGGB, GRBG, GBRG, BGGR])
@pytest.mark.parametrize("size", [(8, 10), (7, 11), (6, 9)])
def test_packing_on_the_device_gives_the_same_bits(pattern: CfaPattern, size: tuple[int, int]) -> None:
    frame = night(*size, pattern)
    mosaic = np.random.default_rng(1).integers(0, 65536, size, dtype=np.uint16)
    frame = RawFrame(mosaic, pattern, frame.black, frame.white, frame.wb, "camera", None)
    there = upload(Burst.single(frame), CPU)
    assert isinstance(there, ResidentScene)
    for clip in (True, False):
        assert torch.equal(there.average(clip=clip), pack(frame, clip=clip))
        assert torch.equal(there.average(1, 3, clip=clip), pack(frame, 1, 3, clip=clip))
    assert torch.equal(there.member(0, 0, 2), pack(frame, 0, 2))
    for view in VIEWS[8]:
        turned = seen_as(there, view)
        assert torch.equal(turned.average(), pack(view.frame(frame)))
        picture = torch.arange(60).reshape(4, 5, 3)
        np.testing.assert_array_equal(turn_back(torch.tensor(view.seen(picture.numpy()).copy()), view), picture)
    assert there.mosaic is not None and torch.equal(pack_tensor(there.mosaic, frame), pack(frame))


@pytest.mark.parametrize("pattern", [RGGB, GBRG])
@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, {}),
        ({"grid": sparse(), "merge": "feather"}, {"keep_linear": True}),
        ({"strength": 0.6}, {"window": (101, 55, 200, 131)}),
        ({"size": "half", "batch": 1}, {}),
        ({"ensemble": 4}, {"window": (0, 33, 150, 268)}),
    ],
)
def test_a_picture_of_full_size_is_the_same(
    tiny: nn.Module, pattern: CfaPattern, changes: dict[str, Any], how: dict[str, Any]
) -> None:
    """Values that lie between two steps may be rounded to either."""
    ours, there = both(tiny, night(pattern=pattern), options(**changes), **how)
    assert ours.pixels.std() > 1000
    assert steps_apart(ours.pixels, there.pixels) <= 2 and ours.batch == there.batch
    if ours.linear is not None:
        assert there.linear is not None and steps_apart(ours.linear.pixels, there.linear.pixels) <= 2


def test_a_picture_of_packed_size_and_hypotheses_are_the_same(packed_size: nn.Module) -> None:
    frame = night(600, 640)
    noise = Restorer(packed_size, options(), "cpu").noise(frame, torch.Generator().manual_seed(1))
    for how in ({}, {"noise": noise}):
        ours, there = both(packed_size, frame, options(), **how)
        assert steps_apart(ours.pixels, there.pixels) <= 2


def test_frames_of_one_scene_are_averaged_before_they_are_sent(tiny: nn.Module) -> None:
    frames = [scene.frame(scene.light(180, 200, (0.0, shift)), seed) for seed, shift in enumerate((0.0, 2.0))]
    burst = align(frames)
    assert upload(burst, CPU) is burst
    ours, there = both(tiny, burst, options())
    assert steps_apart(ours.pixels, there.pixels) <= 2


def test_what_is_not_finite_is_told_when_it_arrives(tiny_weights: Path) -> None:
    model = load_weights(tiny_weights)[0]
    model.decoder.head[0].bias[0] = float("nan")  # type: ignore[union-attr, index, operator]
    finish = DeviceRestorer(model, options(), "cpu").start(night(), 60.0)
    with pytest.raises(OutputError, match="not finite"):
        finish()


def test_a_picture_that_the_device_cannot_hold_is_put_together_on_the_cpu(
    tiny: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    restorer = DeviceRestorer(tiny, options(), "cpu")
    monkeypatch.setattr(device_restorer, "merge_tensors", full)
    expected = Restorer(tiny, options(), "cpu").photo(night(), 60.0)
    np.testing.assert_array_equal(restorer.photo(night(), 60.0).pixels, expected.pixels)
    monkeypatch.setattr(device_restorer, "upload", full)  # not even the mosaic
    np.testing.assert_array_equal(restorer.photo(night(), 60.0).pixels, expected.pixels)


@pytest.mark.parametrize(
    ("free_mib", "batch"), [(140_000, 126), (7559, 54), (2160, 18), (2159, 9), (800, 6), (130, 1), (10, 1)]
)
def test_the_batch_follows_the_free_memory(free_mib: int, batch: int) -> None:
    assert batch_that_fits(free_mib << 20, 60 << 20) == batch


def test_only_cuda_has_its_own_restorer(tiny: nn.Module) -> None:
    assert type(open_restorer(tiny, options(), CPU)) is Restorer


def test_enhance_with_it_makes_the_same_files_and_rows(
    dark_dng: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read ahead and sent, restored, waited for by writers; a photo that fails stops no other."""
    folder = tmp_path / "night"
    folder.mkdir()
    for name in ("a.dng", "b.dng", "c.dng"):
        (folder / name).write_bytes(dark_dng.read_bytes())
    (folder / "broken.dng").write_bytes(dark_dng.read_bytes()[:900])
    sent: list[Burst] = []

    def counted(*arguments: Any) -> Burst:
        sent.append(upload(*arguments))
        return sent[-1]

    found = {}
    for kind in (Restorer, DeviceRestorer):
        monkeypatch.setattr(enhancer, "open_restorer", kind)
        monkeypatch.setattr(device_restorer, "upload", counted)
        out = tmp_path / kind.__name__
        given = EnhanceOptions(
            out=out, weights=tiny_weights, device="cpu", jobs=2, restorer=options(), samples=SampleOptions(2)
        )
        rows = enhance_files(find_photos([str(folder)]), given)
        assert [row["status"] for row in rows] == ["done", "done", "failed", "done"]
        pictures = {path.name: read_picture(path) for path in sorted(out.iterdir())}
        found[kind] = [{**row, "seconds": None, "output": None, "samples": None} for row in rows], pictures
    (rows, pictures), (their_rows, theirs) = found.values()
    assert rows == their_rows and pictures.keys() == theirs.keys()
    assert all(steps_apart(pictures[name], theirs[name]) <= 2 * 17 for name in pictures)  # a spread is times 16
    assert len(sent) >= 3 and all(isinstance(each, ResidentScene) for each in sent)


@pytest.mark.parametrize("stride", [32, 128])
@pytest.mark.parametrize("height", [770, 900])
def test_tiles_that_run_over_the_lower_end_are_mirrored_alike(stride: int, height: int) -> None:
    model = Copy(latents=(LatentShape(2, stride),), latent_stride=stride)
    frame = night(height, 530)
    whole, on_device = (kind(model, options(), "cpu").photo(frame, 40.0).pixels for kind in (Restorer, DeviceRestorer))
    assert steps_apart(whole, on_device) <= 8
    window = (3, height - 61, 200, 61)
    part = Restorer(model, options(), "cpu").photo(frame, 40.0, window=window).pixels
    assert steps_apart(part, whole[-61:, 3:203]) <= 8


class OneBuffer(nn.Module):
    """Gives every output in the same memory, as a network does that was compiled to a CUDA graph."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = torch.zeros(2, 3, 8, 8)

    def restore(self, frames: torch.Tensor) -> Restoration:
        self.buffer[: len(frames)] = frames[:, 0, :3]
        return Restoration(self.buffer[: len(frames)])


def test_outputs_of_a_stack_survive_the_next_batch() -> None:
    frames = torch.rand(5, 1, 4, 8, 8)
    runner = BatchRunner(OneBuffer(), CPU, torch.float32, 2, None, stay=True)
    (found,) = runner.stacks(iter([TileStack(frames, None, None)]), 1.0)
    assert torch.equal(found, frames[:, 0, :3])


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_picture() -> None:
    config = model_config("sid-net", {"base_channels": 2, "latent": 4, "init": "kaiming"})
    networks = [build_model("sid-net", config, seed=3) for _ in range(2)]
    plain = Restorer(networks[0], options(batch=1), "cpu").photo(night(), 60.0)
    compiled = DeviceRestorer(networks[1], options(batch=1, compile=True), "cpu").photo(night(), 60.0)
    assert steps_apart(plain.pixels, compiled.pixels) <= 20


@pytest.mark.slow
def test_a_network_that_cannot_be_compiled_is_refused_in_a_sentence(tiny_weights: Path) -> None:
    model = load_weights(tiny_weights)[0]

    def broken(*_: Any, **__: Any) -> Restoration:
        raise RuntimeError("no compiler was found\nand more")

    model.restore = broken  # type: ignore[assignment]
    with pytest.raises(UsageError, match="leave out --compile"):
        Restorer(model, options(compile=True), "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_cuda_gives_the_pictures_of_the_cpu(tiny_weights: Path, precision: str) -> None:
    frame = night(900, 1100)
    expected = Restorer(load_weights(tiny_weights)[0], options(), "cpu").photo(frame, 60.0).pixels.astype(float)
    restorer = DeviceRestorer(load_weights(tiny_weights)[0], options(precision=precision), "cuda")
    finishes = [restorer.start(restorer.upload(Burst.single(frame)), 60.0) for _ in range(3)]
    for finish in finishes:
        difference = (finish().pixels - expected) / 65535
        if precision == "fp32":
            assert np.abs(difference).max() <= 1 / 255
        assert -10 * np.log10(np.mean(difference**2)) >= 50
    assert len(restorer.device_seconds) == 3 and min(restorer.device_seconds) > 0
    assert resident.upload(Burst.single(frame), torch.device("cuda")).average(0, 4).device.type == "cuda"


class FirstIsNaN(Copy):
    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        image = super().restore(frames, base, noise).image
        return Restoration(image * float("nan") if len(self.calls) == 1 else image)


def test_one_batch_that_is_not_finite_is_enough() -> None:
    network = FirstIsNaN()
    with pytest.raises(OutputError, match="not finite"):
        DeviceRestorer(network, fp32(batch=1), "cpu").photo(frame_of(random_mosaic(900, 900)), 1.0)
    assert len(network.calls) > 1
