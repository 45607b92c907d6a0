"""The function behind a call: the key under which its traits are learned, and its name.

The key stands for the function that the user calls. A decorator's wrapper is one code object for
all functions that it wraps, and so is a trampoline (``partial(context.run, fn)``, an object that
calls the function it was made with): a key of the outermost code alone would treat all of them as
the first one behaved. So a key holds the code, and the keys of the callables that the code reaches
without its arguments: closure, defaults, a partial's arguments, an object's attributes.

Only codes, types and builtins are in a key, never an object of the user's: it keeps nothing alive.
It runs none of the user's code. Rejected: the function object itself (a lambda made anew for each
call would never be known), and ``__wrapped__`` alone (half of all decorators do not set it).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from itertools import islice
from types import BuiltinMethodType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

#: A wrapper of a wrapper of … is followed so far.
DEPTH_MAX = 6
#: How many of the callables that one callable reaches count.
REACHED_MAX = 8


def fn_key(fn: Callable[..., Any]) -> Hashable:
    """Which function a call of ``fn`` runs. Equal for two lambdas of one line, different for two
    functions under one decorator.
    """
    if (
        fn.__class__ is FunctionType
        and fn.__closure__ is None
        and fn.__defaults__ is None
        and fn.__kwdefaults__ is None
    ):
        return fn.__code__
    return _key(fn, DEPTH_MAX)  # type: ignore[no-any-return]


def fn_name(fn: Callable[..., Any]) -> str:
    """The function in words; of a partial, the one that it calls."""
    while isinstance(fn, partial):
        fn = fn.func
    return str(getattr(fn, "__qualname__", type(fn).__name__))


def _key(fn: Any, depth: int) -> Any:
    if not depth:
        return type(fn)
    if isinstance(fn, partial):
        return _with(_key(fn.func, depth - 1), [*fn.args, *fn.keywords.values()], depth)
    if isinstance(fn, FunctionType):
        return _with(fn.__code__, _reached(fn), depth)
    if isinstance(fn, MethodType):
        own = type(fn.__self__), _key(fn.__func__, depth - 1)
        return _with(own, _attributes(fn.__self__), depth)
    if isinstance(fn, BuiltinMethodType):
        owner = fn.__self__
        return fn if owner is None or isinstance(owner, ModuleType) else (type(owner), fn.__name__)
    if isinstance(fn, GeneratorType):
        return fn.gi_code
    if isinstance(fn, type):
        return fn
    return _with(type(fn), _attributes(fn), depth)


def _with(own: Any, reached: Iterable[Any], depth: int) -> Any:
    """``p_callbacks``, and the keys of the callables among ``reached``."""
    inner = (each for each in reached if callable(each) or isinstance(each, GeneratorType))
    keys = tuple(_key(each, depth - 1) for each in islice(inner, REACHED_MAX))
    return (own, *keys) if keys else own


def _reached(fn: FunctionType) -> Iterator[Any]:
    for cell in fn.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if content is not fn:
            yield content
    yield from fn.__defaults__ or ()
    yield from (fn.__kwdefaults__ or {}).values()
    wrapped = fn.__dict__.get("__wrapped__")
    if wrapped is not None:
        yield wrapped


def _attributes(owner: Any) -> Iterable[Any]:
    try:
        members = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return ()
    # Another thread may set one meanwhile.
    return list(members.values()) if isinstance(members, dict) else ()
