"""The world of durable jobs with limits, and a window for few of them: most jobs of a key are left
in the store, and all come to their ends; never more of a key at once, or within an interval, than
may be. Jobs without limits are not held up by those that wait.

Planted faults, each a wake-up that is forgotten, are found. Worlds without end:
`python -m tests.sim.test_durable_limits_world`.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec
import pytest

from gmpd import protocol
from gmpd.daemon.sqlite_limited import LimitedJobs
from gmpd.sched.durable_limits import LimitedShare, Sizes
from tests.desk import MS
from tests.sim import test_durable_world as durable_world
from tests.sim.test_durable_world import World, hunt, live

SEEDS = 1000
#: Key, at once, starts, seconds.
LIMITS = (("one", 1, 0, 0.0), ("two", 2, 0, 0.0), ("rate", 0, 2, 0.1), ("both", 2, 3, 0.05))
OPTIONS = (
    *({**options, "limit": limit} for limit in LIMITS for options in durable_world.OPTIONS),
    *durable_world.OPTIONS,
)
SIZES = (
    Sizes(window=8, refill=2, limited=4, spare=2),
    Sizes(window=8, refill=1, limited=2, spare=0),
    Sizes(window=12, refill=2, limited=10, spare=4),
)


class LimitedWorld(World):
    options = OPTIONS

    def __init__(self, seed: int) -> None:
        self.sizes = SIZES[seed % len(SIZES)]
        self.most_left = self.most_waiting = 0
        #: When the last jobs of each key began.
        self.begun_at: dict[str, deque[int]] = {}
        super().__init__(seed)

    def boot(self) -> None:
        # A limit is not kept over a crash.
        self.begun_at = {key: deque(maxlen=starts or 1) for key, _, starts, _ in LIMITS}
        super().boot()

    def limit_of(self, id_: bytes) -> tuple[str, int, int, float] | None:
        return msgspec.msgpack.decode(self.jobs[id_].options, type=protocol.Options).limit

    def begin(self) -> None:
        before = self.live()
        super().begin()
        for id_ in set(self.live()) - set(before):
            self.count(id_)
        at_once = Counter(limit for id_ in self.live() if (limit := self.limit_of(id_)))
        for limit, n in at_once.items():
            assert not limit[1] or n <= limit[1], f"{n} of {limit}"

    def count(self, id_: bytes) -> None:
        limit = self.limit_of(id_)
        if limit is None or not limit[2]:
            return
        times = self.begun_at[limit[0]]
        if len(times) == limit[2]:
            apart = self.desk.now - times[0]
            assert apart >= limit[3] * 1e9, f"{limit[2] + 1} starts of {limit} in {apart / MS} ms"
        times.append(self.desk.now)

    def turn(self) -> None:
        super().turn()
        share = self.durable._limited
        self.most_left = max(self.most_left, len(share._left))
        self.most_waiting = max(self.most_waiting, share._total)
        assert share._total <= self.sizes.limited
        held = self.durable._by_seq.values()
        waiting = Counter(each.limit for each in held if each.limit and not each.started_ms)
        assert share._waiting == waiting


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_jobs_that_are_left_in_the_store_come_to_their_ends(first: int) -> None:
    worlds = [live(seed, LimitedWorld) for seed in range(first, first + 100)]
    assert sum(world.most_left > 1 for world in worlds) > 50, "too tame: few were left"
    assert sum(world.most_waiting == world.sizes.limited for world in worlds) > 20


def test_starts_before_a_restart_count_for_the_interval() -> None:
    world = LimitedWorld(0)
    world.options = ({"limit": ("rate", 0, 2, 100.0)},)
    while len(world.jobs) < 5:
        world.enqueue()
    moves = world.apply, world.deliver, world.turn, world.begin, world.finish
    while len(world.starts) < 2 or world.live() or world.queue or world.answers:
        for move in moves:
            move()
    world.wall += 10
    world.crash()
    for wait_ms in (0, 99_000, 980):
        world.wall += wait_ms
        world.desk.now += wait_ms * MS
        for move in 20 * moves:
            move()
        world.durable.tick()
        assert len(world.starts) == 2, wait_ms
    world.wall += 2000
    world.desk.now += 2000 * MS
    for move in 20 * moves:
        move()
    assert sum(world.starts.values()) > 2


# -- planted faults --------------------------------------------------------------------------------


def not_asked_again(share: LimitedShare, key: str) -> bool:
    """The end of a job does not have the store asked for others of its key."""
    gone(share, key)
    return False


def asked_for_its_own_key_only(share: LimitedShare, key: str) -> bool:
    """The end of a job makes no room for those of other keys."""
    gone(share, key)
    return share.wants(key)


def not_read_at_boot(jobs: LimitedJobs) -> None:
    """The keys of an earlier coordinator are not known to the next one."""
    jobs._is_known = True


def not_when_they_fall_due(jobs: LimitedJobs, now_ms: int) -> None:
    """Jobs that were delayed, or wait for their next attempts, are not looked for."""


gone = LimitedShare.gone


FAULTS: tuple[tuple[type, str, object, int], ...] = (
    (LimitedShare, "gone", not_asked_again, 6),
    (LimitedShare, "gone", asked_for_its_own_key_only, 220),
    (LimitedJobs, "_read", not_read_at_boot, 13),
    (LimitedJobs, "fall_due", not_when_they_fall_due, 0),
)


@pytest.mark.parametrize(("owner", "method", "fault", "seed"), FAULTS)
def test_a_forgotten_wake_up_is_found(
    owner: type, method: str, fault: object, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``seed``: the first that found it; when the worlds change, another may."""
    monkeypatch.setattr(owner, method, fault)
    with pytest.raises(AssertionError, match="these never ended"):
        live_all(seed, *range(SEEDS))


def live_all(*seeds: int) -> None:
    for seed in seeds:
        live(seed, LimitedWorld)


if __name__ == "__main__":
    hunt(LimitedWorld)
