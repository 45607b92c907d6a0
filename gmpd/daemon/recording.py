"""The events of a worker: those that it writes into its ring, and those that it adds to an answer.

Called by the M that holds P. Counterpart: ``runtime.ring``.
"""

from __future__ import annotations

import time
from array import array
from typing import Any

from gmpd import protocol
from gmpd.daemon.attempt import Attempt, RemoteFunction
from gmpd.runtime.gstate import on_ms
from gmpd.runtime.jobg import JobG
from gmpd.runtime.p import P
from gmpd.runtime.ring import Kind, Ring, RingDump

#: Running jobs that are told.
RUNNING_MAX = 10_000


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
    return p.ring.dump(params["since_ns"], params["nbytes"], running(p))


def running(p: P) -> bytes:
    """Jobs that have begun and not ended, as rows of jobs: their time is -1."""
    found: list[int] = []
    for g in [*on_ms(p), *p.gs.some(RUNNING_MAX)]:
        job: Any = g._job if isinstance(g, JobG) else g
        if isinstance(job, Attempt) and job.began_ns:
            fid = job.fn.fid
            found += (job.token, job.began_ns, -1, fid if job is g else ~fid)
    return array("q", found).tobytes()
