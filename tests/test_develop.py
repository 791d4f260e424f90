"""From camera colour to the finished picture, and LibRaw's own rendering of the same."""

from pathlib import Path

import numpy as np
import pytest
import rawpy
import torch

from lowlight.ops.color import apply_matrix, decode, encode
from lowlight.raw.develop import develop, to_encoded, to_linear

MATRIX = np.array([[1.8, -0.6, -0.2], [-0.3, 1.6, -0.3], [0.1, -0.7, 1.6]], dtype=np.float32)


def test_every_value_survives_the_way_to_linear_light_and_back() -> None:
    values = np.arange(65536, dtype=np.uint16)
    back = to_encoded(to_linear(values))
    assert np.abs(back.astype(int) - values).max() <= 1
    assert (np.diff(to_linear(values)) > 0).all()
    assert (back[0], back[-1]) == (0, 65535)


def test_encoding_rounds_to_the_nearest_and_clips() -> None:
    linear = np.random.default_rng(0).random((50, 60, 3), dtype=np.float32) ** 4
    exact = encode(torch.from_numpy(linear).double()).numpy() * 65535
    assert np.abs(to_encoded(linear) - exact).max() < 0.5 + 0.6  # half a step of the table, in the steep toe
    assert to_encoded(np.array([-1.0, 2.0], dtype=np.float32)).tolist() == [0, 65535]


def test_develop_is_the_curve_undone_the_matrix_and_the_curve() -> None:
    camera = np.random.default_rng(1).integers(0, 65536, (40, 50, 3)).astype(np.uint16)
    kept = camera.copy()
    linear = decode(torch.from_numpy(camera.astype(np.float64) / 65535)).permute(2, 0, 1)
    expected = encode(apply_matrix(linear, torch.from_numpy(MATRIX).double()).clamp(0, 1)).permute(1, 2, 0)
    ours = develop(camera, MATRIX)
    assert ours.dtype == np.uint16 and ours.shape == camera.shape
    assert np.abs(ours - expected.numpy() * 65535).max() < 1.2
    np.testing.assert_array_equal(camera, kept)


def test_white_and_gray_stay_neutral() -> None:
    gray = np.repeat(np.linspace(0, 65535, 257).astype(np.uint16), 3).reshape(1, -1, 3)
    ours = develop(gray, MATRIX).astype(int)
    assert np.abs(ours - gray).max() <= 1
    assert (ours[0, 0] == 0).all()
    assert (ours[0, -1] == 65535).all()


def test_without_a_matrix_colours_stay() -> None:
    camera = np.random.default_rng(1).integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    np.testing.assert_array_equal(develop(camera, None), camera)


@pytest.mark.shared
def test_the_curve_is_the_one_libraw_renders_with(shared_data: Path) -> None:
    options = {
        "output_bps": 16,
        "no_auto_bright": True,
        "half_size": True,
        "use_camera_wb": True,
        "user_flip": 0,
    }
    with rawpy.imread(str(shared_data / "raw" / "nikon_rose_768x512_14bit_rggb.dng")) as raw:
        linear = raw.postprocess(gamma=(1, 1), **options)
        rendered = raw.postprocess(**options)
    assert rendered.std() > 1000
    ours = to_encoded(linear.astype(np.float32) / 65535)
    # LibRaw rounds in a table of its own. A power of 0.45 would be 0.6 away on average.
    difference = np.abs(ours.astype(int) - rendered)
    assert difference.max() <= 2
    assert difference.mean() < 0.3
