"""An error that a signal handler raises in the codec, or in a source, is not taken for theirs."""

from __future__ import annotations

import functools
import signal
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gmpd.client.calls import prepare
from gmpd.client.mapping import Plan
from gmpd.codec import interrupts, stability, values


class Raised(TimeoutError, ValueError, TypeError):
    """The error that a handler raises."""


class Handler:
    def __init__(self) -> None:
        self.times = 0

    def raises(self, *_: object) -> None:
        self.times += 1
        raise Raised

    __call__ = raises


def function(*_: object) -> None:
    raise Raised


def once(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Raised


@pytest.fixture(
    params=[function, once, Handler(), Handler().raises, functools.partial(function, 1)],
    ids=["function", "once", "object", "method", "partial"],
)
def handler(request: pytest.FixtureRequest) -> Iterator[Any]:
    before = signal.signal(signal.SIGUSR1, request.param)
    yield request.param
    signal.signal(signal.SIGUSR1, before)


class Interrupted:
    """Its first pickling is interrupted; the next is not."""

    left = 1

    def __reduce__(self) -> tuple[Any, ...]:
        if self.left:
            self.left = 0
            signal.raise_signal(signal.SIGUSR1)
        return Interrupted, ()


def interrupted(*_: object, **__: object) -> Any:
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.usefixtures("handler")
def test_a_call_that_is_interrupted_while_it_is_pickled_raises_that() -> None:
    with pytest.raises(Raised):
        prepare(divmod, None, (Interrupted(), 1), {})


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize(
    "encode",
    [lambda: values.encode(1), lambda: prepare(abs, None, (1,), {})],
    ids=["value", "call"],
)
def test_a_value_that_is_interrupted_while_it_is_packed_raises_that(
    encode: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "_pack", interrupted)
    with pytest.raises(Raised):
        encode()


@pytest.mark.usefixtures("handler")
def test_a_name_that_is_interrupted_while_it_is_found_raises_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("a_module_of_its_own")
    module.__getattr__ = interrupted  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(Raised):
        stability.find(module.__name__, "anything")


@pytest.mark.usefixtures("handler")
def test_a_source_that_is_interrupted_raises_that_at_once() -> None:
    with pytest.raises(Raised):
        Plan(None, abs, ([],)).take(map(interrupted, [1, 2]), 2)


def test_what_the_code_itself_raises_is_its_own(handler: Any) -> None:
    def raises() -> None:
        raise Raised

    for fn in (raises, functools.partial(divmod, 1, 0)):
        try:
            fn()
        except Exception as error:
            interrupts.pass_on(error)
