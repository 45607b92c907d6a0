"""Isolated jobs on real daemons: nothing leaks, everything can be ended, the pool never notices."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest

import gmpd
from gmpd import protocol
from gmpd.errors import JobTimeout, WorkerLost
from gmpd.protocol import Outcome
from tests import jobs_isolated as jobs
from tests.rawclient import DEADLINE_S, Boot, RawClient
from tests.support import wait_until

#: Workers import it as the client does: tests/ is on their path, as a top-level module.
JOBS = "jobs_isolated"
ISOLATE = {"isolate": True}


def run(client: RawClient, name: str, *args: Any, **options: Any) -> Any:
    """The value of one job."""
    (done,) = client.outcomes(client.submit(f"{JOBS}:{name}", args, options=options or None))
    assert done[0] is Outcome.OK, done
    return done[1]


def begin(client: RawClient, name: str, *args: Any, **options: Any) -> int:
    """Submit one isolated job, and wait until it has its worker."""
    before = running(client)
    (seq,) = client.submit(f"{JOBS}:{name}", args, options={**ISOLATE, **options})
    client.until(lambda: running(client) == before + 1)
    return seq


def isolated(client: RawClient) -> dict[str, Any]:
    found: dict[str, Any] = client.call("status")["isolated"]
    return found


def running(client: RawClient) -> int:
    return int(isolated(client)["states"]["running"])


def pids_of(client: RawClient, state: str) -> list[int]:
    return [each["pid"] for each in isolated(client)["workers"] if each["state"] == state]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def pool(client: RawClient) -> list[tuple[int, int, dict[str, int]]]:
    """The epochs, pids and restarts of the Ps' workers: an isolated job changes none."""
    client.until(lambda: all(each["up"] for each in client.call("status")["ps"]))
    return [(each["epoch"], each["pid"], each["restarts"]) for each in client.call("status")["ps"]]


@pytest.fixture
def traces(tmp_path: Path) -> str:
    """A directory with a library that no process has loaded."""
    source = msgpack._cmsgpack.__file__
    shutil.copy(source, tmp_path / jobs.LIBRARY)
    return str(tmp_path)


# -- nothing leaks -------------------------------------------------------------------------------


def test_what_a_job_leaves_no_other_finds(boot: Boot, traces: str) -> None:
    """Neither an ordinary job, nor an isolated one after it; and its process is gone."""
    _, client = boot()
    everything = {*run(client, "look", traces, **ISOLATE)}
    assert everything == set()
    pid = run(client, "leave", traces, **ISOLATE)
    looks = client.submit(f"{JOBS}:look", *[(traces,)] * 40)
    assert [value for _, value, _ in client.outcomes(looks)] == [{}] * 40
    assert run(client, "look", traces, **ISOLATE) == {}
    wait_until(lambda: not alive(pid), "the worker of the job has ended")


def test_a_job_finds_nothing_that_others_left(boot: Boot, traces: str) -> None:
    """The same functions in the Ps' workers do find it, so the test would see a leak."""
    _, client = boot(**{"daemon.procs": 1})
    run(client, "leave", traces)
    assert set(run(client, "look", traces)) == {
        "cwd", "environ", "signal", "umask", "module", "library", "thread", "file"
    }  # fmt: skip
    for _ in range(3):
        assert run(client, "look", traces, **ISOLATE) == {}


def test_each_job_has_a_process_of_its_own(boot: Boot) -> None:
    _, client = boot()
    before = pool(client)
    done = client.outcomes(client.submit(f"{JOBS}:pid_of", *[(0,)] * 7, options=ISOLATE))
    pids = {value for _, value, _ in done}
    assert len(pids) == 7
    assert not pids & {pid for _, pid, _ in before}
    assert pool(client) == before
    wait_until(lambda: not any(map(alive, pids)), "all of them have ended")


def test_what_a_job_printed_is_not_lost(boot: Boot, tmp_path: Path) -> None:
    """Its process ends by itself, after its buffers."""
    _, client = boot()
    path = tmp_path / "out"
    run(client, "print_to", str(path), **ISOLATE)
    wait_until(lambda: path.read_text() == "last words\n", "the words have come out")


def test_processes_that_a_job_started_end_with_it(boot: Boot) -> None:
    _, client = boot()
    child = run(client, "start_a_child", **ISOLATE)
    wait_until(lambda: not alive(child), "its child has ended")


def test_imports_of_the_daemon_are_there_too(boot: Boot) -> None:
    _, client = boot(**{"daemon.imports": ("colorsys",)})
    assert run(client, "modules", "colorsys", "wave", **ISOLATE) == [True, False]


# -- beside the others ---------------------------------------------------------------------------


def test_no_more_run_at_once_than_may(boot: Boot) -> None:
    _, client = boot(**{"limits.isolated": 2})
    done = client.outcomes(client.submit(f"{JOBS}:span", *[(0.3,)] * 6, options=ISOLATE))
    spans = [value for _, value, _ in done]
    assert len({pid for pid, _, _ in spans}) == 6
    together = [sum(b <= began < e for _, b, e in spans) for _, began, _ in spans]
    assert max(together) <= 2


def test_ordinary_jobs_do_not_wait_for_isolated_ones(boot: Boot) -> None:
    """One P, its place for isolated jobs taken, many more waiting."""
    _, client = boot(**{"daemon.procs": 1})
    first = begin(client, "loop_for_ever")
    waiting = client.submit(f"{JOBS}:loop_for_ever", *[()] * 20, options=ISOLATE)
    done = client.outcomes(client.submit("math:sqrt", *[(4.0,)] * 100))
    assert {value for _, value, _ in done} == {2.0}
    assert first not in client.done
    client.send(protocol.Cancel([first, *waiting]))
    assert {o for o, _, _ in client.outcomes([first, *waiting])} == {Outcome.CANCELLED}


def test_another_client_has_its_turn(boot: Boot) -> None:
    """A hundred isolated jobs of one do not delay another's one by all of them."""
    daemon, flood = boot(**{"limits.isolated": 1})
    flooded = flood.submit(f"{JOBS}:pid_of", *[(0,)] * 100, options=ISOLATE)
    other = RawClient(daemon.endpoint)
    try:
        run(other, "pid_of", 0, **ISOLATE)
        assert isolated(other)["queued"] > 50
    finally:
        other.close()
    flood.send(protocol.Cancel(flooded))
    flood.outcomes(flooded)


def test_procs_may_change_meanwhile(boot: Boot) -> None:
    """Isolated workers are none of the Ps; their limit goes with the number of those."""
    _, client = boot(**{"daemon.procs": 2})
    seqs = [begin(client, "loop_for_ever") for _ in range(2)]
    workers = set(pids_of(client, "running"))
    (third,) = client.submit(f"{JOBS}:loop_for_ever", (), options=ISOLATE)
    client.call("procs", n=1)
    client.until(lambda: len(client.call("status")["ps"]) == 1)
    assert set(pids_of(client, "running")) == workers
    client.call("procs", n=3)
    client.until(lambda: running(client) == 3)
    assert workers < set(pids_of(client, "running"))
    client.send(protocol.Cancel([*seqs, third]))
    assert {o for o, _, _ in client.outcomes([*seqs, third])} == {Outcome.CANCELLED}


# -- ended from outside --------------------------------------------------------------------------

STUBBORN = ["loop_for_ever", "hold_the_gil", "wait_for_ever", "wait_stubbornly"]


@pytest.mark.parametrize("name", STUBBORN)
def test_a_running_job_can_be_cancelled(boot: Boot, name: str) -> None:
    """Its process is killed, whatever it does, and no other worker notices."""
    _, client = boot()
    before = pool(client)
    seq = begin(client, name)
    (pid,) = pids_of(client, "running")
    client.send(protocol.Cancel([seq]))
    assert client.outcomes([seq])[0][0] is Outcome.CANCELLED
    assert not alive(pid)
    assert pool(client) == before
    assert client.call("status")["jobs"]["finished"] == {"cancelled": 1}


@pytest.mark.parametrize("name", STUBBORN)
def test_a_timeout_kills_at_once(boot: Boot, name: str) -> None:
    """Also what sits in C code and holds the interpreter; its outcome comes after its death."""
    _, client = boot()
    before = pool(client)
    began = time.monotonic()
    (seq,) = client.submit(f"{JOBS}:{name}", (), options={**ISOLATE, "timeout": 0.5})
    (late,) = client.outcomes([seq])
    assert late[0] is Outcome.TIMEOUT
    assert 0.5 <= time.monotonic() - began < 15
    assert late[2]["isolated"]
    assert not alive(late[2]["pid"])
    assert pool(client) == before


def test_attempts_never_overlap(boot: Boot, tmp_path: Path) -> None:
    """The next one begins when the process of the last one is dead."""
    _, client = boot()
    path = tmp_path / "pids"
    options = {**ISOLATE, "timeout": 0.8, "retries": 2}
    (seq,) = client.submit(f"{JOBS}:noted_span", (str(path), 60.0), options=options)
    seen = 0
    while seq not in client.done:
        client.receive(0.02)
        pids = path.read_text().split() if path.exists() else []
        if len(pids) > seen:
            seen = len(pids)
            assert not [pid for pid in pids[:-1] if alive(int(pid))]
    assert client.done[seq][0] is Outcome.TIMEOUT
    assert client.done[seq][2]["attempt"] == 3
    assert len(set(path.read_text().split())) == 3


def test_a_thread_that_outlives_its_job_is_ended(boot: Boot) -> None:
    """It even holds the interpreter: its place is free soon all the same."""
    _, client = boot(**{"limits.isolated": 1})
    assert run(client, "hold_after_the_end", **ISOLATE) == "done"
    assert run(client, "pid_of", 0, **ISOLATE)


# -- deaths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "name", "exitcode"),
    [
        ("exit", "", 3),
        ("segv", "SIGSEGV", None),
        ("kill", "SIGKILL", None),
        ("abort", "SIGABRT", None),
    ],
)
def test_a_death_is_the_jobs_own(boot: Boot, how: str, name: str, exitcode: int | None) -> None:
    _, client = boot()
    before = pool(client)
    (lost,) = client.outcomes(client.submit("jobs_for_tests:die", (how,), options=ISOLATE))
    assert lost[0] is Outcome.LOST
    assert (lost[2]["signal"], lost[2]["exitcode"]) == (name, exitcode)
    assert lost[2]["pid"] not in {pid for _, pid, _ in before}
    assert pool(client) == before


def test_many_deaths_are_no_storm(boot: Boot) -> None:
    """Nor do they slow down what comes after: each is its job's fault alone."""
    _, client = boot(**{"restart.storm_deaths": 2, "limits.isolated": 4})
    before = pool(client)
    done = client.outcomes(client.submit("jobs_for_tests:die", *[("kill",)] * 12, options=ISOLATE))
    assert {o for o, _, _ in done} == {Outcome.LOST}
    assert run(client, "pid_of", 0, **ISOLATE)
    assert (client.call("status")["state"], pool(client)) == ("running", before)


def test_a_killed_spare_is_replaced(boot: Boot) -> None:
    _, client = boot()
    run(client, "pid_of", 0, **ISOLATE)
    client.until(lambda: pids_of(client, "spare"))
    (spare,) = pids_of(client, "spare")
    os.kill(spare, signal.SIGKILL)
    client.until(lambda: pids_of(client, "spare") not in ([], [spare]))
    assert run(client, "pid_of", 0, **ISOLATE)


def test_retries_run_a_lost_job_again(boot: Boot, tmp_path: Path) -> None:
    _, client = boot()
    options = {**ISOLATE, "retries": 1}
    (seq,) = client.submit("jobs_for_tests:die_once", (str(tmp_path / "mark"),), options=options)
    assert client.outcomes([seq])[0][:2] == (Outcome.OK, "second")


def test_a_job_that_kills_three_workers_is_given_up(boot: Boot) -> None:
    _, client = boot()
    options = {**ISOLATE, "retries": 20}
    (lost,) = client.outcomes(client.submit("jobs_for_tests:die", ("segv",), options=options))
    assert (lost[0], lost[2]["poisoned"], lost[2]["attempt"]) == (Outcome.LOST, True, 3)


def test_when_no_worker_can_start_the_reason_is_told(
    boot: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that was fine when the Ps' workers started: they continue, no client hangs."""
    (tmp_path / "fragile.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    _, client = boot(**{"daemon.imports": ("fragile",)})
    before = pool(client)
    (tmp_path / "fragile.py").write_text("raise RuntimeError('gone bad meanwhile')")
    (lost, other) = client.outcomes(
        client.submit(f"{JOBS}:pid_of", (0,), (0,), options={**ISOLATE, "retries": 5})
    )
    assert (lost[0], other[0]) == (Outcome.LOST, Outcome.LOST)
    assert "import of fragile failed: RuntimeError: gone bad meanwhile" in lost[2]["text"]
    assert (client.call("status")["state"], pool(client)) == ("running", before)
    (tmp_path / "fragile.py").write_text("good = True")
    assert run(client, "pid_of", 0, **ISOLATE)


def test_without_descriptors_isolated_jobs_are_told_and_the_others_go_on(boot: Boot) -> None:
    """The daemon has none left for one more process; later it has, and nothing has leaked."""
    daemon, client = boot(**{"dispatch.isolated_spares": 0})
    before = pool(client)
    fds = Path(f"/proc/{daemon.process.pid}/fd")
    open_before = len(list(fds.iterdir()))
    limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (_highest(fds) + 2, limits[1]))
    (lost,) = client.outcomes(client.submit(f"{JOBS}:pid_of", (0,), options=ISOLATE))
    assert (lost[0], lost[2]["unstarted"]) == (Outcome.LOST, True)
    assert "Too many open files" in lost[2]["text"]
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][1] == 2.0
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
    assert run(client, "pid_of", 0, **ISOLATE)
    assert pool(client) == before
    client.until(lambda: not isolated(client)["workers"])
    wait_until(lambda: len(list(fds.iterdir())) == open_before, "its descriptors are closed")


def _highest(fds: Path) -> int:
    """The lowest limit that lets a process keep what it has: free numbers below it count too."""
    return max(int(fd.name) for fd in fds.iterdir())


def test_whatever_happens_every_job_ends_once(boot: Boot) -> None:
    """Kills from outside, cancels, timeouts, errors, deaths at once; RawClient counts outcomes."""
    dice = random.Random(7)
    _, client = boot(**{"limits.isolated": 4, "dispatch.isolated_spares": 2})
    before = pool(client)
    kinds: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        (f"{JOBS}:span", (0.05,), {"retries": 2}),
        (f"{JOBS}:pid_later", (), {}),
        (f"{JOBS}:hold_the_gil", (), {"timeout": 0.2}),
        (f"{JOBS}:loop_for_ever", (), {"timeout": 0.1, "retries": 1}),
        ("math:sqrt", (-1.0,), {}),
        ("jobs_for_tests:die", ("segv",), {}),
        (f"{JOBS}:blobs", (3, 10_000), {"stream": 9}),
    ]
    seqs: list[int] = []
    for _ in range(8):
        for name, args, options in dice.sample(kinds, len(kinds)):
            seqs += client.submit(name, args, options={**ISOLATE, **options})
    while not set(seqs) <= client.done.keys():
        workers = isolated(client)["workers"]
        if workers and dice.random() < 0.3:
            _kill_if_there(dice.choice(workers).get("pid"))
        if dice.random() < 0.3:
            client.send(protocol.Cancel(dice.sample(seqs, 2)))
        client.receive(0.02)
    status = client.call("status")
    assert sum(status["jobs"]["finished"].values()) == len(seqs)
    assert status["queue"]["unfinished"] == 0
    assert pool(client) == before
    client.until(lambda: isolated(client)["states"]["spare"] == 2)
    assert run(client, "pid_of", 0, **ISOLATE)


def _kill_if_there(pid: int | None) -> None:
    if pid is not None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


# -- kinds of jobs -------------------------------------------------------------------------------


def test_coroutines_and_errors(boot: Boot) -> None:
    _, client = boot()
    before = pool(client)
    assert run(client, "pid_later", **ISOLATE) not in {pid for _, pid, _ in before}
    (bad,) = client.outcomes(client.submit("math:sqrt", (-1.0,), options=ISOLATE))
    assert (bad[0], bad[1].type) == (Outcome.ERROR, "ValueError")
    assert (bad[2]["isolated"], bad[2]["attempt"]) == (True, 1)


def test_generators_stream_with_back_pressure(boot: Boot) -> None:
    _, client = boot()
    (seq,) = client.submit(f"{JOBS}:pids", (10,), options={**ISOLATE, "stream": 2})
    client.until(lambda: len(client.items.get(seq, [])) == 2)
    client.send(protocol.Pull(seq, 100))
    assert client.outcomes([seq])[0][0] is Outcome.OK
    assert len(client.items[seq]) == 10
    assert len(set(client.items[seq])) == 1


def test_a_plain_function_has_the_main_thread(boot: Boot) -> None:
    """Signal handlers can be set there only; steps of a generator run there as well."""
    _, client = boot()
    assert run(client, "has_main_thread", **ISOLATE) is True
    (seq,) = client.submit(f"{JOBS}:steps_on_main", (5,), options={**ISOLATE, "stream": 9})
    assert client.outcomes([seq])[0][0] is Outcome.OK
    assert client.items[seq] == [True] * 5


def test_what_a_job_may_use_it_may_use_here(boot: Boot) -> None:
    """A loop of its own; children and channels, as any sync job."""
    _, client = boot()
    assert run(client, "own_loop", **ISOLATE)
    assert run(client, "use_go", **ISOLATE) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "error"), [("leave_early", "SystemExit"), ("interrupt", "KeyboardInterrupt")]
)
def test_what_would_end_a_program_is_an_error_of_the_job(boot: Boot, name: str, error: str) -> None:
    _, client = boot()
    (bad,) = client.outcomes(client.submit(f"{JOBS}:{name}", (), options=ISOLATE))
    assert (bad[0], bad[1].type) == (Outcome.ERROR, error)
    assert f"in {name}" in bad[1].traceback


def test_a_fork_inside_a_job_does_not_become_a_second_worker(boot: Boot) -> None:
    """The child's return ends the child, on the main thread too."""
    _, client = boot()
    done = client.outcomes(client.submit("os:fork", *[()] * 3, options=ISOLATE))
    assert all(outcome is Outcome.OK and value > 0 for outcome, value, _ in done)
    wait_until(lambda: not any(alive(value) for _, value, _ in done), "the children have ended")


def test_all_that_a_job_gave_arrives_although_its_process_ends(boot: Boot) -> None:
    """Large results, buffers, the last items of a stream: it ends only when they have come."""
    _, client = boot(**{"limits.isolated": 4})
    for _ in range(5):
        (large,) = client.submit("jobs_for_tests:big", (20_000_000,), options=ISOLATE)
        (beside,) = client.submit(f"{JOBS}:buffers", (5_000_000,), options=ISOLATE)
        (items,) = client.submit(f"{JOBS}:blobs", (6, 300_000), options={**ISOLATE, "stream": 9})
        client.outcomes([large, beside, items])
        assert len(client.done[large][1]) == 20_000_000
        assert len(bytes(client.done[beside][1][0])) == 5_000_000
        assert len(client.items[items]) == 6


def test_a_stream_can_be_cancelled(boot: Boot) -> None:
    _, client = boot()
    (seq,) = client.submit(f"{JOBS}:endless", (), options={**ISOLATE, "stream": 64})
    client.until(lambda: client.items.get(seq))
    client.send(protocol.Cancel([seq]))
    assert client.outcomes([seq])[0][0] is Outcome.CANCELLED
    wait_until(lambda: not alive(client.items[seq][0]), "its worker has ended")


# -- the daemon's end ----------------------------------------------------------------------------


def test_draining_waits_for_isolated_jobs(boot: Boot) -> None:
    """Also for those that wait for a worker; then nothing is left, spares neither."""
    daemon, client = boot(**{"limits.isolated": 1, "dispatch.isolated_spares": 2})
    first = begin(client, "span", 0.5)
    (second,) = client.submit(f"{JOBS}:span", (0.1,), options=ISOLATE)
    client.call("drain")
    assert {o for o, _, _ in client.outcomes([first, second])} == {Outcome.OK}
    client.until(lambda: client.gone)
    assert daemon.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("name", ["loop_for_ever", "hold_the_gil"])
def test_stopping_ends_them(boot: Boot, name: str) -> None:
    daemon, client = boot()
    begin(client, name)
    (pid,) = pids_of(client, "running")
    client.call("stop")
    assert daemon.process.wait(DEADLINE_S) == 0
    assert not alive(pid)


@pytest.mark.kills_daemon
def test_they_end_when_their_coordinator_is_killed(boot: Boot) -> None:
    daemon, client = boot()
    begin(client, "hold_the_gil")
    pids = [each["pid"] for each in isolated(client)["workers"]]
    daemon.process.kill()
    daemon.process.wait()
    wait_until(lambda: not any(map(alive, pids)), "its workers have ended")


def test_a_client_that_vanishes_leaves_no_isolated_job(boot: Boot) -> None:
    """After its grace: queued ones are dropped, the running one is killed."""
    daemon, client = boot(**{"limits.client_grace": 0.2, "limits.isolated": 1})
    other = RawClient(daemon.endpoint)
    begin(other, "hold_the_gil")
    other.submit(f"{JOBS}:loop_for_ever", (), (), options=ISOLATE)
    (pid,) = pids_of(client, "running")
    other.close()
    client.until(lambda: client.call("status")["queue"]["unfinished"] == 0)
    assert not alive(pid)
    assert client.call("status")["jobs"]["finished"] == {"cancelled": 3}
    assert run(client, "pid_of", 0, **ISOLATE)


def test_impossible_options_are_refused(boot: Boot) -> None:
    """A message that names no isolation that there is changes nothing but a counter."""
    _, client = boot()
    client.submit(f"{JOBS}:pid_of", (0,), options={"isolate": "yes"})
    answer = client.receive()
    assert isinstance(answer, protocol.Refused)
    assert "isolate" in answer.reason
    assert client.call("status")["queue"]["unfinished"] == 0


# -- through the clients -------------------------------------------------------------------------


@pytest.fixture
def nobody_runs(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients find no daemon, whatever runs on this machine, and start one of their own."""
    monkeypatch.setenv("GMPD_RUNTIME_DIR", str(short_tmp / "none"))


@gmpd.job(isolate=True, timeout=30)
def own_pid() -> int:
    """Declared once, isolated always."""
    return os.getpid()


@pytest.mark.usefixtures("nobody_runs")
def test_every_face_takes_the_option() -> None:
    with gmpd.Client() as client:
        mine = client.options(isolate=True)
        pooled = {each["pid"] for each in client.call("status")["ps"]}
        one, two = client.submit(own_pid).result(), mine.submit(os.getpid).result()
        many = list(mine.map(jobs.pid_of, range(5)))
        (streamed, again) = mine.stream(jobs.pids, 2)
        assert len({one, two, *many, streamed}) == 2 + 5 + 1, "a worker for each item too"
        assert streamed == again
        assert not pooled & {one, two, *many, streamed}
        chunked = list(mine.map(jobs.pid_of, range(4), chunksize=2))
        assert len(set(chunked)) == 2, "who asks for chunks gets a worker for each"


@pytest.mark.usefixtures("nobody_runs")
def test_futures_can_be_cancelled_while_they_run() -> None:
    with gmpd.Client() as client:
        future = client.options(isolate=True).submit(jobs.loop_for_ever)
        wait_until(future.running, "it runs")
        future.cancel()
        wait_until(future.cancelled, "it is cancelled")


@pytest.mark.usefixtures("nobody_runs")
def test_errors_say_where_it_was() -> None:
    with gmpd.Client() as client:
        with pytest.raises(JobTimeout, match=r"in a worker of its own \(pid \d+\)"):
            client.options(isolate=True, timeout=0.3).submit(jobs.hold_the_gil).result()
        with pytest.raises(WorkerLost, match="_exit") as lost:
            client.options(isolate=True).submit(os._exit, 5).result()
        assert (lost.value.exitcode, lost.value.signal) == (5, "")
        assert lost.value.pid


@pytest.mark.usefixtures("nobody_runs")
def test_the_asyncio_face_takes_it_too() -> None:
    async def main() -> set[int]:
        async with gmpd.AsyncClient() as client:
            mine = client.options(isolate=True)
            return {await mine.submit(jobs.pid_later), await mine.submit(os.getpid)}

    assert len(asyncio.run(main())) == 2


def test_an_executors_initializer_prepares_them_too() -> None:
    """As it does every worker: here it is what makes the daemon's workers what they are."""
    with gmpd.Executor(
        1, initializer=jobs.put_environ, initargs=("ISOLATED_TEST", "prepared")
    ) as pool:
        isolated_look = gmpd.job(isolate=True)(_prepared)
        assert pool.submit(isolated_look).result() == "prepared"


def _prepared() -> str | None:
    return os.environ.get("ISOLATED_TEST")
