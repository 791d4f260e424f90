"""Strict configurations: frozen dataclasses to and from plain dictionaries and TOML."""

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from lowlight.core.errors import ConfigError

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def from_dict(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build a dataclass from a dictionary; unknown or missing keys and wrong types raise `ConfigError` with `where`."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {str(values)[:60]!r}; expected keys with values")
    hints = typing.get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    known = {field.name for field in fields}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            advice = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"unknown key {key!r} in {where}; {advice}")
    missing = [field.name for field in fields if _is_required(field) and field.name not in values]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}; expected {', '.join(sorted(known))}")
    return cls(**{key: _coerce(hints[key], value, f"{key} in {where}") for key, value in values.items()})


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values that JSON and TOML can hold; keys whose value is None are left out."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary; a missing or malformed file raises `ConfigError`.

    Bytes that are no UTF-8 stay what they are in the name of a file.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError is one, and so is a number of thousands of digits
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be a configuration; expected sections of keys") from None


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says; `ConfigError` for what is none, is nested too deeply or has numbers without end."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"no valid JSON ({error})") from error


def to_toml(values: dict[str, Any]) -> str:
    """A dictionary of plain values and one or more levels of sections as TOML text."""
    lines: list[str] = []
    _write_section(values, (), lines)
    return "\n".join(lines).strip() + "\n"


def _write_section(values: dict[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    if path:
        lines += ["", f"[{'.'.join(path)}]"]
    lines += [f"{key} = {_toml_value(v)}" for key, v in values.items() if not isinstance(v, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            _write_section(value, (*path, key), lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for one control character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _coerce(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}; expected a finite number")
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{where} is {value!r}; expected one of {', '.join(map(str, get_args(hint)))}")
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(hint, value, where)
    if origin is tuple:
        return _coerce_tuple(hint, value, where)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; expected a section")
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if origin is dict and isinstance(value, dict):
        return value
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{where} is a number beyond 1e308; expected a smaller one") from error
    plain = origin or hint
    if plain is Any or (isinstance(value, plain) and not (plain is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"{where} is {value!r}; expected {getattr(hint, '__name__', hint)}")


def _coerce_union(hint: Any, value: Any, where: str) -> Any:
    if value is None and type(None) in get_args(hint):
        return None
    for option in get_args(hint):
        if option is type(None):
            continue
        try:
            return _coerce(option, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} is {value!r}; expected {hint}")


def _coerce_tuple(hint: Any, value: Any, where: str) -> Any:
    items = get_args(hint)
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} is {value!r}; expected a list")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_coerce(items[0], item, where) for item in value)
    if len(items) != len(value):
        raise ConfigError(f"{where} has {len(value)} values; expected {len(items)}")
    return tuple(_coerce(option, item, where) for option, item in zip(items, value, strict=True))
