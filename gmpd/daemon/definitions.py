"""Functions and parts of programs that the coordinator has defined in a worker."""

from __future__ import annotations

from gmpd import protocol
from gmpd.codec import FunctionRef, GuestPart, learn_part
from gmpd.daemon.call import Known
from gmpd.sched.functions import PART


class Definitions:
    """By the number that jobs name them with."""

    def __init__(self) -> None:
        self.functions: dict[int, Known] = {}
        #: Parts of programs, which functions need.
        self._parts: dict[int, GuestPart] = {}

    def define(self, message: protocol.Define) -> None:
        """Remember a function or a part."""
        fid, kind, name = message.fid, message.kind, message.name
        if kind == PART:
            self._parts[fid] = learn_part(name, message.payload)
        else:
            parts = tuple(self._parts[each] for each in message.needs)
            self.functions[fid] = Known(fid, FunctionRef(kind, name, message.payload, parts))

    def undefine(self, fids: list[int]) -> bool:
        """Forget them; whether a program has ended with the last of its parts."""
        ended = False
        for fid in fids:
            self.functions.pop(fid, None)
            part = self._parts.pop(fid, None)
            if part is not None and part.forget():
                ended = True
        return ended
