"""What this program's script defines, as far as other processes have been sent it.

``__main__``, and each module for which ``cloudpickle.register_pickle_by_value`` was called, goes
by value: in *parts*, pickles of names and their values, each sent once per session. A pickle then
says the name only. Workers put parts into namespaces that all jobs of the program share
(``guests``), so a function is sent with the names that it uses, found in its code, and with what
these use in turn.

**What is sent again.** A name is sent when something that needs it goes out for the first time, and
again when it was bound to another object since (a function defined anew, a constant assigned).
Changes *inside* an object are not seen, as with any pool whose workers have started. A name that a
function assigns (``global``) is the workers' own once it was sent, and is not sent again.

It never sends anything itself. Thread-safe.
"""

from __future__ import annotations

import dis
import io
import itertools
import linecache
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.machinery import ModuleSpec
from typing import Any, NamedTuple

from gmpd.codec import guests, origins
from gmpd.codec.guests import AUTHKEY, MAIN, ORIGINS, SOURCES

#: A module that travels by value, and a name in it.
Key = tuple[str, str]
#: A value from this size on is a part of its own, so that others are sent without it.
ALONE_BYTES = 16 * 1024
#: Source text of one cell or of what was typed.
_SOURCE_MAX = 1 << 20
_ABSENT: Any = object()
#: What every module has: sent with the first of its names.
_OF_MODULE = ("__file__", "__package__", "__spec__", "__doc__")
_NEVER = frozenset({"__builtins__", "__loader__", "__cached__", "__name__"})
_SMALL = frozenset({type(None), bool, int, float})
_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_STORE_OPS = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})


class Undefinable(Exception):
    """The value of a name cannot be sent; ``__cause__`` says why."""

    def __init__(self, key: Key, value: object, user: str) -> None:
        super().__init__(key, value, user)
        self.name = key[1]
        self.value = value
        self.user = user


class Part:
    """Names with their values, on the way to other processes."""

    def __init__(self, name: str, number: int, payload: bytes) -> None:
        self.name = name
        self.number = number
        self._payload: bytes | None = payload
        #: Makes the payload of a large value again.
        self.again: Callable[[], bytes] | None = None
        #: Names of it that nothing newer has replaced.
        self.current: set[Key] = set()

    @property
    def superseded(self) -> bool:
        """Whether all that it defines is defined anew by other parts."""
        return not self.current

    def data(self) -> bytes:
        """What is sent of it. A large value is not kept beside its pickle: a second session is sent
        the value as it is by then."""
        payload = self._payload
        if payload is None:
            assert self.again is not None
            return self.again()
        if self.again is not None:
            self._payload = None
        return payload


class _Entry(NamedTuple):
    part: Part | None
    #: The value when it was sent, or a weak reference to it.
    value: Any
    weak: bool
    #: Code and defaults of a function.
    state: tuple[Any, ...] | None
    uses: frozenset[Key]


class Check(NamedTuple):
    """Whether one name still is what was sent."""

    space: dict[str, Any]
    name: str
    value: Any
    weak: bool
    state: tuple[Any, ...] | None


Watch = tuple[Check, ...]


def still_holds(watch: Watch) -> bool:
    """Whether every name still is what was sent."""
    for space, name, sent, weak, state in watch:
        value = space.get(name, _ABSENT)
        if value is not (sent() if weak else sent):
            return False
        if state is not None and state_of(value) != state:
            return False
    return True


def state_of(fn: Any) -> tuple[Any, ...]:
    """What can be exchanged in a function without its being another."""
    return fn.__code__, fn.__defaults__, fn.__kwdefaults__


class Home:
    """This program."""

    def __init__(self) -> None:
        self.id = os.urandom(guests.ID_BYTES)
        self._lock = threading.RLock()
        #: Numbers of parts: taken in one step, since a signal handler may make a part in between.
        self._numbers = itertools.count()
        self._entries: dict[Key, _Entry] = {}
        #: Names that functions which were sent assign.
        self._assigned: set[Key] = set()

    def require(self, keys: Iterable[Key]) -> tuple[tuple[Part, ...], frozenset[Key]]:
        """The parts that define these names and all that they use, in the order of their making;
        and all those names. Raises Undefinable."""
        with self._lock:
            while True:
                used = self._closure(keys)
                stale = sorted(key for key in used if self._is_stale(key))
                if not stale:
                    break
                self._define(stale)
            parts = {part for key in used if (part := self._entries[key].part) is not None}
            return tuple(sorted(parts, key=lambda part: part.number)), used

    def watch(self, keys: Iterable[Key]) -> Watch:
        """What to check before these names are taken for sent."""
        found = []
        for key in keys:
            module, name = key
            if key in self._assigned or module in (SOURCES, AUTHKEY) or name in _OF_MODULE:
                continue
            entry = self._entries[key]
            space = sys.modules[module].__dict__
            found.append(Check(space, name, entry.value, entry.weak, entry.state))
        return tuple(found)

    def knows(self, key: Key) -> bool:
        """Whether a name is defined elsewhere as it is now."""
        return key in self._entries and not self._is_stale(key)

    def defining_part(self, key: Key) -> int:
        """The number of the part that defines a name that was required."""
        part = self._entries[key].part
        return -1 if part is None else part.number

    def assigns(self, keys: Iterable[Key]) -> None:
        """Functions on their way assign these names."""
        self._assigned.update(keys)

    def _closure(self, keys: Iterable[Key]) -> frozenset[Key]:
        found: set[Key] = set()
        waiting = list(keys)
        while waiting:
            key = waiting.pop()
            if key in found:
                continue
            found.add(key)
            entry = self._entries.get(key)
            if entry is not None:
                waiting.extend(entry.uses)
            if key[0] not in (SOURCES, AUTHKEY):
                waiting.extend((key[0], name) for name in _OF_MODULE)
        return frozenset(found)

    def _is_stale(self, key: Key) -> bool:
        entry = self._entries.get(key)
        if entry is None:
            return True
        if key in self._assigned or key[0] in (SOURCES, AUTHKEY) or key[1] in _OF_MODULE:
            return False
        value = _value_of(key)
        if value is not (entry.value() if entry.weak else entry.value):
            return True
        return entry.state is not None and state_of(value) != entry.state

    def _define(self, keys: list[Key]) -> None:
        """Put names into new parts, with what they use and is not sent yet."""
        draft = _Draft(self, keys)
        draft.write()
        for key, payload, again in draft.large:
            self._commit({key: draft.made[key]}, payload, again)
            del draft.made[key]
        self._commit(draft.made, draft.payload(), None)

    def _commit(
        self, made: dict[Key, _Entry], payload: bytes, again: Callable[[], bytes] | None
    ) -> None:
        number = next(self._numbers)
        part = Part(guests.part_name(self.id, number), number, payload)
        part.again = again
        for key, entry in made.items():
            old = self._entries.get(key)
            if old is not None and old.part is not None:
                old.part.current.discard(key)
            if entry.value is not _ABSENT:
                part.current.add(key)
                entry = entry._replace(part=part)
            self._entries[key] = entry


class Collector:
    """``cloud.Names`` of one pickle: gathers which names it uses."""

    def __init__(self, home: Home, *, defining: bool = False) -> None:
        self._home = home
        self._defining = defining
        self.keys: set[Key] = set()

    def refer(self, obj: Any) -> tuple[str, str] | None:
        found = named(obj)
        if found is None:
            return None
        module, qualname = found
        key = module, qualname.partition(".")[0]
        self.keys.add(key)
        # What is defined just now goes as a whole where it is met first.
        return None if self._defining and not self._home.knows(key) else found

    def uses(self, fn: types.FunctionType) -> str | None:
        module = module_of(fn)
        if module is not None:
            read, assigned = names_in(fn.__code__)
            self.keys.update((module, name) for name in read | assigned if name not in _NEVER)
            self.keys.update((module, name) for name in _OF_MODULE)
            self._home.assigns((module, name) for name in assigned)
        return module

    def shows(self, code: types.CodeType) -> None:
        if _has_text_here_only(code.co_filename):
            self.keys.add((SOURCES, code.co_filename))

    def refer_module(self, module: types.ModuleType) -> bool:
        name = module.__name__
        if sys.modules.get(name) is not module or not by_value(name):
            return False
        self.keys.update((name, key) for key in _OF_MODULE)
        if name != MAIN:
            # A copy: a handler or another thread may add a global meanwhile.
            keys = tuple(vars(module))
            self.keys.update((name, key) for key in keys if not key.startswith("__"))
        return True


class _Draft:
    """A part in the making."""

    def __init__(self, home: Home, keys: list[Key]) -> None:
        self._home = home
        self._waiting = list(keys)
        self._users: dict[Key, str] = {}
        self._names = Collector(home, defining=True)
        self._sink = io.BytesIO()
        self._pickler = _pickler(self._sink, self._names)
        _write_key(self._pickler)
        self.made: dict[Key, _Entry] = {}
        self.large: list[tuple[Key, bytes, Callable[[], bytes]]] = []
        #: Where a thing was written that came up inside another.
        self._inside: dict[Key, Key] = {}

    def payload(self) -> bytes:
        self._pickler.dump(None)
        return self._sink.getvalue()

    def write(self) -> None:
        """Write all that wait, and what they use."""
        while self._waiting:
            key = self._waiting.pop()
            if key in self.made or self._home.knows(key):
                continue
            self._write(key)

    def _write(self, key: Key) -> None:
        value = _value_of(key)
        uses: set[Key] = set()
        if value is not _ABSENT:
            self._names.keys = uses
            try:
                self._write_origin(value)
                if not self._write_alone(key, value):
                    self._pickler.dump((*key, value))
            except Exception as exc:
                raise Undefinable(key, value, self._users.get(key, "")) from exc
        uses.discard(key)
        host = self._inside.get(key)
        if host is not None and host in self.made:
            uses |= self.made[host].uses - {key}
        self.made[key] = _entry(value, frozenset(uses))
        for used in sorted(uses):
            if used not in self.made:
                self._users.setdefault(used, key[1])
                self._inside.setdefault(used, key)
                self._waiting.append(used)

    def _write_origin(self, value: Any) -> None:
        """Where a module, or what is found in one, comes from: before it is imported for it."""
        name = value.__name__ if isinstance(value, types.ModuleType) else None
        if isinstance(value, types.FunctionType | type):
            name = value.__module__
        if name is not None and not by_value(name) and (said := origins.said_of(name)):
            self._pickler.dump((ORIGINS, name, said))

    def _write_alone(self, key: Key, value: Any) -> bool:
        """Whether it is a large value, which is a part of its own."""
        if type(value) in _SMALL or callable(value) or isinstance(value, types.ModuleType):
            return False

        def again() -> bytes:
            sink = io.BytesIO()
            pickler = _pickler(sink, self._names)
            _write_key(pickler)
            held = _value_of(key)
            pickler.dump((*key, value if held is _ABSENT else held))
            pickler.dump(None)
            return sink.getvalue()

        payload = again()
        if len(payload) < ALONE_BYTES or self._names.keys:
            return False  # what refers to others stays with them
        self.large.append((key, payload, again))
        return True


def _pickler(sink: io.BytesIO, names: Collector) -> Any:
    from gmpd.codec.cloud import CloudPickler

    return CloudPickler(sink, names, fresh_locks=True)


def has_managers() -> bool:
    """Whether this program may have proxies of managers."""
    return "multiprocessing.managers" in sys.modules


def _write_key(pickler: Any) -> None:
    if has_managers():
        pickler.dump((AUTHKEY, "", _value_of((AUTHKEY, ""))))


def _entry(value: Any, uses: frozenset[Key]) -> _Entry:
    state = state_of(value) if isinstance(value, types.FunctionType) else None
    try:
        return _Entry(None, weakref.ref(value), True, state, uses)
    except TypeError:
        return _Entry(None, value, False, state, uses)


def _value_of(key: Key) -> Any:
    module, name = key
    if module == SOURCES:
        return "".join(linecache.getlines(name))[:_SOURCE_MAX]
    if module == AUTHKEY:
        from multiprocessing import process

        return bytes(process.current_process().authkey)
    value = sys.modules[module].__dict__.get(name, _ABSENT)
    if name == "__spec__" and isinstance(value, ModuleSpec):
        return ModuleSpec(value.name, None, origin=value.origin)
    return value


@lru_cache(maxsize=256)
def _has_text_here_only(filename: str) -> bool:
    return not os.path.isfile(filename) and bool(linecache.getlines(filename))


# -- what has a name -------------------------------------------------------------------------------


def by_value(module: str) -> bool:
    """Whether what a module defines is sent by value: the script does, and whatever the user
    said so of by ``cloudpickle.register_pickle_by_value``."""
    if module == MAIN:
        return True
    cloudpickle = sys.modules.get("cloudpickle")
    registered = cloudpickle.list_registry_pickle_by_value() if cloudpickle is not None else ()
    if not registered or module not in sys.modules:
        return False
    parts = module.split(".")
    return any(".".join(parts[: n + 1]) in registered for n in range(len(parts)))


def named(obj: Any) -> tuple[str, str] | None:
    """Module and qualified name of what a module that goes by value has under its own name."""
    module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if type(module) is not str or type(qualname) is not str or not by_value(module):
        return None
    target: Any = sys.modules.get(module)
    for name in qualname.split("."):
        target = getattr(target, "__dict__", {}).get(name, _ABSENT)
        if isinstance(target, staticmethod | classmethod):
            return None  # goes with its class
    if target is not obj or _is_of_a_namesake(obj, module):
        return None
    return module, qualname


def _is_of_a_namesake(obj: Any, module: str) -> bool:
    """Whether a function's globals are another namespace that goes by the same name, as a
    debugger's or profiler's."""
    space = getattr(obj, "__globals__", None)
    return (
        space is not None
        and space is not sys.modules[module].__dict__
        and space.get("__name__") == module
    )


def module_of(fn: types.FunctionType) -> str | None:
    """The module that goes by value whose globals are those of ``fn``."""
    name = fn.__globals__.get("__name__")
    if type(name) is not str or not by_value(name):
        return None
    return name if sys.modules[name].__dict__ is fn.__globals__ else None


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


#: This program: another one in a fork.
HOME = Home()


def _in_fork() -> None:
    global HOME
    HOME = Home()


os.register_at_fork(after_in_child=_in_fork)
