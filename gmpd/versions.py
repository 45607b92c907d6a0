"""The versions that two processes must share before they exchange values.

A function or class by value is bytecode: another minor version of Python runs it into a crash, not
into an error. Pickles name the internals of cloudpickle and of gmpd that rebuild them. So both
sides tell their versions in Hello and Welcome, and a pair that would be unsafe is refused with both
named, unless only plain data (msgpack) goes between them.

It knows no message: each sender puts them into its own.
"""

from __future__ import annotations

import pickle
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import gmpd

_VERSION = re.compile(r"""^__version__ = ["']([^"']+)["']""", re.MULTILINE)


def python() -> str:
    """This interpreter's version, as ``platform.python_version`` (whose import takes 3 ms)."""
    return ".".join(map(str, sys.version_info[:3]))


@cache
def cloudpickle() -> str:
    """The version that would be imported. Its import takes 20 ms, which few clients need."""
    spec = find_spec("cloudpickle")
    if spec is None or spec.origin is None:
        return ""
    found = _VERSION.search(Path(spec.origin).read_text())
    return found[1] if found else ""


def own() -> dict[str, str | int]:
    """This process's versions, for Hello and Welcome."""
    return {
        "python": python(),
        "gmpd": gmpd.__version__,
        "pickle": pickle.HIGHEST_PROTOCOL,
        "cloudpickle": cloudpickle(),
    }


def conflict(theirs: dict[str, str | int], whose: str) -> str:
    """Why values of ``theirs`` and of this process are unsafe for one another; "" if they are not.

    A version that a peer does not report is not compared.
    """
    ours = own()
    for name, parts in (("python", 2), ("gmpd", 2), ("pickle", 1), ("cloudpickle", 1)):
        there, here = str(theirs.get(name) or ""), str(ours[name])
        if there and _first(there, parts) != _first(here, parts):
            what = {"python": "Python", "pickle": "pickle protocol"}.get(name, name)
            return f"{whose} has {what} {there}, this daemon {what} {here}"
    return ""


def _first(version: str, parts: int) -> list[str]:
    return version.split(".")[:parts]
