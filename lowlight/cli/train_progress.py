"""The progress of a training run, on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lowlight.workflows.training.run import Progress as Standing
from lowlight.workflows.training.run import Watcher

SMOOTHING = 0.05  # share of the newest step in the loss that is shown; of few steps it is their mean
PLAIN_EVERY_S = 60.0  # a line this often where stderr is no terminal


@contextmanager
def training_progress() -> Iterator[Watcher]:
    """Show steps or minutes, loss and last validation: a bar on a terminal, a line a minute elsewhere."""
    console = Console(stderr=True)
    smooth, steps = 0.0, 0
    said_s, said = -PLAIN_EVERY_S, ""

    def shown_loss(standing: Standing) -> str:
        nonlocal smooth, steps
        if standing.loss is not None:
            steps += 1
            smooth += max(SMOOTHING, 1 / steps) * (standing.loss - smooth)
        return f"loss {smooth:.4g}" if steps else ""

    if not console.is_terminal:

        def say(standing: Standing) -> None:
            nonlocal said_s, said
            loss = shown_loss(standing)
            parts = (f"{standing.fraction:.0%}", _steps(standing), loss, _extras(standing))
            line = ", ".join(part for part in parts if part)
            if line != said and (standing.elapsed_s - said_s >= PLAIN_EVERY_S or standing.fraction >= 1):
                said_s, said = standing.elapsed_s, line
                console.print(line, soft_wrap=True, highlight=False)

        yield say
        return

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("starting", total=1.0, losses="")

        def draw(standing: Standing) -> None:
            losses = ", ".join(part for part in (shown_loss(standing), _extras(standing)) if part)
            bars.update(task, completed=standing.fraction, description=_steps(standing), losses=losses)

        yield draw


def _steps(standing: Standing) -> str:
    return f"step {standing.step}" + (f" of {standing.steps}" if standing.steps else "")


def _extras(standing: Standing) -> str:
    parts = []
    if standing.scores and standing.decisive:
        name, value = standing.decisive, standing.scores[standing.decisive]
        parts.append(f"validation {value:.2f} dB" if name == "psnr" else f"validation {name} {value:.4g}")
    if standing.skipped:
        parts.append(f"{standing.skipped} skipped")
    return ", ".join(parts)
