"""The names that code reads, assigns and imports, found in its instructions."""

from __future__ import annotations

import dis
import types
from functools import lru_cache

_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_STORE_OPS = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_IMPORT = dis.opmap["IMPORT_NAME"]


@lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The globals that code reads, and those that it assigns; functions inside it included."""
    read: set[str] = set()
    assigned: set[str] = set()
    waiting = [code]
    while waiting:
        one = waiting.pop()
        for step in dis.get_instructions(one):
            if step.opname in _GLOBAL_OPS:
                read.add(step.argval)
            elif step.opname in _STORE_OPS:
                assigned.add(step.argval)
        waiting += [each for each in one.co_consts if isinstance(each, types.CodeType)]
    return frozenset(read), frozenset(assigned)


@lru_cache(maxsize=4096)
def imports_of(code: types.CodeType) -> frozenset[str]:
    """Modules that code itself imports when it runs, by absolute names."""
    if not code.co_names or _IMPORT not in code.co_code[::2]:
        return frozenset()
    steps = list(dis.get_instructions(code))
    return frozenset(
        step.argval
        for at, step in enumerate(steps)
        if step.opname == "IMPORT_NAME" and steps[at - 2].argval == 0  # not a relative one
    )
