"""What can be typed after `lowlight eval`, option by option."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="MANIFEST",
        help="CSV of pairs (scene,split,dark,bright,ratio,iso,burst_index), or a folder with SID's file names. For "
        "networks on digits: a folder with MNIST.",
    ),
]
Weights = Annotated[
    list[Path] | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        envvar="LOWLIGHT_WEIGHTS",
        help="Weights file to score; repeat it to compare several. The files of a quoted pattern are versions of "
        "one model. A run's folder stands for its best.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", envvar="LOWLIGHT_MODEL", help="Shipped model to score."),
]
Baseline = Annotated[
    Literal["amplified", "wavelet"] | None,
    typer.Option(envvar="LOWLIGHT_BASELINE", help="Score a classical method instead of a network."),
]
Protocol = Annotated[
    Literal["half", "paper", "first-frame", "562", "patches"],
    typer.Option(
        envvar="LOWLIGHT_PROTOCOL",
        help="half: packed size, as the thesis. paper: full size, every pair, rounded to 8 bits. first-frame: so, "
        "first of each burst. 562: so, without the misaligned scenes. patches: unmerged tiles, of "
        "one view without detail.",
    ),
]
Size = Annotated[
    Literal["half", "full"] | None,
    typer.Option(
        envvar="LOWLIGHT_SIZE",
        help="Compare at half the sensor's size (2x2 means), or at full size, whatever the protocol says.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        envvar="LOWLIGHT_SPLIT",
        help="train, val or test; default all of a manifest, test of a folder, train and val of digits, test and "
        "val of damaged digits.",
    ),
]
Exclude = Annotated[
    Path | None,
    typer.Option(metavar="FILE", envvar="LOWLIGHT_EXCLUDE", help="Leave out the scenes, files and pairs it lists."),
]
Levels = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        envvar="LOWLIGHT_EVAL_LEVELS",
        help="Pin black and white of dark frames: sony-sid (512 and 16383).",
    ),
]
IncludeMisaligned = Annotated[
    bool,
    typer.Option("--include-misaligned", envvar="LOWLIGHT_INCLUDE_MISALIGNED", help="Keep SID's misaligned scenes."),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        envvar="LOWLIGHT_SHARD",
        help="Score part I of N only; the rows of all parts together are those of one run.",
    ),
]
Versions = Annotated[
    bool,
    typer.Option(
        "--versions",
        envvar="LOWLIGHT_VERSIONS",
        help="Mean and deviation over all weights of the same model, configuration and objective.",
    ),
]
OraclePosterior = Annotated[
    bool,
    typer.Option(
        "--oracle-posterior",
        envvar="LOWLIGHT_ORACLE_POSTERIOR",
        help="Also score pictures whose latent comes from the truth; both of one view without detail.",
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        envvar="LOWLIGHT_JSON_FILE",
        help="Write rows, mean and settings to FILE; - for the standard output.",
    ),
]
RowsFiles = Annotated[
    list[Path] | None,
    typer.Option("--rows", metavar="FILE", envvar="LOWLIGHT_ROWS", help="Write the rows to FILE.jsonl or .csv."),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="DIR",
        envvar="LOWLIGHT_REPORT",
        help="Write DIR/index.html: tables, plots and a slider for each photo, in one file.",
    ),
]
Runs = Annotated[
    list[Path] | None,
    typer.Option(
        "--run", metavar="DIR", envvar="LOWLIGHT_RUN", help="Training run whose loss curves the report shows."
    ),
]
Strategies = Annotated[
    str | None,
    typer.Option(
        metavar="all|NAME,...",
        envvar="LOWLIGHT_STRATEGIES",
        help="Compare tilings: all four, or some with commas between; seconds of predicting and merging apart.",
    ),
]
Frames = Annotated[
    str | None,
    typer.Option(
        metavar="K,...",
        envvar="LOWLIGHT_EVAL_FRAMES",
        help="Fuse the first K dark frames of each scene that has as many, such as 1,2,4: a row for each K.",
    ),
]
Strategy = Annotated[
    Literal["baseline", "faster1", "faster2", "fastest"],
    typer.Option(envvar="LOWLIGHT_STRATEGY", help="Named grid and merge, from most careful to fastest."),
]
Ensemble = Annotated[
    int | None,
    typer.Option(
        metavar="1|2|4|8",
        envvar="LOWLIGHT_ENSEMBLE",
        help="Turned views of a photo to average. Default: what the weights recommend.",
    ),
]
Detail = Annotated[
    bool | None,
    typer.Option(envvar="LOWLIGHT_DETAIL", help="Bring back detail that stands above the noise."),
]
Merge = Annotated[
    Literal["idw", "feather"] | None,
    typer.Option(envvar="LOWLIGHT_MERGE", help="How overlapping tiles are merged."),
]
Power = Annotated[float | None, typer.Option(envvar="LOWLIGHT_POWER", help="Power of the inverse distance of idw.")]
Stride = Annotated[
    int | None,
    typer.Option(metavar="PX", envvar="LOWLIGHT_STRIDE", help="Largest step between tiles, packed pixels."),
]
Overlap = Annotated[
    int | None,
    typer.Option(metavar="PX", envvar="LOWLIGHT_OVERLAP", help="Overlap of tiles, packed pixels."),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(envvar="LOWLIGHT_PRECISION", help="Number format of the network."),
]
Device = Annotated[str, typer.Option(envvar="LOWLIGHT_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
Batch = Annotated[int | None, typer.Option(min=1, envvar="LOWLIGHT_BATCH", help="Tiles computed at a time.")]
Figures = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar="LOWLIGHT_FIGURES",
        help="Networks on digits and faces: draw what fits them, such as latents, samples and edits; several that "
        "repair digits side by side.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**32 - 1,
        metavar="N",
        envvar="LOWLIGHT_SEED",
        help="Networks on digits: seed of samples, corruptions.",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        envvar="LOWLIGHT_EVAL_SAMPLES",
        help="Networks that fuse pictures: the whole measures, with so many samples (100), for each number of frames.",
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", envvar="LOWLIGHT_EVAL_IMAGES", help="So, on the first so many images; default all."
    ),
]
Pictures = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        metavar="A B",
        envvar="LOWLIGHT_PICTURES",
        help="Score the pictures of folder A against those of the same name in folder B, without a model.",
    ),
]
