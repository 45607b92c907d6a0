"""The log's lines about jobs that failed: which function, whose, how; and that it is tried again.

A client has the traceback; the log is for the operator of the daemon. Of a function that fails by
the thousand a line a second is enough: the lines say how many there were.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gmpd.codec import error_summary
from gmpd.daemon.logs import RateLimitedLog
from gmpd.errors import ProtocolError
from gmpd.protocol import Outcome
from gmpd.sched.records import Failure

log = logging.getLogger("gmpd.jobs")

#: Between two lines about one function that ends in one way (ns).
WARN_EVERY_NS = 1_000_000_000
#: Functions that are remembered for that; then it begins anew.
FUNCTIONS = 1000
#: Of a job's own error, so much is shown.
TEXT_CHARS = 300

_HOW = {Outcome.ERROR: "failed", Outcome.TIMEOUT: "ran out of time", Outcome.LOST: "was lost"}


class FailureLog:
    """Tells of failures, each function's and outcome's once a second."""

    def __init__(self) -> None:
        self._warnings: dict[tuple[str, Outcome], RateLimitedLog] = {}

    def tell(self, failures: Iterable[Failure], now_ns: int) -> None:
        """Write new failures to the log."""
        for failure in failures:
            key = failure.fn, failure.outcome
            if key not in self._warnings:
                if len(self._warnings) >= FUNCTIONS:
                    self._warnings.clear()
                self._warnings[key] = RateLimitedLog(log.warning, WARN_EVERY_NS)
            extra: dict[str, object] = {
                "gmpd_job": failure.id,
                "gmpd_attempt": str(failure.attempt),
                "gmpd_function": failure.fn,
            }
            self._warnings[key](now_ns, "%s", Line(failure), extra=extra)


class Line:
    """A failure as text; made only if it is logged."""

    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    def __str__(self) -> str:
        job = self._failure
        whose = f" of {job.client!r}" if job.client else ""
        text = f"job {job.id} {job.fn}{whose} {_HOW.get(job.outcome, job.outcome.name)}"
        if why := _why(job):
            text += f": {why}"
        text += f" (attempt {job.attempt}"
        return text + (", tried again)" if job.again else ")")


def _why(job: Failure) -> str:
    text = job.text
    if job.outcome is Outcome.ERROR and job.payload:
        try:
            summary = error_summary(job.payload)
        except ProtocolError as error:
            return str(error)
        raised = _first_line(f"{summary.type}: {summary.message}")
        return f"{raised} ({_first_line(text)})" if text else raised
    return _first_line(text)


def _first_line(text: str) -> str:
    first = text.partition("\n")[0]
    return first if len(first) <= TEXT_CHARS else f"{first[:TEXT_CHARS]}…"
