"""Cutting a list of work into parts for machines that do not talk to each other."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lowlight.core.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def size(self, total: int) -> int:
        """How many of `total` items this part holds."""
        return len(range(self.index - 1, total, self.count))


def parse_shard(text: str) -> Shard:
    """Read `I/N`, as in 3/8; `UsageError` for anything that names no part."""
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
    if found is None:
        raise UsageError(f"the shard is {text!r}; expected I/N, as in 1/4 for the first of four parts")
    part = Shard(int(found[1]), int(found[2]))
    if part.count < 1:
        raise UsageError(f"the shard is {text!r}; a job has at least one part, as in 1/1")
    if not 1 <= part.index <= part.count:
        raise UsageError(
            f"the shard is {text!r}; parts are counted from 1, so expected 1/{part.count} to {part.count}/{part.count}"
        )
    return part


def shard(items: Sequence[Item], part: Shard | str | None, key: Callable[[Item], Any] = str) -> list[Item]:
    """Give the items of one part, in the order of `items`; all of them where there is no part.

    Items are dealt out like cards in the order of their keys. So the parts of a job are disjoint, hold everything
    together and differ by at most one item, whatever the order in which a disk lists them, and a part that is run
    again is the same part. Keys must tell items apart and mean the same on every machine. The whole list is dealt
    out, not what is left of it to do: hand in the items whose results exist, too.
    """
    if part is None:
        return list(items)
    part = parse_shard(part) if isinstance(part, str) else part
    dealt = sorted(range(len(items)), key=lambda place: key(items[place]))[part.index - 1 :: part.count]
    return [items[place] for place in sorted(dealt)]
