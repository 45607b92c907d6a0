"""Initializers of pools with hosts: they run in the workers there, or an error says why not."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import ConfigError, GmpdError
from tests import jobs_hosts as jobs
from tests.hosts_of_tests import ENGINE, ROOT, Hosts, await_hosts, rows
from tests.integration.test_by_value import run
from tests.support import wait_until

HANG_S = 30.0


@pytest.fixture
def hosts(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """As in the settings of a user: every pool uses them."""
    made = Hosts(short_tmp)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("GMPD_CLUSTER__ENGINE", ENGINE)
    monkeypatch.setenv("GMPD_CLUSTER__ADDRESS", str(short_tmp))
    yield made
    made.close()


def problem_of(pool: gmpd.Executor, name: str) -> str:
    """Why a host takes no work, once it was refused."""

    def known() -> str:
        return str(rows(pool._client).get(name, {}).get("problem", ""))

    return wait_until(known, f"{name} is refused")


def test_it_runs_on_hosts_and_one_where_it_fails_costs_no_job(hosts: Hosts) -> None:
    hosts.start("north")
    hosts.start("south")
    with gmpd.Executor(
        1, initializer=jobs.initialize, initargs=("south",), env={"OF_THE_POOL": "yes"}
    ) as pool:
        futures = [pool.submit(jobs.look, 0.01) for _ in range(100)]
        problem = problem_of(pool, "south")
        assert "initializer failed: OSError: no data for south here" in problem
        await_hosts(pool._client, "north")
        futures += [pool.submit(jobs.look, 0.01) for _ in range(200)]
        seen = {future.result(HANG_S) for future in futures}
    assert seen == {("south", place, place, "yes") for place in ("", "north")}


def test_an_initializer_of_a_script_shares_its_globals_there(hosts: Hosts, tmp_path: Path) -> None:
    hosts.start("north")
    lines = run(
        tmp_path,
        f"""
        import os, time, gmpd

        state = None

        def init(value):
            global state
            state = value

        def look(n):
            time.sleep(0.01)
            return state, os.environ.get({jobs.NAME!r}, "here")

        if __name__ == "__main__":
            with gmpd.Pool(1, init, (7,)) as pool:
                found, until = set(), time.time() + 40
                while len(found) < 2 and time.time() < until:
                    found |= set(pool.map(look, range(40), chunksize=1))
                print(sorted(found))
        """,
    )
    assert lines == ["[(7, 'here'), (7, 'north')]"]


def test_an_object_of_this_machine_is_refused_with_both_named(hosts: Hosts) -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(ConfigError, match=rf"has a Lock .*cluster\.engine = '{re.escape(ENGINE)}'"):
        gmpd.Executor(1, initializer=jobs.initialize, initargs=(lock,))


def test_a_pool_with_such_an_object_takes_no_hosts_later(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GMPD_CLUSTER__ENGINE")
    lock = multiprocessing.get_context("fork").Lock()
    with gmpd.Executor(1, initializer=jobs.initialize, initargs=(lock,)) as pool:
        with pytest.raises(GmpdError, match="has a Lock of multiprocessing"):
            pool._client.call("cluster_up", engine=ENGINE, address=str(hosts.directory))
        assert pool.submit(abs, -1).result(HANG_S) == 1


def test_arguments_that_the_engine_does_not_take_refuse_its_hosts(hosts: Hosts) -> None:
    hosts.start("north")
    with gmpd.Executor(1, initializer=jobs.initialize, initargs=(bytes(300_000),)) as pool:
        problem = problem_of(pool, "north")
        assert "the engine takes 200000: write them to a file" in problem
        assert pool.submit(jobs.where).result(HANG_S) == ""
