"""Where an import would find a module, without importing anything; and the modules of a program
that no import finds.

A module may be made at run time, or be loaded from a file under a name of its own: by ``runpy``, by
pytest's ``--import-mode=importlib``, by loaders of plug-ins. Workers cannot import it, or would
import another one of that name, so its contents go by value, as a script's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

_STDLIB = os.path.join(os.path.realpath(os.path.dirname(os.__file__)), "")
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
#: Errors of finders that mean that there is no such module.
_ABSENT = (ImportError, ValueError, AttributeError, TypeError, KeyError)
#: By name, with the module: whether its contents go by value.
_judged: dict[str, tuple[object, bool]] = {}


def is_installed(path: str) -> bool:
    """Whether it is a file of an installed package."""
    return any(part in path for part in _INSTALLED)


def is_project(path: str | None) -> bool:
    """Whether it is neither of an installed package nor of the standard library."""
    return path is not None and not is_installed(path) and not path.startswith(_STDLIB)


def is_imported(name: str) -> bool:
    """Whether module ``name`` is there, and neither it nor a package around it is in the middle of
    its own import: of such a one, the last names are missing."""
    return name in sys.modules and not is_being_imported(name)


def is_being_imported(name: str) -> bool:
    """Whether module ``name`` or a package around it is in the middle of its own import."""
    while name:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            return True
        name = name.rpartition(".")[0]
    return False


def would_find(name: str) -> str | None:
    """The file from which module ``name`` would be imported here, where some are loaded."""
    parts = name.split(".")
    at = len(parts) - 1
    while at and ".".join(parts[:at]) not in sys.modules:
        at -= 1
    try:
        if at:
            return _find_below(parts, at, list(sys.modules[".".join(parts[:at])].__path__))
        return _file_of(importlib.util.find_spec(parts[0]), parts)
    except _ABSENT:
        return None  # the import will say what is wrong


def is_unimportable(name: str) -> bool:
    """Whether no import finds loaded module ``name``, or finds another file than it was loaded
    from; its contents go by value from now on."""
    module = sys.modules.get(name)
    known = _judged.get(name)
    if known is None or known[0] is not module:
        known = _judged[name] = module, module is not None and _is_nowhere(name, module)
        if known[1]:
            import cloudpickle  # only here: most programs do without

            cloudpickle.register_pickle_by_value(module)
    return known[1]


def _is_nowhere(name: str, module: object) -> bool:
    if name == "__main__" or name.partition(".")[0] == "gmpd":
        return False
    if getattr(module, "__name__", None) != name:
        return False  # a second name
    file = getattr(module, "__file__", None)
    if type(file) is not str:
        # One without a spec was made by hand; inside a package, that makes it anew.
        return "." not in name and getattr(module, "__spec__", None) is None
    if not (file.endswith(".py") and os.path.isfile(file) and is_project(os.path.realpath(file))):
        return False  # of an archive, machine code, or installed
    found = _found_anew(name)
    return found is None or os.path.realpath(found) != os.path.realpath(file)


def _found_anew(name: str) -> str | None:
    """The file from which an interpreter with this ``sys.path`` would import it."""
    parts = name.split(".")
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec = None if find is None else find(parts[0], None)
        except _ABSENT:
            continue
        if spec is not None:
            return _file_of(spec, parts)
    return None


def _file_of(spec: ModuleSpec | None, parts: list[str]) -> str | None:
    """The file of the module named by ``parts``; ``spec`` is the first part's."""
    if spec is None:
        return None
    if len(parts) > 1:
        locations = spec.submodule_search_locations
        return None if locations is None else _find_below(parts, 1, list(locations))
    return spec.origin if spec.origin is not None and os.path.isfile(spec.origin) else None


def _find_below(parts: list[str], at: int, directories: list[str]) -> str | None:
    """The file of the module named by ``parts``, of which ``at`` name the package in
    ``directories``."""
    while True:
        spec = PathFinder.find_spec(".".join(parts[: at + 1]), directories)
        if spec is None:
            return None
        at += 1
        if at == len(parts):
            return spec.origin if spec.origin is not None and os.path.isfile(spec.origin) else None
        if spec.origin is not None and spec.submodule_search_locations is not None:
            directories = list(spec.submodule_search_locations)
        else:  # a package without a file; its own list asks for packages that are not imported
            inner = [os.path.join(each, parts[at - 1]) for each in directories]
            directories = [each for each in inner if os.path.isdir(each)]
