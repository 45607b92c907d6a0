"""The walkthrough's stories, on a P whose clock and dice are given: every state is known before.

The system call needs sysmon, which such a P has not: see tests/integration/test_cli.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import click
import pytest

from gmpd.cli.teach.switch_costs import Cost, Costs
from gmpd.cli.teach.walkthrough import (
    CHANNEL,
    SIX,
    TRIES,
    Elsewhere,
    Moment,
    Preemption,
    Replay,
    Step,
    Story,
    Walkthrough,
    by_channel,
    on_a_p,
    since,
    six_steps,
    steps,
    tell,
)
from gmpd.errors import GmpdError
from gmpd.runtime.go import go, gosched, this_loop
from gmpd.runtime.run import run
from gmpd.runtime.stacks import p_state
from gmpd.sched.g import GEvent

PREEMPTED = Preemption(3, 4, 2.0, 2.5, 3.0)


class Calm:
    """Preempts no G, and says that it did."""

    def preempt(self) -> Preemption:
        return PREEMPTED


def shown(moment: Moment) -> str:
    parked = " ".join(f"{g}[{why}]" for g, why in moment.parked.items())
    queue = " ".join(moment.queue)
    front = moment.runnext or "-"
    return f"{moment.g} {moment.event}: {moment.holder} {moment.running} {front} ({queue}) {parked}"


def six() -> Story:
    story, seen = run(six_steps(Calm()), deterministic_seed=1)
    assert seen is PREEMPTED
    return story


def test_the_six_steps_are_those_that_are_told() -> None:
    told = steps(six(), SIX)
    assert [step.number for step in told] == [1, 2, 3, 4, 5, 6]
    assert [[shown(moment) for moment in step.moments] for step in told] == [
        ["G3 create: M0 main - (G1 G2 G3) ", "G1 start: M0 G1 - (G2 G3) "],
        ["G1 block: M0 None - (G2 G3) G1[IO wait]"],
        ["G2 start: M0 G2 - (G3) G1[IO wait]"],
        ["G2 log: M0 G2 - (G3) G1[IO wait]", "G2 log: M0 G2 - (G3) G1[IO wait]"],
        ["G1 unblock: M0 G2 - (G3 G1) "],
        ["G3 start: M0 G3 - (G1) ", "G1 start: M0 G1 - () ", "G1 end: M0 None - () "],
    ]


def test_p_is_as_it_was_before_the_preemption() -> None:
    before, after = steps(six(), SIX)[3].moments
    assert before.p() == after.p() == ("M0", "G2", None, ("G3",))


def test_whom_a_channel_wakes_is_runnext_and_overtakes() -> None:
    told = steps(run(by_channel(), deterministic_seed=1), CHANNEL)
    assert [[shown(moment) for moment in step.moments] for step in told] == [
        ["G1 start: M0 G1 - (G2 G3) ", "G1 block: M0 None - (G2 G3) G1[chan receive]"],
        ["G1 unblock: M0 G2 G1 (G3) "],
        ["G1 start: M0 G1 - (G3) ", "G3 start: M0 G3 - () "],
    ]


def test_a_story_that_went_otherwise_is_not_told() -> None:
    story = six()
    g2_starts = next(
        i for i, event in enumerate(story.events)
        if event.event is GEvent.START and story.names.get(event.g) == "G2"
    )  # fmt: skip
    broken = Story(story.events[:g2_starts], story.names)
    with pytest.raises(GmpdError, match=r"step 3, “M0 does not wait.*G2 start did not happen"):
        steps(broken, SIX)


def test_a_story_begins_again_when_p_moved_on_too_early() -> None:
    begun = 0

    async def story() -> str:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise Elsewhere
        return "told"

    assert on_a_p(story) == "told"
    begun = -TRIES
    with pytest.raises(GmpdError, match="too busy for the demo"):
        on_a_p(story)


def test_a_trace_without_queues_says_so() -> None:
    async def main() -> Story:
        tracer = this_loop("the test").start_trace()
        g = go(asyncio.sleep, 0)
        await g
        return Story(list(tracer.events), {g.id: "G1"})

    story = run(main(), deterministic_seed=1)
    assert story.events[0].p is None
    with pytest.raises(GmpdError, match="no queues"):
        Replay(story.names).moments(story.events)
    assert Replay({}).moments([]) == []


def test_a_photograph_has_every_queue_in_its_order() -> None:
    async def main() -> list[tuple[str | None, list[str], list[str]]]:
        loop = this_loop("the test")

        async def yields() -> None:
            await gosched()

        job = loop.call_sync(lambda: None)
        first, second = go(yields), go(yields)
        seen = [p_state(loop.p)]
        loop.p.runq.global_.append(loop.p.runq.ring.pop())
        seen.append(p_state(loop.p))
        assert [state.m for state in seen] == [0, 0]
        await asyncio.gather(job, first, second)
        names = {g.id: name for g, name in ((first, "first"), (second, "second"))}
        return [
            (
                names.get(state.runnext or 0),
                [names.get(g, "job") for g in state.local],
                [names.get(g, "job") for g in state.global_],
            )
            for state in seen
        ]

    assert run(main(), deterministic_seed=1) == [
        ("second", ["job", "first"], []),
        ("second", ["job"], ["first"]),
    ]


def test_who_is_in_a_system_call_is_not_running() -> None:
    """As sysmon tells it: P went from M1 to M2, which finishes the G later."""

    async def main() -> Story:
        loop = this_loop("the test")
        tracer = loop.start_trace(queues=True)

        async def nothing() -> None: ...

        g = go(nothing)
        tracer(GEvent.START, g)
        tracer(GEvent.SYSCALL_BEGIN, g, "M1")
        tracer(GEvent.END, g)
        loop.p.tracer = None
        await g
        return Story(list(tracer.events), {g.id: "G1"})

    story = run(main(), deterministic_seed=1)
    seen = [(m.running, m.syscall) for m in Replay(story.names).moments(story.events)]
    assert seen == [("main", {}), ("G1", {}), (None, {"G1": "M1"}), (None, {})]


def walkthrough(preemption: Preemption) -> list[str]:
    told = steps(six(), SIX)
    started = told[0].moments[1]
    syscall = [
        Step(1, "M1 runs G1", [started]),
        Step(2, "P goes on", [replace(started, ms=started.ms + 12.34, syscall={"G1": "M1"})]),
    ]
    found = Walkthrough(7, told, preemption, steps(run(by_channel()), CHANNEL), syscall)
    cost = Cost("a process (a worker), resident", 123_456.7, "kB", 1, "as measured", 2.5)
    return [click.unstyle(line) for line in tell(found, Costs([cost, cost], [cost]))]


def test_what_is_told_fits_a_terminal() -> None:
    lines = walkthrough(PREEMPTED)
    assert [line for line in lines if len(line) > 80] == []
    text = "\n".join(lines)
    for sign in (
        "core 7",
        "G1 [chan receive]",
        "3 -> 4",
        "2.5 ms without its core",
        "12.3 ms after",
        "2.50",
    ):
        assert sign in text


def test_what_the_kernel_does_not_count_is_not_told() -> None:
    text = "\n".join(walkthrough(Preemption(3, 4, None, None, 3.0)))
    assert "3 -> 4\n" in text
    assert "rival process" not in text
    assert since(None, 5) is since(5, None) is None
    assert since(1_000_000, 3_500_000) == 2.5


def test_a_preemption_that_did_not_happen_is_not_claimed() -> None:
    text = "\n".join(walkthrough(Preemption(3, 3, 0.0, None, 1000.0)))
    assert "it did not happen: no involuntary switch of M0's thread in 1.0 s" in text
    assert "->" not in text
