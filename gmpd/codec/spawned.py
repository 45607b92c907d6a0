"""The script of a process that multiprocessing spawned: a module of another name.

Its functions have a namespace that is not the module's.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from gmpd.codec import hosted_programs
from gmpd.codec.hosted_programs import MP_MAIN


def is_spawned() -> bool:
    """Whether multiprocessing spawned this process, and so its script goes by another name."""
    module = sys.modules.get(MP_MAIN)
    if module is None or hosted_programs.is_host() or vars(module).get("__name__") != MP_MAIN:
        return False
    from cloudpickle import list_registry_pickle_by_value, register_pickle_by_value

    if MP_MAIN not in list_registry_pickle_by_value():
        register_pickle_by_value(module)
    return True


def space_of(module: str) -> dict[str, Any]:
    """The globals of what a module defines. A spawned process has its script run in a namespace of
    its own, and copies that into the module."""
    space = sys.modules[module].__dict__
    if module != MP_MAIN:
        return space
    functions = (value for value in tuple(space.values()) if type(value) is types.FunctionType)
    found = (fn.__globals__ for fn in functions if fn.__globals__.get("__name__") == MP_MAIN)
    return next(found, space)
