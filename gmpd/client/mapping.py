"""``map`` over a window: takes from the source only as many items as fit, so an endless one works.

``Sizer`` decides which items form a job, ``Plan`` counts the jobs that are out and collects their
results, ``MapRun`` orders them: the same in every face. ``Mapping`` adds a blocking client's wait,
``aiomap`` that of an asyncio one.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, Protocol, Self, TypeAlias

from gmpd import codec, spans
from gmpd.client.calls import insist, refuse_durable, wire_options
from gmpd.client.chunks import Chunk, Results, describe_chunk, runs_of
from gmpd.client.futures import JobFuture
from gmpd.client.progress import LOOK_S, Inside, Report, reporter
from gmpd.codec import Blob, FunctionRef
from gmpd.codec.interrupts import pass_on
from gmpd.submit.batch import Options
from gmpd.timeouts import checked

#: Items that are out at most: enough to keep a thousand requests in flight.
WINDOW_ITEMS = 1024
#: Of coroutines, which wait together and cost little meanwhile; as long as they are small.
WINDOW_COROUTINES = 16_384
#: Bytes of items that are out, arguments or results, estimated from earlier items.
WINDOW_BYTES = 16 << 20
#: Chunks that may be out however large they are, or few cores' worth would starve many; and items
#: beyond which even these are too many.
WINDOW_CHUNKS = 64
WINDOW_ITEMS_MAX = 1 << 18
#: Chunks that are out until it is known how long an item takes: a thousand of one item cost more
#: than a hundred thousand trivial items in larger ones.
PROBES = 16
#: Chunks that are out while the items are quick and the next chunks will be larger: enough for a
#: millisecond.
GROWING = 4
#: The time that an automatic chunk should take, in microseconds: long beside a round trip, short
#: enough for stealing to spread.
CHUNK_US = 3_000
#: Times of chunks are whole microseconds.
ITEM_US_MIN = 0.05
#: Largest automatic chunk: integers of that many items stay below the size at which a value is a
#: frame of its own.
CHUNK_ITEMS_MAX = 16_384
#: The bytes of an automatic chunk, arguments or results: limits are per value.
CHUNK_BYTES = 1 << 18
#: An automatic chunk grows by at most this factor over the last one that came back.
GROWTH = 16
#: Items, or bytes of arguments or results, from which on a ``map`` is looked at for hints.
HINT_ITEMS = 10_000
HINT_BYTES = 10 << 20
#: Of a source whose length is known, a chunk is at most this part: the last ones must spread.
PARTS = 32


#: The items of a chunk.
Items: TypeAlias = list[Any] | range


class Submitter(Protocol):
    """A blocking client, as a mapping needs it."""

    def submit_ref(
        self, ref: FunctionRef, options: dict[str, Any] | None, blob: Blob, *, wait: bool
    ) -> JobFuture: ...
    def forget_jobs(self, futures: Iterable[JobFuture]) -> None: ...
    def new_waiters(self) -> Any: ...


class Sizer:
    """How many items the next chunk has."""

    def __init__(
        self, chunksize: int | str, total: int | None, alone: bool, bound: int | None = None
    ) -> None:
        if chunksize != "auto" and (not isinstance(chunksize, int) or chunksize < 1):
            raise ValueError(f"chunksize={chunksize!r}: must be 'auto' or at least 1")
        self._auto = chunksize == "auto" and not alone
        self.size = chunksize if isinstance(chunksize, int) else 1
        self._most = CHUNK_ITEMS_MAX if total is None else max(1, total // PARTS)
        if bound is not None:  # some chunks of so few items, or one worker would have them all
            self.size = min(self.size, bound)
            self._most = min(self._most, max(1, bound // PROBES))
        self._item_us = 0.0
        #: Items of the largest chunk from which that is known.
        self._known_by = 0
        #: Chunks that have come back.
        self._seen = 0
        self._item_bytes = 0.0
        #: How many may be out, as the duration of an item is not known yet, or of too few.
        self.chunks = PROBES if self._auto else None

    @property
    def item_bytes(self) -> float:
        """The bytes of a recent item, arguments or result, whichever is more."""
        return self._item_bytes

    def weigh(self, items: int, nbytes: int) -> None:
        """Note the total size of the arguments, or results, of ``items``."""
        self._item_bytes = max(nbytes / items, (self._item_bytes * 3 + nbytes / items) / 4)

    def learn(self, items: int, ran_us: int) -> None:
        """``items`` took ``ran_us`` together."""
        if not self._auto:
            return
        one = max(ITEM_US_MIN, ran_us / items)
        if items >= self._known_by * GROWTH // 2:  # of few items most is the time around them
            self._item_us, self._known_by = one, items
        else:
            self._item_us = (self._item_us + one) / 2
        fit = min(CHUNK_US / self._item_us, CHUNK_BYTES / max(1.0, self._item_bytes))
        wanted = max(1, min(int(fit), self._most, CHUNK_ITEMS_MAX))
        self.size = min(wanted, items * GROWTH)
        self._seen += 1
        # A quick item may have been interrupted: it takes a few to know.
        probing = self._seen < PROBES and ran_us < CHUNK_US
        self.chunks = GROWING if self.size < wanted else PROBES if probing else None


_PER_ATTEMPT = frozenset({"isolate", "timeout", "kill_after", "retries", "limit", "expires"})


class Numbers:
    """The items of a range, given as ranges: a chunk of them is three numbers, however long."""

    def __init__(self, left: range) -> None:
        self._left = left

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        if not self._left:
            raise StopIteration
        return self.take(1)[0]

    def take(self, n: int) -> range:
        """The next ``n``, fewer at the end."""
        taken, self._left = self._left[:n], self._left[n:]
        return taken


class Plan:
    """The items that a ``map`` sends, their number, and their results. Never waits."""

    def __init__(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        iterables: Sequence[object],
        *,
        chunksize: int | str = "auto",
        buffersize: int | None = None,
        progress: bool | Report = False,
    ) -> None:
        checked_buffersize(buffersize)
        self._fn = fn
        self._options, self._plain, needs = wire_options(fn, overrides, of_chunks=True)
        self._ref = codec.describe_function(fn).needing(needs)
        refuse_durable(self._options, "map")
        #: Items are tuples of arguments; of a plain function with one argument, it alone.
        self._rows = len(iterables) != 1 or inspect.iscoroutinefunction(fn)
        total = _length(iterables)
        # Coroutines wait together anyway; a chunk of them would only delay each other's results.
        # Of isolated jobs, each item is to have a worker of its own. A time limit and retries are
        # an attempt's, and so is an item's only if each is a job.
        own = bool(self._options and not _PER_ATTEMPT.isdisjoint(self._options))
        self._waits = inspect.iscoroutinefunction(fn)
        self._sizer = Sizer(chunksize, total, self._plain or own or self._waits, buffersize)
        #: Items that may be out, or have results that were not taken, if the caller gave a limit.
        self._bound = buffersize
        #: Items per chunk, if the caller gave a number.
        self.fixed = self._sizer.size if isinstance(chunksize, int) else None
        self._report = reporter(progress, total)
        #: How often ``look`` is due while nothing ends (s); None: never.
        self.looks_s = LOOK_S if progress is True else None
        #: Futures in order of submission, and their numbers of items.
        self.out: dict[Any, int] = {}
        self._items_out = 0
        self._done = 0
        #: Of all chunks, needed by hints: microseconds that they ran, bytes of arguments, results.
        self._ran_us = self._argument_bytes = self._result_bytes = 0
        self._began = time.monotonic()
        #: The trace context of all chunks.
        self._header = b""
        if spans.LOADED in sys.modules:
            self._header = spans.submitted(self._ref.name, **{"gmpd.map": True})
        #: Seconds that the caller took between results.
        self._away_s = 0.0
        #: The exception of the source: raised after the results of earlier items, as by ``map``.
        self.source_error: Exception | None = None

    @functools.cached_property
    def _chunk_ref(self) -> codec.FunctionRef:
        return describe_chunk(self._fn, self._ref, rows=self._rows)

    def rows_sync(self, iterables: Sequence[Iterable[Any]]) -> Iterator[Any]:
        """Rows for ``call``, from iterables of arguments."""
        if self._rows:
            return zip(*iterables, strict=False)
        source = iterables[0]
        return Numbers(source) if type(source) is range and not self._plain else iter(source)

    async def rows_async(self, iterators: Sequence[AsyncIterator[Any]]) -> AsyncIterator[Any]:
        """The same from async iterators."""
        while True:
            try:
                row = [await anext(each) for each in iterators]
            except StopAsyncIteration:
                return
            yield tuple(row) if self._rows else row[0]

    def room(self) -> int:
        """Items of the next chunk; 0 while the window is full."""
        size = self._sizer.size
        chunks = len(self.out)
        items = self._items_out + size
        if self._bound is not None:
            full = items > self._bound
        else:
            full = items > self._window(items) and (
                chunks >= WINDOW_CHUNKS or items > WINDOW_ITEMS_MAX
            )
        most = self._sizer.chunks
        full = full or (most is not None and chunks >= most)
        return 0 if self.out and full else size

    def _window(self, items: int) -> int:
        small = items * self._sizer.item_bytes <= WINDOW_BYTES
        return WINDOW_COROUTINES if self._waits and small else WINDOW_ITEMS

    def call(self, chunk: Items) -> tuple[codec.FunctionRef, Options | None, codec.Blob]:
        """A chunk as a job, ready for the wire."""
        return insist(lambda: self._call(chunk))

    def _call(self, chunk: Items) -> tuple[codec.FunctionRef, Options | None, codec.Blob]:
        if len(chunk) == 1:
            item: Any = chunk[0]
            ref, args = self._ref, item if self._rows else (item,)
        else:
            ref, args = self._chunk_ref, (chunk,)
        blob = codec.encode_call(ref.name, args, {}, fn=self._fn, plain=self._plain)
        if self._header:
            blob = codec.carrying(spans.stamped(self._header), blob)
        self._sizer.weigh(len(chunk), blob.nbytes)
        self._argument_bytes += blob.nbytes
        return ref.needing(blob.needs), self._options, blob

    def sent(self, future: Any, items: int) -> None:
        """``future`` stands for a chunk of ``items`` items."""
        self.out[future] = items
        self._items_out += items

    def chunk(self, future: Any, value: Any, ran_us: int) -> Chunk:
        """The results of a chunk, whose size and time are noted."""
        items = self.out.pop(future)
        self._items_out -= items
        self._sizer.weigh(items, future._nbytes)
        self._sizer.learn(items, ran_us)
        self._done += items
        self._ran_us += ran_us
        self._result_bytes += future._nbytes
        if self._report is not None:
            self.look()
        return [value] if items == 1 else value

    def take(self, source: Iterator[Any], n: int) -> Items:
        """The next ``n`` of a source, fewer at its end. An error is an end, kept for
        later."""
        if type(source) is Numbers:
            return source.take(n)
        taken: list[Any] = []
        try:
            taken.extend(islice(source, n))  # keeps what it got before an error
        except Exception as error:  # noqa: BLE001 - the caller's own source
            pass_on(error)
            self.source_error = error
        return taken

    def look(self) -> None:
        """Report how far it is, and the jobs that run."""
        if self._report is not None:
            self._report(self._done, False, self._inside)

    def away(self, since: float) -> None:
        """The caller had results to work with since then."""
        self._away_s += time.monotonic() - since

    def hint(self) -> None:
        """All results were given: warn if most of the time went into their way."""
        nbytes = max(self._argument_bytes, self._result_bytes)
        if self._done < HINT_ITEMS and nbytes < HINT_BYTES:
            return
        from gmpd.client.hints import MapTotals, of, tell  # 5 ms that most programs do without

        totals = MapTotals(
            self._ref.name, self._done, self._ran_us / 1e6,
            time.monotonic() - self._began - self._away_s,
            self._argument_bytes, self._result_bytes,
        )  # fmt: skip
        totals.fix = self._faster(totals.fix)
        tell(of(totals))

    def _faster(self, otherwise: str) -> str:
        """The remedy for short calls."""
        if self.fixed is not None:
            return "leave chunksize out: then chunks get as large as it pays"
        if self._waits:
            return "make it a plain function, of which many travel in a chunk, as it hardly waits"
        if own := _PER_ATTEMPT.intersection(self._options or ()):
            return f"{', '.join(sorted(own))} makes each item a job: give each call a list of items"
        return otherwise

    def over(self) -> None:
        """The last report of the progress."""
        if self._report is not None:
            self._report(self._done, True, Inside)

    def _inside(self) -> Inside:
        return Inside(self.out.items())


class MapRun(ABC):
    """One ``map`` call, whatever waits for its results: sends what the window allows, and gives
    each chunk's results when they are due. A face adds its futures and its wait."""

    def __init__(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        iterables: tuple[Any, ...],
        *,
        ordered: bool = True,
        timeout: float | None = None,
        **how: Any,
    ) -> None:
        self._plan = Plan(overrides, fn, iterables, **how)
        self._ordered = ordered
        left_s = checked(timeout)
        self._end = None if left_s is None else time.monotonic() + left_s
        #: The source has no more items.
        self._over = False
        #: Futures in the order in which they ended; unless ``ordered``.
        self._ended: deque[Any] = deque()

    @abstractmethod
    def _take(self, size: int) -> Items:
        """Up to ``size`` items of the source; none while it has none ready, or is ``_over``."""

    @abstractmethod
    def _submit(self, ref: FunctionRef, options: Options | None, blob: Blob) -> Any:
        """Send a chunk; its future, which is put into ``_ended`` at its end unless ``_ordered``."""

    @abstractmethod
    def _outcome(self, future: Any) -> tuple[Any, int]:
        """The results of a chunk that has ended, and its microseconds; raises its error."""

    def _fill(self) -> bool:
        """Send as many items as the window allows; returns whether results are outstanding."""
        plan = self._plan
        while not self._over and (size := plan.room()) and (chunk := self._take(size)):
            plan.sent(self._submit(*plan.call(chunk)), len(chunk))
        return bool(plan.out) or not self._over

    def _due(self) -> Chunk | None:
        """The next chunk of results; None if it has to be waited for."""
        if not self._ordered:
            future = self._ended.popleft() if self._ended else None
        else:
            future = self._first()
            if future is not None and not future.done():
                return None
        if future is None:
            return None
        return self._plan.chunk(future, *self._outcome(future))

    def _first(self) -> Any:
        return next(iter(self._plan.out), None)

    def _left(self) -> float | None:
        """Seconds until it is to look whether something has ended; see ``_passed``."""
        left = None if self._end is None else max(0.0, self._end - time.monotonic())
        look = self._plan.looks_s
        return look if left is None or (look is not None and look < left) else left

    def _passed(self) -> None:
        """Nothing has ended in that time. Raises TimeoutError if that was all there was."""
        if self._end is not None and self._end <= time.monotonic():
            raise TimeoutError
        self._plan.look()

    def _finish(self) -> None:
        """All results were given: raises the error that ended the source early."""
        if self._plan.source_error is not None:
            raise self._plan.source_error


class Mapping(MapRun):
    """A blocking client's ``map``; ``run`` is its iterator."""

    def __init__(
        self,
        client: Submitter,
        overrides: Options | None,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        **how: Any,
    ) -> None:
        super().__init__(overrides, fn, iterables, **how)
        self._client = client
        self._source = self._plan.rows_sync(iterables)
        self._waiters: Any = None if self._ordered else client.new_waiters()

    def run(self) -> Results:
        """The results. Closing it early cancels what has not started."""
        return Results.of(self._chunks())

    def _chunks(self) -> Generator[Iterator[Any], None, None]:
        """The results, some at a time."""
        try:
            while self._fill():
                chunk = self._due()
                if chunk is None:
                    self._wait()
                else:
                    since = time.monotonic()
                    yield from runs_of(chunk)
                    del chunk
                    self._plan.away(since)
            self._finish()
        finally:
            self._client.forget_jobs(self._plan.out)  # the collector may be the caller
            self._plan.over()
        self._plan.hint()

    def _wait(self) -> None:
        if self._waiters is not None:
            if not self._waiters.wait_for(lambda: self._ended, self._left()):
                self._passed()
        elif not self._first().ended_within(self._left()):
            self._passed()

    def _take(self, size: int) -> Items:
        chunk = self._plan.take(self._source, size)
        self._over = len(chunk) < size
        return chunk

    def _submit(self, ref: FunctionRef, options: Options | None, blob: Blob) -> Any:
        future = self._client.submit_ref(ref, options, blob, wait=True)
        if not self._ordered:
            self._watch(future)
        return future

    def _outcome(self, future: Any) -> tuple[Any, int]:
        return future.result(0), future._ran_us

    def _watch(self, future: Any) -> None:
        """A waiter of ``concurrent.futures``, not a callback: it is told by the thread that settles
        the future."""
        with future._condition:
            if not future.done():
                future._waiters.append(self)
                return
        self.add_result(future)

    def add_result(self, future: Any) -> None:
        """A watched future has ended, in whatever way."""
        self._ended.append(future)
        self._waiters.notify_all()

    add_exception = add_cancelled = add_result


def checked_buffersize(buffersize: int | None) -> None:
    """In the words of ``concurrent.futures``."""
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def _length(iterables: Sequence[object]) -> int | None:
    try:
        lengths = [len(each) for each in iterables if isinstance(each, Sized)]
    except OverflowError:  # a range that is as good as endless
        return None
    return min(lengths) if lengths else None
