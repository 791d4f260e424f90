"""The named ways of measuring: which pairs, at which size, rounded how. A number means nothing without its protocol.

Source: thesis, section on metrics (`half`, `patches`); C. Chen et al., Learning to See in the Dark, CVPR 2018, and
the papers that compare with it (`paper`, `first-frame`, `562`).
"""

from dataclasses import dataclass
from typing import Any, Literal

from lowlight.core.errors import UsageError

Size = Literal["half", "full"]
DEFAULT_PROTOCOL = "half"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way of measuring. `size` and `misaligned` are what holds unless the user asks for something else."""

    summary: str
    size: Size = "half"  # of the compared pictures: the packed size, or the sensor's
    bits: Literal[8, 16] = 16  # a picture is rounded to so many before it is measured
    misaligned: bool = False  # whether the three misaligned scenes take part
    first_frames: bool = False  # only the first frame of each burst
    tiles: bool = False  # unmerged tiles instead of whole pictures
    fixed: bool = False  # whether the choice of scenes is what the name stands for


PROTOCOLS: dict[str, Protocol] = {
    "half": Protocol(summary="packed size against half-size ground truths, as in the thesis"),
    "paper": Protocol(
        summary="the sensor's full size, every pair, pictures rounded to 8 bits", size="full", bits=8, misaligned=True
    ),
    "first-frame": Protocol(
        summary="as paper, on the first frame of each burst", size="full", bits=8, misaligned=True, first_frames=True
    ),
    "562": Protocol(
        summary="as paper, without the three misaligned scenes of the test set", size="full", bits=8, fixed=True
    ),
    "patches": Protocol(summary="packed size, each tile measured on its own, without merging", tiles=True),
}


def find_protocol(name: str) -> Protocol:
    """Find a protocol by its name; an unknown one raises `UsageError`."""
    if name not in PROTOCOLS:
        raise UsageError(f"There is no protocol {name!r}; there are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def protocol_facts(name: str, size: Size) -> dict[str, Any]:
    """Give what a report says of its protocol; another size than the protocol's own becomes part of the name."""
    protocol = find_protocol(name)
    return {
        "protocol": name if size == protocol.size else f"{name} at {size} size",
        "protocol_summary": protocol.summary,
        "size": size,
        "rounding": rounding_rule(protocol),
    }


def rounding_rule(protocol: Protocol) -> str:
    """Say in a sentence how values are rounded before they are compared."""
    halves = "halves are 2x2 means of encoded values, rounded to the nearest"
    if protocol.bits == 8:
        return f"pictures are rounded to 8 bits before they are compared with 16-bit truths; {halves}"
    return f"pictures and truths are compared as 16-bit values; {halves}"
