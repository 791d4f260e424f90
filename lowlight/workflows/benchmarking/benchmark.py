"""The benchmark: which tasks are run, both sides in turn, and what their rows say together."""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowlight.checkpoint import find_weights, read_header
from lowlight.core.errors import UsageError
from lowlight.data.pairs import files_of, read_manifest
from lowlight.workflows.benchmarking.material import frame_size, write_folder, write_frame, write_weights
from lowlight.workflows.benchmarking.processes import machine, run_task

Row = dict[str, Any]
OnRow = Callable[[Row], None]

CURVES: dict[str, tuple[float, ...]] = {
    "megapixels": (3, 6, 12, 25, 50, 100),
    "photos": (10, 25, 50, 100, 200),
    "batch": (1, 2, 3, 6, 9, 18),
    "frames": (1, 2, 4, 8, 16),
    "stride": (256, 200, 146, 110, 73),  # of tiles of 256: four times as many tiles, and more
}
SMALL_MEGAPIXELS = 0.5  # of the photos whose number makes a curve
TRAIN_BATCH, TRAIN_STEPS = 5, 3  # a step's patches, as in the thesis, and the steps of one run
FOLDER_JOBS = 1  # reading and writing threads, as by default
FEEDERS = 2  # threads that send and take pictures where no files are read and written
SIDES = ("plain", "lowlight")
MEASUREMENTS = ("plain", "forward", "train", "photos", "fed", "pieces", "pairs")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured. Impossible values raise `UsageError`."""

    weights: Path | None = None
    model: str | None = None  # random weights of this model; None: `weights`, else the default ones
    upscale: int = 1  # of a model with random weights
    megapixels: tuple[float, ...] = (12.0,)
    device: str = "auto"
    precision: str = "auto"
    strategy: str = "baseline"
    batch: int | None = None  # tiles at a time
    threads: int | None = None
    repeat: int = 5
    photos: int = 0  # of a folder job; 0: none is measured
    fed: bool = False  # the photos from memory to memory too, without reading and writing files
    jobs: int = FOLDER_JOBS  # reading and writing threads of a folder job
    plain: bool = False  # the plain pipeline too, in turn
    forward: bool = False
    train: bool = False
    pieces: bool = False
    pairs: Path | None = None  # a manifest or SID folder on which the cost of 16 bits is measured
    curve: str | None = None  # instead of all else

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.weights is not None and self.model is not None:
            raise UsageError("give either weights, or a model that gets random ones, not both")
        if self.curve is not None and self.curve not in CURVES:
            raise UsageError(f"there is no curve over {self.curve!r}; there are {', '.join(CURVES)}")
        if self.curve is not None and (idle := self._measured()):
            raise UsageError(f"a curve is measured alone; leave out {', '.join(f'--{name}' for name in idle)}")
        if self.upscale != 1 and self.model is None:
            raise UsageError("an upscale is of random weights, others have their own; name a model, or leave it out")
        if self.pairs is not None and self.model is not None:
            raise UsageError("random weights have nothing to lose on pairs; leave out the model, or name weights")
        if self.repeat < 1 or self.photos < 0:
            raise UsageError(f"{self.repeat} repeats of {self.photos} photos cannot be; expected at least 1 and 0")
        if self.jobs < 1 or (self.fed and not self.photos):
            raise UsageError("a folder job needs at least 1 job, and --fed the number of photos that --photos gives")
        if not self.megapixels:
            raise UsageError("no frame size is named; expected megapixels, as in 3,12")
        for size in self.megapixels:
            frame_size(size)

    def _measured(self) -> list[str]:
        """Which measurements were asked for, by name."""
        return [name for name in MEASUREMENTS if getattr(self, name)]


def files_read(config: BenchConfig) -> list[Path]:
    """The weights file and the pairs that are read, with the files of a manifest."""
    files = [] if config.model is not None else [find_weights(config.weights)]
    if config.pairs is None:
        return files
    rows = read_manifest(config.pairs) if config.pairs.is_file() else []
    return [*files, config.pairs, *files_of(rows)]


def run_benchmark(config: BenchConfig, on_row: OnRow = lambda row: None) -> dict[str, Any]:
    """Measure and give `machine`, `rows` (one a run) and `summary` (medians of runs, ratios of pairs).

    Rows hold `measure` (photo, forward, train, folder, pieces, precision), `side`, `at` (the value that a curve or a
    list of sizes goes over), and seconds, CPU seconds, MiB, and shares as each task gives them. `on_row` gets each as
    it comes.
    """
    with tempfile.TemporaryDirectory(prefix="lowlight-bench-") as folder:
        bench = _Bench(config, Path(folder))
        rows = []
        for row in bench.curve() if config.curve else bench.all():
            rows.append(row)
            on_row(row)
    return {"machine": machine(config.device, config.threads), "rows": rows, "summary": summary(rows)}


def summary(rows: list[Row]) -> list[Row]:
    """One line for each measure, side and value: medians over the runs; with a plain side, how much better ours is.

    `faster` and `faster_cpu` are medians of the ratios of neighbouring runs, plain over ours, `memory` ours over plain.
    """
    lines = []
    keys = list(dict.fromkeys((row["measure"], row["side"], row["at"]) for row in rows))
    for measure, side, at in keys:
        runs = _runs(rows, measure, side, at)
        line: Row = {"measure": measure, "side": side, "at": at, "runs": len(runs)}
        for name, value in runs[0].items():
            if name == "run":
                continue
            if isinstance(value, dict):
                line[name] = {key: statistics.median(run[name].get(key, 0.0) for run in runs) for key in value}
            elif isinstance(value, float):
                line[name] = statistics.median(run[name] for run in runs)
            elif name not in line:
                line[name] = value
        plain = _runs(rows, measure, "plain", at) if side == "lowlight" else []
        if plain:
            pairs = list(zip(plain, runs, strict=True))
            for name, value in (("faster", _wall(runs[0])), ("faster_cpu", "cpu_" + _wall(runs[0]))):
                line[name] = statistics.median(theirs[value] / ours[value] for theirs, ours in pairs)
            line["memory"] = statistics.median(ours["peak_mib"] / theirs["peak_mib"] for theirs, ours in pairs)
        lines.append(line)
    return lines


def _runs(rows: list[Row], measure: str, side: str, at: float | None) -> list[Row]:
    return [row for row in rows if (row["measure"], row["side"], row["at"]) == (measure, side, at)]


def _wall(row: Row) -> str:
    """The name under which a row has its seconds."""
    return next(name for name in ("seconds", "seconds_per_tile", "seconds_per_step") if name in row)


class _Bench:
    """The tasks of one benchmark, and the files they share."""

    def __init__(self, config: BenchConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        if config.model is not None:
            self.name, self.options = config.model, {"upscale": config.upscale, "init": "kaiming"}
            self.weights = folder / "random.safetensors"
            write_weights(self.weights, self.name, config.upscale)
        else:
            self.weights = find_weights(config.weights)
            header = read_header(self.weights)
            self.name, self.options = header["model"], header["config"]

    def all(self) -> Iterator[Row]:
        """Everything that was asked for."""
        config = self.config
        if config.pieces:
            yield from self._each("pieces", None, ("lowlight",), self._pieces)
        if config.forward:
            yield from self._each("forward", None, SIDES, lambda side: self._forward(side, config.batch))
            if config.precision == "auto":
                yield from self._each(
                    "forward-fp32", None, SIDES[1:], lambda side: self._forward(side, config.batch, "fp32")
                )
        if config.train:
            yield from self._each("train", None, SIDES, self._train)
        if config.photos:
            size = config.megapixels[0]
            yield from self._each("folder", size, SIDES[1:], lambda side: self._folder(config.photos, size))
            if config.fed:
                yield from self._each("fed", size, SIDES[1:], lambda side: self._fed(config.photos, size))
        if config.pairs is not None:
            row = run_task(
                "precision", config.threads, data=str(config.pairs), weights=str(self.weights), **self._place()
            )
            yield {"measure": "precision", "side": "lowlight", "at": None, "run": 0, **row}  # the same every time
        others = (config.forward, config.train, config.photos, config.pieces, config.pairs)
        if not any(others) or config.plain:
            for size in config.megapixels:
                sides = SIDES if config.plain else SIDES[1:]
                yield from self._each("photo", size, sides, lambda side, size=size: self._photo(side, size))  # type: ignore[misc]

    def curve(self) -> Iterator[Row]:
        """One thing after another grown, all else as it is."""
        config = self.config
        assert config.curve is not None
        measures: dict[str, tuple[str, Callable[[float], Row]]] = {
            "megapixels": ("photo", lambda at: self._photo("lowlight", at)),
            "photos": ("folder", lambda at: self._folder(int(at), SMALL_MEGAPIXELS)),
            "batch": ("forward", lambda at: self._forward("lowlight", int(at))),
            "frames": ("photo", lambda at: self._photo("lowlight", config.megapixels[0], frames=int(at))),
            "stride": ("photo", lambda at: self._photo("lowlight", config.megapixels[0], stride=int(at))),
        }
        measure, work = measures[config.curve]
        for at in CURVES[config.curve]:
            yield from self._each(measure, at, SIDES[1:], lambda side, at=at: work(at))  # type: ignore[misc]

    def _each(
        self, measure: str, at: float | None, sides: tuple[str, ...], work: Callable[[str], Row]
    ) -> Iterator[Row]:
        """Run a task on the sides in turn, again and again: what disturbs the machine then meets both."""
        for run in range(self.config.repeat):
            for side in sides:
                yield {"measure": measure, "side": side, "at": at, "run": run, **work(side)}

    def _photo(self, side: str, megapixels: float, **more: int) -> Row:
        values = run_task(
            "photo",
            self.config.threads,
            side=side,
            frame=str(self._frame(megapixels)),
            weights=str(self.weights),
            strategy=self.config.strategy,
            batch=self.config.batch,
            **self._place(),
            **more,
        )
        height, width = frame_size(megapixels)
        size = height * width / 1e6
        return {**values, "seconds_per_mp": values["seconds"] / size, "mib_per_mp": values["peak_mib"] / size}

    def _forward(self, side: str, batch: int | None, precision: str | None = None) -> Row:
        place = self._place()
        place["precision"] = precision or place["precision"]
        network = {"model": self.name, "options": self.options}
        return run_task("forward", self.config.threads, side=side, batch=batch, repeats=3, **network, **place)

    def _train(self, side: str) -> Row:
        network = {"model": self.name, "options": self.options}
        return run_task(
            "train", self.config.threads, side=side, batch=TRAIN_BATCH, steps=TRAIN_STEPS, **network, **self._place()
        )

    def _folder(self, photos: int, megapixels: float) -> Row:
        folder = self.folder / f"{photos}-{megapixels:g}"
        if not folder.is_dir():
            write_folder(folder, self._frame(megapixels), photos)
        return run_task(
            "folder",
            self.config.threads,
            folder=str(folder),
            weights=str(self.weights),
            strategy=self.config.strategy,
            jobs=self.config.jobs,
            **self._place(),
        )

    def _fed(self, photos: int, megapixels: float) -> Row:
        return run_task(
            "fed",
            self.config.threads,
            frame=str(self._frame(megapixels)),
            weights=str(self.weights),
            strategy=self.config.strategy,
            photos=photos,
            feeders=FEEDERS,
            **self._place(),
        )

    def _pieces(self, side: str) -> Row:
        height, width = frame_size(self.config.megapixels[0])
        return run_task("pieces", 1, height=height, width=width, repeats=5)

    def _place(self) -> dict[str, Any]:
        return {"device": self.config.device, "precision": self.config.precision}

    def _frame(self, megapixels: float) -> Path:
        path = self.folder / f"{megapixels:g}.dng"
        if not path.exists():
            write_frame(path, *frame_size(megapixels))
        return path
