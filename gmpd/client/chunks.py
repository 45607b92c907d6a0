"""The function that a worker runs for a chunk of a ``map``; it imports no client.

An item that raises, whatever it be, or whose result cannot be sent, does not spoil its neighbours.
Results that are too large together, and not each by itself, come in parts.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, repeat, starmap
from typing import Any, NamedTuple, Self, TypeAlias, cast

from gmpd import codec
from gmpd.codec import (
    Blob,
    FunctionRef,
    OrElse,
    Parts,
    describe_function,
    encode_error,
    encode_result,
    own_error,
    too_large,
)
from gmpd.errors import LimitPassed, Unserializable

#: One call's positional arguments.
Item = tuple[Any, ...]


class Partly(NamedTuple):
    """The results of a chunk in which items raised: ``errors`` has ``codec.encode_error`` of each,
    by its place; there ``results`` holds None."""

    results: list[Any]
    errors: dict[int, bytes]


def run_chunk(fn: Callable[..., Any], items: Iterable[Any]) -> OrElse:
    """``fn(item)`` for each, in order: a list, or ``Partly``."""
    results: list[Any] = []
    errors: dict[int, bytes] = {}
    left = iter(items)
    while True:
        try:
            for item in left:
                results.append(fn(item))  # noqa: PERF401 - keeps what there is before an error
            return sendable(results, errors)
        except LimitPassed:
            raise  # the limit of the chunk, which is no error of the item that it came upon
        except BaseException as error:  # noqa: BLE001 - the job's own, whatever it is
            errors[len(results)] = encode_error(error)
            results.append(None)


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
    return sendable([None if at in errors else value for at, value in enumerate(results)], errors)


async def run_items_async(fn: Callable[..., Any], items: list[Any]) -> OrElse:
    """``await fn(item)`` for all at once."""
    return await run_rows_async(fn, [(item,) for item in items])


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


def sendable(results: list[Any], errors: dict[int, bytes]) -> OrElse:
    """The results; if they cannot be sent together, those that can, with errors for the others."""
    # They are tried alone only if all together cannot be sent: it takes twice the time.
    whole = Partly(results, errors) if errors else results
    return OrElse(whole, functools.partial(_in_parts, results, errors))


def _in_parts(results: list[Any], errors: dict[int, bytes], limit: int | None) -> Parts:
    """First the places of the errors, then these, then lists of results, all in order."""
    errors = dict(errors)
    lists = list(_fitting(results, 0, errors, limit))
    places = sorted(errors)
    return Parts([encode_result(places), *(Blob(errors[place]) for place in places), *lists])


def _fitting(
    results: list[Any], first: int, errors: dict[int, bytes], limit: int | None
) -> Iterator[Blob]:
    """``results``, the first of which has place ``first``, as few lists that can be sent."""
    if len(results) == 1:
        refusal = _refusal(results[0], limit)
        if refusal is not None:
            errors[first] = encode_error(refusal)
        yield encode_result(results if refusal is None else [None])
        return
    try:
        blob = encode_result(results)
        if limit is None or blob.nbytes <= limit:
            yield blob
            return
    except Unserializable:
        pass
    half = len(results) // 2
    yield from _fitting(results[:half], first, errors, limit)
    yield from _fitting(results[half:], first + half, errors, limit)


def _refusal(result: Any, limit: int | None) -> BaseException | None:
    """Why one result cannot be sent."""
    try:
        nbytes = encode_result(result).nbytes
    except Unserializable as error:
        return own_error(error)
    return None if limit is None or nbytes <= limit else Unserializable(too_large(nbytes, limit))


#: Some results of a chunk: a list, or what unpickles them, or raises what the next item raised.
Piece = list[Any] | Callable[[], list[Any]]
#: The results of a chunk as its job sent them.
Chunk: TypeAlias = list[Any] | Partly | Parts


class Results(chain[Any]):
    """The results of a ``map``, without a step of Python for each. Closed as a generator is."""

    _chunks: Generator[Iterator[Any], None, None]

    @classmethod
    def of(cls, chunks: Generator[Iterator[Any], None, None]) -> Self:
        """The results that ``chunks`` gives, some at a time."""
        results: Any = cls.from_iterable(chunks)
        results._chunks = chunks
        return cast("Self", results)

    def close(self) -> None:
        """End it: there are no further results."""
        self._chunks.close()
        deque(self, maxlen=0)  # the rest of what was given last


def each(chunk: Chunk) -> Iterator[Any]:
    """The results of a chunk, in order; raises the error of the first item that failed."""
    return chain.from_iterable(runs_of(chunk))


def runs_of(chunk: Chunk) -> Iterator[Iterator[Any]]:
    """As ``each``, some at a time."""
    for piece in pieces(chunk):
        yield let_go(piece if isinstance(piece, list) else piece())


def pieces(chunk: Chunk) -> Iterator[Piece]:
    """The results of a chunk in order: those that are there, and those to be unpickled, of which
    each is to be called before the next one is asked for."""
    if isinstance(chunk, Parts):
        yield from _pieces_of_parts(chunk.parts)
    elif isinstance(chunk, Partly):
        first = min(chunk.errors)
        yield chunk.results[:first]
        yield _failing(chunk.errors[first])
    else:
        yield chunk


def _pieces_of_parts(parts: list[Blob]) -> Iterator[Piece]:
    places = codec.decode(*parts[0])
    first, at = min(places, default=None), 0
    sizes: list[int] = []

    def open_part(blob: Blob) -> list[Any]:
        results: list[Any] = codec.decode(*blob)
        sizes.append(len(results))
        return results if first is None else results[: first - at]

    for blob in parts[1 + len(places) :]:
        yield functools.partial(open_part, blob)
        at += sizes.pop()
        if first is not None and at > first:
            yield _failing(parts[1].data)


def _failing(error: bytes) -> Callable[[], list[Any]]:
    def fail() -> list[Any]:
        raise codec.decode_error(error)

    return fail


#: Results that may stay until the last of them is taken, and their types.
TOGETHER_MAX = 65_536
_TOGETHER = frozenset({type(None), bool, int, float})


def let_go(results: list[Any]) -> Iterator[Any]:
    """One by one, each released as soon as the caller has it; numbers together, as their list is
    read twice as fast."""
    if not results or (type(results[0]) in _TOGETHER and len(results) <= TOGETHER_MAX):
        return iter(results)
    results.reverse()
    return starmap(results.pop, repeat((), len(results)))


def describe_chunk(fn: Callable[..., Any], ref: FunctionRef, *, rows: bool) -> FunctionRef:
    """The function that runs chunks of ``fn``, under the name of ``fn``.

    ``rows``: its items are tuples of arguments, else each is the only argument.
    """
    run: Callable[..., Any]
    if inspect.iscoroutinefunction(fn):
        run = run_rows_async
    else:
        run = run_rows if rows else run_chunk
    return describe_function(functools.partial(run, fn))._replace(name=ref.name)
