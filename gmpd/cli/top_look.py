"""The looks of `gmpd top` at a daemon: the one source of its tables and details, in both faces.

Each look asks what the open table and detail show, and nothing else. A daemon that goes away is
looked for again by the next look. Any thread may use it, one at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from gmpd.cli.link import AskingClient
from gmpd.cli.top_view import Facts, Found, Pane
from gmpd.client.stored import StoredJob, readable
from gmpd.daemon.trace_runs import all_runs
from gmpd.daemon.trace_runs import read as read_trace
from gmpd.daemon.trace_summary import summarize
from gmpd.errors import DaemonUnreachable, GmpdError
from gmpd.job_ids import parse_job_id
from gmpd.status import Status, read

#: Seconds that a worker may take to answer: one that is deaf has no functions and Gs shown.
TELL_S: Final = 0.3
#: Seconds that the way to the daemon and back may take beside that.
LINK_S: Final = 10.0
#: Rows that are asked for: more than people read.
GS_MAX: Final = 500
JOBS_MAX: Final = 200
FAILURES_MAX: Final = 100
#: Gs of a P whose stacks a detail shows.
STACKS_MAX: Final = 100


class Looks(Protocol):
    """The source of facts, as the faces use it."""

    def look(self, pane: Pane, seconds: float, found: Found | None = None) -> Facts: ...


def gone(error: GmpdError) -> str:
    """Say in a line that there is no daemon to look at."""
    return f"{str(error).partition(': ')[0]}; looking for it"


class Source:
    """Asks a daemon. ``connect`` opens a client, and raises GmpdError when it cannot."""

    def __init__(self, connect: Callable[[], AskingClient]) -> None:
        self._connect = connect
        self._client: AskingClient | None = None
        #: The last two looks that are about an interval apart, with their times.
        self._looks: deque[tuple[float, Status]] = deque(maxlen=2)

    def look(self, pane: Pane, seconds: float, found: Found | None = None) -> Facts:
        """Ask for what ``pane`` shows, and for the detail of ``found``. ``seconds``: how far the
        look goes back, about; a look between two others would find too little. Raises
        GmpdError."""
        now, least_s = time.monotonic(), 0.8 * seconds
        before = next((each for each in reversed(self._looks) if now - each[0] >= least_s), None)
        if before is None and self._looks:
            before = self._looks[0]
        if before is not None:
            seconds = max(0.05, now - before[0])
        try:
            client = self._client = self._client or self._connect()
            facts = self._look(client, pane, seconds, found)
        except DaemonUnreachable:
            self.close()  # the next look opens another
            raise
        if not self._looks or now - self._looks[-1][0] >= least_s:
            self._looks.append((now, facts.now))
        if before is not None and before[1].pid == facts.now.pid:
            facts.before = before[1]
        return facts

    def close(self) -> None:
        """Leave the daemon."""
        client, self._client = self._client, None
        if client is not None:
            client.close(wait=False)

    def _look(self, client: AskingClient, pane: Pane, seconds: float, found: Found | None) -> Facts:
        facts = Facts(read(client.call("status", timeout=LINK_S)), [], seconds)
        if pane is Pane.FUNCTIONS:
            _add_functions(client, facts, seconds)
        elif pane is Pane.GS:
            told = client.call("gs", limit=GS_MAX, wait_s=TELL_S, timeout=TELL_S + LINK_S)["ps"]
            facts.gs = [{**row, "p": each["p"]} for each in told for row in each.get("rows", ())]
            facts.silent = [each["p"] for each in told if not each["answered"]]
        elif pane is Pane.JOBS:
            facts.jobs = _jobs(client)
        elif pane is Pane.FAILURES:
            facts.failures = client.call("failures", n=FAILURES_MAX, timeout=LINK_S)["failures"]
        if found is not None:
            if found.pane in (Pane.PS, Pane.FUNCTIONS):
                facts.picture = client.call("picture", timeout=LINK_S)
            facts.told, facts.asked = _told(client, found), found
        return facts


def _add_functions(client: AskingClient, facts: Facts, seconds: float) -> None:
    reply = client.call("trace", last_s=seconds, wait_s=TELL_S, timeout=TELL_S + LINK_S)
    daemon = read_trace(reply)
    facts.functions = summarize(all_runs(daemon))
    if all(track.missing and not track.silent for track in daemon.tracks):
        facts.note = "trace.enabled is false: functions are not recorded"


def _jobs(client: AskingClient) -> list[dict[str, Any]]:
    """Volatile jobs that have not ended, then durable ones, the newest first."""
    page = client.call("volatile_jobs", after=None, limit=JOBS_MAX, state=None, function="")
    rows = [*page["rows"]]
    if room := JOBS_MAX - len(rows):
        rows += client.call("jobs", limit=room, before=None, state=None, function="")
    return [*map(readable, rows)]


def _told(client: AskingClient, found: Found) -> Any:
    """The answer to the question that a detail needs beside the tables; None if it needs none."""
    match found.pane:
        case Pane.GS:
            p, number = found.g
            return client.call("g", p=p, id=number, wait_s=TELL_S, timeout=TELL_S + LINK_S)["ps"]
        case Pane.JOBS:
            try:
                job = StoredJob(parse_job_id(found.key), client.ask_jobs)
                return job.info(), job.story()
            except (GmpdError, LookupError) as gone:
                return str(gone)
        case Pane.PS if found.stacks and not found.host:
            return client.call(
                "stacks", p=found.p, limit=STACKS_MAX, wait_s=TELL_S, timeout=TELL_S + LINK_S
            )["ps"]
        case _:
            return None
