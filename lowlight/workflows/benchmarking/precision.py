"""What a number format of 16 bits costs: decibels on real pairs, against 32-bit floats."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lowlight.core.compute import keep_freed_memory
from lowlight.core.errors import UsageError
from lowlight.workflows.evaluating.evaluate import evaluate_methods
from lowlight.workflows.evaluating.methods import EvaluateOptions
from lowlight.workflows.evaluating.pair_lists import open_pair_list
from lowlight.workflows.evaluating.protocols import find_protocol


def precision_task(data: str, weights: str, device: str, precision: str) -> dict[str, Any]:
    """Score weights on pairs in 32-bit floats and in `precision`: PSNR and SSIM of both, and the dB that are lost.

    `psnr_lost` is the mean over the pairs, `psnr_lost_most` the largest of one pair. Raises `UsageError` where both
    formats are the same or no pair could be scored.
    """
    keep_freed_memory()
    exact = EvaluateOptions(weights=Path(weights), device=device, precision="fp32")
    pairs = open_pair_list(Path(data), find_protocol(exact.protocol))
    # One after the other: together they would share the network, which has one format at a time.
    fine, rough = (evaluate_methods(pairs, [each])[0] for each in (exact, replace(exact, precision=precision)))
    chosen = rough["settings"]["precision"]
    if chosen == "float32":
        raise UsageError("this device computes in 32-bit floats unless told otherwise; name another --precision")
    scored = [
        (one, other)
        for one, other in zip(fine["rows"], rough["rows"], strict=True)
        if one.get("psnr") is not None and other.get("psnr") is not None
    ]
    if not scored:
        raise UsageError(f"no pair of {data} could be scored: {fine['rows'][0].get('error')}")
    lost = [one["psnr"] - other["psnr"] for one, other in scored]
    return {
        "pairs": len(scored),
        "precision": chosen,
        "psnr_fp32": sum(one["psnr"] for one, _ in scored) / len(scored),
        "psnr": sum(other["psnr"] for _, other in scored) / len(scored),
        "psnr_lost": sum(lost) / len(lost),
        "psnr_lost_most": max(lost),
        "ssim_fp32": sum(one["ssim"] for one, _ in scored) / len(scored),
        "ssim": sum(other["ssim"] for _, other in scored) / len(scored),
    }
