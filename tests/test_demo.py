"""The demonstration: from a picture to a dark RAW file and back."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
import pytest
import typer
from typer.testing import CliRunner

from lowlight.checkpoint import save_weights
from lowlight.core.errors import UsageError
from lowlight.core.photo import RGGB
from lowlight.data.pictures import read_picture
from lowlight.models import build_model, model_config
from lowlight.raw.read import read_raw
from lowlight.workflows.benchmarking.material import write_frame
from lowlight.workflows.demo import carried_photo, run_demo
from lowlight.workflows.evaluating.baselines import amplified

NAMES = {"dark.dng", "enhanced.png", "truth.png", "before_after_truth.png"}


@pytest.fixture(scope="module", params=[2, 1])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained tiny weights, of full and of packed size."""
    options = {"base_channels": 2, "latent": 8, "upscale": request.param, "base": "lowpass"}
    config = model_config("sid-net", {**options, "input_colour": "wb", "output_colour": "camera"})
    path = tmp_path_factory.mktemp("weights") / f"u{request.param}.safetensors"
    state = build_model("sid-net", config).state_dict()
    save_weights(path, "sid-net", config, state, trained={}, scores={})
    return path


@pytest.fixture
def photo() -> npt.NDArray[np.uint8]:
    """Soft patches of several colours, of odd size."""
    ys, xs = np.mgrid[0:97, 0:121]
    waves = [np.sin(xs / 23), np.cos(ys / 31 + xs / 40), np.sin((xs + ys) / 37)]
    return (110 + 50 * np.stack(waves, -1)).astype(np.uint8)


def test_writes_all_four_files(tmp_path: Path, weights: Path, photo: npt.NDArray[np.uint8]) -> None:
    result = run_demo(tmp_path / "out", weights=weights, device="cpu", photo=photo)
    assert {path.name for path in result.files} == NAMES == {p.name for p in (tmp_path / "out").iterdir()}
    assert all(path.is_file() for path in result.files)
    enhanced, truth = (read_picture(tmp_path / "out" / name) for name in ("enhanced.png", "truth.png"))
    assert enhanced.shape == truth.shape and enhanced.shape[0] in (48, 96)
    panel = iio.imread(tmp_path / "out" / "before_after_truth.png")
    height, width = truth.shape[:2]
    assert panel.dtype == np.uint8 and panel.shape == (height + 24, 3 * width + 16, 3)
    assert np.abs(panel[24:, -width:].astype(int) - (truth // 257)).max() <= 1
    for scores in (result.before, result.after):
        assert set(scores) == {"psnr", "ssim", "mae"} and scores["psnr"] is not None


def test_the_raw_is_dark_and_the_light_can_be_found_again(
    tmp_path: Path, weights: Path, photo: npt.NDArray[np.uint8]
) -> None:
    run_demo(tmp_path, ratio=2, weights=weights, device="cpu", photo=photo)
    frame = read_raw(tmp_path / "dark.dng")
    assert frame.size == (96, 120) and frame.pattern == RGGB and frame.wb_source == "camera"
    assert frame.black == (512,) * 4 and frame.white == (16383,) * 4
    assert frame.metadata.exposure_s == pytest.approx(5)
    assert frame.camera_to_srgb is not None
    assert frame.mosaic.max() < 512 + (16383 - 512) / 2
    half = len(read_picture(tmp_path / "truth.png")) == 48
    # Half the light has little noise: colours and curve must come back.
    found = amplified(frame, 2, half=half).astype(float)
    truth = read_picture(tmp_path / "truth.png").astype(float)
    assert np.abs((found - truth).mean((0, 1))).max() < 0.005 * 65535
    assert np.abs(found - truth).mean() < 0.03 * 65535


def test_the_seed_decides(tmp_path: Path, weights: Path, photo: npt.NDArray[np.uint8]) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_demo(tmp_path / name, seed=seed, weights=weights, device="cpu", photo=photo)
    for name in NAMES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert (tmp_path / "a" / "dark.dng").read_bytes() != (tmp_path / "c" / "dark.dng").read_bytes()


def test_the_carried_photo_is_there_without_a_network() -> None:
    photo = carried_photo()
    assert photo.shape == (500, 741, 3) and photo.dtype == np.uint8


@pytest.mark.parametrize("name", sorted(NAMES))
def test_files_of_others_are_left_alone(tmp_path: Path, weights: Path, photo: npt.NDArray[np.uint8], name: str) -> None:
    run_demo(tmp_path, weights=weights, device="cpu", photo=photo)
    run_demo(tmp_path, weights=weights, device="cpu", photo=photo)  # its own are replaced
    if name == "dark.dng":
        write_frame(tmp_path / name, 64, 96)
    else:
        iio.imwrite(tmp_path / name, photo)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=f"{name} is no file of an earlier demo"):
        run_demo(tmp_path, ratio=2, weights=weights, device="cpu", photo=photo)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_wrong_use_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 to 300"):
        run_demo(tmp_path, ratio=1000)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        run_demo(tmp_path / "file")


def test_seeds_that_no_generator_takes_are_refused(tmp_path: Path) -> None:
    from lowlight.cli.demo import demo

    app = typer.Typer()
    app.command()(demo)
    assert CliRunner().invoke(app, [str(tmp_path / "out"), "--seed", str(2**64)]).exit_code == 2


def test_command_says_what_was_done(tmp_path: Path, weights: Path) -> None:
    from lowlight.cli.demo import demo

    app = typer.Typer()
    app.command()(demo)
    result = CliRunner().invoke(app, [str(tmp_path / "out"), "--weights", str(weights), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "before" in result.stdout and "after" in result.stdout and result.stdout.count("PSNR") == 2
    assert {p.name for p in (tmp_path / "out").iterdir()} == NAMES
