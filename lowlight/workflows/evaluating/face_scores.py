"""How well a pyramid, or the plain VAE beside it, keeps faces, and how well it takes glasses off them.

Source of the reconstruction score: G. Dorta et al., Laplacian Pyramid of Conditional Variational Autoencoders, CVMP
2017 (root mean squared error of each picture over pixels and channels, 0 to 255; published for 64 x 64: 20.60 +- 4.81
against 22.78 +- 4.64 of the plain VAE, on photographs). The edit is scored on drawn faces, whose twins are known.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.errors import DataError
from lowlight.data.faces import Face, FacesConfig, Split, drawn_face, read_faces
from lowlight.ops.pyramid import down
from lowlight.workflows.editing.pictures import Edit, PaintableModel, edit, reconstruct

BATCH = 64
EDIT_LEVEL = 2  # at which glasses are taken off
MOST_FACES = 200  # that are looked at


class ScoredFaces:
    """The first faces of a split; they are drawn or read at the side a model takes, once it is known."""

    def __init__(self, path: Path, options: FacesConfig, split: Split) -> None:
        if path.is_file() and not options.photographs:
            raise DataError(
                f"{path} is a file, and these networks are scored on drawn faces, which need none; give . instead"
            )
        self.path, self.options, self.split = path, options, split
        known = len(read_faces(path, 1, split)[1]) if options.photographs else MOST_FACES
        self.count = min(known, MOST_FACES)
        self._kept: tuple[int, list[Face]] | None = None

    def __len__(self) -> int:
        """How many faces there are."""
        return self.count

    def of_side(self, side_px: int) -> list[Face]:
        """The faces as pictures of a side."""
        if self._kept is None or self._kept[0] != side_px:
            if self.options.photographs:
                read, _ = read_faces(self.path, side_px, self.split)
                faces = [read(index) for index in range(self.count)]
            else:
                share = self.options.glasses_share
                faces = [drawn_face(index, side_px, share, self.split) for index in range(self.count)]
            self._kept = (side_px, faces)
        return self._kept[1]


def score_opened_faces(model: PaintableModel, faces: ScoredFaces, device: torch.device, seed: int) -> dict[str, float]:
    """Score a model on a device as `score_faces` does, on faces of its size; nothing is drawn, so no seed matters."""
    return score_faces(model, faces.of_side(model.traits.tile), device=device)


def drawn_faces(count: int, side_px: int, glasses_share: float = 0.4) -> list[Face]:
    """The validation faces 0 to `count` - 1."""
    return [drawn_face(index, side_px, glasses_share, "validation") for index in range(count)]


@torch.no_grad()
def score_faces(
    model: PaintableModel,
    faces: list[Face],
    *,
    level: int = EDIT_LEVEL,
    device: torch.device | None = None,
) -> dict[str, float]:
    """Score reconstructions of faces, and edits of those with glasses at a `level` of the pyramid.

    Given are `rmse_mean`, `rmse_std` and `faces`, and `rmse_level_2` to `rmse_level_K`, the mean RMSE of the coarser
    pictures of a reconstruction to those of the face (level 1 is the face itself). Where a face wears glasses and the
    model has the level, there are the means of the RMSE (0 to 255) to the twin inside the mask before
    (`glasses_before`: the reconstruction) and after the edit (`glasses_after`), to the twin outside the mask before and
    after, and the largest change of any value outside the blend (`change_outside`, 0 to 1).
    """
    if not faces:
        raise DataError("there are no faces to score; give at least one")
    pictures = torch.stack([face.picture for face in faces]).to(device)
    errors = torch.cat([_level_errors(model, some) for some in torch.split(pictures, BATCH)], dim=1)
    scores = {
        "faces": float(len(faces)),
        "rmse_mean": float(errors[0].mean()),
        "rmse_std": float(errors[0].std(correction=0)),
    }
    scores |= {f"rmse_level_{place}": float(error.mean()) for place, error in enumerate(errors[1:], 2)}
    wearing = [face for face in faces if face.mask is not None and bool(face.mask.any())]
    if not wearing or len(model.traits.latents) < level:
        return scores
    rows = []
    for i in range(0, len(wearing), BATCH):
        picture, twin, mask = (one.to(device) for one in _stacked(wearing[i : i + BATCH]))
        rows.append(score_edit(model, picture, twin, mask, level))
    for name in rows[0]:
        values = torch.cat([row[name] for row in rows])
        scores[name] = float(values.max() if name == "change_outside" else values.mean())
    return {**scores, "edited": float(len(wearing))}


def _level_errors(model: PaintableModel, pictures: Tensor) -> Tensor:
    """RMSE (0 to 255) of the reconstructions of `[B, 3, n, n]` at each level, finest first, `[K, B]`."""
    shown, true = reconstruct(model, pictures).levels, model.pictures(pictures)
    return torch.stack([rmse(ours.clamp(0, 1), theirs) for ours, theirs in zip(shown, true, strict=True)])


def take_off_glasses(model: PaintableModel, picture: Tensor, twin: Tensor, mask: Tensor, level: int) -> Edit:
    """Edit pictures `[B, 3, n, n]` with glasses where their mask `[B, 1, n, n]` (bool) is, at a level.

    What is painted is what a careful user would: the coarse picture of the `twin` without glasses.
    """
    original = reconstruct(model, picture)
    region = F.max_pool2d(mask.float(), 1 << (level - 1)) > 0
    for _ in range(level - 1):
        twin = down(twin)
    painted = torch.where(region, twin, original.levels[level - 1])
    return edit(model, original, painted, level, region=region)


def score_edit(model: PaintableModel, picture: Tensor, twin: Tensor, mask: Tensor, level: int) -> dict[str, Tensor]:
    """Scores `[B]` of `take_off_glasses`."""
    edited = take_off_glasses(model, picture, twin, mask, level)
    (after,), before = edited.samples, edited.reconstruction
    untouched = (edited.mask == 0).expand_as(before)
    return {
        "glasses_before": rmse(before.clamp(0, 1), twin, mask),
        "glasses_after": rmse(after.clamp(0, 1), twin, mask),
        "outside_before": rmse(before.clamp(0, 1), twin, ~mask),
        "outside_after": rmse(after.clamp(0, 1), twin, ~mask),
        "change_outside": ((after - before).abs() * untouched).flatten(1).amax(1),
    }


def rmse(image: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Root mean squared error of each of `[B, C, H, W]`, times 255, over a mask `[B, 1, H, W]` (bool) where given."""
    squares = (image - target).square()
    if mask is None:
        return 255 * squares.flatten(1).mean(1).sqrt()
    inside = mask.expand_as(squares).float()
    return 255 * ((squares * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)).sqrt()


def _stacked(faces: list[Face]) -> tuple[Tensor, Tensor, Tensor]:
    twins = [face.twin for face in faces if face.twin is not None]
    masks = [face.mask[None] for face in faces if face.mask is not None]
    return torch.stack([face.picture for face in faces]), torch.stack(twins), torch.stack(masks)


__all__ = ["ScoredFaces", "drawn_faces", "rmse", "score_edit", "score_faces", "score_opened_faces", "take_off_glasses"]
