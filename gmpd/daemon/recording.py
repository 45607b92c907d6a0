"""The events of a worker: those that it writes into its ring, and those that it adds to an answer.

Called by the M that holds P. Counterpart: ``runtime.ring``.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

from msgspec.msgpack import encode

from gmpd import protocol
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.definitions import RemoteFunction
from gmpd.runtime.followed import FollowedG, FollowedSyncG, name_of
from gmpd.runtime.glist import row
from gmpd.runtime.gstate import on_ms
from gmpd.runtime.jobg import JobG
from gmpd.runtime.joins import awaited
from gmpd.runtime.p import P
from gmpd.runtime.ring import NAME_SHIFT, TRAIT_NAMES, Event, Kind, Ring, RingDump
from gmpd.runtime.roots import root_of
from gmpd.runtime.step import CoroG
from gmpd.runtime.timeline import Row, Timeline, What, name, read

#: A worker that ends leaves its last 16,384 events, and as many jobs.
TAIL_BYTES = 1 << 20
#: Running jobs that are told.
RUNNING_MAX = 10_000
#: Events of one G that are told.
EVENTS_MAX = 100
#: Those that a timeline tells, and looks at for them.
SHOWN_MAX = 64
SEEN_MAX = 1000


def leased(ring: Ring, message: protocol.Assign, fn: RemoteFunction) -> None:
    """Leases have come."""
    ring.name(message.fid, fn.ref.name)
    counts = len(message.payloads) | message.stolen << 24
    at = time.monotonic_ns()
    ring.add((Kind.LEASED | counts << 8, at, message.fid, message.first_token))


def recorded(p: P, params: dict[str, int]) -> RingDump:
    """The answer to ``trace``."""
    if p.ring is None:
        return RingDump(keeps=False)
    return p.ring.dump(params["since_ns"], params["nbytes"], running(p), alive(p, p.ring))


def story(p: P, g: Any) -> protocol.GStory:
    """The story of a G of ``p``: the job that it belongs to, and its own last events."""
    own: Any = g._job if isinstance(g, JobG) else g
    job = root_of(g._context) if isinstance(g, CoroG) and not isinstance(g, JobG) else own
    token = job.token if isinstance(job, Attempt) else 0
    ring, now = p.ring, time.monotonic_ns()
    found = [] if ring is None or not isinstance(own, Attempt) else ring.of(token, EVENTS_MAX)
    awaits, children = awaited(p, g)
    return protocol.GStory(
        token=token,
        events=[] if ring is None else [_told(ring, event, now) for event in found],
        awaits=awaits,
        children=[cast("protocol.GRow", row(child, None)._asdict()) for child in children],
    )


def _told(ring: Ring, event: Event, now: int) -> protocol.GEvent:
    kind, more, (began, ended) = Kind(event[0] & 0xFF), event[0] >> 8, event[1:3]
    reason = ""
    if kind is Kind.STEP:
        reason = ring.codes.reasons[more & (1 << NAME_SHIFT) - 1]
    elif kind is Kind.HANDOFF:
        reason = TRAIT_NAMES[more >> 24 & 0xFF]
    took = max(0, ended - began) if kind in (Kind.STEP, Kind.HANDOFF) else 0
    return protocol.GEvent(
        kind=kind.name.lower(),  # type: ignore[typeddict-item]  # those of leases
        ago_us=max(0, now - max(began, ended)) // 1000,
        took_us=took // 1000,
        reason=reason,
    )


def tail(p: P, nbytes: int) -> protocol.RingTail | None:
    """The last events of a worker that is about to end, ``TAIL_BYTES`` and ``nbytes`` at most."""
    if p.ring is None or not p.ring.has_jobs:
        return None
    dump = p.ring.dump(0, min(TAIL_BYTES, nbytes // 2), running(p), alive(p, p.ring))
    return protocol.RingTail(encode(dump))


def alive(p: P, ring: Ring) -> bytes:
    """Children that have events, and have not ended: their names, and since when one is called."""
    found: list[int] = []
    calls = on_ms(p)
    for g in p.gs.some(RUNNING_MAX):
        if type(g) in (FollowedG, FollowedSyncG):
            since_ns = calls[g].start_ns if g in calls else 0
            found += (Kind.CHILD | ring.child(name_of(g)) << 8, since_ns, 0, ~g.id)
    return array("q", found).tobytes()


def running(p: P) -> bytes:
    """Jobs that have begun and not ended, as rows of jobs: their time is -1."""
    found: list[int] = []
    for g in [*on_ms(p), *p.gs.some(RUNNING_MAX)]:
        job: Any = g._job if isinstance(g, JobG) else g
        if isinstance(job, Attempt) and job.began_ns:
            fid = job.fn.fid
            found += (job.token, job.began_ns, -1, fid if job is g else ~fid)
    return array("q", found).tobytes()


def timeline(p: P, attempts: Mapping[int, Attempt], params: dict[str, int]) -> Timeline:
    """The answer to ``timeline``: the jobs and steps of a window, and what runs now."""
    if p.ring is None:
        return Timeline(params["since_ns"], params["until_ns"], keeps=False)

    def function_of(token: int) -> int | None:
        attempt = attempts.get(token)
        return None if attempt is None else attempt.fn.fid

    out = read(p.ring, params["since_ns"], params["until_ns"], params["rows"], function_of)
    out.running = list(islice(_begun(p, attempts), SHOWN_MAX))
    return name(out, p.ring)


def _begun(p: P, attempts: Mapping[int, Attempt]) -> Iterator[Row]:
    """Jobs that have begun and not ended: those on Ms first."""
    beside = on_ms(p)
    for g, m in beside.items():
        job: Any = g._job if isinstance(g, JobG) else g
        if isinstance(job, Attempt) and job.began_ns:
            what = What.RAN if m is p.owner else What.BESIDE
            yield Row(what, job.began_ns, 0, job.fn.fid, 1, 0, job.token)
    for attempt in islice(attempts.values(), SEEN_MAX):
        if attempt.began_ns and attempt.adopted and not attempt.ended_ns:
            yield Row(What.ASYNC, attempt.began_ns, 0, attempt.fn.fid, 1, 0, attempt.token)
