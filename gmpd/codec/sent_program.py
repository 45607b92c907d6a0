"""The definitions of this program's script, as far as they were sent to other processes.

``__main__``, and each module for which ``cloudpickle.register_pickle_by_value`` was called, goes
by value: in *parts*, pickles of names and their values, each sent once per session. A pickle then
says the name only. Workers put parts into namespaces that all jobs of the program share
(``hosted_programs``), so a function is sent with the names that it uses, found in its code, and
with what these use in turn.

**What is sent again.** A name is sent when something that needs it goes out for the first time, and
again when it was bound to another object since (a function defined anew, a constant assigned).
Changes *inside* an object are not seen, as with any pool whose workers have started. A name that a
function assigns (``global``) is the workers' own once it was sent, and is not sent again.

**At any moment.** A value is pickled by its own code; signal handlers and other threads run in
between, and may define the same names, bind them anew, or raise. So all that was sent is one state
that never changes: a draft is made beside it and follows it in one step, or is made again if its
names were sent meanwhile.

It never sends anything itself. Thread-safe.
"""

from __future__ import annotations

import io
import linecache
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from importlib.machinery import ModuleSpec
from typing import Any, NamedTuple

from gmpd.codec import finding, hosted_programs, interrupts, origins
from gmpd.codec.codes import names_in
from gmpd.codec.hosted_programs import AUTHKEY, LATE, MAIN, MP_MAIN, ORIGINS, SOURCES
from gmpd.codec.spawned import is_spawned, space_of
from gmpd.errors import Unserializable

#: A module that travels by value, and a name in it.
Key = tuple[str, str]
#: A value from this size on is a part of its own, so that others are sent without it.
ALONE_BYTES = 16 * 1024
#: Source text of one cell or of what was typed.
_SOURCE_MAX = 1 << 20
#: How long a thread waits for another to pickle what both need, seconds.
_TURN_S = 1.0
_ABSENT: Any = object()
#: Keys whose first half is no module.
_NO_MODULES = frozenset({SOURCES, AUTHKEY, ORIGINS, LATE})
_ORIGINS = (ORIGINS, LATE)
#: Attributes of every module: sent with the first of its names.
_OF_MODULE = ("__file__", "__package__", "__spec__", "__doc__")
_NEVER = frozenset({"__builtins__", "__loader__", "__cached__", "__name__"})
_SMALL = frozenset({type(None), bool, int, float})


class Undefinable(Exception):
    """The value of a name cannot be sent; ``__cause__`` says why."""

    def __init__(self, key: Key, value: object, user: str) -> None:
        super().__init__(key, value, user)
        self.name = key[1]
        self.value = value
        self.user = user


class Part:
    """Names with their values, on the way to other processes."""

    def __init__(self, program: SentProgram, number: int, drawn: _Drawn) -> None:
        self.name = hosted_programs.part_name(program.id, number)
        self.number = number
        #: All that it defines is defined anew by other parts.
        self.superseded = False
        #: The names that it defines.
        self.keys = tuple(key for key, entry in drawn.made.items() if entry.value is not _ABSENT)
        #: It only says where modules come from.
        self.only_compares = all(key[0] in _ORIGINS for key in self.keys)
        self._payload: bytes | None = drawn.payload
        #: Makes the payload of a large value again.
        self._again = drawn.again

    def data(self) -> bytes:
        """The bytes that are sent of it. A large value is not kept beside its pickle: a second
        session is sent the value as it is by then, and its own code may run here."""
        payload = self._payload
        if payload is None:
            assert self._again is not None
            return self._again()
        if self._again is not None:
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


class _Drawn(NamedTuple):
    """A part that has no number yet."""

    made: dict[Key, _Entry]
    payload: bytes
    again: Callable[[], bytes] | None


class Check(NamedTuple):
    """Whether one name still has the value that was sent."""

    space: dict[str, Any]
    name: str
    value: Any
    weak: bool
    state: tuple[Any, ...] | None


Watch = tuple[Check, ...]


def still_holds(watch: Watch) -> bool:
    """Whether every name still has the value that was sent."""
    for space, name, sent, weak, state in watch:
        value = space.get(name, _ABSENT)
        if value is not (sent() if weak else sent):
            return False
        if state is not None and state_of(value) != state:
            return False
    return True


def state_of(fn: Any) -> tuple[Any, ...]:
    """The attributes of a function that can be replaced while it stays the same function."""
    return fn.__code__, fn.__defaults__, fn.__kwdefaults__


class _State:
    """All that a program has sent, at one moment. It never changes: a newer one follows it."""

    __slots__ = ("assigned", "entries", "follower", "number")

    def __init__(self, entries: dict[Key, _Entry], assigned: frozenset[Key], number: int) -> None:
        self.entries = entries
        #: Names that functions which were sent assign.
        self.assigned = assigned
        #: Of the next part.
        self.number = number
        #: At ``_NEXT`` the state after this one. ``setdefault`` puts it there in one step, which
        #: neither threads nor signal handlers can divide.
        self.follower: dict[int, _State] = {}

    def knows(self, key: Key) -> bool:
        """Whether a name is defined elsewhere as it is now."""
        return key in self.entries and not self.is_stale(key)

    def closure(self, keys: Iterable[Key]) -> frozenset[Key]:
        """These names, and those that they use."""
        found: set[Key] = set()
        waiting = list(keys)
        while waiting:
            key = waiting.pop()
            if key in found:
                continue
            found.add(key)
            entry = self.entries.get(key)
            if entry is not None:
                waiting.extend(entry.uses)
            if key[0] not in _NO_MODULES:
                waiting.extend((key[0], name) for name in _OF_MODULE)
        return frozenset(found)

    def is_stale(self, key: Key) -> bool:
        """Whether a name has to be sent: it is new, or has changed."""
        entry = self.entries.get(key)
        if entry is None:
            return True
        if key in self.assigned or key[0] in (SOURCES, AUTHKEY) or key[1] in _OF_MODULE:
            return False
        value = _value_of(key)
        if value is not (entry.value() if entry.weak else entry.value):
            return True
        return entry.state is not None and state_of(value) != entry.state

    def tell_superseded(self, replaced: Iterable[_Entry]) -> None:
        """Let sessions forget the parts of which nothing is left. Only an economy: a signal handler
        that raises may end it half way."""
        for part in {entry.part for entry in replaced if entry.part is not None}:
            part.superseded = all(self.entries[key].part is not part for key in part.keys)


_NEXT = 0


class Required(NamedTuple):
    """Names that were required, as they were sent."""

    state: _State
    keys: frozenset[Key]

    @property
    def needs(self) -> tuple[Part, ...]:
        """The parts that define the names, in the order of their making."""
        entries = self.state.entries
        parts = {part for key in self.keys if (part := entries[key].part) is not None}
        return tuple(sorted(parts, key=lambda part: part.number))

    def defining_part(self, key: Key) -> int:
        """The number of the part that defines a name."""
        part = self.state.entries[key].part
        return -1 if part is None else part.number

    def watch(self) -> Watch:
        """Facts to check before the names are taken for sent."""
        found = []
        for key in self.keys:
            module, name = key
            if key in self.state.assigned or module in _NO_MODULES or name in _OF_MODULE:
                continue
            entry = self.state.entries[key]
            space = space_of(module)
            found.append(Check(space, name, entry.value, entry.weak, entry.state))
        return tuple(found)


class SentProgram:
    """This program."""

    def __init__(self) -> None:
        self.id = os.urandom(hosted_programs.ID_BYTES)
        self._latest = _State({}, frozenset(), 0)
        #: By what was required: bounded, since it is by the modules of this program's classes.
        self._origins: dict[frozenset[Key], Required] = {}
        #: Saves threads the work of pickling the same names at the same time, and no more than
        #: that: see ``_take_turn``.
        self._turn = threading.RLock()

    def require(self, keys: Iterable[Key], assigned: Iterable[Key] = ()) -> Required:
        """Define these names and all that they use where that is not done yet. ``assigned``: names
        that belong to the workers from now on. Raises Undefinable."""
        names, own = tuple(keys), frozenset(assigned)
        required = self._sent(names, own)
        if required is None:
            turn = self._take_turn()
            try:
                while required is None:
                    self._define(names, own)
                    required = self._sent(names, own)
            finally:
                turn.release()
        return required

    def require_origins(self, keys: set[Key]) -> Required:
        """As ``require``, of origins only: most calls with values of a class need the same."""
        names = frozenset(keys)
        known = self._origins.get(names)
        if known is not None and not any(map(known.state.is_stale, names)):
            return known
        required = self._origins[names] = self.require(names)
        return required

    def _state(self) -> _State:
        state = self._latest
        while (newer := state.follower.get(_NEXT)) is not None:
            state = newer
        self._latest = state  # perhaps over a newer one, to which this leads
        return state

    def _take_turn(self) -> Any:
        """Values are pickled by their own code, which may wait for another thread that is here,
        too; and a signal handler may raise between the lock and its release. So the lock is given
        up after a moment: the pickling is only done twice then."""
        while True:
            turn = self._turn
            if turn.acquire(timeout=_TURN_S):
                return turn
            if self._turn is turn:
                self._turn = threading.RLock()

    def _sent(self, keys: tuple[Key, ...], assigned: frozenset[Key]) -> Required | None:
        state = self._state()
        used = state.closure(keys)
        if assigned <= state.assigned and not any(map(state.is_stale, used)):
            return Required(state, used)
        return None

    def _define(self, keys: tuple[Key, ...], assigned: frozenset[Key]) -> None:
        """Put names into new parts, with the names that they use and that were not sent.

        Values' own code, signal handlers and other threads may do the same meanwhile. The first one
        to be done wins: nothing that a job may have assigned since is sent a second time."""
        seen = self._state()
        draft = _Draft(seen, sorted(filter(seen.is_stale, seen.closure(keys))))
        drawn = draft.draw()
        assigned |= draft.assigned
        while True:
            state = self._state()
            made = [key for each in drawn for key in each.made]
            if any(state.entries.get(key) is not seen.entries.get(key) for key in made):
                return
            mine = self._after(state, drawn, assigned)
            if state.follower.setdefault(_NEXT, mine) is mine:
                mine.tell_superseded(state.entries[key] for key in made if key in state.entries)
                return

    def _after(self, state: _State, drawn: list[_Drawn], assigned: frozenset[Key]) -> _State:
        entries = dict(state.entries)
        number = state.number
        for each in drawn:
            part = Part(self, number, each)
            number += 1
            for key, entry in each.made.items():
                entries[key] = entry if entry.value is _ABSENT else entry._replace(part=part)
        return _State(entries, state.assigned | assigned, number)


class NameCollector:
    """``cloud.Names`` of one pickle: gathers which names it uses.

    ``knows``: the names are defined just now. An object not known elsewhere is sent whole at its
    first use."""

    def __init__(self, knows: Callable[[Key], bool] | None = None) -> None:
        self._knows = knows
        self.keys: set[Key] = set()
        #: Names that functions in it assign.
        self.assigned: set[Key] = set()

    @property
    def names_anything(self) -> bool:
        """Whether the pickle uses more of the program than where modules come from."""
        return any(key[0] not in _ORIGINS for key in self.keys)

    def refer(self, obj: Any) -> tuple[str, str] | None:
        found = named(obj)
        if found is None:
            return None
        module, qualname = found
        key = module, qualname.partition(".")[0]
        self.keys.add(key)
        return None if self._knows is not None and not self._knows(key) else found

    def uses(self, fn: types.FunctionType) -> str | None:
        module = module_of(fn)
        if module is not None:
            read, assigned = names_in(fn.__code__)
            self.keys.update((module, name) for name in read | assigned if name not in _NEVER)
            self.keys.update((module, name) for name in _OF_MODULE)
            self.assigned.update((module, name) for name in assigned)
        return module

    def shows(self, code: types.CodeType) -> None:
        if _has_text_here_only(code.co_filename):
            self.keys.add((SOURCES, code.co_filename))
        if not hosted_programs.is_host():
            found = origins.compared_of(code)
            self.keys.update((ORIGINS if n in sys.modules else LATE, n) for n in found)

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
    """Parts being made, beside those that were sent before."""

    def __init__(self, seen: _State, keys: list[Key]) -> None:
        self._seen = seen
        self._waiting = list(keys)
        self._users: dict[Key, str] = {}
        self._names = NameCollector(seen.knows)
        self._sink = io.BytesIO()
        self._pickler = _pickler(self._sink, self._names)
        self._made: dict[Key, _Entry] = {}
        self._large: list[_Drawn] = []
        #: Where a thing was written that came up inside another.
        self._inside: dict[Key, Key] = {}

    @property
    def assigned(self) -> set[Key]:
        """Names that its functions assign."""
        return self._names.assigned

    def draw(self) -> list[_Drawn]:
        """Write all queued names, and those that they use. Raises Undefinable."""
        _write_key(self._pickler)
        while self._waiting:
            key = self._waiting.pop()
            if key in self._made or self._seen.knows(key):
                continue
            self._write(key)
        self._pickler.dump(None)
        for each in self._large:
            for key in each.made:
                each.made[key] = self._made.pop(key)
        if not self._made:
            return self._large
        return [*self._large, _Drawn(self._made, self._sink.getvalue(), None)]

    def _write(self, key: Key) -> None:
        value = _value_of(key)
        entry = _entry(value)
        uses: set[Key] = set()
        if value is not _ABSENT:
            self._names.keys = uses
            try:
                start = self._sink.tell()
                if not self._write_alone(key, value):
                    self._pickler.dump((*key, value))
                uses |= _origins_of(value, bytes(self._sink.getbuffer()[start:]))
            except Exception as exc:
                interrupts.pass_on(exc)
                raise Undefinable(key, value, self._users.get(key, "")) from exc
        uses.discard(key)
        host = self._inside.get(key)
        if host is not None and host in self._made:
            uses |= self._made[host].uses - {key}
        self._made[key] = entry._replace(uses=frozenset(uses))
        for used in sorted(uses):
            if used not in self._made:
                self._users.setdefault(used, key[1])
                self._inside.setdefault(used, key)
                self._waiting.append(used)

    def _write_alone(self, key: Key, value: Any) -> bool:
        """Whether it is a large value, which is a part of its own."""
        if type(value) in _SMALL or callable(value) or isinstance(value, types.ModuleType):
            return False
        payload = _alone(key, value, self._names)
        # An origin is compared before anything else is loaded; values that refer to others stay
        # with them.
        refers = len(payload) < ALONE_BYTES or self._names.keys or origins_in(payload)
        if key[0] not in _ORIGINS and refers:
            return False
        self._large.append(_Drawn({key: _entry(value)}, payload, partial(_alone_again, key, value)))
        return True


def _origins_of(value: Any, data: bytes) -> set[Key]:
    """For the module that a global is, or whose function or class it is, and for those that its
    pickle names. They are parts of their own, loaded before any value."""
    found = origins_in(data)
    name = origins.module_of(value)
    if type(name) is str and not by_value(name) and origins.said_of(name):
        found.add((ORIGINS, name))
    return found


def origins_in(data: bytes) -> set[Key]:
    """For the modules of projects that a pickle of this program names. None in a worker: what comes
    from one goes where the same modules are."""
    if hosted_programs.is_host():
        return set()
    return {(ORIGINS, name) for name in origins.compared_in(data) if not by_value(name)}


def _alone(key: Key, value: Any, names: NameCollector) -> bytes:
    sink = io.BytesIO()
    pickler = _pickler(sink, names)
    _write_key(pickler)
    pickler.dump((*key, value))
    pickler.dump(None)
    return sink.getvalue()


def _alone_again(key: Key, before: Any) -> bytes:
    """Sent with everything it refers to: the part needs no others."""
    value = _value_of(key)
    try:
        return _alone(key, before if value is _ABSENT else value, NameCollector(lambda _: False))
    except Exception as exc:
        interrupts.pass_on(exc)
        raise Unserializable(f"the global {key[1]!r} cannot be sent a second time: {exc}") from exc


def _pickler(sink: io.BytesIO, names: NameCollector) -> Any:
    from gmpd.codec.cloud import CloudPickler

    return CloudPickler(sink, names, fresh_locks=True)


def has_managers() -> bool:
    """Whether this program may have proxies of managers."""
    return "multiprocessing.managers" in sys.modules


def _write_key(pickler: Any) -> None:
    if has_managers():
        pickler.dump((AUTHKEY, "", _value_of((AUTHKEY, ""))))


def _entry(value: Any) -> _Entry:
    """For a value that is about to be pickled; the names that it uses come later."""
    state = state_of(value) if isinstance(value, types.FunctionType) else None
    try:
        return _Entry(None, weakref.ref(value), True, state, frozenset())
    except TypeError:
        return _Entry(None, value, False, state, frozenset())


def _value_of(key: Key) -> Any:
    module, name = key
    if module == SOURCES:
        return "".join(linecache.getlines(name))[:_SOURCE_MAX]
    if module == AUTHKEY:
        from multiprocessing import process

        return bytes(process.current_process().authkey)
    if module == ORIGINS:
        return origins.said_of(name)
    if module == LATE:
        return origins.said_of_late(name)
    value = space_of(module).get(name, _ABSENT)
    if name == "__spec__" and isinstance(value, ModuleSpec):
        return ModuleSpec(value.name, None, origin=value.origin)
    return value


@lru_cache(maxsize=256)
def _has_text_here_only(filename: str) -> bool:
    return not os.path.isfile(filename) and bool(linecache.getlines(filename))


# -- what has a name -------------------------------------------------------------------------------


def by_value(module: str) -> bool:
    """Whether what a module defines is sent by value: the script does, what no worker can import,
    and whatever the user said so of by ``cloudpickle.register_pickle_by_value``."""
    if module == MAIN or (module == MP_MAIN and is_spawned()):
        return True
    if not hosted_programs.is_host() and finding.is_unimportable(module):
        return True
    cloudpickle = sys.modules.get("cloudpickle")
    registered = cloudpickle.list_registry_pickle_by_value() if cloudpickle is not None else ()
    if not registered or module not in sys.modules:
        return False
    parts = module.split(".")
    return any(".".join(parts[: n + 1]) in registered for n in range(len(parts)))


def named(obj: Any) -> tuple[str, str] | None:
    """Module and qualified name of an object of a module that is sent by value."""
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
    return space is not None and space is not space_of(module) and space.get("__name__") == module


def module_of(fn: types.FunctionType) -> str | None:
    """The module that goes by value whose globals are those of ``fn``."""
    name = fn.__globals__.get("__name__")
    if type(name) is not str or not by_value(name):
        return None
    return name if space_of(name) is fn.__globals__ else None


#: This program: another one in a fork.
THIS_PROGRAM = SentProgram()


def _in_fork() -> None:
    global THIS_PROGRAM
    THIS_PROGRAM = SentProgram()


os.register_at_fork(after_in_child=_in_fork)
