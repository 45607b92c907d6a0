"""The key under which a function's traits are learned is that of what the user calls."""

from __future__ import annotations

import functools
import gc
import time
import weakref
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest

from gmpd.runtime.callee import DEPTH_MAX, fn_key, fn_name


def one() -> None:
    """A job."""


def two() -> None:
    """Another."""


def wraps(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


def bare(fn: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


def by_default(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, fn=fn: fn(*args)


class Calls:
    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)

    def method(self, *args: Any) -> Any:
        return self.fn(*args)


class Base:
    def run(self) -> None:
        self.step()

    def step(self) -> None:
        """To be overridden."""


class Derived(Base):
    pass


def generator(fn: Callable[..., Any]) -> Callable[..., Any]:
    def fast() -> Any:
        yield 1

    def slow() -> Any:
        yield 2

    source = fast() if fn is one else slow()

    def step() -> Any:
        return next(source)

    return step


WRAPPERS = {
    "functools.wraps": wraps,
    "no wraps": bare,
    "twice": lambda fn: wraps(bare(fn)),
    "a default": by_default,
    "partial": lambda fn: functools.partial(fn, 1),
    "partial of a wrapper": lambda fn: functools.partial(bare(fn), 1),
    "partial of Context.run": lambda fn: functools.partial(copy_context().run, fn, 1),
    "object": Calls,
    "bound method": lambda fn: Calls(fn).method,
    "lru_cache": functools.lru_cache,
    "the step of a generator": generator,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_two_functions_behind_one_code_object_have_two_keys(wrap: Callable[[Any], Any]) -> None:
    assert fn_key(wrap(one)) != fn_key(wrap(two))
    assert fn_key(wrap(one)) == fn_key(wrap(one))
    hash(fn_key(wrap(one)))


def test_one_function_has_one_key() -> None:
    assert fn_key(one) == one.__code__
    keys = {fn_key(lambda n=n: time.sleep(n)) for n in range(3)}
    assert len(keys) == 1
    assert fn_key(time.sleep) is time.sleep
    assert fn_key([].append) == fn_key([1].append)
    assert fn_key(Base().run) == fn_key(Base().run) != fn_key(Derived().run)
    assert fn_key(int) is int


def test_a_key_ends_in_a_circle_and_keeps_nothing_alive() -> None:
    def again() -> None:
        again()

    def ping() -> None:
        pong()

    def pong() -> None:
        ping()

    deep: Callable[..., Any] = one
    for _ in range(10 * DEPTH_MAX):
        deep = bare(deep)
    for fn in (again, ping, deep):
        hash(fn_key(fn))

    calls = Calls(one)
    gone = weakref.ref(calls)
    key = fn_key(calls.method), fn_key(calls), fn_key(functools.partial(calls))
    del calls
    gc.collect()
    assert key
    assert gone() is None


def test_a_key_runs_none_of_the_users_code() -> None:
    class Hostile:
        __slots__ = ()

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

        def __hash__(self) -> int:
            raise AssertionError

        def __eq__(self, other: object) -> bool:
            raise AssertionError(other)

        def __call__(self) -> None: ...

    hash(fn_key(Hostile()))
    hash(fn_key(Hostile().__call__))
    hash(fn_key(functools.partial(print, Hostile())))

    def early() -> None:
        late()

    hash(fn_key(early))  # its closure is empty still
    late = one


def test_a_name_is_that_of_the_function_in_a_partial() -> None:
    assert fn_name(functools.partial(functools.partial(one), 1)) == "one"
    assert fn_name(Calls(one)) == "Calls"
