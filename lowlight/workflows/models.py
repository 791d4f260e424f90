"""What models there are, and how large each is."""

from typing import Any

import torch

from lowlight.models import MODELS, build_model, model_config
from lowlight.models.macs import count_macs, count_parameters


def list_models() -> list[dict[str, Any]]:
    """Describe every model with its preset options, in the order of the table.

    Each row has `name`, `parameters` (prior and decoder), `macs` and `macs_published_convention` (one tile of
    256 x 256 packed pixels, see `lowlight.models.macs`) and `summary`. No weights are drawn.
    """
    rows = []
    for name, entry in MODELS.items():
        with torch.device("meta"):
            model = build_model(name, model_config(name))
        macs = count_macs(model)
        rows.append(
            {
                "name": name,
                "parameters": count_parameters(model),
                "macs": macs.true,
                "macs_published_convention": macs.published,
                "summary": entry.summary,
            }
        )
    return rows
