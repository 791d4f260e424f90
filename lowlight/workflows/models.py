"""What models there are, and how large each is."""

from typing import Any

import torch

from lowlight.models import MODELS, build_model, model_config
from lowlight.models.macs import count_macs, count_parameters


def list_models() -> list[dict[str, Any]]:
    """Describe every model with its preset options, in the order of the table.

    Each row has `name`, `kind`, `parameters`, `macs` and `macs_published_convention` (one tile of 256 x 256 packed
    pixels, see `lowlight.models.macs`) and `summary`. Of networks on RAW the parameters are those of prior and decoder;
    of networks on pictures they are all there are, and MACs are None. No weights are drawn.
    """
    rows = []
    for name, entry in MODELS.items():
        with torch.device("meta"):
            model = build_model(name, model_config(name))
        raw = entry.kind == "raw"
        macs = count_macs(model) if raw else None
        rows.append(
            {
                "name": name,
                "kind": entry.kind,
                "parameters": count_parameters(model) if raw else sum(p.numel() for p in model.parameters()),
                "macs": macs.true if macs else None,
                "macs_published_convention": macs.published if macs else None,
                "summary": entry.summary,
            }
        )
    return rows
