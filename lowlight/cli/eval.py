"""`lowlight eval`: how close enhanced pictures are to the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lowlight.cli.eval_images import ImagesOption, SamplesOption, evaluate_image_weights, refuse_raw_options
from lowlight.cli.eval_tables import print_problems, print_report, print_reports, with_progress
from lowlight.cli.eval_values import expect_folders, expect_inputs, named_weights
from lowlight.core.errors import UsageError

ROW_SUFFIXES = (".jsonl", ".csv")


def evaluate_command(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="MANIFEST",
            help="CSV of pairs (scene,split,dark,bright,ratio,iso,burst_index), or a folder with SID's file names. For "
            "networks on digits: a folder with MNIST.",
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            envvar="LOWLIGHT_WEIGHTS",
            help="Weights file to score; repeat it to compare several. The files of a quoted pattern are versions of "
            "one model. A run's folder stands for its best.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", envvar="LOWLIGHT_MODEL", help="Shipped model to score."),
    ] = None,
    baseline: Annotated[
        Literal["amplified", "wavelet"] | None,
        typer.Option(envvar="LOWLIGHT_BASELINE", help="Score a classical method instead of a network."),
    ] = None,
    protocol: Annotated[
        Literal["half", "paper", "first-frame", "562", "patches"],
        typer.Option(
            envvar="LOWLIGHT_PROTOCOL",
            help="half: packed size, as the thesis. paper: full size, every pair, rounded to 8 bits. first-frame: so, "
            "first of each burst. 562: so, without the misaligned scenes. patches: unmerged tiles.",
        ),
    ] = "half",
    size: Annotated[
        Literal["half", "full"] | None,
        typer.Option(
            envvar="LOWLIGHT_SIZE",
            help="Compare at half the sensor's size (2x2 means), or at full size, whatever the protocol says.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            envvar="LOWLIGHT_SPLIT",
            help="train, val or test; default all of a manifest, test of a folder, train and val of digits, test and "
            "val of damaged digits.",
        ),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="LOWLIGHT_EXCLUDE", help="Leave out the scenes, files and pairs it lists."),
    ] = None,
    include_misaligned: Annotated[
        bool,
        typer.Option(
            "--include-misaligned", envvar="LOWLIGHT_INCLUDE_MISALIGNED", help="Keep SID's misaligned scenes."
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            envvar="LOWLIGHT_SHARD",
            help="Score part I of N only; the rows of all parts together are those of one run.",
        ),
    ] = None,
    versions: Annotated[
        bool,
        typer.Option(
            "--versions",
            envvar="LOWLIGHT_VERSIONS",
            help="Mean and deviation over all weights of the same model, configuration and objective.",
        ),
    ] = False,
    oracle_posterior: Annotated[
        bool,
        typer.Option(
            "--oracle-posterior",
            envvar="LOWLIGHT_ORACLE_POSTERIOR",
            help="Also score pictures whose latent comes from the truth.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            envvar="LOWLIGHT_JSON_FILE",
            help="Write rows, mean and settings to FILE; - for the standard output.",
        ),
    ] = None,
    rows_files: Annotated[
        list[Path] | None,
        typer.Option("--rows", metavar="FILE", envvar="LOWLIGHT_ROWS", help="Write the rows to FILE.jsonl or .csv."),
    ] = None,
    report_folder: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            envvar="LOWLIGHT_REPORT",
            help="Write DIR/index.html: tables, plots and a slider for each photo, in one file.",
        ),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--run", metavar="DIR", envvar="LOWLIGHT_RUN", help="Training run whose loss curves the report shows."
        ),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            metavar="all|NAME,...",
            envvar="LOWLIGHT_STRATEGIES",
            help="Compare tilings: all four, or some with commas between; seconds of predicting and merging apart.",
        ),
    ] = None,
    strategy: Annotated[
        Literal["baseline", "faster1", "faster2", "fastest"],
        typer.Option(envvar="LOWLIGHT_STRATEGY", help="Named grid and merge, from most careful to fastest."),
    ] = "baseline",
    ensemble: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|4|8",
            envvar="LOWLIGHT_ENSEMBLE",
            help="Turned views of a photo to average. Default: what the weights recommend.",
        ),
    ] = None,
    detail: Annotated[
        bool | None,
        typer.Option(envvar="LOWLIGHT_DETAIL", help="Bring back detail that stands above the noise."),
    ] = None,
    merge: Annotated[
        Literal["idw", "feather"] | None,
        typer.Option(envvar="LOWLIGHT_MERGE", help="How overlapping tiles are merged."),
    ] = None,
    power: Annotated[
        float | None, typer.Option(envvar="LOWLIGHT_POWER", help="Power of the inverse distance of idw.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(metavar="PX", envvar="LOWLIGHT_STRIDE", help="Largest step between tiles, packed pixels."),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(metavar="PX", envvar="LOWLIGHT_OVERLAP", help="Overlap of tiles, packed pixels."),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(envvar="LOWLIGHT_PRECISION", help="Number format of the network."),
    ] = "auto",
    device: Annotated[str, typer.Option(envvar="LOWLIGHT_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    batch: Annotated[int | None, typer.Option(min=1, envvar="LOWLIGHT_BATCH", help="Tiles computed at a time.")] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="LOWLIGHT_FIGURES",
            help="Networks on digits and faces: draw what fits them, such as latents, samples and edits; several that "
            "repair digits side by side.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", envvar="LOWLIGHT_SEED", help="Networks on digits: seed of samples, corruptions.")
    ] = 0,
    samples: SamplesOption = None,
    images: ImagesOption = None,
    pictures: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B",
            envvar="LOWLIGHT_PICTURES",
            help="Score the pictures of folder A against those of the same name in folder B, without a model.",
        ),
    ] = None,
) -> None:
    """Score networks on pairs of a dark and a bright frame, or two folders of pictures: PSNR, SSIM, MAE, colour error.

    Each dark frame is enhanced by its pair's ratio and compared with the bright picture. Weights of networks on
    digits are recognised, and scored beside the published numbers.

    Exit code 1 says that some pairs could not be scored.
    """
    if (data is None) == (pictures is None):
        raise UsageError("Name either a MANIFEST of pairs or two folders with --pictures A B.")
    if pictures is not None and (report_folder or rows_files or shard):
        raise UsageError("--report, --rows and --shard are about pairs; --pictures has a table and --json.")
    to_stdout = json_file is not None and str(json_file) == "-"
    expect_folders([*([] if json_file is None or to_stdout else [json_file]), *(rows_files or [])])
    for path in rows_files or []:
        if path.suffix.lower() not in ROW_SUFFIXES:
            raise UsageError(f"{path} has the suffix {path.suffix!r}; rows are written as {' or '.join(ROW_SUFFIXES)}.")
    from lowlight.core.compute import keep_freed_memory

    named = () if pictures is not None else named_weights(context, weights, model, baseline)
    expect_inputs(data, named)
    if data is not None and named:
        from lowlight.workflows.evaluating.image_models import are_image_weights, expand_patterns
        from lowlight.workflows.training.team import refuse_several_processes

        if are_image_weights(expand_patterns(named)):
            refuse_raw_options(context)
            refuse_several_processes("networks on pictures")
            keep_freed_memory()
            evaluate_image_weights(
                expand_patterns(named),
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
    from lowlight.workflows.evaluating.pair_lists import Selection
    from lowlight.workflows.evaluating.picture_folders import evaluate_pictures
    from lowlight.workflows.sharding import parse_shard
    from lowlight.workflows.training.team import refuse_several_processes

    parts = {"stride": stride, "overlap": overlap, "merge": merge, "power": power}
    if strategies is not None and any(value is not None for value in parts.values()):
        raise UsageError("--strategies names whole tilings; leave out --stride, --overlap, --merge and --power.")
    tiling = choose_tiling(strategy, **parts)  # type: ignore[arg-type]
    outcome = None
    if pictures is not None:
        refuse_several_processes("two folders of pictures")
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
                shard=None if shard is None else parse_shard(shard),
            ),
            strategies=strategies,
            versions=versions,
            rows=tuple(rows_files or ()),
            page=report_folder,
            runs=tuple(runs or ()),
        )
        keep_freed_memory()
        outcome = with_progress(lambda tick: run_evaluation(request, tick))
        if outcome is None:  # another process tells the results of all
            return
        reports = outcome.reports
        report = reports[0] if len(reports) == 1 else several_reports(reports, outcome.versions)
    if json_file is not None and not to_stdout:
        write_report(json_file, report)
    if to_stdout:
        typer.echo(report_json(report), nl=False)
    elif len(reports) == 1:
        print_report(report)
    else:
        print_reports(reports, report["versions"])
    if outcome and outcome.page:
        typer.echo(f"report: {outcome.page}", err=True)
    for each in reports:
        print_problems(each)
    if any(each["mean"]["failed"] for each in reports):
        raise typer.Exit(1)
