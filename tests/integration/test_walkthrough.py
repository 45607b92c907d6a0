"""The walkthrough with a real rival on a real core: it wins, loses, dies, and is cleared up."""

from __future__ import annotations

import os
import signal

import pytest

from gmpd.cli.teach import walkthrough
from gmpd.cli.teach.walkthrough import Rival, pinned, walk
from gmpd.errors import GmpdError
from tests.support import stop, wait_until


@pytest.fixture
def core() -> int:
    return max(os.sched_getaffinity(0))


def state_of(pid: int) -> str:
    """The kernel's letter for it."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def test_the_rival_takes_the_core_and_gives_it_back(core: int) -> None:
    with pinned(core), Rival(core) as rival:
        seen = rival.preempt()
    assert seen.happened
    assert seen.rival_cpu_ms is None or seen.rival_cpu_ms > 0
    assert seen.off_core_ms is None or seen.off_core_ms > 0


def test_a_rival_that_does_not_run_preempts_nobody(
    core: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walkthrough, "PREEMPT_S", 0.2)
    with pinned(core), Rival(core) as rival:
        stop(rival.pid)
        seen = rival.preempt()
    # Others on this core may have preempted M0; that is not what was asked for.
    assert seen.rival_cpu_ms == 0
    assert seen.took_ms >= 200
    assert not seen.happened


def test_a_rival_that_was_killed_is_no_reader_that_left(core: int) -> None:
    """A broken pipe would end the command as if its own reader had gone."""
    with pinned(core), Rival(core) as rival:
        os.kill(rival.pid, signal.SIGKILL)
        wait_until(lambda: state_of(rival.pid) == "Z", "the rival is dead")
        with pytest.raises(GmpdError, match=r"ended too early, with -9"):
            rival.preempt()


def test_a_rival_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GmpdError, match="could not start on core 1023"):
        Rival(1023)
    assert "Invalid argument" in capfd.readouterr().err


def test_the_caller_gets_its_cores_back(core: int) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(GmpdError, match="could not start"), pinned(core):
        Rival(1023)
    assert os.sched_getaffinity(0) == before


def test_a_walk_with_a_busy_core_tells_the_same_story(core: int) -> None:
    """Another rival computes on the core all the time: slices are late, the states are not."""
    with pinned(core), Rival(core) as other:
        busy = f"/proc/{other.pid}/schedstat"
        before = walkthrough.sched_ns(busy)[0]
        for _ in range(100):
            other.provoke()
        wait_until(lambda: walkthrough.sched_ns(busy)[0] != before, "the other one computes")
        told = walk(core)
    assert [moment.holder for step in told.steps for moment in step.moments] == ["M0"] * 10
    before_it, after_it = told.steps[3].moments
    assert before_it.p() == after_it.p()
    assert [step.moments[-1].holder for step in told.syscall] == ["M1", "M0", "M0", "M0"]
