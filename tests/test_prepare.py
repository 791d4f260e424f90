"""`lowlight prepare`: what it says, what it writes, and that training reads it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fusion_material import SMALL_TLESS, write_faces, write_objects
from typer.testing import CliRunner, Result

from lowlight.cli import app
from lowlight.core.errors import DataError, LowlightError, UsageError
from lowlight.data.fusion_celeba import FusionCelebaConfig, read_fusion_celeba
from lowlight.data.fusion_tless import FusionTlessConfig, read_fusion_tless
from lowlight.data.prepared import Rows, read_prepared, write_prepared
from lowlight.workflows.training import prepare as module
from lowlight.workflows.training.prepare import Forecast, prepare_set

CLASSES = [f"data.options.{key}={list(kinds)}" for key, kinds in SMALL_TLESS.items()]
SETTINGS = [word for text in CLASSES for word in ("--set", text)]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("celeba"), 12)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_objects(tmp_path_factory.mktemp("bop") / "tless" / "train_primesense", each=3, digits=6).parents[1]


def prepare(*words: object) -> Result:
    return CliRunner().invoke(app, ["prepare", *map(str, words)], catch_exceptions=False)


def refused(*words: object) -> str:
    with pytest.raises(LowlightError) as caught:
        prepare(*words)
    said = str(caught.value)
    assert re.fullmatch(r"[^\n]+", said)
    return said


def test_faces_are_prepared_for_training(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "faces.npz"
    looked = prepare("fusion-celeba", faces, out, "--dry-run")
    assert re.match(r"11 pictures take at most 0\.1 MiB; [\d.]+ [MG]iB are free\n$", looked.stderr)
    assert not out.parent.exists() and not looked.stdout
    made = prepare("fusion-celeba", faces, out)
    assert made.exit_code == 0 and made.stdout == f"{out}\n"
    assert "8 training, 3 validation; 0.1 MiB" in made.stderr
    assert list(out.parent.iterdir()) == [out]
    prepared, direct = (read_fusion_celeba(path, FusionCelebaConfig()) for path in (out, faces))
    for part in ("training", "validation"):
        one, other = getattr(prepared, part), getattr(direct, part)
        every = torch.arange(len(other))
        assert torch.equal(one.targets(every), other.targets(every))
    assert "exists already" in refused("fusion-celeba", faces, out)
    assert "2 training, 2 validation" in prepare("fusion-celeba", faces, out, "--limit", 2, "--overwrite").stderr


def test_objects_are_prepared_for_training(objects: Path, tmp_path: Path) -> None:
    out = tmp_path / "objects.npz"
    assert "class 4, 5, 6" in refused("fusion-tless", objects, out)
    made = prepare("fusion-tless", objects, out, *SETTINGS)
    assert "15 pictures take at most" in made.stderr
    assert "5 training, 1 validation, 6 training occluders, 3 validation occluders" in made.stderr
    config = FusionTlessConfig(**SMALL_TLESS)
    prepared, direct = (read_fusion_tless(path, config).training for path in (out, objects))
    assert torch.equal(prepared.pictures, direct.pictures) and torch.equal(prepared.occluders, direct.occluders)
    with pytest.raises(DataError, match=r"prepared with classes = \[19, 20\], and \[19, 25\] are asked for") as caught:
        len(read_fusion_tless(out, FusionTlessConfig(**{**SMALL_TLESS, "classes": (19, 25)})).training)
    assert "--set 'data.options.classes=[19, 20]'" in str(caught.value)
    shorter = prepare("fusion-tless", objects, out, *SETTINGS, "--limit", 2, "--overwrite")
    assert "3 training, 1 validation, 4 training occluders, 2 validation occluders" in shorter.stderr


def test_training_runs_from_a_prepared_file(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces.npz"
    prepare("fusion-celeba", faces, out)
    small = {"base_channels": 4, "groups": "[[32,1],[16,1],[8,1]]", "likelihood": "bernoulli"}
    words = [word for key, value in small.items() for word in ("--set", f"model.options.{key}={value}")]
    words += ["--set", "run.validate_every=2", "--batch", "4", "--steps", "2", "--device", "cpu"]
    done = CliRunner().invoke(
        app,
        ["train", "--preset", "fusion-celeba/fcn", "--photos", str(out), "-o", str(tmp_path / "run"), *words],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


def test_wrong_use_is_one_sentence(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    assert "end in .npz" in refused("fusion-celeba", faces, tmp_path / "x.zip")
    assert "is not a folder" in refused("fusion-celeba", tmp_path / "none", out)
    assert "no .jpg files" in refused("fusion-celeba", tmp_path, out)
    assert "no folders of classes" in refused("fusion-tless", faces, out)
    assert "is a folder" in refused("fusion-celeba", faces, _made(tmp_path / "y.npz"))
    assert "did you mean 'classes'" in refused("fusion-tless", faces, out, "--set", "data.options.clases=[1]")
    assert "chosen when training starts" in refused("fusion-celeba", faces, out, "--set", "data.options.mirror=0.1")
    assert "the set's own options" in refused("fusion-celeba", faces, out, "--set", "model.name=fusion")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("fusion-celeba", faces, tmp_path / "file" / "x.npz")
    assert prepare("fusion-mnist", faces, out).exit_code == 2
    assert not out.exists()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_disk_too_small_is_refused_before_anything_is_read(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_BYTES", 1 << 60)
    told: list[Forecast] = []
    with pytest.raises(DataError, match="choose another disk"):
        prepare_set("fusion-celeba", faces, tmp_path / "x.npz", announce=told.append, progress=lambda *_: pytest.fail())
    assert told[0].pictures == 11 and told[0].bytes == 11 * 64 * 64 * 3
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_picture(objects: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    options = {key: list(kinds) for key, kinds in SMALL_TLESS.items()}
    prepare_set(
        "fusion-tless", objects, tmp_path / "x.npz", options, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(number, 15) for number in range(1, 16)]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, DataError])
def test_nothing_is_left_of_what_was_not_finished(stop: type[BaseException], tmp_path: Path) -> None:
    def items() -> Any:
        yield np.ones((2, 2), np.uint8)
        raise stop("now")

    old = tmp_path / "x.npz"
    old.write_bytes(b"old")
    with pytest.raises(stop):
        write_prepared(old, {"a": Rows(3, (2, 2), items())})
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"] and old.read_bytes() == b"old"


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    arrays = {"a": np.arange(24, dtype=np.uint8).reshape(4, 3, 2), "b": np.array([7, 255], np.uint8)}
    counts = write_prepared(tmp_path / "x.npz", {key: Rows.of(array) for key, array in arrays.items()})
    assert counts == {"a": 4, "b": 2}
    found = read_prepared(tmp_path / "x.npz", {"a": 3, "b": 1}, "a set")
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
    with pytest.raises(AssertionError):
        write_prepared(tmp_path / "x.npz", {"a": Rows(5, (3, 2), arrays["a"])})


def test_options_without_effect_are_refused(objects: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"turn_deg is chosen when training starts; only classes, .* are decided"):
        prepare_set("fusion-tless", objects, tmp_path / "x.npz", {"turn_deg": 3.0})
