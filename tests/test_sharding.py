"""Parts of a job: everything once, whoever lists it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowlight.core.errors import UsageError
from lowlight.workflows.sharding import Shard, parse_shard, shard

NAMES = st.lists(st.text(max_size=6), unique=True, max_size=40)
COUNTS = st.integers(1, 9)


def parts(items: list[str], count: int) -> list[list[str]]:
    return [shard(items, Shard(index, count)) for index in range(1, count + 1)]


@given(NAMES, COUNTS)
def test_parts_are_disjoint_complete_and_balanced(items: list[str], count: int) -> None:
    cut = parts(items, count)
    assert sorted(item for part in cut for item in part) == sorted(items)
    sizes = [len(part) for part in cut]
    assert sizes == [Shard(index, count).size(len(items)) for index in range(1, count + 1)]
    assert max(sizes) - min(sizes) <= 1


@given(NAMES, COUNTS, st.randoms(use_true_random=False))
def test_the_order_of_listing_changes_no_part(items: list[str], count: int, random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [set(part) for part in parts(items, count)] == [set(part) for part in parts(shuffled, count)]


@given(NAMES, COUNTS)
def test_a_part_keeps_the_order_of_the_list(items: list[str], count: int) -> None:
    for part in parts(items, count):
        assert part == [item for item in items if item in part]


def test_neighbours_by_name_go_to_different_parts() -> None:
    assert shard(["d", "a", "c", "b", "e"], "1/2") == ["a", "c", "e"]
    assert shard(["d", "a", "c", "b", "e"], "2/2") == ["d", "b"]
    assert shard([3, 20, 1], "1/3", key=lambda item: item) == [1]


def test_no_part_is_everything_and_more_parts_than_items_leave_some_empty() -> None:
    assert shard(["b", "a"], None) == ["b", "a"]
    assert parts(["a"], 3) == [["a"], [], []]


@pytest.mark.parametrize(("text", "part"), [("1/1", (1, 1)), (" 3 / 8 ", (3, 8)), ("007/10", (7, 10))])
def test_good_shards(text: str, part: tuple[int, int]) -> None:
    assert parse_shard(text) == Shard(*part)
    assert parse_shard(str(parse_shard(text))) == Shard(*part)


@pytest.mark.parametrize("text", ["", "3", "1/", "/2", "0/4", "5/4", "1/0", "-1/4", "1.5/2", "a/b", "1/2/3", "١/٢"])
def test_bad_shards_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected|at least one"):
        parse_shard(text)
    with pytest.raises(UsageError):
        shard(["a"], text)
