"""The functions that the daemon's modules declare, as a worker that has imported them finds them.

Only a worker imports user code. It reports what it found with its Hello; ``registry`` has the
coordinator's side.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any

from gmpd import protocol
from gmpd.job import ATTRIBUTE, JobOptions


def declared_in(imports: Iterable[str]) -> list[protocol.Declaration]:
    """The functions that ``@gmpd.job`` marks in these modules, and in those below them that they
    have imported. A function counts in the module that defines it."""
    return [_declaration(name, options) for name, options in _marked(frozenset(imports))]


def _marked(imports: frozenset[str]) -> Iterator[tuple[str, JobOptions]]:
    below = tuple(f"{name}." for name in imports)
    for module_name, module in sorted(sys.modules.items()):
        if module_name not in imports and not module_name.startswith(below):
            continue
        for attribute, value in list(_attributes(module).items()):
            options = _attributes(value).get(ATTRIBUTE)
            if isinstance(options, JobOptions) and _address(value) == (module_name, attribute):
                yield f"{module_name}:{attribute}", options


def _address(value: object) -> tuple[object, object]:
    return getattr(value, "__module__", None), getattr(value, "__qualname__", None)


def _declaration(name: str, options: JobOptions) -> protocol.Declaration:
    try:
        options.to_wire()
    except (ValueError, TypeError):  # retry_on names no exception: who submits it is told so
        options = options.merged(retry_on=None)
    return protocol.Declaration(
        name=name,
        options=protocol.options(options.to_wire()),
        expires=options.expires,
        keep=options.keep,
        once=options.once,
    )


def _attributes(value: object) -> dict[str, Any] | MappingProxyType[str, Any]:
    """Its ``__dict__``. No code of its class runs: a lazy object stays as it is."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict | MappingProxyType) else {}
