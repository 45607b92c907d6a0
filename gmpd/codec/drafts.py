"""Parts of this program: pickles of names with their values, and how they are made.

A part is a sequence of pickles with one memo, each of a name with its value, in the order in which
a worker defines them. To rebuild a value may call functions of the program: ``__setstate__``, a
``__hash__``, a metaclass. So the names that it uses come before it.
"""

from __future__ import annotations

import io
import sys
import types
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from gmpd.codec import hosted_programs, interrupts, origins
from gmpd.codec.hosted_programs import AUTHKEY, ORIGINS
from gmpd.codec.parts import Key, Row, seal
from gmpd.codec.program_names import (
    ABSENT,
    OF_ORIGINS,
    NameCollector,
    by_value,
    has_managers,
    origins_in,
    state_of,
    value_of,
)
from gmpd.errors import Unserializable

#: A value from this size on is a part of its own, so that others are sent without it.
ALONE_BYTES = 16 * 1024
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

    def __init__(self, ident: bytes, number: int, drawn: Drawn) -> None:
        self.name = hosted_programs.part_name(ident, number)
        self.number = number
        #: All that it defines is defined anew by other parts.
        self.superseded = False
        #: The names that it defines.
        self.keys = tuple(key for key, entry in drawn.made.items() if entry.value is not ABSENT)
        #: It only says where modules come from.
        self.only_compares = all(key[0] in OF_ORIGINS for key in self.keys)
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


class Entry(NamedTuple):
    part: Part | None
    #: The value when it was sent, or a weak reference to it.
    value: Any
    weak: bool
    #: Code and defaults of a function.
    state: tuple[Any, ...] | None
    uses: frozenset[Key]


class Drawn(NamedTuple):
    """A part that has no number yet."""

    made: dict[Key, Entry]
    payload: bytes
    again: Callable[[], bytes] | None


class Draft:
    """Parts being made, beside those that were sent before; ``knows``: which names these define."""

    def __init__(self, knows: Callable[[Key], bool], keys: list[Key]) -> None:
        self._knows = knows
        #: A stack: a name that is used comes before what uses it.
        self._waiting = list(keys)
        self._users: dict[Key, str] = {}
        self._names = NameCollector(knows)
        self._sink = io.BytesIO()
        self._pickler = _pickler_of(self._sink, self._names)
        #: Written names, in this order.
        self._rows: list[Key] = []
        self._made: dict[Key, Entry] = {}
        self._large: list[Drawn] = []
        #: Values that were pickled on trial, and the names that they use.
        self._tried: dict[Key, set[Key]] = {}

    @property
    def assigned(self) -> set[Key]:
        """Names that its functions assign."""
        return self._names.assigned

    def draw(self) -> list[Drawn]:
        """Write all queued names, and those that they use. Raises Undefinable."""
        self._rows += _write_key(self._pickler)
        while self._waiting:
            key = self._waiting.pop()
            if key in self._made or self._knows(key):
                continue
            self._write(key)
        self._pickler.dump(None)
        for each in self._large:
            for key in each.made:
                each.made[key] = self._made.pop(key)
        if not self._made:
            return self._large
        rows = [Row(key, self._uses_of(key)) for key in self._rows]
        return [*self._large, Drawn(self._made, seal(self._sink, rows), None)]

    def _uses_of(self, key: Key) -> tuple[Key, ...]:
        return tuple(self._made[key].uses) if key in self._made else ()

    def _write(self, key: Key) -> None:
        value = value_of(key)
        entry = _entry_of(value)
        try:
            if value is ABSENT:
                self._enter(key, entry, set())
            elif key in self._tried or not _may_call(value):
                self._put(key, value, entry)
            else:
                self._try_out(key, value, entry)
        except Exception as exc:
            interrupts.pass_on(exc)
            raise Undefinable(key, value, self._users.get(key, "")) from exc

    def _try_out(self, key: Key, value: Any, entry: Entry) -> None:
        """Find the names that a value uses, by pickling it alone: it is written after them. A large
        value is a part of its own."""
        uses: set[Key] = set()
        self._tried[key] = self._names.keys = uses
        payload = _alone(key, value, self._names)
        # An origin is compared before anything else is loaded; values that refer to others stay
        # with them.
        refers = len(payload) < ALONE_BYTES or uses or origins_in(payload)
        if callable(value) or (refers and key[0] not in OF_ORIGINS):
            self._waiting.append(key)
            self._queue(key, uses)
            return
        again = partial(_alone_again, key, value)
        self._large.append(Drawn({key: entry}, payload, again))
        self._enter(key, entry, uses | _origins_of(value, payload))

    def _put(self, key: Key, value: Any, entry: Entry) -> None:
        """Write a value behind those before it."""
        uses = self._names.keys = self._tried.get(key, set())
        start = self._sink.tell()
        self._pickler.dump((*key, value))
        self._rows.append(key)
        self._enter(key, entry, uses | _origins_of(value, bytes(self._sink.getbuffer()[start:])))

    def _enter(self, key: Key, entry: Entry, uses: set[Key]) -> None:
        """It is written."""
        uses.discard(key)
        self._made[key] = entry._replace(uses=frozenset(uses))
        self._queue(key, uses)

    def _queue(self, key: Key, uses: set[Key]) -> None:
        """Names that ``key`` uses; not those that wait for others themselves."""
        for used in sorted(uses - self._made.keys() - self._tried.keys()):
            self._users.setdefault(used, key[1])
            self._waiting.append(used)


def _may_call(value: Any) -> bool:
    """Whether functions of the program may be called when a value is rebuilt: not for the plainest,
    nor for a function with nothing but its code. These hold no others, either."""
    if type(value) is types.FunctionType:
        more = value.__defaults__ or value.__kwdefaults__ or value.__closure__ or vars(value)
        return bool(more or _has_hints(value))
    return type(value) not in _SMALL and not isinstance(value, types.ModuleType)


def _has_hints(fn: types.FunctionType) -> bool:
    """Annotations, which Python evaluates late since 3.14, or type parameters."""
    if getattr(fn, "__type_params__", ()):
        return True
    if sys.version_info >= (3, 14):
        return getattr(fn, "__annotate__", None) is not None
    return bool(fn.__annotations__)


def _origins_of(value: Any, data: bytes) -> set[Key]:
    """For the module that a global is, or whose function or class it is, and for those that its
    pickle names. They are parts of their own, loaded before any value."""
    found = origins_in(data)
    name = origins.module_of(value)
    if type(name) is str and not by_value(name) and origins.said_of(name):
        found.add((ORIGINS, name))
    return found


def _alone(key: Key, value: Any, names: NameCollector) -> bytes:
    sink = io.BytesIO()
    pickler = _pickler_of(sink, names)
    rows = [*_write_key(pickler), key]
    pickler.dump((*key, value))
    pickler.dump(None)
    return seal(sink, [Row(each, ()) for each in rows])


def _alone_again(key: Key, before: Any) -> bytes:
    """Sent with everything it refers to: the part needs no others."""
    value = value_of(key)
    try:
        return _alone(key, before if value is ABSENT else value, NameCollector(lambda _: False))
    except Exception as exc:
        interrupts.pass_on(exc)
        raise Unserializable(f"the global {key[1]!r} cannot be sent a second time: {exc}") from exc


def _pickler_of(sink: io.BytesIO, names: NameCollector) -> Any:
    from gmpd.codec.cloud import CloudPickler

    return CloudPickler(sink, names, fresh_locks=True)


def _write_key(pickler: Any) -> list[Key]:
    """The key of multiprocessing, where values need it."""
    if not has_managers():
        return []
    key = AUTHKEY, ""
    pickler.dump((*key, value_of(key)))
    return [key]


def _entry_of(value: Any) -> Entry:
    """For a value that is about to be pickled; the names that it uses come later."""
    state = state_of(value) if isinstance(value, types.FunctionType) else None
    try:
        return Entry(None, weakref.ref(value), True, state, frozenset())
    except TypeError:
        return Entry(None, value, False, state, frozenset())
