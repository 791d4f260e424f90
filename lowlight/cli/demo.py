"""`lowlight demo`: see it work without a camera."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lowlight.workflows.demo import Demo


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the demo's files.")],
    ratio: Annotated[
        float, typer.Option(envvar="LOWLIGHT_DEMO_RATIO", help="How many times darker than the truth, 2 to 300.")
    ] = 100.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, envvar="LOWLIGHT_DEMO_SEED", help="Draws the noise.")] = 0,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="LOWLIGHT_WEIGHTS", help="Weights file instead of the default."),
    ] = None,
    device: Annotated[str, typer.Option(envvar="LOWLIGHT_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Make a dark RAW file in DIR, enhance it, and write before, after and truth side by side.

    Needs no camera, no photos and no network.
    """
    from lowlight.workflows.demo import run_demo

    _print_result(run_demo(folder, ratio=ratio, seed=seed, weights=weights, device=device))


def _print_result(result: "Demo") -> None:
    dark, enhanced, truth, panel = result.files
    height, width = result.size
    typer.echo(f"A photograph was turned back into sensor data {result.ratio:g} times too dark, with shot noise, read")
    typer.echo(f"noise and row noise, and written as a Bayer RAW of {width}x{height}: {dark}")
    typer.echo(f"`lowlight enhance` did with it what it does with any RAW file: {enhanced}")
    typer.echo(f"The photograph itself, for comparison: {truth}")
    typer.echo(f"Side by side, before (amplified only), after and truth: {panel}")
    for name, scores in (("before", result.before), ("after", result.after)):
        values = [scores["psnr"], scores["ssim"]]
        psnr, ssim = ("-" if value is None else f"{value:.{d}f}" for value, d in zip(values, (2, 3), strict=True))
        typer.echo(f"{name:6}  PSNR {psnr} dB  SSIM {ssim}")
