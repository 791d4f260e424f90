"""Faces: drawn ones that come out the same each time, whose glasses are known, and photographs from a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lapcvae_material import faces_model
from PIL import Image
from torch.nn.functional import avg_pool2d

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.restoration import ModelTraits
from lowlight.data.faces import (
    FacesConfig,
    FaceSource,
    centre_square,
    drawn_face,
    face_batch,
    open_faces,
    read_faces,
)
from lowlight.workflows.editing.pictures import reconstruct
from lowlight.workflows.evaluating.face_scores import MOST_FACES, ScoredFaces
from lowlight.workflows.evaluating.scorers import find_scorer

TRAITS = ModelTraits(kind="image", in_channels=3, max_frames=0, tile=32)
CPU = torch.device("cpu")


def test_a_number_gives_a_face() -> None:
    first, again, held_out = drawn_face(3, 32), drawn_face(3, 32), drawn_face(3, 32, split="validation")
    assert torch.equal(first.picture, again.picture)
    assert not torch.equal(first.picture, held_out.picture)
    assert first.picture.shape == (3, 32, 32) and first.picture.dtype == torch.float32
    assert first.picture.min() >= 0 and first.picture.max() <= 1 and first.picture.std() > 0.1


def test_the_twin_differs_where_the_glasses_are_and_nowhere_else() -> None:
    for index in range(4):
        face = drawn_face(index, 64, glasses_share=1.0)
        assert face.mask is not None and face.twin is not None
        assert 0.02 < face.mask.float().mean() < 0.25
        rows = face.mask.any(1).nonzero().flatten()
        assert rows.min() > 12 and rows.max() < 48  # about the eyes
        difference = (face.picture - face.twin).abs().amax(0)
        assert difference[~face.mask].max() <= 1 / 255
        assert difference[face.mask].mean() > 0.05


def test_faces_without_glasses_are_their_own_twins() -> None:
    face = drawn_face(0, 32, glasses_share=0.0)
    assert face.mask is not None and not face.mask.any() and face.twin is face.picture


def test_some_faces_wear_glasses() -> None:
    wearing = sum(bool(drawn_face(index, 16).mask.any()) for index in range(40))  # type: ignore[union-attr]
    assert 6 < wearing < 28


def test_batches_show_every_face_once_an_epoch() -> None:
    source = open_faces(Path("unused"), TRAITS, FacesConfig(count=6), 2, seed=1, device=CPU)
    assert source.steps_per_epoch == 3 and source.describe()["drawn"] == 6
    epoch = torch.cat([source.batch(step).target for step in range(3)])
    assert len({tuple(face.flatten().tolist()) for face in epoch}) == 6
    again = open_faces(Path("unused"), TRAITS, FacesConfig(count=6), 2, seed=1, device=CPU)
    assert torch.equal(again.batch(1).target, epoch[2:4])
    assert torch.equal(source.batch(1).target, epoch[2:4])
    batch = source.batch(4)
    assert batch.frames.shape == (2, 0, 3, 32, 32) and batch.ratio.shape == (2, 0)
    assert not torch.equal(batch.target, epoch[2:4])


def test_photographs_are_cropped_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = (250, 120, 10)
    assert torch.allclose(centre_square(pixels, 8)[:, 4, 4] * 255, torch.tensor([250.0, 120.0, 10.0]), atol=0.1)
    for number in range(64):
        Image.fromarray(pixels + np.uint8(number % 5)).save(tmp_path / f"face{number}.png")
    faces, photos = read_faces(tmp_path, 16)
    _, held_out = read_faces(tmp_path, 16, "validation")
    assert len(photos) + len(held_out) == 64 and len(held_out) >= 1
    assert faces(0).picture.shape == (3, 16, 16) and faces(0).twin is None
    source = open_faces(tmp_path, TRAITS, FacesConfig(photographs=True), 4, seed=0, device=CPU)
    assert source.batch(0).target.shape == (4, 3, 32, 32)
    assert source.describe() == {
        "name": "faces",
        "photos": len(photos),
        "side_px": 32,
        "photo_hash": photos.digest(),
    }


def test_what_faces_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reads 1 frames"):
        open_faces(tmp_path, ModelTraits(), FacesConfig(), 2, 0, CPU)
    with pytest.raises(ConfigError, match="glasses_share"):
        FacesConfig(glasses_share=1.5)
    with pytest.raises(DataError, match="from 3 faces"):
        FaceSource(lambda index: drawn_face(index, 16), 3, {}, 4, 0, CPU)
    assert face_batch(torch.zeros(2, 3, 8, 8)).base is None


def test_faces_are_scored_and_shown_by_the_table(tmp_path: Path) -> None:
    scorer = find_scorer("faces")
    opened = scorer.open(tmp_path, FacesConfig(count=5), "validation")
    assert len(opened) == MOST_FACES
    opened.count = 12
    model = faces_model().eval()
    scores = scorer.score(model, opened, CPU, 0)
    assert scores["faces"] == 12 and scorer.decisive(scores) == "rmse_mean" and not scorer.highest
    assert scores["edited"] > 0 and scores["change_outside"] == 0
    assert scores == scorer.score(model, opened, CPU, 0)
    pictures = torch.stack([face.picture for face in opened.of_side(32)])
    with torch.no_grad():
        coarse = reconstruct(model, pictures).levels[1].clamp(0, 1)
    error = 255 * (coarse - avg_pool2d(pictures, 2)).square().flatten(1).mean(1).sqrt()
    assert scores["rmse_level_2"] == pytest.approx(float(error.mean()), rel=1e-5)
    assert "rmse_level_3" in scores and "rmse_level_4" not in scores
    assert scorer.figures is not None
    sheet = scorer.figures(model, tmp_path, FacesConfig(), "faces", 0)["sheet"]
    # The face, its reconstruction, two samples, one with level 2 kept, the edit and the twin, six times.
    assert isinstance(sheet, np.ndarray) and sheet.shape[2] == 3
    assert sheet.shape[1] > 7 * 64 and 6 * 64 <= sheet.shape[0] < 7 * 64


def test_photographs_are_scored_by_their_held_out_ones(tmp_path: Path) -> None:
    for index in range(64):
        Image.new("RGB", (40, 30), (3 * index, 90, 120)).save(tmp_path / f"{index:02}.png")
    options = FacesConfig(photographs=True)
    held_out, train = (ScoredFaces(tmp_path, options, split) for split in ("validation", "train"))
    assert len(held_out) + len(train) == 64 and 0 < len(held_out) < 16
    assert [face.picture.shape for face in held_out.of_side(16)] == [(3, 16, 16)] * len(held_out)
    with pytest.raises(DataError, match=r"none|photos"):
        ScoredFaces(tmp_path / "none", options, "validation")
    model, figures = faces_model().eval(), find_scorer("faces").figures
    assert figures is not None
    sheet = figures(model, tmp_path, options, "faces", 0)["sheet"]
    assert isinstance(sheet, np.ndarray)
    # The photographs themselves are on it, and no column of twins, which photographs do not have.
    first = (held_out.of_side(32)[0].picture[:, 16, 16] * 65535).round()
    assert (np.abs(sheet.astype(float) - first.numpy()).max(2) <= 1).sum() >= 32 * 32
    assert sheet.shape[1] < figures(model, tmp_path, FacesConfig(), "faces", 0)["sheet"].shape[1]  # type: ignore[union-attr]


def test_one_bad_photograph_ends_no_training(tmp_path: Path) -> None:
    for number in range(40):
        Image.new("RGB", (40, 40), (number, 90, 30)).save(tmp_path / f"face{number}.png")
    names = open_faces(tmp_path, TRAITS, FacesConfig(photographs=True), 4, seed=0, device=CPU).about
    _, photos = read_faces(tmp_path, 16)
    (tmp_path / photos.names[3]).write_bytes(b"no picture")
    source = open_faces(tmp_path, TRAITS, FacesConfig(photographs=True), 4, seed=0, device=CPU)
    assert source.about["photo_hash"] != names["photo_hash"]
    for step in range(source.steps_per_epoch):
        assert source.batch(step).target.shape == (4, 3, 32, 32)
