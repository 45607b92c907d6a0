"""A client seen through job options: the same for every face, whatever its methods give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, Self, TypeVar

from gmpd.job import JobOptions
from gmpd.submit.batch import Options

Future = TypeVar("Future", covariant=True)
Results = TypeVar("Results", covariant=True)
Values = TypeVar("Values", covariant=True)


class Face(Protocol[Future, Results, Values]):
    """What a view needs of its client."""

    def submit_with(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future: ...

    def map_with(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        iterables: tuple[Any, ...],
        **how: Any,
    ) -> Results: ...

    def stream_with(
        self,
        overrides: Options | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Values: ...


class OptionsView(Generic[Future, Results, Values]):
    """Shares everything but the options with its client."""

    def __init__(self, client: Face[Future, Results, Values], options: Options) -> None:
        JobOptions().merged(**options)
        self._client = client
        self._options = options

    def options(self, **options: Any) -> Self:
        """More options on top."""
        return type(self)(self._client, {**self._options, **options})

    @property
    def whole(self) -> tuple[Any, Options]:
        """The client, and the options."""
        return self._client, self._options

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """As the client's."""
        return self._client.submit_with(self._options, fn, args, kwargs)

    def map(self, fn: Callable[..., Any], /, *iterables: Any, **how: Any) -> Results:
        """As the client's."""
        return self._client.map_with(self._options, fn, iterables, **how)

    def stream(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Values:
        """As the client's."""
        return self._client.stream_with(self._options, fn, args, kwargs)
