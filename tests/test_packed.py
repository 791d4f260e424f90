"""The packed file: compact, reproducible, and all that training needs."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from training_material import make_pair, tiny_values, training_names, write_packed, write_photos
from typer.testing import CliRunner

from lowlight.cli.pack import pack
from lowlight.core.config import to_toml
from lowlight.core.errors import DataError, OutputError, UsageError
from lowlight.data.packed_set import packed_pair_readers, write_packed_set
from lowlight.data.pairs import Pair
from lowlight.data.photos import is_held_out, open_photos
from lowlight.workflows.training.pack import pack_files

NAMES = [f"scene{i}.png" for i in range(12)]


def _pairs_of(path: Path) -> list[Pair]:
    return [read() for read in packed_pair_readers(path)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), NAMES)


def test_the_same_contents_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("a.zip", "b.zip"):
        write_packed_set(tmp_path / name, open_photos(folder), [make_pair()])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def test_photos_come_back_byte_for_byte_and_split_the_same(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    write_packed_set(path, open_photos(folder), [])
    loose, packed = open_photos(folder), open_photos(path)
    assert packed.names == loose.names == sorted(NAMES)
    assert all(packed.bytes_of(name) == (folder / name).read_bytes() for name in NAMES)
    for ours, theirs in zip(loose.split(), packed.split(), strict=True):
        assert ours.names == theirs.names
        assert ours.digest() == theirs.digest()


def test_pairs_come_back_as_they_were(folder: Path, tmp_path: Path) -> None:
    path, pair = tmp_path / "set.zip", make_pair("one.dng", seed=4)
    write_packed_set(path, open_photos(folder), [pair])
    (found,) = _pairs_of(path)
    assert (found.name, found.scene, found.ratio) == ("one.dng", "scene", 100.0)
    assert np.array_equal(found.frame.mosaic, pair.frame.mosaic)
    assert np.array_equal(found.truth, pair.truth)
    assert np.array_equal(found.frame.camera_to_srgb, pair.frame.camera_to_srgb)
    for field in ("pattern", "black", "white", "wb", "wb_source"):
        assert getattr(found.frame, field) == getattr(pair.frame, field)


def test_frames_of_the_same_name_are_both_kept(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    write_packed_set(path, open_photos(folder), [make_pair("same.dng", seed) for seed in (1, 2)])
    first, second = (read() for read in packed_pair_readers(path))
    assert first.name == second.name == "same.dng"
    assert not np.array_equal(first.truth, second.truth)


def test_truths_at_full_size_are_halved(folder: Path, tmp_path: Path) -> None:
    pair, path = make_pair(), tmp_path / "set.zip"
    large = np.kron(pair.truth, np.ones((2, 2, 1), np.uint16)).astype(np.uint16)
    write_packed_set(path, open_photos(folder), [type(pair)("x", "", pair.frame, large, 2.0)])
    assert np.array_equal(_pairs_of(path)[0].truth, pair.truth)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_limit_is_kept_and_well_used(folder: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "set.zip"
    everything = write_packed_set(path, open_photos(folder), [make_pair()])
    limit = int(everything["bytes"] * share)
    counts = write_packed_set(path, open_photos(folder), [make_pair()], limit)
    assert path.stat().st_size == counts["bytes"] <= limit
    assert 0 < counts["photos"] < len(NAMES)
    assert counts["photos"] + counts["left_out"] == len(NAMES)
    smallest = min((folder / name).stat().st_size for name in set(NAMES) - set(open_photos(path).names))
    assert counts["bytes"] + smallest > limit - 1000


def test_the_choice_under_a_limit_does_not_follow_the_alphabet(folder: Path) -> None:
    scattered = open_photos(folder).scattered_names()
    assert sorted(scattered) == sorted(NAMES)
    assert scattered != sorted(NAMES)


def test_holding_out_goes_by_the_name_alone() -> None:
    held = [name for name in (f"{i}.jpg" for i in range(3200)) if is_held_out(name)]
    assert 150 < len(held) < 250
    stem = Path(held[0]).stem
    assert is_held_out(f"deep/er/{stem}.PNG")
    assert not any(is_held_out(name) for name in training_names(5))


def test_a_limit_below_the_pairs_or_any_photo_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with pytest.raises(DataError, match="the pairs alone take"):
        write_packed_set(path, open_photos(folder), [make_pair()], 1000)
    with pytest.raises(DataError, match=r"no photo of .* can be packed"):
        write_packed_set(path, open_photos(folder), [], 1000)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_and_tiny_photos_are_left_out(tmp_path: Path) -> None:
    from PIL import Image

    source = write_photos(tmp_path / "photos", NAMES[:2])
    (source / "broken.jpg").write_bytes(b"no photo")
    Image.new("RGB", (255, 400)).save(source / "tiny.png")
    counts = write_packed_set(tmp_path / "set.zip", open_photos(source), [])
    assert (counts["photos"], counts["unusable"]) == (2, 2)


def test_photos_of_names_that_are_no_utf_8_are_packed(tmp_path: Path) -> None:
    name = training_names(1)[0]
    try:
        write_photos(tmp_path / "photos", [name, os.fsdecode(b"caf\xe9.png")])
    except OSError:
        pytest.skip("a file system of UTF-8 alone")
    loose = open_photos(tmp_path / "photos")
    write_packed_set(tmp_path / "set.zip", loose, [])
    photos = open_photos(tmp_path / "set.zip")
    assert photos.names == loose.names and photos.digest() == loose.digest() and len(photos) == 2


def test_what_is_no_collection_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name, sentence in (("text.zip", "no packed file"), ("empty.zip", "no photos"), ("gone", "does not exist")):
        with pytest.raises(DataError, match=sentence):
            open_photos(tmp_path / name)
    for name, sentence in (("text.zip", "no packed file"), ("gone.zip", "does not exist")):
        with pytest.raises(DataError, match=sentence):
            packed_pair_readers(tmp_path / name)


def test_existing_files_are_not_replaced_unasked(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        pack_files(folder, path)
    assert path.read_text() == "precious"
    assert pack_files(folder, path, overwrite=True).photos == len(NAMES)
    with pytest.raises(UsageError, match="made from"):
        pack_files(path, path, overwrite=True)
    other = tmp_path / "weights.safetensors"
    other.write_text("precious")
    with pytest.raises(UsageError, match=r"is no packed file; --overwrite replaces one whose name ends in \.zip"):
        pack_files(folder, other, overwrite=True)
    assert other.read_text() == "precious"


@pytest.mark.parametrize("name", ["pairs.zip", "dark.dng", "bright.png", "photo"])
def test_what_is_packed_is_never_replaced(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "pairs.zip").write_text("dark,bright\ndark.dng,bright.png\n")
    for file in ("dark.dng", "bright.png"):
        (tmp_path / file).write_text("precious")
    target = folder / NAMES[0] if name == "photo" else tmp_path / name
    before = target.read_bytes()
    with pytest.raises(UsageError, match="would replace a file that it is made from"):
        pack_files(folder, target, tmp_path / "pairs.zip", overwrite=True)
    assert target.read_bytes() == before


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_that_are_none_are_refused(tmp_path: Path, limit: float) -> None:
    with pytest.raises(UsageError, match="expected a finite number above 0"):
        pack_files(tmp_path, tmp_path / "set.zip", max_mib=limit)


def test_the_command_says_what_it_packed(folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(pack)
    path = tmp_path / "set.zip"
    result = CliRunner().invoke(app, [str(folder), str(path), "--max-mib", "0.5"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(path)
    assert path.stat().st_size <= 2**19
    assert "held out of training" in result.stderr
    assert "left out to stay within 0.5 MiB" in result.stderr


BLOCKED = ("rawpy", "imagecodecs", "isal", "tifffile", "imageio", "skimage", "typer", "rich", "matplotlib")
TRAINING = """
import sys
from pathlib import Path
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Blocker())
from lowlight.workflows.training.train import load_config, train
print(train(load_config(Path("run.toml"), {{}}), Path("run")))
"""


def test_training_from_a_packed_file_needs_no_raw_library(tmp_path: Path) -> None:
    packed = write_packed(tmp_path, pairs=1)
    values = tiny_values(packed, steps=2, validate_every=1, checkpoint_every=1)
    values["data"]["validation"] = str(packed)
    (tmp_path / "run.toml").write_text(to_toml(values), encoding="utf-8")
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING.format(blocked=BLOCKED)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == Path("run/best.safetensors")
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert log.count('"psnr"') == 2
    assert "validation_error" not in log


@pytest.mark.shared
def test_real_pairs_can_be_packed(shared_data: Path, tmp_path: Path) -> None:
    manifest = shared_data / "sid_pairs" / "pairs.csv"
    lines = manifest.read_text().splitlines()
    short = tmp_path / "pairs.csv"
    columns = lines[0].split(",")
    cells = dict(zip(columns, lines[1].split(","), strict=True))
    for key in ("dark", "bright"):
        cells[key] = str((manifest.parent / cells[key]).resolve())
    short.write_text("\n".join((lines[0], ",".join(cells[key] for key in columns))))
    packed = pack_files(write_photos(tmp_path / "photos"), tmp_path / "set.zip", short)
    assert (packed.photos, packed.pairs) == (2, 1)
    (pair,) = _pairs_of(packed.path)
    assert pair.frame.black == (512.0,) * 4
    assert pair.ratio == float(cells["ratio"])
    assert abs(pair.truth.shape[0] - pair.frame.size[0] // 2) <= 1


def damage(path: Path, found: bytes, *, after: int = 0) -> None:
    """Change one byte some bytes after the first place of `found`."""
    content = bytearray(path.read_bytes())
    content[content.index(found) + after] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        {"mosaic": np.zeros(5, np.uint16)},
        {"mosaic": np.zeros((8, 8), np.float32)},
        {"truth": np.zeros((4, 4), np.uint16)},
        {"truth": np.zeros((0, 4, 3), np.uint16)},
        {"levels": np.full((3, 4), np.nan)},
        {"levels": np.ones((3, 4))},
        {"pattern": np.full((2, 2), 9)},
        {"matrix": np.zeros((9, 9), np.float32)},
        {"about": np.frombuffer(b'{"name": "a", "scene": "", "ratio": 0, "wb_source": "camera"}', np.uint8)},
        {"about": np.frombuffer(9999 * b"[", np.uint8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_pair_of_other_arrays_is_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    path = write_packed(tmp_path, pairs=1)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in members if name.startswith("pairs/"))
    arrays, buffer = dict(np.load(io.BytesIO(members[name]))), io.BytesIO()
    np.savez(buffer, **{**arrays, **change})
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**members, name: buffer.getvalue()}.items():
            archive.writestr(member, content)
    with pytest.raises(DataError, match="is no pair"):
        _pairs_of(path)


def test_a_broken_photo_costs_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_packed(tmp_path, pairs=0)
    second = open_photos(path).names[1]
    good = open_photos(path).bytes_of(second)
    damage(path, good, after=len(good) // 2)
    photos = open_photos(path)
    with pytest.raises(DataError, match=f"{second} in .*set.zip cannot be read"):
        photos.bytes_of(second)
    assert np.array_equal(photos.readable(1), photos[0]) and np.array_equal(photos.readable(1), photos[0])
    assert caplog.text.count("another photo takes its place") == 1
    damage(path, b"PK\x01\x02")
    for read in (open_photos, packed_pair_readers):
        with pytest.raises(DataError, match="is no packed file"):
            read(path)


def test_a_photo_that_vanishes_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    gone = write_photos(tmp_path / "photos", training_names(2))
    photos = open_photos(gone)
    (gone / photos.names[0]).unlink()
    assert np.array_equal(photos.readable(0), photos[1])
    with pytest.raises(DataError, match="cannot be read: No such file"):
        photos.bytes_of(photos.names[0])
    assert photos.digest() != photos.only(photos.names[1:]).digest()


def test_a_packed_file_is_opened_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.zip"
    opened: list[Path] = []
    write_packed_set(path, open_photos(folder), [make_pair()])

    class Counted(zipfile.ZipFile):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            opened.extend(file for file in arguments if isinstance(file, Path))
            super().__init__(*arguments, **named)

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    photos = open_photos(path)
    assert len(photos.digest()) == 16 and photos[0].shape == photos[1].shape
    assert len(opened) == 1
    assert len(_pairs_of(path)) == 1 and len(opened) == 2


@pytest.mark.parametrize("name", ["link.zip", f"{'n' * 245}.zip"])
def test_links_stay_and_long_names_are_written(folder: Path, tmp_path: Path, name: str) -> None:
    real = tmp_path / "real.zip"
    real.touch()
    if name == "link.zip":
        (tmp_path / name).symlink_to(real)
    pack_files(folder, tmp_path / name, overwrite=True)
    assert len(open_photos(tmp_path / name)) == len(NAMES)
    assert (tmp_path / name).is_symlink() == (name == "link.zip") == bool(real.stat().st_size)


def test_photos_of_16_bits_of_gray_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 300 * 280).reshape(300, 280).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    photo = open_photos(tmp_path)[0]
    assert photo.shape == (300, 280, 3) and np.array_equal(photo, np.repeat((gray >> 8)[..., None], 3, axis=2))


def test_photos_are_upright_where_that_is_asked_for(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(300 * 280 * 3, dtype=np.uint8).reshape(300, 280, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    stored = open_photos(tmp_path)[0]
    assert np.array_equal(np.rot90(stored, -1), open_photos(tmp_path, upright=True)[0]) and stored.shape[0] == 300


def test_a_full_disk_is_told_and_what_killed_runs_left_goes(folder: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limit of a file's size")
    target = tmp_path / "set.zip"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".set.zip.{ended.pid}-0123abcd.part"
    left.write_bytes(b"half a file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"set\.zip could not be written: File too large"):
            pack_files(folder, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    assert pack_files(folder, target).photos
