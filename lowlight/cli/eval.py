"""`lowlight eval`: how close enhanced pictures are to the truth."""

from collections.abc import Sequence
from typing import Any

import typer

from lowlight.cli import eval_options as typed
from lowlight.cli.eval_images import evaluate_image_weights
from lowlight.cli.eval_refusals import refuse_idle_options, refuse_raw_options
from lowlight.cli.eval_tables import print_problems, print_report, print_reports
from lowlight.cli.eval_values import expect_folders, expect_inputs, frame_counts, named_weights
from lowlight.cli.progress import with_progress
from lowlight.core.errors import OutputError, UsageError

ROW_SUFFIXES = (".jsonl", ".csv")


def evaluate_command(
    context: typer.Context,
    data: typed.Data = None,
    weights: typed.Weights = None,
    model: typed.Model = None,
    baseline: typed.Baseline = None,
    protocol: typed.Protocol = "half",
    size: typed.Size = None,
    split: typed.Split = None,
    exclude: typed.Exclude = None,
    include_misaligned: typed.IncludeMisaligned = False,
    levels: typed.Levels = "",
    shard: typed.Shard = None,
    versions: typed.Versions = False,
    oracle_posterior: typed.OraclePosterior = False,
    json_file: typed.JsonFile = None,
    rows_files: typed.RowsFiles = None,
    report_folder: typed.ReportFolder = None,
    runs: typed.Runs = None,
    strategies: typed.Strategies = None,
    frames: typed.Frames = None,
    strategy: typed.Strategy = "baseline",
    ensemble: typed.Ensemble = None,
    detail: typed.Detail = None,
    merge: typed.Merge = None,
    power: typed.Power = None,
    stride: typed.Stride = None,
    overlap: typed.Overlap = None,
    precision: typed.Precision = "auto",
    device: typed.Device = "auto",
    batch: typed.Batch = None,
    figures: typed.Figures = None,
    seed: typed.Seed = 0,
    samples: typed.Samples = None,
    images: typed.Images = None,
    pictures: typed.Pictures = None,
) -> None:
    """Score networks on pairs of a dark and a bright frame, or two folders of pictures: PSNR, SSIM, MAE, colour error.

    Each dark frame is enhanced by its pair's ratio and compared with the bright picture. Weights of networks on
    digits are recognised, and scored beside the published numbers.

    Exit code 1 says that some pairs could not be scored, or that the data or the weights cannot be used; 2 that
    a path is not there or an option cannot be used so.
    """
    if (data is None) == (pictures is None):
        raise UsageError("Name either a MANIFEST of pairs or two folders with --pictures A B.")
    named = () if pictures is not None else named_weights(context, weights, model, baseline)
    baseline = None if named else baseline
    refuse_idle_options(context, baseline)
    to_stdout = json_file is not None and str(json_file) == "-"
    report_file = None if to_stdout else json_file
    expect_folders([*([] if report_file is None else [report_file]), *(rows_files or [])])
    for path in rows_files or []:
        if path.suffix.lower() not in ROW_SUFFIXES:
            raise UsageError(f"{path} has the suffix {path.suffix!r}; rows are written as {' or '.join(ROW_SUFFIXES)}.")
    expect_inputs(data, named)
    from lowlight.core.compute import keep_freed_memory

    if data is not None and named:
        from lowlight.workflows.evaluating.image_models import are_image_weights, expand_patterns
        from lowlight.workflows.team import refuse_several_processes

        files = expand_patterns(named)
        if are_image_weights(files):
            refuse_raw_options(context)
            refuse_several_processes("networks on pictures")
            keep_freed_memory()
            evaluate_image_weights(
                files,
                data,
                split=split,
                seed=seed,
                device=device,
                json_file=json_file,
                rows_files=rows_files or (),
                figures=figures,
                samples=samples,
                images=images,
            )
            return
    if samples is not None or images is not None:
        raise UsageError("--samples and --images are about networks that fuse pictures; leave them.")
    if figures is not None:
        raise UsageError("--figures is about networks on digits; for photos there is --report.")
    from lowlight.ops.strategies import choose_tiling
    from lowlight.workflows.evaluating.evaluate import report_json, several_reports, write_report
    from lowlight.workflows.evaluating.evaluation import Request, run_evaluation
    from lowlight.workflows.evaluating.methods import EvaluateOptions
    from lowlight.workflows.evaluating.own_inputs import refuse_own_inputs, refuse_strangers
    from lowlight.workflows.evaluating.pair_lists import Selection
    from lowlight.workflows.evaluating.picture_folders import evaluate_pictures
    from lowlight.workflows.sharding import parse_shard
    from lowlight.workflows.team import refuse_several_processes

    tiling = choose_tiling(strategy, stride=stride, overlap=overlap, merge=merge, power=power)
    outcome = None
    if pictures is not None:
        refuse_several_processes("two folders of pictures")
        written = [report_file] if report_file else []
        refuse_own_inputs(written, pictures)
        refuse_strangers(written)
        report: dict[str, Any] = with_progress(lambda tick: evaluate_pictures(*pictures, progress=tick))
        reports: Sequence[dict[str, Any]] = [report]
    else:
        assert data is not None
        request = Request(
            data=data,
            weights=named,
            options=EvaluateOptions(
                baseline=baseline,
                protocol=protocol,
                size=size,
                tiling=tiling,
                ensemble=ensemble,
                detail=detail,
                precision=precision,
                device=device,
                batch=batch,
                oracle=oracle_posterior,
            ),
            selection=Selection(
                split=split,
                exclude=exclude,
                include_misaligned=include_misaligned,
                levels=levels,
                shard=None if shard is None else parse_shard(shard),
            ),
            strategies=strategies,
            frames=() if frames is None else frame_counts(frames),
            versions=versions,
            rows=tuple(rows_files or ()),
            page=report_folder,
            report=report_file,
            runs=tuple(runs or ()),
        )
        keep_freed_memory()
        outcome = with_progress(lambda tick: run_evaluation(request, tick))
        if outcome is None:  # another process tells the results of all
            return
        reports = outcome.reports
        report = reports[0] if len(reports) == 1 else several_reports(reports, outcome.versions)
    if to_stdout:
        typer.echo(report_json(report), nl=False)
    elif len(reports) == 1:
        print_report(report)
    else:
        print_reports(reports, report["versions"])
    problems = list(outcome.problems) if outcome else []
    if report_file is not None:
        try:
            write_report(report_file, report)
        except OutputError as error:
            problems.append(str(error))
    if outcome and outcome.page:
        typer.echo(f"report: {outcome.page}", err=True)
    for each in reports:
        print_problems(each)
    if problems:
        raise OutputError(" ".join(problems))
    if any(each["mean"]["failed"] for each in reports):
        raise typer.Exit(1)
