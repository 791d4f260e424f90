"""`lowlight digits`: the thesis' MNIST experiments."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lowlight.core.errors import UsageError

digits = typer.Typer(
    no_args_is_help=True, help="Train, score and draw the thesis' MNIST networks (AE, VAE, CVAE, image transfer)."
)

Data = Annotated[
    Path,
    typer.Option("--data", envvar="LOWLIGHT_DIGITS_DATA", metavar="DIR", help="A folder with MNIST or KMNIST files."),
]


@digits.command("train")
def train_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Which network; `lowlight digits list` names them.")],
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The run's folder.")],
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the training images.")] = 200,
    batch: Annotated[int, typer.Option(metavar="N", help="Images in a step.")] = 1000,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="Adam's rate.")] = 1e-3,
    beta: Annotated[float, typer.Option(metavar="BETA", help="Weight of the divergence.")] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same run.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, fp32 or bf16.")] = "auto",
    limit: Annotated[int | None, typer.Option(metavar="N", help="Train on the first N images only.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the whole configuration and stop.")] = False,
) -> None:
    """Train MODEL on the training images; the weights' path goes to stdout. Ctrl-C saves, --resume goes on."""
    given: dict[str, Any] = {
        "model": model,
        "data": data,
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "beta": beta,
        "seed": seed,
        "device": device,
        "precision": precision,
        "limit": limit,
    }
    from lowlight.core.compute import keep_freed_memory

    keep_freed_memory()
    from lowlight.core.config import to_dict, to_toml
    from lowlight.workflows.digits.config import resolve
    from lowlight.workflows.digits.train import EpochDone, train_digits

    run = resolve(given)
    if dry_run:
        typer.echo(to_toml(to_dict(run)))
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("epoch"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=epochs)

        def watch(done: EpochDone) -> None:
            losses = ", ".join(f"{name} {value:.3f}" for name, value in done.losses.items())
            bars.update(task, completed=done.epoch, description=losses)
            if not console.is_terminal and (done.epoch % 20 == 0 or done.epoch == done.epochs):
                typer.echo(f"epoch {done.epoch} of {done.epochs}, {done.elapsed_s:.0f} s: {losses}", err=True)

        weights = train_digits(run, output, resume=resume, watch=watch)
    typer.echo(weights)


@digits.command("eval")
def eval_command(
    weights: Annotated[list[Path], typer.Argument(metavar="WEIGHTS...", help="Weights files, or runs' folders.")],
    data: Data,
    rows: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the rows as JSON; - is stdout.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the ten samples or corruptions.")] = 0,
    train_split: Annotated[
        bool, typer.Option("--train/--no-train", help="Score the training images too, not only the validation images.")
    ] = True,
) -> None:
    """Score networks on training and validation images, beside the published numbers."""
    from lowlight.workflows.digits.evaluate import evaluate_digits

    scored = evaluate_digits(weights, data, seed=seed, train_split=train_split)
    text = json.dumps(scored, indent=1)
    if str(rows) == "-":
        typer.echo(text)
        return
    if rows is not None:
        from lowlight.writers.atomic import replacing

        with replacing(rows) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    from lowlight.cli.digit_tables import print_scores

    print_scores(scored)


@digits.command("figures")
def figures_command(
    weights: Annotated[list[Path], typer.Argument(metavar="WEIGHTS...", help="Weights files, or runs' folders.")],
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the figures go.")],
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of samples and corruptions.")] = 0,
) -> None:
    """Draw what fits each network: latent scatter, manifold, principal components, reconstructions or triples."""
    if output.is_file():
        raise UsageError(f"{output} is a file; name a folder for the figures")
    from lowlight.workflows.digits.figures import draw_figures

    for path in draw_figures(weights, data, output, seed=seed):
        typer.echo(path)


@digits.command("list")
def list_command() -> None:
    """Name the networks with their parameters."""
    from lowlight.cli.digit_tables import print_networks

    print_networks()
