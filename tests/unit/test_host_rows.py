"""The rows of hosts (gmpd.daemon.hosts): which there are after hosts came, were lost, or left."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from gmpd.config import Config
from gmpd.daemon import hosts as module
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.hosts import LOST_S, LOST_SHOWN, LOST_SHOWN_S, REFUSED_S, HostRow, Hosts
from gmpd.sched.events import Exit
from gmpd.sched.schedt import Sched

S = 1_000_000_000


class World:
    """Hosts without processes. ``now`` is in ns."""

    def __init__(self) -> None:
        self.workers: dict[int, Any] = {}
        self.deadlines = Deadlines()
        sched = SimpleNamespace(ps={}, handle=lambda *_: None)
        config = Config.load(flags={"cluster.engine": "an:Engine"}, env={}, files=())
        self.hosts = Hosts(
            config, cast("Sched", sched), cast("Any", self), self.workers.get,
            lambda *_: None, lambda *_: None, self.deadlines,
        )  # fmt: skip
        cast("Any", self.hosts)._watcher = SimpleNamespace(forks=False)  # it looks for hosts
        self.now = 1000 * S

    def start_bridge(self, p: int, host: Any, forked: object = None) -> str:
        self.workers[p] = SimpleNamespace(
            p=p, host=host, fault="", expected=False, ready=False, lost_jobs=0
        )
        return ""

    def end_bridge(self, worker: Any) -> None:
        self.ends(worker.host.name)

    def there(self, *names: str, leaves: bool = False) -> None:
        """The engine has these."""
        self.hosts._set([(name, 2, leaves) for name in names])
        self.deadlines.run(self.now)

    def serves(self, name: str) -> None:
        worker = self.workers[self.p(name)]
        worker.ready = True
        self.hosts.serves(worker)

    def ends(self, name: str, fault: str = "", jobs: int = 0) -> None:
        worker = self.workers.pop(self.p(name))
        worker.fault, worker.lost_jobs = fault, jobs
        self.hosts.ended(worker, Exit(1, "", 3, "exited with 3"), self.now)

    def wait(self, seconds: float) -> None:
        """Until then, with all that becomes due."""
        end = self.now + int(seconds * S)
        turns = 0
        while (at := self.deadlines.next()) is not None and at <= end:
            self.now = max(self.now, at)
            self.deadlines.run(self.now)
            turns += 1
            assert turns < 100, "it has no rest"
        self.now = end

    def p(self, name: str) -> int:
        p = self.row(name).p
        assert p is not None
        return p

    def row(self, name: str) -> HostRow:
        return self.hosts.rows[name]


def serving() -> World:
    world = World()
    world.there("north")
    world.serves("north")
    return world


def test_a_host_that_was_lost_says_when_why_and_what_it_cost() -> None:
    world = serving()
    world.ends("north", "it did not answer for 10 s", jobs=3)
    row = world.row("north")
    assert world.row("north").is_lost
    assert (row.losses, row.loss, row.lost_jobs) == (1, "it did not answer for 10 s", 3)
    assert row.lost_at > 0
    world.wait(LOST_S)
    assert world.p("north"), "it is tried again"
    assert not world.row("north").is_lost
    world.serves("north")
    assert (row.problem, row.losses) == ("", 1)
    world.ends("north", "its daemon has stopped")
    assert (row.losses, row.loss, row.lost_jobs) == (2, "its daemon has stopped", 0)


def test_a_lost_host_that_the_engine_has_no_more_is_shown_for_a_while() -> None:
    world = serving()
    world.there()  # the engine sees it first, and then the bridge
    world.ends("north", "no way to the host", jobs=1)
    world.there("south")
    world.wait(LOST_SHOWN_S - 1)
    assert world.row("north").is_lost
    world.wait(2)
    assert "north" not in world.hosts.rows
    assert world.deadlines.next() is None


def test_a_lost_host_that_was_tried_again_in_vain_is_shown_too() -> None:
    world = serving()
    world.ends("north", "it did not answer for 10 s")
    world.wait(LOST_S)
    world.there()  # the engine sees it last
    assert world.row("north").is_lost
    world.there("north")
    world.wait(module.REFUSED_S)
    world.ends("north", "it has Python 3.99")
    assert not world.row("north").is_lost, "it is there, and refuses"


def test_a_host_that_comes_back_has_its_row_again() -> None:
    world = serving()
    world.there()
    world.ends("north", "no way to the host")
    world.there("north")
    world.wait(LOST_S)
    world.serves("north")
    world.wait(LOST_SHOWN_S)
    assert world.row("north").losses == 1


def test_a_host_that_leaves_or_never_served_is_not_lost() -> None:
    world = serving()
    world.there()
    world.ends("north")
    assert not world.hosts.rows, "what it had begun has ended"
    world.there("odd")
    world.ends("odd", "it has Python 3.99")
    assert not world.row("odd").is_lost
    world.there()
    assert not world.hosts.rows


def test_only_the_last_lost_hosts_are_shown_and_none_without_an_engine() -> None:
    world = World()
    names = [f"h{n}" for n in range(LOST_SHOWN + 3)]
    world.there(*names)
    for name in names:
        world.serves(name)
    world.there()
    for name in names:
        world.now += S
        world.ends(name, "no way to the host")
    assert [*world.hosts.rows] == names[3:]
    cast("Any", world.hosts)._watcher = None
    world.hosts.down()
    assert not world.hosts.rows


def test_a_host_that_has_left_and_is_still_there_costs_no_turns() -> None:
    world = serving()
    world.there("north", leaves=True)
    world.ends("north")
    world.wait(60)
    assert world.row("north").p is None
    assert world.deadlines.next() is None


def test_a_refused_host_is_asked_again() -> None:
    world = World()
    world.there("odd")
    world.ends("odd", "it has Python 3.99")
    world.wait(module.REFUSED_S + 1)
    assert world.row("odd").p is not None


def test_a_host_that_says_that_it_leaves_is_not_tried_again_at_once() -> None:
    world = serving()
    worker = world.workers[world.p("north")]
    world.hosts.leaves(worker, "it had SIGTERM")
    assert worker.expected, "it gets no more"
    world.there("north")  # the engine does not know yet
    assert world.p("north") == worker.p
    world.ends("north")
    assert (world.row("north").losses, world.row("north").problem) == (0, "")
    world.wait(REFUSED_S - 1)
    assert world.row("north").p is None
    world.wait(1)
    assert world.p("north") != worker.p


def test_no_bridge_begins_to_a_host_while_attempts_of_a_killed_one_may_run_there() -> None:
    world = serving()
    worker = world.workers.pop(world.p("north"))
    killed = Exit(1, "SIGKILL", None, "was killed by SIGKILL")
    world.hosts.severed(worker, killed, time.monotonic_ns() + 14 * S)
    world.there("north")
    world.wait(60)
    row = world.row("north")
    assert (row.p, row.waits_lease, row.losses) == (worker.p, True, 0)
    assert row.problem.startswith("lost, waiting for the end of its lease until ")
    assert row.problem.endswith(": its bridge was killed by SIGKILL")
    world.hosts.ended(worker, killed, world.now)
    assert (row.waits_lease, row.losses, row.loss) == (False, 1, "its bridge was killed by SIGKILL")
    world.wait(LOST_S)
    assert world.p("north") != worker.p
