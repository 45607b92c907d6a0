"""`gmpd demo --walkthrough`: the six steps of every introduction to G, M and P, executed.

Three short stories run on one P, pinned to one core. The runtime's own tracer records each; the
printed queues are those of the trace, event by event. The rival that makes the operating system
preempt M0 is another process on the same core.

Runs the stories and reads their traces; ``switch_costs`` measures the cost of a switch.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click

from gmpd.errors import GmpdError
from gmpd.runtime.chan import Chan
from gmpd.runtime.go import go, this_loop
from gmpd.runtime.loop import Loop
from gmpd.sched.g import GEvent
from gmpd.sched.sysmon import SLICE_NS

if TYPE_CHECKING:
    from gmpd.cli.app import App
    from gmpd.cli.teach.switch_costs import Costs
    from gmpd.runtime.trace import TraceEvent, Tracer

#: How long the rival computes when it is provoked: several slices of Linux's scheduler (about 3 ms
#: each), so that it takes the core at least once even if it is not preferred when it wakes.
RIVAL_S = 0.02
#: The interval of further attempts while M0 was not preempted.
PROVOKE_S = 0.05
#: A rival that had the core for less time has only been woken.
RAN_MS = 0.1
#: Without a preemption within this time something is unusual (a real-time priority, a core that
#: is not shared), and the output says so.
PREEMPT_S = 1.0
#: The number of new attempts at a story when a busy machine moved P on before it began.
TRIES = 20
#: The blocking call of the third story ends by itself after this time if P is never handed off.
READ_S = 10.0

RIVAL = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.write(1, b".")
while os.read(0, 1):
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        pass
"""


class Preemption(NamedTuple):
    """The kernel's counts of M0's thread, before and after the rival wanted its core.

    ``off_core_ms``: how long the thread was runnable and did not run. It and ``rival_cpu_ms`` are
    None where the kernel does not count them.
    """

    involuntary_before: int
    involuntary_after: int
    rival_cpu_ms: float | None
    off_core_ms: float | None
    took_ms: float

    @property
    def happened(self) -> bool:
        """Whether the thread lost its core to the rival, or to others as well."""
        return self.involuntary_after > self.involuntary_before and self.rival_cpu_ms != 0


class Preempter(Protocol):
    """The thread that takes the core from the caller, once, and returns it."""

    def preempt(self) -> Preemption: ...


class Rival:
    """A process pinned to ``core`` that computes when it is told to."""

    def __init__(self, core: int):
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", RIVAL, str(core), str(RIVAL_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        if not self._process.stdout.read(1):  # else it is there, and pinned
            self._process.communicate()
            raise GmpdError(f"the rival process could not start on core {core}: see above")

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def provoke(self) -> None:
        """Let it compute for ``RIVAL_S``, once for each call. GmpdError if it is gone."""
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), b".")
        except BrokenPipeError:
            code = self._process.wait()
            raise GmpdError(
                f"the rival process ended too early, with {code}: was it killed? Try again"
            ) from None

    def preempt(self) -> Preemption:
        """Compute on the calling thread until the kernel has taken its core for the rival."""
        task = f"/proc/self/task/{threading.get_native_id()}"
        rival = f"/proc/{self.pid}/schedstat"
        before, waited, rivals = involuntary(task), sched_ns(task)[1], sched_ns(rival)[0]
        began = time.monotonic()
        deadline, provoke = began + PREEMPT_S, began
        after, ran = before, since(rivals, rivals)
        while (now := time.monotonic()) < deadline:
            if after > before and (ran is None or ran > RAN_MS):
                break
            if now >= provoke:
                self.provoke()
                provoke = now + PROVOKE_S
            after, ran = involuntary(task), since(rivals, sched_ns(rival)[0])
        took = time.monotonic() - began
        return Preemption(before, after, ran, since(waited, sched_ns(task)[1]), took * 1e3)


def since(before_ns: int | None, now_ns: int | None) -> float | None:
    """Milliseconds; None where the kernel does not count."""
    return None if before_ns is None or now_ns is None else (now_ns - before_ns) / 1e6


def involuntary(task: str) -> int:
    """How often the kernel took the core from this thread (``/proc/.../status``)."""
    with open(f"{task}/status") as status:
        for line in status:
            if line.startswith("nonvoluntary_ctxt_switches:"):
                return int(line.split()[1])
    return 0


def sched_ns(path: str) -> tuple[int, int] | tuple[None, None]:
    """Time on a core, and time runnable without one; (None, None) where the kernel counts none."""
    try:
        with open(path if path.endswith("schedstat") else f"{path}/schedstat") as stat:
            on, off = stat.read().split()[:2]
    except (OSError, ValueError):
        return None, None
    return int(on), int(off)


# ---- the stories ---------------------------------------------------------------------------------


class Story(NamedTuple):
    """The trace of one story, and the names of its Gs and Ms."""

    events: list[TraceEvent]
    names: dict[int, str]


@contextmanager
def recording(loop: Loop) -> Iterator[Tracer]:
    tracer = loop.start_trace(queues=True)
    try:
        yield tracer
    finally:
        loop.p.tracer = None


class Elsewhere(Exception):
    """P has been on other threads than M0 and M1 before the story has begun."""


async def with_m1() -> Loop:
    """Run a plain G, so that M1 is idle and takes the next one.

    Raises Elsewhere if the machine is so busy that the G took a slice and sysmon handed P off.
    """
    loop = this_loop("the walkthrough")
    await loop.call_sync(lambda: None)
    if [m.id for m in loop.p.idle_ms] != [1]:
        raise Elsewhere
    return loop


async def six_steps(rival: Preempter) -> tuple[Story, Preemption]:
    """G1 waits for G2's answer; the operating system interferes. All three are tasks, whose queue
    is first in, first out.
    """
    loop = this_loop("the walkthrough")
    answer: asyncio.Future[None] = loop.create_future()
    seen: list[Preemption] = []

    async def g1() -> None:
        await answer

    async def g2() -> None:
        me, log = asyncio.current_task(), loop.p.tracer
        assert log is not None
        log(GEvent.LOG, me, "before")
        seen.append(rival.preempt())
        log(GEvent.LOG, me, "after")
        answer.set_result(None)

    async def g3() -> None:
        pass

    with recording(loop) as tracer:
        gs: list[Any] = [loop.create_task(g()) for g in (g1, g2, g3)]
        await asyncio.gather(*gs)
    return Story(list(tracer.events), _named(gs)), seen[0]


async def by_channel() -> Story:
    """The same with children and a channel: the G that a partner wakes runs next."""
    loop = this_loop("the walkthrough")
    ch = Chan[str]()

    async def g1() -> None:
        await ch.recv()

    async def g2() -> None:
        await ch.send("answer")

    async def g3() -> None:
        pass

    with recording(loop) as tracer:
        second, third, first = go(g2), go(g3), go(g1)  # the last one started is next
        for g in (first, second, third):
            await g
    return Story(list(tracer.events), _named([first, second, third]))


async def by_syscall() -> Story:
    """G1 blocks its thread until G3 writes, and G3 can run only if P moves to another thread."""
    loop = await with_m1()
    loop.batches.past_max = 1  # the coroutines wait for their turn behind G1
    reading, writing = os.pipe()

    def g1() -> bytes:
        select.select([reading], [], [], READ_S)
        return os.read(reading, 1)

    async def g2() -> None:
        pass

    async def g3() -> None:
        os.write(writing, b".")

    try:
        with recording(loop) as tracer:
            second, third, first = go(g2), go(g3), go(g1)
            for g in (first, second, third):
                await g
    finally:
        os.close(reading)
        os.close(writing)
    return Story(list(tracer.events), _named([first, second, third]))


def _named(gs: Sequence[Any]) -> dict[int, str]:
    return {g.id: f"G{number}" for number, g in enumerate(gs, 1)}


# ---- reading the traces --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of P right after one event, by the trace up to there.

    ``holder`` is the M that holds P; ``queue`` has the next G first, and ``runnext`` precedes it;
    ``parked`` maps a G to the object that it waits for, ``syscall`` a G inside a call to its M.
    """

    ms: float
    event: str
    g: str
    detail: str
    holder: str
    running: str | None
    runnext: str | None
    queue: tuple[str, ...]
    parked: dict[str, str]
    syscall: dict[str, str]

    def p(self) -> tuple[object, ...]:
        """P's own state, which the operating system neither sees nor changes."""
        return self.holder, self.running, self.runnext, self.queue


#: The name of all Gs outside of the story: there is one, which starts the others.
MAIN = "main"


class Replay:
    """Follows a trace: which G runs, waits or is in a call, by the events alone."""

    def __init__(self, names: dict[int, str]):
        self._names = names
        #: A trace begins in the G that asks for it.
        self._running: str | None = MAIN
        self._parked: dict[str, str] = {}
        self._syscall: dict[str, str] = {}

    def moments(self, events: Sequence[TraceEvent]) -> list[Moment]:
        """One for each event of the story's own Gs."""
        if not events:
            return []
        began = events[0].time_s
        moments = []
        for event in events:
            self._follow(event)
            if event.g in self._names:
                moments.append(self._moment(event, (event.time_s - began) * 1e3))
        return moments

    def _name(self, g: int | None) -> str | None:
        return None if g is None else self._names.get(g, MAIN)

    def _follow(self, event: TraceEvent) -> None:
        name = self._names.get(event.g, MAIN)
        match event.event:
            case GEvent.START | GEvent.SYSCALL_END:
                self._running = name
                self._syscall.pop(name, None)
            case GEvent.BLOCK:
                self._parked[name] = event.detail
                self._leave(name)
            case GEvent.UNBLOCK:
                self._parked.pop(name, None)
            case GEvent.SYSCALL_BEGIN:
                self._syscall[name] = event.detail
                self._leave(name)
            case GEvent.STOP | GEvent.END:
                self._syscall.pop(name, None)
                self._leave(name)
            case GEvent.CREATE | GEvent.LOG:
                pass

    def _leave(self, name: str) -> None:
        if self._running == name:
            self._running = None

    def _moment(self, event: TraceEvent, ms: float) -> Moment:
        p = event.p
        if p is None:
            raise GmpdError("this trace has no queues: it was recorded without them")
        known = set(self._names.values())
        return Moment(
            ms=ms,
            event=event.event.name.lower(),
            g=self._names[event.g],
            detail=event.detail,
            holder="-" if p.m is None else f"M{p.m}",
            running=self._running,
            runnext=self._name(p.runnext),
            queue=tuple(str(self._name(g)) for g in (*p.local, *p.global_) if g in self._names),
            parked={g: why for g, why in self._parked.items() if g in known},
            syscall=dict(self._syscall),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A sentence, with the moments that prove it."""

    number: int
    says: str
    moments: list[Moment]


E = GEvent
#: Sentences, each with the events that prove it, in the order of the trace.
Plan = Sequence[tuple[str, Sequence[tuple[GEvent, str]]]]

SIX: Plan = [
    ("P holds G1, G2 and G3 in its queue; M0 runs G1", [(E.CREATE, "G3"), (E.START, "G1")]),
    ("G1 has to wait for an answer: it is parked", [(E.BLOCK, "G1")]),
    ("M0 does not wait: it continues with G2", [(E.START, "G2")]),
    (
        "the operating system preempts M0 and resumes it: P is unchanged",
        [(E.LOG, "G2"), (E.LOG, "G2")],
    ),
    ("G2 provides the answer: G1 is ready and joins the queue behind G3", [(E.UNBLOCK, "G1")]),
    ("G3 runs, then G1", [(E.START, "G3"), (E.START, "G1"), (E.END, "G1")]),
]
CHANNEL: Plan = [
    ("G1 receives from a channel that is empty: it is parked", [(E.START, "G1"), (E.BLOCK, "G1")]),
    ("G2 sends: its partner becomes runnext, in front of G3", [(E.UNBLOCK, "G1")]),
    ("so G1 runs before G3", [(E.START, "G1"), (E.START, "G3")]),
]
SYSCALL: Plan = [
    ("M1 runs G1, a plain function, which reads from an empty pipe", [(E.START, "G1")]),
    ("sysmon sees M1 blocked and hands P to M0", [(E.SYSCALL_BEGIN, "G1")]),
    (
        "M0, the thread of all coroutines, runs G2 and G3; G3 writes to the pipe",
        [(E.START, "G2"), (E.START, "G3")],
    ),
    ("M1 returns without P: it leaves G1's result to M0, and parks", [(E.END, "G1")]),
]


def steps(story: Story, plan: Plan) -> list[Step]:
    """The plan's steps with their moments. GmpdError, with the trace, if the events differ."""
    moments = iter(Replay(story.names).moments(story.events))
    told = []
    for number, (says, signs) in enumerate(plan, 1):
        found = []
        for event, g in signs:
            moment = next((m for m in moments if m.event == event.name.lower() and m.g == g), None)
            if moment is None:
                trace = "\n".join(str(each) for each in story.events)
                raise GmpdError(
                    f"the trace does not show step {number}, “{says}”: {g} {event.name.lower()} "
                    f"did not happen then. Please report it with the trace:\n{trace}"
                )
            found.append(moment)
        told.append(Step(number, says, found))
    return told


# ---- running and printing all of it --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Walkthrough:
    """The three stories as they happened."""

    core: int
    steps: list[Step]
    preemption: Preemption
    channel: list[Step]
    syscall: list[Step]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Pin the calling thread, and those that it starts, to one core, as a worker is."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def overruns_unsaid() -> Iterator[None]:
    """G2 of the six steps computes longer than a G should, so that it can be preempted, and the Gs
    whose memory is measured are made without a yield: the runtime would warn of both.
    """
    log = logging.getLogger("gmpd.runtime.overrun")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def walk(core: int) -> Walkthrough:
    """Run the stories, each on a P of its own; the caller has pinned itself to ``core``."""
    with Rival(core) as rival:
        six, preemption = on_a_p(lambda: six_steps(rival))
    return Walkthrough(
        core=core,
        steps=steps(six, SIX),
        preemption=preemption,
        channel=steps(on_a_p(by_channel), CHANNEL),
        syscall=steps(on_a_p(by_syscall), SYSCALL),
    )


def on_a_p(main: Callable[[], Any]) -> Any:
    """Run a story on a new P, and again if it could not begin."""
    for _ in range(TRIES):
        with asyncio.Runner(loop_factory=Loop) as runner:
            try:
                return runner.run(main())
            except Elsewhere:
                continue
    raise GmpdError(
        f"P moved to a third thread in each of {TRIES} tries: this machine is too busy for the demo"
    )


def run(app: App) -> None:
    """The command: stories, costs, and both printed."""
    from gmpd.cli.teach.switch_costs import measure

    core = max(os.sched_getaffinity(0))  # the first ones have more interrupts to serve
    with pinned(core), overruns_unsaid():
        found = walk(core)
        costs = measure(core)
    costs = costs.with_worker(app)
    if app.as_json:
        preemption = {**found.preemption._asdict(), "happened": found.preemption.happened}
        app.json({**asdict(found), "preemption": preemption, **asdict(costs)})
        return
    for line in tell(found, costs):
        app.data(line)


def tell(found: Walkthrough, costs: Costs) -> Iterator[str]:
    """The lines that people read, at most 80 columns wide."""
    yield f"The six steps on one P, pinned to core {found.core}, by its own trace"
    yield "G1, G2 and G3 are tasks of asyncio, whose queue is first in, first out"
    yield from _story(found.steps, {4: _preempted(found.preemption)})
    yield ""
    yield "Children of gmpd.go and a channel: the G that a partner wakes is runnext"
    yield from _story(found.channel)
    yield ""
    yield "A plain function in a system call: the thread blocks, P does not"
    yield from _story(found.syscall, {2: _handed_off(found.syscall)})
    yield ""
    yield from costs.lines()


_WIDTHS = (9, 18, 5, 6, 9, 11)


def _story(told: Sequence[Step], notes: dict[int, list[str]] | None = None) -> Iterator[str]:
    heads = ("ms", "event", "P at", "runs", "runnext", "queue")
    yield click.style(_columns(heads) + "parked", dim=True)
    for step in told:
        yield click.style(f"{step.number}  {step.says}", bold=True)
        for moment in step.moments:
            yield _row(moment)
        for note in (notes or {}).get(step.number, []):
            yield click.style(f"{'':11}{note}", fg="cyan")


def _columns(cells: Sequence[str]) -> str:
    first, *rest = cells
    line = first.rjust(_WIDTHS[0]) + "  "
    return line + "".join(cell.ljust(w) for cell, w in zip(rest, _WIDTHS[1:], strict=True))


def _row(moment: Moment) -> str:
    event = f"{moment.g} {moment.event.replace('_', ' ')}"
    if moment.event == "log":
        event += f" {moment.detail}"
    cells = (f"{moment.ms:.2f}", event, moment.holder, moment.running or "-")
    line = _columns((*cells, moment.runnext or "-", " ".join(moment.queue) or "-"))
    waits = [f"{g} [{why}]" for g, why in moment.parked.items()]
    waits += [f"{g} [syscall, {m}]" for g, m in moment.syscall.items()]
    return line + click.style(", ".join(waits) or "-", fg="yellow" if waits else None)


def _handed_off(told: Sequence[Step]) -> list[str]:
    took = told[1].moments[0].ms - told[0].moments[0].ms
    slice_ms = SLICE_NS / 1e6
    return [
        f"{took:.1f} ms after G1 began: a function may hold P for {slice_ms:g} ms;",
        "one that is known to block loses P at once",
    ]


def _preempted(seen: Preemption) -> list[str]:
    if not seen.happened:
        return [
            f"it did not happen: no involuntary switch of M0's thread in {seen.took_ms / 1e3:.1f} s"
        ]
    counts = f"{seen.involuntary_before} -> {seen.involuntary_after}"
    told = [f"M0's thread: involuntary switches {counts}"]
    if seen.off_core_ms is not None and seen.rival_cpu_ms is not None:
        told[0] += ","
        told.append(
            f"{seen.off_core_ms:.1f} ms without its core; a rival process had it for"
            f" {seen.rival_cpu_ms:.1f} ms"
        )
    return told
