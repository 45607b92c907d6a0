"""The public API of a gmpd as data: what a program may name, and the parameters of what it calls.

    python tests/public_api.py > tests/data/public_api.json

writes that of the installed version; ``tests/unit/test_public_api.py`` compares it with today's.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
from typing import Any, TypeAlias

#: Classes that programs get from calls and do not import from ``gmpd``: module and name.
REACHED = (
    ("gmpd.client.futures", "JobFuture"),
    ("gmpd.client.aio", "AsyncJobFuture"),
)
#: (name, kind, whether it may be left out)
Parameters: TypeAlias = list[tuple[str, str, bool]]


def surface() -> dict[str, Parameters | None]:
    """Each public name and public attribute of a public class; of callables, the parameters."""
    gmpd = importlib.import_module("gmpd")
    found: dict[str, Parameters | None] = {}
    for name in gmpd.__all__:
        _add(found, name, getattr(gmpd, name))
    for module, name in REACHED:
        _add(found, f"{module}.{name}", getattr(importlib.import_module(module), name))
    errors = importlib.import_module("gmpd.errors")
    for name, value in vars(errors).items():
        if (
            inspect.isclass(value)
            and not name.startswith("_")
            and value.__module__ == "gmpd.errors"
        ):
            _add(found, f"errors.{name}", value)
    return found


def _add(found: dict[str, Parameters | None], name: str, value: Any) -> None:
    found[name] = parameters(value)
    if not inspect.isclass(value) or issubclass(value, enum.Enum):
        return
    for of in value.__mro__:
        if of.__module__.partition(".")[0] != "gmpd":
            continue
        for each in vars(of):
            if not each.startswith("_"):
                found[f"{name}.{each}"] = parameters(inspect.getattr_static(value, each))


def parameters(value: Any) -> Parameters | None:
    """Those of a callable; None of what is none, or does not tell."""
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    try:
        parameters = inspect.signature(value).parameters.values() if callable(value) else None
    except (TypeError, ValueError):  # a function in C may have none
        parameters = None
    if parameters is None:
        return None
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        (each.name, each.kind.name, each.kind in optional or each.default is not each.empty)
        for each in parameters
    ]


if __name__ == "__main__":
    lines = [
        f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(surface().items())
    ]
    print("{\n" + ",\n".join(lines) + "\n}")
