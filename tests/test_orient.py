"""Turning pictures upright, and windows of upright pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lowlight.ops.orient import turn_upright, upright_size, window_on_sensor

ORIENTATIONS = range(1, 9)


def numbered(rows: int, cols: int) -> np.ndarray:
    return np.arange(rows * cols, dtype=np.uint16).reshape(rows, cols, 1)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turns_as_pillow_does(orientation: int) -> None:
    picture = np.repeat(numbered(5, 7).astype(np.uint8), 3, axis=2)
    image = Image.fromarray(picture)
    image.getexif()[274] = orientation
    turned = turn_upright(picture.astype(np.uint16), orientation)
    np.testing.assert_array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))
    assert turned.flags.c_contiguous and turned.shape[:2] == upright_size((5, 7), orientation)


@given(st.data(), st.sampled_from(ORIENTATIONS), st.integers(1, 12), st.integers(1, 12))
def test_a_window_of_the_upright_picture_is_found_on_the_sensor(
    data: st.DataObject, orientation: int, rows: int, cols: int
) -> None:
    upright = turn_upright(numbered(rows, cols), orientation)
    height, width = upright.shape[:2]
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    left, top, wide, high = window_on_sensor((x, y, w, h), (rows, cols), orientation)
    cut = numbered(rows, cols)[top : top + high, left : left + wide]
    np.testing.assert_array_equal(turn_upright(cut, orientation), upright[y : y + h, x : x + w])
