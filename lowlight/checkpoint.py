"""Weights files and resume states.

A weights file is safetensors with one JSON text in its header under the key `lowlight`: which model, its whole
configuration, what trained it and how it scored. It holds the test-time network, in fp16, or of networks on finished
pictures all of it, in fp32; nothing is ever unpickled. A resume state holds everything needed to go on exactly.
"""

import glob
import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lowlight import __version__
from lowlight.core.atomic import replacing
from lowlight.core.config import parse_json, to_dict
from lowlight.core.errors import ConfigError, MissingWeightsError, OutputError, UsageError, WeightsError
from lowlight.models import build_model, current_name, model_config

FORMAT = 1
HEADER_KEY = "lowlight"
DEFAULT_WEIGHTS = "sid-net-slim"
BURST_WEIGHTS = "sid-net-slim-burst"  # the default where several frames make one picture
POSTERIOR = "encoder."  # parameters that only training needs
BEST, LAST = "best.safetensors", "last.safetensors"  # of a run's folder
EPOCH = re.compile(r"epoch-(\d+)\.safetensors")  # the name of one of a run's last epochs
RUN_FILES = (BEST, LAST, "weights.safetensors")  # which of them stands for a run; the last is of an earlier version


def save_weights(
    path: Path,
    name: str,
    config: Any,
    state: dict[str, Tensor],
    *,
    trained: dict[str, Any],
    scores: dict[str, Any],
    dtype: torch.dtype = torch.float16,
    with_posterior: bool = False,
) -> None:
    """Write a weights file of a network's state dict; the posterior encoder is left out by default.

    `config` is the dataclass the network was built from.
    """
    header = {
        "format": FORMAT,
        "lowlight": __version__,
        "model": name,
        "config": to_dict(config),
        "trained": trained,
        "scores": scores,
        "posterior": with_posterior,
    }
    tensors = {
        key: value.detach().to("cpu", dtype, copy=True).contiguous()
        for key, value in state.items()
        if with_posterior or not key.startswith(POSTERIOR)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        # Not safetensors' own file writer: its files can be read by their owner only.
        temporary.write_bytes(save(tensors, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)}))


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a weights file.

    Raises `MissingWeightsError` where it is not there, `WeightsError` where it is none of this format.
    """
    if not path.is_file():
        raise MissingWeightsError(
            f"there is no weights file {path}; `lowlight models` lists the models, `lowlight train` makes weights"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no weights file ({error}); expected safetensors") from error
    if HEADER_KEY not in metadata:
        raise WeightsError(f"{path} is a safetensors file of another program; expected one made by `lowlight train`")
    try:
        header = parse_json(metadata[HEADER_KEY])
    except ConfigError as error:
        raise WeightsError(f"{path} has a damaged header; fetch or make it again") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise WeightsError(
            f"{path} has weights format {found}; this version reads {FORMAT}, try another version of lowlight"
        )
    if not isinstance(header.get("model"), str) or not isinstance(header.get("config"), dict):
        raise WeightsError(f"{path} does not say which model it is for; fetch or make it again")
    trained, scores = header.get("trained", {}), header.get("scores", {})
    if not (isinstance(trained, dict) and isinstance(scores, dict) and isinstance(scores.get("validation", {}), dict)):
        raise WeightsError(f"{path} has a damaged record of its training and scores; fetch or make it again")
    return dict(header)


def load_weights(path: Path, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network of a weights file on the CPU and ready for inference, and the file's header.

    `dtype` is the number format of its tensors. Who knows the one to compute in names it here: a large network is then
    never in memory in a larger format first.
    """
    header = read_header(path)
    name = current_name(header["model"])
    if name is None:
        raise WeightsError(f"{path} is for a model called {header['model']!r}, which this version does not have")
    try:
        with torch.device("meta"):
            model = build_model(name, model_config(name, header["config"]))
    # A configuration that passes its own checks may still be one that no network can have.
    except (ConfigError, RuntimeError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise WeightsError(f"{path} has a configuration this version cannot build: {error}") from error
    if not header.get("posterior"):
        model.register_module(POSTERIOR.rstrip("."), None)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).to(dtype, copy=True) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); fetch or make it again") from error
    if misfit := _misfit(model.state_dict(), tensors):
        raise WeightsError(f"{path} does not fit model {name!r}: {misfit}; fetch or make it again")
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False), header


def _misfit(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str | None:
    """The first thing in which tensors differ from those a network wants, None where they fit."""
    for key, tensor in wanted.items():
        if key not in found:
            return f"tensor {key} is missing"
        if found[key].shape != tensor.shape:
            return f"tensor {key} has shape {tuple(found[key].shape)}, expected {tuple(tensor.shape)}"
    extra = sorted(set(found) - set(wanted))
    return f"tensor {extra[0]} is one too many" if extra else None


def weights_file(path: Path) -> Path:
    """Give the weights of a run's folder, its best where there are several; a file is taken as it is."""
    if not path.is_dir():
        return path
    for name in RUN_FILES:
        if (path / name).is_file():
            return path / name
    raise MissingWeightsError(f"there is no weights file in {path}; expected {' or '.join(RUN_FILES[:2])}")


def matching_files(named: Path) -> list[Path]:
    """The files that a pattern with `*`, `?` or `[...]` matches, of which there must be some; another name itself."""
    if named.exists() or not glob.has_magic(str(named)):
        return [named]
    found = sorted(map(Path, glob.glob(str(named), recursive=True)))
    if not found:
        raise UsageError(f"no file matches {named}")
    return found


def find_weights(named: str | Path | None) -> Path:
    """Find weights: a file as it is, of a run's folder the best, a name among the shipped ones, the default for None.

    Shipped weights lie in the installed package, or in the checkout beside it. Raises `UsageError` for a name that is
    neither; that a named file can be read is not looked at.
    """
    if isinstance(named, Path) and named.is_dir():  # not a model's name, which some folder may bear too
        return weights_file(named)
    if named is not None and (Path(named).is_file() or Path(named).suffix):
        return Path(named)
    name = f"{named or DEFAULT_WEIGHTS}.safetensors"
    package = Path(__file__).resolve().parent
    folders = (package / "weights", package.parent / "weights")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    shipped = sorted({p.stem for folder in folders for p in folder.glob("*.safetensors")})
    raise UsageError(
        f"no weights are shipped for {str(named or DEFAULT_WEIGHTS)!r}, and no file is called so; shipped are "
        f"{', '.join(shipped) or 'none'}, or name a weights file"
    )


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a resume state: tensors and plain values only, under a temporary name first."""
    try:
        with replacing(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # the latter is how PyTorch says that a disk is full
        reason = str(error).strip().split("\n")[0]
        raise OutputError(f"{path} could not be written ({reason}); make room, or choose another folder") from error


def load_state(path: Path) -> dict[str, Any]:
    """Read a resume state without running any code from it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} cannot be resumed from ({reason}); start the run anew") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds no training state; start the run anew")
    return state


__all__ = [
    "build_model",
    "find_weights",
    "load_state",
    "load_weights",
    "matching_files",
    "read_header",
    "save_state",
    "save_weights",
    "weights_file",
]
