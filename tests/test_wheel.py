"""The built wheel: what is in it, and that it works away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lowlight import __version__
from lowlight.data.pictures import read_picture

REPOSITORY = Path(__file__).resolve().parents[1]


def run(*typed: object, **options: object) -> None:
    ended = subprocess.run([sys.executable, *map(str, typed)], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=REPOSITORY)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_the_weights_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"lowlight-{__version__}-py3-none-any.whl"
    files = set(zipfile.ZipFile(wheel).namelist())
    package = [path for path in (REPOSITORY / "lowlight").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    weights = {f"lowlight/weights/{path.name}" for path in (REPOSITORY / "weights").iterdir()}
    folder = REPOSITORY / "examples" / "presets"
    presets = {f"lowlight/presets/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.toml")}
    expected = {path.relative_to(REPOSITORY).as_posix() for path in package} | weights | presets
    info = f"lowlight-{__version__}.dist-info/"
    assert {name for name in files if not name.startswith(info)} == expected
    assert f"{info}licenses/LICENSE" in files and f"{info}entry_points.txt" in files


def test_an_installed_wheel_enhances_a_photo(wheel: Path, dark_dng: Path, tiny_weights: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOWLIGHT_")}
    environment |= {"PYTHONPATH": str(site), "LOWLIGHT_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    code = "import lowlight, sys; sys.exit(lowlight.__file__ != sys.argv[1])"
    run("-c", code, site / "lowlight" / "__init__.py", cwd=elsewhere, env=environment)
    shipped = list((REPOSITORY / "weights").glob("*.safetensors"))
    more = () if shipped else ("--weights", tiny_weights)  # the shipped ones are found without being named
    run("-m", "lowlight", "enhance", dark_dng, "-o", elsewhere / "out", *more, cwd=elsewhere, env=environment)
    assert read_picture(elsewhere / "out" / "dark.png").shape == (176, 120, 3)
    names = "import lowlight.workflows.training.presets as p; print(p.find_preset('thesis/sid-net'))"
    found = subprocess.run(
        [sys.executable, "-c", names], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert Path(found) == site / "lowlight" / "presets" / "thesis" / "sid-net.toml"
