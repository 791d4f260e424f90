"""`lowlight prepare`: a downloaded folder of small pictures into one file to train from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lowlight.cli.given import given_settings
from lowlight.cli.progress import with_progress
from lowlight.cli.train import overrides
from lowlight.core.errors import UsageError

if TYPE_CHECKING:
    from lowlight.workflows.training.prepare import Forecast

SETTINGS = "LOWLIGHT_PREPARE_SET"


def prepare_command(
    context: typer.Context,
    name: Annotated[
        Literal["fusion-celeba", "fusion-tless"],
        typer.Argument(metavar="SET", help="fusion-celeba or fusion-tless.", show_default=False),
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="CelebA's aligned pictures with their list, or T-LESS's train_primesense."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="The file to write.")],
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            envvar="LOWLIGHT_PREPARE_LIMIT",
            help="For a trial: the first N pictures of training, validation or each class.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="data.options.KEY=VALUE",
            envvar=SETTINGS,
            help="An option of the set as training takes it: data.options.classes=[19,20,21,22,23]; may be repeated.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", envvar="LOWLIGHT_OVERWRITE", help="Replace OUT.npz if it exists.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="LOWLIGHT_PREPARE_DRY_RUN", help="Say how large it gets and stop.")
    ] = False,
) -> None:
    """Reduce the pictures of FOLDER once and store them in OUT.npz, for `lowlight train --photos OUT.npz`.

    Training reads FOLDER as well. Preparing pays where there is more than one run, or where the pictures are on
    another machine: else CelebA's 182 637 faces (2.1 GiB then) are decoded in the first epoch of each run, and
    T-LESS's objects are cut before each run begins, which takes minutes.
    """
    from lowlight.workflows.pairing.cache_options import size_in_words
    from lowlight.workflows.training.prepare import prepare_set

    made = with_progress(
        lambda report: prepare_set(
            name,
            folder,
            out,
            _options(given_settings(context, settings, SETTINGS)),
            limit,
            overwrite=overwrite,
            dry_run=dry_run,
            announce=_print_forecast,
            progress=report,
        )
    )
    if made is None:
        return
    counts = ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in made.counts.items())
    typer.echo(f"{counts}; {size_in_words(made.bytes)}", err=True)
    typer.echo(made.path)


def _options(settings: list[str]) -> dict[str, Any]:
    values = overrides({}, settings)
    data = values.pop("data", {})
    options = data.pop("options", {})
    if values or data or not isinstance(options, dict):
        raise UsageError("--set takes the set's own options here, such as data.options.classes=[19,20,21,22,23]")
    return options


def _print_forecast(forecast: "Forecast") -> None:
    from lowlight.workflows.pairing.cache_options import size_in_words

    typer.echo(
        f"{forecast.pictures} pictures take at most {size_in_words(forecast.bytes)}; "
        f"{size_in_words(forecast.free_bytes)} are free",
        err=True,
    )
