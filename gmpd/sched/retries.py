"""Whether a job's options allow another attempt after one that ended badly, and after which wait.

For jobs of the ledger and durable ones alike. The exception itself is known to the worker only,
which says in its report that it is final, or how long to wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmpd.errors import JobTimeout, WorkerLost
from gmpd.job import Backoff, class_name
from gmpd.protocol import Options, Outcome

_USUAL = Backoff().to_wire()
#: As ``retry_on`` may name these endings.
_NAMES = {
    Outcome.TIMEOUT: frozenset(map(class_name, JobTimeout.__mro__)),
    Outcome.LOST: frozenset(map(class_name, WorkerLost.__mro__)),
}


def allows(options: Options | None, outcome: Outcome) -> bool:
    """Whether ``retry_on`` has this outcome retried; of an error the worker's report says it."""
    if options is None or options.retry_on is None:
        return True
    names = _NAMES.get(outcome)
    return names is None or not names.isdisjoint(options.retry_on)


def wait_ns(
    options: Options | None, used: int, roll: float, report: Mapping[str, Any] | None = None
) -> int:
    """The wait after attempt ``used``. ``roll``: a number from 0 to 1, at random. ``report``: what
    the worker said of the attempt; a wait in it was chosen by the job's own function."""
    if report is not None and (told := report.get("wait_s")) is not None:
        return int(told * 1e9)
    chosen = None if options is None else options.backoff
    base, cap, factor, jitter = chosen or _USUAL
    try:
        wait_s = min(cap, base * factor ** (used - 1))
    except OverflowError:
        wait_s = cap
    return int(wait_s * (1 - jitter * roll) * 1e9)
