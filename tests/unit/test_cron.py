"""The policy of periodic jobs (sched/cron.py): catching up, overlaps, changes, the clock."""

from __future__ import annotations

import msgspec

from gmpd.daemon.cron import tick_id
from gmpd.periodic import CatchUp, Every
from gmpd.sched.cron import BACK_MS, LATE_MS, PENDING_MAX, RETRY_MS, Cron, Periodic
from gmpd.sched.stored import StoredSchedule, Verdict

START = 1_000_000_000_000
SECOND = 1000


class Shell:
    """Keeps what the policy asks for."""

    def __init__(
        self,
        catch_up: str = "last",
        *,
        waits: bool = False,
        row: StoredSchedule | None = None,
        wall: int = START,
    ) -> None:
        self.wall = wall
        self.rows: dict[str, StoredSchedule] = {}
        self.put_ticks: list[int] = []
        self.awaited: list[bytes] = []
        self.lost = 0
        self.spec = Periodic("s", "every 1 s", Every(SECOND), CatchUp(catch_up), waits)
        if row is not None:
            self.rows["s"] = row
        self.cron = Cron(self, self.rows.values())
        self.cron.declare({"s": self.spec})

    def wall_ms(self) -> int:
        return self.wall

    def save(self, row: StoredSchedule) -> None:
        self.rows[row.name] = row

    def drop(self, name: str) -> None:
        self.rows.pop(name, None)

    def job_id(self, name: str, tick: int) -> bytes:
        return b"%d" % tick

    def put(self, name: str, tick: int, row: StoredSchedule) -> None:
        self.put_ticks.append((tick - START) // SECOND)
        self.put_row = row

    def await_end(self, name: str, job: bytes) -> None:
        self.awaited.append(job)

    def missed(self, name: str, n: int) -> None:
        self.lost += n

    # -- what happens

    def at(self, seconds: float) -> None:
        self.wall = START + round(seconds * 1000)
        self.cron.tick()

    def stored(self, verdict: Verdict | None = Verdict.NEW, holder: bytes = b"") -> None:
        tick = START + self.put_ticks[-1] * SECOND
        if verdict is Verdict.NEW:
            self.rows["s"] = self.put_row
        self.cron.stored("s", tick, verdict, holder)

    def ended(self, outcome: str = "done") -> None:
        self.cron.ended("s", self.awaited[-1], outcome, "")

    def run(self) -> None:
        self.stored()
        self.ended()

    def restart(self, seconds: float) -> Shell:
        """The next daemon, later."""
        row = self.rows.get("s")
        catch_up = self.spec.catch_up.value
        return Shell(catch_up, waits=self.spec.waits, row=row, wall=START + round(seconds * 1000))


def test_a_new_schedule_begins_with_its_next_tick() -> None:
    shell = Shell("all", waits=True)
    assert shell.put_ticks == []
    assert shell.cron.next_ms() == START + SECOND
    shell.at(0.999)
    assert shell.put_ticks == []
    shell.at(1.0)
    assert shell.put_ticks == [1]
    assert shell.put_row.job == b"%d" % (START + SECOND)
    assert shell.put_row.decided_ms == START + SECOND


def test_ticks_missed_by_a_daemon_that_was_down() -> None:
    for catch_up, waits, expected, lost in (
        ("last", False, [91], 89),
        ("all", True, list(range(2, 92)), 0),
    ):
        shell = Shell(catch_up, waits=waits)
        shell.at(1)
        shell.run()
        later = shell.restart(91)
        for _ in expected:
            later.run()
        assert (later.put_ticks, later.lost) == (expected, lost), catch_up


def test_without_catching_up_a_tick_may_be_a_minute_late() -> None:
    row = StoredSchedule("s", "every 1 s", START)
    hourly = Periodic("s", "every 1 s", Every(3600 * SECOND), CatchUp.NONE, waits=False)
    tick = hourly.ticks.after(START)
    assert tick is not None
    for late, runs in ((0, True), (LATE_MS, True), (LATE_MS + 1, False)):
        shell = Shell("none", row=row)
        shell.put_ticks.clear()
        shell.wall = tick + late
        policy = Cron(shell, [row])
        policy.declare({"s": hourly})
        assert bool(shell.put_ticks) is runs


def test_all_is_bounded_to_the_newest() -> None:
    shell = Shell("all", waits=True, row=StoredSchedule("s", "every 1 s", START - 5000 * SECOND))
    assert shell.put_ticks == [1 - PENDING_MAX]
    assert shell.lost > 0
    assert len(shell.put_row.pending) == PENDING_MAX - 1


def test_a_tick_is_skipped_while_the_last_run_has_not_ended() -> None:
    shell = Shell()
    shell.at(1)
    shell.stored()
    shell.at(2)
    shell.at(3)
    assert (shell.put_ticks, shell.rows["s"].skipped) == ([1], 2)
    shell.ended("failed")
    assert shell.rows["s"].outcome == "failed"
    shell.at(4)
    assert shell.put_ticks == [1, 4]


def test_a_tick_that_waits_runs_when_the_last_run_has_ended() -> None:
    shell = Shell(waits=True)
    shell.at(1)
    shell.stored()
    shell.at(2)
    shell.at(3)
    assert (shell.put_ticks, shell.rows["s"].pending) == ([1], (START + 2000, START + 3000))
    shell.ended()
    shell.run()
    shell.run()
    assert shell.put_ticks == [1, 2, 3]
    assert shell.rows["s"].skipped == shell.lost == 0


def test_what_waits_survives_a_restart_whatever_is_caught_up() -> None:
    shell = Shell("none", waits=True)
    shell.at(1)
    shell.stored()
    shell.at(2)
    later = shell.restart(1000)
    assert later.put_ticks == []  # the run of the first may not have ended
    later.ended()
    assert later.put_ticks == [2]


def test_a_run_from_before_the_restart_is_awaited() -> None:
    shell = Shell()
    shell.at(1)
    shell.stored()
    later = shell.restart(2)
    assert later.awaited == [b"%d" % (START + SECOND)]
    assert later.put_ticks == []
    assert later.rows["s"].skipped == 1


def test_a_crash_before_the_job_was_stored_repeats_the_tick_and_after_it_does_not() -> None:
    shell = Shell()
    shell.at(1)
    assert shell.restart(1.5).put_ticks == [1]
    shell.stored()
    later = shell.restart(1.5)
    later.ended()
    assert later.put_ticks == []


def test_a_job_that_holds_the_unique_key_is_a_run() -> None:
    for waits in (False, True):
        shell = Shell(waits=waits)
        shell.at(1)
        shell.stored(Verdict.HELD, b"other")
        assert shell.awaited == [b"other"]
        assert shell.rows["s"].skipped == (0 if waits else 1)
        shell.ended()
        assert shell.put_ticks == ([1, 1] if waits else [1])
        assert shell.rows["s"].outcome == ""


def test_a_full_disk_is_tried_again() -> None:
    shell = Shell()
    shell.at(1)
    shell.stored(None)
    assert shell.rows["s"].pending == (START + SECOND,)
    shell.at(2)
    assert shell.put_ticks == [1]
    shell.at(1 + RETRY_MS / SECOND)
    assert shell.put_ticks == [1, 1]
    shell.run()
    shell.at(8)
    assert shell.put_ticks == [1, 1, 8]


def test_ticks_pass_by_a_paused_schedule_also_after_a_restart() -> None:
    shell = Shell("all", waits=True)
    assert shell.cron.pause("s")
    shell.at(5)
    assert shell.put_ticks == []
    later = shell.restart(10)
    assert later.cron.next_ms() is None
    assert later.cron.resume("s")
    assert later.put_ticks == []
    later.at(11)
    assert later.put_ticks == [11]
    assert not later.cron.pause("x")
    assert not later.cron.resume("x")


def test_a_pause_while_a_tick_is_stored_counts() -> None:
    shell = Shell()
    shell.at(1)
    shell.cron.pause("s")
    shell.stored()
    assert shell.rows["s"].paused
    assert shell.rows["s"].tick_ms == START + SECOND


def test_a_schedule_with_other_ticks_begins_anew() -> None:
    shell = Shell("all", waits=True)
    shell.at(1)
    shell.stored()
    shell.at(3)
    other = Periodic("s", "every 5 s", Every(5 * SECOND), CatchUp.ALL, waits=True)
    shell.wall = START + 4 * SECOND
    shell.cron.declare({"s": other})
    assert shell.rows["s"].pending == ()
    assert shell.rows["s"].when == "every 5 s"
    shell.ended()
    shell.at(4.5)
    assert shell.put_ticks == [1]
    shell.at(5)
    assert shell.put_ticks == [1, 5]


def test_a_schedule_that_is_no_more_is_forgotten() -> None:
    shell = Shell("all", waits=True)
    shell.at(1)
    shell.cron.declare({})
    assert shell.rows == {}
    shell.stored()
    shell.at(50)
    assert shell.put_ticks == [1]
    shell.cron.declare({"s": shell.spec})
    shell.at(51)
    assert shell.put_ticks == [1, 51]


def test_a_clock_that_is_set_back_by_hours_repeats_no_tick() -> None:
    shell = Shell()
    shell.at(7200)
    shell.run()
    shell.at(3600)
    shell.at(7199)
    assert shell.put_ticks == [7200]
    shell.at(7201)
    assert shell.put_ticks == [7200, 7201]


def test_a_clock_that_is_set_forward_by_hours_is_as_a_downtime() -> None:
    shell = Shell()
    shell.at(7200)
    assert shell.put_ticks == [7200]
    assert shell.lost == 7199 - (7200 - PENDING_MAX - 1)


def test_a_clock_that_was_wrong_by_days_does_not_silence_a_schedule() -> None:
    shell = Shell()
    shell.at(10 * BACK_MS / SECOND)
    shell.run()
    shell.put_ticks.clear()
    shell.at(1)
    shell.at(2)
    assert shell.put_ticks == [2]


def test_the_id_of_a_tick_follows_from_its_name_and_time() -> None:
    assert tick_id("a", START) == tick_id("a", START)
    ids = {tick_id(name, tick) for name in "ab" for tick in (START, START + 1)}
    assert len(ids) == 4
    for id_ in ids:
        assert (len(id_), id_[6] >> 4, id_[8] >> 6) == (16, 8, 2)
        assert int.from_bytes(id_[:6], "big") in (START, START + 1)


def test_its_records_have_short_reprs() -> None:
    shell = Shell()
    assert repr(shell.cron) == "<Cron: 1 schedules>"
    assert repr(shell.cron.entries["s"]) == f"<Entry 's': every 1 s, next {START + SECOND}>"
    assert msgspec.structs.asdict(shell.rows["s"])["name"] == "s"
