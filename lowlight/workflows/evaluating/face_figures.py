"""What a pyramid makes of faces, as one sheet: kept, drawn anew from its levels, and without their glasses."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from lowlight.data.faces import Face, FacesConfig, drawn_face
from lowlight.models.lapcvae import LapCvae
from lowlight.ops.gaussian import standard_noise
from lowlight.report.fusion_figures import fusion_sheet
from lowlight.workflows.editing.pictures import draw_noise, reconstruct
from lowlight.workflows.evaluating.face_scores import EDIT_LEVEL, ScoredFaces, take_off_glasses

ROWS, SAMPLES, ZOOM = 6, 2, 2


@torch.no_grad()
def face_figures(
    model: LapCvae, path: Path, options: FacesConfig, title: str, seed: int
) -> dict[str, str | npt.NDArray[np.uint16]]:
    """Draw a sheet of validation faces: the first photographs of `path` where these are asked for, else drawn ones.

    From left to right: the face, its reconstruction, two samples of the whole picture, and one with the latents of
    level k and coarser kept for each k from 2 on. Drawn faces wear glasses, all of them, and their twins without are
    known: there the edit that takes off the glasses follows, and the twin.
    """
    if options.photographs:
        faces = ScoredFaces(path, options, "validation").of_side(model.traits.tile)[:ROWS]
    else:
        faces = [drawn_face(index, model.traits.tile, 1.0, "validation") for index in range(ROWS)]
    return {"sheet": face_sheet(model, faces, seed)}


def face_sheet(model: LapCvae, faces: list[Face], seed: int) -> npt.NDArray[np.uint16]:
    """Lay the columns of `face_figures` side by side, a row for each face; `[H, W, 3]`."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.stack([face.picture for face in faces])
    original = reconstruct(model, pictures)
    columns = [original.image]
    nothing = pictures.new_empty(len(pictures), 0, *pictures.shape[1:])
    for _ in range(SAMPLES):
        noise = tuple(standard_noise(latent.sample, generator) for latent in original.latents)
        columns.append(model.restore(nothing, None, noise).image)
    for level in range(2, len(original.levels) + 1):
        columns.append(model.sample_finer(pictures, level, draw_noise(original.latents, generator)).image)
    twins = [face.twin for face in faces if face.twin is not None]
    masks = [face.mask for face in faces if face.mask is not None]
    if len(twins) == len(masks) == len(faces):
        without = torch.stack(twins)
        if len(original.levels) >= EDIT_LEVEL:
            edited = take_off_glasses(model, pictures, without, torch.stack(masks)[:, None], EDIT_LEVEL)
            columns.append(edited.samples[0])
        columns.append(without)
    shown = torch.stack(columns, dim=1).clamp(0, 1).float().numpy()
    clean = pictures.numpy()
    return fusion_sheet(clean, clean[:, None][:, :0], {0: shown}, zoom=ZOOM)
