"""Functions and parts of programs that the coordinator has defined in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from gmpd import protocol
from gmpd.codec import FunctionRef, HostedPart, learn_part
from gmpd.daemon.declared import declared_in
from gmpd.sched.functions import PART, REGISTERED

#: A function whose calls take less than this is quick: outcomes may gather while it runs.
QUICK_NS = 200_000
#: No outcome waits for the end of a call that takes longer by its average, nor of a function whose
#: time is unknown. As a time, such a call is ``LONG_NS``: more than any sum of others.
SLOW_NS_MAX = 4_000_000
LONG_NS = 1 << 50


class RemoteFunction:
    """A function that the coordinator has defined in this worker; its first job resolves it."""

    __slots__ = ("fid", "gathers", "here", "is_async", "quick_ns", "ref")

    def __init__(self, fid: int, ref: FunctionRef) -> None:
        self.fid = fid
        self.ref = ref
        #: It was found here before: its module is imported, and its program's parts are loaded.
        self.here = ref.kind != "name" and not ref.needs
        #: Running average of its time; None while unknown.
        self.quick_ns: int | None = None
        #: A call of it only makes a coroutine, or an async generator. Its first call tells.
        self.is_async = False
        #: One G may run several leases of it (``lease_run``): its calls give values.
        self.gathers = True

    @property
    def quick(self) -> bool:
        return self.quick_ns is not None and self.quick_ns < QUICK_NS

    @property
    def slow_ns(self) -> int:
        """How long an outcome that waits for the next call waits; 0: it is quick."""
        if self.quick_ns is None or self.quick_ns > SLOW_NS_MAX:
            return LONG_NS
        return 0 if self.quick_ns < QUICK_NS else self.quick_ns

    def learn(self, ran_ns: int) -> int:
        """The time of one more call; the average now."""
        before = self.quick_ns
        average = before if before is not None else ran_ns  # a number of C, where this is compiled
        self.quick_ns = average = (average * 7 + ran_ns) >> 3
        return average


class Definitions:
    """Functions by the number that jobs name them with, and the parts that they need."""

    def __init__(self, imports: Sequence[str] = ()) -> None:
        """``imports``: the daemon's modules, which declare the functions that other machines may
        call."""
        self._imports = imports
        self._functions: dict[int, RemoteFunction] = {}
        #: Parts of programs, which functions need.
        self._parts: dict[int, HostedPart] = {}

    def __getitem__(self, fid: int) -> RemoteFunction:
        return self._functions[fid]

    def __len__(self) -> int:
        return len(self._functions)

    def define(self, message: protocol.Define) -> None:
        """Remember a function or a part."""
        fid, kind, name = message.fid, message.kind, message.name
        if kind == PART:
            self._parts[fid] = learn_part(name, message.payload)
        else:
            parts = tuple(self._parts[each] for each in message.needs)
            if kind == REGISTERED and name in self._declared:
                kind = "name"  # of a module that is imported already
            ref = FunctionRef(kind, name, message.payload, parts)
            self._functions[fid] = RemoteFunction(fid, ref)

    @cached_property
    def _declared(self) -> frozenset[str]:
        return frozenset(each.name for each in declared_in(self._imports))

    def undefine(self, fids: list[int]) -> bool:
        """Forget them; whether a program has ended with the last of its parts."""
        ended = False
        for fid in fids:
            self._functions.pop(fid, None)
            part = self._parts.pop(fid, None)
            if part is not None and part.forget():
                ended = True
        return ended
