"""The names of what this program defines, and which of them a pickle uses.

``__main__``, and each module that travels by value, defines names; a *key* is such a module and a
name in it.
"""

from __future__ import annotations

import linecache
import os
import sys
import types
from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import ModuleSpec
from typing import Any

from gmpd.codec import finding, hosted_programs, origins
from gmpd.codec.codes import names_in
from gmpd.codec.hosted_programs import AUTHKEY, LATE, MAIN, MP_MAIN, ORIGINS, SOURCES
from gmpd.codec.parts import Key
from gmpd.codec.spawned import is_spawned, space_of

#: Source text of one cell or of what was typed.
_SOURCE_MAX = 1 << 20
#: The value of a name that is not bound.
ABSENT: Any = object()
#: Keys whose first half is no module, and those of them that say where modules come from.
NO_MODULES = frozenset({SOURCES, AUTHKEY, ORIGINS, LATE})
OF_ORIGINS = (ORIGINS, LATE)
#: Attributes of every module: sent with the first of its names.
OF_MODULE = ("__file__", "__package__", "__spec__", "__doc__")
_NEVER = frozenset({"__builtins__", "__loader__", "__cached__", "__name__"})


class NameCollector:
    """``cloud.Names`` of one pickle: gathers which names it uses.

    ``knows``: the names are defined just now. An object not known elsewhere is sent whole at its
    first use."""

    def __init__(self, knows: Callable[[Key], bool] | None = None) -> None:
        self._knows = knows
        self.keys: set[Key] = set()
        #: Names that functions in it assign.
        self.assigned: set[Key] = set()

    @property
    def names_anything(self) -> bool:
        """Whether the pickle uses more of the program than where modules come from."""
        return any(key[0] not in OF_ORIGINS for key in self.keys)

    def refer(self, obj: Any) -> tuple[str, str] | None:
        found = named(obj)
        if found is None:
            return None
        module, qualname = found
        key = module, qualname.partition(".")[0]
        self.keys.add(key)
        return None if self._knows is not None and not self._knows(key) else found

    def uses(self, fn: types.FunctionType) -> str | None:
        module = module_of(fn)
        if module is not None:
            read, assigned = names_in(fn.__code__)
            self.keys.update((module, name) for name in read | assigned if name not in _NEVER)
            self.keys.update((module, name) for name in OF_MODULE)
            self.assigned.update((module, name) for name in assigned)
        return module

    def shows(self, code: types.CodeType) -> None:
        if _has_text_here_only(code.co_filename):
            self.keys.add((SOURCES, code.co_filename))
        if not hosted_programs.is_host():
            found = origins.compared_of(code)
            self.keys.update((ORIGINS if n in sys.modules else LATE, n) for n in found)

    def refer_module(self, module: types.ModuleType) -> bool:
        name = module.__name__
        if sys.modules.get(name) is not module or not by_value(name):
            return False
        self.keys.update((name, key) for key in OF_MODULE)
        if name != MAIN:
            # A copy: a handler or another thread may add a global meanwhile.
            keys = tuple(vars(module))
            self.keys.update((name, key) for key in keys if not key.startswith("__"))
        return True


def origins_in(data: bytes) -> set[Key]:
    """For the modules of projects that a pickle of this program names. None in a worker: what comes
    from one goes where the same modules are."""
    if hosted_programs.is_host():
        return set()
    return {(ORIGINS, name) for name in origins.compared_in(data) if not by_value(name)}


def has_managers() -> bool:
    """Whether this program may have proxies of managers."""
    return "multiprocessing.managers" in sys.modules


def state_of(fn: Any) -> tuple[Any, ...]:
    """The attributes of a function that can be replaced while it stays the same function."""
    return fn.__code__, fn.__defaults__, fn.__kwdefaults__


def value_of(key: Key) -> Any:
    module, name = key
    if module == SOURCES:
        return "".join(linecache.getlines(name))[:_SOURCE_MAX]
    if module == AUTHKEY:
        from multiprocessing import process

        return bytes(process.current_process().authkey)
    if module == ORIGINS:
        return origins.said_of(name)
    if module == LATE:
        return origins.said_of_late(name)
    value = space_of(module).get(name, ABSENT)
    if name == "__spec__" and isinstance(value, ModuleSpec):
        return ModuleSpec(value.name, None, origin=value.origin)
    return value


@lru_cache(maxsize=256)
def _has_text_here_only(filename: str) -> bool:
    return not os.path.isfile(filename) and bool(linecache.getlines(filename))


# -- what has a name -------------------------------------------------------------------------------


def by_value(module: str) -> bool:
    """Whether what a module defines is sent by value: the script does, what no worker can import,
    and whatever the user said so of by ``cloudpickle.register_pickle_by_value``."""
    if module == MAIN or (module == MP_MAIN and is_spawned()):
        return True
    if not hosted_programs.is_host() and finding.is_unimportable(module):
        return True
    cloudpickle = sys.modules.get("cloudpickle")
    registered = cloudpickle.list_registry_pickle_by_value() if cloudpickle is not None else ()
    if not registered or module not in sys.modules:
        return False
    parts = module.split(".")
    return any(".".join(parts[: n + 1]) in registered for n in range(len(parts)))


def named(obj: Any) -> tuple[str, str] | None:
    """Module and qualified name of an object of a module that is sent by value."""
    module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if type(module) is not str or type(qualname) is not str or not by_value(module):
        return None
    target: Any = sys.modules.get(module)
    for name in qualname.split("."):
        target = getattr(target, "__dict__", {}).get(name, ABSENT)
        if isinstance(target, staticmethod | classmethod):
            return None  # goes with its class
    if target is not obj or _is_of_a_namesake(obj, module):
        return None
    return module, qualname


def _is_of_a_namesake(obj: Any, module: str) -> bool:
    """Whether a function's globals are another namespace that goes by the same name, as a
    debugger's or profiler's."""
    space = getattr(obj, "__globals__", None)
    return space is not None and space is not space_of(module) and space.get("__name__") == module


def module_of(fn: types.FunctionType) -> str | None:
    """The module that goes by value whose globals are those of ``fn``."""
    name = fn.__globals__.get("__name__")
    if type(name) is not str or not by_value(name):
        return None
    return name if space_of(name) is fn.__globals__ else None
