"""Scoring: manifests, folders of pictures, classical baselines, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import typer
from evaluation_material import BLACK, RATIO, WB, WHITE, encoded, gray_light, make_weights, write_raw
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lowlight.core.errors import DataError, OutputError, UsageError
from lowlight.core.photo import BGGR, GBRG, GRBG, RGGB, CfaPattern, Picture, RawFrame
from lowlight.ops.resize import mean_of_blocks
from lowlight.ops.strategies import STRATEGIES, choose_tiling
from lowlight.ops.tiling import TileGrid
from lowlight.raw.read import read_raw
from lowlight.raw.render import render_half_size
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.evaluating import baselines
from lowlight.workflows.evaluating.baselines import amplified
from lowlight.workflows.evaluating.evaluate import evaluate
from lowlight.workflows.evaluating.methods import EvaluateOptions
from lowlight.workflows.evaluating.picture_folders import evaluate_pictures
from lowlight.workflows.evaluating.validation import match_sizes, measure
from lowlight.writers import write_picture
from lowlight.writers.cfa_dng import write_cfa_dng


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights that give pictures of full sensor size."""
    return make_weights(tmp_path_factory.mktemp("weights") / "full.safetensors", 2)


@pytest.fixture(scope="module")
def packed_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights that give pictures of packed size."""
    return make_weights(tmp_path_factory.mktemp("weights") / "packed.safetensors", 1)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three pairs: a truth of full size, one of half size, and a bright RAW without a ratio."""
    light = gray_light(64, 96)
    write_raw(tmp_path / "dark.dng", light, RATIO, 0.1)
    write_raw(tmp_path / "bright.dng", light, 1, 0.1 * RATIO)
    truth = encoded(light)
    write_picture(tmp_path / "full.png", Picture(truth))
    write_picture(tmp_path / "half.tif", Picture(mean_of_blocks(truth)))
    path = tmp_path / "pairs.csv"
    path.write_text(
        "scene,split,dark,bright,ratio,iso,burst_index\n"
        f"a,test,dark.dng,full.png,{RATIO},,0\n"
        f"b,test,dark.dng,half.tif,{RATIO},,0\n"
        "c,test,dark.dng,bright.dng,,,0\n"
    )
    return path


def only(manifest: Path, *scenes: str) -> Path:
    head, *lines = manifest.read_text().splitlines()
    path = manifest.with_name("some.csv")
    path.write_text("\n".join([head, *(line for line in lines if line[0] in scenes)]) + "\n")
    return path


def test_a_report_has_rows_mean_and_settings(manifest: Path, weights: Path) -> None:
    seen: list[tuple[int, int]] = []
    options = EvaluateOptions(weights=weights, device="cpu", precision="fp32")
    report = evaluate(manifest, options, lambda *at: seen.append(at))
    rows, mean = report["rows"], report["mean"]
    assert [row["scene"] for row in rows] == ["a", "b", "c"]
    assert [row["ratio"] for row in rows] == pytest.approx([RATIO] * 3)
    assert all(row["dark"] == "dark.dng" and "error" not in row for row in rows)
    for name in ("psnr", "ssim", "mae", "colour_error"):
        assert mean[name] == pytest.approx(np.mean([row[name] for row in rows]))
    assert (mean["count"], mean["failed"], mean["infinite_psnr"]) == (3, 0, 0)
    assert rows[0]["psnr"] == pytest.approx(rows[1]["psnr"]), "a full-size truth is compared at half size"
    assert seen == [(1, 3), (2, 3), (3, 3)]
    about = report["settings"]
    assert about["weights"] == weights.name and len(about["weights_sha256"]) == 64
    assert (about["size"], about["grid"], about["merge"], about["power"]) == ("half", {"stride": 146}, "idw", 2.0)
    assert about["precision"] == "float32" and about["device"] == "cpu"
    assert set(about["versions"]) == {"lowlight", "rawpy", "libraw", "torch"}


def test_truths_without_noise_are_met_by_plain_development(manifest: Path) -> None:
    report = evaluate(manifest, EvaluateOptions(baseline="amplified"))
    # 20 times darker leaves steps of 1/800 of white; anything wrong in geometry or curve would cost far more.
    assert all(row["psnr"] > 40 for row in report["rows"]), report["rows"]
    assert report["settings"]["weights"] is None


def test_a_bad_pair_becomes_a_row(manifest: Path) -> None:
    with manifest.open("a") as file:
        file.write("d,test,missing.dng,full.png,20,,0\n")
    (manifest.parent / "dark2.dng").write_bytes(b"")
    with manifest.open("a") as file:
        file.write("e,test,dark2.dng,full.png,20,,0\n")
    report = evaluate(manifest, EvaluateOptions(baseline="amplified"))
    assert ["error" in row for row in report["rows"]] == [False, False, False, True, True]
    assert "missing.dng" in report["rows"][3]["error"]
    assert (report["mean"]["count"], report["mean"]["failed"]) == (3, 2)


def test_full_size_needs_weights_and_truths_of_full_size(manifest: Path, weights: Path, packed_weights: Path) -> None:
    def run(path: Path, file: Path) -> dict[str, object]:
        return evaluate(path, EvaluateOptions(weights=file, size="full", device="cpu"))

    report = run(manifest, weights)
    full, half, raw = report["rows"]  # type: ignore[misc]
    assert "error" not in full and "--size half" in half["error"]
    assert raw["psnr"] == pytest.approx(full["psnr"], abs=1), "a bright RAW is rendered at full size"
    with pytest.raises(UsageError, match="--size half"):
        run(only(manifest, "a"), packed_weights)


def test_packed_size_weights_are_scored_at_half_size(manifest: Path, packed_weights: Path) -> None:
    report = evaluate(manifest, EvaluateOptions(weights=packed_weights, device="cpu"))
    assert report["mean"]["count"] == 3


def test_identical_pictures_have_no_psnr(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    light = gray_light(48, 64)
    for folder, other in ((a, light), (b, light + 0.05)):
        folder.mkdir()
        write_picture(folder / "same.png", Picture(encoded(light)))
        write_picture(folder / "other.png", Picture(encoded(other)))
    report = evaluate_pictures(a, b)
    other, same = report["rows"]
    assert same["psnr"] is None and "infinite" in same["note"]
    assert same["ssim"] == pytest.approx(1) and same["mae"] == 0 and same["colour_error"] == 0
    assert report["mean"]["psnr"] == other["psnr"] and report["mean"]["infinite_psnr"] == 1
    assert report["mean"]["mae"] == pytest.approx(other["mae"] / 2)


def test_folders_are_matched_by_stem(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    flat = np.full((40, 60, 3), 30000, dtype=np.uint16)
    write_picture(a / "known.png", Picture(flat + np.uint16(6554)))  # a tenth of 65535: 20 dB
    write_picture(b / "known.tif", Picture(flat))
    write_picture(a / "twice.png", Picture(np.repeat(np.repeat(flat, 2, 0), 2, 1)))
    write_picture(b / "twice.png", Picture(flat + np.uint16(10)))
    write_picture(a / "size.png", Picture(flat))
    write_picture(b / "size.png", Picture(flat[:30]))
    write_picture(a / "alone.png", Picture(flat))
    write_picture(b / "extra.tif", Picture(flat))
    (a / "notes.txt").write_text("no picture")
    (a / ".known.png.part.png").write_bytes(b"hidden")
    report = evaluate_pictures(a, b)
    rows = {Path(row["picture"]).stem: row for row in report["rows"]}
    assert rows["known"]["psnr"] == pytest.approx(20, abs=0.01) and rows["known"]["reference"] == "known.tif"
    assert rows["twice"]["mae"] == pytest.approx(10 / 65535, rel=1e-3)
    assert "60x40" in rows["size"]["error"] and "60x30" in rows["size"]["error"]
    assert report["unmatched"] == {"pictures": ["alone.png"], "references": ["extra.tif"]}
    assert report["mean"]["count"] == 2


def test_folders_without_a_common_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no two pictures"):
        evaluate_pictures(tmp_path, tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        evaluate_pictures(tmp_path / "none", tmp_path)


@given(st.integers(16, 90), st.integers(16, 90), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_half_sizes_match_however_they_were_rounded(h: int, w: int, up: bool, across: bool, swap: bool) -> None:
    large = np.arange(h * w * 3, dtype=np.uint16).reshape(h, w, 3)
    small = np.pad(mean_of_blocks(large), ((0, up * (h % 2)), (0, across * (w % 2)), (0, 0)), mode="edge")
    first, second = match_sizes(small, large) if swap else match_sizes(large, small)
    assert first.shape == second.shape == (h // 2, w // 2, 3)
    assert (first == second).all()


def frame_of(light: npt.NDArray[np.float64], pattern: CfaPattern) -> RawFrame:
    rows, cols = np.indices(light.shape) % 2
    gain = np.array(WB)[np.array(pattern)[rows, cols]]
    mosaic = BLACK + (WHITE - BLACK) * light / gain / RATIO
    return RawFrame(
        mosaic=mosaic.round().astype(np.uint16),
        pattern=pattern,
        black=(BLACK,) * 4,
        white=(WHITE,) * 4,
        wb=WB,
        wb_source="camera",
        camera_to_srgb=None,
    )


@pytest.mark.parametrize("size", [(64, 96), (63, 95)])
@pytest.mark.parametrize("pattern", [RGGB, GRBG, GBRG, BGGR])
def test_amplified_lies_where_the_mosaic_does(pattern: CfaPattern, size: tuple[int, int]) -> None:
    light = gray_light(*size)
    full = amplified(frame_of(light, pattern), RATIO, half=False)
    assert full.shape == (*size, 3)
    difference = np.abs(full[4:-4, 4:-4].astype(int) - encoded(light)[4:-4, 4:-4])
    assert difference.mean() < 0.004 * 65535 and difference.max() < 0.03 * 65535


@pytest.mark.parametrize("pattern", [RGGB, GRBG, GBRG, BGGR])
def test_at_half_size_every_phase_scores_the_same(tmp_path: Path, pattern: CfaPattern) -> None:
    light = gray_light(64, 96)
    path = tmp_path / "a.dng"
    mosaic = frame_of(light * RATIO, pattern).mosaic
    write_cfa_dng(path, mosaic, pattern=pattern, black=(BLACK,) * 4, white=WHITE, wb=WB)
    truth, _ = render_half_size(path)
    psnr = measure(amplified(read_raw(path), 1.0, half=True), truth)["psnr"]
    assert psnr is not None and psnr > 55


def test_bands_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).uniform(0.02, 0.5, (62, 46))
    for pattern in (RGGB, GBRG):
        frame = frame_of(noise, pattern)
        for half in (False, True):
            monkeypatch.setattr(baselines, "BAND_ROWS", 1000)
            whole = amplified(frame, RATIO, half=half)
            monkeypatch.setattr(baselines, "BAND_ROWS", 7)
            assert (amplified(frame, RATIO, half=half) == whole).all()


@pytest.mark.parametrize("upscale", [1, 2])
def test_amplified_is_what_strength_zero_gives(upscale: int, weights: Path, packed_weights: Path) -> None:
    from lowlight.checkpoint import load_weights

    model, _ = load_weights(weights if upscale == 2 else packed_weights)
    matrix = np.array([[1.6, -0.5, -0.1], [-0.2, 1.5, -0.3], [0.0, -0.6, 1.6]], dtype=np.float32)
    frame = replace(frame_of(gray_light(64, 96) ** 1.5, RGGB), camera_to_srgb=matrix)
    restorer = Restorer(model, RestorerOptions(strength=0.0, precision="fp32"), "cpu")
    theirs = restorer.photo(frame, RATIO).pixels[:-4, :-4].astype(int)
    ours = amplified(frame, RATIO, half=upscale == 1)[:-4, :-4]
    assert np.abs(theirs - ours).max() <= 2 * 3  # one step of encoding, through the matrix


@pytest.mark.shared
def test_the_amplified_baseline_on_real_pairs(shared_data: Path) -> None:
    report = evaluate(shared_data / "sid_pairs" / "pairs.csv", EvaluateOptions(baseline="amplified"))
    assert report["mean"]["count"] == 16
    assert report["mean"]["psnr"] == pytest.approx(20.99, abs=0.02)
    assert report["mean"]["ssim"] == pytest.approx(0.328, abs=0.002)


@pytest.mark.shared
def test_the_wavelet_baseline_on_real_pairs(shared_data: Path) -> None:
    pytest.importorskip("pywt._extensions", reason="wavelet denoising needs PyWavelets")
    report = evaluate(shared_data / "sid_pairs" / "pairs.csv", EvaluateOptions(baseline="wavelet"))
    assert report["mean"]["psnr"] == pytest.approx(28.17, abs=0.05)
    assert report["mean"]["ssim"] == pytest.approx(0.766, abs=0.003)


def test_strategies_are_the_published_four() -> None:
    counts, powers = {}, {}
    for name in STRATEGIES:
        tiling = choose_tiling(name)
        counts[name] = TileGrid.cover(1424, 2128, 256, tiling.grid).count
        powers[name] = tiling.power
    assert counts == {"baseline": 126, "faster1": 126, "faster2": 54, "fastest": 54}
    assert powers == {"baseline": 2, "faster1": 0, "faster2": 2, "fastest": 0}


def test_parts_of_a_strategy_can_be_replaced() -> None:
    tiling = choose_tiling("fastest", overlap=64, merge="feather")
    assert (tiling.grid.overlap, tiling.grid.stride, tiling.merge, tiling.power) == (64, None, "feather", 0)
    bad = [{"stride": 1, "overlap": 1}, {"stride": 257}, {"stride": 0}, {"overlap": 256}]
    for options in [
        *bad,
        {"merge": "feather", "power": 3},
        {"merge": "mean"},
        {"power": -1},
        {"power": float("nan")},
        {"strategy": "best"},
    ]:
        with pytest.raises(UsageError):
            choose_tiling(**options).grid.fitted(256)  # type: ignore[arg-type]


@pytest.fixture
def command() -> typer.Typer:
    from lowlight.cli.eval import evaluate_command

    app = typer.Typer()
    app.command()(evaluate_command)
    return app


def test_command_writes_json_and_a_table(command: typer.Typer, manifest: Path, weights: Path) -> None:
    out = manifest.with_name("scores.json")
    arguments = [str(manifest), "--weights", str(weights), "--json", str(out), "--device", "cpu"]
    result = CliRunner().invoke(command, [*arguments, "--strategy", "fastest"])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert list(report) == ["rows", "mean", "settings", "statistics"]
    assert report["settings"]["grid"] == {"overlap": 22} and report["settings"]["power"] == 0
    assert "mean of 3" in result.stdout and f"{report['mean']['psnr']:.2f}" in result.stdout
    assert [path.name for path in manifest.parent.glob(".*")] == []


def test_command_can_write_nothing_but_json_and_exits_with_1(command: typer.Typer, manifest: Path) -> None:
    (manifest.parent / "half.tif").unlink()
    result = CliRunner().invoke(command, [str(manifest), "--baseline", "amplified", "--json", "-"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert "half.tif" in report["rows"][1]["error"] and report["mean"]["count"] == 2
    assert "half.tif" in result.stderr


def test_command_scores_folders(command: typer.Typer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_picture(tmp_path / name / "x.png", Picture(encoded(gray_light(32, 32))))
    write_picture(tmp_path / "a" / "left.png", Picture(encoded(gray_light(32, 32))))
    result = CliRunner().invoke(command, ["--pictures", str(tmp_path / "a"), str(tmp_path / "b")])
    assert result.exit_code == 0, result.output
    assert "x.png" in result.stdout and "left.png" in result.stderr


def test_command_refuses_what_cannot_be(command: typer.Typer, manifest: Path, weights: Path) -> None:
    name, folder = str(manifest), str(manifest.parent)
    wrong: list[list[str]] = [
        [],
        [name, "--pictures", folder, folder],
        [name, "--weights", str(weights), "--model", "sid-net"],
        [name, "--weights", str(weights), "--stride", "9", "--overlap", "9"],
        [name, "--baseline", "amplified", "--json", f"{folder}/none/x.json"],
    ]
    for arguments in wrong:
        assert isinstance(CliRunner().invoke(command, arguments).exception, UsageError), arguments


def test_the_command_line_beats_the_environment(command: typer.Typer, manifest: Path) -> None:
    environment = {"LOWLIGHT_WEIGHTS": "nowhere.safetensors", "LOWLIGHT_SIZE": "half"}
    result = CliRunner().invoke(command, [str(manifest), "--baseline", "amplified"], env=environment)
    assert result.exit_code == 0, result.output


def setup_module() -> None:
    torch.set_num_threads(1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_scores_are_told_where_a_file_cannot_be_written(command: typer.Typer, manifest: Path, tmp_path: Path) -> None:
    full, rows = tmp_path / "full.jsonl", tmp_path / "rows.csv"
    full.symlink_to("/dev/full")
    arguments = [str(manifest), "--baseline", "amplified", "--rows", str(full), "--rows", str(rows)]
    done = CliRunner().invoke(command, [*arguments, "--json", str(tmp_path / "report.json")])
    assert isinstance(done.exception, OutputError) and "full.jsonl could not be written" in str(done.exception)
    assert "PSNR" in done.stdout and rows.is_file() and (tmp_path / "report.json").is_file()
