"""Questions that only a worker can answer: its Gs, by their stacks or as Go's scheddetail."""

from __future__ import annotations

from gmpd import protocol
from gmpd.runtime.p import P
from gmpd.runtime.schedtrace import details
from gmpd.runtime.stacks import stacks


def answer(asked: protocol.Ask, p: P, number: int) -> protocol.Answer:
    """The answer of P ``number``. Reads, and changes nothing."""
    limit, nbytes = asked.params["limit"], asked.params["nbytes"]
    if asked.what == "stacks":
        dump = stacks(p, limit, nbytes)
    else:
        dump = details(p, number, limit, nbytes)
    value = protocol.StackDump(text=dump.text, gs=dump.gs, shown=dump.shown)
    return protocol.Answer(asked.request, value)
