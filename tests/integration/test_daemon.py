"""A real daemon, over the wire alone: work, death, ends, limits, strangers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from gmpd import protocol
from gmpd.netpoll import Dealer
from gmpd.protocol import Outcome
from tests.rawclient import DEADLINE_S, Boot, RawClient, RawDaemon
from tests.support import go_on, stop, wait_until


def test_jobs_come_back_with_their_values_and_errors(boot: Boot) -> None:
    """One session, one function, values and an exception with its texts."""
    _, client = boot()
    good, bad = client.outcomes(client.submit("math:sqrt", (9.0,), (-1.0,)))
    assert good[:2] == (Outcome.OK, 3.0)
    assert bad[0] is Outcome.ERROR
    assert bad[1].type == "ValueError"
    assert bad[2]["attempt"] == 1


def test_both_workers_run_work(boot: Boot) -> None:
    """Work spreads: blocking jobs find both processes."""
    _, client = boot()
    client.until(lambda: all(each["up"] for each in client.call("status")["ps"]))
    client.outcomes(client.submit("time:sleep", *[(0.05,)] * 8))
    pids = {
        value for _, value, _ in client.outcomes(client.submit("jobs_for_tests:pid", *[()] * 400))
    }
    status = client.call("status")
    assert {each["jobs_finished"] > 0 for each in status["ps"]} == {True}
    assert pids <= {each["pid"] for each in status["ps"]}


def test_a_hundred_blocking_jobs_do_not_hold_up_a_short_one(boot: Boot) -> None:
    """A blocking call never freezes a core: the short job ends long before the first sleeper."""
    _, client = boot()
    sleepers = client.submit("time:sleep", *[(2.0,)] * 100)
    short = client.submit("math:sqrt", (4.0,))
    client.outcomes(short)
    assert not client.done.keys() & set(sleepers)
    began = time.monotonic()
    client.outcomes(sleepers)
    assert time.monotonic() - began < 20


def test_two_hundred_coroutines_wait_together(boot: Boot) -> None:
    """Parked Gs cost no P: all wait at the same time."""
    _, client = boot()
    began = time.monotonic()
    done = client.outcomes(client.submit("asyncio:sleep", *[(0.5, "x")] * 200))
    assert {value for _, value, _ in done} == {"x"}
    assert time.monotonic() - began < 200 * 0.5 / 10


@pytest.mark.parametrize(
    ("how", "expected_signal", "exitcode"),
    [
        ("exit", "", 3),
        ("segv", "SIGSEGV", None),
        ("kill", "SIGKILL", None),
        ("abort", "SIGABRT", None),
    ],
)
def test_a_dead_worker_costs_its_running_job(
    boot: Boot, how: str, expected_signal: str, exitcode: int | None
) -> None:
    """WorkerLost names pid and signal; all else is done, by a new worker of a later epoch."""
    _, client = boot()
    before = {each["pid"] for each in client.call("status")["ps"]}
    killer = client.submit("jobs_for_tests:die", (how,))
    others = client.submit("math:sqrt", *[(4.0,)] * 300)
    (lost,) = client.outcomes(killer)
    assert lost[0] is Outcome.LOST
    assert (lost[2]["signal"], lost[2]["exitcode"]) == (expected_signal, exitcode)
    assert lost[2]["pid"] in before
    assert [outcome for outcome, _, _ in client.outcomes(others)] == [Outcome.OK] * 300
    client.until(lambda: all(each["up"] for each in client.call("status")["ps"]))
    assert max(each["epoch"] for each in client.call("status")["ps"]) == 2


def test_results_that_were_on_their_way_survive_the_worker(boot: Boot, tmp_path: Path) -> None:
    """Quick jobs end, their outcomes gather, the next job kills the process: none is lost."""
    _, client = boot(**{"daemon.procs": 1, "limits.plain_calls": 1})  # one after the other
    record = str(tmp_path / "ran")
    client.outcomes(client.submit("jobs_for_tests:note", *[(record, "warm")] * 30))
    for round_ in range(10):
        jobs = client.submit("jobs_for_tests:note", *[(record, f"{round_}.{i}") for i in range(20)])
        killer = client.submit("jobs_for_tests:die", ("exit",))
        assert [o for o, _, _ in client.outcomes(jobs)] == [Outcome.OK] * 20
        assert client.outcomes(killer)[0][0] is Outcome.LOST
    lines = Path(record).read_text().split()
    assert len(lines) == len(set(lines)) + 29, "a job ran twice"


def test_large_results_that_were_on_their_way_survive_the_worker(boot: Boot) -> None:
    """Larger than the ring in shared memory, in band and out of band; and the next job kills."""
    _, client = boot(**{"daemon.procs": 1, "limits.plain_calls": 1})  # one after the other
    client.outcomes(client.submit("jobs_for_tests:big", (10,)))
    client.outcomes(client.submit("jobs_for_tests:big_array", (0, 10)))
    for round_ in range(1, 6):
        plain = client.submit("jobs_for_tests:big", (3 << 20,))
        array = client.submit("jobs_for_tests:big_array", (round_, 3 << 20))
        killer = client.submit("jobs_for_tests:die", ("exit",))
        values = [(outcome, bytes(value or b"")) for outcome, value, _ in client.outcomes(plain)]
        assert values == [(Outcome.OK, b"x" * (3 << 20))]
        values = [(outcome, bytes(value or b"")) for outcome, value, _ in client.outcomes(array)]
        assert values == [(Outcome.OK, bytes([round_]) * (3 << 20))]
        assert client.outcomes(killer)[0][0] is Outcome.LOST


def test_results_that_wait_behind_those_on_their_way_survive_the_worker(
    boot: Boot, tmp_path: Path
) -> None:
    """More than are sent before the coordinator, which is stopped, has taken any."""
    daemon, client = boot(**{"daemon.procs": 1})
    now = str(tmp_path / "now")
    jobs = client.submit("jobs_for_tests:big_when", *[(now, 3 << 20)] * 8)
    killer = client.submit("jobs_for_tests:leave_when", (now,))
    client.until(lambda: client.running.issuperset(jobs + killer))
    worker = Path("/proc", str(client.call("status")["ps"][0]["pid"]), "stat")
    stop(daemon.process.pid)
    try:
        Path(now).touch()
        wait_until(lambda: worker.read_text().rpartition(")")[2].split()[0] == "Z", "it dies")
    finally:
        go_on(daemon.process.pid)
    ends = client.outcomes(jobs)
    assert [(outcome, len(value or b"")) for outcome, value, _ in ends] == [
        (Outcome.OK, 3 << 20)
    ] * 8
    assert client.outcomes(killer)[0][0] is Outcome.LOST


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_result_survives_the_end_that_its_own_child_makes(boot: Boot, size: int) -> None:
    """The surest way to die right behind a result: the next G of the same P does it."""
    _, client = boot(**{"daemon.procs": 1, "restart.storm_deaths": 1})
    for _ in range(4):  # more deaths than a storm has: this is none, for jobs ended
        ((outcome, value, _),) = client.outcomes(
            client.submit("jobs_for_tests:big_and_leave", (size,))
        )
        assert outcome is Outcome.OK
        assert value == bytes(size)


def test_a_stream_that_ends_well_has_all_its_items(boot: Boot) -> None:
    """Its worker dies at once: either all has arrived, or the stream is lost and says so."""
    _, client = boot(**{"daemon.procs": 1})
    for _ in range(5):
        client.outcomes(client.submit("math:sqrt", (4.0,)))  # else it is found to be broken
        (seq,) = client.submit("jobs_for_tests:count_and_leave", (200,), options={"stream": 1000})
        ((outcome, _, _),) = client.outcomes([seq])
        assert outcome is Outcome.LOST or client.items.get(seq) == list(range(200))


@pytest.mark.parametrize("isolate", [False, True])
def test_values_before_an_error_or_a_wait_of_a_generator_arrive(
    boot: Boot, tmp_path: Path, isolate: bool
) -> None:
    _, client = boot(**{"daemon.procs": 1, "limits.isolated": 3})
    options = {"stream": 1000, "isolate": isolate}
    fails, refused = client.submit(
        "jobs_for_tests:count_and_end", ("raise",), ("unsendable",), options=options
    )
    ended = client.outcomes([fails, refused])
    assert [outcome for outcome, _, _ in ended] == [Outcome.ERROR] * 2
    assert [ended[0][1].type, ended[1][1].type] == ["KeyError", "gmpd.errors.Unserializable"]
    assert client.items == {fails: [0, 1, 2], refused: [0, 1, 2]}
    path = tmp_path / "go"
    (waits,) = client.submit("jobs_for_tests:count_and_end", (str(path),), options=options)
    client.until(lambda: client.items.get(waits) == [0, 1, 2])
    path.touch()
    assert client.outcomes([waits])[0][0] is Outcome.OK
    assert client.items[waits] == [0, 1, 2, "over"]


def test_retries_run_a_lost_job_again(boot: Boot, tmp_path: Path) -> None:
    """Only after the death of the worker that had started it."""
    _, client = boot()
    jobs = client.submit(
        "jobs_for_tests:die_once", (str(tmp_path / "mark"),), options={"retries": 1}
    )
    assert client.outcomes(jobs)[0][:2] == (Outcome.OK, "second")


def test_retries_run_a_failed_job_again(boot: Boot, tmp_path: Path) -> None:
    """An exception counts an attempt too; the attempts are told."""
    _, client = boot()
    jobs = client.submit(
        "jobs_for_tests:fail_until", (str(tmp_path / "a"), 3), options={"retries": 2}
    )
    assert client.outcomes(jobs)[0][:2] == (Outcome.OK, 3)


def test_a_poison_job_is_given_up_after_three_workers(boot: Boot) -> None:
    """However many retries it asks for."""
    _, client = boot()
    (lost,) = client.outcomes(
        client.submit("jobs_for_tests:die", ("exit",), options={"retries": 100})
    )
    assert lost[0] is Outcome.LOST
    assert lost[2]["poisoned"] is True


@pytest.mark.parametrize("name", ["jobs_for_tests:raise_evil", "jobs_for_tests:leave"])
def test_strange_exceptions_are_errors_of_their_job_alone(boot: Boot, name: str) -> None:
    """SystemExit and an exception whose repr raises end neither worker nor daemon."""
    _, client = boot()
    before = {each["pid"] for each in client.call("status")["ps"]}
    (bad,) = client.outcomes(client.submit(name, ()))
    assert bad[0] is Outcome.ERROR
    assert {each["pid"] for each in client.call("status")["ps"]} == before


def test_an_unknown_function_is_an_error_that_names_it(boot: Boot) -> None:
    """Module and attribute."""
    _, client = boot()
    (no_module,) = client.outcomes(client.submit("nowhere_at_all:f", ()))
    (no_attribute,) = client.outcomes(client.submit("math:squrt", ()))
    (not_callable,) = client.outcomes(client.submit("math:pi", ()))
    assert "nowhere_at_all" in no_module[1].message
    assert "squrt" in no_attribute[1].message
    assert "callable" in not_callable[1].message


def test_a_result_is_what_it_was_when_its_job_ended(boot: Boot) -> None:
    """A later job may write to the same memory before the result has left the worker."""
    _, client = boot(**{"daemon.procs": 1})
    client.outcomes(client.submit("jobs_for_tests:fill_shared", *[(0,)] * 5))
    done = client.outcomes(client.submit("jobs_for_tests:fill_shared", *[(i,) for i in range(50)]))
    assert [bytes(value)[:1] for _, value, _ in done] == [bytes([i]) for i in range(50)]


def test_a_fork_inside_a_job_does_not_become_a_second_worker(boot: Boot) -> None:
    """The child's return ends the child; the parent's result is the job's, once."""
    _, client = boot()
    done = client.outcomes(client.submit("os:fork", *[()] * 5))
    assert all(outcome is Outcome.OK and value > 0 for outcome, value, _ in done)
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][1] == 2.0
    assert client.call("status")["dropped"] == {}


def test_a_result_over_the_limit_is_refused_with_the_limit(boot: Boot) -> None:
    """An error of that job; the worker lives."""
    _, client = boot(**{"limits.value_bytes": 100_000})
    (bad,) = client.outcomes(client.submit("jobs_for_tests:big", (200_000,)))
    assert bad[0] is Outcome.ERROR
    assert "100000" in bad[1].message
    (good,) = client.outcomes(client.submit("jobs_for_tests:big", (50_000,)))
    assert len(good[1]) == 50_000


@pytest.mark.parametrize("name", ["time:sleep", "jobs_for_tests:spin", "asyncio:sleep"])
def test_a_timeout_is_told_when_it_passes(boot: Boot, name: str) -> None:
    """For a call in C, for pure Python, and for a coroutine."""
    _, client = boot()
    began = time.monotonic()
    (late,) = client.outcomes(client.submit(name, (15.0,), options={"timeout": 0.3}))
    assert late[0] is Outcome.TIMEOUT
    assert time.monotonic() - began < 10


def test_cancel_tells_what_became_of_each(boot: Boot) -> None:
    """Queued: gone. A coroutine: cancelled where it waits. A running call: kept."""
    _, client = boot(**{"daemon.procs": 1})
    (waiting,) = client.submit("asyncio:sleep", (60.0,))
    (running,) = client.submit("time:sleep", (1.0,))
    client.until(lambda: {waiting, running} <= client.running)
    client.send(protocol.Cancel([waiting, running]))
    assert client.outcomes([waiting])[0][0] is Outcome.CANCELLED
    client.until(lambda: running in client.kept)
    assert client.outcomes([running])[0][0] is Outcome.OK


def test_a_generator_sends_no_more_than_there_is_room_for(boot: Boot) -> None:
    """Back-pressure: two items, then as many as are pulled."""
    _, client = boot()
    (job,) = client.submit("jobs_for_tests:count_to", (10,), options={"stream": 2})
    client.until(lambda: len(client.items.get(job, [])) == 2)
    client.send(protocol.Pull(job, 3))
    client.until(lambda: len(client.items[job]) == 5)
    client.send(protocol.Pull(job, 100))
    assert client.outcomes([job])[0][0] is Outcome.OK
    assert client.items[job] == list(range(10))


def test_a_client_with_many_jobs_does_not_delay_another(boot: Boot) -> None:
    """Thirty thousand jobs wait; another client's single one is done long before they are."""
    daemon, flood = boot()
    flooded = flood.submit("math:sqrt", *[(4.0,)] * 30_000)
    other = RawClient(daemon.endpoint)
    try:
        other.outcomes(other.submit("math:sqrt", (9.0,)))
        assert other.call("status")["jobs"]["finished"]["ok"] < 30_000
    finally:
        other.close()
    flood.outcomes(flooded)


def test_a_full_queue_refuses_with_room_and_a_time(boot: Boot) -> None:
    """Nothing is dropped silently: each refused job has its outcome."""
    _, client = boot(**{"limits.queue_jobs": 50})
    sleepers = client.submit("time:sleep", *[(0.2,)] * 50)
    (refused,) = client.outcomes(client.submit("math:sqrt", (4.0,)))
    assert refused[0] is Outcome.REJECTED
    assert refused[2]["retry_after"] > 0
    assert "limits.queue_jobs" in refused[2]["text"]
    assert {o for o, _, _ in client.outcomes(sleepers)} == {Outcome.OK}


def test_procs_grow_and_shrink_without_losing_or_repeating(boot: Boot, tmp_path: Path) -> None:
    """Every job runs exactly once while Ps come and go."""
    _, client = boot()
    record = str(tmp_path / "ran")
    names = [f"job{i}" for i in range(2_000)]
    jobs = client.submit("jobs_for_tests:note", *[(record, name) for name in names])
    for n in (4, 1, 3, 2):
        client.call("procs", n=n)
    assert {o for o, _, _ in client.outcomes(jobs)} == {Outcome.OK}
    assert sorted(Path(record).read_text().split()) == sorted(names)
    client.until(lambda: len(client.call("status")["ps"]) == 2)


def test_another_version_is_told_both(boot: Boot) -> None:
    """And nothing else happens."""
    daemon, client = boot()
    hello = protocol.Hello(protocol.MAGIC, 90, 99, "client", b"s" * 16, protocol.Info())
    stranger = RawClient(daemon.endpoint, hello=hello)
    try:
        assert isinstance(stranger.greeted, protocol.Refused)
        assert "90 to 99" in stranger.greeted.reason
        assert str(protocol.VERSION) in stranger.greeted.reason
    finally:
        stranger.close()
    assert client.call("status")["dropped"]["version"] == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01" + b"\0" * 60,
        os.urandom(300),
        b"\xff\0",
    ],
    ids=["http", "tls", "random", "half"],
)
def test_strangers_on_the_sockets_change_nothing(boot: Boot, data: bytes) -> None:
    """Raw bytes on either socket: no message arrives, the daemon serves on."""
    daemon, client = boot()
    for name in ("client", "worker"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(daemon.directory / f"{name}.sock"))
            stranger.sendall(data)
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][1] == 2.0


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xc1", b"\x93\x06\x01", b"\xdd\xff\xff\xff\xff", protocol.pack(protocol.Stop(True))],
)
def test_garbage_messages_cost_a_counter(boot: Boot, frame: bytes) -> None:
    """From a client that knows the handshake."""
    _, client = boot()
    client.link.send([frame])
    answer = client.receive()
    assert isinstance(answer, protocol.Refused)
    assert client.call("status")["dropped"]["bad_client_message"] == 1


def test_a_stranger_cannot_be_a_worker(boot: Boot) -> None:
    """Without the secret of the spawned process the Hello is dropped and counted."""
    daemon, client = boot()
    info = {"p": 0, "epoch": 1, "pid": os.getpid(), "secret": b"x" * 32}
    link = Dealer(client.network, f"ipc://{daemon.directory}/worker.sock")
    link.send([protocol.pack(protocol.hello("worker", b"", info))])
    client.until(lambda: client.call("status")["dropped"].get("bad_worker_message") == 1)
    link.close()
    client.until(lambda: all(each["up"] for each in client.call("status")["ps"]))
    assert [each["epoch"] for each in client.call("status")["ps"]] == [1, 1]
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][1] == 2.0


def test_a_client_that_vanishes_leaves_no_jobs(boot: Boot) -> None:
    """After the grace its queued jobs are dropped, its coroutines cancelled."""
    daemon, client = boot(**{"limits.client_grace": 0.2})
    other = RawClient(daemon.endpoint)
    other.submit("asyncio:sleep", *[(60.0,)] * 50)
    client.until(lambda: client.call("status")["queue"]["unfinished"] == 50)
    other.close()
    client.until(lambda: client.call("status")["queue"]["unfinished"] == 0)
    client.until(lambda: client.call("status")["sessions"] == 1)
    assert client.call("status")["jobs"]["finished"] == {"cancelled": 50}


def test_no_vanished_client_is_overlooked(boot: Boot) -> None:
    """The jobs of each end, at whatever moment libzmq learns of its end."""
    daemon, client = boot(**{"limits.client_grace": 0.05})
    for _ in range(25):
        other = RawClient(daemon.endpoint)
        other.submit("asyncio:sleep", (60.0,))
        other.until(lambda: client.call("status")["queue"]["unfinished"] == 1)
        other.submit("asyncio:sleep", (60.0,), (60.0,))
        other.close()
        client.until(lambda: client.call("status")["queue"]["unfinished"] == 0)
    client.until(lambda: client.call("status")["sessions"] == 1)


def test_term_drains_and_a_second_one_stops_now(boot: Boot) -> None:
    """The first lets the running job end, takes no new one; the second does not wait."""
    daemon, client = boot()
    running = client.submit("time:sleep", (0.5,))
    client.until(lambda: running[0] in client.running)
    daemon.process.send_signal(signal.SIGTERM)
    client.until(lambda: client.call("status")["state"] == "draining")
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][0] is Outcome.REJECTED
    assert client.outcomes(running)[0][0] is Outcome.OK
    client.until(lambda: client.gone)
    assert daemon.process.wait(DEADLINE_S) == 0


def test_a_second_term_stops_at_once(boot: Boot) -> None:
    """A job that would take a minute does not keep the daemon."""
    daemon, client = boot()
    running = client.submit("time:sleep", (60.0,))
    client.until(lambda: running[0] in client.running)
    daemon.process.send_signal(signal.SIGTERM)
    client.until(lambda: client.call("status")["state"] == "draining")
    daemon.process.send_signal(signal.SIGTERM)
    client.until(lambda: client.gone)
    assert daemon.process.wait(DEADLINE_S) == 0


@pytest.mark.kills_daemon
def test_workers_end_when_their_coordinator_is_killed(boot: Boot) -> None:
    """Also those in the middle of a blocking call."""
    daemon, client = boot()
    client.submit("time:sleep", (60.0,), (60.0,))
    client.until(lambda: len(client.running) == 2)
    pids = [each["pid"] for each in client.call("status")["ps"]]
    daemon.process.kill()
    daemon.process.wait()
    end = time.monotonic() + DEADLINE_S
    while any(Path(f"/proc/{pid}/stat").exists() for pid in pids):
        assert time.monotonic() < end
        asyncio.run(asyncio.sleep(0.01))


def test_a_second_daemon_on_the_directory_is_refused(boot: Boot, short_tmp: Path) -> None:
    """And names the first."""
    daemon, client = boot()
    with pytest.raises(RuntimeError, match=str(daemon.process.pid)):
        RawDaemon(short_tmp)
    assert client.call("ping")["unfinished"] == 0
