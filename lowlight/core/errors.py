"""Errors a user can meet. Each message says what was found, what was expected and what to try."""


class LowlightError(Exception):
    """Base of every error the command line turns into one sentence and an exit code."""

    exit_code = 1


class UsageError(LowlightError):
    """The command or an option was used in a way that cannot work."""

    exit_code = 2


class UnsupportedRawError(LowlightError):
    """A readable file that is no Bayer RAW this tool can enhance."""


class BrokenFileError(LowlightError):
    """A file that is missing, empty, truncated or otherwise unreadable."""


class WeightsError(LowlightError):
    """A weights file that is missing, malformed or does not fit its model."""


class MissingWeightsError(WeightsError):
    """Weights that are not where they were said to be: it is the command that is wrong, not a file."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration with an unknown key or an impossible value."""


class OutputError(LowlightError):
    """A result that must not be written: black, not finite, or over its own input."""


class DataError(LowlightError):
    """A manifest, packed set or folder of training or evaluation data that cannot be used."""


class InterruptedRunError(LowlightError):
    """The run was stopped by a signal; what was finished is kept."""

    exit_code = 130
