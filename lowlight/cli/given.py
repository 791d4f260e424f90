"""Where the value of an option comes from: the command line, the environment, or nowhere."""

import os
import re
from collections.abc import Collection

import typer

_NEXT_SETTING = re.compile(r"\s+(?=[\w-]+\.[\w.-]+\s*=)")


def typed_option(context: typer.Context, names: Collection[str]) -> str | None:
    """The first of these parameters that was given on the command line, as it is spelt there; None for none."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            return parameter.opts[-1]
    return None


def given_settings(context: typer.Context, settings: list[str] | None, variable: str) -> list[str]:
    """What --set says. In the environment a setting ends where the next key begins, since values may hold spaces."""
    source = context.get_parameter_source("settings")
    if source is not None and source.name == "ENVIRONMENT":
        return _NEXT_SETTING.split(os.environ[variable].strip())
    return settings or []
