"""Whether a function that travels by value would make the same bytes again.

Pickling a function by value costs some 50 µs, so the bytes are kept where they cannot have changed
unseen: no closure, no mutable default, no global but scalars, modules, things found by name, and
functions for which the same holds. Each use checks by identity that all of it is still in place.
Nothing here keeps a function or its globals alive: only code objects, scalars and weak references
are held.
"""

from __future__ import annotations

import sys
import types
import weakref
from typing import Any, NamedTuple

from gmpd.codec import hints, interrupts

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
#: A longer text among the globals is not worth keeping a copy of.
_TEXT_MAX = 1024
#: Functions watched together; a larger web of helpers is pickled afresh each time.
_WATCHED_MAX = 32
_OPTIONS = "__gmpd_job__"
_ABSENT: Any = object()
_NAMESPACES = (type, types.ModuleType)


class _Watched(NamedTuple):
    fn: weakref.ref[types.FunctionType]
    code: types.CodeType
    defaults: tuple[Any, ...] | None
    options: Any
    scalars: tuple[tuple[str, Any], ...]
    things: tuple[tuple[str, weakref.ref[Any]], ...]


Watch = tuple[_Watched, ...]


def watch(fn: object) -> Watch | None:
    """The checks before bytes made from ``fn`` now are used again; None: never use them."""
    if not isinstance(fn, types.FunctionType):
        return None
    found: dict[int, _Watched] = {}
    waiting = [fn]
    while waiting:
        candidate = waiting.pop()
        if id(candidate) in found:
            continue
        watched = _watch_one(candidate, waiting)
        if watched is None or len(found) >= _WATCHED_MAX:
            return None
        found[id(candidate)] = watched
    return tuple(found.values())


def still_holds(watched: Watch) -> bool:
    """Whether nothing that ``watch`` saw has been replaced."""
    for fn_ref, code, defaults, options, scalars, things in watched:
        fn = fn_ref()
        if fn is None or fn.__code__ is not code or fn.__defaults__ is not defaults:
            return False
        if fn.__kwdefaults__ or fn.__dict__.get(_OPTIONS) is not options:
            return False
        if len(fn.__dict__) > (options is not None):
            return False
        namespace = fn.__globals__
        for name, value in scalars:
            if namespace.get(name, _ABSENT) is not value:
                return False
        for name, thing in things:
            if namespace.get(name, _ABSENT) is not thing():
                return False
    return True


def find(module_name: str, qualname: str) -> Any:
    """The object ``module:qualname`` among the modules loaded now, or None.

    Goes through classes only: ``f.__globals__.get`` names nothing.
    """
    target: Any = sys.modules.get(module_name)
    for part in qualname.split("."):
        if target is None or not isinstance(target, _NAMESPACES):
            return None
        try:
            target = getattr(target, part, None)
        except Exception as error:  # noqa: BLE001 - a module's own __getattr__
            interrupts.pass_on(error)
            return None
    return target


def is_steady(fn: object) -> bool:
    """Whether nothing in a function itself can change unseen, whatever its globals do."""
    if not isinstance(fn, types.FunctionType):
        return False
    options = fn.__dict__.get(_OPTIONS)
    return not (
        fn.__closure__ or fn.__kwdefaults__ or len(fn.__dict__) > (options is not None)
    ) and all(map(_is_scalar, fn.__defaults__ or ()))


def _watch_one(fn: types.FunctionType, waiting: list[types.FunctionType]) -> _Watched | None:
    options = fn.__dict__.get(_OPTIONS)
    if fn.__closure__ or fn.__kwdefaults__ or len(fn.__dict__) > (options is not None):
        return None
    if not all(map(_is_scalar, fn.__defaults__ or ())):
        return None
    annotations = hints.Lazy(fn, "__annotations__")
    if annotations.error or not all(map(_is_steady_annotation, annotations.value.values())):
        return None
    scalars: list[tuple[str, Any]] = []
    things: list[tuple[str, weakref.ref[Any]]] = []
    for name in _names(fn.__code__):
        value = fn.__globals__.get(name, _ABSENT)
        if value is _ABSENT or _is_scalar(value):
            scalars.append((name, value))
        elif _is_found_by_name(value):
            things.append((name, weakref.ref(value)))
        elif type(value) is types.FunctionType:
            things.append((name, weakref.ref(value)))
            waiting.append(value)
        else:
            return None
    return _Watched(
        weakref.ref(fn), fn.__code__, fn.__defaults__, options, tuple(scalars), tuple(things)
    )


def _names(code: types.CodeType) -> set[str]:
    """Every name that the code could look up among its globals; some are only attributes."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _is_scalar(value: object) -> bool:
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) <= _TEXT_MAX  # type: ignore[arg-type]
    return kind in _SCALARS


def _is_found_by_name(value: Any) -> bool:
    if isinstance(value, types.ModuleType):
        return value.__name__ != "__main__" and sys.modules.get(value.__name__) is value
    if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return False
    module, qualname = getattr(value, "__module__", None), value.__qualname__
    return module is not None and module != "__main__" and find(module, qualname) is value


def _is_steady_annotation(value: object) -> bool:
    return value is None or type(value) is str or _is_found_by_name(value)
