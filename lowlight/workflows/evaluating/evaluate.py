"""Scoring networks and classical baselines on pairs of a dark RAW and its bright picture.

`evaluate` gives one method's report: a dictionary of plain values with `rows`, `mean`, `settings` and `statistics`.
`evaluate_methods` scores several methods on the same pairs, reading each pair once.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lowlight.burst import Burst, align
from lowlight.core.atomic import write_text
from lowlight.core.photo import RawFrame
from lowlight.data.pairs import Pair
from lowlight.metrics.histogram import BINS, jensen_shannon, luma_histogram
from lowlight.report.statistics import MEASURES, mean_row, over_versions, statistics
from lowlight.workflows.evaluating.methods import EvaluateOptions, Method, open_methods
from lowlight.workflows.evaluating.pair_lists import PairList, Selection, open_pair_list
from lowlight.workflows.evaluating.protocols import find_protocol, protocol_facts
from lowlight.workflows.evaluating.scoring import Pixels, Row, error_in, rounded_to_8_bits, score, surroundings
from lowlight.workflows.evaluating.validation import as_planes, gray_like, match_sizes

Progress = Callable[[int, int], None]  # pictures done, pictures in all
Report = dict[str, Any]


class Witness(Protocol):
    """Someone who wants to see the pictures while they are there."""

    def __call__(self, index: int, pair: Pair, pictures: dict[str, Pixels]) -> None:
        """Take the pair's number in the list, the pair, and its pictures by the names of their methods."""
        ...


def evaluate(
    data: Path, options: EvaluateOptions, progress: Progress | None = None, selection: Selection | None = None
) -> Report:
    """Enhance the dark frame of every pair by its ratio and score it against the bright one.

    `data` is a manifest or a folder with SID's names. Rows have `dark`, `scene`, `ratio`, `iso`, `psnr` (dB), `ssim`,
    `mae` (of encoded values in [0, 1]), `colour_error` (CIEDE2000 between 32x32 block means) and `seconds`
    (enhancing only, not aligning), and `frames` where several are fused; a pair that fails has `error` in their
    place. A measure that does not apply is None.
    """
    pairs = open_pair_list(data, find_protocol(options.protocol), selection)
    return evaluate_methods(pairs, [options], progress)[0]


def evaluate_methods(
    pairs: PairList,
    several: Sequence[EvaluateOptions],
    progress: Progress | None = None,
    witness: Witness | None = None,
) -> list[Report]:
    """Score several methods on the same pairs, under one protocol and size; one report each, in their order.

    Pairs are read one at a time, each once. `witness` sees what was made of every pair.
    """
    first = several[0]
    assert all((o.protocol, o.size) == (first.protocol, first.size) for o in several)
    methods = open_methods(list(several), pairs.facts.get("list_sha256"), pairs.hashes)
    studies = [_Study(method, first) for method in methods]
    total = len(pairs.rows) * len(methods)
    for index, row in enumerate(pairs.rows):
        scenes: _Scenes | None = None
        about: Row = {"dark": row.dark.name, "scene": row.scene, "ratio": row.ratio, "iso": row.iso}
        with error_in(about):
            pair = pairs.load(index, first.compared_size)
            scenes = _Scenes(pair)
            about |= {"ratio": pair.ratio, "iso": pair.frame.metadata.iso if row.iso is None else row.iso}
        pictures: dict[str, Pixels] = {}
        for number, study in enumerate(studies, start=1):
            made = study.add(dict(about), scenes)
            if made is not None:
                pictures[study.method.name] = made
            if progress:
                progress(index * len(methods) + number, total)
        if witness and pictures:
            witness(index, pair, pictures)
    shared = {**pairs.facts, **protocol_facts(first.protocol, first.compared_size), **surroundings()}
    return [study.report(shared) for study in studies]


class _Scenes:
    """A pair, and the scene that so many of its frames make, aligned once for all methods."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._aligned: dict[int, Burst] = {}

    def of(self, frames: int | None) -> RawFrame | Burst:
        """The frame of the pair, or its first so many frames on the grid of the first."""
        if frames is None:
            return self.pair.frame
        if frames not in self._aligned:
            self._aligned[frames] = align([self.pair.frame, *self.pair.others[: frames - 1]])
        return self._aligned[frames]


class _Study:
    """One method's rows, growing."""

    def __init__(self, method: Method, options: EvaluateOptions) -> None:
        self.method = method
        self.protocol = find_protocol(options.protocol)
        self.rows: list[Row] = []
        self.luminance = [torch.zeros(BINS, dtype=torch.int64) for _ in range(2)]  # pictures, truths

    def add(self, row: Row, scenes: _Scenes | None) -> Pixels | None:
        """Score one pair (None: it could not be read, and the row says why) and give its picture."""
        self.rows.append(row)
        if scenes is None:
            return None
        pair, picture = scenes.pair, None
        found: Row = {}  # a row has all of it, or an error in its place
        luminance = [torch.zeros_like(total) for total in self.luminance]
        with error_in(row):
            if self.method.network:
                self.method.network.take()
            scene = scenes.of(self.method.frames)
            if isinstance(scene, Burst):
                found["frames"] = len(scene.frames)  # those of another scene are left out
            began = time.perf_counter()
            if self.protocol.tiles:
                found |= self._tiles(pair, luminance)
            else:
                picture = self.method.picture(scene, pair.ratio)
                seconds = time.perf_counter() - began
                found |= {**self._score(picture, pair.truth, luminance), "seconds": round(seconds, 3)}
            if self.method.network and self.method.merge:
                found["predict_seconds"] = round(self.method.network.take(), 4)
                found["merge_seconds"] = 0.0 if self.protocol.tiles else round(self.method.merge.seconds(pair.frame), 4)
            if self.method.oracle:
                oracle = score(self.method.oracle(pair), pair.truth, self.protocol.bits)
                found |= {f"oracle_{name}": oracle[name] for name in ("psnr", "ssim", "mae")}
        if "error" in row:
            return None
        row |= found
        for total, more in zip(self.luminance, luminance, strict=True):
            total += more
        return picture

    def _tiles(self, pair: Pair, luminance: list[Tensor]) -> Row:
        assert self.method.tiles is not None
        scores = [self._score(picture, truth, luminance) for picture, truth in self.method.tiles(pair)]
        means = mean_row(scores)
        return {**{name: means[name] for name in MEASURES}, "tiles": len(scores)}

    def _score(self, picture: Pixels, truth: Pixels, luminance: list[Tensor]) -> Row:
        values = score(picture, truth, self.protocol.bits)
        picture, truth = match_sizes(picture, gray_like(picture, truth))
        if self.protocol.bits == 8:
            picture = rounded_to_8_bits(picture)
        for total, pixels in zip(luminance, (picture, truth), strict=True):
            total += luma_histogram(as_planes(pixels))
        return values

    def report(self, shared: dict[str, Any]) -> Report:
        """Put together what was found."""
        numbers = statistics(self.rows)
        ours, theirs = self.luminance
        numbers["luminance"] = {
            "jsd": jensen_shannon(ours, theirs) if int(ours.sum()) else None,
            "pictures": ours.tolist(),
            "truths": theirs.tolist(),
        }
        settings = {"name": self.method.name, **shared, **self.method.settings}
        return {"rows": self.rows, "mean": mean_row(self.rows), "settings": settings, "statistics": numbers}


def several_reports(reports: Sequence[Report], groups: Mapping[str, Sequence[int]] | None = None) -> Report:
    """Put the reports of several methods on the same pairs into one: `methods`, `table`, `versions`, `settings`.

    `groups` are the indices of the reports that are versions of one model, by the model's name. `settings` is what
    all have in common.
    """
    common = {
        key: value
        for key, value in reports[0]["settings"].items()
        if all(report["settings"].get(key) == value for report in reports)
    }
    table = [{**_about(report["settings"]), **report["mean"]} for report in reports]
    versions = version_rows(reports, groups or {})
    return {"methods": list(reports), "table": table, "versions": versions, "settings": common}


def version_rows(reports: Sequence[Report], groups: Mapping[str, Sequence[int]]) -> list[Row]:
    """One row per model: its `name`, the `files` of its versions, their `count`, `mean` and `deviation`."""
    rows = []
    for name, group in groups.items():
        members = [reports[index] for index in group]
        files = [member["settings"]["name"] for member in members]
        rows.append({"name": name, "files": files, **over_versions([member["mean"] for member in members])})
    return rows


def _about(settings: dict[str, Any]) -> dict[str, Any]:
    keys = ("name", "model", "preset", "objective", "strategy", "chosen_on_test", "chosen")
    return {key: settings.get(key) for key in keys}


def report_json(report: Report) -> str:
    """A report as JSON text."""
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(path: Path, report: Report) -> None:
    """Write a report as JSON; `path` appears whole or not at all."""
    write_text(path, report_json(report))
