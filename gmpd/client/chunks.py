"""What a worker runs for a piece of a ``map``: imported there, it knows no client.

An item that raises does not spoil its neighbours.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from gmpd.codec import FunctionRef, describe_function, encode_error

#: One call's positional arguments.
Item = tuple[Any, ...]


class Partly(NamedTuple):
    """The results of a chunk in which items raised: ``errors`` has ``codec.encode_error`` of each,
    by its place; there ``results`` holds None."""

    results: list[Any]
    errors: dict[int, bytes]


def run_chunk(fn: Callable[..., Any], items: list[Any]) -> list[Any] | Partly:
    """``fn(item)`` for each, in order."""
    results: list[Any] = []
    errors: dict[int, bytes] = {}
    left = iter(items)
    add = results.append
    while True:
        try:
            for item in left:
                add(fn(item))
            return Partly(results, errors) if errors else results
        except Exception as error:  # noqa: BLE001 - the job's own, whatever it is
            errors[len(results)] = encode_error(error)
            add(None)


def run_rows(fn: Callable[..., Any], items: list[Item]) -> list[Any] | Partly:
    """``fn(*item)`` for each, in order."""
    return run_chunk(lambda item: fn(*item), items)


async def run_rows_async(fn: Callable[..., Any], items: list[Item]) -> list[Any] | Partly:
    """``await fn(*item)`` for all at once."""
    results = await asyncio.gather(*(_outcome(fn, item) for item in items))
    errors = {
        place: encode_error(value.error)
        for place, value in enumerate(results)
        if type(value) is _Raised
    }
    if not errors:
        return results
    return Partly([None if at in errors else value for at, value in enumerate(results)], errors)


class _Raised(NamedTuple):
    error: Exception


async def _outcome(fn: Callable[..., Any], item: Item) -> Any:
    try:
        return await fn(*item)
    except Exception as error:  # noqa: BLE001 - the job's own, whatever it is
        return _Raised(error)


def describe_chunk(fn: Callable[..., Any], ref: FunctionRef, *, rows: bool) -> FunctionRef:
    """The function that runs chunks of ``fn``, under the name of ``fn``.

    ``rows``: its items are tuples of arguments, else each is the only argument.
    """
    run: Callable[..., Any]
    if inspect.iscoroutinefunction(fn):
        run = run_rows_async
    else:
        run = run_rows if rows else run_chunk
    return FunctionRef("pickle", ref.name, describe_function(functools.partial(run, fn)).payload)
