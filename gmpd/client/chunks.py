"""What a worker runs for a piece of a ``map``: imported there, it knows no client.

An item that raises, whatever it be, or whose result cannot be sent, does not spoil its neighbours.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from gmpd.codec import FunctionRef, OrElse, describe_function, encode_error, encode_result
from gmpd.errors import Unserializable

#: One call's positional arguments.
Item = tuple[Any, ...]


class Partly(NamedTuple):
    """The results of a chunk in which items raised: ``errors`` has ``codec.encode_error`` of each,
    by its place; there ``results`` holds None."""

    results: list[Any]
    errors: dict[int, bytes]


def run_chunk(fn: Callable[..., Any], items: list[Any]) -> OrElse:
    """``fn(item)`` for each, in order: a list, or ``Partly``."""
    results: list[Any] = []
    errors: dict[int, bytes] = {}
    left = iter(items)
    add = results.append
    while True:
        try:
            for item in left:
                add(fn(item))
            return _sendable(results, errors)
        except BaseException as error:  # noqa: BLE001 - the job's own, whatever it is
            errors[len(results)] = encode_error(error)
            add(None)


def run_rows(fn: Callable[..., Any], items: list[Item]) -> OrElse:
    """``fn(*item)`` for each, in order."""
    return run_chunk(lambda item: fn(*item), items)


async def run_rows_async(fn: Callable[..., Any], items: list[Item]) -> OrElse:
    """``await fn(*item)`` for all at once."""
    results = await asyncio.gather(*(_outcome(fn, item) for item in items))
    errors = {
        place: encode_error(value.error)
        for place, value in enumerate(results)
        if type(value) is _Raised
    }
    return _sendable([None if at in errors else value for at, value in enumerate(results)], errors)


class _Raised(NamedTuple):
    error: BaseException


async def _outcome(fn: Callable[..., Any], item: Item) -> Any:
    try:
        return await fn(*item)
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # the whole job is cancelled
        return _Raised(error)


def _sendable(results: list[Any], errors: dict[int, bytes]) -> OrElse:
    # Each is tried alone only if all together cannot be sent: it takes twice the time.
    whole = Partly(results, errors) if errors else results
    return OrElse(whole, functools.partial(_each_tried, results, errors))


def _each_tried(results: list[Any], errors: dict[int, bytes]) -> Partly:
    for place, value in enumerate(results):
        try:
            encode_result(value)
        except Unserializable as error:
            errors[place] = encode_error(error)
            results[place] = None
    return Partly(results, errors)


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
