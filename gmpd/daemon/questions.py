"""Questions that only a worker can answer: its Gs, as stacks, as Go's scheddetail, or as rows; and
its last events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never, cast

from msgspec.msgpack import encode

from gmpd import protocol
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.recording import recorded, story, timeline
from gmpd.runtime.glist import find, row, rows
from gmpd.runtime.p import P
from gmpd.runtime.schedtrace import details
from gmpd.runtime.stacks import stack, stacks


def answer(
    asked: protocol.Ask, p: P, number: int, attempts: Mapping[int, Attempt]
) -> protocol.Answer:
    """The answer of P ``number``. Reads, and changes nothing."""
    if asked.what == "trace":
        return protocol.Answer(asked.request, encode(recorded(p, asked.params)))
    if asked.what == "g":
        return protocol.Answer(asked.request, _one(p, _number(asked.params, attempts)))
    if asked.what == "timeline":
        return protocol.Answer(asked.request, encode(timeline(p, attempts, asked.params)))
    limit, nbytes = asked.params["limit"], asked.params["nbytes"]
    match asked.what:
        case "stacks":
            dump = stacks(p, limit, nbytes)
        case "sched":
            dump = details(p, number, limit, nbytes)
        case "gs":
            found, gs = rows(p, limit)
            as_maps = [cast("protocol.GRow", row._asdict()) for row in found]
            value = protocol.StackDump(text="", gs=gs, shown=len(found), rows=as_maps)
            return protocol.Answer(asked.request, value)
        case _:
            assert_never(asked.what)
    value = protocol.StackDump(text=dump.text, gs=dump.gs, shown=dump.shown)
    return protocol.Answer(asked.request, value)


def _number(params: dict[str, int], attempts: Mapping[int, Attempt]) -> int:
    """The id of the G that is asked for; 0 if its lease has ended."""
    token = params.get("token")
    if token is None:
        return params["id"]
    attempt = attempts.get(token)
    return 0 if attempt is None else attempt.id


def _one(p: P, number: int) -> protocol.StackDump:
    """A G; without a row if it has ended."""
    g, m = find(p, number)
    if g is None:
        return protocol.StackDump(text="", gs=0, shown=0)
    as_map = cast("protocol.GRow", row(g, m)._asdict())
    return protocol.StackDump(text=stack(g, m), gs=1, shown=1, rows=[as_map], story=story(p, g))
