"""What the FusionVAE paper scored, to stand beside own rows.

Source: F. Duffhauss et al., "FusionVAE" (ECCV 2022), tables 1 to 5. The paper's column "avg" is not quite the mean of
the four columns before it, which own mean rows are: on FusionMNIST it counts no frames about 0.28 times, and the plain
means of FusionVAE would be 14.32 and 1.38.

The paper does not say over which pixels its MSE_min of FusionMNIST goes. It cannot be the 28x28 of the digits, which
own rows take: without frames FCN+S gives one picture for all digits, and no one picture is nearer to them than their
mean, 6.73 in these units; FCN+S has 5.80. Over the padded 32x32, whose border adds next to nothing, the mean of all
digits has 5.15. An own row times 784/1024 is then what the published one stands for.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lowlight.core.errors import UsageError

COLUMNS: tuple[int | str, ...] = (0, 1, 2, 3, "mean")  # numbers of frames
UNIT = 1e-2  # of all numbers below, as the paper prints them
SAMPLES = {"fusion-mnist": 1000, "fusion-celeba": 100, "fusion-tless": 100}

Scores = tuple[float, float, float, float, float]


class Published(NamedTuple):
    """NLL in 1e-2 bits per dimension and MSE_min in 1e-2, for each of `COLUMNS`; no NLL of models without latents."""

    nll: Scores | None
    mse_min: Scores


_CELEBA_FUSION = Published((248.1, 227.6, 231.2, 228.7, 233.9), (5.11, 0.88, 0.86, 0.84, 1.93))

PUBLISHED: dict[str, dict[str, Published]] = {
    "fusion-mnist": {
        "fcn": Published(None, (10.99, 5.81, 5.78, 5.79, 7.25)),
        "fcn-s": Published(None, (5.80, 3.74, 2.54, 1.78, 3.56)),
        "fusion-cvae": Published((17.81, 15.01, 14.07, 13.61, 15.23), (3.83, 1.72, 1.05, 0.80, 1.93)),
        "fusion-cvae-s": Published((18.43, 14.57, 13.18, 12.30, 14.77), (3.62, 1.75, 1.19, 0.97, 1.95)),
        "fusion": Published((15.93, 14.17, 13.70, 13.48, 14.39), (3.14, 0.99, 0.74, 0.65, 1.45)),
    },
    "fusion-celeba": {
        "fcn": Published(None, (13.77, 14.82, 13.10, 11.24, 13.23)),
        "fcn-s": Published(None, (12.56, 8.96, 6.06, 4.09, 7.92)),
        "fusion-cvae": Published((446.0, 280.1, 273.5, 266.5, 316.7), (9.23, 3.46, 2.27, 1.55, 4.14)),
        "fusion-cvae-s": Published((525.0, 270.1, 233.5, 203.5, 308.3), (11.08, 5.49, 3.66, 2.57, 5.71)),
        "fusion": _CELEBA_FUSION,
        "fusion q(x,y)": Published((309.2, 246.8, 211.1, 180.5, 237.0), (5.04, 1.50, 0.95, 0.66, 2.04)),
        "MaxAggAdd": _CELEBA_FUSION,
        "MeanAggAdd": Published((270.9, 223.3, 216.4, 214.4, 231.3), (5.41, 1.00, 0.79, 0.70, 1.98)),
        "BayAggAdd": Published((970.7, 294.0, 291.4, 291.5, 462.6), (6.03, 5.17, 5.10, 5.12, 5.36)),
        "MaxAggAll": Published((249.6, 236.0, 223.9, 212.7, 230.6), (6.15, 2.82, 1.84, 1.30, 3.03)),
        "MeanAggAll": Published((252.7, 235.2, 222.2, 213.5, 230.9), (6.19, 2.39, 1.52, 1.13, 2.81)),
        "BayAggAll": Published((255.6, 568.3, 414.7, 1376.9, 653.3), (5.10, 4.24, 1.96, 1.39, 3.18)),
    },
    "fusion-tless": {
        "fcn": Published(None, (5.83, 3.34, 2.37, 1.82, 3.35)),
        "fcn-s": Published(None, (8.06, 1.84, 1.13, 0.74, 2.97)),
        "fusion-cvae": Published((25.24, 23.73, 22.70, 23.13, 23.71), (5.57, 1.54, 0.77, 0.37, 2.08)),
        "fusion-cvae-s": Published((26.08, 24.94, 23.98, 23.95, 24.75), (4.95, 2.50, 1.77, 1.19, 2.62)),
        "fusion": Published((24.18, 23.07, 22.23, 22.88, 23.10), (4.11, 0.59, 0.32, 0.19, 1.32)),
    },
}


def published_rows(data: str, method: str) -> list[dict[str, Any]]:
    """The paper's rows of a method on a set, in the units of own rows: `frames`, `nll` and `mse_min`."""
    known = PUBLISHED.get(data)
    if known is None:
        raise UsageError(f"nothing is published for {data!r}; there are {', '.join(PUBLISHED)}")
    if method not in known:
        raise UsageError(f"nothing is published for {method!r} on {data}; there are {', '.join(known)}")
    found = known[method]
    nll: Sequence[float | None] = found.nll or (None,) * len(COLUMNS)
    return [
        {
            "frames": column,
            "nll": None if bits is None else round(bits * UNIT, 6),
            "mse_min": round(error * UNIT, 6),
        }
        for column, bits, error in zip(COLUMNS, nll, found.mse_min, strict=True)
    ]


def beside_published(rows: Sequence[dict[str, Any]], data: str, method: str) -> list[dict[str, Any]]:
    """Own rows with `published_nll` and `published_mse_min` where the paper has a row of as many frames.

    `published_samples` says of how many samples its MSE_min is the least: of more it is less.
    """
    published = {row["frames"]: row for row in published_rows(data, method)}
    joined = []
    for row in rows:
        other = published.get(row["frames"], {})
        scores = {f"published_{name}": other.get(name) for name in ("nll", "mse_min")}
        joined.append({**row, **scores, "published_samples": SAMPLES[data]})
    return joined
