"""Leases that a worker has not claimed are revoked through shared memory: stopped, deaf, killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gmpd import protocol
from gmpd.daemon.claims import CLAIMS
from gmpd.daemon.shm import WorkerShm
from gmpd.protocol import Outcome
from tests.rawclient import Boot, RawClient, RawDaemon
from tests.support import go_on, stop, wait_until


@pytest.fixture
def boot(boot: Boot) -> Boot:
    """As always, once every P is up."""

    def start(**config: Any) -> tuple[RawDaemon, RawClient]:
        daemon, client = boot(**config)
        client.until(lambda: all(each["up"] for each in client.call("status")["ps"]))
        return daemon, client

    return start


def pids(client: RawClient) -> list[int]:
    return [each["pid"] for each in client.call("status")["ps"]]


def runs(record: str) -> Counter[str]:
    return Counter(Path(record).read_text().split()) if Path(record).exists() else Counter()


def warm(client: RawClient, name: str, *args: Any) -> None:
    """Let the daemon learn that a function is quick, so that it hands out many at once."""
    client.outcomes(client.submit(name, *[args] * 200))


# -------------------------------------------------------------------------------- the two sides

CLAIM_ALL = """
import sys
from gmpd.daemon.shm import WorkerShm
shm = WorkerShm(int(sys.argv[1]))
n, stride = int(sys.argv[2]), int(sys.argv[3])
print(flush=True)
mine = [i * stride % n for i in range(n) if shm.claims.claim(i * stride % n)]
print(*mine, flush=True)
"""


@pytest.mark.parametrize("stride", [1, 4999, CLAIMS - 1], ids=["meeting", "mixed", "backwards"])
def test_two_processes_never_have_the_same_one(stride: int) -> None:
    """All leases are offered; one side claims and the other revokes, at the same time."""
    shm, fd = WorkerShm.create("gmpd-test")
    n = CLAIMS
    try:
        shm.claims.offer(0, n)
        child = subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, str(fd), str(n), str(stride)],
            pass_fds=(fd,),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.readline()
        taken = shm.claims.revoke(range(n - 1, -1, -1))
        with child.stdout:  # communicate() knows nothing of what readline() has read ahead
            claimed = [int(token) for token in child.stdout.read().split()]
        assert child.wait(timeout=30) == 0
        assert Counter(taken) + Counter(claimed) == Counter(range(n))
        assert all(shm.claims.is_claimed(token) for token in claimed)
    finally:
        shm.close()
        os.close(fd)


# ------------------------------------------------------------------------------- stopped workers


def test_the_jobs_of_a_stopped_worker_are_run_by_the_others(boot: Boot, tmp_path: Path) -> None:
    """All of them, while it is still stopped; and nothing runs twice when it goes on."""
    _, client = boot()
    record = str(tmp_path / "ran")
    warm(client, "jobs_for_tests:note", record, "warm")
    stopped, _ = pids(client)
    stop(stopped)
    try:
        names = [f"job{i}" for i in range(300)]
        jobs = client.submit("jobs_for_tests:note", *[(record, name) for name in names])
        outcomes = client.outcomes(jobs)
        assert Path(f"/proc/{stopped}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    finally:
        go_on(stopped)
    assert {outcome for outcome, _, _ in outcomes} == {Outcome.OK}
    # It finds its leases revoked, says that it is there, and is given work again.
    before = _finished(client, 0)
    client.until(
        lambda: (
            client.outcomes(client.submit("jobs_for_tests:note", *[(record, "later")] * 50))
            and _finished(client, 0) > before
        )
    )
    ran = runs(record)
    assert {name: ran[name] for name in names} == dict.fromkeys(names, 1)
    status = client.call("status")
    assert sum(each["steals"]["hit"] for each in status["ps"]) >= 1
    assert "unknown_token" not in status["dropped"]


def _finished(client: RawClient, p: int) -> int:
    found: int = client.call("status")["ps"][p]["jobs_finished"]
    return found


def test_the_jobs_of_a_stopped_worker_take_a_few_probes_and_no_more(
    boot: Boot, tmp_path: Path
) -> None:
    """In each round, on a busy machine too; 0.1 s where the cores are idle."""
    _, client = boot()
    record = str(tmp_path / "ran")
    warm(client, "jobs_for_tests:note", record, "warm")
    took = []
    stopped = pids(client)[0]
    for round_ in range(9):
        client.until(lambda: client.call("status")["queue"]["unfinished"] == 0)
        stop(stopped)
        try:
            began = time.monotonic()
            calls = [(record, f"{round_}.{i}") for i in range(20)]
            client.outcomes(client.submit("jobs_for_tests:note", *calls))
            took.append(time.monotonic() - began)
        finally:
            go_on(stopped)
        client.until(lambda: client.call("status")["ps"][0]["fresh"] == 0)
    assert min(took) < 0.1, took
    assert max(took) < 3.0, took


def test_without_another_worker_the_jobs_stay_until_it_goes_on(boot: Boot, tmp_path: Path) -> None:
    _, client = boot(**{"daemon.procs": 1})
    record = str(tmp_path / "ran")
    warm(client, "jobs_for_tests:note", record, "warm")
    (worker,) = pids(client)
    stop(worker)
    try:
        jobs = client.submit("jobs_for_tests:note", *[(record, f"job{i}") for i in range(100)])
        client.until(lambda: client.call("status")["ps"][0]["fresh"] >= 1)
        assert client.call("status")["ps"][0]["fresh"] <= 100
        assert not client.done.keys() & set(jobs)
    finally:
        go_on(worker)
    assert {outcome for outcome, _, _ in client.outcomes(jobs)} == {Outcome.OK}
    assert set(runs(record).values()) == {1, 200}


@pytest.mark.parametrize("seed", range(3))
def test_workers_that_stop_and_go_on_at_random_run_each_job_once(
    boot: Boot, tmp_path: Path, seed: int
) -> None:
    """Both are stopped and woken at any moment, in the middle of claims too."""
    _, client = boot()
    record, dice = str(tmp_path / "ran"), random.Random(seed)
    warm(client, "jobs_for_tests:note", record, "warm")
    workers = pids(client)
    names = [f"job{i}" for i in range(6000)]
    jobs = client.submit("jobs_for_tests:note", *[(record, name) for name in names])
    stopped: set[int] = set()
    try:
        while not client.done.keys() >= set(jobs):
            worker = dice.choice(workers)
            if worker in stopped:
                go_on(worker)
                stopped.remove(worker)
            else:
                stop(worker)
                stopped.add(worker)
            client.receive(dice.choice((0.0005, 0.002, 0.015, 0.03)))
    finally:
        for worker in stopped:
            go_on(worker)
    assert {outcome for outcome, _, _ in client.outcomes(jobs)} == {Outcome.OK}
    # A second run would come after the fact: let the workers come to rest first.
    client.outcomes(client.submit("jobs_for_tests:pid", *[()] * 50))
    ran = runs(record)
    assert {name: ran[name] for name in names} == dict.fromkeys(names, 1)


# ---------------------------------------------------------------------------- deaf and busy ones


@pytest.mark.parametrize("function", ["note_and_spin", "note_and_never_await"])
def test_jobs_behind_a_deaf_one_are_run_elsewhere(
    boot: Boot, tmp_path: Path, function: str
) -> None:
    """C code that holds the GIL, or a coroutine that never awaits: neither can be asked."""
    _, client = boot()
    record, name = str(tmp_path / "ran"), f"jobs_for_tests:{function}"
    warm(client, name, record, "warm", 0.0)
    calls = [(record, "deaf", 4.0), *[(record, f"job{i}", 0.0) for i in range(150)]]
    deaf, *others = client.submit(name, *calls)
    outcomes = client.outcomes(others)
    assert deaf not in client.done, "the jobs behind it waited for it"
    assert {outcome for outcome, _, _ in outcomes} == {Outcome.OK}
    assert client.outcomes([deaf])[0][1] == "deaf"
    ran = runs(record)
    assert ran.pop("warm") == 200
    assert set(ran.values()) == {1}
    assert len(ran) == 151


def test_a_deaf_worker_can_be_cancelled_and_shrunk_away(boot: Boot, tmp_path: Path) -> None:
    """Unclaimed jobs are cancelled, or move, at once; the running one is finished."""
    _, client = boot(**{"daemon.procs": 1})
    record, name = str(tmp_path / "ran"), "jobs_for_tests:note_and_spin"
    warm(client, name, record, "warm", 0.0)
    calls = [(record, "deaf", 3.0), *[(record, f"job{i}", 0.0) for i in range(40)]]
    deaf, *others = client.submit(name, *calls)
    wait_until(lambda: "deaf" in runs(record), "the deaf job runs")
    held = client.call("status")["ps"][0]["fresh"]
    assert held > 1
    client.send(protocol.Cancel(others))
    assert {outcome for outcome, _, _ in client.outcomes(others)} == {Outcome.CANCELLED}
    assert deaf not in client.done
    again = client.submit(name, *[(record, f"again{i}", 0.0) for i in range(40)])
    client.call("procs", n=2)
    client.outcomes(again)
    assert client.outcomes([deaf])[0][:2] == (Outcome.OK, "deaf")
    assert not [each for each in runs(record) if each.startswith("job")]


def test_a_p_that_is_shrunk_away_while_deaf_gives_its_jobs_back(boot: Boot, tmp_path: Path) -> None:
    _, client = boot()
    record = str(tmp_path / "ran")
    warm(client, "jobs_for_tests:note", record, "warm")
    stopped = pids(client)[1]
    stop(stopped)
    try:
        jobs = client.submit("jobs_for_tests:note", *[(record, f"job{i}") for i in range(200)])
        client.call("procs", n=1)
        outcomes = client.outcomes(jobs)
    finally:
        go_on(stopped)
    assert {outcome for outcome, _, _ in outcomes} == {Outcome.OK}
    client.until(lambda: len(client.call("status")["ps"]) == 1)
    ran = runs(record)
    assert ran.pop("warm") == 200
    assert set(ran.values()) == {1}


# ---------------------------------------------------------------- death and stop around a claim


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_at_a_claim_loses_at_most_that_one(
    boot: Boot, tmp_path: Path, when: str
) -> None:
    """Killed before it: the job moves on. After it: it is lost, and not run elsewhere."""
    fallen, record = str(tmp_path / "fallen"), str(tmp_path / "ran")
    _, client = boot(initializer=("jobs_for_tests:stumble", ("SIGKILL", fallen, 230, when)))
    names = [f"job{i}" for i in range(1000)]
    jobs = client.submit("jobs_for_tests:note", *[(record, name) for name in names])
    got = Counter(outcome for outcome, _, _ in client.outcomes(jobs))
    assert Path(fallen).exists()
    assert got == {Outcome.OK: 1000} if when == "before" else {Outcome.OK: 999, Outcome.LOST: 1}
    ran = runs(record)
    lost = {names[i] for i, job in enumerate(jobs) if client.done[job][0] is Outcome.LOST}
    assert ran == Counter(set(names) - lost)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_stops_at_a_claim_holds_up_at_most_that_one(
    boot: Boot, tmp_path: Path, when: str
) -> None:
    """Nothing is held while it claims, so nothing else can wait for it."""
    fallen, record = str(tmp_path / "fallen"), str(tmp_path / "ran")
    _, client = boot(initializer=("jobs_for_tests:stumble", ("SIGSTOP", fallen, 230, when)))
    names = [f"job{i}" for i in range(1000)]
    jobs = client.submit("jobs_for_tests:note", *[(record, name) for name in names])
    try:
        held = int(when == "after")
        client.until(lambda: len(client.done) >= 1000 - held)
        client.until(lambda: Path(fallen).exists())
        missing = set(jobs) - client.done.keys()
        assert len(missing) == held
    finally:
        for pid in pids(client):
            go_on(pid)
    assert {outcome for outcome, _, _ in client.outcomes(jobs)} == {Outcome.OK}
    client.outcomes(client.submit("jobs_for_tests:pid", *[()] * 50))
    assert runs(record) == Counter(names)


@pytest.mark.parametrize("seed", range(3))
def test_workers_that_are_killed_at_random_run_nothing_twice(
    boot: Boot, tmp_path: Path, seed: int
) -> None:
    """Many rounds of kill -9 under load: a job without retries runs once or is lost."""
    _, client = boot(**{"restart.storm_deaths": 1000})
    record, dice = str(tmp_path / "ran"), random.Random(seed)
    warm(client, "jobs_for_tests:note", record, "warm")
    names = [f"job{i}" for i in range(6000)]
    jobs = client.submit("jobs_for_tests:note", *[(record, name) for name in names])
    kills = 0
    while not client.done.keys() >= set(jobs) and kills < 12:
        victims = [each for each in client.call("status")["ps"] if each["up"]]
        if victims:
            with contextlib.suppress(ProcessLookupError):  # it died of the last one just now
                os.kill(dice.choice(victims)["pid"], signal.SIGKILL)
                kills += 1
        client.receive(dice.choice((0.005, 0.02, 0.05)))
    got = client.outcomes(jobs)
    ran = runs(record)
    assert kills >= 2
    for name, (outcome, _, _) in zip(names, got, strict=True):
        assert ran[name] <= 1, f"{name} ran {ran[name]} times"
        assert (outcome is Outcome.OK and ran[name] == 1) or outcome is Outcome.LOST
    lost = sum(outcome is Outcome.LOST for outcome, _, _ in got)
    assert lost <= kills, f"{lost} jobs are lost by {kills} deaths: some had not begun"


# ----------------------------------------------------------------------------------- what is seen


def test_a_deaf_worker_is_shown_with_what_it_sits_in(boot: Boot, tmp_path: Path) -> None:
    """While it is so, and no longer; also when no other is there."""
    _, client = boot(**{"daemon.procs": 1})
    record, name = str(tmp_path / "ran"), "jobs_for_tests:note_and_spin"
    (deaf,) = client.submit(name, (record, "deaf", 4.0))

    def is_shown() -> bool:
        seen = client.call("status")["ps"][0]
        return (seen["state"], seen["running"]) == ("deaf", name) and seen["running_s"] > 0.2

    client.until(is_shown)
    client.outcomes([deaf])
    client.until(lambda: client.call("status")["ps"][0]["state"] == "idle")


@pytest.mark.parametrize(
    ("name", "args"),
    [("jobs_for_tests:spin", (1.5,)), ("time:sleep", (1.5,)), ("asyncio:sleep", (1.5,))],
)
def test_who_only_runs_long_is_not_called_deaf(
    boot: Boot, name: str, args: tuple[float, ...]
) -> None:
    """A hog and a sleeper are handed off, a parked coroutine lets its P sleep."""
    _, client = boot(**{"daemon.procs": 1})
    (job,) = client.submit(name, args)
    client.until(lambda: job in client.running)
    seen = set()
    while job not in client.done:
        seen.add(client.call("status")["ps"][0]["state"])
        client.receive(0.01)
    assert "deaf" not in seen


def test_results_that_a_deaf_worker_could_not_send_arrive(boot: Boot, tmp_path: Path) -> None:
    """They were gathered when the next job took the GIL: they do not wait for its end."""
    _, client = boot(**{"daemon.procs": 1})
    record, name = str(tmp_path / "ran"), "jobs_for_tests:note_and_spin"
    warm(client, name, record, "warm", 0.0)
    calls = [(record, f"job{i}", 0.0) for i in range(40)]
    *jobs, deaf = client.submit(name, *calls, (record, "deaf", 3.0))
    assert {outcome for outcome, _, _ in client.outcomes(jobs)} == {Outcome.OK}
    assert deaf not in client.done
    assert client.outcomes([deaf])[0][:2] == (Outcome.OK, "deaf")
    assert "unknown_token" not in client.call("status")["dropped"]


# ---------------------------------------------------------------------------------- after a crash


def test_a_crash_is_blamed_on_what_was_executing(boot: Boot) -> None:
    """Among many that had started; also when sysmon had taken P from it. The others name it."""
    _, client = boot(**{"daemon.procs": 1})
    parked = client.submit("asyncio:sleep", *[(60.0,)] * 5)
    client.until(lambda: client.running >= set(parked))
    (killer,) = client.submit("jobs_for_tests:linger_and_die", (0.3,))
    lost = client.outcomes([*parked, killer])
    assert {outcome for outcome, _, _ in lost} == {Outcome.LOST}
    assert [details["blamed"] for _, _, details in lost] == [False] * 5 + [True]
    assert all("while it ran jobs_for_tests:linger_and_die" in d["text"] for _, _, d in lost[:5])
    assert {(d["signal"], d["pid"]) for _, _, d in lost} == {("SIGKILL", lost[0][2]["pid"])}


def test_a_job_that_kills_after_it_lost_p_is_poison_too(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    call = client.submit("jobs_for_tests:linger_and_die", (0.2,), options={"retries": 10})
    ((outcome, _, details),) = client.outcomes(call)
    assert outcome is Outcome.LOST
    assert details["poisoned"]


def test_what_a_dead_worker_had_counted_stays_in_the_totals(boot: Boot) -> None:
    """CPU time by the kernel's account of the dead, counters by what lies in its shared memory."""
    _, client = boot(**{"daemon.procs": 1})
    client.outcomes(client.submit("jobs_for_tests:spin", *[(0.1,)] * 3))
    client.until(lambda: client.call("status")["ps"][0]["runq"] == 0)
    before = client.call("status")["ps"][0]
    os.kill(before["pid"], signal.SIGKILL)
    client.until(lambda: client.call("status")["ps"][0].get("epoch", 0) > before["epoch"])
    after = client.call("status")["ps"][0]
    assert before["cpu_s"] >= 0.2
    assert after["cpu_s"] >= before["cpu_s"]
    assert after["schedtick"] >= before["schedtick"] >= 3
    assert after["handoffs"]["hog"] >= before["handoffs"]["hog"]
    assert after["state_s"]["running"] >= before["state_s"]["running"]
