"""Results of a chunk, as ``map`` gives them: in order, released one by one, and closed early."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from gmpd.client.chunks import TOGETHER_MAX, Partly, Results, each, let_go, run_chunk
from gmpd.codec import encode_error


class Thing: ...


def some(ended: list[str]) -> Generator[Iterator[Any], None, None]:
    try:
        yield let_go([1, 2, 3])
        yield let_go(["a", "b"])
    finally:
        ended.append("ended")


def test_results_come_in_order_and_end() -> None:
    ended: list[str] = []
    results = Results.of(some(ended))
    assert list(results) == [1, 2, 3, "a", "b"]
    assert ended == ["ended"]
    results.close()


@pytest.mark.parametrize("taken", [0, 1, 3, 4])
def test_closed_results_have_no_further_ones(taken: int) -> None:
    """As a generator: also none of those that were there already."""
    ended: list[str] = []
    results = Results.of(some(ended))
    for _ in range(taken):
        next(results)
    results.close()
    assert list(results) == []
    assert ended == (["ended"] if taken else [])


def test_dropped_results_end_their_map() -> None:
    ended: list[str] = []
    results = Results.of(some(ended))
    next(results)
    del results
    assert ended == ["ended"]


def test_a_result_is_released_as_soon_as_its_caller_is_done_with_it() -> None:
    things = [Thing() for _ in range(3)]
    refs = [weakref.ref(thing) for thing in things]
    results = let_go(things)
    del things
    for place in range(3):
        next(results)
        assert [ref() is None for ref in refs] == [at <= place for at in range(3)]


def test_so_is_each_of_very_many_numbers() -> None:
    numbers = list(range(TOGETHER_MAX + 1))
    results = let_go(numbers)
    assert [next(results), next(results)] == [0, 1]
    assert len(numbers) == TOGETHER_MAX - 1


def test_an_error_comes_in_its_place() -> None:
    results = each(Partly([1, None, 3], {1: encode_error(LookupError("no second"))}))
    assert next(results) == 1
    with pytest.raises(LookupError, match="no second"):
        next(results)
    assert list(results) == []


def test_an_item_that_ends_iterations_does_not_end_its_chunk() -> None:
    """``map`` of builtins would end at it, and the items behind it would be missing."""

    def picky(x: int) -> int:
        if x == 1:
            raise StopIteration
        return x

    found = run_chunk(picky, range(3)).value
    assert isinstance(found, Partly)
    assert found.results == [0, None, 2]
    assert list(found.errors) == [1]
