"""`lowlight enhance` as it is typed: options, exit codes, what it prints, signals."""

import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from test_grouping import shot

from lowlight import cli
from lowlight.data.pictures import read_picture
from lowlight.raw.read import read_raw
from lowlight.writers.cfa_dng import write_cfa_dng

UNIX = pytest.mark.skipif(os.name == "nt", reason="signals of this kind are Unix")


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows = json.loads(self.out)
        assert isinstance(rows, list)
        return rows


class Lowlight:
    """Runs the command in this process, as the console script does."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
        self.capfd, self.monkeypatch, self.weights = capfd, monkeypatch, weights

    def __call__(self, *arguments: object, stdin: bytes = b"") -> Result:
        typed = ["lowlight", "enhance", *map(str, arguments)]
        self.monkeypatch.setattr(sys, "argv", typed)
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Result(int(ended.value.code or 0), *self.capfd.readouterr())


@pytest.fixture
def lowlight(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> Iterator[Lowlight]:
    for name in [name for name in os.environ if name.startswith("LOWLIGHT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOWLIGHT_WEIGHTS", str(tiny_weights))
    monkeypatch.setenv("LOWLIGHT_DEVICE", "cpu")
    before = signal.getsignal(signal.SIGTERM)
    yield Lowlight(capfd, monkeypatch, tiny_weights)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def photos(dark_dng: Path, tmp_path: Path) -> Path:
    """A folder of three dark photos and something else."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.dng", "b.dng", "c.dng")):
        content = bytearray(dark_dng.read_bytes())
        content[-2] ^= number  # the last pixel's lower byte: no two are the same exposure
        (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("x")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def options() -> list[inspect.Parameter]:
    parameters = inspect.signature(cli.enhance).parameters.values()
    return [p for p in parameters if p.name not in ("context", "paths")]


def test_every_option_has_an_environment_variable_and_help() -> None:
    for parameter in options():
        (option,) = parameter.annotation.__metadata__
        assert isinstance(option, typer.models.OptionInfo), parameter.name
        assert re.fullmatch(r"LOWLIGHT_[A-Z_]+", str(option.envvar)), parameter.name
        assert option.help and option.help.endswith("."), parameter.name
    variables = [str(parameter.annotation.__metadata__[0].envvar) for parameter in options()]
    assert len(set(variables)) == len(variables)


def test_the_environment_is_heard_and_the_command_line_wins(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    for name, value in {"OUTPUT": tmp_path / "env", "FORMAT": "jpg", "RATIO": "33", "JSON": "1"}.items():
        lowlight.monkeypatch.setenv(f"LOWLIGHT_{name}", str(value))
    (row,) = lowlight(photos / "a.dng", "--ratio", "44").rows
    assert (row["ratio"], row["output"]) == (44, str(tmp_path / "env" / "a.jpg"))


def test_a_folder(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    result = lowlight(photos, "-o", tmp_path / "out")
    assert result.code == 0 and names(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    lines = result.out.splitlines()
    assert len(lines) == 3 and lines[1].startswith("done     2/3 ") and "(auto)" in lines[1] and "left" in lines[1]
    assert "3 done" in result.err and "Traceback" not in result.err
    again = lowlight(photos, "-o", tmp_path / "out", "--overwrite", "--dry-run")
    assert again.code == 0 and again.out.count("planned") == 3
    again = lowlight(photos, "-o", tmp_path / "out")
    assert again.code == 0 and "3 skipped" in again.err


def test_one_file_to_one_file(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    assert lowlight(photos / "a.dng", "-o", tmp_path / "deep" / "x.jpg").code == 0
    assert names(tmp_path / "deep") == ["x.jpg"]


def test_names_from_stdin_lists_and_patterns(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    a, b, c = (str(photos / f"{name}.dng") for name in "abc")
    listed = tmp_path / "list.txt"
    listed.write_bytes(f"\ufeff{a}\r\n\r\n{b}\r\n".encode())
    plan = ("-o", tmp_path / "out", "--dry-run", "--json")
    for arguments, stdin in (
        (["--from-file", listed], b""),
        (["-"], f"{a}\n{b}\n".encode()),
        (["-"], f"{a}\0{b}\0".encode()),
        (["--from-file", "-"], f"{a}\n{b}".encode()),
        ([str(photos / "[ab].dng")], b""),
    ):
        assert [row["file"] for row in lowlight(*arguments, *plan, stdin=stdin).rows] == [a, b]
    assert len(lowlight("-", c, *plan, stdin=f"{a}\n".encode()).rows) == 2


def test_json_is_all_of_stdout_and_one_failure_is_exit_1(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.nef").write_text("no RAW")
    result = lowlight(photos, "-o", tmp_path / "out", "--json")
    assert result.code == 1
    assert [row["status"] for row in result.rows] == ["done", "done", "failed", "done"]
    assert {tuple(row) for row in result.rows} == {tuple(result.rows[0])}  # the same keys in each
    assert "bad.nef" in result.rows[2]["error"] and result.err == ""
    plain = lowlight(photos, "-o", tmp_path / "out")
    assert plain.code == 1 and "failed   3/4" in plain.err and "failed" not in plain.out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_are_printed_all_the_same(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"n\xe4cht.dng")
    shutil.copy(photos / "a.dng", photos / odd)
    result = lowlight(photos, "-o", tmp_path / "out", "--contact-sheet")
    # LibRaw's Python interface may refuse such a name; the other photos must not suffer from it.
    assert {"a.png", "b.png", "c.png"} < set(names(tmp_path / "out"))
    assert r"n\udce4cht.dng" in result.out + result.err
    rows = lowlight(photos / odd, "-o", tmp_path / "out", "--json").rows
    assert rows[0]["file"] == str(photos / odd)


WRONG: list[tuple[list[str], str]] = [
    ([], "name at least one"),
    (["PHOTO", "--ratio", "-3"], "ratio"),
    (["PHOTO", "--ratio", "0"], "ratio"),
    (["PHOTO", "--ratio", "nan"], "ratio"),
    (["PHOTO", "--ratio", "much"], "--ratio"),
    (["PHOTO", "--ev", "nan"], "stops"),
    (["PHOTO", "--wb", "sunny"], "--wb"),
    (["PHOTO", "--wb", "1,2"], "--wb"),
    (["PHOTO", "--wb", "1,-2,1"], "gains above 0"),
    (["PHOTO", "--crop", "1,2,3"], "--crop"),
    (["PHOTO", "--crop", "0,0,10.5,10"], "whole pixels"),
    (["PHOTO", "--crop", "0,0,0,10"], "crop"),
    (["PHOTO", "--crop", "-5,0,50,50"], "crop"),
    (["PHOTO", "--format", "webp"], "no format that can be written"),
    (["PHOTO", "--format", "jpg", "--bits", "16"], "8 bits"),
    (["PHOTO", "--bits", "12"], "8 or 16"),
    (["PHOTO", "--quality", "0"], "quality"),
    (["PHOTO", "--size", "huge"], "size"),
    (["PHOTO", "--strength", "1.5"], "strength"),
    (["PHOTO", "--strategy", "slow"], "strategy"),
    (["PHOTO", "--stride", "300"], "stride"),
    (["PHOTO", "--stride", "10", "--overlap", "10"], "one of the two"),
    (["PHOTO", "--merge", "max"], "merge"),
    (["PHOTO", "--power", "99"], "power"),
    (["PHOTO", "--device", "cuda:99"], "cuda:99"),
    (["PHOTO", "--device", "toaster"], "toaster"),
    (["PHOTO", "--precision", "fp8"], "precision"),
    (["PHOTO", "--batch", "0"], "batch"),
    (["PHOTO", "--jobs", "0"], "jobs"),
    (["PHOTO", "--black", "70000"], "black"),
    (["PHOTO", "--black", "500", "--white", "400"], "below"),
    (["PHOTO", "--weights", "gone.safetensors"], "gone.safetensors"),
    (["PHOTO", "--weights", "x.safetensors", "--model", "sid-net"], "not both"),
    (["PHOTO", "--from-file", "gone.txt"], "gone.txt"),
    (["PHOTO", "--fuse", "--group", "folder"], "one of the two"),
    (["PHOTO", "--group", "day"], "no group"),
    (["PHOTO", "--samples", "1"], "samples"),
    (["PHOTO", "--samples", "2", "--temperature", "-1"], "temperature"),
    (["PHOTO", "--samples", "2", "--seed", "-1"], "seed"),
    (["PHOTO", "--no-such-option"], "No such option"),
]


@pytest.mark.parametrize(("typed", "words"), WRONG, ids=[" ".join(typed) or "nothing" for typed, _ in WRONG])
def test_wrong_use_is_one_sentence_and_exit_2_and_touches_nothing(
    lowlight: Lowlight, photos: Path, tmp_path: Path, typed: list[str], words: str
) -> None:
    named = [str(photos) if word == "PHOTO" else word for word in typed]
    result = lowlight(*named, "-o", tmp_path / "out", "--json")
    assert result.code == 2 and result.out == ""
    assert words in " ".join(result.err.replace("│", " ").split()) and "Traceback" not in result.err
    assert not (tmp_path / "out").exists()


def test_an_output_must_be_named_and_folders_must_hold_photos(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    assert (result := lowlight(photos)).code == 2 and "-o FOLDER" in result.err
    assert (result := lowlight(photos, "-o", photos / "notes.txt")).code == 2 and "is a file" in result.err
    assert (result := lowlight(photos, "-o", tmp_path / "x.png")).code == 2 and "3 photos" in result.err
    assert (result := lowlight(tmp_path, "-o", tmp_path / "out")).code == 2 and "no RAW files" in result.err
    assert lowlight(tmp_path / "gone.nef", "-o", tmp_path / "out").code == 1


def test_a_model_on_the_command_line_goes_before_weights_in_the_environment(
    lowlight: Lowlight, photos: Path, tmp_path: Path
) -> None:
    result = lowlight(photos / "a.dng", "-o", tmp_path / "out", "--model", "no-such-model")
    assert result.code == 2 and "no-such-model" in result.err


def test_options_reach_the_picture(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    photo = photos / "a.dng"
    common = ("--size", "half", "--bits", "8", "--strategy", "fastest", "--merge", "feather", "--wb", "2,1,1.5")
    result = lowlight(photo, "-o", tmp_path, "--crop", "10,20,60,50", "-f", "tif", *common, "--contact-sheet", "--json")
    assert result.code == 0 and (result.rows[0]["width"], result.rows[0]["height"]) == (30, 25)
    assert read_picture(tmp_path / "a.tif").shape == (25, 30, 3)
    assert (tmp_path / "contact-sheet-1.jpg").exists()


def test_strength_0_shows_the_lamp_upright(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    assert read_raw(photos / "a.dng").orientation == 6
    assert lowlight(photos / "a.dng", "-o", tmp_path / "out", "--strength", "0").code == 0
    assert read_picture(tmp_path / "out" / "a.png")[31:35, 95:99].min() > 60_000


def test_several_frames_and_samples_as_they_are_typed(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    result = lowlight(photos, "--fuse", "-o", tmp_path / "one.png", "--samples", "2", "--json")
    (row,) = result.rows
    assert result.code == 0 and row["frames"] == ["a.dng", "b.dng", "c.dng"]
    assert names(tmp_path)[:3] == ["one.png", "one.sample-01.png", "one.sample-02.png"]
    plan = lowlight(photos, "--group", "burst", "-o", tmp_path / "out", "--dry-run")
    assert "a.dng + b.dng + c.dng -> " in plan.out and "burst of 3 frames" in plan.err
    assert len(lowlight(photos, "--group", "folder", "-o", tmp_path / "out", "--dry-run", "--json").rows) == 1


def slow_photos(folder: Path, count: int) -> None:
    """Photos that keep even a tiny network busy for about a second each."""
    folder.mkdir()
    mosaic = np.random.default_rng(0).normal(560, 5, (1100, 1300)).astype(np.uint16)
    for number in range(count):
        write_cfa_dng(
            folder / f"{number}.dng",
            mosaic,
            pattern=((0, 1), (3, 2)),
            black=(512,) * 4,
            white=16383,
            wb=(2, 1, 1.5, 1),
        )


class Background:
    """The command in a process of its own, which may be interrupted."""

    def __init__(self, photos: Path, out: Path, weights: Path, *more: str) -> None:
        self.out = out
        typed = [sys.executable, "-m", "lowlight", "enhance", str(photos), "-o", str(out), "--stride", "64", *more]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOWLIGHT_")}
        environment |= {"OMP_NUM_THREADS": "1", "LOWLIGHT_WEIGHTS": str(weights), "LOWLIGHT_DEVICE": "cpu"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(typed, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_for(self, pattern: str, limit_s: float = 60) -> None:
        end = time.monotonic() + limit_s
        while not list(self.out.glob(pattern)):
            assert self.process.poll() is None and time.monotonic() < end, self.process.communicate()
            time.sleep(0.002)

    def ended_by(self, number: signal.Signals) -> Result:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return Result(self.process.returncode, out.decode(), err.decode())


@UNIX
def test_a_killed_run_leaves_no_partial_picture_and_is_finished_by_the_same_command(
    lowlight: Lowlight, tiny_weights: Path, tmp_path: Path
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    slow_photos(photos, 3)
    background = Background(photos, out, tiny_weights)
    background.wait_for("0.png")
    background.wait_for(".1.png.*.part")  # in the middle of the second picture
    background.ended_by(signal.SIGKILL)
    left = names(out)
    assert "0.png" in left and "2.png" not in left
    for name in left:
        if not name.endswith(".part"):
            assert read_picture(out / name).shape == (1100, 1300, 3)
    first = (out / "0.png").stat().st_mtime_ns
    result = lowlight(photos, "-o", out)
    assert result.code == 0 and "1 skipped" in result.err and "2 done" in result.err
    assert names(out) == ["0.png", "1.png", "2.png"] and (out / "0.png").stat().st_mtime_ns == first


@UNIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_is_finished_and_says_so(
    tiny_weights: Path, tmp_path: Path, number: signal.Signals
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    slow_photos(photos, 5)
    background = Background(photos, out, tiny_weights, "--json")
    background.wait_for("0.png")
    result = background.ended_by(number)
    assert result.code == 130 and "Traceback" not in result.err and "are kept" in result.err
    assert 1 <= len(result.rows) < 5 and {row["status"] for row in result.rows} == {"done"}
    assert names(out) == [Path(row["output"]).name for row in result.rows]
    assert read_picture(out / "0.png").shape == (1100, 1300, 3)


@UNIX
def test_rows_meant_for_a_file_do_not_end_up_on_the_terminal(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    import pty

    master, terminal = pty.openpty()
    typed = [sys.executable, "-m", "lowlight", "enhance", str(photos / "a.dng"), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "LOWLIGHT_WEIGHTS": str(tiny_weights), "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    ended = subprocess.run(typed, env=environment, stdout=subprocess.PIPE, stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert b"done     1/1" in ended.stdout and "done     1/1" not in shown and "enhancing" in shown


def test_rows_say_why_a_photo_was_skipped_and_where_sheets_are(
    lowlight: Lowlight, photos: Path, tmp_path: Path
) -> None:
    first = lowlight(photos, "-o", tmp_path / "out", "--contact-sheet")
    assert f"sheet    {tmp_path / 'out' / 'contact-sheet-1.jpg'}" in first.err
    assert "exists already; --overwrite" in lowlight(photos, "-o", tmp_path / "out").out


def test_a_photo_that_another_ones_picture_keeps_out_is_spoken_of(lowlight: Lowlight, tmp_path: Path) -> None:
    for day, seconds in (("one", 0), ("two", 61)):
        (tmp_path / day).mkdir()
        shot(tmp_path / day / "a.dng", seconds)
    assert lowlight(tmp_path / "one", "-o", tmp_path / "out").code == 0
    assert "note" not in lowlight(tmp_path / "one", "-o", tmp_path / "out").err
    second = lowlight(tmp_path / "two", "-o", tmp_path / "out")
    assert second.code == 0 and second.out.startswith("skipped  1/1")
    assert re.search(r"note +1/1 .*a\.png was made from another photo, taken at 2026:11:20 22:00:00", second.err)


def test_a_suffix_that_was_typed_goes_before_a_format_in_the_environment(
    lowlight: Lowlight, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWLIGHT_FORMAT", "tiff")
    photo = next(photos.glob("*.dng"))
    assert lowlight(photo, "-o", tmp_path / "x.png").code == 0 and (tmp_path / "x.png").is_file()
    assert lowlight(photo, "-o", tmp_path / "out").code == 0 and list((tmp_path / "out").glob("*.tiff"))


def test_compiling_on_a_cpu_is_refused_at_once(lowlight: Lowlight, photos: Path, tmp_path: Path) -> None:
    result = lowlight(photos, "-o", tmp_path / "out", "--compile")
    assert result.code == 2 and "for GPUs" in result.err and not (tmp_path / "out").exists()
