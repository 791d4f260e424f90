"""What can be typed after `lowlight enhance`, option by option, in the groups of its help."""

from pathlib import Path
from typing import Annotated

import typer

SELECT, PICTURE, LIGHT, NETWORK = "Which photos", "The picture", "Light and colour", "Network and machine"
SCENES = "Several frames, several pictures"
MACHINES = "Several machines"

Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH...", help="RAW files, folders or patterns; - reads names from stdin."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", envvar="LOWLIGHT_OUTPUT", help="A folder, or a file for one photo."),
]
FromFile = Annotated[
    Path | None,
    typer.Option(
        envvar="LOWLIGHT_FROM_FILE",
        help="Read names from a file, one per line; - is stdin.",
        rich_help_panel=SELECT,
    ),
]
Recursive = Annotated[
    bool,
    typer.Option(
        "--recursive",
        "-r",
        envvar="LOWLIGHT_RECURSIVE",
        help="Go into folders; the tree is mirrored.",
        rich_help_panel=SELECT,
    ),
]
Fuse = Annotated[
    bool,
    typer.Option("--fuse", envvar="LOWLIGHT_FUSE", help="All photos are one scene.", rich_help_panel=SCENES),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="burst|folder",
        envvar="LOWLIGHT_GROUP",
        help="Bursts that are found, or the photos of each folder, are one scene.",
        rich_help_panel=SCENES,
    ),
]
Samples = Annotated[
    int,
    typer.Option(envvar="LOWLIGHT_SAMPLES", help="Draw so many hypotheses too.", rich_help_panel=SCENES),
]
Temperature = Annotated[
    float,
    typer.Option(envvar="LOWLIGHT_TEMPERATURE", help="Of the draws; 1 as trained.", rich_help_panel=SCENES),
]
FixFrom = Annotated[
    int | None,
    typer.Option(
        envvar="LOWLIGHT_FIX_FROM",
        help="Of a pyramid: draw only levels finer than this one.",
        rich_help_panel=SCENES,
    ),
]
Seed = Annotated[int, typer.Option(envvar="LOWLIGHT_SEED", help="Of the draws.", rich_help_panel=SCENES)]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        envvar="LOWLIGHT_OVERWRITE",
        help="Do photos again whose output exists.",
        rich_help_panel=SELECT,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        envvar="LOWLIGHT_DRY_RUN",
        help="Say what would be done.",
        rich_help_panel=SELECT,
    ),
]
ImageFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        envvar="LOWLIGHT_FORMAT",
        help="png (default), tiff, jpg, jxl, or dng (linear).",
        rich_help_panel=PICTURE,
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(
        envvar="LOWLIGHT_BITS",
        help="8 or 16 bits a channel; without it the most the format has.",
        rich_help_panel=PICTURE,
    ),
]
Quality = Annotated[
    int,
    typer.Option(envvar="LOWLIGHT_QUALITY", help="Of JPEG and 8-bit JPEG XL, 1 to 100.", rich_help_panel=PICTURE),
]
Compression = Annotated[
    str,
    typer.Option(
        envvar="LOWLIGHT_COMPRESSION",
        help="Of TIFF: zstd, deflate (read by every program) or none.",
        rich_help_panel=PICTURE,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        envvar="LOWLIGHT_SIZE",
        help="full or half of the sensor; without it what the weights give.",
        rich_help_panel=PICTURE,
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,W,H",
        envvar="LOWLIGHT_CROP",
        help="Only this window, for a quick look; in pixels of the upright picture of full size, whatever --size.",
        rich_help_panel=PICTURE,
    ),
]
ContactSheet = Annotated[
    bool,
    typer.Option(
        "--contact-sheet",
        envvar="LOWLIGHT_CONTACT_SHEET",
        help="Also write sheets with before and after.",
        rich_help_panel=PICTURE,
    ),
]
Ratio = Annotated[
    str,
    typer.Option(
        metavar="auto|N|same",
        envvar="LOWLIGHT_RATIO",
        help="Amplification: metered, a number, or one metered ratio for all.",
        rich_help_panel=LIGHT,
    ),
]
Stops = Annotated[
    float,
    typer.Option(envvar="LOWLIGHT_EV", help="Stops on top of the ratio.", rich_help_panel=LIGHT),
]
Balance = Annotated[
    str,
    typer.Option(
        metavar="camera|auto|daylight|R,G,B",
        envvar="LOWLIGHT_WB",
        help="White balance.",
        rich_help_panel=LIGHT,
    ),
]
Black = Annotated[
    float | None,
    typer.Option(envvar="LOWLIGHT_BLACK", help="Black level, instead of the file's.", rich_help_panel=LIGHT),
]
White = Annotated[
    float | None,
    typer.Option(envvar="LOWLIGHT_WHITE", help="White level, instead of the file's.", rich_help_panel=LIGHT),
]
Strength = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        envvar="LOWLIGHT_STRENGTH",
        help="1 is the network's picture, 0 plain amplification.",
        rich_help_panel=LIGHT,
    ),
]
Levels = Annotated[
    int,
    typer.Option(
        min=1,
        envvar="LOWLIGHT_LEVELS",
        help="Finest level of a pyramid that is run; 1 is all, more is a faster, softer preview.",
        rich_help_panel=NETWORK,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(envvar="LOWLIGHT_WEIGHTS", help="A weights file, or the folder of a run.", rich_help_panel=NETWORK),
]
Model = Annotated[
    str | None,
    typer.Option(envvar="LOWLIGHT_MODEL", help="Shipped weights by their model's name.", rich_help_panel=NETWORK),
]
Strategy = Annotated[
    str,
    typer.Option(
        envvar="LOWLIGHT_STRATEGY",
        help="baseline, faster1, faster2 or fastest: grid and merge as published.",
        rich_help_panel=NETWORK,
    ),
]
Ensemble = Annotated[
    int | None,
    typer.Option(
        metavar="1|2|4|8",
        envvar="LOWLIGHT_ENSEMBLE",
        help="Turned views of a photo to average: more are cleaner and slower; 1 is fastest. Default: what the weights "
        "recommend.",
        rich_help_panel=NETWORK,
    ),
]
Detail = Annotated[
    bool | None,
    typer.Option(
        envvar="LOWLIGHT_DETAIL",
        help="Bring back what the network smoothed away and stands above the noise. Default: what the weights say.",
        rich_help_panel=NETWORK,
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(envvar="LOWLIGHT_STRIDE", help="Largest step between tiles.", rich_help_panel=NETWORK),
]
Overlap = Annotated[
    int | None,
    typer.Option(envvar="LOWLIGHT_OVERLAP", help="Overlap of tiles, instead of a stride.", rich_help_panel=NETWORK),
]
Merge = Annotated[
    str | None,
    typer.Option(envvar="LOWLIGHT_MERGE", help="idw or feather.", rich_help_panel=NETWORK),
]
Power = Annotated[
    float | None,
    typer.Option(min=0, envvar="LOWLIGHT_POWER", help="Of the inverse distance.", rich_help_panel=NETWORK),
]
Device = Annotated[
    str,
    typer.Option(envvar="LOWLIGHT_DEVICE", help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=NETWORK),
]
Precision = Annotated[
    str,
    typer.Option(envvar="LOWLIGHT_PRECISION", help="auto, fp32, bf16 or fp16.", rich_help_panel=NETWORK),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="LOWLIGHT_BATCH",
        help="Tiles at a time; halved if memory runs out.",
        rich_help_panel=NETWORK,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        min=1,
        envvar="LOWLIGHT_JOBS",
        help="Threads that read, and as many that write.",
        rich_help_panel=NETWORK,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        envvar="LOWLIGHT_COMPILE",
        help="Compile the network first, which takes minutes once; for long runs on a GPU.",
        rich_help_panel=NETWORK,
    ),
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile", envvar="LOWLIGHT_PROFILE", help="Say where the time went, on stderr.", rich_help_panel=NETWORK
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        envvar="LOWLIGHT_SHARD",
        help="Do part I of N only; the parts together are one run.",
        rich_help_panel=MACHINES,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|ADDRESS",
        envvar="LOWLIGHT_RAY",
        help="Run on a Ray cluster, a worker for each GPU or core; auto finds one or starts one here.",
        rich_help_panel=MACHINES,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", envvar="LOWLIGHT_JSON", help="Print a JSON list, a row per photo.")]
