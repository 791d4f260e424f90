"""What a run is validated on: real pairs through the restorer, or pictures by their dataset's scorer."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from lowlight.core.config import from_dict
from lowlight.core.errors import DataError
from lowlight.data import DATASETS
from lowlight.data.pairs import Pair, list_sha256, pair_hashes
from lowlight.raw.levels import named_levels
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.evaluating.patch_scores import chosen, mean_patches, score_patch
from lowlight.workflows.evaluating.scorers import SCORERS, Scorer
from lowlight.workflows.evaluating.validation import mean_scores, score_pair
from lowlight.workflows.stopping import StopFlag
from lowlight.workflows.training.config import TrainConfig
from lowlight.workflows.training.parts import open_validation, own_validation

logger = logging.getLogger(__name__)

Scores = dict[str, float]
Scored = tuple[Scores, dict[str, Any]] | None  # the scores, and what identifies the things that were scored
VALIDATION_SEED = 0  # of whatever scores draw


class Validation(Protocol):
    """Scores a network; its length is the number of things it looks at, 0 where there are none."""

    noun: str  # of those things
    highest: bool  # whether larger is better

    def __len__(self) -> int:
        """How many things are scored."""
        ...

    def decisive(self, scores: Scores) -> str | None:
        """Name the number that decides which weights are the best, None where the scores do not have it."""
        ...

    def score(self, network: nn.Module, device: torch.device, stopped: StopFlag) -> Scored:
        """Give the scores; None where a signal came in between.

        The network is taken for good: it may be moved and converted.
        """
        ...


class PairValidation:
    """Real pairs, each enhanced as a whole frame; the mean PSNR decides."""

    noun = "pairs"
    highest = True

    def __init__(self, pairs: Sequence[Callable[[], Pair]], precision: str) -> None:
        self.pairs, self.precision = pairs, precision

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)

    def decisive(self, scores: Scores) -> str | None:
        """PSNR, where any pair has a finite one."""
        return "psnr" if "psnr" in scores else None

    def score(self, network: nn.Module, device: torch.device, stopped: StopFlag) -> Scored:
        """Score full frames through the restorer, and patches of a few, see `patch_scores`."""
        restorer = Restorer(network, RestorerOptions(precision=self.precision, ensemble=1, detail=False), device)
        rows, patches, looked_at = [], [], chosen(len(self.pairs))
        for index, read in enumerate(self.pairs):
            if stopped:
                return None
            pair = read()
            rows.append(score_pair(restorer, pair))
            if index in looked_at:
                patches.append(score_patch(restorer, pair))
        names = [(row.scene, row.dark) for row in rows]
        told = {"pairs": len(rows), "list_sha256": list_sha256(names), "pair_hashes": pair_hashes(names)}
        return {**mean_scores(rows), **mean_patches(patches)}, told


class PictureValidation:
    """The validation split of a set of pictures, scored as `lowlight eval` does."""

    noun = "images"

    def __init__(self, scorer: Scorer, path: Path, options: Any) -> None:
        self.scorer, self.highest = scorer, scorer.highest
        self.pictures = scorer.open(path, options, "validation")

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.pictures)

    def decisive(self, scores: Scores) -> str | None:
        """The number that the scorer names."""
        return self.scorer.decisive(scores)

    def score(self, network: nn.Module, device: torch.device, stopped: StopFlag) -> Scored:
        """Score all pictures in fp32, with the same draws each time."""
        scores = self.scorer.score(network.to(device).eval(), self.pictures, device, VALIDATION_SEED)
        return scores, {self.noun: len(self)}


def open_validation_of(config: TrainConfig) -> Validation:
    """Open what a run is validated on; what is missing is said at once, not after the first thousand steps.

    Pictures and real pairs are, unless the configuration names others, those of the training data's own validation
    split; real pairs of which all train, or another split than train, have none.
    """
    data = config.data
    if data.name not in SCORERS:
        if data.validation is not None and not data.validation.exists():
            raise DataError(
                f"{data.validation}, which is to validate, does not exist; name pairs with --validation: a manifest "
                "(.csv), See-in-the-Dark folder, cache or packed file"
            )
        levels = named_levels(str(data.options.get("levels", "")))  # real pairs validate as they train
        pairs = open_validation(data.validation, levels)
        if data.validation is not None and not pairs:
            logger.warning("%s holds no pairs, so nothing validates and no weights will be the best", data.validation)
        if data.validation is None and data.name == "pairs" and data.options.get("split", "train") == "train":
            pairs = own_validation(data.path, levels)
        return PairValidation(pairs, config.run.precision)
    options = from_dict(DATASETS[data.name].config, data.options, f"options of dataset {data.name}")
    return PictureValidation(SCORERS[data.name], data.validation or data.path, options)
