"""What is scored: a network from a weights file with a way of tiling, or a classical baseline."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from lowlight.burst import Burst
from lowlight.checkpoint import find_weights, load_weights
from lowlight.core.compute import choose_device
from lowlight.core.errors import UsageError
from lowlight.core.hashing import file_sha256
from lowlight.core.photo import RawFrame
from lowlight.data.pairs import Pair
from lowlight.device_restorer import open_restorer
from lowlight.ops.strategies import Tiling, choose_tiling
from lowlight.restorer import RestorerOptions
from lowlight.workflows.evaluating.baselines import WAVELET, WAVELET_METHOD, open_baseline
from lowlight.workflows.evaluating.clocks import MergeClock, NetworkClock
from lowlight.workflows.evaluating.oracle import Oracle, require_posterior
from lowlight.workflows.evaluating.protocols import DEFAULT_PROTOCOL, Size, find_protocol
from lowlight.workflows.evaluating.scoring import Pixels
from lowlight.workflows.evaluating.tile_scores import tile_pictures

ONE_VIEW = "one view without detail, whatever the weights recommend"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to score and how. `weights` is a file, a shipped model's name or None for the default ones.

    Choices that contradict one another raise `UsageError`.
    """

    weights: str | Path | None = None
    baseline: str | None = None  # in place of a network: a name of BASELINES
    protocol: str = DEFAULT_PROTOCOL
    size: Size | None = None  # None: the protocol's
    tiling: Tiling = field(default_factory=choose_tiling)
    strategy: str | None = None  # the tiling's name, where several are compared
    ensemble: int | None = None  # views to average; None: what the weights recommend
    detail: bool | None = None  # bring detail back; None: what the weights recommend
    precision: str = "auto"
    device: str = "auto"
    batch: int | None = None  # tiles at a time; None: what suits the device
    oracle: bool = False  # score posterior reconstructions too
    timed: bool = False  # seconds of network and merge apart
    frames: int | None = None  # of a scene, aligned and fused; None: the one of a pair

    def __post_init__(self) -> None:
        """Refuse what the protocol or the posterior cannot be measured with."""
        tiles = find_protocol(self.protocol).tiles
        if tiles and self.size == "full":
            raise UsageError("The protocol patches measures tiles at packed size; leave out --size full.")
        if self.frames is not None and (self.baseline is not None or self.one_view):
            raise UsageError("--frames fuses frames with a network; leave out baselines, tiles and posteriors.")
        more = {f"--ensemble {self.ensemble}": (self.ensemble or 1) > 1, "--detail": bool(self.detail)}
        if self.one_view and any(more.values()):
            what = "--protocol patches" if tiles else "--oracle-posterior"
            asked = " and ".join(option for option, given in more.items() if given)
            raise UsageError(f"{what} scores one view of a photo without detail; leave out {asked}.")

    @property
    def compared_size(self) -> Size:
        """The size at which pictures are compared."""
        return self.size or find_protocol(self.protocol).size

    @property
    def frames_in_words(self) -> str:
        """How many frames are fused, as tables tell it; empty where a pair has its one."""
        return "" if self.frames is None else f"{self.frames} frame{'s' if self.frames > 1 else ''}"

    @property
    def one_view(self) -> bool:
        """Whether one view without detail is scored: posterior reconstructions and unmerged tiles are such."""
        return self.oracle or find_protocol(self.protocol).tiles


@dataclass(frozen=True, kw_only=True)
class Method:
    """What makes pictures, and what the report says of it.

    `picture(scene, ratio)` gives uint16 `[H, W, C]` of a scene of `frames` frames; `tiles(pair)` unmerged tiles and
    their truths; `oracle(pair)` the posterior's picture; `network` and `merge` are clocks. What a method does not have
    is None.
    """

    name: str
    settings: dict[str, Any]
    picture: Callable[[RawFrame | Burst, float], Pixels]
    frames: int | None = None
    tiles: Callable[[Pair], Any] | None = None
    oracle: Callable[[Pair], Pixels] | None = None
    network: NetworkClock | None = None
    merge: MergeClock | None = None


@dataclass(frozen=True)
class _Loaded:
    path: Path
    sha256: str
    network: nn.Module
    header: dict[str, Any]
    clock: NetworkClock | None


def open_methods(
    several: list[EvaluateOptions], list_sha256: str | None = None, hashes: Sequence[str] = ()
) -> list[Method]:
    """Load the networks, or find the baselines, that the options name; impossible choices raise `UsageError`.

    `list_sha256` is the hash of the pairs to be scored: weights that were chosen on them are marked so. A network
    that is used with several tilings is loaded once. Methods have different names.
    """
    loaded: dict[Path, _Loaded] = {}
    methods = []
    for options in several:
        if options.baseline is not None:
            methods.append(_baseline(options, options.baseline))
            continue
        path = find_weights(options.weights)
        if path not in loaded:
            network, header = load_weights(path)
            if options.oracle:
                require_posterior(path, bool(header.get("posterior")))
            clock = NetworkClock(network) if options.timed else None
            loaded[path] = _Loaded(path, file_sha256(path), network, header, clock)
        methods.append(_network(options, loaded[path], chosen_on(loaded[path].header, list_sha256, hashes)))
    return _with_different_names(methods)


def _with_different_names(methods: list[Method]) -> list[Method]:
    """Put the folder before the names of files that are called alike, or all of the path where that is no help."""
    for whole in (False, True):
        names = [method.name for method in methods]
        methods = [_in_its_folder(m, whole=whole) if names.count(m.name) > 1 else m for m in methods]
    return methods


def _in_its_folder(method: Method, *, whole: bool) -> Method:
    folder = Path(method.settings["weights_path"]).resolve().parent
    return replace(method, name=f"{folder if whole else folder.name}/{Path(method.name).name}")


def _network(options: EvaluateOptions, loaded: _Loaded, chosen: dict[str, Any]) -> Method:
    path, header, tiling = loaded.path, loaded.header, options.tiling
    how = RestorerOptions(
        grid=tiling.grid,
        merge=tiling.merge,
        power=tiling.power,
        # What one view made is compared with what one view made.
        ensemble=1 if options.one_view else options.ensemble,
        detail=False if options.one_view else options.detail,
        precision=options.precision,
        batch=options.batch,
        size=options.compared_size,
    )
    restorer = open_restorer(loaded.network, how, choose_device(options.device))
    oracle = Oracle(loaded.network, replace(how, batch=restorer.batch), restorer.device) if options.oracle else None
    settings = {
        "weights": path.name,
        "weights_path": str(path),
        "weights_sha256": loaded.sha256,
        "model": header["model"],
        "config": header["config"],
        "preset": header.get("trained", {}).get("preset"),
        "objective": header.get("trained", {}).get("objective"),
        "objective_options": header.get("trained", {}).get("objective_options"),
        **chosen,
        "strategy": options.strategy,
        "grid": {key: value for key, value in asdict(restorer.rule).items() if value is not None},
        "merge": tiling.merge,
        "power": tiling.power if tiling.merge == "idw" else None,
        "ensemble": restorer.ensemble,
        "detail": restorer.detail,
        "views": ONE_VIEW if options.one_view else None,
        "precision": str(restorer.dtype).removeprefix("torch."),
        "device": str(restorer.device),
        "batch": restorer.batch,
    }
    if options.frames is not None:
        settings["frames"] = options.frames
    return Method(
        name=", ".join(filter(None, (path.name, options.strategy, options.frames_in_words))),
        settings=settings,
        picture=lambda scene, ratio: restorer.photo(scene, ratio).pixels,
        frames=options.frames,
        tiles=lambda pair: tile_pictures(restorer, pair),
        oracle=oracle.picture if oracle else None,
        network=loaded.clock,
        merge=MergeClock(restorer) if options.timed else None,
    )


def _baseline(options: EvaluateOptions, name: str) -> Method:
    make = open_baseline(name)
    size = options.compared_size
    if find_protocol(options.protocol).tiles or options.oracle:
        raise UsageError(f"The baseline {name} has neither tiles nor a posterior; score a network, or --protocol half.")
    settings: dict[str, Any] = {"baseline": name, "weights": None}
    if name == "wavelet":
        settings["wavelet"] = {**WAVELET, "method": WAVELET_METHOD[size]}

    def picture(scene: RawFrame | Burst, ratio: float) -> Pixels:
        assert isinstance(scene, RawFrame), "baselines develop one frame"
        return make(scene, ratio, half=size == "half")

    return Method(name=name, settings=settings, picture=picture)


def chosen_on(header: dict[str, Any], list_sha256: str | None, hashes: Sequence[str] = ()) -> dict[str, Any]:
    """Say whether the weights were chosen by their scores on any of the pairs that are to be scored.

    `hashes` are the pairs', `list_sha256` their list's. `chosen_on_test` is True where the header names any of them,
    False where it names none of them or the weights were not chosen by validation, None where it does not tell;
    `chosen` says it in words.
    """
    validation = header.get("scores", {}).get("validation")
    if not validation:
        return {"chosen_on_test": False, "chosen": None}
    if list_sha256 is not None and validation.get("list_sha256") == list_sha256:
        return {"chosen_on_test": True, "chosen": "chosen on these very pairs, which flatters"}
    known = validation.get("pair_hashes")
    if not isinstance(known, list):
        count = validation.get("pairs")
        about = f"{count} validation pairs" if count else "validation pairs"
        return {"chosen_on_test": None, "chosen": f"chosen on {about}; the file does not say which"}
    shared = len(set(known) & set(hashes))
    if shared:
        which = f"{shared} of these {len(hashes)} pairs"
        return {"chosen_on_test": True, "chosen": f"chosen on {which} among others, which flatters"}
    return {"chosen_on_test": False, "chosen": "chosen on other validation pairs"}
