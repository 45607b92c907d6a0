"""Functions that jobs call: one record for all sessions that share it, dropped when unused.

It does not know a function's code, nor where its jobs are. The caller's ``forget`` notifies the
workers that must drop one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gmpd.errors import ProtocolError
from gmpd.protocol import Define
from gmpd.sched.records import Function, Session

#: Named functions without users, kept with their running averages: about 1 MB.
RESTING_MAX = 4096
#: The kind of a part, which functions of a program need.
PART = "part"
#: The kind of a name that a worker's modules must have declared.
REGISTERED = "registered"
_NAMED = frozenset({"name", REGISTERED})
#: Functions that one session may have named at a time: four times what a client keeps.
FUNCTIONS_MAX = 4096


class Functions:
    """All functions that are used, or were of late. ``forget`` is called with each that goes."""

    def __init__(self, forget: Callable[[Function], None]) -> None:
        self._forget = forget
        self._next_fid = 1
        self._by_fid: dict[int, Function] = {}
        self._by_key: dict[tuple[Any, ...], Function] = {}
        #: Named functions without users, the longest unused first.
        self._resting: dict[int, Function] = {}

    def __len__(self) -> int:
        return len(self._by_fid)

    def __repr__(self) -> str:
        return f"<Functions: {len(self)}, {len(self._resting)} of them unused>"

    def all(self) -> list[Function]:
        """Every function that is remembered."""
        return list(self._by_fid.values())

    def define(self, session: Session, message: Define, digest: bytes) -> None:
        """A session names a function. The same one from two sessions is one Function.

        Raises ProtocolError, nothing changed, when it names more than honest clients do.
        """
        if message.fid not in session.functions and len(session.functions) >= FUNCTIONS_MAX:
            raise ProtocolError(
                f"Define of function {message.fid}: this session has {FUNCTIONS_MAX} already, and"
                " must Undefine some first"
            )
        needs = tuple(self._part(session, fid) for fid in message.needs)
        key = (message.kind, message.name, digest, *(part.fid for part in needs))
        fn = self._by_key.get(key)
        if fn is None:
            fn = Function(self._next_fid, key, message.payload, needs)
            self._next_fid += 1
            self._by_key[key] = self._by_fid[fn.fid] = fn
            for part in needs:
                part.users += 1
        fn.users += 1
        self._resting.pop(fn.fid, None)
        old = session.functions.get(message.fid)
        session.functions[message.fid] = fn
        if old is not None:
            self._release(old)

    def _part(self, session: Session, fid: int) -> Function:
        part = session.functions.get(fid)
        if part is None or part.kind != PART:
            raise ProtocolError(f"Define needs part {fid}, which was never defined")
        return part

    def undefine(self, session: Session, fids: Sequence[int]) -> None:
        """A session will not use these functions any more; its jobs of them continue.

        Raises ProtocolError, nothing changed, for one that it never defined.
        """
        unknown = set(fids) - session.functions.keys()
        if unknown:
            raise ProtocolError(f"Undefine of function {min(unknown)}, which was never defined")
        for fid in dict.fromkeys(fids):
            self._release(session.functions.pop(fid))

    def release_all(self, session: Session) -> None:
        """A session has ended."""
        for fn in session.functions.values():
            self._release(fn)
        session.functions.clear()

    def _release(self, fn: Function) -> None:
        fn.users -= 1
        self.retire_unused(fn)

    def retire_unused(self, fn: Function) -> None:
        """Forget a function without users and jobs; a name is kept until others need room."""
        if fn.users or fn.jobs:
            return
        if fn.kind not in _NAMED or fn.needs:
            self._remove(fn)
            return
        # A name is small and may come again at once: keep what was learned about it.
        self._resting[fn.fid] = fn
        if len(self._resting) > RESTING_MAX:
            self._remove(self._resting.pop(next(iter(self._resting))))

    def _remove(self, fn: Function) -> None:
        del self._by_key[fn.key], self._by_fid[fn.fid]
        self._forget(fn)
        for part in fn.needs:
            self._release(part)
