"""The verbs of every client, and a client seen through job options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar

from gmpd.client.progress import Report
from gmpd.job import JobOptions
from gmpd.submit.batch import Options

Future = TypeVar("Future")
Results = TypeVar("Results")
Values = TypeVar("Values")
#: ``map`` reads items from these.
Source = TypeVar("Source")


class Face(ABC, Generic[Future, Results, Values, Source]):
    """The verbs of a client, the same for every way to wait: what they give is the client's own."""

    #: Job options that the daemon insists on: ``plain`` over a network, unless the key allows more.
    _forced: Options | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run ``fn(*args, **kwargs)`` on the daemon; its future, to be awaited in an AsyncClient.

        Raises Unserializable naming what cannot be sent, QueueFull (``on_full="raise"``),
        DaemonUnreachable, RuntimeError when closed.
        """
        return self.submit_with(self._forced, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Source,
        ordered: bool = True,
        chunksize: int | str = "auto",
        buffersize: int | None = None,
        timeout: float | None = None,
        progress: bool | Report = False,
    ) -> Results:
        """``fn`` over the items, lazily: a window of them is out at a time, so any length works.

        ``ordered=False`` gives results as they come. ``chunksize="auto"`` makes
        jobs of some milliseconds. ``buffersize``: the most items that are out, or have
        results that were not taken yet; by default about a thousand, of coroutines about 16,000
        while they are small. ``timeout``: seconds from now to the last result.
        ``progress``: True for a bar or lines on stderr, or a function of (done, total or None).
        Closing the iterator cancels what has not started. An AsyncClient takes async iterators too,
        and its results are for ``async for``.
        """
        return self.map_with(
            self._forced,
            fn,
            iterables,
            ordered=ordered,
            chunksize=chunksize,
            buffersize=buffersize,
            timeout=timeout,
            progress=progress,
        )

    def stream(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Values:
        """The values that the generator function ``fn`` yields, as they come."""
        return self.stream_with(self._forced, fn, args, kwargs)

    def enqueue(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Store ``fn(*args, **kwargs)`` as a durable job, to be run by the daemon whatever becomes
        of this program; its id, once it is on disk (to be awaited in an AsyncClient).

        Raises Unserializable naming what cannot be sent, GmpdError when the daemon keeps no durable
        jobs, with the reason.
        """
        return self.enqueue_with(self._forced, fn, args, kwargs)

    def enqueue_many(self, fn: Callable[..., Any], /, *iterables: Iterable[Any]) -> Any:
        """Store ``fn(*items)`` as a durable job for each item of the iterables, as ``map`` takes
        them; a list of their ids in that order, once all are on disk (to be awaited in an
        AsyncClient). Ten times as fast as one ``enqueue`` after the other.

        Raises as ``enqueue``; what was stored before the error stays stored.
        """
        return self.enqueue_many_with(self._forced, fn, iterables)

    def options(self, **options: Any) -> OptionsView[Future, Results, Values, Source]:
        """A view of this client that submits with job options (see ``gmpd.job``)."""
        return OptionsView(self, options)

    @abstractmethod
    def drain(self, timeout: float | None = None) -> Any:
        """Wait until every job has its outcome and every callback has returned (but the one that
        calls this); False when ``timeout`` seconds are not enough."""

    @abstractmethod
    def close(self, *, wait: bool = True, cancel: bool = False) -> Any:
        """Close: ``wait`` for all jobs, or abandon them; ``cancel`` those that have not started.

        Open streams are cancelled, as a stream without a reader would never end. May be called
        again: that finishes a close that was interrupted.
        """

    @abstractmethod
    def submit_with(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future:
        """``submit`` with job options that override the function's."""

    @abstractmethod
    def enqueue_with(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """``enqueue`` with job options that override the function's."""

    @abstractmethod
    def enqueue_many_with(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
    ) -> Any:
        """``enqueue_many`` with job options that override the function's."""

    @abstractmethod
    def map_with(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        iterables: tuple[Source, ...],
        **how: Any,
    ) -> Results:
        """``map`` with job options that override the function's."""

    @abstractmethod
    def stream_with(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Values:
        """``stream`` with job options that override the function's."""


class OptionsView(Generic[Future, Results, Values, Source]):
    """Shares everything but the options with its client."""

    def __init__(self, client: Face[Future, Results, Values, Source], options: Options) -> None:
        JobOptions().merged(**options)
        self._client = client
        self._options = options

    def options(self, **options: Any) -> Self:
        """More options on top."""
        return type(self)(self._client, {**self._options, **options})

    @property
    def _wanted(self) -> Options:
        forced = self._client._forced
        return self._options if forced is None else {**self._options, **forced}

    @property
    def whole(self) -> tuple[Any, Options]:
        """The client, and the options."""
        return self._client, self._wanted

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """As the client's."""
        return self._client.submit_with(self._wanted, fn, args, kwargs)

    def enqueue(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As the client's."""
        return self._client.enqueue_with(self._wanted, fn, args, kwargs)

    def enqueue_many(self, fn: Callable[..., Any], /, *iterables: Iterable[Any]) -> Any:
        """As the client's."""
        return self._client.enqueue_many_with(self._wanted, fn, iterables)

    def map(self, fn: Callable[..., Any], /, *iterables: Source, **how: Any) -> Results:
        """As the client's."""
        return self._client.map_with(self._wanted, fn, iterables, **how)

    def stream(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Values:
        """As the client's."""
        return self._client.stream_with(self._wanted, fn, args, kwargs)
