"""Pickling by value: functions, classes and other objects that no import finds elsewhere.

cloudpickle takes functions and classes apart. This module keeps the properties that it loses:
globals are not copied but belong to a namespace that all of a program shares (``hosted_programs``),
code says where its lines are, ``__slots__`` stay slots, a cached function has a cache again,
annotations that cannot be evaluated yet wait, and a class that comes home is left as it is.

Importing this costs more than the rest of the package: a worker imports it when it is first
needed, a client at once.
``Names`` says of each thing whether it is sent by its name; it is asked, and never imports this.
"""

from __future__ import annotations

import _thread
import contextvars
import functools
import importlib
import io
import os
import pickle
import sys
import threading
import types
import typing
import weakref
from typing import Any, Protocol

from cloudpickle import cloudpickle

from gmpd.codec import hints, hosted_programs, interrupts, origins, rebuild

#: cloudpickle holds it over some lines of Python, where a signal handler may pickle a class, too.
cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK = threading.RLock()


def _in_fork() -> None:
    """Another thread may hold it, and is not there."""
    cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK = threading.RLock()


os.register_at_fork(after_in_child=_in_fork)

_OVERWRITE: Any = cloudpickle._class_setstate
_LRU = type(functools.lru_cache(lambda: None))
#: Attributes that a process gets anew by importing the module.
_FRESH = (
    _thread.LockType, _thread.RLock, threading.local,
    weakref.WeakKeyDictionary, weakref.WeakValueDictionary,
)  # fmt: skip
_DEFERRED = sys.version_info >= (3, 14)
_OF_MEMBERS = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})
_DYNAMIC = "<dynamic-code>"
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
#: Things other than functions and classes whose pickle is a name.
NAMED: tuple[type, ...] = tuple(
    kind
    for kind in (_LRU, typing.NewType, getattr(typing, "TypeAliasType", None))
    if isinstance(kind, type)
)


class Names(Protocol):
    """Knows which objects have a name that the other side finds, or will find."""

    def refer(self, obj: Any) -> tuple[str, str] | None:
        """Module and qualified name of an object sent by name; None if it is sent by value."""

    def uses(self, fn: types.FunctionType) -> str | None:
        """The module whose shared namespace a function that goes by value has as its globals;
        None: its globals go with it."""

    def shows(self, code: types.CodeType) -> None:
        """Code goes by value: its source may have to go, too."""

    def refer_module(self, module: types.ModuleType) -> bool:
        """Whether a module is a stand-in elsewhere."""


class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle where it keeps the type. Of protocol 5.

    With ``fresh_locks``, locks and thread-locals are made anew: what a module's globals are in a
    process that has just imported it.
    """

    def __init__(
        self, sink: Any, names: Names, callback: Any = None, *, fresh_locks: bool = False
    ) -> None:
        super().__init__(sink, 5, callback)
        self._names = names
        self._fresh_locks = fresh_locks

    def reducer_override(self, obj: Any) -> Any:
        """Asked about everything but the plainest values."""
        kind = type(obj)
        if kind is types.FunctionType or issubclass(kind, type) or kind in NAMED:
            return self._reduce_named(obj)
        if kind in hints.KINDS:
            return _reduce_hint(obj)
        if kind is types.CodeType:
            self._names.shows(obj)
            return _reduce_code(cloudpickle._code_reduce(obj), obj)
        if issubclass(kind, types.ModuleType) and self._names.refer_module(obj):
            return rebuild.stand_in_module, (obj.__name__,)
        if self._fresh_locks and isinstance(obj, _FRESH):
            return _reduce_lock(obj)
        return _reduce_other(obj)

    def _reduce_named(self, obj: Any) -> Any:
        name = self._names.refer(obj)
        if name is not None:
            return (
                NotImplemented if name[0] == hosted_programs.MAIN else (hosted_programs.find, name)
            )
        kind = type(obj)
        if kind in NAMED:
            return _reduce_kin(obj)
        if obj is _TYPED_DICT:  # no name leads to it: typing.TypedDict is the function beside it
            return rebuild.typed_dict, ()
        if kind is not types.FunctionType:
            return _reduce_class(obj, super().reducer_override(obj))
        module = self._names.uses(obj)
        if module is not None:
            return _reduce_function(obj, module)
        if obj.__globals__ is vars(functools) and hasattr(obj, "registry"):
            # Its closure holds a cache of weak references.
            made: Any = obj
            known = dict(made.registry), vars(made.__wrapped__)
            return (
                functools.singledispatch, (made.__wrapped__,), known, None, None,
                rebuild.set_registry,
            )  # fmt: skip
        if cloudpickle._should_pickle_by_reference(obj):
            return NotImplemented
        if imported := hosted_programs.imported_as(obj):
            return _reduce_function(obj, imported, by_value=False)
        # Its globals are no module's that others have: a copy of what it uses goes along.
        _evaluate_annotations(obj)
        return super().reducer_override(obj)


#: The class that every TypedDict descends from while it is made; since Python 3.15 annotations
#: refer to it.
_TYPED_DICT = rebuild.typed_dict()


# -- taken apart -----------------------------------------------------------------------------------


def _reduce_class(cls: Any, reduced: Any) -> Any:
    """The reduction of a class by cloudpickle, with its slots; a class that returns home is left as
    it is: cloudpickle finds the original again, but sets all its attributes from the copy."""
    if not (type(reduced) is tuple and len(reduced) == 6 and reduced[5] is _OVERWRITE):
        return reduced
    if type(cls).__module__ == "msgspec._core":  # made of its class statement, fields and options
        raise pickle.PicklingError("a struct of msgspec cannot be rebuilt from its attributes")
    if cls not in rebuild.foreign_classes:
        rebuild.home_classes.add(cls)
    make, args, (state, slots), *_ = reduced
    state = _class_state(cls, state)
    if make is cloudpickle._make_skeleton_class:
        meta, name, bases, first, *tracked = args
        early = ["__slots__"]
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            # Its first base was a function, typing.NamedTuple, which has done its work.
            bases, early = cls.__bases__, ["__slots__", "__orig_bases__"]
        # Attributes that a base's __init_subclass__ may look at.
        early += [key for key, value in state.items() if type(value) in _PLAIN]
        first = {**first, "__qualname__": cls.__qualname__}
        first |= {key: state.pop(key) for key in early if key in state}
        make, args = rebuild.make_class, (meta, name, bases, first, *tracked)
    elif make is cloudpickle._make_skeleton_enum:
        # Aliases and combined flags are members, too; what __init__ and __new__ gave each comes
        # along, because they cannot be called again.
        args = (*args[:3], {key: each.value for key, each in cls.__members__.items()}, *args[4:])
        slots = {key: _of_member(each) for key, each in cls.__members__.items()}
        state = {key: value for key, value in state.items() if key not in slots}
    return make, args, (state, slots), None, None, rebuild.set_class_state


def _of_member(member: Any) -> dict[str, Any]:
    return {key: value for key, value in vars(member).items() if key not in _OF_MEMBERS}


def _reduce_function(fn: types.FunctionType, module: str, *, by_value: bool = True) -> Any:
    closure = _closure(fn)
    cells = None if closure is None else tuple(cloudpickle._make_empty_cell() for _ in closure)
    values = [] if closure is None else list(map(cloudpickle._get_cell_contents, closure))
    found = [fn.__globals__[n] for n in fn.__code__.co_names if n in fn.__globals__]
    state = {
        "__name__": "".join(fn.__name__),
        "__qualname__": "".join(fn.__qualname__),
        "__module__": fn.__module__,
        "__doc__": fn.__doc__,
        "__defaults__": fn.__defaults__,
        "__kwdefaults__": fn.__kwdefaults__,
        "__type_params__": getattr(fn, "__type_params__", ()),
        **_annotations(fn),
    }
    submodules = cloudpickle._find_imported_submodules(fn.__code__, [*found, *values])
    make: Any = rebuild.make_function
    args: tuple[Any, ...] = (fn.__code__, module, cells)
    if not by_value:
        plain = {
            name: value
            for name in fn.__code__.co_names
            if type(value := fn.__globals__.get(name)) in _PLAIN
        }
        make, args = rebuild.make_module_function, (*args, origins.said_of(module), plain)
    whole = dict(fn.__dict__), state, closure, submodules
    return make, args, whole, None, None, rebuild.set_function_state


def _closure(fn: types.FunctionType) -> tuple[types.CellType, ...] | None:
    """Its cells. That in which annotations look up names of their class holds all that the class
    has: of it, what they name is enough."""
    names = fn.__code__.co_freevars
    if fn.__closure__ is None or hints.CLASS_NAMES not in names:
        return fn.__closure__
    cells = list(fn.__closure__)
    at = names.index(hints.CLASS_NAMES)
    every = dict(cells[at].cell_contents)
    used = {name: every[name] for name in fn.__code__.co_names if name in every}
    cells[at] = types.CellType(used)
    return tuple(cells)


def _annotations(fn: Any) -> dict[str, Any]:
    """Since Python 3.14 they are a function that is called on access."""
    if _DEFERRED and isinstance(fn.__annotate__, types.FunctionType):
        return {"__annotate__": fn.__annotate__}
    annotations = fn.__annotations__
    return {"__annotations__": annotations} if annotations else {}


def _evaluate_annotations(fn: types.FunctionType) -> None:
    """Have those evaluated that can be: cloudpickle asks for them."""
    if _DEFERRED:
        try:
            _ = fn.__annotations__
        except Exception as error:  # noqa: BLE001 - names that are not there yet, or only for type checkers
            interrupts.pass_on(error)
            lib: Any = importlib.import_module("annotationlib")
            fn.__annotations__ = lib.get_annotations(fn, format=lib.Format.STRING)


def _class_state(cls: Any, state: dict[str, Any]) -> dict[str, Any]:
    # Descriptors of slots are made with the class, and have no pickle.
    kept = {
        name: value
        for name, value in state.items()
        if not (isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls)
    }
    if _DEFERRED:
        for name in ("__annotate_func__", "__annotations_cache__"):
            kept.pop(name, None)
        annotate = cls.__dict__.get("__annotate_func__")
        if isinstance(annotate, types.FunctionType):
            kept["__annotate__"] = annotate
    return kept


def _reduce_code(reduced: Any, code: types.CodeType) -> Any:
    make, args = reduced
    name = code.co_filename
    if not name.startswith("<") and not os.path.isabs(name) and os.path.exists(name):
        name = os.path.abspath(name)
    at = next(at for at, arg in enumerate(args) if type(arg) is str and arg == _DYNAMIC)
    return make, (*args[:at], name, *args[at + 1 :])


def _reduce_hint(obj: Any) -> Any:
    """A forward reference, or a type parameter that no import finds."""
    kind = type(obj)
    if kind is hints.FORWARD_REF:
        return hints.reduce_forward_ref(obj)
    if kind in hints.OF_PARAM_SPEC:
        return kind, (obj.__origin__,)
    found = cloudpickle._lookup_module_and_qualname(obj, name=obj.__name__)
    if found is None or cloudpickle._is_registered_pickle_by_value(found[0]):
        return hints.reduce_parameter(obj, cloudpickle._get_or_create_tracker_id(obj))
    return NotImplemented


def _reduce_kin(obj: Any) -> Any:
    """Objects that have a name as functions and classes do, and are made of them."""
    if type(obj) is _LRU:
        made: Any = obj
        extra = {key: value for key, value in vars(made).items() if key != "__wrapped__"}
        return rebuild.make_cached, (made.__wrapped__, made.cache_parameters()), extra
    if isinstance(obj, typing.NewType):
        return rebuild.make_new_type, (obj.__name__, obj.__supertype__, obj.__module__)
    trackers = map(cloudpickle._get_or_create_tracker_id, obj.__type_params__)
    return hints.reduce_alias(obj, tuple(trackers))


def _reduce_other(obj: Any) -> Any:
    """Objects that cloudpickle changes, or refuses."""
    kind = type(obj)
    if kind is memoryview:
        return rebuild.make_view, (pickle.PickleBuffer(obj), obj.format, obj.shape)
    if kind is functools.partialmethod:  # since Python 3.14 it does not load again by itself
        return rebuild.make_partial_method, (obj.func, obj.args, obj.keywords)
    if kind is contextvars.ContextVar:
        return _reduce_context_var(obj)
    if isinstance(obj, io.TextIOWrapper) and obj not in (sys.stdout, sys.stderr):
        raise TypeError(f"cannot pickle {kind.__name__!r} object")
    return NotImplemented


def _reduce_context_var(var: Any) -> Any:
    try:
        # Its default can be set no other way.
        return rebuild.make_context_var, (var.name, contextvars.Context().run(var.get))
    except LookupError:
        return rebuild.make_context_var, (var.name,)


def _reduce_lock(obj: Any) -> Any:
    if isinstance(obj, _thread.RLock):
        return threading.RLock, ()
    if not isinstance(obj, _thread.LockType):
        return type(obj), ()
    return threading.Lock, ()
