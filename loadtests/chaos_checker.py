"""Reads the ledgers of a chaos run into the columns of ``chaos.py``, each a list of findings.

A ledger is lines of words, appended at once by the process that they are about. Times are
nanoseconds of the machine's monotonic clock; INC names one process.

- Workers write ``worker INC PID PPID NS``, ``start KEY INC NS``, ``end KEY INC NS ok|error``,
  ``exits KEY INC NS``.
- Clients write ``client PID NS``, ``invoke KEY KIND NS``, ``ok KEY ID NS``, ``refused KEY NS``,
  ``unknown KEY NS``, ``told KEY STATE HASH NS``, ``cancel KEY NS``, ``hung KEY NS``,
  ``late KEY NS`` (a job's end was awaited for long), ``bye PID NS``.
- ``chaos.py`` writes ``kill WHO PID NS`` before a signal, ``dead PID NS`` after it took effect, and
  when all is quiet ``final KEY STATE HASH NS`` (``?``: the result was not asked for), ``struck KEY
  PID,… NS`` (workers that died under a quarantined job, as the daemon says; it may not have reached
  its first line there) and ``leaked WHAT``.

It knows nothing of gmpd, so that a fault of gmpd cannot hide itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf

#: Ends that are final.
FINAL = frozenset({"done", "failed", "cancelled", "expired", "quarantined", "unknown"})
#: Columns that must be empty.
FAULTS = (
    "lost", "duplicated", "overlapped", "zombie", "wrong", "unexpected", "hung", "leaked",
)  # fmt: skip
#: A job that ended this many workers is not run again.
STRIKES = 3
#: Retries that flaky jobs ask for.
RETRIES = 6
#: Instead of the hash of a result that was not asked for.
UNASKED = "?"
#: Kinds of jobs that are not in the store, and run at most once.
VOLATILE = "volatile"


def expected(key: str) -> str:
    """The result of the job ``key``."""
    return blake2b(key.encode(), digest_size=8).hexdigest()


@dataclass
class Attempt:
    """One start of a job. ``inc``: the process."""

    inc: str
    start: int
    end: int | None = None
    outcome: str = ""


@dataclass
class Job:
    """All that the ledgers say of one key."""

    kind: str = ""
    invoked: bool = False
    acknowledged: bool = False
    refused: bool = False
    unknown: bool = False
    cancelled: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    #: Ends that a client or ``chaos.py`` was told: state, hash, when.
    told: list[tuple[str, str, int]] = field(default_factory=list)
    #: Pids of the workers that died under it, as the daemon says.
    struck: tuple[int, ...] = ()
    final: str | None = None
    finals: int = 0


@dataclass
class Death:
    """A process was killed at some moment between these."""

    after: int
    before: float = inf


@dataclass
class Process:
    """A worker: what may have ended it, and when it last wrote."""

    pid: int
    parent: int
    last: int = 0
    deaths: list[Death] = field(default_factory=list)


class Ledger:
    """All lines of one round. Raises ValueError for a line that is none."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.jobs: defaultdict[str, Job] = defaultdict(Job)
        self.processes: dict[str, Process] = {}
        self.kills: defaultdict[int, list[Death]] = defaultdict(list)
        self.killed: Counter[str] = Counter()
        self.hung: list[str] = []
        #: Waits for the ends of jobs that took long, by key.
        self.late: list[tuple[str, int]] = []
        self.leaked: list[str] = []
        self.clients: set[int] = set()
        self.left: set[int] = set()
        #: The ends of attempts, and the exits, by key and process: put to their starts at last.
        self._ends: defaultdict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        self._exits: list[tuple[str, int]] = []
        readers: dict[str, Callable[..., None]] = {
            name.removeprefix("_on_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_on_")
        }
        for line in lines:
            word, *rest = line.split(" ")
            try:
                readers[word](*rest)
            except (KeyError, TypeError) as error:
                raise ValueError(f"no line of a ledger: {line!r}") from error
        self._join()

    # -- workers

    def _on_worker(self, inc: str, pid: str, parent: str, ns: str) -> None:
        self.processes[inc] = Process(int(pid), int(parent), int(ns))

    def _on_start(self, key: str, inc: str, ns: str) -> None:
        self.jobs[key].attempts.append(Attempt(inc, int(ns)))
        self._wrote(inc, ns)

    def _on_end(self, key: str, inc: str, ns: str, outcome: str) -> None:
        self._ends[key, inc].append((int(ns), outcome))
        self._wrote(inc, ns)

    def _on_exits(self, _key: str, inc: str, ns: str) -> None:
        self._exits.append((inc, int(ns)))
        self._wrote(inc, ns)

    def _wrote(self, inc: str, ns: str) -> None:
        process = self.processes[inc]
        process.last = max(process.last, int(ns))

    # -- clients

    def _on_client(self, pid: str, _ns: str) -> None:
        self.clients.add(int(pid))

    def _on_bye(self, pid: str, _ns: str) -> None:
        self.left.add(int(pid))

    def _on_invoke(self, key: str, kind: str, _ns: str) -> None:
        self.jobs[key].kind = kind
        self.jobs[key].invoked = True

    def _on_ok(self, key: str, _id: str, _ns: str) -> None:
        self.jobs[key].acknowledged = True

    def _on_refused(self, key: str, _ns: str) -> None:
        self.jobs[key].refused = True

    def _on_unknown(self, key: str, _ns: str) -> None:
        self.jobs[key].unknown = True

    def _on_cancel(self, key: str, _ns: str) -> None:
        self.jobs[key].cancelled = True

    def _on_told(self, key: str, state: str, hashed: str, ns: str) -> None:
        self.jobs[key].told.append((state, hashed, int(ns)))

    def _on_hung(self, key: str, _ns: str) -> None:
        self.hung.append(f"a call about {key} did not return")

    def _on_late(self, key: str, ns: str) -> None:
        self.late.append((key, int(ns)))

    # -- the kills

    def _on_kill(self, who: str, pid: str, ns: str) -> None:
        self.kills[int(pid)].append(Death(int(ns)))
        self.killed[who] += 1

    def _on_dead(self, pid: str, ns: str) -> None:
        for death in self.kills[int(pid)]:
            death.before = min(death.before, int(ns))

    def _on_final(self, key: str, state: str, hashed: str, ns: str) -> None:
        job = self.jobs[key]
        job.final = state
        job.finals += 1
        job.told.append((state, hashed, int(ns)))

    def _on_struck(self, key: str, pids: str, _ns: str) -> None:
        self.jobs[key].struck = tuple(map(int, pids.split(",")))

    def _on_leaked(self, *what: str) -> None:
        self.leaked.append(" ".join(what))

    # -- all of it

    def _join(self) -> None:
        for process in self.processes.values():
            process.deaths = [*self.kills[process.pid], *self.kills[process.parent]]
        for inc, ns in self._exits:
            self.processes[inc].deaths.append(Death(ns, ns))
        for key, job in self.jobs.items():
            job.attempts.sort(key=lambda attempt: attempt.start)
            for inc in {attempt.inc for attempt in job.attempts}:
                mine = [attempt for attempt in job.attempts if attempt.inc == inc]
                ends = sorted(self._ends.pop((key, inc), []))
                # In one process the n-th end is that of the n-th start.
                for attempt, (ns, outcome) in zip(mine, ends, strict=False):
                    attempt.end, attempt.outcome = ns, outcome
                if len(ends) > len(mine):
                    raise ValueError(f"job {key} ended more often than it began in {inc}")
        if self._ends:
            raise ValueError(f"ends without starts: {list(self._ends)[:3]}")


@dataclass
class Columns:
    """The counts of a round, and what was found in each column that must be empty."""

    counts: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in FAULTS})

    def __str__(self) -> str:
        told = ", ".join(f"{n:,} {what}" for what, n in self.counts.items())
        faults = ", ".join(f"{name} {len(found)}" for name, found in self.found.items())
        return f"{told} | {faults}"

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not any(self.found.values())


def check(ledger: Ledger) -> Columns:
    """The verdict about a round that has come to rest."""
    columns = Columns()
    for key, job in ledger.jobs.items():
        _count(columns.counts, job)
        for column, text in _faults(ledger, key, job):
            columns.found[column].append(text)
    cut = [each.inc for job in ledger.jobs.values() for each in job.attempts if each.end is None]
    columns.counts["cut"], columns.counts["workers cut"] = len(cut), len(set(cut))
    columns.found["hung"] += ledger.hung
    for key, ns in ledger.late:  # where workers die all the time a job may wait for long
        if not any(each.end is not None and each.end > ns for each in ledger.jobs[key].attempts):
            columns.found["hung"].append(f"the end of {key} was not told")
    gone = ledger.left | set(ledger.kills)
    columns.found["hung"] += [f"client {pid} did not end" for pid in ledger.clients - gone]
    columns.found["leaked"] += ledger.leaked
    return columns


def _count(counts: Counter[str], job: Job) -> None:
    counts["attempted"] += job.invoked
    counts["acknowledged"] += job.acknowledged
    counts["refused"] += job.refused
    counts["unknown"] += job.unknown
    counts["finished"] += any(state in FINAL for state, _, _ in job.told)
    counts["recovered"] += job.unknown and bool(job.attempts)
    counts["volatile"] += job.kind == VOLATILE
    counts["starts"] += len(job.attempts)
    counts["repeated"] += len(job.attempts) > 1


def _faults(ledger: Ledger, key: str, job: Job) -> Iterable[tuple[str, str]]:
    if job.attempts and not job.invoked:
        yield "unexpected", f"{key} ran, and no client submitted it"
    if job.acknowledged and job.kind != VOLATILE and job.final not in FINAL:
        yield "lost", f"{key} was acknowledged, and is {job.final}"
    yield from _repeats(ledger, key, job)
    yield from _zombies(key, job)
    yield from _wrong(ledger, key, job)


def _repeats(ledger: Ledger, key: str, job: Job) -> Iterable[tuple[str, str]]:
    """Each start after the first one needs the end of the one before, and a reason."""
    at_most_once = job.kind in ("once", VOLATILE)
    if at_most_once and len(job.attempts) > 1:
        yield "duplicated", f"{key} ({job.kind}) began {len(job.attempts)} times"
    for n, before in enumerate(job.attempts):
        for after in job.attempts[n + 1 :]:
            if _lived_until(ledger, before) > after.start:
                yield "overlapped", f"{key}: {before} had not ended at {after}"
    for before, after in zip(job.attempts, job.attempts[1:], strict=False):
        if not at_most_once and not _may_repeat(ledger, job, before, after):
            yield "duplicated", f"{key} ({job.kind}): no reason for {after} after {before}"


def _lived_until(ledger: Ledger, attempt: Attempt) -> int:
    """The last moment at which the frame of an attempt is known to have been there."""
    if attempt.end is not None:
        return attempt.end
    return max(attempt.start, ledger.processes[attempt.inc].last)


def _may_repeat(ledger: Ledger, job: Job, before: Attempt, after: Attempt) -> bool:
    if before.outcome == "error" and job.kind == "flaky":
        return True
    deaths = ledger.processes[before.inc].deaths
    return any(each.after <= after.start and before.start <= each.before for each in deaths)


def _zombies(key: str, job: Job) -> Iterable[tuple[str, str]]:
    ends = [ns for state, _, ns in job.told if state in FINAL]
    if ends and job.attempts and job.attempts[-1].start > min(ends):
        yield "zombie", f"{key} began at {job.attempts[-1].start}, after its end was told"


def _wrong(ledger: Ledger, key: str, job: Job) -> Iterable[tuple[str, str]]:
    states = {state for state, _, _ in job.told if state in FINAL}
    if len(states) > 1:
        yield "wrong", f"{key} has ended as {sorted(states)}"
    if job.finals > 1:
        yield "wrong", f"{key} was stored {job.finals} times"
    for state, hashed, _ in job.told:
        reason = _why_not(ledger, key, job, state, hashed)
        if reason:
            yield "wrong", f"{key} ({job.kind}) is {state}: {reason}"


def _why_not(ledger: Ledger, key: str, job: Job, state: str, hashed: str) -> str:
    """The fault of an end that was told; empty if it has none."""
    outcomes = Counter(attempt.outcome for attempt in job.attempts)
    match state:
        case "done":
            if hashed not in (expected(key), UNASKED):
                return f"its result is {hashed}, not {expected(key)}"
            return "" if outcomes["ok"] else "no attempt of it returned"
        case "failed":
            enough = job.kind == "flaky" and outcomes["error"] > RETRIES
            return "" if enough else f"of its attempts {outcomes['error']} raised"
        case "cancelled":
            return "" if job.cancelled else "no client cancelled it"
        case "quarantined":
            dead = {p.pid for p in ledger.processes.values() if p.deaths} | ledger.kills.keys()
            seen = sum(_died(ledger, attempt) for attempt in job.attempts)
            deaths = max(seen, len(dead.intersection(job.struck)))
            return "" if deaths >= STRIKES else f"{deaths} workers died under it"
        case "unknown":
            return "" if job.kind == "once" else "it may be run again"
        case "lost":  # of volatile jobs
            died = not job.attempts or any(_died(ledger, each) for each in job.attempts)
            return "" if died else "its worker lived"
        case "expired":
            return "it has no limit"
        case _:
            return ""


def _died(ledger: Ledger, attempt: Attempt) -> bool:
    deaths = ledger.processes[attempt.inc].deaths
    return any(death.before >= attempt.start for death in deaths)
