"""LibRaw's half-size renderings, the ground truths of pairs whose bright frame is a RAW."""

from pathlib import Path

import numpy as np
import pytest
import rawpy

from lowlight.core.errors import BrokenFileError, LowlightError, UnsupportedRawError
from lowlight.core.photo import BGGR, RGGB, CfaPattern
from lowlight.raw.read import read_raw
from lowlight.raw.render import libraw_version, render_full_size, render_half_size
from lowlight.writers.cfa_dng import write_cfa_dng

BLACK, WHITE = 512, 16383


def write_raw(path: Path, size: tuple[int, int], pattern: CfaPattern = RGGB, **more: object) -> Path:
    """A RAW whose red, green and blue sites all see the same light, but the lower half sees a quarter of it."""
    light = np.full(size, 8000, dtype=np.uint16)
    light[size[0] // 2 :] = 2000
    write_cfa_dng(
        path,
        light + np.uint16(BLACK),
        pattern=pattern,
        black=(BLACK,) * 4,
        white=WHITE,
        wb=(1.0, 1.0, 1.0, 1.0),
        **more,  # type: ignore[arg-type]
    )
    return path


@pytest.mark.parametrize("pattern", [RGGB, BGGR])
@pytest.mark.parametrize(("size", "expected"), [((64, 96), (32, 48)), ((63, 95), (32, 48))])
def test_half_size_rounds_up_and_knows_the_exposure(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int], pattern: CfaPattern
) -> None:
    pixels, exposure_s = render_half_size(write_raw(tmp_path / "a.dng", size, pattern, exposure_s=0.04))
    assert pixels.shape == (*expected, 3) and pixels.dtype == np.uint16
    assert exposure_s == 0.04


def test_brightness_is_not_automatic(tmp_path: Path) -> None:
    pixels, _ = render_half_size(write_raw(tmp_path / "a.dng", (64, 96)))
    linear = 8000 / (WHITE - BLACK)
    expected = 65535 * (1.099 * linear**0.45 - 0.099)  # LibRaw's curve above its toe
    assert pixels[4:12, 4:-4].mean() == pytest.approx(expected, rel=0.01)
    assert pixels[4:12].mean() > 1.7 * pixels[-12:-4].mean()


def test_orientation_is_not_applied(tmp_path: Path) -> None:
    pixels, _ = render_half_size(write_raw(tmp_path / "a.dng", (64, 96), orientation=6))
    assert pixels.shape[:2] == (32, 48)


def test_no_exposure_time_is_none(tmp_path: Path) -> None:
    assert render_half_size(write_raw(tmp_path / "a.dng", (32, 32)))[1] is None


@pytest.mark.parametrize("content", [None, b"", b"no RAW at all" * 50])
def test_bad_files_are_sentences(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bright.dng"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LowlightError, match=r"bright\.dng .+"):
        render_half_size(path)


def test_truncated_raw_is_a_sentence(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "cut.dng", (64, 96))
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(BrokenFileError, match=r"cut\.dng"):
        render_half_size(path)


def test_version_has_three_parts() -> None:
    assert libraw_version() == ".".join(map(str, rawpy.libraw_version))


@pytest.mark.shared
def test_real_files(shared_data: Path) -> None:
    pixels, exposure_s = render_half_size(shared_data / "raw" / "canon_eos_d30_tree_iso100_5s.CRW")
    assert pixels.shape == (724, 1088, 3) and exposure_s == pytest.approx(5, rel=0.02)
    with pytest.raises(UnsupportedRawError, match="canon_eos_6d"):
        render_half_size(shared_data / "raw_negative" / "canon_eos_6d_linear_lossy.dng")


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["canon_g1_cmyg_mosaic_iso200_8s.CRW", "canon_eos_6d_linear_lossy.dng", "nikon_d70s_truncated.nef"]
)
def test_bright_frames_are_refused_with_the_sentences_of_dark_ones(shared_data: Path, name: str) -> None:
    said = set()
    for read in (read_raw, render_half_size, render_full_size):
        with pytest.raises(LowlightError) as error:
            read(shared_data / "raw_negative" / name)
        said.add(str(error.value))
    assert len(said) == 1
