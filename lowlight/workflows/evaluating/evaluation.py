"""One call of `lowlight eval` on pairs: what to score, the scores, and the files that are written of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lowlight.checkpoint import find_weights
from lowlight.core.atomic import remove_leftovers
from lowlight.core.errors import LowlightError, UsageError
from lowlight.data.pairs import files_of, read_manifest
from lowlight.workflows.evaluating.evaluate import Progress, Report, version_rows
from lowlight.workflows.evaluating.methods import EvaluateOptions
from lowlight.workflows.evaluating.own_inputs import refuse_own_inputs, refuse_strangers
from lowlight.workflows.evaluating.pair_lists import PairList, Selection, open_pair_list
from lowlight.workflows.evaluating.previews import PreviewBook
from lowlight.workflows.evaluating.protocols import find_protocol
from lowlight.workflows.evaluating.report_page import PAGE, read_curves, write_page, write_rows
from lowlight.workflows.evaluating.together import evaluate_together
from lowlight.workflows.evaluating.weight_lists import WeightsList, expand_weights, with_frames, with_strategies
from lowlight.workflows.training_log import LOG


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for. `weights` are files, patterns or names of shipped models; empty is the default one."""

    data: Path
    options: EvaluateOptions
    weights: tuple[Path, ...] = ()
    selection: Selection = field(default_factory=Selection)
    strategies: str | None = None  # all, or names with commas between
    frames: tuple[int, ...] = ()  # numbers of a scene's frames to fuse; empty: pairs of one
    versions: bool = False  # group weights of one model
    rows: tuple[Path, ...] = ()  # files to write the rows to
    page: Path | None = None  # folder to write the page into
    report: Path | None = None  # file that the caller writes the report to
    runs: tuple[Path, ...] = ()  # training runs whose curves the page shows

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All files that are written."""
        page = self.page / PAGE if self.page else None
        return (*self.rows, *(path for path in (self.report, page) if path))


@dataclass(frozen=True)
class Outcome:
    """One report per method, the groups of versions by name, the page where one was written, and what could not be."""

    reports: tuple[Report, ...]
    versions: dict[str, tuple[int, ...]]
    page: Path | None
    problems: tuple[str, ...] = ()


def run_evaluation(request: Request, progress: Progress | None = None) -> Outcome | None:
    """Score everything that was asked for, and write rows and page.

    Of several processes that torchrun started the first does so for all; the others give None.
    """
    options = request.options
    if options.baseline is not None and (request.strategies or request.versions):
        raise UsageError(f"The baseline {options.baseline} has no tiles and no versions; score a network.")
    if request.strategies and find_protocol(options.protocol).tiles:
        raise UsageError("The protocol patches measures tiles unmerged; strategies differ in how they merge.")
    if options.oracle and find_protocol(options.protocol).tiles:
        raise UsageError("--oracle-posterior compares whole pictures; use another protocol than patches.")
    if request.strategies and request.frames:
        raise UsageError("--strategies and --frames are two comparisons; leave out one of them.")
    selection = replace(request.selection, frames=max(request.frames, default=1))
    pairs = open_pair_list(request.data, find_protocol(options.protocol), selection)
    weights = expand_weights(request.weights or (), versions=request.versions)
    refuse_own_inputs(request.outputs, _inputs(request, pairs, weights))
    refuse_strangers(request.outputs)
    remove_leftovers(request.outputs)
    several = [replace(options, weights=file) for file in weights.files] or [options]
    lists = [[each] for each in several]
    if request.strategies:
        lists = [with_strategies(each, request.strategies) for each in several]
    elif request.frames:
        lists = [with_frames(each, request.frames) for each in several]
    several, copies = [each for each_list in lists for each in each_list], len(lists[0])
    groups = _groups(weights, several, copies)
    curves = read_curves(request.runs, [])  # a wrong folder is said before the work, not after it
    book = PreviewBook(len(pairs.rows)) if request.page else None
    reports = evaluate_together(pairs, several, progress, book)
    if reports is None:
        return None
    if request.selection.shard is not None:
        for row in (row for report in reports for row in report["rows"]):
            row["shard"] = str(request.selection.shard)
    problems: list[str] = []
    for path in request.rows:
        with _kept(problems):
            write_rows(path, reports)
    page = None
    if request.page:
        with _kept(problems):
            versions = version_rows(reports, groups)
            curves = [*curves, *read_curves((), reports)] if not request.runs else curves
            page = write_page(request.page, reports, book.photos if book else (), versions=versions, curves=curves)
    return Outcome(tuple(reports), groups, page, tuple(problems))


@contextmanager
def _kept(problems: list[str]) -> Iterator[None]:
    """Keep what cannot be written for the end: the scores are there, and took long."""
    try:
        yield
    except LowlightError as error:
        problems.append(str(error))


def _inputs(request: Request, pairs: PairList, weights: WeightsList) -> list[Path]:
    """All files and folders that are read, whether or not they are scored."""
    rows = pairs.every_row if request.data.is_dir() else read_manifest(request.data)
    files = [] if request.options.baseline else [find_weights(file) for file in weights.files or (None,)]
    logs = [folder / LOG for folder in (*request.runs, *(file.parent for file in files))]
    exclude = [request.selection.exclude] if request.selection.exclude else []
    return [request.data, *exclude, *files, *logs, *files_of(rows)]


def _groups(weights: WeightsList, several: Sequence[EvaluateOptions], copies: int) -> dict[str, tuple[int, ...]]:
    """The groups of files as groups of methods: one for each tiling, or number of frames."""
    if copies == 1:
        return weights.groups
    return {
        f"{name}, {each.strategy or each.frames_in_words}": tuple(copies * index + copy for index in members)
        for name, members in weights.groups.items()
        for copy, each in enumerate(several[:copies])
    }
