"""What a worker runs for a piece of a ``map``: imported there, it knows no client.

An item that raises does not spoil its neighbours: its error takes its place among the results.
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


class Failed(NamedTuple):
    """Stands among the results for an item that raised; ``error`` is ``codec.encode_error``'s."""

    error: bytes


def run_chunk(fn: Callable[..., Any], items: list[Item]) -> list[Any]:
    """``fn(*item)`` for each, in order."""
    results: list[Any] = []
    for item in items:
        try:
            results.append(fn(*item))
        except Exception as error:  # noqa: BLE001 - the job's own, whatever it is
            results.append(Failed(encode_error(error)))
    return results


async def run_chunk_async(fn: Callable[..., Any], items: list[Item]) -> list[Any]:
    """``await fn(*item)`` for all at once."""

    async def one(item: Item) -> Any:
        try:
            return await fn(*item)
        except Exception as error:  # noqa: BLE001 - as above
            return Failed(encode_error(error))

    return list(await asyncio.gather(*map(one, items)))


def describe_chunk(fn: Callable[..., Any], ref: FunctionRef) -> FunctionRef:
    """The function that runs chunks of ``fn``, under the name of ``fn``."""
    run = run_chunk_async if inspect.iscoroutinefunction(fn) else run_chunk
    return FunctionRef("pickle", ref.name, describe_function(functools.partial(run, fn)).payload)
