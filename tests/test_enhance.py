"""The workflow: a list of photos in, pictures and rows out."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from lowlight import __version__
from lowlight.checkpoint import load_weights, save_weights
from lowlight.core.errors import UsageError
from lowlight.core.photo import Gps, Metadata, Picture
from lowlight.data.pictures import read_picture
from lowlight.models.sid_net import SidNetConfig
from lowlight.ops.orient import turn_upright
from lowlight.raw.exif import tiff_tags
from lowlight.raw.read import read_raw
from lowlight.restorer import RestorerOptions
from lowlight.workflows.enhancing import enhancer as module
from lowlight.workflows.enhancing.enhance import EnhanceOptions, enhance_files
from lowlight.workflows.enhancing.inputs import Photo, find_photos
from lowlight.workflows.enhancing.photo_steps import balanced, meter
from lowlight.writers import WriterOptions
from lowlight.writers.cfa_dng import write_cfa_dng
from lowlight.writers.exif import exif_tags
from lowlight.writers.ifd import append_tags

FP32 = RestorerOptions(precision="fp32")
RGGB = ((0, 1), (3, 2))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """These pictures are too small for more, and the other cores have other work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(inputs: list[Path], out: Path, weights: Path, **changes: Any) -> list[dict[str, Any]]:
    recursive = changes.pop("recursive", False)
    hooks = {name: changes.pop(name) for name in ("on_row", "on_meter", "stop") if name in changes}
    options = EnhanceOptions(out=out, weights=weights, device="cpu", **{"restorer": FP32, **changes})
    return enhance_files(find_photos([str(path) for path in inputs], recursive=recursive), options, **hooks)


def write_dng(path: Path, mosaic: np.ndarray | None = None, **changes: Any) -> Path:
    if mosaic is None:
        rows, cols = np.mgrid[0:90, 0:102]
        light = 40 + 30 * np.sin(rows / 9) * np.cos(cols / 13)
        mosaic = np.random.default_rng(1).normal(512 + light, 2).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {"pattern": RGGB, "black": (512,) * 4, "white": 16383, "wb": (2.0, 1, 1.5, 1), **changes}
    write_cfa_dng(path, mosaic, **given)
    return path


def statuses(rows: list[dict[str, Any]]) -> list[str]:
    return [row["status"] for row in rows]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_photo_becomes_an_upright_picture_with_a_full_row(dark_dng: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (row,) = run([dark_dng], tmp_path / "new" / "out", tiny_weights)
    output = tmp_path / "new" / "out" / "dark.png"
    assert names(tmp_path) == ["new/out/dark.png"]
    assert row["error"] is None and (row["file"], row["output"]) == (str(dark_dng), str(output))
    assert (row["status"], row["ratio_source"], row["width"], row["height"]) == ("done", "auto", 120, 176)
    assert 1 <= row["ratio"] <= 300 and row["seconds"] > 0 and row["batch"] == 6
    pixels = read_picture(output)
    assert pixels.shape == (176, 120, 3) and pixels.mean() > 10_000
    run([dark_dng], output, tiny_weights, overwrite=True, restorer=replace(FP32, strength=0.0))
    # The lamp, in the upper left of the sensor, is in the upper right after a quarter turn.
    assert read_picture(output)[31:35, 95:99].min() > 60_000


def test_existing_outputs_are_skipped_unless_told_otherwise(dark_dng: Path, tiny_weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "dark.png"
    output.write_bytes(b"mine")
    rows = run([dark_dng], tmp_path, tiny_weights)
    assert statuses(rows) == ["skipped"] and output.read_bytes() == b"mine"
    assert "exists" in rows[0]["notes"][0] and rows[0]["ratio"] is None
    assert statuses(run([dark_dng], tmp_path, tiny_weights, overwrite=True)) == ["done"]
    assert read_picture(output).shape == (176, 120, 3)


def test_a_dry_run_writes_nothing_and_says_what_would_happen(
    dark_dng: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(dark_dng.parent, photos)
    (photos / "a.nef").write_bytes(b"")
    write_dng(photos / "there.dng")
    out = tmp_path / "out"
    out.mkdir()
    (out / "there.png").write_bytes(b"mine")
    rows = run([photos, tmp_path / "gone.nef"], out, tiny_weights, dry_run=True)
    assert statuses(rows) == ["failed", "planned", "skipped", "failed"]
    assert names(out) == ["there.png"]


def test_bad_photos_are_rows_and_the_rest_is_done(dark_dng: Path, tiny_weights: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    write_dng(photos / "b.dng")
    (photos / "a.nef").write_bytes(b"no RAW at all")
    (photos / "c.dng").symlink_to(tmp_path / "nowhere")
    (photos / "deep").mkdir()
    out.mkdir()
    (out / "x").write_text("a file where a folder is wanted")
    write_dng(photos / "x" / "d.dng")
    write_dng(photos / "y" / "e.dng")
    inputs = [tmp_path / "none", photos, photos / "deep", dark_dng]
    rows = run(inputs, out, tiny_weights, recursive=True)
    by_name = {Path(row["file"]).name: row for row in rows}
    assert {name for name, row in by_name.items() if row["status"] == "done"} == {"b.dng", "e.dng", "dark.dng"}
    for name, words in {
        "none": "does not exist",
        "a.nef": "not a RAW",
        "c.dng": "does not exist",
        "d.dng": "is a file",
        "deep": "no RAW files",
    }.items():
        assert by_name[name]["status"] == "failed" and words in by_name[name]["error"]
    assert names(out) == ["b.png", "dark.png", "x", "y/e.png"]
    assert [row["file"] for row in rows] == [
        str(photo.path) for photo in find_photos([*map(str, inputs)], recursive=True)
    ]


def test_a_photo_is_never_overwritten_by_its_result(dark_dng: Path, tiny_weights: Path, tmp_path: Path) -> None:
    photo, link = tmp_path / "a.dng", tmp_path / "link"
    shutil.copy(dark_dng, photo)
    link.symlink_to(tmp_path)
    before = photo.read_bytes()
    for out in (photo, link / "a.dng"):
        for overwrite in (False, True):
            (row,) = run([photo], out, tiny_weights, overwrite=overwrite)
            assert row["status"] == "failed" and "own result" in row["error"]
    (row,) = run([photo], link, tiny_weights, suffix=".dng", overwrite=True)
    assert row["status"] == "done" and photo.read_bytes() == before
    assert names(tmp_path) == ["a.dng", "a.dng.dng"]
    # Once more: the result is no photo, so nothing is left to do.
    assert statuses(run([tmp_path], tmp_path, tiny_weights, suffix=".dng")) == ["skipped"]


def test_no_other_photo_and_no_folder_is_replaced_by_a_result(
    dark_dng: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    photo, other = tmp_path / "a.raw.dng", tmp_path / "a.raw.png"
    shutil.copy(dark_dng, photo)
    original = write_dng(tmp_path / "out" / "b.dng")
    before = original.read_bytes()
    for overwrite in (False, True):
        (row,) = run([photo], original, tiny_weights, overwrite=overwrite)
        assert row["status"] == "failed" and "left alone" in row["error"]
    assert original.read_bytes() == before
    other.mkdir()
    for overwrite in (False, True):
        (row,) = run([photo], tmp_path, tiny_weights, overwrite=overwrite)
        assert row["status"] == "failed" and "is a folder" in row["error"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".jxl"])
def test_the_picture_that_a_camera_wrote_beside_a_photo_is_no_result(
    dark_dng: Path, tiny_weights: Path, tmp_path: Path, suffix: str
) -> None:
    photo, beside = tmp_path / "a.dng", tmp_path / f"a{suffix}"
    shutil.copy(dark_dng, photo)
    Image.new("RGB", (8, 8)).save(beside, "PNG" if suffix == ".jxl" else None)
    before = beside.read_bytes()
    for overwrite in (False, True):
        (row,) = run([photo], tmp_path, tiny_weights, suffix=suffix, overwrite=overwrite)
        assert row["status"] == "failed" and "beside the photo" in row["error"]
    assert beside.read_bytes() == before
    beside.unlink()
    expected = (("done", False), ("skipped", False), ("done", True))
    for status, overwrite in expected:  # its own result is known again
        assert statuses(run([photo], tmp_path, tiny_weights, suffix=suffix, overwrite=overwrite)) == [status]


def test_a_tree_is_mirrored_into_a_folder_inside_it_and_done_once(tiny_weights: Path, tmp_path: Path) -> None:
    for name in ("a.dng", "x/b.DNG", "x/b.nef.dng"):
        write_dng(tmp_path / name)
    for expected in (["done"] * 3, ["skipped"] * 3):
        rows = run([tmp_path], tmp_path / "out", tiny_weights, recursive=True, suffix=".dng")
        assert statuses(rows) == expected
    assert names(tmp_path / "out") == ["a.dng", "x/b.dng", "x/b.nef.dng"]


@pytest.mark.parametrize("suffix", [".png", ".dng"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_once(tiny_weights: Path, tmp_path: Path, orientation: int, suffix: str) -> None:
    read = read_picture if suffix == ".png" else lambda path: iio.imread(path, plugin="tifffile")
    plain = write_dng(tmp_path / "plain.dng")
    turned = write_dng(tmp_path / "turned.dng", orientation=orientation)
    run([plain, turned], tmp_path / "out", tiny_weights, suffix=suffix, ratio=40.0)
    first, second = (read(tmp_path / "out" / f"{name}{suffix}") for name in ("plain", "turned"))
    np.testing.assert_array_equal(turn_upright(first, orientation), second)
    if suffix == ".png":
        with Image.open(tmp_path / "out" / "turned.png") as image:
            assert image.getexif()[274] == 1
    else:
        assert tiff_tags(tmp_path / "out" / "turned.dng")[274] == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_is_that_window_of_the_upright_picture(tiny_weights: Path, tmp_path: Path, orientation: int) -> None:
    photo = write_dng(tmp_path / "a.dng", orientation=orientation)
    (row,) = run([photo], tmp_path / "whole", tiny_weights)
    whole = read_picture(tmp_path / "whole" / "a.png").astype(int)
    for x, y, width, height in ((0, 0, 30, 20), (17, 8, 41, 33), (5, 30, 40, 51)):
        (crop,) = run([photo], tmp_path / "crop", tiny_weights, crop=(x, y, width, height), overwrite=True)
        assert crop["ratio"] == row["ratio"] and (crop["width"], crop["height"]) == (width, height)
        part = read_picture(tmp_path / "crop" / "a.png")
        assert np.abs(part - whole[y : y + height, x : x + width]).max() <= 16


def test_a_crop_outside_one_photo_is_that_photos_failure(tiny_weights: Path, tmp_path: Path) -> None:
    small, large = write_dng(tmp_path / "a.dng"), tmp_path / "b.dng"
    write_dng(large, np.full((300, 300), 560, np.uint16))
    rows = run([small, large], tmp_path / "out", tiny_weights, crop=(100, 100, 50, 50))
    assert statuses(rows) == ["failed", "done"]
    assert "100,100,50,50" in rows[0]["error"] and "102x90" in rows[0]["error"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_what_the_camera_noted_is_in_the_picture(tiny_weights: Path, tmp_path: Path, suffix: str) -> None:
    photo = write_dng(tmp_path / "a.dng", orientation=8)
    noted = Metadata(
        make="Nikon",
        model="Z 6",
        lens="Nikkor 50mm f/1.8",
        exposure_s=0.04,
        aperture=1.8,
        iso=12800,
        focal_length_mm=50,
        taken_at="2026:11:20 23:05:06",
        gps=Gps(-33.5, 151.25, 12.0),
    )
    tags = exif_tags(Picture(np.zeros((1, 1, 3), np.uint16), noted), encoded=False, sized=False)
    append_tags(photo, [tag for tag in tags.main if tag.tag in (271, 272)], tags.exif, tags.gps)
    run([photo], tmp_path / "out", tiny_weights, suffix=suffix, ratio=40.0, restorer=replace(FP32, strength=0.5))
    with Image.open(tmp_path / "out" / f"a{suffix}") as image:
        exif = image.getexif()
        assert image.info["icc_profile"]
    shot, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    assert (exif[271], exif[272], exif[274], exif[305]) == ("Nikon", "Z 6", 1, f"lowlight {__version__}")
    assert (shot[33434], shot[33437], shot[34855], shot[37386]) == (0.04, 1.8, 12800, 50)
    assert (shot[42036], shot[36867]) == ("Nikkor 50mm f/1.8", "2026:11:20 23:05:06")
    assert (place[1], place[2], place[3], place[4]) == ("S", (33, 30, 0), "E", (151, 15, 0))
    comment = shot[37510].decode("utf-8", "replace").replace("\0", "")
    for text in (f"lowlight {__version__}", "weights tiny.safetensors", "ratio 40 (given)", "strength 0.5"):
        assert text in comment


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".jpg", ".jxl", ".dng"])
def test_equal_photos_give_equal_bytes_whatever_the_jobs(tiny_weights: Path, tmp_path: Path, suffix: str) -> None:
    inputs = [write_dng(tmp_path / f"{i}.dng", orientation=1 + i) for i in range(3)]
    for jobs in (1, 3, 1):
        rows = run(inputs, tmp_path / f"out{jobs}", tiny_weights, suffix=suffix, jobs=jobs, overwrite=True)
        assert statuses(rows) == ["done"] * 3
        made = [(tmp_path / f"out{jobs}" / f"{i}{suffix}").read_bytes() for i in range(3)]
        if jobs == 1 and (tmp_path / "out3").exists():
            assert made == [(tmp_path / "out3" / f"{i}{suffix}").read_bytes() for i in range(3)]


def test_8_bit_pictures_are_read_by_imageio(tiny_weights: Path, tmp_path: Path) -> None:
    photo = write_dng(tmp_path / "a.dng")
    for suffix in (".png", ".jpg"):
        run([photo], tmp_path, tiny_weights, suffix=suffix, writer=WriterOptions(bits=8))
        assert iio.imread(tmp_path / f"a{suffix}").shape == (90, 102, 3)


def damaged(weights: Path, path: Path, **fill: float) -> Path:
    model, _ = load_weights(weights)
    config = replace(model.config, base="none" if fill.get("weight") == 0 else model.config.base)
    state = model.state_dict()
    for name, value in fill.items():
        state[f"decoder.head.3.{name}"].fill_(value)
    assert isinstance(config, SidNetConfig)
    save_weights(path, "sid-net", config, state, trained={}, scores={})
    return path


@pytest.mark.parametrize(
    ("fill", "words"), [({"bias": float("nan")}, "not finite"), ({"weight": 0, "bias": 0}, "black")]
)
def test_results_that_are_no_picture_are_errors_and_no_files(
    tiny_weights: Path, tmp_path: Path, fill: dict[str, float], words: str
) -> None:
    bad = damaged(tiny_weights, tmp_path / "bad.safetensors", **fill)
    (row,) = run([write_dng(tmp_path / "a.dng")], tmp_path / "out", bad)
    assert row["status"] == "failed" and words in row["error"]
    assert not (tmp_path / "out").exists()


def test_memory_that_ran_out_is_in_the_row(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_greedy(path: Path, dtype: Any) -> Any:
        model, header = load_weights(path, dtype)
        restore = model.restore

        def greedy(frames: Any) -> Any:
            if len(frames) > 1:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
            return restore(frames)

        model.restore = greedy
        return model, header

    monkeypatch.setattr(module, "load_weights", load_greedy)
    photo = write_dng(tmp_path / "a.dng", np.full((600, 1100), 560, np.uint16))
    (row,) = run([photo], tmp_path, tiny_weights, restorer=replace(FP32, batch=4))
    assert row["status"] == "done" and row["batch"] == 1
    assert "4 tiles at a time; 1" in row["notes"][-1]


def series(folder: Path) -> list[Path]:
    return [
        write_dng(folder / f"{i}.dng", np.full((64, 64), 512 + light, np.uint16))
        for i, light in enumerate((20, 40, 320))
    ]


def test_one_ratio_for_a_series_is_the_median_and_stays_when_it_is_continued(
    tiny_weights: Path, tmp_path: Path
) -> None:
    inputs = [*series(tmp_path), tmp_path / "gone.dng"]
    single = [meter(read_raw(path)) for path in inputs[:3]]
    assert single[0] > 1.8 * single[1] > 3 * single[2]
    metered: list[tuple[int, int]] = []
    rows = run(inputs, tmp_path / "out", tiny_weights, ratio="same", on_meter=lambda *at: metered.append(at))
    assert statuses(rows) == ["done"] * 3 + ["failed"]
    assert [row["ratio"] for row in rows[:3]] == pytest.approx([single[1]] * 3, abs=1e-3)
    assert {row["ratio_source"] for row in rows[:3]} == {"same"}
    assert metered[0] == (0, 4) and metered[-1] == (4, 4)
    (tmp_path / "out" / "2.png").unlink()
    again = run(inputs, tmp_path / "out", tiny_weights, ratio="same")
    assert statuses(again) == ["skipped", "skipped", "done", "failed"] and again[2]["ratio"] == rows[2]["ratio"]


def test_one_ratio_sees_the_levels_the_photos_are_read_with(tiny_weights: Path, tmp_path: Path) -> None:
    inputs = series(tmp_path)
    expected = meter(read_raw(inputs[1], black=500, white=8000))
    rows = run(inputs, tmp_path / "out", tiny_weights, ratio="same", black=500.0, white=8000.0, ev=1.0)
    assert rows[0]["ratio"] == pytest.approx(2 * expected, abs=1e-3)


def test_stops_come_on_top(tiny_weights: Path, tmp_path: Path) -> None:
    photo = write_dng(tmp_path / "a.dng")
    rows = [run([photo], tmp_path / str(ev), tiny_weights, ratio=20.0, ev=ev)[0] for ev in (0.0, 1.5, -1.0)]
    assert [row["ratio"] for row in rows] == pytest.approx([20, 20 * 2**1.5, 10], abs=1e-3)
    assert {row["ratio_source"] for row in rows} == {"given"}


def test_white_balances(tmp_path: Path, dark_dng: Path) -> None:
    frame = read_raw(dark_dng)
    assert balanced(frame, "camera") is frame
    assert balanced(frame, (4.0, 2.0, 3.0)).wb == (2.0, 1.0, 1.5, 1.0)
    assert balanced(frame, "auto").wb_source == "grey world"
    assert balanced(replace(frame, daylight_wb=(1.9, 1, 1.4, 1)), "daylight").wb == (1.9, 1, 1.4, 1)
    with pytest.raises(UsageError, match="daylight"):
        balanced(replace(frame, daylight_wb=None), "daylight")


def test_a_balance_that_one_photo_lacks_is_that_photos_failure(tiny_weights: Path, tmp_path: Path) -> None:
    black = write_dng(tmp_path / "black.dng", np.full((64, 64), 512, np.uint16))
    rows = run([black, write_dng(tmp_path / "light.dng")], tmp_path / "out", tiny_weights, wb="auto")
    assert statuses(rows) == ["failed", "done"] and "--wb camera" in rows[0]["error"]


def test_warm_gains_make_a_warm_picture(tiny_weights: Path, tmp_path: Path) -> None:
    photo = write_dng(tmp_path / "a.dng")
    means = []
    for wb in ((4.0, 1.0, 1.0), (1.0, 1.0, 4.0)):
        run([photo], tmp_path / "out", tiny_weights, wb=wb, overwrite=True, ratio=40.0)
        means.append(read_picture(tmp_path / "out" / "a.png").mean(axis=(0, 1)))
    assert means[0][0] > means[0][2] and means[1][0] < means[1][2]


def test_the_sheet_shows_skipped_photos_too_in_their_order(tiny_weights: Path, tmp_path: Path) -> None:
    inputs = [write_dng(tmp_path / f"{i}.dng", orientation=1 + i) for i in range(3)]
    out = tmp_path / "out"
    run(inputs[1:2], out, tiny_weights)
    broken = out / "2.png"
    broken.write_bytes(b"no picture")
    rows = run([*inputs, tmp_path / "gone.dng"], out, tiny_weights, contact_sheet=True)
    assert statuses(rows) == ["done", "skipped", "skipped", "failed"]
    assert names(out) == ["0.png", "1.png", "2.png", "contact-sheet-1.jpg"]
    sheet = iio.imread(out / "contact-sheet-1.jpg")
    assert sheet.shape[0] > 3 * 40
    # The third column has pictures in the first two rows, and none where the output is broken.
    column = sheet[:, -45:-20].mean(axis=(1, 2))
    assert column[40:60].mean() > 60 and column[-30:-15].mean() < 40


def test_rows_come_as_soon_as_they_are_known(tiny_weights: Path, tmp_path: Path) -> None:
    inputs = [write_dng(tmp_path / f"{i}.dng") for i in range(4)]
    seen: list[tuple[str, int]] = []

    def note(row: dict[str, Any]) -> None:
        seen.append((Path(row["output"]).name, len(names(tmp_path / "out"))))

    rows = run(inputs, tmp_path / "out", tiny_weights, on_row=note)
    assert (
        [name for name, _ in seen] == [Path(row["output"]).name for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    )
    assert seen[0][1] < 4


def test_an_error_of_the_listener_is_no_failed_photo(tiny_weights: Path, tmp_path: Path) -> None:
    inputs = [write_dng(tmp_path / f"{i}.dng") for i in range(5)]

    def broken_pipe(row: dict[str, Any]) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(inputs, tmp_path / "out", tiny_weights, on_row=broken_pipe)
    assert len(names(tmp_path / "out")) < 5 and not list((tmp_path / "out").glob(".*"))


def test_stopping_keeps_what_was_finished(tiny_weights: Path, tmp_path: Path) -> None:
    inputs = [write_dng(tmp_path / f"{i}.dng") for i in range(6)]
    seen: list[dict[str, Any]] = []
    rows = run(inputs, tmp_path / "out", tiny_weights, on_row=seen.append, stop=lambda: len(seen) >= 2)
    assert rows == seen and 2 <= len(rows) < 6 and statuses(rows) == ["done"] * len(rows)
    assert names(tmp_path / "out") == [Path(row["output"]).name for row in rows]
    assert run(inputs, tmp_path / "never", tiny_weights, stop=lambda: True) == []
    assert not (tmp_path / "never").exists()
    assert run(inputs, tmp_path / "never", tiny_weights, ratio="same", stop=lambda: True) == []


def test_leftovers_of_a_killed_run_are_gone_after_the_next(tiny_weights: Path, tmp_path: Path) -> None:
    photo, out = write_dng(tmp_path / "a.dng"), tmp_path / "out"
    out.mkdir()
    left = out / f".a.png.{os.getpid()}-00ff00ff.part"
    left.write_bytes(b"half a picture")
    run([photo], out, tiny_weights)
    assert names(out) == ["a.png"]


BAD_OPTIONS: list[dict[str, Any]] = [
    {"ratio": 0.0},
    {"ratio": -3.0},
    {"ratio": float("nan")},
    {"ratio": "bright"},
    {"ev": float("nan")},
    {"ev": 200.0},
    {"wb": "sunny"},
    {"wb": (1.0, 0.0, 1.0)},
    {"wb": (1.0, 1.0)},
    {"black": -1.0},
    {"white": 70000.0},
    {"black": 600.0, "white": 600.0},
    {"crop": (-1, 0, 10, 10)},
    {"crop": (0, 0, 1, 10)},
    {"jobs": 0},
    {"suffix": ".webp"},
    {"suffix": ".jpg", "writer": WriterOptions(bits=16)},
    {"device": "cuda:77"},
    {"device": "abacus"},
    {"restorer": RestorerOptions(precision="fp16")},
    {"restorer": RestorerOptions(precision="int8")},
    {"weights": Path("nowhere.safetensors")},
    {"weights": "no-such-model"},
]


@pytest.mark.parametrize("bad", BAD_OPTIONS, ids=lambda bad: ",".join(f"{k}={v}"[:30] for k, v in bad.items()))
@pytest.mark.parametrize("dry_run", [False, True])
def test_options_that_cannot_work_are_refused_before_any_photo(
    bad: dict[str, Any], tiny_weights: Path, tmp_path: Path, dry_run: bool
) -> None:
    photo = write_dng(tmp_path / "a.dng")
    given = {"out": tmp_path / "out", "weights": tiny_weights, "device": "cpu", "dry_run": dry_run, **bad}
    with pytest.raises(UsageError) as caught:
        enhance_files([Photo(photo, Path("a.dng"))], EnhanceOptions(**given), on_row=pytest.fail)
    assert len(str(caught.value)) > 20
    assert names(tmp_path) == ["a.dng"]


def test_weights_that_do_not_fit_the_options_are_refused(tmp_path: Path) -> None:
    from lowlight.models import build_model

    config = SidNetConfig(base_channels=2, latent=4)
    path = tmp_path / "thesis.safetensors"
    save_weights(path, "sid-net", config, build_model("sid-net", config).state_dict(), trained={}, scores={})
    photo = write_dng(tmp_path / "a.dng")
    for bad, words in (({"wb": "auto"}, "--wb"), ({"restorer": replace(FP32, size="full")}, "half")):
        with pytest.raises(UsageError, match=words):
            run([photo], tmp_path / "out", path, **bad)
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match="weights file"):
        run([photo], tmp_path / "out", tmp_path / "broken.safetensors")


def test_a_file_name_and_a_format_must_agree(tiny_weights: Path, tmp_path: Path) -> None:
    photo = write_dng(tmp_path / "a.dng")
    with pytest.raises(UsageError, match="contradict"):
        run([photo], tmp_path / "a.png", tiny_weights, suffix=".jpg")
    run([photo], tmp_path / "a.JPEG", tiny_weights, suffix=".jpg")
    assert iio.imread(tmp_path / "a.JPEG").shape == (90, 102, 3)


@pytest.mark.shared
def test_real_files_good_and_bad_in_one_run(shared_data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    good = [shared_data / "raw" / name for name in ("small_640x480_10bit_pidng.dng", "kodak_dc50_buildings.KDC")]
    bad = sorted((shared_data / "raw_negative").iterdir())
    rows = run([*bad[:3], *good, *bad[3:]], tmp_path, tiny_weights)
    assert statuses(rows) == ["failed"] * 3 + ["done"] * 2 + ["failed"] * 3
    assert all(len(row["error"]) > 40 and Path(row["file"]).name in row["error"] for row in rows if row["error"])
