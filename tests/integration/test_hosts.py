"""Hosts with daemons of their own, by an engine without a library: the same results as here, and
what a host that dies, stops, is cut off, leaves or does not fit costs."""

from __future__ import annotations

import os
import platform
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import JobTimeout, Unserializable, WorkerLost
from tests import jobs_hosts as jobs
from tests.hosts_of_tests import (
    Hosts,
    await_hosts,
    begun_at,
    daemon,
    daemon_and_host,
    host_of,
    rows,
)
from tests.support import go_on, stop, wait_until

HANG_S = 30.0


@pytest.fixture
def hosts(short_tmp: Path) -> Iterator[Hosts]:
    made = Hosts(short_tmp)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[gmpd.Client]:
    """The same for all tests that leave their hosts alone: to start them takes seconds."""
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as place:
        made = Hosts(Path(place))
        made.start("north")
        made.start("south")
        with daemon(made.directory, lease="10s") as target, gmpd.Client(target=target) as client:
            await_hosts(client, "north", "south")
            yield client
        made.close()


@pytest.fixture
def client(hosts: Hosts) -> Iterator[gmpd.Client]:
    """One P here, and two hosts with two cores each."""
    hosts.start("north")
    hosts.start("south")
    with daemon(hosts.directory) as target, gmpd.Client(target=target) as made:
        await_hosts(made, "north", "south")
        yield made


def test_results_are_those_of_this_machine(shared: gmpd.Client) -> None:
    n = 20_000
    futures = [shared.submit(jobs.mixed, i) for i in range(n)]
    for i, future in enumerate(futures):
        if not i % 89:
            assert str(future.exception(HANG_S)).startswith(str(i))
        else:
            assert future.result(HANG_S) == jobs.mixed(i)
    finished = {name: row["jobs_finished"] for name, row in rows(shared).items()}
    assert all(0 < row["batches"] < row["jobs_finished"] for row in rows(shared).values())
    assert all(row["batches_away"] in (0, 1, 2) for row in rows(shared).values())
    assert min(finished.values()) > n / 20, finished
    assert shared.call("status")["dropped"] == {}


def test_work_is_shared_by_cores(shared: gmpd.Client) -> None:
    list(shared.map(jobs.where, [0.01] * 100, chunksize=1))
    places = Counter(shared.map(jobs.where, [0.01] * 500, chunksize=1))
    assert set(places) == {"", "north", "south"}
    assert min(places["north"], places["south"]) > 10


def test_coroutines_closures_and_streams_go_there(shared: gmpd.Client) -> None:
    assert sorted(shared.map(jobs.waits, range(500), chunksize=1)) == list(range(500))
    base = 7
    assert list(shared.map(lambda x: x + base, range(300), chunksize=1)) == [
        x + 7 for x in range(300)
    ]
    shared.submit(time.sleep, 1.0)
    values = list(shared.stream(jobs.counts, 500))
    assert [i for i, _ in values] == list(range(500))
    assert len({place for _, place in values}) == 1


def test_children_stay_with_their_parent(shared: gmpd.Client) -> None:
    for places in shared.map(jobs.parent, [20] * 12, chunksize=1):
        assert len(set(places)) == 1, places


def test_large_values_go_there_and_back(shared: gmpd.Client) -> None:
    futures = [shared.submit(jobs.nbytes, bytes(150_000)) for _ in range(20)]
    assert {future.result(HANG_S)[0] for future in futures} == {150_000}


def test_a_job_that_is_too_large_for_the_engine_names_the_host(shared: gmpd.Client) -> None:
    shared.submit(time.sleep, 1.0)
    future = shared.submit(jobs.nbytes, bytes(300_000))
    error = future.exception(HANG_S)
    assert isinstance(error, Unserializable)
    assert re.search(r"takes 200000 to host (north|south)", str(error))


def test_errors_and_limits_name_the_host(shared: gmpd.Client) -> None:
    shared.submit(time.sleep, 1.5)
    failed = shared.submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal") as caught:
        failed.result(HANG_S)
    assert any(" on host " in note for note in caught.value.__notes__)
    late = shared.options(timeout=0.3).submit(time.sleep, 60)
    with pytest.raises(JobTimeout):
        late.result(HANG_S)


def test_progress_comes_from_there(shared: gmpd.Client) -> None:
    shared.submit(time.sleep, 2.0)
    future = shared.submit(jobs.tells)
    told = wait_until(lambda: future.progress, "progress")
    assert told is not None
    assert told.note in ("north", "south")
    assert future.result(HANG_S) == told.note


def test_a_job_that_waits_there_can_be_cancelled(shared: gmpd.Client) -> None:
    shared.submit(time.sleep, 1.0)
    futures = [shared.submit(gmpd.sleep, 60) for _ in range(3)]
    wait_until(lambda: sum(row["started"] for row in rows(shared).values()), "some have begun")
    for future in futures:
        future.cancel()
    wait_until(lambda: all(future.done() for future in futures), "they are cancelled")


# ------------------------------------------------------------------------------ hosts come and go


def test_a_worker_that_dies_there_loses_its_job(client: gmpd.Client) -> None:
    client.submit(time.sleep, 1.0)
    future = client.submit(jobs.dies)
    with pytest.raises(WorkerLost, match=r"SIGKILL.*host (north|south)"):
        future.result(HANG_S)
    assert client.submit(jobs.where).result(HANG_S) is not None


def test_a_host_that_joins_gets_work_soon(hosts: Hosts) -> None:
    with daemon(hosts.directory) as target, gmpd.Client(target=target) as client:
        assert client.submit(jobs.where).result(HANG_S) == ""
        hosts.start("late")
        await_hosts(client, "late")
        places = set(client.map(jobs.where, [0.02] * 100, chunksize=1))
        assert "late" in places


def test_a_host_that_is_killed_costs_what_it_had_begun(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    future = begun_at(client, tmp_path / "one")
    others = [client.submit(jobs.where, 0.005) for _ in range(600)]
    name = host_of(tmp_path / "one")
    hosts.kill(name)
    with pytest.raises(WorkerLost, match=f"host {name} was lost"):
        future.result(HANG_S)
    lost = 0
    for other in others:
        try:
            other.result(HANG_S)
        except WorkerLost as error:
            assert f"host {name}" in str(error)  # noqa: PT017
            lost += 1
    assert lost < len(others)
    wait_until(lambda: rows(client)[name]["state"] == "lost", "the host is shown as lost")
    row = rows(client)[name]
    assert (row["losses"], row["lost_jobs"]) == (1, lost + 1)
    assert row["loss"] == row["problem"]
    assert client.submit(jobs.where).result(HANG_S) != name
    hosts.start(name)
    await_hosts(client, name)
    assert rows(client)[name]["losses"] == 1


def test_what_was_lost_is_tried_again_if_it_may_be(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    future = begun_at(client, tmp_path / "one", retries=1)
    name = host_of(tmp_path / "one")
    hosts.kill(name)
    assert future.result(HANG_S) != name
    assert len((tmp_path / "one").read_text().splitlines()) == 2


def test_a_host_that_was_cut_off_has_ended_its_jobs_before_they_begin_elsewhere(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    future = begun_at(client, tmp_path / "one", retries=1)
    name = host_of(tmp_path / "one")
    hosts.cut(name)
    assert future.result(HANG_S) != name
    assert not _children_of(hosts.processes[name].pid), "its daemon has ended"
    hosts.join(name)
    await_hosts(client, name)
    list(client.map(jobs.where, [0.01] * 100, chunksize=1))


def _children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_host_that_stops_for_a_moment_goes_on(client: gmpd.Client, hosts: Hosts) -> None:
    futures = [client.submit(jobs.where, 0.005) for _ in range(400)]
    pid = hosts.processes["north"].pid
    stop(pid)
    time.sleep(0.3)
    go_on(pid)
    assert {future.result(HANG_S) for future in futures} >= {"north"}


def test_a_host_that_stops_for_good_is_lost(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    future = begun_at(client, tmp_path / "one")
    name = host_of(tmp_path / "one")
    stop(hosts.processes[name].pid)
    with pytest.raises(WorkerLost, match=f"host {name} was lost"):
        future.result(HANG_S)
    go_on(hosts.processes[name].pid)


def test_a_host_whose_agent_alone_stands_still_has_ended_its_jobs_before_they_begin_elsewhere(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    """As by Ctrl-Z where a user has started it: its daemon runs on."""
    future = begun_at(client, tmp_path / "one", retries=1)
    name = host_of(tmp_path / "one")
    agent = hosts.processes[name].pid
    (its_daemon,) = map(int, _children_of(agent))
    workers = _children_of(its_daemon)
    assert workers
    stop(agent)
    assert future.result(HANG_S) != name
    assert not [pid for pid in workers if Path(f"/proc/{pid}/exe").exists()]
    go_on(agent)
    await_hosts(client, name)
    assert len((tmp_path / "one").read_text().splitlines()) == 2


def test_a_host_whose_daemon_stands_still_is_lost(hosts: Hosts, tmp_path: Path) -> None:
    hosts.start("north")
    with (
        daemon(hosts.directory, client__liveness="2s") as target,
        gmpd.Client(target=target) as client,
    ):
        await_hosts(client, "north")
        future = begun_at(client, tmp_path / "one")
        (its_daemon,) = map(int, _children_of(hosts.processes["north"].pid))
        stop(its_daemon)
        with pytest.raises(WorkerLost, match="host north was lost"):
            future.result(HANG_S)
        await_hosts(client, "north")


def test_a_host_that_leaves_ends_its_jobs(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    client.submit(time.sleep, 1.5)
    future = client.submit(jobs.note, str(tmp_path / "one"), "begun", 1.5)
    wait_until(lambda: (tmp_path / "one").exists() and (tmp_path / "one").read_text(), "it began")
    name = host_of(tmp_path / "one")
    hosts.leave(name)
    assert future.result(HANG_S) == name
    wait_until(lambda: rows(client)[name]["p"] is None, "its bridge has ended")
    assert name not in set(client.map(jobs.where, [0.01] * 60, chunksize=1))


def test_a_host_whose_engine_ends_it_gives_back_what_has_not_begun_there(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    """No job has retries: none is lost, and none begins twice."""
    path = tmp_path / "ran"
    path.touch()
    futures = [client.submit(jobs.note, str(path), str(i), 0.4) for i in range(40)]
    wait_until(lambda: rows(client)["north"]["started"] > 2, "more were sent than cores")
    process = hosts.processes["north"]
    process.terminate()
    places = Counter(future.result(HANG_S) for future in futures)
    assert process.wait(HANG_S) == 0
    runs = Counter(line.split()[0] for line in path.read_text().splitlines())
    assert runs == dict.fromkeys(map(str, range(40)), 1)
    assert 0 < places["north"] < 10, places
    wait_until(lambda: "north" not in rows(client), "it has left")


def test_a_job_that_does_not_end_in_time_is_lost_with_the_host_that_leaves(
    hosts: Hosts, tmp_path: Path
) -> None:
    hosts.start("north")
    with (
        daemon(hosts.directory, cluster__drain="1s") as target,
        gmpd.Client(target=target) as client,
    ):
        await_hosts(client, "north")
        future = begun_at(client, tmp_path / "one", retries=1)
        hosts.processes["north"].terminate()
        assert future.result(HANG_S) == ""
        assert hosts.processes["north"].wait(HANG_S) == 0
        row = wait_until(lambda: rows(client).get("north"), "it is shown")
        assert row is not None
        assert (row["losses"], row["lost_jobs"]) == (1, 1)


def test_a_killed_bridge_is_a_lost_host_once_nothing_runs_there_and_another_follows(
    client: gmpd.Client, tmp_path: Path
) -> None:
    """The old attempt says when it runs, and the new one begins after its last word."""
    path = tmp_path / "beats"
    path.touch()
    futures = [client.options(retries=1).submit(jobs.beats, str(path), i) for i in range(8)]
    name = wait_until(lambda: jobs.beating(path) - {""}, "one runs on a host").pop()
    os.kill(rows(client)[name]["pid"], signal.SIGKILL)
    wait_until(lambda: rows(client)[name]["state"] == "lost", "it is lost")
    row = rows(client)[name]
    assert "waiting for the end of its lease until" in row["problem"]
    assert row["started"] > 0, "its attempts are still its own"
    assert row["losses"] == 0
    wait_until(lambda: jobs.attempts(path) > len(futures), "they begin again")
    await_hosts(client, name)
    (tmp_path / "beats.end").touch()
    for future in futures:
        future.result(HANG_S)
    assert not jobs.overlapping(path)
    assert rows(client)[name]["losses"] == 1


def test_nothing_is_lost_or_repeated_while_hosts_come_and_go(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    path = tmp_path / "ran"
    path.touch()
    n = 3000
    futures = [client.submit(jobs.note, str(path), str(i)) for i in range(n)]
    wait_until(lambda: sum(future.done() for future in futures) > n / 10, "some have ended")
    hosts.kill("north")
    ended = Counter[str]()
    for future in futures:
        try:
            future.result(HANG_S)
            ended["ok"] += 1
        except WorkerLost:
            ended["lost"] += 1
    assert ended["ok"] + ended["lost"] == n
    runs = Counter(line.split()[0] for line in path.read_text().splitlines())
    assert max(runs.values()) == 1, "without retries nothing runs twice"
    assert len(runs) >= ended["ok"]


def test_an_engine_that_repeats_and_loses_exchanges_changes_nothing(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    (hosts.directory / "unreliable").touch()
    path = tmp_path / "ran"
    path.touch()
    futures = [client.submit(jobs.note, str(path), str(i), 0.002) for i in range(2000)]
    for future in futures:
        future.result(HANG_S)
    runs = Counter(line.split()[0] for line in path.read_text().splitlines())
    assert len(runs) == 2000
    assert set(runs.values()) == {1}
    places = Counter(line.split()[-1] for line in path.read_text().splitlines())
    assert places["north"] + places["south"] > 50, places


# -------------------------------------------------------------------------------- what is wrong


def test_a_host_with_other_versions_is_refused_with_both_named(
    hosts: Hosts, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import gmpd.versions as v\nv.python = lambda: '3.99.1'\n"
    )
    root = Path(__file__).parents[2]
    hosts.start("odd", PYTHONPATH=f"{tmp_path}:{root}")
    with daemon(hosts.directory) as target, gmpd.Client(target=target) as client:
        problem = wait_until(
            lambda: rows(client).get("odd", {}).get("problem"), "the host was refused"
        )
        assert "3.99.1" in str(problem)
        assert platform.python_version() in str(problem)
        assert client.submit(jobs.where).result(HANG_S) == ""


def test_an_engine_that_nobody_answers_for_leaves_this_machine_working(short_tmp: Path) -> None:
    with daemon(short_tmp / "none") as target, gmpd.Client(target=target) as client:
        assert client.submit(jobs.where).result(HANG_S) == ""
        problem = wait_until(lambda: client.call("cluster")["problem"], "the engine is missed")
        assert "nothing answers" in problem


@pytest.mark.parametrize(
    ("engine", "words"),
    [("nothing_here:Engine", "is no engine"), ("tests.jobs_hosts:Missing", "is no engine")],
)
def test_an_unknown_engine_is_named(short_tmp: Path, engine: str, words: str) -> None:
    with (
        daemon(short_tmp, cluster__engine=engine) as target,
        gmpd.Client(target=target) as client,
    ):
        problem = wait_until(lambda: client.call("cluster")["problem"], "the engine is missed")
        assert words in problem
        assert client.submit(jobs.where).result(HANG_S) == ""


def test_hosts_are_taken_and_given_up_while_the_daemon_runs(hosts: Hosts) -> None:
    hosts.start("north")
    with (
        daemon(hosts.directory, cluster__engine="") as target,
        gmpd.Client(target=target) as client,
    ):
        assert client.call("cluster")["engine"] == ""
        client.call("cluster_up", engine="tests.loopback_engine:LoopbackEngine",
                    address=str(hosts.directory))  # fmt: skip
        await_hosts(client, "north")
        assert "north" in set(client.map(jobs.where, [0.02] * 60, chunksize=1))
        with pytest.raises(gmpd.errors.GmpdError, match="cluster down"):
            client.call("cluster_up", engine="dask", address="tcp://elsewhere:1")
        assert client.call("cluster_down") == {"hosts": 1}
        wait_until(lambda: not rows(client), "the host is gone")
        assert set(client.map(jobs.where, [0.02] * 20, chunksize=1)) == {""}


def test_no_daemon_is_left_of_a_program_that_is_done(hosts: Hosts) -> None:
    process = hosts.start("north")
    with daemon(hosts.directory) as target, gmpd.Client(target=target) as client:
        await_hosts(client, "north")
        assert _children_of(process.pid)
    wait_until(lambda: not _children_of(process.pid), "the host's daemon has ended")
    assert process.poll() is None


def test_durable_jobs_continue_when_a_host_is_lost(short_tmp: Path, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    path.touch()
    with daemon_and_host(short_tmp, "2s") as (server, hosts):
        client = server.client()
        ids = [client.enqueue(jobs.note, str(path), str(i), 0.05) for i in range(120)]
        wait_until(lambda: " north" in path.read_text(), "some have run on the host")
        hosts.kill("north")
        for each in ids:
            client.job(each).result(60)
    runs = Counter(line.split()[0] for line in path.read_text().splitlines())
    assert len(runs) == 120
    assert max(runs.values()) <= 2, "a job that was lost with its host runs again, no other one"


def test_a_durable_job_of_a_killed_daemon_begins_again_when_nothing_runs_on_its_host(
    short_tmp: Path, tmp_path: Path
) -> None:
    path = tmp_path / "beats"
    path.touch()
    with daemon_and_host(short_tmp, "15s", cores=4) as (server, _):
        client = server.client()
        ids = [client.enqueue(jobs.beats, str(path), i) for i in range(6)]
        wait_until(lambda: jobs.attempts(path) == len(ids), "all have begun")
        wait_until(lambda: "north" in jobs.beating(path), "some on the host")
        stop(rows(client)["north"]["pid"])  # else it might tell the host before it is killed, too
        server.kill()
        server.start()
        client = server.client()
        wait_until(lambda: jobs.attempts(path) == 2 * len(ids), "they begin again", timeout=90)
        (tmp_path / "beats.end").touch()
        for each in ids:
            client.job(each).result(60)
        assert not jobs.overlapping(path)
    assert not (short_tmp / "state" / "hosts").exists()
