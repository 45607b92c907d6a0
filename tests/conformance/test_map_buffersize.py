"""``Executor.map(buffersize=)`` as Python 3.14 has it, on every Python: CPython's cases, by name.

They are written down since most interpreters here are older. What is added: chunks, endings.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

import gmpd
from tests.support import wait_until


@pytest.fixture
def executor() -> Iterator[gmpd.Executor]:
    with gmpd.Executor(max_workers=2) as made:
        yield made


@pytest.mark.parametrize("buffersize", ["foo", 2.0])
def test_map_buffersize_type_validation(executor: gmpd.Executor, buffersize: Any) -> None:
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        executor.map(str, range(4), buffersize=buffersize)


@pytest.mark.parametrize("buffersize", [0, -1])
def test_map_buffersize_value_validation(executor: gmpd.Executor, buffersize: int) -> None:
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        executor.map(str, range(4), buffersize=buffersize)


def test_map_buffersize(executor: gmpd.Executor) -> None:
    ints = range(4)
    for buffersize in (1, 2, len(ints), len(ints) * 2):
        assert list(executor.map(str, ints, buffersize=buffersize)) == ["0", "1", "2", "3"]


def test_map_buffersize_on_multiple_iterables(executor: gmpd.Executor) -> None:
    ints = range(4)
    for buffersize in (1, 2, len(ints), len(ints) * 2):
        assert list(executor.map(pow, ints, ints, buffersize=buffersize)) == [1, 1, 4, 27]


def test_map_buffersize_on_infinite_iterable(executor: gmpd.Executor) -> None:
    results = executor.map(str, itertools.count(), buffersize=2)
    assert [next(results) for _ in range(3)] == ["0", "1", "2"]


def test_map_buffersize_on_multiple_infinite_iterables(executor: gmpd.Executor) -> None:
    results = executor.map(pow, itertools.count(), itertools.count(), buffersize=2)
    assert [next(results) for _ in range(4)] == [1, 1, 4, 27]


def test_map_buffersize_on_empty_iterable(executor: gmpd.Executor) -> None:
    assert next(executor.map(str, [], buffersize=2), None) is None


def test_map_buffersize_without_iterable(executor: gmpd.Executor) -> None:
    assert next(executor.map(str, buffersize=2), None) is None


def test_map_buffersize_when_buffer_is_full(executor: gmpd.Executor) -> None:
    ints = itertools.count()
    executor.map(str, ints, buffersize=4)
    executor.shutdown(wait=True)
    assert next(ints) == 4, "only so many are taken from the source"


def test_map_buffersize_when_an_item_raises(executor: gmpd.Executor) -> None:
    ints = iter([1, 2, 3, 0, 4, 5, 6, 7])
    results = executor.map((12).__floordiv__, ints, buffersize=2)
    assert [next(results) for _ in range(3)] == [12, 6, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(ints) == 6, "two ahead of what was taken, the one that raised included"
    assert next(results, None) is None, "it is over"


@pytest.mark.parametrize("chunksize", [2, 3, 7])
def test_a_task_is_a_chunk(executor: gmpd.Executor, chunksize: int) -> None:
    ints = itertools.count()
    results = executor.map(str, ints, buffersize=2, chunksize=chunksize)
    assert next(ints) == 2 * chunksize
    assert next(results) == "0"
    assert next(ints) == 3 * chunksize + 1
    assert list(executor.map(pow, range(9), range(9), buffersize=2, chunksize=chunksize)) == [
        i**i for i in range(9)
    ]


def test_a_map_that_is_not_read_keeps_no_more_than_its_buffer(executor: gmpd.Executor) -> None:
    results = executor.map(time.sleep, itertools.repeat(0.01), buffersize=3)
    for _ in range(10):
        assert next(results) is None
        assert executor._client._core.busy <= 4
    del results
    gc.collect()
    wait_until(lambda: executor._client._core.busy == 0, "what was out has ended or is cancelled")


def test_a_map_keeps_no_executor(executor: gmpd.Executor) -> None:
    """It gives what was out when that was dropped."""
    own = gmpd.Executor(max_workers=1)
    results = own.map(str, itertools.count(), buffersize=2)
    assert next(results) == "0"
    del own
    gc.collect()
    assert list(results) == ["1", "2"]


def test_a_timeout_counts_from_the_call(executor: gmpd.Executor) -> None:
    results = executor.map(time.sleep, [0, 6], buffersize=1, timeout=3.0)
    assert next(results) is None
    with pytest.raises(TimeoutError):
        next(results)
