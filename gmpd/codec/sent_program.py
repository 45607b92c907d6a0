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

import os
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from gmpd.codec import hosted_programs
from gmpd.codec.drafts import Draft, Drawn, Entry, Part
from gmpd.codec.hosted_programs import AUTHKEY, SOURCES
from gmpd.codec.parts import Key
from gmpd.codec.program_names import ABSENT, NO_MODULES, OF_MODULE, state_of, value_of
from gmpd.codec.spawned import space_of

#: How long a thread waits for another to pickle what both need, seconds.
_TURN_S = 1.0


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
        value = space.get(name, ABSENT)
        if value is not (sent() if weak else sent):
            return False
        if state is not None and state_of(value) != state:
            return False
    return True


class _State:
    """All that a program has sent, at one moment. It never changes: a newer one follows it."""

    __slots__ = ("assigned", "entries", "follower", "number")

    def __init__(self, entries: dict[Key, Entry], assigned: frozenset[Key], number: int) -> None:
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
            if key[0] not in NO_MODULES:
                waiting.extend((key[0], name) for name in OF_MODULE)
        return frozenset(found)

    def is_stale(self, key: Key) -> bool:
        """Whether a name has to be sent: it is new, or has changed."""
        entry = self.entries.get(key)
        if entry is None:
            return True
        if key in self.assigned or key[0] in (SOURCES, AUTHKEY) or key[1] in OF_MODULE:
            return False
        value = value_of(key)
        if value is not (entry.value() if entry.weak else entry.value):
            return True
        return entry.state is not None and state_of(value) != entry.state

    def tell_superseded(self, replaced: Iterable[Entry]) -> None:
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
            if key in self.state.assigned or module in NO_MODULES or name in OF_MODULE:
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
        draft = Draft(seen.knows, sorted(filter(seen.is_stale, seen.closure(keys))))
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

    def _after(self, state: _State, drawn: list[Drawn], assigned: frozenset[Key]) -> _State:
        entries = dict(state.entries)
        number = state.number
        for each in drawn:
            part = Part(self.id, number, each)
            number += 1
            for key, entry in each.made.items():
                entries[key] = entry if entry.value is ABSENT else entry._replace(part=part)
        return _State(entries, state.assigned | assigned, number)


#: This program: another one in a fork.
THIS_PROGRAM = SentProgram()


def _in_fork() -> None:
    global THIS_PROGRAM
    THIS_PROGRAM = SentProgram()


os.register_at_fork(after_in_child=_in_fork)
