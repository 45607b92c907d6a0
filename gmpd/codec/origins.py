"""Where a program has its modules from, so that no worker runs another module of the same name.

A client says of each function that goes by name which files its module, and the modules of the same
project that this one imports, at once or inside functions, are loaded from, with a digest of each.
A worker compares before it imports, and after: another file with other contents, or the same file
that was edited since, is refused by name. Equal files are equal wherever they lie. The standard
library and gmpd itself are not compared, and of an installed package only the module that was asked
for.

So it does of the modules that arguments name, whose classes they are, and of those that a function
by value imports when it runs: of the modules of projects only.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections import deque
from hashlib import blake2b
from importlib.machinery import SourceFileLoader
from typing import Any, NamedTuple

import msgpack

from gmpd.codec import interrupts
from gmpd.codec.codes import imports_of, imports_within
from gmpd.codec.finding import is_installed, is_project, is_unimportable, would_find
from gmpd.codec.mentions import modules_in
from gmpd.errors import NotRegistered

#: Modules of a project that are compared for one function.
MODULES_MAX = 64
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
#: By a name in UTF-8, in pickles.
_names: dict[bytes, str] = {}
_NAMES_MAX = 4096
#: By name, with the module.
_compared: dict[str, tuple[object, bool]] = {}
#: Of modules that were not imported: the file, its time and size when it was read, what is said.
_late: dict[str, tuple[str, tuple[int, int] | None, bytes]] = {}
#: The names that a file imports, by its package, path, time and size.
_imports: dict[tuple[str, str, int, int], frozenset[str]] = {}


def said_of(name: str) -> bytes:
    """The digests sent with a function of module ``name``; empty if none need be compared."""
    module = sys.modules.get(name)
    if module is None:
        return b""
    spec = getattr(module, "__spec__", None)
    known = _said.get(name)
    if known is not None and known[0] is module and known[1] is spec:
        return known[2]
    origins = _project_of(name)
    said = _packed(origins) if origins else b""
    _said[name] = module, spec, said
    return said


def is_compared(name: str) -> bool:
    """Whether a value's class of module ``name`` has to be the same in both processes: a module of
    a project. Installed packages are compared for functions only."""
    module = sys.modules.get(name)
    known = _compared.get(name)
    if known is None or known[0] is not module:
        project = not is_unimportable(name) and is_project(_file_of(module))
        known = _compared[name] = module, project
    return known[1]


def compared_in(data: bytes) -> list[str]:
    """The modules of projects that a pickle names."""
    found = []
    for raw in modules_in(data):
        name = _names.get(raw)
        if name is None:
            if len(_names) >= _NAMES_MAX:
                _names.clear()
            name = _names[raw] = raw.decode(errors="replace")
        if is_compared(name):
            found.append(name)
    return found


def compared_of(code: types.CodeType) -> list[str]:
    """The modules of projects that code imports when it runs."""
    return [
        name
        for name in imports_of(code)
        if (is_compared(name) if name in sys.modules else said_of_late(name))
    ]


def said_of_late(name: str) -> bytes:
    """As ``said_of``, of a module that this program would import; empty when it is none of a
    project."""
    known = _late.get(name)
    if known is None:
        found = _would_load(name)
        path = found.path if found is not None and is_project(os.path.realpath(found.path)) else ""
        known = _late[name] = path, None, b""
    path, stamp, said = known
    if not path:
        return b""
    try:
        status = os.stat(path)
    except OSError as error:
        interrupts.pass_on(error)
        return b""
    if stamp != (now := (status.st_mtime_ns, status.st_size)):
        origins = _project_of(name)
        said = _packed(origins) if origins else b""
        _late[name] = path, now, said
    return said


def agree(name: str, said: bytes) -> None:
    """Import module ``name``, unless another would be imported. Raises NotRegistered."""
    absent = name not in sys.modules
    compare(said, before=absent)
    if absent:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the module's own code
            interrupts.pass_on(error)
            return  # the value that needs it will say so
        compare(said, before=False)


def compare(said: bytes, *, before: bool) -> None:
    """Refuse a module that this process has, or would import, from elsewhere. Raises NotRegistered.

    ``before`` the first module is imported, which may change where others are found; else after.
    """
    if said in _agreed:
        return
    sweep()
    for at, theirs in enumerate(_unpacked(said)):
        module = sys.modules.get(theirs.module)
        if module is not None:
            ours = _loaded_from(module)
        elif at == 0 or not before:
            ours = _would_load(theirs.module)
        else:
            continue
        if ours is not None and ours.digest != theirs.digest:
            raise NotRegistered(_differ(ours, theirs, loaded=module is not None))
    if not before:
        _agreed.add(said)


def _packed(origins: list[Origin]) -> bytes:
    # The name of a directory may be no text.
    data: bytes = msgpack.packb(origins, unicode_errors="surrogateescape")
    return data


def _unpacked(said: bytes) -> list[Origin]:
    found = msgpack.unpackb(said, use_list=False, unicode_errors="surrogateescape")
    return [Origin(*fields) for fields in found]


def sweep() -> None:
    """Record the files of newly imported project modules, before they are edited."""
    for name in sys.modules.keys() - _loaded.keys():
        module = sys.modules.get(name)
        if module is not None and is_project(_file_of(module)):
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
    path = would_find(name)
    return None if path is None else _of_file(name, path)


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
    if _is_own(name):
        return None
    real = os.path.realpath(path)
    if not (is_project(real) or is_installed(real)):
        return None
    return real if os.path.isfile(real) else None


def _is_own(name: str) -> bool:
    return name.startswith(_OWN) or name == _OWN[:-1]


def _project_of(name: str) -> list[Origin]:
    """A module and those of its project that it imports or may import when its functions run,
    itself or through them, loaded or not. A name that is only made at run time is not known."""
    found: list[Origin] = []
    waiting, seen = deque([name]), {name}
    while waiting and len(found) < MODULES_MAX:
        module = sys.modules.get(one := waiting.popleft())
        if module is None:
            path = None if _is_own(one) else would_find(one)
        else:
            path = _file_of(module)
        if path is None or not (one == name or is_project(os.path.realpath(path))):
            continue
        origin = _of_file(one if module is None else module.__name__, path)
        if origin is not None and origin not in found:
            found.append(origin)
        if is_project(os.path.realpath(path)):
            named = _named_in(module) | _imported_by(one, path)
            waiting.extend(sorted(named - seen))
            seen |= named
    return found


def _named_in(module: types.ModuleType | None) -> set[str]:
    """The modules of the objects in a namespace."""
    values = () if module is None else list(vars(module).values())
    return {each for value in values if type(each := module_of(value)) is str}


def _imported_by(name: str, path: str) -> frozenset[str]:
    """The modules that the code of a module imports."""
    if not path.endswith(".py"):
        return frozenset()
    package = name if os.path.basename(path) == "__init__.py" else name.rpartition(".")[0]
    try:
        status = os.stat(path)
        key = package, path, status.st_mtime_ns, status.st_size
        if (known := _imports.get(key)) is None:
            code = SourceFileLoader(name, path).get_code(name)
            known = frozenset(() if code is None else imports_within(code, package))
            _imports[key] = known
    except (ImportError, SyntaxError, OSError, ValueError, RecursionError) as error:
        interrupts.pass_on(error)
        return frozenset()
    return known


def module_of(value: Any) -> Any:
    """The name of the module that ``value`` is, or is a function or class of; runs no code of the
    value's own."""
    kind = type(value)
    if kind is types.FunctionType:
        return value.__module__
    if issubclass(kind, type):
        return type.__getattribute__(value, "__module__")
    if issubclass(kind, types.ModuleType):
        return types.ModuleType.__getattribute__(value, "__dict__").get("__name__")
    return None


def _differ(ours: Origin, theirs: Origin, *, loaded: bool) -> str:
    name = theirs.module
    here, there = _shown(ours.path), _shown(theirs.path)
    if os.path.realpath(ours.path) == os.path.realpath(theirs.path):
        return (
            f"the module {name!r} ({there}) was changed after it was imported, here or in the"
            " program: its jobs would run other code than the program has. Start both again"
            " (gmpd down, gmpd up), or use a private daemon"
        )
    verb = "have" if loaded else "would import"
    return (
        f"the module {name!r} is {there} in the program, but the daemon's workers {verb}"
        f" {here}: its jobs would run other code. Use a private daemon (set GMPD_RUNTIME_DIR"
        " to a directory of the project's own), or start this one where it finds the program's"
    )


def _shown(path: str) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")
