"""`lowlight edit`: the coarse picture goes out, comes back painted, and only what was painted changes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_material import gray_light
from PIL import Image
from typer.testing import CliRunner

from lowlight.checkpoint import save_weights
from lowlight.cli import app
from lowlight.core.errors import BrokenFileError, LowlightError, OutputError, UsageError
from lowlight.core.photo import RGGB, Picture
from lowlight.data.pictures import read_picture
from lowlight.models import build_model
from lowlight.models.lapcvae_raw import LapCvaeRawConfig
from lowlight.workflows.editing.files import export_coarse
from lowlight.workflows.editing.pyramid import EditOptions
from lowlight.writers import WriterOptions, write_picture
from lowlight.writers.cfa_dng import write_cfa_dng


def pyramid_weights(path: Path, seed: int = 1, **options: object) -> Path:
    """Weights of a tiny pyramid whose coarsest picture is a gray with some colour, and whose detail is random."""
    values = {"tile_px": 64, "levels": 3, "latent": 4, "base_channels": 2, "prior_hidden": 4, "init": "kaiming"}
    values |= {"upscale": 2, "input_colour": "wb", "output_colour": "camera"}
    config = LapCvaeRawConfig(**{**values, **options})  # type: ignore[arg-type]
    state = build_model("lapcvae", config, seed).state_dict()
    for level in range(3):
        for name in [key for key in state if key.startswith(f"pyramid.{level}.decoder.head")]:
            if name.endswith("weight"):
                state[name] *= 0.1
    state["pyramid.2.decoder.head.0.bias"] = torch.tensor([0.5, 0.45, 0.4])[: config.out_channels]
    save_weights(path, "lapcvae", config, state, trained={}, scores={})
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pyramid_weights(tmp_path_factory.mktemp("pyramid") / "tiny.safetensors")


def run(*words: object) -> str:
    done = CliRunner().invoke(app, ["edit", *map(str, words), "--device", "cpu", "--precision", "fp32"])
    if isinstance(done.exception, LowlightError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def enhanced(photo: Path, weights: Path, out: Path, ratio: float, *more: object) -> np.ndarray:
    words = ["enhance", photo, "-o", out, "--weights", weights, "--ratio", repr(ratio), *more]
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--device", "cpu", "--precision", "fp32")])
    if isinstance(done.exception, LowlightError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return read_picture(out)


def painted(exported: Path, target: Path, bits: int = 16) -> Path:
    """Warm the left half of an exported picture, as any program would."""
    pixels = read_picture(exported).astype(np.float64)
    pixels[:, : pixels.shape[1] // 2] *= (1.15, 1.0, 0.8)
    write_picture(target, Picture(np.clip(pixels, 0, 65535).astype(np.uint16)), WriterOptions(bits=bits))
    shutil.copy(exported.with_suffix(".json"), target.with_suffix(".json"))
    return target


@pytest.mark.parametrize("bits", [8, 16])
def test_only_the_painted_half_changes(dark_dng: Path, weights: Path, tmp_path: Path, bits: int) -> None:
    exported, out = tmp_path / "coarse.png", tmp_path / "out.png"
    said = run(dark_dng, "--export", exported, "--level", 2, "--weights", weights)
    # Packed 60 x 88 after turning, a column more for the phase of its colours; half of that at level 2.
    sidecar = json.loads(exported.with_suffix(".json").read_text())
    shape = read_picture(exported).shape
    assert (sidecar["height"], sidecar["width"]) == shape[:2] == (45, 30) and "30x45" in said
    assert sidecar["level"] == 2 and sidecar["photo"] == "dark.dng" and sidecar["weights"] == "tiny.safetensors"
    before = enhanced(dark_dng, weights, tmp_path / "plain.png", sidecar["ratio"])
    warm = painted(exported, tmp_path / "warm.png", bits)
    said = run(dark_dng, "--import", warm, "-o", out, "--weights", weights, "--samples", 1)
    assert "50.0% of the coarse picture was painted" in said
    after, sample = read_picture(out), read_picture(tmp_path / "out.sample-01.png")
    assert after.shape == before.shape == (176, 120, 3)
    border, reach = 60, 8 + 1  # twice 2^(k-1) full pixels, and one for the phase
    assert np.array_equal(after[:, border + reach :], before[:, border + reach :])
    assert np.array_equal(sample[:, border + reach :], before[:, border + reach :])
    change = (after.astype(float) - before)[:, : border - reach].mean((0, 1))
    assert change[0] > 1000 and change[2] < -1000
    assert not np.array_equal(sample[:, : border - reach], after[:, : border - reach])


@pytest.mark.parametrize(
    "options",
    [
        {"upscale": 1},
        {"output_colour": "srgb"},
        {"output_colour": "srgb", "out_channels": 1},
        {"output_colour": "srgb", "in_channels": 3, "upscale": 1},
    ],
    ids=str,
)
def test_what_comes_back_unpainted_is_the_result(dark_dng: Path, tmp_path: Path, options: dict[str, object]) -> None:
    weights = pyramid_weights(tmp_path / "w.safetensors", **options)
    exported = tmp_path / "coarse.png"
    run(dark_dng, "--export", exported, "--weights", weights, "--ratio", 40)
    said = run(dark_dng, "--import", exported, "-o", tmp_path / "out.png", "--weights", weights)
    assert "Nothing was painted" in said
    plain = enhanced(dark_dng, weights, tmp_path / "plain.png", 40.0)
    assert np.array_equal(read_picture(tmp_path / "out.png"), plain)


@pytest.mark.parametrize("amplify", ["linear", "encoded"])
def test_a_pyramid_of_dark_srgb_sees_what_enhancing_shows_it(tmp_path: Path, amplify: str) -> None:
    """A photo of one tile is rendered by its levels as it is enhanced."""
    photo, exported = tmp_path / "small.dng", tmp_path / "fine.png"
    mosaic = (512 + 40 * gray_light(120, 100) + np.random.default_rng(1).uniform(0, 9, (120, 100))).astype(np.uint16)
    levels = {"black": (512,) * 4, "white": 16383, "wb": (2.1, 1, 1.6, 1)}
    matrix = [[0.66, -0.17, -0.07], [-0.43, 1.22, 0.23], [-0.05, 0.13, 0.58]]
    write_cfa_dng(photo, mosaic, pattern=RGGB, xyz_to_camera=matrix, **levels)  # type: ignore[arg-type]
    options = {"output_colour": "srgb", "in_channels": 3, "upscale": 1, "amplify": amplify}
    weights = pyramid_weights(tmp_path / "w.safetensors", **options)
    run(photo, "--export", exported, "--level", 1, "--weights", weights, "--ratio", 300)
    plain = enhanced(photo, weights, tmp_path / "plain.png", 300.0)
    assert plain.shape == (60, 50, 3) and np.abs(read_picture(exported).astype(int) - plain).max() <= 2


def test_level_and_ratio_of_an_import_are_those_of_its_export(dark_dng: Path, weights: Path, tmp_path: Path) -> None:
    exported, out = tmp_path / "coarse.png", tmp_path / "out.png"
    run(dark_dng, "--export", exported, "--level", 2, "--weights", weights)
    for option, value in (("--level", 2), ("--ratio", "auto")):
        with pytest.raises(UsageError, match=f"{option} belongs to --export"):
            run(dark_dng, "--import", exported, "-o", out, "--weights", weights, option, value)
    with pytest.raises(UsageError, match=r"--ratio is '1e7'; expected auto, or a number above 0 and at most 1000000"):
        run(dark_dng, "--export", exported, "--ratio", "1e7")


def test_an_export_that_was_killed_between_its_files_is_done_again(
    dark_dng: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported, replace = tmp_path / "coarse.png", os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target) == exported:
            raise KeyboardInterrupt
        replace(source, target)

    words = (dark_dng, "--export", exported, "--level", 2, "--weights", weights)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        export_coarse(dark_dng, exported, 2, None, EditOptions(weights=weights, device="cpu", precision="fp32"))
    assert [path.name for path in tmp_path.iterdir()] == ["coarse.json"]
    with pytest.raises(UsageError, match=r"coarse\.json exists already, of another export"):
        run(*words[:3], "--level", 3, "--weights", weights)
    run(*words)
    whole = exported.read_bytes()
    with pytest.raises(UsageError, match=r"coarse\.png exists already"):
        run(*words)
    # One that writes over an older pair may leave neither picture, but never the old one beside the new sidecar.
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        options = EditOptions(weights=weights, device="cpu", precision="fp32", overwrite=True)
        export_coarse(dark_dng, exported, 2, None, options)
    assert [path.name for path in tmp_path.iterdir()] == ["coarse.json"]
    run(*words)
    assert exported.read_bytes() == whole
    exported.with_suffix(".json").unlink()  # perhaps painted, so it stays
    with pytest.raises(UsageError, match=r"coarse\.png exists already"):
        run(*words)


def test_a_sidecar_may_say_what_a_picture_cannot_hold(dark_dng: Path, weights: Path, tmp_path: Path) -> None:
    exported, out = tmp_path / "coarse.png", tmp_path / "out.png"
    run(dark_dng, "--export", exported, "--weights", weights)
    sidecar = exported.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "weights": "w\udcff"}))
    run(dark_dng, "--import", exported, "-o", out, "--weights", weights)
    assert read_picture(out).shape == (176, 120, 3)


def test_samples_of_the_finest_level_are_refused(dark_dng: Path, weights: Path, tmp_path: Path) -> None:
    exported = tmp_path / "fine.png"
    run(dark_dng, "--export", exported, "--level", 1, "--weights", weights)
    with pytest.raises(UsageError, match=r"fine\.png is of level 1, and samples vary in finer levels"):
        run(dark_dng, "--import", exported, "-o", tmp_path / "out.png", "--weights", weights, "--samples", 2)
    assert not (tmp_path / "out.png").exists()


def test_strategies_fit_themselves_to_small_tiles(dark_dng: Path, weights: Path, tmp_path: Path) -> None:
    """Those of the thesis are numbers for tiles of 256, and these have 64."""

    def told(name: str, *more: object) -> np.ndarray:
        return enhanced(dark_dng, weights, tmp_path / f"{name}.png", 40.0, *more)

    careful = told("dense", "--strategy", "baseline")
    assert np.array_equal(careful, told("stride", "--stride", 36))
    assert not np.array_equal(careful, told("fast", "--strategy", "fastest"))
    with pytest.raises(UsageError, match=r"a stride of 100 does not fit .* tiles have 64 packed pixels .* 1 to 64"):
        told("wide", "--stride", 100)


def mask_file(path: Path, like: Path, rows: slice, cols: slice, colour: tuple[int, int, int] = (255, 0, 0)) -> Path:
    """A mask as a user paints it: as large as a coarse picture, black, with a rectangle of a colour."""
    height, width = read_picture(like).shape[:2]
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[rows, cols] = colour
    Image.fromarray(pixels).save(path)
    return path


def test_each_region_shows_its_own_sample(dark_dng: Path, weights: Path, tmp_path: Path) -> None:
    """Upright picture 176 x 120, coarse 45 x 30: masks in its upper and lower third, of a photo that lies turned."""
    exported, out = tmp_path / "coarse.png", tmp_path / "out.png"
    run(dark_dng, "--export", exported, "--level", 2, "--weights", weights)
    before = enhanced(
        dark_dng, weights, tmp_path / "plain.png", json.loads((tmp_path / "coarse.json").read_text())["ratio"]
    )
    warm = tmp_path / "warm.png"
    write_picture(warm, Picture((read_picture(exported) * 0.9).astype(np.uint16)))  # all of it
    shutil.copy(exported.with_suffix(".json"), warm.with_suffix(".json"))
    run(dark_dng, "--import", warm, "-o", out, "--weights", weights, "--samples", 2, "--seed", 7)
    samples = [read_picture(tmp_path / name) for name in ("out.png", "out.sample-01.png", "out.sample-02.png")]
    top = mask_file(tmp_path / "top.png", exported, slice(0, 12), slice(None))
    low = mask_file(tmp_path / "low: er.png", exported, slice(33, 45), slice(None), (255, 255, 255))
    chosen = tmp_path / "chosen.png"
    words = ("--import", warm, "-o", chosen, "--weights", weights, "--seed", 7)
    said = run(dark_dng, *words, "--region", f"{top}:2", "--region", f"{low}:1")
    assert "46.7% of what was painted lies in none of the masks" in said  # 21 of 45 rows
    picture, reach = read_picture(chosen), 2 * 4  # twice 2^(k-1) full pixels
    assert np.array_equal(picture[:44], samples[2][:44]) and not np.array_equal(picture[:44], samples[0][:44])
    assert np.array_equal(picture[-44:], samples[1][-44:])
    between = slice(4 * 12 + reach + 1, 4 * 33 - reach - 1)
    assert np.array_equal(picture[between], before[between]) and not np.array_equal(
        before[between], samples[0][between]
    )
    # Where masks overlap the last one lies on top; number 0 is the edit without a draw.
    everywhere = mask_file(tmp_path / "all.png", exported, slice(None), slice(None))
    said = run(dark_dng, *words, "--overwrite", "--region", f"{everywhere}:0", "--region", f"{top}:1")
    picture = read_picture(chosen)
    assert "none of the masks" not in said
    assert np.array_equal(picture[:44], samples[1][:44])
    assert np.array_equal(picture[4 * 12 + reach + 1 :], samples[0][4 * 12 + reach + 1 :])
    run(dark_dng, *words, "--overwrite", "--region", f"{top}:1", "--region", f"{everywhere}:0")
    assert np.array_equal(read_picture(chosen), samples[0])


def test_detail_may_be_drawn_anew_where_nothing_was_painted(dark_dng: Path, weights: Path, tmp_path: Path) -> None:
    exported, out = tmp_path / "coarse.png", tmp_path / "out.png"
    run(dark_dng, "--export", exported, "--level", 2, "--weights", weights, "--ratio", 40)
    left = mask_file(tmp_path / "left.png", exported, slice(None), slice(0, 10))
    said = run(dark_dng, "--import", exported, "-o", out, "--weights", weights, "--region", f"{left}:3")
    assert "Nothing was painted: only detail is new" in said
    before, after = enhanced(dark_dng, weights, tmp_path / "plain.png", 40.0), read_picture(out)
    assert np.array_equal(after[:, 40 + 9 :], before[:, 40 + 9 :]) and not np.array_equal(after[:, :40], before[:, :40])


def test_regions_that_cannot_be_are_refused(dark_dng: Path, weights: Path, tmp_path: Path) -> None:
    exported, out = tmp_path / "coarse.png", tmp_path / "out.png"
    run(dark_dng, "--export", exported, "--level", 2, "--weights", weights)
    mask = mask_file(tmp_path / "m.png", exported, slice(0, 4), slice(0, 4))
    words = (dark_dng, "--import", exported, "-o", out, "--weights", weights)
    for text in ("m.png", f"{mask}:", f"{mask}:-1", f"{mask}:two", ":1", f"{mask}:1.5"):
        with pytest.raises(UsageError, match="expected MASK:SAMPLE"):
            run(*words, "--region", text)
    with pytest.raises(UsageError, match=r"m\.png asks for sample 100, and there are 1 to 99"):
        run(*words, "--region", f"{mask}:100")
    with pytest.raises(UsageError, match=r"m\.png asks for sample 3, and --samples 2 draws 1 to 2"):
        run(*words, "--region", f"{mask}:3", "--samples", 2)
    with pytest.raises(UsageError, match="there is no mask"):
        run(*words, "--region", f"{tmp_path / 'none.png'}:1")
    dark = mask_file(tmp_path / "dark.png", exported, slice(0, 4), slice(0, 4), (127, 100, 0))
    with pytest.raises(UsageError, match=r"dark\.png is dark everywhere"):
        run(*words, "--region", f"{dark}:1")
    small = tmp_path / "small.png"
    Image.new("L", (30, 44), 255).save(small)
    with pytest.raises(UsageError, match=r"small\.png has 30 x 44 pixels and the painted picture 30 x 45"):
        run(*words, "--region", f"{mask}:1", "--region", f"{small}:2")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BrokenFileError, match=r"broken\.png does not decode"):
        run(*words, "--region", f"{tmp_path / 'broken.png'}:1")
    with pytest.raises(OutputError, match=r"m\.png would be overwritten"):
        run(dark_dng, "--import", exported, "-o", mask, "--weights", weights, "--overwrite", "--region", f"{mask}:1")
    with pytest.raises(UsageError, match="--region belong to --import"):
        run(dark_dng, "--export", tmp_path / "other.png", "--weights", weights, "--region", f"{mask}:1")
    fine = tmp_path / "fine.png"
    run(dark_dng, "--export", fine, "--level", 1, "--weights", weights)
    with pytest.raises(UsageError, match=r"leave out --region, or export a level above 1"):
        run(dark_dng, "--import", fine, "-o", out, "--weights", weights, "--region", f"{mask}:1")
    assert not out.exists()


def test_what_does_not_belong_together_is_refused(
    dark_dng: Path, weights: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    exported, out = tmp_path / "coarse.png", tmp_path / "out.png"
    run(dark_dng, "--export", exported, "--weights", weights)
    warm = painted(exported, tmp_path / "warm.png")
    other = tmp_path / "other.dng"
    other.write_bytes(dark_dng.read_bytes() + b"\0")
    with pytest.raises(UsageError, match=r"other\.dng is not that file"):
        run(other, "--import", warm, "-o", out, "--weights", weights)
    with pytest.raises(UsageError, match="exported with other weights"):
        run(dark_dng, "--import", warm, "-o", out, "--weights", pyramid_weights(tmp_path / "two.safetensors", seed=2))
    small = tmp_path / "small.png"
    write_picture(small, Picture(read_picture(warm)[:-1].copy()))
    shutil.copy(warm.with_suffix(".json"), small.with_suffix(".json"))
    with pytest.raises(UsageError, match="without changing its size"):
        run(dark_dng, "--import", small, "-o", out, "--weights", weights)
    warm.with_suffix(".json").unlink()
    with pytest.raises(BrokenFileError, match="export it again"):
        run(dark_dng, "--import", warm, "-o", out, "--weights", weights)
    assert not out.exists()


def test_commands_that_cannot_work_are_refused(
    dark_dng: Path, weights: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    exported, out = tmp_path / "coarse.png", tmp_path / "out.png"
    with pytest.raises(UsageError, match=r"coarse levels of RAW photos.*cpu/lapcvae"):
        run(dark_dng, "--export", exported, "--weights", tiny_weights)
    with pytest.raises(UsageError, match="none are shipped yet; train some with `lowlight train --preset cpu/lapcvae`"):
        run(dark_dng, "--export", exported)
    with pytest.raises(UsageError, match="levels 1"):
        run(dark_dng, "--export", exported, "--weights", weights, "--level", 4)
    with pytest.raises(UsageError, match="either --export"):
        run(dark_dng)
    with pytest.raises(UsageError, match="-o FILE"):
        run(dark_dng, "--import", exported)
    with pytest.raises(UsageError, match="-o, --samples and --region belong to --import"):
        run(dark_dng, "--export", exported, "-o", out)
    with pytest.raises(UsageError, match="--ratio"):
        run(dark_dng, "--export", exported, "--ratio", "same")
    with pytest.raises(UsageError, match="no name of a PNG"):
        run(dark_dng, "--export", tmp_path / "coarse.jpg", "--weights", weights)
    with pytest.raises(UsageError, match="there is no photo"):
        run(tmp_path / "none.dng", "--export", exported, "--weights", weights)
    exported.write_text("painted for hours")
    with pytest.raises(UsageError, match="exists already"):
        run(dark_dng, "--export", exported, "--weights", weights)
    with pytest.raises(OutputError, match="its own result"):
        run(dark_dng, "--import", exported, "-o", exported, "--weights", weights, "--overwrite")
    assert exported.read_text() == "painted for hours"


def test_a_cameras_picture_beside_the_photo_is_left_alone(dark_dng: Path, weights: Path, tmp_path: Path) -> None:
    photo, exported = Path(shutil.copy(dark_dng, tmp_path / "a.dng")), tmp_path / "coarse.png"
    run(photo, "--export", exported, "--weights", weights)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    before = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(OutputError, match="perhaps the camera's own picture"):
        run(photo, "--import", exported, "-o", tmp_path / "a.jpg", "--weights", weights, "--overwrite")
    assert (tmp_path / "a.jpg").read_bytes() == before
    # What was exported and painted by a program that keeps no texts has a sidecar still.
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(exported)
    run(photo, "--export", exported, "--weights", weights, "--overwrite")
    assert read_picture(exported).shape != (8, 8, 3)
