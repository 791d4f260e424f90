"""Tables of the digit experiments on the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_scores(rows: Sequence[dict[str, Any]]) -> None:
    """Print one line a network: its errors beside those of the thesis; `1 draw` and KL are of the validation."""
    table = Table(title="Errors per image: SSE of the mean of ten samples, or L1 over ten corruptions")
    table.add_column("network", no_wrap=True)
    for title in ("epochs", "train", "thesis", "val", "thesis", "1 draw", "KL"):
        table.add_column(title, justify="right")
    for row in rows:
        measure = "l1" if row["task"] == "transfer" else "sse"
        published = row.get("published", {})
        table.add_row(
            row["model"],
            str(row["trained"].get("epochs", "-")),
            _number(row.get("train", {}).get(measure)),
            _number(published.get("train")),
            _number(row["validation"][measure]),
            _number(published.get("validation")),
            _number(row["validation"].get("sse_per_sample")),
            _number(row["validation"].get("kl")),
        )
    Console().print(table)


def print_networks() -> None:
    """Print every digit network with its parameters."""
    import torch

    from lowlight.models.digits import DIGIT_MODELS, build_digit_model, digit_config

    table = Table()
    table.add_column("network")
    table.add_column("parameters", justify="right")
    table.add_column("what it is")
    for name, entry in DIGIT_MODELS.items():
        with torch.device("meta"):
            model = build_digit_model(digit_config(name))
        count = sum(parameter.numel() for parameter in model.parameters())
        table.add_row(name, f"{count:,}".replace(",", " "), entry.summary)
    Console().print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
