"""The `lowlight` command: the one place where an error becomes a sentence and an exit code.

Nothing here imports PyTorch; each command does so when it runs, so that `--help` is instant.
"""

import atexit
import logging
import os
import signal
import sys
from typing import Annotated, Any

import typer

from lowlight import __version__
from lowlight.cli.bench import bench
from lowlight.cli.cache import cache_command
from lowlight.cli.check_pairs import check_pairs_command
from lowlight.cli.demo import demo
from lowlight.cli.edit import edit
from lowlight.cli.enhance import enhance
from lowlight.cli.eval import evaluate_command
from lowlight.cli.inspect import inspect
from lowlight.cli.models import models
from lowlight.cli.pack import pack
from lowlight.cli.prepare import prepare_command
from lowlight.cli.streams import escape_unencodable, mute, open_closed_streams, visible
from lowlight.cli.train import train_command
from lowlight.core.errors import LowlightError

app = typer.Typer(
    name="lowlight",
    help="Turn dark RAW photographs into bright, clean, natural ones.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lowlight {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", envvar="LOWLIGHT_VERBOSE", help="Say more on stderr.")
    ] = False,
) -> None:
    """Turn dark RAW photographs into bright, clean, natural ones."""
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("PIL", "tifffile"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


app.command("enhance")(enhance)
app.command("edit")(edit)
app.command("inspect")(inspect)
app.command("models")(models)
app.command("demo")(demo)
app.command("eval")(evaluate_command)
app.command("train")(train_command)
app.command("pack")(pack)
app.command("prepare")(prepare_command)
app.command("cache")(cache_command)
app.command("check-pairs")(check_pairs_command)
app.command("bench")(bench)


CLOSED_PIPE = 128 + 13  # as a shell tells of a program that the signal SIGPIPE has ended


def main() -> None:
    """Run the command line."""
    # A waiting OpenMP thread that spins takes its core from the thread that reads ahead. Read at library load.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    signal.signal(signal.SIGTERM, _interrupt)
    open_closed_streams()
    escape_unencodable()
    try:
        app()
    except LowlightError as error:
        typer.echo(f"lowlight: {visible(str(error))}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as leaving:
        # The reader of our output went away, as `head` does. Typer would say 1, which is that something failed.
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        mute(sys.stdout)
        mute(sys.stderr)
        sys.exit(CLOSED_PIPE)
    except OSError as error:  # a disk or a folder that was not asked about before
        logging.getLogger(__name__).debug("the system refused", exc_info=error)
        where = f"{error.filename}: " if error.filename else ""
        mute(sys.stdout)
        typer.echo(f"lowlight: {visible(f'{where}{error.strerror or error}')}", err=True)
        sys.exit(1)
    finally:
        atexit.register(_let_signals_end_us)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _let_signals_end_us() -> None:
    """Once all is done a further signal, as `timeout` and impatience send it, finds nothing that it could interrupt."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
