"""The names that code reads, assigns and imports, found in its instructions."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator
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
    return frozenset(name for level, name, _ in _imports(code) if level == 0)


def imports_within(code: types.CodeType, package: str) -> set[str]:
    """Modules that code of a module in ``package``, and the functions inside it, may import when
    they run. ``from a import b`` may import ``a.b``, if that is a module."""
    found: set[str] = set()
    waiting = [code]
    while waiting:
        one = waiting.pop()
        for level, name, attributes in _imports(one):
            above = package.rsplit(".", level - 1)[0] if level else ""
            base = ".".join(filter(None, (above, name)))
            if base:
                found |= {base, *(f"{base}.{each}" for each in attributes)}
        waiting += [each for each in one.co_consts if isinstance(each, types.CodeType)]
    return found


def _imports(code: types.CodeType) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """For each import statement: how many packages up it looks, the name, and the names taken
    from it; not those of functions inside ``code``."""
    if not code.co_names or _IMPORT not in code.co_code[::2]:
        return
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for at, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level, attributes = steps[at - 2].argval, steps[at - 1].argval
            yield level, step.argval, attributes or ()
