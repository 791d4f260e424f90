"""The synthetic CFA DNG: what is written is what the RAW reader gets."""

from pathlib import Path

import numpy as np
import pytest

from lowlight.core.photo import BGGR, GBRG, GRBG, RGGB, CfaPattern
from lowlight.raw.read import read_raw
from lowlight.writers.cfa_dng import write_cfa_dng

SONY_XYZ = np.array([[0.5838, -0.143, -0.0246], [-0.3497, 1.1477, 0.2297], [-0.0748, 0.1885, 0.5778]])


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, 9000, (height, width)).astype(np.uint16)


def test_large_black_levels_keep_what_fits_their_fractions(tmp_path: Path) -> None:
    path = tmp_path / "dark.dng"
    write_cfa_dng(path, noise(64, 64), pattern=RGGB, black=(4800.123457,) * 4, white=15871, wb=(2, 1, 1.5, 1))
    assert read_raw(path).black == pytest.approx((4800.123457,) * 4, abs=1e-4)


@pytest.mark.parametrize("pattern", [RGGB, GRBG, GBRG, BGGR])
@pytest.mark.parametrize("size", [(64, 96), (63, 96), (64, 97), (65, 99)])
def test_round_trip_for_every_phase_and_parity(tmp_path: Path, pattern: CfaPattern, size: tuple[int, int]) -> None:
    mosaic = noise(*size)
    path = tmp_path / "dark.dng"
    write_cfa_dng(
        path,
        mosaic,
        pattern=pattern,
        black=(500, 512, 530, 520),
        white=15871,
        wb=(2.125, 1.0, 1.6, 1.0),
        xyz_to_camera=SONY_XYZ,
        exposure_s=1 / 30,
        iso=3200,
        aperture=2.8,
        orientation=6,
        make="Made",
        model="Up",
    )
    frame = read_raw(path)
    np.testing.assert_array_equal(frame.mosaic, mosaic)
    assert frame.size == size
    assert frame.pattern == pattern
    assert frame.black == (500, 512, 530, 520)
    assert frame.black_source == "file"
    assert frame.white == (15871,) * 4
    assert frame.wb == pytest.approx((2.125, 1, 1.6, 1), rel=1e-5)
    assert frame.wb_source == "camera"
    assert frame.orientation == 6
    assert frame.metadata.exposure_s == pytest.approx(1 / 30, rel=1e-5)
    assert frame.metadata.iso == 3200
    assert frame.metadata.aperture == pytest.approx(2.8)
    assert frame.metadata.camera == "Made Up"
    assert frame.notes == ()
    from_srgb = SONY_XYZ @ np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.072175],
            [0.0193339, 0.119192, 0.9503041],
        ]
    )
    expected = np.linalg.inv(from_srgb / from_srgb.sum(axis=1, keepdims=True))
    assert frame.camera_to_srgb is not None
    np.testing.assert_allclose(frame.camera_to_srgb, expected, atol=2e-4)
    np.testing.assert_allclose(frame.camera_to_srgb.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_survives(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.dng"
    write_cfa_dng(
        path,
        noise(64, 80),
        pattern=RGGB,
        black=(500,) * 4,
        white=9000,
        wb=(2, 1, 2, 1),
        orientation=orientation,
    )
    assert read_raw(path).orientation == orientation


@pytest.mark.parametrize(("iso", "exposure_s"), [(409600, 30.0), (50, 1 / 8000), (65535, 0.1)])
def test_extreme_exposures_survive(tmp_path: Path, iso: float, exposure_s: float) -> None:
    path = tmp_path / "exposed.dng"
    write_cfa_dng(
        path,
        noise(64, 64),
        pattern=RGGB,
        black=(500,) * 4,
        white=9000,
        wb=(2, 1, 2, 1),
        iso=iso,
        exposure_s=exposure_s,
    )
    metadata = read_raw(path).metadata
    assert metadata.iso == iso
    assert metadata.exposure_s == pytest.approx(exposure_s, rel=1e-5)


def test_unknown_values_stay_unknown(tmp_path: Path) -> None:
    path = tmp_path / "bare.dng"
    write_cfa_dng(path, noise(64, 64), pattern=RGGB, black=(500,) * 4, white=9000, wb=(2, 1, 1.5, 1))
    frame = read_raw(path)
    assert frame.camera_to_srgb is None
    assert any("colour matrix" in note for note in frame.notes)
    assert (frame.metadata.exposure_s, frame.metadata.iso, frame.metadata.aperture) == (None, None, None)
    assert (frame.metadata.taken_at, frame.metadata.gps, frame.metadata.lens) == (None, None, None)


def test_the_same_arguments_give_the_same_bytes_and_leave_no_other_file(tmp_path: Path) -> None:
    for name in ("a.dng", "b.dng"):
        write_cfa_dng(tmp_path / name, noise(64, 64), pattern=BGGR, black=(500,) * 4, white=9000, wb=(2, 1, 2, 1))
    assert (tmp_path / "a.dng").read_bytes() == (tmp_path / "b.dng").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.dng", "b.dng"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mosaic": np.zeros((4, 4), np.float32)},
        {"mosaic": np.zeros((4, 4, 3), np.uint16)},
        {"pattern": ((0, 0), (1, 1))},
        {"orientation": 9},
        {"wb": (0, 1, 1, 1)},
        {"black": (9000,) * 4},
    ],
)
def test_impossible_arguments_are_refused_and_write_nothing(tmp_path: Path, wrong: dict[str, object]) -> None:
    arguments = {
        "mosaic": noise(64, 64),
        "pattern": RGGB,
        "black": (500,) * 4,
        "white": 9000,
        "wb": (2, 1, 2, 1),
        **wrong,
    }
    with pytest.raises(ValueError):
        write_cfa_dng(tmp_path / "wrong.dng", **arguments)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())
