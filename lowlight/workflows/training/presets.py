"""Ready-made runs by name, such as `thesis/sid-net`: TOML files that come with the program."""

from pathlib import Path

from lowlight.core.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[2]
# In the installed package, or in the checkout beside it.
FOLDERS = (PACKAGE / "presets", PACKAGE.parent / "examples" / "presets")


def list_presets() -> list[str]:
    """Name every preset: its path without the suffix."""
    return sorted(
        {path.relative_to(folder).with_suffix("").as_posix() for folder in FOLDERS for path in folder.rglob("*.toml")}
    )


def find_preset(name: str) -> Path:
    """Find the file of a preset; raises `ConfigError` with the names there are."""
    known = list_presets()
    if name not in known:
        raise ConfigError(f"there is no preset called {name!r}; there are {', '.join(known) or 'none'}")
    return next(path for folder in FOLDERS if (path := folder / f"{name}.toml").is_file())
