"""The data sets of the FusionVAE paper: masks, noise, frames, and builders for local folders."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_material import COUNTS, write_digit_set
from fusion_material import SMALL_TLESS, write_faces, write_objects
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowlight.core.errors import ConfigError, DataError, LowlightError, UsageError
from lowlight.core.restoration import ModelTraits
from lowlight.data import fusion_source
from lowlight.data.digits import Digits, Split, read_digits
from lowlight.data.draws import stream
from lowlight.data.ellipses import EllipseLaw, ellipse_masks
from lowlight.data.fusion_celeba import (
    FusionCelebaConfig,
    open_fusion_celeba,
    partition,
    prepare_fusion_celeba,
    read_face,
)
from lowlight.data.fusion_digits import FusionDigitsConfig, ShapesConfig, open_fusion_mnist, open_shapes_fusion
from lowlight.data.fusion_source import FusionSource
from lowlight.data.fusion_tless import (
    FusionTlessConfig,
    class_pictures,
    open_fusion_tless,
    place_pictures,
    prepare_fusion_tless,
)
from lowlight.data.object_cutting import object_mask
from lowlight.data.strokes import draw_digits
from lowlight.workflows.training.parts import same_data

CPU = torch.device("cpu")
GRAY32 = ModelTraits(kind="image", in_channels=1, out_channels=1, tile=32, max_frames=3)
GRAY64 = ModelTraits(kind="image", in_channels=1, out_channels=1, tile=64, max_frames=3)
COLOUR64 = ModelTraits(kind="image", in_channels=3, out_channels=3, tile=64, max_frames=3)
MNIST_LAW = EllipseLaw(2, (5, 9))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step_with(source: FusionSource, frames: int) -> int:
    return next(step for step in range(100) if source.frame_count(step) == frames)


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digit_set(tmp_path_factory.mktemp("mnist"))


def open_digits(folder: Path, batch: int = 40, seed: int = 0, **options: object) -> FusionSource:
    return open_fusion_mnist(folder, GRAY32, FusionDigitsConfig(**options), batch, seed, CPU)


# Masks.


def test_one_ellipse_is_the_formula() -> None:
    """A mask is redrawn pixel by pixel from the same numbers, drawn in the documented order."""
    law = EllipseLaw(1, (6, 6))
    mask = ellipse_masks(1, 32, law, seeded(3))[0]
    generator = seeded(3)
    torch.randint(6, 7, (1, 1), generator=generator)
    cu, cv = torch.randint(1, 30, (2, 1, 1), generator=generator).flatten().tolist()
    e = torch.empty(1, 1).uniform_(0.5, 1.5, generator=generator).item()
    expected = [[e * (u - cu) ** 2 + (v - cv) ** 2 / e <= 36 for u in range(32)] for v in range(32)]
    assert torch.equal(mask, torch.tensor(expected))
    assert mask[cv, cu]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31), side=st.integers(8, 70), low=st.integers(0, 6), more=st.integers(0, 8),
    count=st.integers(1, 5),
)  # fmt: skip
def test_masks_are_unions_that_show_something(seed: int, side: int, low: int, more: int, count: int) -> None:
    masks = ellipse_masks(7, side, EllipseLaw(count, (low, low + more)), seeded(seed))
    assert masks.shape == (7, side, side) and masks.dtype == torch.bool
    assert masks.flatten(1).any(1).all()
    # An ellipse's axes lie within r / sqrt(2) and r sqrt(2), so the union cannot be larger than this.
    assert masks.flatten(1).sum(1).max() <= count * (2 * 2**0.5 * (low + more) + 1) ** 2
    assert torch.equal(masks, ellipse_masks(7, side, EllipseLaw(count, (low, low + more)), seeded(seed)))


def test_area_of_masks() -> None:
    """Monte Carlo over the law itself, in numpy, gives the same mean share of visible pixels."""
    masks = ellipse_masks(4000, 32, MNIST_LAW, seeded(1))
    rng = np.random.default_rng(2)
    v, u = np.mgrid[:32, :32]
    shares = []
    for _ in range(2000):
        inside = np.zeros((32, 32), bool)
        for _ in range(2):
            r, (cu, cv), e = rng.integers(5, 10), rng.integers(1, 30, 2), rng.uniform(0.5, 1.5)
            inside |= e * (u - cu) ** 2 + (v - cv) ** 2 / e <= r * r
        shares.append(inside.mean())
    assert abs(masks.float().mean().item() - np.mean(shares)) < 0.006  # 4 standard errors of both
    assert 0.23 < masks.float().mean() < 0.27


def test_a_radius_of_nothing_shows_one_pixel() -> None:
    masks = ellipse_masks(300, 64, EllipseLaw(1, (0, 0)), seeded(5))
    assert (masks.flatten(1).sum(1) == 1).all()
    rows, columns = masks.any(2).int().argmax(1), masks.any(1).int().argmax(1)
    for places in (rows, columns):
        assert places.min() >= 1 and places.max() <= 61


def test_impossible_ellipses_are_refused() -> None:
    with pytest.raises(ConfigError, match="radii 9 to 5"):
        FusionDigitsConfig(radius_px=(9, 5))
    with pytest.raises(ConfigError, match="0 ellipses"):
        FusionCelebaConfig(ellipses=0)


# FusionMNIST.


def test_a_batch_of_digits(digits_folder: Path) -> None:
    source = open_digits(digits_folder)
    batch = source.batch(step_with(source, 3))
    assert batch.target.shape == (40, 1, 32, 32) and batch.frames.shape == (40, 3, 1, 32, 32)
    assert torch.equal(batch.ratio, torch.ones(40, 3))
    assert not batch.target[..., :2].any() and not batch.target[..., -2:, :].any() and batch.target.amax() > 0.5
    for values in (batch.target, batch.frames):
        assert values.dtype == torch.float32 and values.min() >= 0 and values.max() <= 1
    assert source.steps_per_epoch == COUNTS["train"] // 40
    assert source.batch(step_with(source, 0)).frames.shape == (40, 0, 1, 32, 32)


def test_frames_without_noise_are_parts_of_the_target(digits_folder: Path) -> None:
    source = open_digits(digits_folder, noise=0.0)
    batch = source.batch(step_with(source, 2))
    hidden = batch.frames == 0
    assert torch.equal(batch.frames, torch.where(hidden, 0.0, batch.target[:, None].expand_as(batch.frames)))
    assert 0.2 < (hidden & (batch.target[:, None] > 0)).sum() / (batch.target > 0).sum() / 2 < 0.9


def test_noise_has_its_deviation_before_clipping(digits_folder: Path) -> None:
    """Half-gray pictures under a full mask: clipping at 2 deviations leaves a known deviation."""
    source = open_digits(digits_folder, ellipses=1, radius_px=(90, 90))
    gray = torch.full((200, 1, 32, 32), 0.5)
    noise = source.training.frames(gray, 1, seeded(4)) - 0.5
    assert abs(noise.mean()) < 0.002
    inside = noise.abs() < 0.4999
    assert abs(inside.float().mean() - 0.9545) < 0.002
    assert abs(noise[inside].std() - 0.25 * 0.8796) < 0.001  # a normal distribution cut at 2 deviations
    black = source.training.frames(torch.zeros(200, 1, 32, 32), 1, seeded(5))
    assert abs((black == 0).float().mean() - 0.5) < 0.005  # noise lies everywhere, and half of it is negative


def test_the_same_step_gives_the_same_batch_and_another_seed_another(digits_folder: Path) -> None:
    source, again, other = open_digits(digits_folder), open_digits(digits_folder), open_digits(digits_folder, seed=1)
    for step in (30, 2, 9):
        first, second = source.batch(step), again.batch(step)
        assert torch.equal(first.frames, second.frames) and torch.equal(first.target, second.target)
    assert not torch.equal(source.batch(0).target, other.batch(0).target)
    step = step_with(source, 2)
    frames = source.batch(step).frames
    assert not torch.equal(frames[:, 0], frames[:, 1])


def test_an_epoch_shows_every_digit_once(digits_folder: Path) -> None:
    source = open_digits(digits_folder, batch=50)
    shown = torch.cat([source.batch(step).target for step in range(6, 12)])[:, 0, 2:-2, 2:-2]
    rows = Counter(image.numpy().tobytes() for image in shown)
    assert rows == Counter(image.numpy().tobytes() for image in source.training.images)


def test_frame_counts_are_uniform_and_those_of_the_step(digits_folder: Path) -> None:
    source, other = open_digits(digits_folder), open_digits(digits_folder, batch=7)
    counts = [source.frame_count(step) for step in range(800)]
    assert counts == [other.frame_count(step) for step in range(800)]
    for number in range(4):
        assert 150 < counts.count(number) < 250  # 200 expected, 4 deviations are 49
    follows = Counter(pairwise(counts))
    assert len(follows) == 16 and min(follows.values()) > 20  # neighbouring steps are not related


def test_validation_frames_are_fixed_and_nested(digits_folder: Path) -> None:
    pictures = open_digits(digits_folder, seed=0).validation
    assert len(pictures) == COUNTS["t10k"]
    whole = pictures.validation_batch(0, 60, 3)
    other = open_digits(digits_folder, batch=10, seed=9).validation.validation_batch(20, 31, 2)
    assert torch.equal(other.frames, whole.frames[20:51, :2]) and torch.equal(other.target, whole.target[20:51])
    assert pictures.validation_batch(0, 5, 0).frames.shape == (5, 0, 1, 32, 32)
    with pytest.raises(UsageError, match="4 frames were asked for"):
        pictures.validation_batch(0, 5, 4)
    with pytest.raises(UsageError, match="59 to 61"):
        pictures.validation_batch(59, 2, 1)


def test_no_seed_trains_on_the_draws_that_validate(digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even that of the fixed frames, whose draws published scores rest on."""
    drawn: list[int] = []

    def noted(*numbers: int) -> torch.Generator:
        generator = stream(*numbers)
        drawn.append(generator.initial_seed())
        return generator

    monkeypatch.setattr(fusion_source, "stream", noted)
    source = open_digits(digits_folder, seed=fusion_source.FIXED_SEED)
    source.validation.validation_batch(0, 60, 3)
    fixed = {*drawn}
    assert fixed == {stream(42, 31).initial_seed(), stream(42, 33, 0).initial_seed()}
    drawn.clear()
    for step in range(2 * source.steps_per_epoch):
        source.batch(step)
    assert drawn and not fixed & {*drawn}


def test_validation_is_the_same_across_blocks(tmp_path: Path) -> None:
    config = ShapesConfig(digits=10, validation_digits=230)
    pictures = open_shapes_fusion(tmp_path, GRAY32, config, 5, 0, CPU).validation
    whole, part = pictures.validation_batch(0, 230, 3), pictures.validation_batch(95, 110, 3)
    assert torch.equal(part.frames, whole.frames[95:205]) and torch.equal(part.target, whole.target[95:205])
    assert len({image.numpy().tobytes() for image in whole.target}) == 230


def test_what_does_not_fit_is_refused(digits_folder: Path) -> None:
    with pytest.raises(ConfigError, match="32 x 32 with 1 channels; this network takes 64 x 64 with 3"):
        open_fusion_mnist(digits_folder, COLOUR64, FusionDigitsConfig(), 8, 0, CPU)
    with pytest.raises(ConfigError, match="packed RAW"):
        open_fusion_mnist(digits_folder, ModelTraits(), FusionDigitsConfig(), 8, 0, CPU)
    with pytest.raises(DataError, match="a batch of 301"):
        open_digits(digits_folder, batch=301)
    assert len(open_digits(digits_folder, limit=120).training) == 120
    for options in ({"max_frames": -1}, {"noise": -0.1}, {"limit": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            FusionDigitsConfig(**options)


@pytest.mark.shared
def test_real_mnist(shared_data: Path) -> None:
    source = open_fusion_mnist(shared_data / "mnist", GRAY32, FusionDigitsConfig(), 800, 0, CPU)
    assert len(source.training) == 60_000 and len(source.validation) == 10_000 and source.steps_per_epoch == 75
    batch = source.batch(step_with(source, 3))
    assert batch.frames.shape == (800, 3, 1, 32, 32)
    assert abs(batch.target[..., 2:-2, 2:-2].mean() - 0.1307) < 0.006  # MNIST's mean
    # Of 25 % seen pixels the digits' middle has more: about 45 % of the ink.
    ink = batch.target[:, None] * source.training.frames(torch.ones_like(batch.target), 1, seeded(1))
    assert ink.sum() / batch.target.sum() > 0.3
    assert source.describe().items() >= {"name": "fusion-mnist", "images": 60_000, "max_frames": 3}.items()


# ShapesFusion.


def test_drawn_digits_can_be_told_apart() -> None:
    images, labels = draw_digits(700, 28, seeded(1))
    assert images.shape == (700, 1, 28, 28) and images.min() == 0 and images.max() == 1
    assert set(labels.tolist()) == set(range(10))
    assert 0.08 < images.mean() < 0.25
    # The nearest mean of a class: a crude classifier, which drawings of strokes must not defeat.
    means = torch.stack([images[:500][labels[:500] == kind].mean(0) for kind in range(10)])
    found = torch.cdist(images[500:].flatten(1), means.flatten(1)).argmin(1)
    assert (found == labels[500:]).float().mean() > 0.7
    assert images[labels == 4].flatten(1).std(0).max() > 0.2  # no two are alike


def test_shapes_do_not_depend_on_the_run(tmp_path: Path) -> None:
    config = ShapesConfig(digits=30, validation_digits=12)
    first, second = (open_shapes_fusion(tmp_path / "none", GRAY32, config, 10, seed, CPU) for seed in (0, 1))
    assert torch.equal(first.training.images, second.training.images)
    assert len(first.validation) == 12 and first.steps_per_epoch == 3
    assert not torch.equal(first.training.images[:12], first.validation.pictures.images)
    assert first.describe()["name"] == "shapes-fusion"


# FusionCelebA.


def test_faces_are_cropped_reduced_and_masked(tmp_path: Path) -> None:
    folder = write_faces(tmp_path, 12)
    source = open_fusion_celeba(folder, COLOUR64, FusionCelebaConfig(mirror=0.0), 4, 0, CPU)
    assert len(source.training) == 8 and len(source.validation) == 3
    batch = source.batch(step_with(source, 3))
    assert batch.target.shape == (4, 3, 64, 64) and batch.frames.shape == (4, 3, 3, 64, 64)
    blue = batch.target[:, 2] * 255
    assert (blue[:, 2:-2, 2:30] - 100).abs().max() < 8 and (blue[:, 2:-2, 34:-2] - 60).abs().max() < 8
    assert blue.max() < 140  # the white border is cut off, but for what JPEG spreads
    hidden = (batch.frames == 0).all(2, keepdim=True)
    assert torch.equal(batch.frames, torch.where(hidden, 0.0, batch.target[:, None].expand_as(batch.frames)))
    assert 0.7 < hidden.float().mean() < 0.98
    # Validation pictures are those of the list: 9, 10 and 11.
    reds = source.validation.validation_batch(0, 3, 0).target[:, 0, 30, 50] * 255
    assert sorted(reds.round().int().tolist()) == pytest.approx([90, 100, 110], abs=4)


def test_faces_are_mirrored_in_training_alone(tmp_path: Path) -> None:
    source = open_fusion_celeba(write_faces(tmp_path, 12), COLOUR64, FusionCelebaConfig(), 8, 0, CPU)
    targets = torch.cat([source.batch(step).target for step in range(20)])
    mirrored = targets[:, 2, 30, 10] < targets[:, 2, 30, 54]
    assert 0.38 < mirrored.float().mean() < 0.62
    fixed = source.validation.validation_batch(0, 3, 0).target
    assert (fixed[:, 2, 30, 10] > fixed[:, 2, 30, 54]).all()


def test_prepared_faces_are_the_same(tmp_path: Path) -> None:
    folder = write_faces(tmp_path / "celeba", 9, inner="Img/img_align_celeba")
    file = tmp_path / "out" / "celeba.npz"
    assert prepare_fusion_celeba(folder, file) == {"training": 5, "validation": 3}
    assert [path.name for path in file.parent.iterdir()] == ["celeba.npz"]
    direct, packed = (open_fusion_celeba(path, COLOUR64, FusionCelebaConfig(), 2, 3, CPU) for path in (folder, file))
    for step in range(3):
        assert torch.equal(direct.batch(step).target, packed.batch(step).target)
        assert torch.equal(direct.batch(step).frames, packed.batch(step).frames)
    last = (source.validation.validation_batch(0, 3, 3).frames for source in (direct, packed))
    assert torch.equal(*last)
    assert len(open_fusion_celeba(file, COLOUR64, FusionCelebaConfig(limit=4), 2, 3, CPU).training) == 4


def test_faces_without_a_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training, validation = partition(write_faces(tmp_path / "faces", 11, listed=False, inner="."))
    assert [path.name for path in validation] == ["000001.jpg", "000011.jpg"] and len(training) == 9
    assert "every tenth" in caplog.text


def test_listed_faces_must_be_there(tmp_path: Path) -> None:
    folder = write_faces(tmp_path, 12)
    images = folder / "img_align_celeba"
    (images / "000012.jpg").unlink()  # of the test set, which nothing reads
    assert [len(part) for part in partition(folder)] == [8, 3]
    for name in ("000005", "000008", "000010"):
        (images / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match=r"lacks 3 of the pictures that its list names, the first of them 000005\.jpg"):
        partition(folder)
    with pytest.raises(DataError, match=r"lacks 1 .* first of them 000010\.jpg"):
        partition(folder, 4)
    assert [[path.name for path in part] for part in partition(folder, 2, 1)] == [
        ["000001.jpg", "000002.jpg"],
        ["000009.jpg"],
    ]


def test_bad_folders_of_faces(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.jpg files"):
        partition(tmp_path)
    folder = write_faces(tmp_path / "a", 6)
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 7\n")
    with pytest.raises(DataError, match="line 2"):
        partition(folder)
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(DataError, match="1 pictures for training and 0 for validation"):
        partition(folder)
    Image.new("RGB", (178, 200)).save(tmp_path / "short.jpg")
    with pytest.raises(DataError, match="178x200"):
        read_face(tmp_path / "short.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read"):
        read_face(tmp_path / "broken.jpg")
    for name, content in (("missing", None), ("text", b"no zip")):
        if content:
            (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(LowlightError, match=name):
            open_fusion_celeba(tmp_path / f"{name}.npz", COLOUR64, FusionCelebaConfig(), 2, 0, CPU)
    with pytest.raises(DataError, match=r"end in \.npz"):
        prepare_fusion_celeba(write_faces(tmp_path / "b", 6), tmp_path / "faces.zip")


# FusionT-LESS.


@pytest.fixture(scope="module")
def objects_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_objects(tmp_path_factory.mktemp("tless") / "train_primesense").parent


@pytest.fixture(scope="module")
def prepared_objects(objects_folder: Path) -> Path:
    path = objects_folder / "tless.npz"
    found = prepare_fusion_tless(objects_folder, path, FusionTlessConfig(**SMALL_TLESS))
    assert found == {"training": 19, "validation": 3, "training_occluders": 22, "validation_occluders": 11}
    return path


def open_objects(path: Path, **options: object) -> FusionSource:
    return open_fusion_tless(path, GRAY64, FusionTlessConfig(**{**SMALL_TLESS, **options}), 6, 0, CPU)


def test_an_outline_is_filled() -> None:
    rows, columns = np.mgrid[:200, :200] - 100
    disc = np.hypot(rows, columns) <= 50
    mask = object_mask(np.where(disc, 180, 10).astype(np.uint8))
    assert mask is not None and (mask ^ disc).sum() < 0.06 * disc.sum()
    textured = np.where(disc, 120 + 60 * ((rows // 8 + columns // 8) % 2), 0).astype(np.uint8)
    mask = object_mask(textured)
    assert mask is not None and (mask ^ disc).sum() < 0.08 * disc.sum()
    assert object_mask(np.zeros((200, 200), np.uint8)) is None


def test_objects_are_hidden_by_others(prepared_objects: Path) -> None:
    source = open_objects(prepared_objects)
    batch = source.batch(step_with(source, 3))
    assert batch.target.shape == (6, 1, 64, 64) and batch.frames.shape == (6, 3, 1, 64, 64)
    assert batch.frames.min() >= 0 and batch.frames.max() <= 1
    hidden = ((batch.frames - batch.target[:, None]).abs() > 0.02).flatten(2).float().mean(2)
    assert 0.3 < hidden.mean() < 0.9 and hidden.min() > 0.05
    assert torch.equal(batch.frames, open_objects(prepared_objects).batch(step_with(source, 3)).frames)
    assert (source.batch(step_with(source, 0)).frames.shape) == (6, 0, 1, 64, 64)


def test_no_occluders_leave_the_target(prepared_objects: Path) -> None:
    source = open_objects(prepared_objects, occluders=(0, 0))
    batch = source.batch(step_with(source, 2))
    assert torch.equal(batch.frames, batch.target[:, None].expand_as(batch.frames))


def test_training_objects_move_and_validation_ones_do_not(prepared_objects: Path) -> None:
    source = open_objects(prepared_objects)
    assert not torch.equal(source.batch(0).target, source.batch(3).target)
    still = open_objects(prepared_objects, turn_deg=0.0, shift_px=0.0, scale_px=0.0)
    stored = still.training.targets(torch.arange(19))
    moved = still.batch(1).target
    # Nothing but mirroring is left, so each is a stored picture or its mirror image.
    distance = torch.stack([(moved[:, None] - each).abs().amax((2, 3, 4)) for each in (stored, stored.flip(-1))])
    assert distance.amin((0, 2)).max() < 1e-5
    fixed = source.validation.validation_batch(0, 3, 1)
    pictures = source.validation.pictures.targets(torch.arange(3))
    assert {p.numpy().tobytes() for p in fixed.target} == {p.numpy().tobytes() for p in pictures}


def test_a_picture_is_placed_where_it_is_asked() -> None:
    config = FusionTlessConfig(turn_deg=0.0)
    picture = torch.ones(1, 1, 20, 20)
    drawn = place_pictures(picture, torch.tensor([32.0]), torch.tensor([[10.0, -4.0]]), config, seeded(1))[0, 0]
    rows, columns = torch.where(drawn > 0.5)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (12, 44, 26, 58)
    moved = place_pictures(picture, torch.tensor([32.0]), torch.tensor([[0.0, 0.0]]), FusionTlessConfig(), seeded(4))
    assert abs(moved.sum() - 32 * 32) < 45  # turning keeps the area


def test_classes_in_either_layout(tmp_path: Path, objects_folder: Path, prepared_objects: Path) -> None:
    found = class_pictures(objects_folder)
    assert sorted(found) == [1, 2, 3, 19, 20, 25] and len(found[19]) == 11
    plain = write_objects(tmp_path / "bop", each=2, inner=".", digits=6)
    assert sorted(class_pictures(plain)) == [1, 2, 3, 19, 20, 25]
    with pytest.raises(DataError, match=r"class 21, 22, 23, 24"):
        open_objects(plain, classes=(19, 20, 21, 22, 23, 24))
    with pytest.raises(DataError, match="no folders of classes"):
        class_pictures(tmp_path)
    built = open_objects(objects_folder).training.pictures
    assert torch.equal(built, open_objects(prepared_objects).training.pictures)


def test_objects_prepared_with_another_size_are_refused(prepared_objects: Path) -> None:
    with pytest.raises(DataError, match=r"prepared with occluder_px = 50, and 30 is asked for; .*occluder_px=50"):
        open_objects(prepared_objects, occluder_px=30)


def test_impossible_compositions_are_refused() -> None:
    for options in ({"occluders": (8, 5)}, {"occluder_px": 65}, {"scale_px": 50.0}, {"turn_deg": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            FusionTlessConfig(**options)


def test_a_set_is_told_by_its_pictures_and_read_when_it_is_asked_for(
    digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(folder: Path, split: Split) -> Digits:
        read.append(split)
        return read_digits(folder, split)

    monkeypatch.setattr("lowlight.data.fusion_digits.read_digits", counted)
    source = open_digits(digits_folder, seed=0)
    told = source.describe()
    assert read == ["train"] and told["sha256"] == open_digits(digits_folder, seed=1).describe()["sha256"]
    other = write_digit_set(tmp_path / digits_folder.name, packed=False)
    images = other / "train-images-idx3-ubyte"
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    found = open_digits(other, seed=0).describe()
    assert found["sha256"] != told["sha256"] and not same_data(told, found)
    assert len(source.validation) == COUNTS["t10k"] and read[-1] == "validation"
