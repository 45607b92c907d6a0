"""Clients of other machines: which come in, and which do not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

import gmpd
from gmpd import protocol
from gmpd.errors import DaemonUnreachable, NotAllowed
from gmpd.keys import ClientKey, Role
from gmpd.netpoll import CurveKeys, Dealer, Network, new_secret, public_of
from tests import jobs_network as jobs
from tests.daemon_process import Daemon
from tests.network_daemon import NetworkDaemon
from tests.support import wait_until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkDaemon]:
    with NetworkDaemon(tmp_path_factory.mktemp("n"), "tests.jobs_network") as made:
        yield made.wait_ready()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that get no answer give up after a second."""
    monkeypatch.setenv("GMPD_CLIENT__CONNECT_TIMEOUT", "1s")


def dropped(daemon: NetworkDaemon) -> dict[str, int]:
    with gmpd.Client(str(daemon.directory)) as client:
        counts: dict[str, int] = client.call("status")["dropped"]
        return counts


# -- the handshake ---------------------------------------------------------------------------------


def test_a_known_key_comes_in(daemon: NetworkDaemon, tmp_path: Path) -> None:
    key = daemon.add("known")
    path = tmp_path / "key"
    path.write_text(key.text)
    path.chmod(0o600)
    for given in (path, str(path), key.text):
        with gmpd.Client(daemon.address, key=given) as client:
            assert client.call("ping")["unfinished"] == 0
    with gmpd.Client(key=path) as client:
        assert client.endpoint == daemon.address

    async def asked() -> object:
        async with gmpd.AsyncClient(daemon.address, key=path) as client:
            return await client.call("ping")

    assert asyncio.run(asked()) == {"unfinished": 0, "drain_timeout": 30.0}


def test_an_unknown_key_is_told_so_at_once(daemon: NetworkDaemon) -> None:
    stranger = daemon.key("stranger", new_secret())
    before = dropped(daemon).get("refused_peer", 0)
    for _ in range(2):
        with pytest.raises(NotAllowed, match="key 'stranger': it was revoked, or"):
            gmpd.Client(key=stranger.text)

    async def asked() -> None:
        async with gmpd.AsyncClient(key=stranger.text):
            pass

    with pytest.raises(NotAllowed, match="does not know the key 'stranger'"):
        asyncio.run(asked())
    assert dropped(daemon)["refused_peer"] >= before + 3


@pytest.mark.usefixtures("soon")
def test_a_client_insists_on_the_key_of_its_daemon(daemon: NetworkDaemon) -> None:
    key = replace(daemon.add("careful"), server=b"x" * 32)
    with pytest.raises(DaemonUnreachable, match="it has another key of its own"):
        gmpd.Client(key=key.text)


@pytest.mark.usefixtures("soon")
def test_no_one_comes_in_without_a_key(daemon: NetworkDaemon) -> None:
    """By ZeroMQ without encryption: not even a refusal comes back."""
    network = Network()
    try:
        link = Dealer(network, daemon.address)
        link.send([protocol.pack(protocol.hello("client", b"s" * 16, {"name": "c"}))])
        assert not link.wait(1)
    finally:
        network.close()


def test_a_revoked_key_is_cut_off_within_a_second(daemon: NetworkDaemon) -> None:
    key = daemon.add("passing")
    with gmpd.Client(key=key.text) as client:
        client.call("ping")
        began = time.monotonic()
        daemon.keys.revoke("passing")
        lost = wait_until(lambda: client._core.lost, "the client is told")
        # By the daemon's clock half a second; the rest is for a busy machine.
        assert time.monotonic() - began < 20
        assert isinstance(lost, NotAllowed)
        assert "the key 'passing' was changed or revoked" in str(lost)
    with pytest.raises(NotAllowed, match="does not know the key 'passing'"):
        gmpd.Client(key=key.text)


def test_a_revoked_connection_is_cut_although_its_client_does_not_read(
    daemon: NetworkDaemon,
) -> None:
    """By raw sockets, as a client that ignores what it is told."""
    key = daemon.add("stubborn")
    network = Network()
    try:
        link = Dealer(network, daemon.address, keys=CurveKeys(key.server, key.secret))
        link.send([protocol.pack(protocol.hello("client", b"s" * 16, {"name": "c"}))])
        assert link.wait(30)
        assert not link.take_disconnect()
        daemon.keys.revoke("stubborn")
        wait_until(link.take_disconnect, "the connection is cut")
    finally:
        network.close()


def test_a_role_that_is_changed_counts_at_once(daemon: NetworkDaemon) -> None:
    key = daemon.add("rising", Role.READ)
    with gmpd.Client(key=key.text) as client:
        with pytest.raises(NotAllowed, match="role read, which does not allow `stacks`"):
            client.call("stacks")
    path = daemon.keys.path / "clients/rising.toml"
    path.write_text(path.read_text().replace('"read"', '"admin"'))
    with gmpd.Client(key=key.text) as client:
        assert client.call("stacks")["ps"]


def test_a_directory_that_others_may_enter_admits_no_client(daemon: NetworkDaemon) -> None:
    key = daemon.add("waiting")
    clients = daemon.keys.path / "clients"
    clients.chmod(0o755)
    try:
        with pytest.raises(NotAllowed):
            gmpd.Client(key=key.text)
    finally:
        clients.chmod(0o700)
    with gmpd.Client(key=daemon.add("later").text) as client:
        client.call("ping")


# -- what is no client -----------------------------------------------------------------------------

GREETINGS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + b"\0" * 190,
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zmtp 1": b"\x01\x00" + b"\x05\x00abcd" * 20,
    "zmtp 2": b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x05\0\0" + b"\0\x04abcd" * 20,
    "zmtp 3, null": b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".ljust(64, b"\0") + b"\0\x04abcd",
    "zmtp 3, plain": b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0PLAIN".ljust(64, b"\0") + b"\0\x04abcd",
    "nothing": b"",
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_a_stranger_changes_nothing(daemon: NetworkDaemon, greeting: str) -> None:
    """e22 of the threats: what browsers and scanners say, on the port."""
    host, _, port = daemon.address.removeprefix("tcp://").rpartition(":")
    with gmpd.Client(str(daemon.directory)) as client:
        before = client.call("status")
        with socket.create_connection((host, int(port)), 10) as stranger:
            with contextlib.suppress(OSError):  # it hangs up
                stranger.sendall(GREETINGS[greeting])
                stranger.shutdown(socket.SHUT_WR)
                stranger.settimeout(30)
                while stranger.recv(4096):
                    pass
        after = client.call("status")
    assert after["sessions"] == before["sessions"]
    assert after["messages"]["in"] == {
        **before["messages"]["in"], "call": before["messages"]["in"]["call"] + 1
    }  # fmt: skip


def test_strangers_keep_no_key_out(daemon: NetworkDaemon) -> None:
    """More connections than there may be, which say nothing: the oldest of them have to go."""
    key = daemon.add("late")
    host, _, port = daemon.address.removeprefix("tcp://").rpartition(":")
    with gmpd.Client(key=key.text) as early, contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection((host, int(port)), 10))
        with gmpd.Client(key=key.text) as client:
            assert client.call("ping")
        assert early.call("ping")
    fds = Path(f"/proc/{daemon.process.pid}/fd")
    wait_until(lambda: len(os.listdir(fds)) < 150, "their descriptors are closed")


# -- without keys ----------------------------------------------------------------------------------


def test_a_client_is_told_where_its_daemon_is_started_again(short_tmp: Path) -> None:
    daemon = NetworkDaemon(short_tmp, imports="tests.jobs_network").wait_ready()
    with gmpd.Client(daemon.address, key=daemon.add("far").text) as client:
        client.call("status")
        daemon.process.kill()
        daemon.process.wait(60)
        with pytest.raises(DaemonUnreachable, match="went away") as caught:
            client.call("status")
    assert "on its machine" in str(caught.value)
    assert "gmpd up" not in str(caught.value)
    daemon.close()
    for name in ("client.sock", "worker.sock", "gmpd.json", "gmpd.lock"):
        (short_tmp / name).unlink()  # what a killed daemon leaves


def test_without_a_key_there_is_no_tcp_socket(short_tmp: Path) -> None:
    """Not even a daemon: it was asked to listen, and cannot."""
    daemon = Daemon(short_tmp, GMPD_TCP__ENABLED="true", GMPD_TCP__LISTEN="127.0.0.1:0")
    assert daemon.process.wait(60) != 0
    daemon.close()


def test_a_key_of_this_machine_is_refused(daemon: NetworkDaemon) -> None:
    key: ClientKey = daemon.add("local")
    with pytest.raises(gmpd.errors.ConfigError, match="which the kernel vouches for"):
        gmpd.Client(str(daemon.directory), key=key.text)


# -- hostile peers, with a key and without ---------------------------------------------------------


def listening(pids: set[int]) -> Iterator[tuple[int, str]]:
    """(family, address) of each stream socket on which these processes listen, by /proc."""
    inodes = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(fd))
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                yield family, str(int(fields[1].rpartition(":")[2], 16))
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        listens = int(fields[3], 16) & 0x10000 and len(fields) > 7
        if listens and f"socket:[{fields[6]}]" in inodes:
            yield socket.AF_UNIX, fields[7]


def test_strangers_at_every_socket_change_nothing(daemon: NetworkDaemon) -> None:
    """e22 at each socket of the daemon and its processes, the gateway's among them."""
    family = psutil.Process(daemon.process.pid)
    pids = {each.pid for each in (family, *family.children(recursive=True))}
    sockets = list(listening(pids))
    assert {kind for kind, _ in sockets} == {socket.AF_INET, socket.AF_UNIX}
    assert len(sockets) >= 4, "clients, workers, network, gateway"
    with gmpd.Client(str(daemon.directory)) as client:
        before = client.call("status")
        for kind, address in sockets:
            for greeting in GREETINGS.values():
                with socket.socket(kind) as stranger, contextlib.suppress(OSError):
                    stranger.settimeout(10)
                    local = kind == socket.AF_UNIX
                    stranger.connect(address if local else ("127.0.0.1", int(address)))
                    stranger.sendall(greeting)
                    stranger.shutdown(socket.SHUT_WR)
                    while stranger.recv(4096):
                        pass
        after = client.call("status")
    assert after["sessions"] == before["sessions"]
    heard = {kind: n for kind, n in after["messages"]["in"].items() if kind != "call"}
    assert heard == {kind: n for kind, n in before["messages"]["in"].items() if kind != "call"}
    assert after["jobs"]["submitted"] == before["jobs"]["submitted"]


@contextlib.contextmanager
def raw_peer(daemon: NetworkDaemon, key: ClientKey, route: bytes = b"") -> Iterator[Any]:
    """A socket of a client's key that keeps no rule, and its monitor of disconnects."""
    context = zmq.Context()
    try:
        peer = context.socket(zmq.DEALER)
        peer.set(zmq.LINGER, 0)
        if route:
            peer.set(zmq.ROUTING_ID, route)
        peer.set(zmq.CURVE_SERVERKEY, key.server)
        peer.set(zmq.CURVE_PUBLICKEY, public_of(key.secret))
        peer.set(zmq.CURVE_SECRETKEY, key.secret)
        monitor = peer.get_monitor_socket(zmq.Event.DISCONNECTED)
        peer.connect(daemon.address)
        peer.send(protocol.pack(protocol.hello("client", b"s" * 16, {"name": "c"})))
        yield peer, monitor
        peer.disable_monitor()
        monitor.close()
    finally:
        context.destroy(linger=0)


def test_a_frame_that_is_too_large_ends_its_connection(daemon: NetworkDaemon) -> None:
    """Of a client that ignores the limit; another one of that key goes on."""
    key = daemon.add("large")
    with gmpd.Client(key=key.text) as honest:
        with pytest.raises(gmpd.errors.Unserializable, match=r"tcp\.value_bytes allows"):
            honest.submit(jobs.echo, b"x" * (9 << 20))
        with raw_peer(daemon, key) as (peer, monitor):
            assert peer.poll(60_000)
            peer.send(b"x" * (10 << 20))
            assert monitor.poll(60_000)
        assert honest.submit(jobs.add, 1, 2).result(60) == 3


def test_a_slow_handshake_is_ended(daemon: NetworkDaemon) -> None:
    host, _, port = daemon.address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), 10) as slow:
        slow.sendall(b"\xff\0\0\0")
        slow.settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            while slow.recv(4096):
                pass  # its greeting; then it hangs up


def test_a_peer_that_names_itself_is_cut(daemon: NetworkDaemon) -> None:
    """A routing id of its own choice might be another client's."""
    with raw_peer(daemon, daemon.add("named"), b"alice") as (peer, monitor):
        assert monitor.poll(60_000)
        assert not peer.poll(0), "it was not answered"
