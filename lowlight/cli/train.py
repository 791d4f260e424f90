"""`lowlight train`: flags over a TOML file, then one training run."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from lowlight.cli.given import given_settings
from lowlight.core.errors import ConfigError, DataError, UsageError

# One entry a flag that sets a key of the configuration; `train_command` names its parameters after them.
KEYS = {
    "model": "model.name",
    "start_from": "model.start_from",
    "objective": "objective.name",
    "photos": "data.path",
    "validation": "data.validation",
    "steps": "run.steps",
    "minutes": "run.minutes",
    "epochs": "run.epochs",
    "seed": "run.seed",
    "device": "run.device",
    "precision": "run.precision",
    "batch": "optimiser.batch",
    "learning_rate": "optimiser.learning_rate",
    "schedule": "optimiser.schedule",
    "ema": "optimiser.ema",
}
BUDGETS = ("steps", "minutes", "epochs")
SETTINGS = "LOWLIGHT_TRAIN_SET"


def _option(flag: str, help_text: str, metavar: str, *short: str, **more: Any) -> Any:
    """An option whose environment variable is LOWLIGHT_TRAIN_ and its name."""
    variable = "LOWLIGHT_TRAIN_" + flag.removeprefix("--").replace("-", "_").upper()
    return typer.Option(*short, flag, envvar=variable, help=help_text, metavar=metavar, **more)


def _presets(begun: str) -> list[str]:
    """Presets that begin so, for the shell's completion."""
    from lowlight.workflows.training.presets import list_presets

    return [name for name in list_presets() if name.startswith(begun)]


def train_command(
    context: typer.Context,
    config: Annotated[Path | None, _option("--config", "The run as a TOML file; flags override it.", "FILE")] = None,
    preset: Annotated[
        str | None,
        _option(
            "--preset",
            "A run that comes with lowlight, such as thesis/sid-net or mnist/vae-10.",
            "NAME",
            autocompletion=_presets,
        ),
    ] = None,
    output: Annotated[Path | None, _option("--output", "The run's folder.", "DIR", "-o")] = None,
    model: Annotated[str | None, _option("--model", "Which network; see `lowlight models`.", "NAME")] = None,
    objective: Annotated[
        str | None,
        _option(
            "--objective",
            "What is minimised; it must fit the model, and a wrong one is answered with those that do.",
            "NAME",
        ),
    ] = None,
    photos: Annotated[
        Path | None,
        _option(
            "--photos",
            "Clean photos: a folder or packed file. Real pairs: a cache, SID folder or CSV. Digits: a folder.",
            "PATH",
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        _option(
            "--validation",
            "Real pairs: a CSV manifest, SID folder, cache or packed file. Digits: a folder, if not the same.",
            "PATH",
        ),
    ] = None,
    steps: Annotated[int | None, _option("--steps", "How many steps to train for.", "N")] = None,
    minutes: Annotated[float | None, _option("--minutes", "How long to train, instead of --steps.", "M")] = None,
    epochs: Annotated[
        int | None, _option("--epochs", "How often to go through the data, instead of --steps.", "N")
    ] = None,
    batch: Annotated[int | None, _option("--batch", "Items in a step, over all processes.", "N")] = None,
    learning_rate: Annotated[float | None, _option("--learning-rate", "The optimiser's rate.", "RATE")] = None,
    schedule: Annotated[
        str | None, _option("--schedule", "How the rate falls: constant, cosine or milestone.", "NAME")
    ] = None,
    ema: Annotated[float | None, _option("--ema", "Decay of the averaged weights; 0 is off.", "DECAY")] = None,
    seed: Annotated[int | None, _option("--seed", "The same seed gives the same run.", "N")] = None,
    device: Annotated[str | None, _option("--device", "auto, cpu, cuda, cuda:1 or mps.", "NAME")] = None,
    precision: Annotated[str | None, _option("--precision", "auto, fp32 or bf16.", "NAME")] = None,
    start_from: Annotated[
        Path | None, _option("--start-from", "Weights to begin with instead of random ones.", "FILE")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            envvar=SETTINGS,
            metavar="SECTION.KEY=VALUE",
            help="Any other key, as in --set data.options.ratio=[50,300]; may be repeated.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", envvar="LOWLIGHT_TRAIN_RESUME", help="Go on with the run in the output folder."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", envvar="LOWLIGHT_TRAIN_DRY_RUN", help="Print the whole configuration and stop."),
    ] = False,
) -> None:
    """Train a network on photos or pictures; the weights' path goes to stdout. Ctrl-C saves, --resume goes on."""
    flags = {name: value for name, value in locals().items() if name in KEYS and value is not None}
    if output is None and not dry_run:
        raise UsageError("a run needs a folder; name it with -o")

    from lowlight.core.compute import keep_freed_memory

    keep_freed_memory()
    from lowlight.core.config import to_dict, to_toml
    from lowlight.workflows.training.train import load_config, saved_config, summarise, train

    if config is None and preset is None and resume and output is not None:
        config = saved_config(output)
        if config is None and not flags and not settings:
            raise UsageError(f"{output} holds no run to go on with; name --preset or --config to begin one")
    run = load_config(config, overrides(flags, given_settings(context, settings, SETTINGS)), preset)
    if dry_run:
        typer.echo(to_toml(to_dict(run)))
        try:
            about = str(summarise(run))
        except DataError as error:  # whoever only wants to see a preset need not have its data
            about = f"how much data there is cannot be said: {error}"
        typer.echo(f"# {about}")
        return
    assert output is not None
    from lowlight.cli.train_progress import training_progress

    # torchrun starts many of us; the first speaks for all.
    if os.environ.get("RANK", "0") != "0":
        train(run, output, resume=resume)
        return
    with training_progress() as watch:
        weights = train(run, output, resume=resume, watch=watch)
    typer.echo(weights)


def overrides(flags: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Give the nested values that flags (by parameter name) and `section.key=value` settings lay over a file.

    A flag wins over a setting, and one that names a budget over settings of other budgets.
    """
    values: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise ConfigError(f"--set is {text!r}; expected section.key=value")
        _put(values, key.strip(), _parse(value.strip()))
    typed = [name for name in BUDGETS if flags.get(name) is not None]
    if len(typed) > 1:
        raise ConfigError(f"a run takes either {' or '.join(f'--{name}' for name in typed)}, not both")
    if typed:
        for name in BUDGETS:
            values.get("run", {}).pop(name, None)
    for name, value in flags.items():
        _put(values, KEYS[name], value)
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set names {key!r}, but {section!r} is set to a value already")
    values[last] = value


def _parse(text: str) -> Any:
    """Read a TOML value; what is none is text, so that names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
