"""Where a program has its modules from, so that no worker runs another module of the same name.

A client says of each function that goes by name which files its module, and the modules of the same
project that this one imports, were loaded from, with a digest of each. A worker compares before it
imports, and after: another file with other contents, or the same file that was edited since, is
refused by name. Equal files are equal wherever they lie. The standard library and gmpd itself are
not compared, and of an installed package only the module that was asked for.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from hashlib import blake2b
from typing import Any, NamedTuple

import msgpack

from gmpd.codec import interrupts
from gmpd.errors import NotRegistered

#: Modules of a project that are compared for one function.
MODULES_MAX = 64
_STDLIB = os.path.join(os.path.realpath(os.path.dirname(os.__file__)), "")
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_OWN = "gmpd."


class Origin(NamedTuple):
    """The file of a module, and a digest of its contents."""

    module: str
    path: str
    digest: bytes


#: By name, with the module and its spec, which a reload exchanges.
_said: dict[str, tuple[object, object, bytes]] = {}
#: The files from which modules of this process were loaded, as found soon after.
_loaded: dict[str, tuple[object, Origin | None]] = {}
_agreed: set[bytes] = set()


def said_of(name: str) -> bytes:
    """The digests sent with a function of module ``name``; empty if none need be compared."""
    module = sys.modules.get(name)
    if module is None:
        return b""
    spec = getattr(module, "__spec__", None)
    known = _said.get(name)
    if known is not None and known[0] is module and known[1] is spec:
        return known[2]
    origins = [origin for each in _project_of(module) if (origin := _origin(each)) is not None]
    said: bytes = msgpack.packb(origins) if origins else b""
    _said[name] = module, spec, said
    return said


def compare(said: bytes, *, before: bool) -> None:
    """Refuse what this process has, or would import, from elsewhere. Raises NotRegistered.

    ``before`` the module is imported, else after.
    """
    if said in _agreed:
        return
    sweep()
    for at, fields in enumerate(msgpack.unpackb(said, use_list=False)):
        theirs = Origin(*fields)
        module = sys.modules.get(theirs.module)
        if module is not None:
            ours = _loaded_from(module)
        elif before and at == 0:
            ours = _would_load(theirs.module)
        else:
            continue
        if ours is not None and ours.digest != theirs.digest:
            raise NotRegistered(_differ(ours, theirs, loaded=module is not None))
    if not before:
        _agreed.add(said)


def sweep() -> None:
    """Note what newly imported modules of projects were loaded from, before it is edited."""
    for name in sys.modules.keys() - _loaded.keys():
        module = sys.modules.get(name)
        if module is not None and _is_project(_file_of(module)):
            _loaded_from(module)
        else:
            _loaded[name] = getattr(module, "__spec__", None), None


def _loaded_from(module: types.ModuleType) -> Origin | None:
    name = module.__name__
    spec = getattr(module, "__spec__", None)
    known = _loaded.get(name)
    if known is None or known[0] is not spec or known[1] is None:
        known = _loaded[name] = spec, _origin(module)
    return known[1]


def _would_load(name: str) -> Origin | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None  # the import will say what is wrong
    if spec is None or spec.origin is None or not os.path.isfile(spec.origin):
        return None
    return _of_file(name, spec.origin)


def _origin(module: types.ModuleType) -> Origin | None:
    path = _file_of(module)
    return None if path is None else _of_file(module.__name__, path)


def _of_file(name: str, path: str) -> Origin | None:
    try:
        with open(path, "rb") as file:
            # A library of machine code may be large; its size tells versions apart.
            data = file.read() if path.endswith(".py") else b"%d" % os.fstat(file.fileno()).st_size
    except OSError as error:
        interrupts.pass_on(error)
        return None
    return Origin(name, path, blake2b(data, digest_size=16).digest())


def _file_of(module: object) -> str | None:
    """The file of a module that is to be compared."""
    name, path = getattr(module, "__name__", None), getattr(module, "__file__", None)
    if type(name) is not str or type(path) is not str or name == "__main__":
        return None
    if name.startswith(_OWN) or name == _OWN[:-1]:
        return None
    real = os.path.realpath(path)
    if real.startswith(_STDLIB) and not any(part in real for part in _INSTALLED):
        return None
    return real if os.path.isfile(real) else None


def _is_project(path: str | None) -> bool:
    return path is not None and not any(part in path for part in _INSTALLED)


def _project_of(module: types.ModuleType) -> list[types.ModuleType]:
    """A module and those of its project that it imports, itself or through them."""
    found = {module.__name__: module}
    waiting = [module] if _is_project(_file_of(module)) else []
    while waiting and len(found) < MODULES_MAX:
        for value in list(vars(waiting.pop()).values()):
            name = value.__name__ if isinstance(value, types.ModuleType) else _module_of(value)
            other = sys.modules.get(name) if type(name) is str and name not in found else None
            if other is not None and _is_project(_file_of(other)):
                found[other.__name__] = other
                waiting.append(other)
    return list(found.values())


def _module_of(value: Any) -> Any:
    if isinstance(value, type | types.FunctionType):
        return value.__module__
    return None


def _differ(ours: Origin, theirs: Origin, *, loaded: bool) -> str:
    name = theirs.module
    if os.path.realpath(ours.path) == os.path.realpath(theirs.path):
        return (
            f"the module {name!r} ({theirs.path}) was changed after it was imported, here or in the"
            " program: its jobs would run other code than the program has. Start both again"
            " (gmpd down, gmpd up), or use a private daemon"
        )
    verb = "have" if loaded else "would import"
    return (
        f"the module {name!r} is {theirs.path} in the program, but the daemon's workers {verb}"
        f" {ours.path}: its jobs would run other code. Use a private daemon (set GMPD_RUNTIME_DIR"
        " to a directory of the project's own), or start this one where it finds the program's"
    )
