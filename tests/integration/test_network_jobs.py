"""Jobs of clients of other machines: registered functions, plain values, owners of jobs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd import codec, protocol
from gmpd.errors import (
    GmpdError,
    NotAllowed,
    NotRegistered,
    RemoteError,
    Unserializable,
)
from gmpd.keys import ClientKey, Role
from gmpd.netpoll import CurveKeys, Dealer, Network
from tests import jobs_network as jobs
from tests.network_daemon import NetworkDaemon
from tests.support import wait_until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkDaemon]:
    with NetworkDaemon(tmp_path_factory.mktemp("n"), "tests.jobs_network") as made:
        yield made.wait_ready()


@pytest.fixture(scope="module")
def alice(daemon: NetworkDaemon) -> ClientKey:
    return daemon.add("alice")


@pytest.fixture
def client(alice: ClientKey) -> Iterator[gmpd.Client]:
    with gmpd.Client(key=alice.text) as made:
        yield made


# -- functions -------------------------------------------------------------------------------------


def test_registered_functions_run(client: gmpd.Client) -> None:
    assert client.submit(jobs.add, 1, b=2).result(60) == 3
    assert client.submit(jobs.nap, 0.01).result(60) == "slept"
    assert list(client.map(jobs.add, range(20), range(20))) == [2 * n for n in range(20)]
    assert list(client.stream(jobs.count, 5)) == [0, 1, 2, 3, 4]
    assert client.options(priority=3).submit(jobs.add, 2, 3).result(60) == 5
    job_id = client.enqueue(jobs.add, 20, 22)
    assert client.job(job_id).result(60) == 42
    assert client.options(durable=True).submit(jobs.add, 1, 1).result(60) == 2
    many = client.enqueue_many(jobs.add, [1, 2], [3, 4])
    assert [client.job(job_id).result(60) for job_id in many] == [4, 6]


def test_an_asyncio_client_runs_them_too(alice: ClientKey) -> None:
    async def main() -> list[object]:
        async with gmpd.AsyncClient(key=alice.text) as client:
            got: list[object] = [await client.submit(jobs.add, 1, 2)]
            got += [each async for each in client.map(jobs.add, range(3))]
            got += [each async for each in client.stream(jobs.count, 3)]
            got.append(await client.job(await client.enqueue(jobs.add, 3, 4)).result(60))
            with pytest.raises(NotRegistered):
                await client.submit(jobs.unmarked)
            return got

    assert asyncio.run(main()) == [3, 0, 1, 2, 0, 1, 2, 7]


def test_what_is_not_registered_is_refused(client: gmpd.Client) -> None:
    with pytest.raises(NotRegistered, match=r"no function tests.jobs_network:unmarked"):
        client.submit(jobs.unmarked).result(60)
    with pytest.raises(NotRegistered, match=r"no function posix:system"):
        client.submit(os.system, "true").result(60)
    with pytest.raises(NotRegistered, match=r"no function tests.jobs_network:unmarked"):
        client.enqueue(jobs.unmarked)
    with pytest.raises(NotRegistered, match="functions go by name"):
        client.submit(lambda: 1)
    assert client.submit(jobs.add, 1, 2).result(60) == 3, "the client goes on"


def test_a_worker_itself_calls_what_is_registered_only(
    daemon: NetworkDaemon, alice: ClientKey
) -> None:
    """Had the coordinator let it pass: by a client of this machine that asks for that kind."""
    from tests.rawclient import RawClient

    address = f"ipc://{daemon.directory}/client.sock"
    raw = RawClient(address)
    try:
        for fid, name in enumerate(("tests.jobs_network:unmarked", "os:getpid"), 1):
            raw.send(protocol.Define(fid, "registered", name, b""))
            raw.send(protocol.Submit(fid, fid, None, [codec.encode_call(name, (), {}).data], None))
        for outcome, value, _ in raw.outcomes([1, 2]):
            assert outcome is protocol.Outcome.ERROR
            assert value.type == "gmpd.errors.NotRegistered"
    finally:
        raw.close()


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "ä", b"x", [1, [2]], {"a": {"b": [None]}}])
def test_plain_values_come_back(client: gmpd.Client, value: object) -> None:
    assert client.submit(jobs.echo, value).result(60) == value


def test_a_tuple_arrives_as_a_list(client: gmpd.Client) -> None:
    assert client.submit(jobs.echo, (1, 2)).result(60) == [1, 2]
    assert client.submit(jobs.pair).result(60) == [1, 2]


def test_what_is_not_plain_is_named(client: gmpd.Client) -> None:
    with pytest.raises(Unserializable, match=r"value\['deep'\]\[0\] is of type object"):
        client.submit(jobs.echo, {"deep": [object()]})
    with pytest.raises(Unserializable, match=r"result\['deep'\]\[0\] is of type object"):
        client.submit(jobs.unsendable).result(60)
    with pytest.raises(Unserializable, match="is of type OwnError"):
        client.enqueue(jobs.echo, jobs.OwnError("x"))


def test_exceptions_of_python_keep_their_class_and_others_their_text(client: gmpd.Client) -> None:
    with pytest.raises(ValueError, match="of Python's"):
        client.submit(jobs.fail, False).result(60)
    with pytest.raises(RemoteError, match=r"tests.jobs_network.OwnError: of my own") as caught:
        client.submit(jobs.fail, True).result(60)
    assert isinstance(caught.value, gmpd.errors.JobError)
    assert "in fail" in str(caught.value.__cause__)


def test_a_key_with_pickle_exchanges_objects(daemon: NetworkDaemon) -> None:
    key = daemon.add("trusted", pickle=True)
    with gmpd.Client(key=key.text) as client:
        assert client.submit(jobs.echo, (1, {2, 3})).result(60) == (1, {2, 3})
        with pytest.raises(jobs.OwnError):
            client.submit(jobs.fail, True).result(60)
        with pytest.raises(NotRegistered):
            client.submit(lambda: 1)


def test_a_pickle_of_a_hostile_client_reaches_no_worker(
    daemon: NetworkDaemon, alice: ClientKey
) -> None:
    """By raw messages: whatever form it has, the client is refused, and nothing runs."""
    name = "tests.jobs_network:echo"
    forms = [
        (protocol.options(None), codec.encode_call(name, ((1,),), {}).data),
        (protocol.options({"plain": True}), codec.encode_call(name, ((1,),), {}).data),
        (protocol.options({"priority": 1}), codec.encode_call(name, (1,), {}, plain=True).data),
    ]
    network = Network()
    try:
        for options, payload in forms:
            link = Dealer(network, daemon.address, keys=CurveKeys(alice.server, alice.secret))
            for message in (
                protocol.hello("client", b"s" * 16, {"name": "c"}),
                protocol.Define(1, "name", name, b""),
                protocol.Submit(1, 1, options, [payload], None),
            ):
                link.send([protocol.pack(message)])
            answers: list[protocol.Message] = []
            while len(answers) < 2:
                assert link.wait(60)
                frames = link.recv()
                assert frames is not None
                answers.append(protocol.unpack(bytes(frames[0]), protocol.TO_CLIENT))
            assert isinstance(answers[1], protocol.Refused)
            assert answers[1].code is protocol.Refusal.NOT_ALLOWED
            assert "plain values only" in answers[1].reason
            link.close()
    finally:
        network.close()


# -- roles, and whose jobs they are ----------------------------------------------------------------


def test_a_reader_looks_and_submits_nothing(daemon: NetworkDaemon) -> None:
    key = daemon.add("reader", Role.READ)
    with gmpd.Client(key=key.text) as client:
        assert client.call("status")["procs"] == 2
        for submit in (client.submit, client.enqueue):
            with pytest.raises(NotAllowed, match="role read"):
                submit(jobs.add, 1)
        with pytest.raises(NotAllowed, match="does not allow `stop`"):
            client.call("stop")


def test_the_jobs_of_another_key_are_unknown(daemon: NetworkDaemon, client: gmpd.Client) -> None:
    theirs = client.enqueue(jobs.add, 1, 2)
    failed = client.enqueue(jobs.fail, True)
    assert client.job(theirs).result(60) == 3
    assert isinstance(client.job(failed).exception(60), RemoteError)
    bob, admin = daemon.add("bob"), daemon.add("root", Role.ADMIN)
    with gmpd.Client(key=bob.text) as other:
        own = other.enqueue(jobs.add, 3, 4)
        for job_id in (theirs, failed, "0" * 32):
            job = other.job(job_id)
            for ask in (job.info, job.result, job.exception):
                with pytest.raises(LookupError, match="knows no job"):
                    ask()
            assert not job.cancel()
            assert not job.retry()
            assert not job.remove()
            assert job.story() == []
            assert other.ask_jobs("log", [job._id], None) is None
        seen = other.call("jobs", limit=100)
        assert {row["id"].hex() for row in seen} == {own}
        assert sum(other.call("job_counts").values()) == 1
    with gmpd.Client(key=admin.text) as every:
        assert every.job(theirs).result(60) == 3
        assert {theirs, failed, own} <= {row["id"].hex() for row in every.call("jobs", limit=100)}
        assert every.job(failed).remove()
    with gmpd.Client(str(daemon.directory)) as here:
        assert here.job(theirs).result(60) == 3


def test_volatile_jobs_of_another_key_are_unknown_too(
    daemon: NetworkDaemon, client: gmpd.Client
) -> None:
    theirs = client.submit(jobs.nap, 60)
    wait_until(theirs.running, "it runs")
    assert client.job(theirs.job_id).state == "running"
    assert len(client.call("volatile_jobs", limit=10)["rows"]) == 1
    with gmpd.Client(key=daemon.add("boris").text) as other:
        with pytest.raises(LookupError, match="knows no job"):
            other.job(theirs.job_id).info()
        assert not other.job(theirs.job_id).cancel()
        assert other.call("volatile_jobs", limit=10)["rows"] == []
    assert theirs.cancel()


def test_a_unique_key_is_each_clients_own(daemon: NetworkDaemon, client: gmpd.Client) -> None:
    bob = daemon.add("bert")
    with gmpd.Client(key=bob.text) as other:
        first = client.options(unique="k").enqueue(jobs.nap, 30)
        again = client.options(unique="k").enqueue(jobs.nap, 30)
        theirs = other.options(unique="k").enqueue(jobs.nap, 30)
        assert first == again != theirs
        assert client.job(first).cancel()
        assert other.job(theirs).cancel()


def test_an_id_of_another_key_is_not_taken_over(daemon: NetworkDaemon, client: gmpd.Client) -> None:
    """A client that sends the same job under the same id gets no hold of the other's."""
    from gmpd.client.stored import prepare_storable

    mine = prepare_storable(jobs.add, {"plain": True}, (1, 2), {})
    client._store(mine)
    assert client._store(mine) == mine.id
    with gmpd.Client(key=daemon.add("mallory").text) as other:
        with pytest.raises(GmpdError, match="exists with another content"):
            other._store(mine)


# -- the command line ------------------------------------------------------------------------------


def run(*words: str, key: Path, daemon: NetworkDaemon, code: int = 0) -> str:
    """The output and errors of a command in a directory without jobs."""
    ended = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", *words, "--address", daemon.address, "--key", str(key)],
        env={**os.environ, "GMPD_RUNTIME_DIR": "/nowhere", "PYTHONSAFEPATH": "1"},
        cwd="/", capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def file_of(key: ClientKey, directory: Path) -> Path:
    path = directory / f"{key.name}.key"
    path.write_text(f"{key.text}\n")
    path.chmod(0o600)
    return path


def test_the_command_line_works_from_another_machine(daemon: NetworkDaemon, tmp_path: Path) -> None:
    key = file_of(daemon.add("shell"), tmp_path)
    at: Any = {"key": key, "daemon": daemon}
    assert run("submit", "tests.jobs_network:add", "2", "40", **at) == "42\n"
    assert "no function tests.jobs_network:unmarked" in run(
        "submit", "tests.jobs_network:unmarked", code=4, **at
    )
    job_id = run("submit", "-q", "--durable", "tests.jobs_network:add", "1", **at).strip()
    shown = run("jobs", "show", job_id, **at)
    assert job_id in shown
    assert "tests.jobs_network:add" in shown
    assert job_id in run("jobs", "ls", **at)
    assert "P0" in run("status", **at)
    assert "does not allow `drain`" in run("drain", code=6, **at)
    assert "for this machine only; `gmpd drain` does it there" in run("down", code=2, **at)
    reader = file_of(daemon.add("glance", Role.READ), tmp_path)
    assert "role read, which submits no jobs" in run(
        "submit", "tests.jobs_network:add", "1", key=reader, daemon=daemon, code=6
    )


def test_a_key_in_the_command_line_is_refused(alice: ClientKey) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", "status", "--key", alice.text],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "every user of this machine can see a key in the command line" in ended.stderr
    assert alice.secret.hex() not in ended.stderr


def test_keys_are_made_and_carried_by_commands(
    daemon: NetworkDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an operator does it, beside the running daemon."""

    def keys(*words: str, code: int = 0) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "gmpd.cli", "keys", *words],
            env=daemon.env, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert ended.returncode == code, ended.stderr
        return ended.stdout + ended.stderr

    assert "clients rely on it" in keys("init", code=78)
    assert "added carol (submit)" in keys("add", "carol")
    assert "there is a key 'carol' already" in keys("add", "carol", code=78)
    listed = keys("ls")
    assert "carol" in listed
    assert daemon.keys.client("carol").secret.hex() not in listed + keys("ls", "--json")
    path = tmp_path / "carol.key"
    to = daemon.address.removeprefix("tcp://")
    keys("export", "carol", "--to", to, "-o", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("GMPD_KEY", path.read_text().strip())
    with gmpd.Client() as client:
        assert client.endpoint == daemon.address
        assert client.submit(jobs.add, 1, 1).result(60) == 2
    shown = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", "config", "show"], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "gmpd-key-…" in shown.stdout
    assert daemon.keys.client("carol").secret.hex() not in shown.stdout
    assert "revoked carol" in keys("revoke", "carol")
    assert "there is no key 'carol'" in keys("revoke", "carol", code=4)
    with pytest.raises(NotAllowed):
        gmpd.Client()


def test_a_job_sees_no_key(daemon: NetworkDaemon, client: gmpd.Client) -> None:
    """S17: nothing of gmpd's settings is in the environment of jobs, nor a secret in a command."""
    assert client.submit(jobs.environment).result(60) == []
    secret = daemon.keys.server_secret().hex()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert secret.encode() not in process.read_bytes()


# -- hostile clients -------------------------------------------------------------------------------


def test_texts_of_clients_are_no_sql(daemon: NetworkDaemon, client: gmpd.Client) -> None:
    text = "x' OR '1'='1'; DROP TABLE jobs; --"
    job_id = client.options(unique=text, name=text).enqueue(jobs.add, 1, 1)
    assert client.job(job_id).result(60) == 2
    assert client.job(job_id).info()["unique"] == text
    assert client.call("jobs", function=text, limit=10) == []
    with gmpd.Client(key=daemon.add("name.of-a_key").text) as other:
        assert other.call("jobs", limit=10) == []


def test_a_flood_from_another_machine_delays_no_client_here(
    daemon: NetworkDaemon, client: gmpd.Client
) -> None:
    """Tens of thousands of its jobs wait; one of this machine takes its turn."""
    flood = [client.submit(jobs.add, n) for n in range(30_000)]
    with gmpd.Client(str(daemon.directory)) as here:
        assert here.submit(jobs.add, 1, 2).result(60) == 3
        assert not flood[-1].done() or flood[-1].result() == 29_999
    assert client.drain(100)
