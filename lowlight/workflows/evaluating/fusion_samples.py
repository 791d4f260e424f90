"""Figures of hypotheses: a network's samples for validation pictures and several numbers of frames."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from lowlight.core.restoration import HierarchicalModel
from lowlight.data.fusion_source import FixedFrames
from lowlight.report.fusion_figures import fusion_sheet
from lowlight.workflows.evaluating.fusion_scores import evaluating, prior_noise, seeded_generator

_FIGURE_STREAM = 53


def samples_sheet(
    model: HierarchicalModel,
    pictures: FixedFrames,
    *,
    items: int = 6,
    samples: int = 6,
    frames: Sequence[int] = (0, 1, 2, 3),
    first: int = 0,
    seed: int = 0,
    zoom: int = 2,
) -> npt.NDArray[np.uint16]:
    """Draw the samples of `items` pictures, for each number of frames a group of rows: `[H, W, C]`, 65535 = white.

    A row has the frames, the truth and the samples of the prior path. A model without latents has one output. The
    noise of a picture's sample is the same for every number of frames.
    """
    found = {}
    with evaluating(model) as device:
        for number in frames:
            batch = pictures.validation_batch(first, items, number).to(device)
            generator = seeded_generator(device, seed, _FIGURE_STREAM)
            images = []
            for _ in range(samples if model.traits.latents else 1):
                noise = prior_noise(model.traits, batch.target, generator)
                images.append(model.restore(batch.frames, base=batch.base, noise=noise).image)
            found[number] = torch.stack(images, 1).float().cpu().numpy()
    widest = pictures.validation_batch(first, items, max(frames, default=0))
    return fusion_sheet(widest.target.cpu().numpy(), widest.frames.cpu().numpy(), found, zoom=zoom)
