"""Rebuilds objects that ``cloud`` took apart; its pickles name these functions.

The receiving side of ``cloud``; these names are a part of the wire format.
"""

from __future__ import annotations

import builtins
import contextvars
import functools
import importlib
import os
import sys
import threading
import types
import typing
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gmpd.codec import hosted_programs, interrupts, origins

#: Classes that this process defined and has sent by value.
home_classes: weakref.WeakSet[type] = weakref.WeakSet()
#: Classes that came in by value.
foreign_classes: weakref.WeakSet[type] = weakref.WeakSet()
_hooks_lock = threading.RLock()


def _in_fork() -> None:
    """Another thread may hold it, and is not there."""
    global _hooks_lock
    _hooks_lock = threading.RLock()


os.register_at_fork(after_in_child=_in_fork)


def make_function(
    code: types.CodeType, module: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """A function among the shared globals of its module."""
    return types.FunctionType(code, hosted_programs.namespace(module), None, None, closure)


def make_module_function(
    code: types.CodeType,
    module: str,
    closure: tuple[types.CellType, ...] | None,
    said: bytes,
    plain: dict[str, Any],
) -> types.FunctionType:
    """A function among the globals of a module that this process imports, too. Where it cannot, the
    function has but the ``plain`` ones of its globals. Raises NotRegistered for another module."""
    if said:
        origins.compare(said, before=module not in sys.modules)
    try:
        space = vars(importlib.import_module(module))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the module's own code raises
        interrupts.pass_on(error)
        space = {"__name__": module, "__builtins__": builtins, **plain}
    return types.FunctionType(code, space, None, None, closure)


def set_function_state(fn: types.FunctionType, whole: Any) -> None:
    """The rest of a function; ``submodules`` have been imported by having been unpickled."""
    attributes, state, closure, _submodules = whole
    fn.__dict__.update(attributes)
    for cell, own in zip(closure or (), fn.__closure__ or (), strict=True):
        try:
            own.cell_contents = cell.cell_contents
        except ValueError:
            continue  # nothing was assigned to it yet
    for name, value in state.items():
        if name != "__type_params__" or value:
            setattr(fn, name, value)


def typed_dict() -> type:
    """The hidden base class of every TypedDict."""
    base: type = types.resolve_bases((typing.TypedDict,))[0]
    return base


def make_class(
    meta: Any, name: str, bases: tuple[Any, ...], kwargs: dict[str, Any], *tracked: Any
) -> Any:
    """A class with its plain attributes; ``set_class_state`` gives it the others."""
    from cloudpickle import cloudpickle

    with _hooks_of(bases):
        return cloudpickle._make_skeleton_class(meta, name, bases, kwargs, *tracked)


@contextmanager
def _hooks_of(bases: tuple[Any, ...]) -> Iterator[None]:
    """``__init_subclass__`` of bases that came by value is not called again: what it did where the
    class statement was has come with their state. One of an imported base is, as at any import."""
    above = {each: None for base in bases for each in getattr(base, "__mro__", ())}
    hooks = {
        each: vars(each)["__init_subclass__"]
        for each in above
        if "__init_subclass__" in vars(each) and (each in foreign_classes or each in home_classes)
    }
    if not hooks:
        yield
        return
    with _hooks_lock:
        for each in hooks:
            type.__setattr__(each, "__init_subclass__", classmethod(_nothing))
        try:
            yield
        finally:
            for each, hook in hooks.items():
                type.__setattr__(each, "__init_subclass__", hook)


def _nothing(_cls: type, /, **_: Any) -> None:
    """Stands in for a hook that has been called already."""


def set_class_state(cls: type, state: Any) -> type:
    """Fill a class that came in by value; one that was born here keeps its own state."""
    if cls not in home_classes:
        from cloudpickle import cloudpickle

        foreign_classes.add(cls)
        cloudpickle._class_setstate(cls, state)
        for name, attributes in state[1].items():  # of an enumeration
            vars(cls.__members__[name]).update(attributes)  # type: ignore[attr-defined]
    return cls


def make_cached(fn: Any, parameters: dict[str, Any]) -> Any:
    """A function of ``functools.lru_cache`` with an empty cache."""
    return functools.lru_cache(**parameters)(fn)


def set_registry(fn: Any, known: tuple[dict[type, Any], dict[str, Any]]) -> None:
    """The implementations of a ``functools.singledispatch`` function, by class."""
    registry, attributes = known
    fn.__dict__.update(attributes)
    for cls, implementation in registry.items():
        fn.register(cls, implementation)


def make_partial_method(fn: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """A ``functools.partialmethod``."""
    return functools.partialmethod(fn, *args, **keywords)


def make_new_type(name: str, supertype: Any, module: str) -> Any:
    """A ``typing.NewType`` of that module."""
    kind: Any = typing.NewType
    made = kind(name, supertype)
    made.__module__ = module
    return made


def make_context_var(name: str, *default: Any) -> contextvars.ContextVar[Any]:
    """A context variable of that name."""
    if default:
        return contextvars.ContextVar(name, default=default[0])
    return contextvars.ContextVar(name)


def make_view(buffer: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """A memoryview again, with its items and dimensions."""
    view = memoryview(buffer).cast("B")
    return view if form == "B" and len(shape) == 1 else view.cast(form, shape)  # type: ignore[call-overload]


def stand_in_module(name: str) -> Any:
    """A module that travels by value, as this process has it."""
    hosted_programs.namespace(name)
    return sys.modules[name]
