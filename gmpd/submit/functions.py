"""The functions that a submitter has defined at the daemon, by number.

A function is defined before its first job, after the parts of its program that it needs. The
function unused for longest is undefined, and so are the part unused for longest and parts that
newer ones replaced. Numbers are never used again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gmpd import protocol

if TYPE_CHECKING:  # a session unpacks no value, and the gateway does without the codec
    from gmpd.codec import FunctionRef

#: The kind of a part, which functions need.
PART = "part"
#: Parts that the daemon is told to remember. With FUNCTIONS_MAX of a client it is less than what a
#: session may define (``sched.functions``).
PARTS_MAX = 2048


class FunctionTable:
    """``say`` sends a message. ``brings``: parts come from here; else the daemon has them."""

    def __init__(
        self, most: int, say: Callable[[protocol.Message], None], *, brings: bool = True
    ) -> None:
        self._most = most
        self._say = say
        self._brings = brings
        self._fids: OrderedDict[FunctionRef, int] = OrderedDict()
        #: By the part (``codec.drafts.Part`` or ``codec.hosted_programs.HostedPart``).
        self._parts: OrderedDict[Any, int] = OrderedDict()
        #: The messages of parts that were prepared for it.
        self._ready: dict[Any, bytes] = {}
        self._next = 1

    def number(self, ref: FunctionRef) -> int:
        """The number of a function, told to the daemon before its first job."""
        fid = self._fids.get(ref)
        if fid is not None:
            self._fids.move_to_end(ref)
            return fid
        before = self._next
        needs = [self._part(part) for part in ref.needs]
        news = self._next != before
        if len(self._fids) >= self._most:
            _, oldest = self._fids.popitem(last=False)
            self._say(protocol.Undefine([oldest]))
        fid = self._fids[ref] = self._take_number()
        self._say(protocol.Define(fid, ref.kind, ref.name, ref.payload, needs))
        if news:
            old = {part for part in self._parts if part.superseded}
            self._drop(old.difference(ref.needs))
            # The daemon remembers a bounded number for a session, and ends one that passes it.
            if len(self._parts) > PARTS_MAX:  # a quarter at once: each drop looks at all functions
                unused = [part for part in self._parts if part not in ref.needs]
                self._drop(unused[: PARTS_MAX // 4])
        return fid

    def prepare(self, ref: FunctionRef) -> None:
        """Have ready the parts that ``number`` will send: a large value may have to be pickled
        again, by code of its own, which must not run where ``number`` is called. Any thread may
        call this at any time."""
        for part in ref.needs:
            if part in self._parts or part in self._ready:
                continue
            self._ready[part] = part.data()
            if part in self._parts:  # another thread was faster
                self._ready.pop(part, None)

    def _part(self, part: Any) -> int:
        fid = self._parts.get(part)
        if fid is not None:
            self._parts.move_to_end(part)
        else:
            payload = self._ready.pop(part, None)
            if payload is None:
                payload = part.data() if self._brings else b""
            fid = self._parts[part] = self._take_number()
            self._say(protocol.Define(fid, PART, part.name, payload, []))
        return fid

    def drop_needy(self) -> None:
        """Let the daemon forget all parts, and the functions that need them."""
        if self._parts:
            self._drop(list(self._parts))

    def _drop(self, parts: Iterable[Any]) -> None:
        """Submitted jobs keep the parts that they need until they end."""
        gone = set(parts)
        if not gone:
            return
        refs = [ref for ref in self._fids if not gone.isdisjoint(ref.needs)]
        fids = [self._fids.pop(ref) for ref in refs]
        fids += [self._parts.pop(part) for part in gone]
        self._say(protocol.Undefine(fids))

    def _take_number(self) -> int:
        fid = self._next
        self._next += 1
        return fid
