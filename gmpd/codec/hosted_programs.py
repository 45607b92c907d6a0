"""Programs whose jobs run in this process: stand-ins hold the definitions of their scripts.

A *program* is a client's process. The definitions of its ``__main__`` (and of modules that travel
by value) come in *parts*: pickles of names with their values, made by ``sent_program``. Each
program has one namespace per such module here, shared by all of its jobs;
``sys.modules["__main__"]`` is a ``StandIn`` that shows the namespace of the program whose job asks.

A part is loaded by the first job that needs it. When the program's last part is forgotten its
namespaces are emptied: their values are freed at once, also those in cycles.

It never pickles, and knows no sockets. Counterpart: ``sent_program``.
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from gmpd.codec import origins
from gmpd.codec.parts import Key, PartReader
from gmpd.errors import NotRegistered, ProtocolError

MAIN = "__main__"
#: The script, in a process that multiprocessing spawned.
MP_MAIN = "__mp_main__"
#: Keys that are no modules: source lines of files that are none, the key of multiprocessing, and
#: where modules come from that are imported by what follows, or later by its code.
SOURCES, AUTHKEY, ORIGINS, LATE = "<sources>", "<authkey>", "<origins>", "<late>"

#: Opcodes without effect after the PROTO of a pickle that refers to what a program defines, and
#: that program's id between them.
_MARK, _MARK_END = b"\x8c\x04gmpd0C\x10", b"0"
ID_BYTES = 16
#: In pickles of proxies of managers, which need the key of the program that made them.
MANAGERS = b"multiprocessing.managers"
#: Larger parts are not kept beside what they were loaded as.
PASSED_ON_MAX = 1 << 20
_AT = 2 + len(_MARK)


class HostedProgram:
    """One program, as far as it is known here."""

    def __init__(self, ident: bytes) -> None:
        self.id = ident
        self.parts: dict[int, HostedPart] = {}
        self.namespaces: dict[str, dict[str, Any]] = {}
        self.authkey: bytes | None = None
        #: By module and name: the number of the part that defined it last.
        self._versions: dict[Key, int] = {}
        #: The names that each name uses; parts with values that could not be rebuilt.
        self._uses: dict[Key, tuple[Key, ...]] = {}
        self.failing: list[HostedPart] = []
        #: Held while a part is loaded, which runs user code.
        self._lock = threading.RLock()
        self._sources: dict[str, str] = {}
        #: Functions without a name that were made from their pickles, and stay while it does.
        self.made: dict[bytes, Any] = {}

    def renew_lock(self) -> None:
        """In a fork."""
        self._lock = threading.RLock()

    def namespace(self, module: str) -> dict[str, Any]:
        """The globals of everything that ``module`` of this program defines."""
        space = self.namespaces.get(module)
        if space is None:
            space = {"__name__": module, "__builtins__": __builtins__}
            space = self.namespaces.setdefault(module, space)
            _by_globals[id(space)] = self
            if module == MP_MAIN or (module != MAIN and module not in sys.modules):
                sys.modules[module] = StandIn(module)
        return space

    def load(self, part: HostedPart) -> None:
        """Bring a part's names into their namespaces, once; values that cannot be rebuilt are left
        out. Raises NotRegistered where the part says that modules differ."""
        with self._lock, entering(self), ExitStack() as stack:
            if part.objects is not None:
                return
            objects: dict[Key, Any] = {}
            reader = PartReader(part.payload)
            for module, name, value in reader.read():
                if module == AUTHKEY:
                    self.authkey = value
                    if MANAGERS in part.payload:
                        stack.enter_context(keyed(self))
                if module == ORIGINS:
                    origins.agree(name, value)
                    continue
                if module == LATE:
                    origins.compare(value, before=False)
                    continue
                objects[module, name] = value
                self._define(module, name, value, part.number)
            part.objects = objects
            self._note(part, reader)

    def _note(self, part: HostedPart, reader: PartReader) -> None:
        """It is loaded."""
        for key, uses in reader.rows:
            if self._versions.get(key, -1) <= part.number:
                self._uses[key] = uses
        if reader.failed:
            part.reader = reader
            self.failing.append(part)
        elif len(part.payload) > PASSED_ON_MAX:
            part.payload = b""

    def failure(self, keys: Iterable[Key]) -> tuple[str, BaseException] | None:
        """A name that these names use and that cannot be rebuilt, and why: each such value is tried
        again before."""
        used = self._closure(keys)
        with self._lock, entering(self), keyed(self):
            for part in tuple(self.failing):
                self._load_again(part, used)
            for part in self.failing:
                for key, error in part.failed.items():
                    if key in used and self._versions.get(key, -1) < part.number:
                        return key[1], error
        return None

    def _closure(self, keys: Iterable[Key]) -> set[Key]:
        found: set[Key] = set()
        waiting = list(keys)
        while waiting:
            if (key := waiting.pop()) not in found:
                found.add(key)
                waiting.extend(self._uses.get(key, ()))
        return found

    def _load_again(self, part: HostedPart, wanted: set[Key]) -> None:
        if part.reader is None or part.objects is None:
            return  # it has been forgotten
        for module, name, value in part.reader.again(wanted):
            part.objects[module, name] = value
            self._define(module, name, value, part.number)
        if not part.failed:
            self.failing.remove(part)
            part.reader = None

    def absent(self, module: str, name: str) -> str:
        """The text of an AttributeError."""
        text = f"module {module!r} has no attribute {name!r}"
        found = [
            part.failed[key] for part in self.failing if (key := (module, name)) in part.failed
        ]
        return (
            f"{text}: its value could not be rebuilt, {type(found[0]).__name__}" if found else text
        )

    def _define(self, module: str, name: str, value: Any, number: int) -> None:
        if self._versions.get((module, name), -1) > number:
            return
        self._versions[module, name] = number
        if module == SOURCES:
            self._sources[name] = value
        elif module != AUTHKEY:
            self.namespace(module)[name] = value

    def defined_by(self, module: str, name: str) -> int | None:
        """The number of the newest part that defines a name."""
        return self._versions.get((module, name))

    def forget(self, part: HostedPart) -> bool:
        """No job will need this part any more. Removes its objects that no newer part replaced, if
        they are plain data; others may still call its functions and classes. Whether it was the
        last."""
        self.parts.pop(part.number, None)
        if part in self.failing:
            self.failing.remove(part)
        for (module, name), value in (part.objects or {}).items():
            space = self.namespaces.get(module)
            if space is not None and space.get(name) is value and not callable(value):
                del space[name]
        part.objects = part.reader = None
        if not self.parts:
            self._end()
        return not self.parts

    def _end(self) -> None:
        _hosted_programs.pop(self.id, None)
        self.made.clear()
        for module, space in self.namespaces.items():
            del _by_globals[id(space)]
            space.clear()
            others = any(module in each.namespaces for each in _hosted_programs.values())
            if module != MAIN and not others and isinstance(sys.modules.get(module), StandIn):
                del sys.modules[module]
        self.namespaces.clear()
        for name in self._sources:
            linecache.cache.pop(name, None)

    def show_sources(self) -> None:
        """Let tracebacks find the source lines of interactive input and notebook cells."""
        for name, text in self._sources.items():
            lines = text.splitlines(keepends=True)
            linecache.cache[name] = (len(text), None, lines, name)


class HostedNames:
    """``cloud.Names`` of a pickle that a job of a program makes."""

    def __init__(self, hosted: HostedProgram) -> None:
        self._hosted = hosted

    def refer(self, obj: Any) -> tuple[str, str] | None:
        module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
        if type(module) is not str or type(qualname) is not str:
            return None
        target: Any = self._hosted.namespaces.get(module, {})
        for at, name in enumerate(qualname.split(".")):
            target = target.get(name) if at == 0 else getattr(target, "__dict__", {}).get(name)
        return (module, qualname) if target is obj else None

    def uses(self, fn: types.FunctionType) -> str | None:
        for module, space in self._hosted.namespaces.items():
            if space is fn.__globals__:
                return module
        return None

    def shows(self, code: types.CodeType) -> None:
        """The program's source is where it is needed already."""

    def refer_module(self, module: types.ModuleType) -> bool:
        return isinstance(module, StandIn)


class HostedPart:
    """Names that a program defines, with their values; loaded when the first job needs them."""

    __slots__ = ("hosted", "number", "objects", "payload", "reader", "stays")

    #: As of ``drafts.Part``; a worker does not look.
    only_compares = False

    def __init__(self, hosted: HostedProgram, number: int, payload: bytes) -> None:
        self.hosted = hosted
        self.number = number
        self.payload = payload
        #: It is there for the life of the process.
        self.stays = False
        #: By module and name, once it is loaded.
        self.objects: dict[Key, Any] | None = None
        #: While some of its values could not be rebuilt.
        self.reader: PartReader | None = None

    @property
    def failed(self) -> dict[Key, BaseException]:
        """Why values of it could not be rebuilt."""
        return {} if self.reader is None else self.reader.failed

    def forget(self) -> bool:
        """No job will need it any more; whether that is the end of its program here."""
        return not self.stays and self.hosted.forget(self)

    @property
    def superseded(self) -> bool:
        """The program alone knows."""
        return False

    @property
    def name(self) -> str:
        """The name under which the daemon knows it, in every session."""
        return part_name(self.hosted.id, self.number)

    def data(self) -> bytes:
        """As ``drafts.Part.data``; empty for a large one, which the daemon has already."""
        return self.payload


#: By the program's id.
_hosted_programs: dict[bytes, HostedProgram] = {}
#: By the id of each namespace of theirs.
_by_globals: dict[int, HostedProgram] = {}
#: Whose values this thread is loading.
_loading = threading.local()
#: Whose job this is.
_job: ContextVar[HostedProgram | None] = ContextVar("gmpd-program", default=None)
#: Held while the key of multiprocessing is another program's.
_key_lock = threading.RLock()


def _in_fork() -> None:
    """Another thread may hold locks, and is not there: each is a new one."""
    global _key_lock
    _key_lock = threading.RLock()
    for hosted in _hosted_programs.values():
        hosted.renew_lock()


os.register_at_fork(after_in_child=_in_fork)


def part_name(ident: bytes, number: int) -> str:
    """The name of a part for all processes."""
    return f"{ident.hex()}:{number}"


def learn(name: str, payload: bytes, *, stays: bool = False) -> HostedPart:
    """A part has come; ``stays``: for the life of this process. Raises ProtocolError for a name
    that ``part_name`` did not make."""
    ident, _, number = name.partition(":")
    try:
        key = bytes.fromhex(ident), int(number)
    except ValueError:
        raise ProtocolError(f"{name!r} is no part of a program") from None
    hosted = _hosted_programs.get(key[0])
    if hosted is None:
        hosted = _hosted_programs[key[0]] = HostedProgram(key[0])
    part = hosted.parts.get(key[1])
    if part is None:
        part = hosted.parts[key[1]] = HostedPart(hosted, key[1], payload)
    elif part.objects is None and not part.payload:
        part.payload = payload
    part.stays = part.stays or stays
    return part


def enter_job(needs: tuple[Any, ...]) -> None:
    """This context runs a job that needs these parts. Raises NotRegistered if one cannot be had."""
    part: HostedPart
    for part in needs:
        if part.objects is None:
            if not part.payload:
                raise NotRegistered(
                    "the program that defined this has ended: its jobs ended with it"
                )
            part.hosted.load(part)
    hosted = program_of(needs)
    if _job.get() is not hosted:
        _job.set(hosted)


def program_of(needs: tuple[Any, ...]) -> HostedProgram:
    """The program whose parts these are; there is at least one."""
    hosted: HostedProgram = needs[0].hosted
    return hosted


def current() -> HostedProgram | None:
    """The program whose values are loaded here, whose job this is, or whose code called."""
    hosted: HostedProgram | None = getattr(_loading, "hosted", None) or _job.get()
    if hosted is not None or not _hosted_programs:
        return hosted
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:  # a thread that a job started has a context of its own
        hosted = _by_globals.get(id(frame.f_globals))
        if hosted is not None:
            return hosted
        frame = frame.f_back
    return next(iter(_hosted_programs.values())) if len(_hosted_programs) == 1 else None


def owner_of(namespace: dict[str, Any]) -> HostedProgram | None:
    """The program that has this namespace here."""
    return _by_globals.get(id(namespace))


@contextmanager
def entering(hosted: HostedProgram) -> Iterator[None]:
    """Values that are unpickled here are this program's."""
    before = getattr(_loading, "hosted", None)
    _loading.hosted = hosted
    try:
        yield
    finally:
        _loading.hosted = before


def mark(data: bytes, ident: bytes) -> bytes:
    """A pickle that says whose names it uses."""
    return b"".join((data[:2], _MARK, ident, _MARK_END, memoryview(data)[2:]))


def marked(data: Any) -> bytes | None:
    """The program whose names a pickle uses, if it says so."""
    return bytes(data[_AT : _AT + ID_BYTES]) if data[2:_AT] == _MARK else None


def of(ident: bytes) -> HostedProgram | None:
    """A program by its id."""
    return _hosted_programs.get(ident)


def count() -> int:
    """Programs that are known here."""
    return len(_hosted_programs)


@contextmanager
def keyed(hosted: HostedProgram) -> Iterator[None]:
    """Proxies of the program's managers connect with its key, not with this process's."""
    if hosted.authkey is None:
        yield
        return
    from multiprocessing import process

    with _key_lock:
        config = process.current_process()._config  # type: ignore[attr-defined]
        before = config.get("authkey")
        config["authkey"] = process.AuthenticationString(hosted.authkey)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            config["authkey"] = before


def namespace(module: str) -> dict[str, Any]:
    """The globals of a module that travels by value: a stand-in's, or at home the module's own."""
    hosted = current()
    if hosted is not None:
        return hosted.namespace(module)
    return sys.modules[module].__dict__


def find(module: str, qualname: str) -> Any:
    """The object ``qualname`` of ``module`` of the current program. Raises AttributeError."""
    space = namespace(module)
    head, *rest = qualname.split(".")
    try:
        target = space[head]
    except KeyError:
        raise AttributeError(_absent(module, head)) from None
    for name in rest:
        target = getattr(target, name)
    return target


def _absent(module: str, name: str) -> str:
    hosted = current()
    if hosted is None:
        return f"module {module!r} has no attribute {name!r}"
    return hosted.absent(module, name)


def imported_as(fn: types.FunctionType) -> str | None:
    """The module among whose globals a function was defined, if others can import that, too."""
    name = fn.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str and name != MAIN else None
    if module is None or isinstance(module, StandIn) or vars(module) is not fn.__globals__:
        return None
    spec = getattr(module, "__spec__", None)
    return name if spec is not None and spec.name == name and spec.has_location else None


class StandIn(types.ModuleType):
    """Stands for a module that travels by value: shows each program its own.

    Without a program it shows what it was made with.
    """

    def __getattribute__(self, name: str) -> Any:
        space = _space_of(self)
        if name == "__dict__":
            return space
        if name == "__class__":
            return StandIn
        try:
            return space[name]
        except KeyError:
            pass
        module = space.get("__name__", MAIN)
        if name in _OWN:
            return object.__getattribute__(self, name)
        raise AttributeError(_absent(module, name))

    def __setattr__(self, name: str, value: Any) -> None:
        _space_of(self)[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del _space_of(self)[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"<module {_space_of(self).get('__name__', MAIN)!r} (stands for a program's)>"


#: Attributes that Python itself reads of any module.
_OWN = frozenset({"__repr__", "__dir__", "__reduce_ex__", "__reduce__", "__sizeof__", "__hash__"})


def _space_of(module: StandIn) -> dict[str, Any]:
    own: dict[str, Any] = object.__getattribute__(module, "__dict__")
    hosted = current()
    return own if hosted is None else hosted.namespace(own["__name__"])


def is_host() -> bool:
    """Whether jobs of programs run in this process."""
    return _real_main is not None


def stand_in() -> None:
    """From now on ``sys.modules["__main__"]`` is whose job asks."""
    global _real_main
    _real_main = sys.modules.get(MAIN)
    sys.modules[MAIN] = StandIn(MAIN)


#: Its globals are in use, and a module that is dropped empties them.
_real_main: types.ModuleType | None = None
