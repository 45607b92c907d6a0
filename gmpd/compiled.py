"""Which variant of gmpd's core runs: its sources, or modules compiled of them at the installation.

Both are the same code and the same version. An installation puts the package ``_gmpd_compiled``
beside gmpd: compiled modules, and the hashes of the files they were made of. They are used if they
are for this interpreter and every hash is that of gmpd's file; else all of gmpd is its sources. So
what was compiled for another version, another Python or an older state of a file is never loaded.

``GMPD_PURE=1`` in the environment takes the sources in any case; ``GMPD_PURE=0`` makes it an error
if they would be taken. The decision falls once in a process, when the first package with compiled
modules is imported (``use``); a program that imports none of them pays nothing.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import source_hash, spec_from_file_location
from types import ModuleType
from typing import Any, NamedTuple

PACKAGE = "_gmpd_compiled"
VARIABLE = "GMPD_PURE"

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Variant(NamedTuple):
    """``name`` is "compiled" or "pure"."""

    name: str
    #: The tools that compiled it; "" if pure.
    by: str = ""
    #: Why it is pure; "" if compiled.
    why: str = ""
    #: Whether compiled modules are there that do not fit gmpd's files, or this interpreter.
    is_stale: bool = False

    def __str__(self) -> str:
        return f"compiled by {self.by}" if self.by else "pure Python"


_variant: Variant | None = None
#: The sources of the compiled modules that are used, as code that was made of them names them.
_compiled_sources: frozenset[str] = frozenset()


def variant() -> Variant:
    """The variant of this process, which it keeps."""
    global _variant, _compiled_sources
    if _variant is None:
        files: dict[str, str] = {}
        _variant = _decide(files)
        if files:
            _compiled_sources = frozenset(f"{name.replace('.', '/')}.py" for name in files)
            sys.meta_path.insert(0, _Finder(files))
    return _variant


def use() -> None:
    """Let the modules that are imported from now on be those of the variant.

    Raises ImportError if they would be pure and GMPD_PURE=0 forbids it.
    """
    found = variant()
    if found.name == "pure" and os.environ.get(VARIABLE) == "0":
        raise ImportError(
            f"gmpd would run as pure Python, which {VARIABLE}=0 forbids: {found.why};"
            f" install it anew with {VARIABLE}=0, or unset that"
        )


def source_file(name: str) -> str:
    """The file of a frame in a traceback, absolute: compiled code names its source by the path in
    the package, so ``gmpd/runtime/step.py``. Any other name is given back as it is."""
    return os.path.join(_ROOT, name) if name in _compiled_sources else name


def _decide(files: dict[str, str]) -> Variant:
    """The variant; puts the compiled modules that are to be used into ``files``, by name."""
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        return Variant("pure", why=f"{VARIABLE} is set")
    try:
        made: Any = import_module(PACKAGE)
    except ModuleNotFoundError:
        return Variant("pure", why="gmpd runs from a directory where it was not installed")
    if not made.MODULES:
        return Variant("pure", why=made.WHY_PURE)
    if _is_subinterpreter():
        return Variant("pure", why="compiled modules cannot be loaded in a sub-interpreter")
    place = os.path.dirname(made.__file__)
    found = {name: _file(place, name) for name in made.MODULES}
    if missing := next((name for name, file in found.items() if not os.path.exists(file)), None):
        why = f"{missing} was not compiled for this Python ({EXTENSION_SUFFIXES[0]})"
        return Variant("pure", why=why, is_stale=True)
    for source, digest in made.SOURCES.items():
        if _hash(source) != digest:
            why = f"{source} is not the file that was compiled"
            return Variant("pure", why=why, is_stale=True)
    files.update(found)
    return Variant("compiled", by=made.BY)


def _file(place: str, name: str) -> str:
    return os.path.join(place, name + EXTENSION_SUFFIXES[0])


def _hash(source: str) -> str:
    try:
        with open(os.path.join(_ROOT, source), "rb", buffering=0) as file:
            return source_hash(file.read()).hex()
    except OSError:
        return ""


def _is_subinterpreter() -> bool:
    """Modules that Cython made can be loaded into one interpreter of a process only."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # since 3.13, and before
        try:
            interpreters: Any = import_module(name)
        except ImportError:
            continue
        current = interpreters.get_current()
        return int(current[0] if isinstance(current, tuple) else current) != 0
    return False


class _Finder:
    """Stands before all others, and knows the compiled modules by name. It does not name its
    protocol: ``importlib.abc`` imports 60 ms of other modules up to Python 3.11."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self.files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, file))


class _Loader(ExtensionFileLoader):
    """Loads a compiled module under the name of its source: for what reads ``__file__``, both
    variants lie at the same place."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        try:
            return super().create_module(spec)
        except ImportError as error:
            raise ImportError(
                f"{spec.name} was compiled when gmpd was installed, and cannot be loaded: {error};"
                f" install gmpd anew on this machine, or run it with {VARIABLE}=1",
                name=spec.name,
                path=self.path,
            ) from error

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self.source
        super().exec_module(module)

    @property
    def source(self) -> str:
        return os.path.join(_ROOT, *self.name.split(".")) + ".py"

    def get_source(self, fullname: str) -> str:  # type: ignore[override]  # others have none
        with open(self.source, encoding="utf-8") as file:
            return file.read()
