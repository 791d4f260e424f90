"""The benchmark: its material, its clocks, its sums, and that both sides do the same work."""

import json
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_material import RATIO as PAIR_RATIO
from evaluation_material import encoded, gray_light, write_raw
from typer.testing import CliRunner

from lowlight.checkpoint import load_weights, save_weights
from lowlight.cli import app
from lowlight.cli.bench import _sizes, print_stages
from lowlight.core.errors import OutputError, UsageError
from lowlight.core.photo import Picture
from lowlight.data.pictures import read_picture
from lowlight.models import build_model, model_config
from lowlight.models.sid_net import SidNetConfig
from lowlight.ops.tiling import dense
from lowlight.raw.read import read_raw
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.benchmarking import benchmark, limits, network_tasks, precision, tasks
from lowlight.workflows.benchmarking.benchmark import SIDES, BenchConfig, run_benchmark, summary
from lowlight.workflows.benchmarking.limits import matrix_rate
from lowlight.workflows.benchmarking.material import (
    BLACK_DN,
    RATIO,
    WHITE_DN,
    frame_size,
    photo_like,
    write_folder,
    write_frame,
)
from lowlight.workflows.benchmarking.plain import plain_photo
from lowlight.workflows.benchmarking.processes import run_task
from lowlight.workflows.benchmarking.stages import POINTS, StageClock, _owner, staged
from lowlight.workflows.benchmarking.tasks import fed_task
from lowlight.workflows.enhancing.enhance import EnhanceOptions, enhance_files
from lowlight.workflows.enhancing.inputs import Photo
from lowlight.writers import write_picture

TINY = {"base_channels": 2, "latent": 4, "init": "kaiming"}
TINY_SETS = {"base_channels": 2, "channel_cap": 4, "latent": 2}


@pytest.fixture(autouse=True)
def small_products_and_no_lasting_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIDES", (64,))
    for module in (tasks, network_tasks, precision):
        monkeypatch.setattr(module, "keep_freed_memory", lambda: True)


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frame") / "small.dng"
    write_frame(path, 520, 780)
    return path


def test_frames_have_the_size_that_was_asked_for() -> None:
    assert frame_size(12) == (2848, 4256)
    for megapixels in (0.1, 3.0, 50.0, 100.0, 400.0):
        height, width = frame_size(megapixels)
        assert height * width == pytest.approx(megapixels * 1e6, rel=0.01)
        assert height % 2 == width % 2 == 0 and width / height == pytest.approx(1.494, rel=0.01)


@pytest.mark.parametrize("megapixels", [0, -1.0, 401.0, float("nan"), float("inf")])
def test_sizes_that_no_camera_has_are_refused(megapixels: float) -> None:
    with pytest.raises(UsageError, match="megapixels"):
        frame_size(megapixels)


def test_a_frame_is_dark_noisy_raw_with_a_matrix(frame: Path) -> None:
    raw = read_raw(frame)
    assert raw.size == (520, 780) and raw.black == (BLACK_DN,) * 4 and set(raw.white) == {WHITE_DN}
    assert raw.camera_to_srgb is not None
    light = (raw.mosaic.astype(float) - BLACK_DN) / (WHITE_DN - BLACK_DN)
    assert light.mean() == pytest.approx(0.16 / RATIO, rel=0.05)
    assert raw.mosaic.min() < BLACK_DN  # the read noise is there


def test_a_folder_holds_as_many_photos_as_asked(frame: Path, tmp_path: Path) -> None:
    paths = write_folder(tmp_path / "many", frame, 3)
    assert len({path.name for path in paths}) == 3
    assert all(path.read_bytes() == frame.read_bytes() for path in paths)


def test_every_point_that_is_timed_is_there() -> None:
    for point in POINTS:
        owner, name = _owner(point)
        assert owner is not None and callable(getattr(owner, name)), point


def test_a_stage_within_a_stage_counts_for_itself_alone() -> None:
    clock = StageClock()
    with clock.stage("network"):
        time.sleep(0.02)
        with clock.stage("pack"):
            time.sleep(0.05)
        time.sleep(0.02)
    seconds = clock.seconds()
    assert list(seconds) == ["pack", "network"]
    assert seconds["pack"] >= 0.05 and seconds["network"] >= 0.04
    assert clock.cpu_seconds()["pack"] < 0.04  # nothing was computed


def test_threads_do_not_disturb_each_others_stages() -> None:
    clock = StageClock()

    def work(name: str) -> None:
        with clock.stage(name):
            time.sleep(0.05)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("read", "encode", "encode")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.seconds()["encode"] >= 0.1 > 0.05 <= clock.seconds()["read"]


def test_the_stages_of_a_run_are_seen_and_the_functions_put_back(
    frame: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    before = [getattr(*_owner(point)) for point in POINTS]
    began = time.perf_counter()
    with staged() as clock:
        options = EnhanceOptions(out=tmp_path, weights=tiny_weights, device="cpu")
        (row,) = enhance_files([Photo(frame, Path(frame.name))], options)
    wall = time.perf_counter() - began
    assert row["status"] == "done"
    assert {"read", "meter", "pack", "network", "batch", "merge", "develop", "encode"} <= set(clock.seconds())
    assert sum(clock.seconds().values()) <= wall
    assert [getattr(*_owner(point)) for point in POINTS] == before


@pytest.mark.parametrize(("input_colour", "output_colour", "upscale"), [("raw", "srgb", 1), ("wb", "camera", 2)])
def test_the_plain_side_makes_the_same_picture(
    frame: Path, tmp_path: Path, input_colour: str, output_colour: str, upscale: int
) -> None:
    config = SidNetConfig(**TINY, input_colour=input_colour, output_colour=output_colour, upscale=upscale)  # type: ignore[arg-type]
    path = tmp_path / "weights.safetensors"
    save_weights(path, "sid-net", config, build_model("sid-net", config).state_dict(), trained={}, scores={})
    plain_photo(load_weights(path)[0], dense(), StageClock())(frame, tmp_path / "plain.png", RATIO)
    restorer = Restorer(load_weights(path)[0], RestorerOptions(precision="fp32"), "cpu")
    ours = restorer.photo(read_raw(frame), RATIO).pixels.astype(int)
    theirs = read_picture(tmp_path / "plain.png").astype(int)
    assert ours.std() > 50
    assert np.abs(ours - theirs).max() <= 16  # of 65535


def test_more_tiles_and_more_frames_are_measured(frame: Path, tiny_weights: Path) -> None:
    given = {"frame": str(frame), "weights": str(tiny_weights), "device": "cpu", "precision": "fp32", "batch": None}
    rows = [
        tasks.photo_task("lowlight", strategy="baseline", **given, **more)  # type: ignore[arg-type]
        for more in ({"stride": 256}, {"stride": 73, "frames": 2})
    ]
    assert [(row["tiles"], row["frames"], row["device_seconds"]) for row in rows] == [(4, 1, None), (6, 2, None)]
    assert rows[1]["stages"]["align"] > rows[0]["stages"]["align"]


@pytest.mark.parametrize(("name", "options", "told"), [("sid-net", TINY, True), ("fusion-raw", TINY_SETS, False)])
def test_the_rate_of_several_frames_is_told_where_they_are_fused_first(
    frame: Path, tmp_path: Path, name: str, options: dict[str, Any], told: bool
) -> None:
    weights, config = tmp_path / "weights.safetensors", model_config(name, options)
    save_weights(weights, name, config, build_model(name, config).state_dict(), trained={}, scores={})
    row = tasks.photo_task("lowlight", str(frame), str(weights), "cpu", "fp32", "baseline", None, frames=2)
    assert (row["gflops"] is not None, row["share_of_limit"] is not None) == (told, told)
    line = {**row, "measure": "photo", "side": "lowlight", "at": 2.0, "run": 0}
    assert summary([line])[0]["gflops"] == row["gflops"]


def test_the_cost_of_16_bits_is_that_of_eval(tiny_weights: Path, tmp_path: Path) -> None:
    light = gray_light(48, 64)
    write_raw(tmp_path / "dark.dng", light, PAIR_RATIO, 0.1)
    write_picture(tmp_path / "bright.png", Picture(encoded(light)))
    manifest = tmp_path / "pairs.csv"
    columns = "scene,split,dark,bright,ratio,iso,burst_index"
    manifest.write_text(f"{columns}\ns,test,dark.dng,bright.png,{PAIR_RATIO},800,0\n")
    row = precision.precision_task(str(manifest), str(tiny_weights), "cpu", "bf16")
    assert (row["pairs"], row["precision"]) == (1, "bfloat16")
    assert row["psnr_lost"] == pytest.approx(row["psnr_fp32"] - row["psnr"]) and abs(row["psnr_lost"]) < 1
    with pytest.raises(UsageError, match="name another"):
        precision.precision_task(str(manifest), str(tiny_weights), "cpu", "fp32")
    with pytest.raises(UsageError, match="nothing to lose"):
        BenchConfig(model="sid-net", pairs=manifest)


def test_a_matrix_rate_is_a_rate() -> None:
    rate = matrix_rate(torch.device("cpu"), torch.float32, 1)
    assert 0 < rate.gflops < 1e6 and "64" in rate.how


def test_forward_says_how_far_from_the_limit() -> None:
    row = tasks.forward_task("lowlight", "sid-net", TINY, "cpu", "fp32", 2, 1)
    assert row["batch"] == 2 and row["precision"] == "float32"
    assert row["share_of_limit"] == pytest.approx(row["gflops"] / row["limit_gflops"])


@pytest.mark.parametrize("side", SIDES)
def test_training_is_measured_on_both_sides(side: str) -> None:
    row = tasks.train_task(side, "sid-net", TINY, "cpu", "fp32", 2, 1)
    assert row["patches_per_second"] == pytest.approx(2 / row["seconds_per_step"])
    assert row["peak_mib"] > 0


def test_pieces_give_times_and_sizes() -> None:
    row = tasks.pieces_task(520, 780, 1)
    assert row["png_size"] < 1.02 and row["merge_cpu_ms"] > 0 and row["png_faster"] > 1
    assert photo_like(8, 8).dtype == np.uint16


def test_summaries_are_medians_and_ratios_of_neighbours() -> None:
    def row(side: str, run: int, seconds: float, mib: float) -> dict[str, object]:
        more = {"seconds": seconds, "cpu_seconds": seconds, "peak_mib": mib, "stages": {"read": seconds}, "tiles": 6}
        return {"measure": "photo", "side": side, "at": 12.0, "run": run, **more}

    rows = [row("plain", 0, 30.0, 900.0), row("lowlight", 0, 10.0, 450.0)]
    rows += [row("plain", 1, 60.0, 900.0), row("lowlight", 1, 15.0, 450.0)]
    rows += [row("plain", 2, 31.0, 900.0), row("lowlight", 2, 10.0, 450.0)]
    plain, ours = summary(rows)  # type: ignore[arg-type]
    assert (plain["seconds"], ours["seconds"], plain["runs"]) == (31, 10, 3)
    assert ours["faster"] == pytest.approx(3.1) and ours["memory"] == 0.5 and "faster" not in plain
    assert ours["stages"] == {"read": 10} and ours["tiles"] == 6 and "run" not in ours


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"curve": "colour"}, "curve"),
        ({"repeat": 0}, "repeats"),
        ({"megapixels": ()}, "size"),
        ({"megapixels": (5000.0,)}, "megapixels"),
        ({"weights": Path("a"), "model": "b"}, "either"),
        ({"upscale": 2}, "name a model"),
        ({"curve": "batch", "forward": True, "photos": 3}, "leave out --forward, --photos"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        BenchConfig(**options)  # type: ignore[arg-type]


def test_sizes_are_read_or_refused() -> None:
    assert _sizes("3,12.5") == (3.0, 12.5)
    with pytest.raises(UsageError, match="as in 3,12"):
        _sizes("big")


@pytest.mark.parametrize("name", ["weights.json", "pairs.json", "dark.json", "."])
def test_what_is_measured_is_never_written_over(tiny_weights: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(tiny_weights, tmp_path / "weights.json")
    (tmp_path / "dark.json").write_text("a frame")
    (tmp_path / "pairs.json").write_text("dark,bright\ndark.json,dark.json\n")
    words = ["bench", "--weights", str(tmp_path / "weights.json"), "--pairs", str(tmp_path / "pairs.json")]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = CliRunner().invoke(app, [*words, "--json", str(tmp_path / name)])
    assert isinstance(done.exception, UsageError)
    assert re.search("is a folder|made from", str(done.exception))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tables_are_shown_where_the_file_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(config: BenchConfig, on_row: object) -> dict[str, Any]:
        (tmp_path / "in").rmdir()
        line = {"measure": "photo", "side": "lowlight", "at": 12.0, "runs": 1, "seconds": 3.25, "gflops": None}
        return {"machine": {"cores": 7}, "rows": [], "summary": [line]}

    (tmp_path / "in").mkdir()
    monkeypatch.setattr(benchmark, "run_benchmark", measured)
    done = CliRunner().invoke(app, ["bench", "--model", "sid-net", "--json", str(tmp_path / "in" / "out.json")])
    assert isinstance(done.exception, OutputError) and "3.25" in done.output


def test_jobs_without_a_folder_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "run_benchmark", lambda *given, **named: {"machine": {}, "summary": []})
    done = CliRunner().invoke(app, ["bench", "--model", "sid-net", "--jobs", "4"])
    assert isinstance(done.exception, UsageError) and "--photos" in str(done.exception)
    # Of the environment it is for every command.
    done = CliRunner().invoke(app, ["bench", "--model", "sid-net"], env={"LOWLIGHT_JOBS": "4"})
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["bench", "--model", "sid-net", "--jobs", "4", "--photos", "2"]).exit_code == 0


def test_a_profile_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_stages({"read": 0.5, "network": 3.0}, 4.0)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "lowlight: 4.00 s, of which read 0.50 s (12.5 %), network 3.00 s (75.0 %)\n"


def test_frames_are_fed_from_memory(tiny_weights: Path, frame: Path) -> None:
    values = fed_task(str(frame), str(tiny_weights), "cpu", "fp32", "fastest", 5, 2)
    assert values["photos"] == 5 and values["images_per_second"] > 0
    assert values["network_busy"] is None and values["device_seconds"] is None  # a CPU has no clock of its own
    with pytest.raises(UsageError, match="--photos"):
        BenchConfig(fed=True)


@pytest.mark.slow
def test_an_error_in_a_process_of_its_own_comes_back_as_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing"):
        run_task(
            "folder",
            folder=str(tmp_path),
            weights="nothing.safetensors",
            device="cpu",
            precision="auto",
            strategy="baseline",
            jobs=1,
        )


@pytest.mark.parametrize("sides", [["lowlight"], pytest.param(["plain", "lowlight"], marks=pytest.mark.slow)])
def test_the_command_measures_a_photo_in_processes_of_their_own(
    tiny_weights: Path, tmp_path: Path, sides: list[str]
) -> None:
    out = tmp_path / "bench.json"
    words = ["bench", "--weights", str(tiny_weights), "--megapixels", "0.2", "--repeat", "1", "--device", "cpu"]
    words += ["--threads", "1", "--json", str(out), *(["--plain"] if "plain" in sides else [])]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert [row["side"] for row in result["rows"]] == sides
    assert result["machine"]["threads"] == 1
    for row in result["rows"]:
        assert sum(row["stages"].values()) == pytest.approx(row["seconds"], rel=0.05)
        assert row["peak_mib"] > 50 and row["limit_gflops"] > 0 and row["seconds_per_mp"] > 0
    assert "share of it" in done.output and "encode, s" in done.output
    assert ("times faster" in done.output) == ("plain" in sides)


@pytest.mark.slow
def test_the_memory_of_a_folder_does_not_grow(tiny_weights: Path) -> None:
    config = BenchConfig(weights=tiny_weights, device="cpu", repeat=1, curve="photos", threads=1)
    lines = run_benchmark(config)["summary"]
    assert lines[-1]["photos"] == 200
    assert lines[-1]["peak_mib"] <= 1.05 * lines[0]["peak_mib"]
