"""The runtime directory: which daemon may live in it, and how others find it."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from gmpd import rundir
from gmpd.client.discovery import page_of
from gmpd.errors import ConfigError, DaemonUnreachable
from gmpd.rundir import Discovery, Lock


@pytest.fixture
def place(short_tmp: Path) -> Path:
    return rundir.prepare(short_tmp / "run")


def record() -> Discovery:
    return Discovery.of_this_process(
        version="1.2.3",
        started_at=1_700_000_000.5,
        endpoints={"client": "ipc:///x/client.sock"},
        http="http://127.0.0.1:7412/",
    )


def test_the_holder_of_a_lock_is_found_and_no_other_process_taken_for_it(place: Path) -> None:
    assert rundir.find_holder(place) is None
    with Lock.acquire(place):
        found = rundir.find_holder(place)
        assert found is not None
        assert found.pid == os.getpid()
        assert not found.is_gone
    # Left by one that died: the pid is another's by now.
    (place / rundir.LOCK).write_text(f"{os.getppid()}\n")
    assert rundir.find_holder(place) is None
    replace(found, started_ticks=found.started_ticks - 1).kill(signal.SIGKILL)  # hits no process
    (place / rundir.LOCK).unlink()


def test_a_holder_that_cannot_be_seen_is_said(place: Path) -> None:
    with Lock.acquire(place):
        (place / rundir.LOCK).write_text(f"{os.getppid()}\n")  # as from another container
        with pytest.raises(ConfigError, match="is not visible here"):
            rundir.find_holder(place)


def test_the_gateway_of_the_daemon_that_a_client_talks_to_is_found(place: Path) -> None:
    mine = f"ipc://{place}/client.sock"
    assert page_of(mine) is None
    found = replace(record(), endpoints={"client": mine})
    rundir.write_discovery(place, found)
    assert page_of(mine) == "http://127.0.0.1:7412/"
    assert page_of(f"ipc://{place}/other.sock") is None
    assert page_of("tcp://far:7411") is None
    rundir.write_discovery(place, replace(found, http=None))
    assert page_of(mine) is None
    (place / rundir.DISCOVERY).unlink()


def listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    return server


# -- the directory -------------------------------------------------------------------------------


def test_it_is_made_for_us_alone_whatever_the_umask(short_tmp: Path) -> None:
    before = os.umask(0)
    try:
        made = rundir.prepare(short_tmp / "run")
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert rundir.prepare(made) == made


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_one_that_others_may_enter_is_refused(short_tmp: Path, mode: int) -> None:
    (short_tmp / "run").mkdir()
    (short_tmp / "run").chmod(mode)
    with pytest.raises(ConfigError, match=f"has mode {mode:04o}, .*chmod 700"):
        rundir.prepare(short_tmp / "run")


def test_a_symbolic_link_is_refused(short_tmp: Path) -> None:
    (short_tmp / "real").mkdir(mode=0o700)
    (short_tmp / "run").symlink_to(short_tmp / "real")
    with pytest.raises(ConfigError, match="is a symbolic link, so it is refused"):
        rundir.prepare(short_tmp / "run")


def test_a_file_in_its_place_is_refused(short_tmp: Path) -> None:
    (short_tmp / "run").write_text("")
    with pytest.raises(ConfigError, match=r"is not usable \(Not a directory\)"):
        rundir.prepare(short_tmp / "run")


def test_that_of_another_user_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=f"belongs to uid {owner}, not to uid {owner + 1}"):
        rundir.prepare(place)


def test_a_missing_parent_is_told(short_tmp: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be made: No such file .* --runtime-dir"):
        rundir.prepare(short_tmp / "a" / "b")


def test_a_socket_path_fits_up_to_the_limit_of_libzmq() -> None:
    name = "client"
    fits = "/" + "x" * (rundir.IPC_PATH_MAX - len("//client.sock"))
    assert rundir.endpoint(fits, name) == f"ipc://{fits}/client.sock"
    with pytest.raises(ConfigError, match=r"has 108 bytes, but ZeroMQ takes at most 107: choose"):
        rundir.endpoint(fits + "x", name)
    with pytest.raises(ConfigError, match="has 108 bytes"):  # bytes count, not letters
        rundir.endpoint(fits[:-1] + "é", name)


# -- the lock ------------------------------------------------------------------------------------


def test_a_second_start_is_refused_and_told_the_pid_of_the_first(place: Path) -> None:
    with Lock.acquire(place):
        with pytest.raises(ConfigError, match=rf"already runs in .* \(pid {os.getpid()}\)"):
            Lock.acquire(place)
    with Lock.acquire(place):
        assert (place / rundir.LOCK).read_text() == f"{os.getpid()}\n"
    assert list(place.iterdir()) == []


def test_a_holder_that_has_not_written_its_pid_yet_is_named_as_starting(place: Path) -> None:
    with Lock.acquire(place):
        (place / rundir.LOCK).write_text("")
        with pytest.raises(ConfigError, match="just starting"):
            Lock.acquire(place)


def test_a_lock_file_that_was_removed_meanwhile_is_taken_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder ends, and removes the file, between our open and our flock."""
    first = Lock.acquire(place)
    opened = rundir._open_lock
    opens = []

    def racing(path: Path) -> int:
        fd = opened(path)
        opens.append(fd)
        first.release()
        return fd

    monkeypatch.setattr(rundir, "_open_lock", racing)
    with Lock.acquire(place):
        assert len(opens) == 2
        monkeypatch.undo()
        with pytest.raises(ConfigError, match="already runs"):
            Lock.acquire(place)


def test_a_link_for_a_lock_is_refused(place: Path) -> None:
    (place / rundir.LOCK).symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Lock.acquire(place)
    (place / rundir.LOCK).unlink()


def test_releasing_removes_sockets_and_may_be_repeated(place: Path) -> None:
    lock = Lock.acquire(place)
    rundir.write_discovery(place, record())
    with listen(place / "worker.sock"):
        lock.release()
    lock.release()
    assert list(place.iterdir()) == []


# -- the discovery file --------------------------------------------------------------------------


def test_a_daemon_is_found_by_what_it_wrote(place: Path) -> None:
    with Lock.acquire(place):
        rundir.write_discovery(place, record())
        assert rundir.read_discovery(place) == record()
        assert stat.S_IMODE((place / rundir.DISCOVERY).stat().st_mode) == 0o600
        assert sorted(path.name for path in place.iterdir()) == ["gmpd.json", "gmpd.lock"]


def test_without_a_daemon_the_error_says_how_to_start_one(place: Path) -> None:
    for directory in (place, place / "missing"):
        with pytest.raises(DaemonUnreachable, match=r"no daemon in .*: start one with `gmpd up`"):
            rundir.read_discovery(directory)


def test_a_pid_that_was_given_to_another_process_is_not_the_daemon(place: Path) -> None:
    with Lock.acquire(place):
        rundir.write_discovery(place, replace(record(), started_ticks=1))
        with pytest.raises(DaemonUnreachable, match="is dead"):
            rundir.read_discovery(place)


def test_in_another_pid_namespace_only_a_ping_can_tell() -> None:
    assert not replace(record(), pid_namespace=1, started_ticks=1).is_gone
    assert not record().is_gone


def test_a_record_of_another_version_still_names_its_daemon(place: Path) -> None:
    """Fewer fields, or more: it must be possible to end that daemon."""
    rundir.write_discovery(place, record())
    file = place / rundir.DISCOVERY
    raw = json.loads(file.read_text())
    del raw["http"], raw["http_problem"], raw["owner_pid"]
    file.write_text(json.dumps(raw | {"later": ["more"]}))
    assert rundir.read_discovery(place) == replace(record(), http=None)
    file.unlink()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "{}",
        json.dumps({"pid": 1}),
        '{"pid": "1", "pid_namespace": 1, "started_ticks": 1, "started_at": 1.0, "version": "1",'
        ' "endpoints": {}, "http": null}',
        '{"pid": 1, "pid_namespace": 1, "started_ticks": 1, "started_at": 1.0, "version": "1",'
        ' "endpoints": {"client": 5}, "http": null}',
    ],
    ids=["empty", "list", "half", "nothing", "too-little", "wrong-type", "wrong-endpoint"],
)
def test_what_no_daemon_wrote_is_refused(place: Path, text: str) -> None:
    file = place / rundir.DISCOVERY
    file.write_text(text)
    with pytest.raises(ConfigError, match="was not written by this version of gmpd"):
        rundir.read_discovery(place)
    file.unlink()


def test_a_linked_discovery_file_is_refused(place: Path) -> None:
    file = place / rundir.DISCOVERY
    file.symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="cannot be read"):
        rundir.read_discovery(place)
    file.unlink()


def test_a_failed_write_leaves_the_former_record(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Lock.acquire(place):
        rundir.write_discovery(place, record())
        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            rundir.write_discovery(place, replace(record(), version="2"))
        monkeypatch.undo()
        assert rundir.read_discovery(place) == record()
        assert len(list(place.iterdir())) == 2


def test_the_reason_of_an_end_is_told_until_the_next_daemon(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    rundir.note_end(tmp_path, "its disk failed")
    with pytest.raises(DaemonUnreachable, match=r"no daemon in .* \(the last one ended: its disk"):
        rundir.read_discovery(tmp_path)
    rundir.note_end(tmp_path, "")
    with pytest.raises(DaemonUnreachable) as raised:
        rundir.read_discovery(tmp_path)
    assert "the last one" not in str(raised.value)
    rundir.note_end(tmp_path / "missing", "it does not matter")


def test_a_full_disk_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rundir.prepare(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(ConfigError, match=r"cannot be written: No space left.*Make room"):
            rundir.Lock.acquire(tmp_path / "run")
    with rundir.Lock.acquire(tmp_path / "run") as lock:
        assert lock.is_held
