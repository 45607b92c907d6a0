"""Isolated jobs in the ledger: workers of their own, one job each; the rest goes on beside them."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.errors import ProtocolError
from gmpd.protocol import Options, Outcome
from gmpd.sched.events import Exit, IsolatedLimited, Probed
from gmpd.sched.instructions import (
    Instruction,
    Kill,
    LeaseJobs,
    Probe,
    Retire,
    Revoke,
    StartIsolated,
)
from gmpd.sched.isolated import (
    END_NS,
    FAILURES_MAX,
    IDLE_DEATHS_MAX,
    ISOLATED_FROM,
    PAUSE_MIN_NS,
    IsolatedP,
    Stage,
)
from gmpd.sched.records import Session
from tests.desk import KILLED, MS, Desk, handed, only

OUR_KILL = Exit(pid=78, signal="SIGKILL", exitcode=None, text="was killed by SIGKILL")
FAULT = Exit(pid=79, signal="", exitcode=3, text="ended with exit status 3")


class Scene:
    """A desk that plays the isolated workers too."""

    def __init__(self, **policy: Any) -> None:
        self.desk = Desk(**{"isolated": 2, **policy})
        self.sched = self.desk.sched
        self.client = self.desk.client()

    def submit(self, n: int = 1, session: Session | None = None, **options: Any) -> list[int]:
        return self.desk.submit(session or self.client, n, isolate=True, **options)

    def take(self, after_ms: float = 0) -> list[Instruction]:
        return self.desk.take(after_ms)

    def starts(self, after_ms: float = 0) -> list[int]:
        """Workers that the policy wants now."""
        return [each.p for each in only(self.take(after_ms), StartIsolated)]

    def ready(self, p: int) -> IsolatedP:
        self.desk.isolated_ready(p)
        self.take()
        return self.sched.isolated.ps[p]

    def running(self) -> IsolatedP:
        """One submitted job's worker, with that job."""
        (p,) = self.starts()
        return self.ready(p)

    def died(self, p: IsolatedP, end: Exit = OUR_KILL, *, begun: bool = True) -> None:
        tokens = list(p.fresh) if begun else []
        self.desk.isolated_died(p.p, tokens, end)
        self.take()

    def ended(self, seq: int) -> Outcome | None:
        return self.desk.ended(self.client, seq)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_job_gets_a_worker_that_is_started_for_it(scene: Scene) -> None:
    """The Ps are not asked, and keep their room."""
    scene.desk.ready(0)
    (seq,) = scene.submit(timeout=5.0, retries=1)
    (p,) = scene.starts()
    assert p >= ISOLATED_FROM
    scene.desk.isolated_ready(p)
    (lease,) = only(scene.take(), LeaseJobs)
    assert lease.p.p == p
    assert lease.payloads == [b"%d" % seq]
    assert lease.options == Options(retries=1), "its time limit is kept by the coordinator"


def test_its_value_comes_through_the_coordinator_which_may_kill_its_worker(scene: Scene) -> None:
    scene.submit(session=scene.desk.client(answers=True), timeout=5.0)
    (p,) = scene.starts()
    scene.desk.isolated_ready(p)
    (lease,) = only(scene.take(), LeaseJobs)
    assert (lease.options, lease.answers) == (None, False)


def test_its_worker_ends_with_it_and_its_place_is_free_when_that_is_dead(scene: Scene) -> None:
    scene = Scene(isolated=1)
    first, second = scene.submit(2)
    p = scene.running()
    scene.desk.finish(p)
    assert only(scene.take(), Retire) == [Retire(p)], "told to end once its outcome has come"
    assert scene.starts() == []
    assert (scene.ended(first), p.stage) == (Outcome.OK, Stage.ENDING)
    scene.died(p)
    assert [type(each) for each in scene.desk.log][-1] is StartIsolated
    scene.desk.finish(scene.ready(max(scene.sched.isolated.ps)))
    scene.take()
    assert scene.ended(second) is Outcome.OK


def test_a_worker_that_does_not_end_after_its_job_is_killed(scene: Scene) -> None:
    """A thread of the job holds the interpreter: it gets a moment, then no more."""
    scene.submit()
    p = scene.running()
    scene.desk.finish(p)
    scene.take()
    assert scene.sched.next_deadline() == scene.desk.now + END_NS
    assert only(scene.take(END_NS / MS), Kill) == [Kill(p)]
    assert only(scene.take(1), Kill) == [], "once is enough"


def test_no_more_run_than_may(scene: Scene) -> None:
    scene.submit(5)
    starts = scene.starts()
    assert len(starts) == 2
    first, second = map(scene.ready, starts)
    assert scene.sched.isolated.used == 2
    assert scene.starts() == []
    scene.desk.finish(first)
    scene.take()
    scene.died(first)
    assert scene.sched.isolated.count(Stage.STARTING) == 1
    assert second.stage is Stage.RUNNING


def test_ordinary_jobs_pass_isolated_ones_and_the_other_way_round(scene: Scene) -> None:
    p = scene.desk.ready(0)
    scene.submit(50)
    scene.desk.submit(scene.client, 1, "m:g")
    assert handed(scene.take()) == [(0, 1)]
    scene.desk.submit(scene.client, 500, "m:g", priority=9)
    scene.take()
    scene.ready(ISOLATED_FROM)
    assert handed(scene.desk.log)[-1] == (ISOLATED_FROM, 1)
    assert p.fresh


def test_clients_take_turns(scene: Scene) -> None:
    scene = Scene(isolated=1)
    other = scene.desk.client("other")
    mine, (theirs,) = scene.submit(20), scene.submit(1, session=other)
    scene.take()
    for _ in range(2):
        (starting,) = scene.sched.isolated.ps
        p = scene.ready(starting)
        scene.desk.finish(p)
        scene.take()
        scene.died(p)
    assert scene.ended(mine[0]) is Outcome.OK
    assert scene.desk.ended(other, theirs) is Outcome.OK


def test_an_idle_p_never_steals_an_isolated_job(scene: Scene) -> None:
    scene.submit(3)
    for p in scene.starts():
        scene.ready(p)
    scene.desk.ready(0)
    taken = scene.take(100)
    assert (only(taken, Revoke), only(taken, LeaseJobs)) == ([], [])


def test_a_worker_that_stands_still_is_looked_at_although_it_never_spoke(scene: Scene) -> None:
    scene.submit()
    (p,) = scene.starts()
    record = scene.ready(p)
    due = scene.sched.next_deadline()
    assert due is not None
    assert only(scene.take((due - scene.desk.now) / MS), Probe) == [Probe(record)]
    scene.desk.tell(Probed(p, moves=False, asleep=False))
    assert record.deaf


def test_a_cancelled_job_that_waits_leaves_no_worker_behind(scene: Scene) -> None:
    (seq,) = scene.submit()
    (p,) = scene.starts()
    scene.desk.cancel(scene.client, [seq])
    scene.take()
    assert scene.ended(seq) is Outcome.CANCELLED
    scene.desk.isolated_ready(p)
    (kill,) = only(scene.take(), Kill)
    scene.desk.isolated_died(kill.p.p, (), OUR_KILL)
    assert scene.starts() == []
    assert scene.sched.isolated.failures == 0
    assert scene.sched.next_deadline() is None


@pytest.mark.parametrize("told", [False, True])
def test_a_running_job_is_cancelled_by_a_kill(scene: Scene, told: bool) -> None:
    """Whether or not it could say that it began."""
    (seq,) = scene.submit(retries=5)
    p = scene.running()
    if told:
        scene.desk.start(p)
    scene.desk.cancel(scene.client, [seq])
    assert only(scene.take(), Kill) == [Kill(p)]
    assert scene.ended(seq) is None, "not before the process is dead"
    scene.died(p)
    assert scene.ended(seq) is Outcome.CANCELLED


def test_an_outcome_that_was_faster_than_the_kill_counts(scene: Scene) -> None:
    (seq,) = scene.submit()
    p = scene.running()
    scene.desk.cancel(scene.client, [seq])
    scene.take()
    scene.desk.finish(p)
    scene.died(p)
    assert scene.ended(seq) is Outcome.OK


def test_a_late_job_is_killed_and_its_end_waits_for_the_death(scene: Scene) -> None:
    (seq,) = scene.submit(timeout=0.5)
    p = scene.running()
    assert p.due_ns == scene.desk.now + 500 * MS
    assert only(scene.take(499), Kill) == []
    assert only(scene.take(1), Kill) == [Kill(p)]
    assert scene.ended(seq) is None
    scene.died(p)
    assert scene.ended(seq) is Outcome.TIMEOUT
    assert scene.desk.details(scene.client, seq)["pid"] == OUR_KILL.pid


def test_a_late_job_with_retries_runs_again_elsewhere(scene: Scene) -> None:
    (seq,) = scene.submit(timeout=0.5, retries=1)
    p = scene.running()
    scene.take(500)
    scene.died(p)
    assert scene.ended(seq) is None
    assert scene.sched.counters.retried == {"timeout": 1}
    (again,) = scene.starts(200)
    scene.desk.finish(scene.ready(again))
    scene.take()
    assert scene.ended(seq) is Outcome.OK


def test_a_dead_worker_costs_its_job_and_strikes_nobody_else(scene: Scene) -> None:
    (seq,) = scene.submit()
    scene.died(scene.running(), KILLED)
    assert scene.ended(seq) is Outcome.LOST
    details = scene.desk.details(scene.client, seq)
    assert (details["signal"], details["pid"], details["blamed"]) == ("SIGKILL", KILLED.pid, True)
    assert scene.sched.isolated.failures == 0


def test_three_deaths_of_one_job_are_the_last(scene: Scene) -> None:
    (seq,) = scene.submit(retries=9)
    scene.take()
    for _ in range(3):
        assert scene.ended(seq) is None
        (starting,) = scene.sched.isolated.ps
        scene.died(scene.ready(starting), KILLED)
    assert scene.ended(seq) is Outcome.LOST
    assert scene.desk.details(scene.client, seq)["poisoned"]


def test_a_job_that_had_not_begun_runs_with_the_next_worker(scene: Scene) -> None:
    (seq,) = scene.submit()
    scene.died(scene.running(), KILLED, begun=False)
    (again,) = scene.starts(PAUSE_MIN_NS / MS)
    scene.desk.finish(scene.ready(again))
    scene.take()
    assert scene.ended(seq) is Outcome.OK


def test_deaths_of_workers_that_were_ready_say_nothing_about_the_next(scene: Scene) -> None:
    """One after the other is killed before the job begins: the job runs all the same. Not for
    ever: then it is as if none could start."""
    (seq,) = scene.submit()
    for _ in range(IDLE_DEATHS_MAX):
        (p,) = scene.starts(60_000)
        scene.died(scene.ready(p), KILLED, begun=False)
        assert scene.ended(seq) is None
    (p,) = scene.starts(60_000)
    scene.desk.finish(scene.ready(p))
    scene.take()
    assert scene.ended(seq) is Outcome.OK
    (hopeless,) = scene.submit()
    deaths = 0
    while scene.ended(hopeless) is None:
        deaths += 1
        for p in scene.starts(60_000):
            scene.died(scene.ready(p), KILLED, begun=False)
    assert deaths == IDLE_DEATHS_MAX + 1


def test_when_no_worker_starts_those_who_wait_are_told(scene: Scene) -> None:
    """After some tries with growing pauses, not for ever; and a later one is tried again."""
    seqs = scene.submit(2)
    tries = 0
    while scene.ended(seqs[0]) is None:
        for p in scene.starts(60_000):
            tries += 1
            scene.desk.isolated_died(p, (), FAULT, "import of x failed")
        scene.take()
    assert FAILURES_MAX <= tries <= FAILURES_MAX + 1
    assert [scene.ended(seq) for seq in seqs] == [Outcome.LOST] * 2
    assert "import of x failed" in scene.desk.details(scene.client, seqs[1])["text"]
    assert scene.desk.details(scene.client, seqs[1])["unstarted"]
    assert scene.sched.unfinished == 0
    (later,) = scene.submit()
    assert scene.starts() == [], "not at once"
    (p,) = scene.starts(60_000)
    scene.desk.finish(scene.ready(p))
    scene.take()
    assert scene.ended(later) is Outcome.OK
    assert scene.sched.isolated.failures == 0


def test_a_worker_that_began_to_start_before_a_job_came_does_not_decide_about_it() -> None:
    """The cause may be gone by then: only the start that the job waited for decides."""
    scene = Scene(isolated_spares=1)
    (early,) = scene.submit()
    while scene.ended(early) is None:
        for p in scene.starts(60_000):
            scene.desk.isolated_died(p, (), FAULT, "import of x failed")
        scene.take()
    (spare,) = scene.starts(60_000)
    scene.take(1)
    (later,) = scene.submit()
    assert scene.starts() == [], "the spare is under way"
    scene.desk.isolated_died(spare, (), FAULT, "import of x failed")
    scene.take()
    assert scene.ended(later) is None
    (fresh,) = scene.starts(60_000)
    scene.desk.isolated_died(fresh, (), FAULT, "import of x failed")
    scene.take()
    assert scene.ended(later) is Outcome.LOST, "its own start failed"


def test_a_worker_that_says_it_cannot_serve_gets_no_job(scene: Scene) -> None:
    scene.submit()
    (p,) = scene.starts()
    scene.desk.isolated_ready(p)
    scene.desk.isolated_unfit(p)
    assert not only(scene.take(), LeaseJobs)


def test_a_client_that_left_has_its_running_job_killed(scene: Scene) -> None:
    scene.submit(3)
    p, _ = [scene.ready(each) for each in scene.starts()]
    scene.desk.leave(scene.client)
    assert Kill(p) in scene.take()
    for record in list(scene.sched.isolated.ps.values()):
        scene.died(record)
    assert scene.sched.unfinished == 0
    assert scene.sched.counters.finished == {"cancelled": 3}


def test_spares_wait_for_the_next_job_but_not_before_the_first() -> None:
    scene = Scene(isolated_spares=1)
    assert scene.starts(1000) == []
    scene.submit()
    p = scene.running()
    spare = max(scene.sched.isolated.ps)
    assert spare > p.p, "started when the job had its worker"
    scene.ready(spare)
    scene.desk.finish(p)
    scene.take()
    scene.died(p)
    assert scene.starts(1000) == []
    scene.submit()
    assert handed(scene.take()) == [(spare, 1)]
    assert len(scene.sched.isolated.ps) == 2, "and another one takes its place"


def test_a_draining_daemon_starts_no_spares() -> None:
    scene = Scene(isolated_spares=1)
    scene.submit()
    scene.desk.drain()
    assert len(scene.starts()) == 1


def test_an_unexpected_hello_changes_nothing(scene: Scene) -> None:
    scene.submit()
    p = scene.running()
    for number in (p.p, p.p + 1, 0):
        with pytest.raises(ProtocolError, match="not waited for"):
            scene.desk.isolated_ready(number)
    assert p.stage is Stage.RUNNING


def test_a_delayed_job_waits_in_the_right_queue(scene: Scene) -> None:
    scene.submit(delay=0.5)
    assert scene.starts() == []
    assert len(scene.starts(500)) == 1


def test_procs_change_the_limit_at_once(scene: Scene) -> None:
    scene.submit(9)
    assert len(scene.starts()) == 2
    scene.desk.tell(IsolatedLimited(5))
    assert len(scene.starts()) == 3
