"""The runtime directory: where a daemon's sockets live, and how the others find it.

No other module uses its files: the directory (0700, ours, no symlink), ``gmpd.lock`` (one daemon at
a time), ``gmpd.json`` (pid and endpoints for clients), and the paths of the sockets. It does not
know the protocol. `gmpd.config` decides which directory it is.

Everything that another user could have prepared is refused: the owner of the directory can replace
a socket, and the owner of a socket receives pickles.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gmpd.errors import ConfigError, DaemonUnreachable

DISCOVERY = "gmpd.json"
LOCK = "gmpd.lock"
#: Why the last daemon ended, if it did so by itself.
ENDED = "gmpd.ended"
SOCKET_SUFFIX = ".sock"
#: Behind the name of a socket that takes no more connections for now.
SHUT_SUFFIX = ".shut"

#: In the environment of jobs: the address of their daemon. (No ``GMPD_``: it is no setting.)
AROUND = "_GMPD_DAEMON"

#: libzmq's ipc_path_max_len: sizeof(sockaddr_un.sun_path) - 1 on Linux.
IPC_PATH_MAX = 107

#: Bytes that must fit into a directory: discovery file, lock, and the first lines of a log.
ROOM_BYTES = 16_384

#: A discovery file has about 400 bytes; what is longer was not written by a daemon.
DISCOVERY_MAX = 65_536


# ---------------------------------------------------------------------------------- the directory


def prepare(path: str | os.PathLike[str]) -> Path:
    """Make the directory, 0700, if it is missing, and check it. Raises ConfigError."""
    directory = Path(path)
    try:
        os.mkdir(directory, 0o700)
        os.chmod(directory, 0o700)  # whatever the umask
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(
            f"the runtime directory {directory} cannot be made: {error.strerror};"
            f" make it, or choose another with --runtime-dir or GMPD_RUNTIME_DIR"
        ) from error
    check(directory)
    return directory


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a directory that is not safely ours. Raises ConfigError; FileNotFoundError if missing.

    Looks at what was opened, not at the name, so nothing can be swapped in between.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        kind = "a symbolic link" if os.path.islink(path) else f"not usable ({error.strerror})"
        raise ConfigError(
            f"the runtime directory {path} is {kind}, so it is refused: remove it, or choose"
            f" another with --runtime-dir or GMPD_RUNTIME_DIR"
        ) from error
    try:
        info = os.fstat(fd)
    finally:
        os.close(fd)
    if info.st_uid != os.geteuid():
        raise ConfigError(
            f"the runtime directory {path} belongs to uid {info.st_uid}, not to uid {os.geteuid()}"
            f" who runs this, so it is refused: run as its owner, or choose another with"
            f" --runtime-dir or GMPD_RUNTIME_DIR"
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(
            f"the runtime directory {path} has mode {stat.S_IMODE(info.st_mode):04o}, others may"
            f" enter it, so it is refused: chmod 700 {path}"
        )


def check_room(directory: str | os.PathLike[str], key: str) -> None:
    """Refuse a directory that nothing can be written to, before a daemon relies on it.

    ``key`` is the setting that names it. Raises ConfigError with the reason: a full disk, a quota,
    a read-only file system.
    """
    import tempfile  # 3 ms, and workers have no use for it

    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(ROOM_BYTES))
            file.flush()
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be written ({error.strerror}): make room there, or choose another"
            f" directory with {key}"
        ) from error


def endpoint(directory: str | os.PathLike[str], name: str) -> str:
    """The ipc:// address of a socket in the directory. Raises ConfigError if it is too long."""
    path = os.path.join(directory, name + SOCKET_SUFFIX)
    length = len(os.fsencode(path))
    if length > IPC_PATH_MAX:
        raise ConfigError(
            f"the socket path {path} has {length} bytes, but ZeroMQ takes at most {IPC_PATH_MAX}:"
            f" choose a shorter runtime directory with --runtime-dir or GMPD_RUNTIME_DIR"
        )
    return f"ipc://{path}"


def is_open(address: str) -> bool:
    """Whether the socket of an ipc:// address is there, also while its door is shut."""
    path = address.removeprefix("ipc://")
    return os.path.exists(path) or os.path.exists(path + SHUT_SUFFIX)


# --------------------------------------------------------------------------------------- the lock


class Lock:
    """The daemon that holds this is the only one of its directory.

    A flock, since the kernel releases it however its holder dies; the pid inside is information.
    It is not inherited: a worker that outlives its coordinator must not keep the next one out.
    """

    def __init__(self, directory: Path, fd: int):
        self.directory = directory
        self._fd = fd

    @classmethod
    def acquire(cls, directory: str | os.PathLike[str]) -> Self:
        """Take it, or raise ConfigError that names the pid of the daemon that has it, or the reason
        why the file cannot be written."""
        path = Path(directory) / LOCK
        while True:
            fd = _open_lock(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _pid_in(fd)
                os.close(fd)
                raise ConfigError(_second_start(Path(directory), holder)) from None
            if _is_same_file(fd, path):
                break
            os.close(fd)  # its holder ended and removed it after we opened it: take the new one
        try:
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        except OSError as error:
            os.close(fd)
            raise ConfigError(
                f"{path} cannot be written: {error.strerror}. Make room on its disk, and start the"
                " daemon again"
            ) from None
        return cls(Path(directory), fd)

    @property
    def is_held(self) -> bool:
        """Whether the directory still has the file that this is a lock on."""
        return self._fd >= 0 and _is_same_file(self._fd, self.directory / LOCK)

    def take_again(self) -> None:
        """Its file was removed: make directory and file anew. Raises Taken when another daemon has
        done so before, and as `prepare`."""
        prepare(self.directory)
        try:
            fresh = type(self).acquire(self.directory)
        except ConfigError as error:
            raise Taken(str(error).partition(": ")[0]) from error
        os.close(self._fd)
        self._fd = fresh._fd

    def clear_stale(self) -> list[str]:
        """Remove the files of a daemon that died; returns their names, to be logged.

        Holding the lock proves that its owner is gone.
        """
        removed = []
        for entry in os.scandir(self.directory):
            is_socket = stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
            is_record = entry.name == DISCOVERY or entry.name.startswith(DISCOVERY + ".")
            if is_record or (is_socket and entry.name.endswith(SOCKET_SUFFIX)):
                os.unlink(entry.path)
                removed.append(entry.name)
        return sorted(removed)

    def release(self) -> None:
        """Remove sockets, discovery file and lock, in this order; once or often."""
        if self._fd < 0:
            return
        if self.is_held:  # else it was removed, and what is there now is another daemon's
            self.clear_stale()
            with suppress(FileNotFoundError):  # removed by hand
                os.unlink(self.directory / LOCK)
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Taken(ConfigError):
    """Another daemon lives in the directory that was ours."""


class HiddenHolder(ConfigError):
    """A daemon has the directory, and its process is not to be seen: in another container."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The daemon that has a lock: a pid, and what tells it from a later process with that pid."""

    pid: int
    started_ticks: int

    @property
    def is_gone(self) -> bool:
        """Its process is certainly dead."""
        return _started_ticks(self.pid) != self.started_ticks

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal: to that process or, when it is dead, to none.

        Raises PermissionError when it is not ours.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.is_gone:  # asked after the pidfd was opened: it is this process's then
                signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)


def find_holder(directory: str | os.PathLike[str]) -> Holder | None:
    """The daemon that has the directory, also one that answers no call; None when there is none.

    The pid in the lock is believed only of a process that has this very file open: it might be one
    of another container. Raises HiddenHolder for a daemon whose process cannot be seen, and as
    `check`.
    """
    path = Path(directory) / LOCK
    try:
        check(directory)
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    pid = _pid_in(fd)
    try:
        ticks = _started_ticks(pid) if pid else None
        if pid and ticks is not None and _has_open(pid, os.fstat(fd)):
            return Holder(pid, ticks)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HiddenHolder(
            f"a daemon holds {directory}, but its process (pid {pid}) is not visible here:"
            f" end it where it runs, perhaps in another container"
        ) from None
    finally:
        os.close(fd)
    return None


def _has_open(pid: int, info: os.stat_result) -> bool:
    with suppress(OSError):  # it ended meanwhile, or is not ours
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if os.path.samestat(os.stat(entry), info):
                    return True
    return False


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened: {error.strerror}; remove it") from error


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _second_start(directory: Path, holder: int | None) -> str:
    who = f"pid {holder}" if holder else "a daemon that is just starting"
    return (
        f"a daemon already runs in {directory} ({who}): talk to it with `gmpd status`, end it with"
        f" `gmpd down`, or start another in a place of its own with --runtime-dir"
    )


# ------------------------------------------------------------------------------ the discovery file


@dataclass(frozen=True, slots=True)
class Discovery:
    """How to reach a daemon. The first three name its process for good: pids are used again, and
    mean nothing in another container that has the directory mounted."""

    pid: int
    pid_namespace: int  # inode of /proc/PID/ns/pid
    started_ticks: int  # /proc/PID/stat field 22, clock ticks since boot
    started_at: float  # unix seconds, for people
    version: str
    endpoints: dict[str, str] = field(default_factory=dict)  # name -> address
    http: str | None = None
    #: Why there is no `http` and will be none: a sentence, or empty when it was not asked for.
    #: None: it serves, or does not yet.
    http_problem: str | None = None
    #: The program whose private daemon it is.
    owner_pid: int | None = None

    @classmethod
    def of_this_process(
        cls,
        *,
        version: str,
        started_at: float,
        endpoints: dict[str, str],
        http: str | None,
        http_problem: str | None = None,
        owner_pid: int | None = None,
    ) -> Self:
        """The record that the daemon itself writes; `started_at` in unix seconds."""
        pid = os.getpid()
        ticks = _started_ticks(pid)
        assert ticks is not None, "this process runs"
        return cls(
            pid, _pid_namespace(), ticks, started_at, version, endpoints, http, http_problem,
            owner_pid,
        )  # fmt: skip

    @property
    def is_gone(self) -> bool:
        """Its process is certainly dead. False is a hint only: liveness is an answered ping."""
        if self.pid_namespace != _pid_namespace():
            return False
        return _started_ticks(self.pid) != self.started_ticks


def is_published(directory: str | os.PathLike[str]) -> bool:
    """Whether there is a record."""
    return os.path.exists(Path(directory) / DISCOVERY)


def write_discovery(directory: str | os.PathLike[str], record: Discovery) -> None:
    """Publish it. Readers see the former record or this one, never a part."""
    import tempfile

    fd, name = tempfile.mkstemp(prefix=DISCOVERY + ".", dir=directory)  # 0600, O_EXCL
    try:
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(record), file, indent=1)
            file.write("\n")
        os.replace(name, Path(directory) / DISCOVERY)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def read_discovery(directory: str | os.PathLike[str]) -> Discovery:
    """The record of the daemon in this directory.

    Raises DaemonUnreachable if there is none or its process is gone, ConfigError if the directory
    or the file cannot be trusted.
    """
    try:
        check(directory)
        text = _read_own(Path(directory) / DISCOVERY)
    except FileNotFoundError:
        raise DaemonUnreachable(
            f"no daemon in {directory}{_last_end(directory)}: start one with `gmpd up`, or say"
            f" where it is with --runtime-dir or GMPD_RUNTIME_DIR"
        ) from None
    record = _parsed(text, Path(directory) / DISCOVERY)
    if record.is_gone:
        raise DaemonUnreachable(
            f"the daemon in {directory} (pid {record.pid}) is dead: start a new one with `gmpd up`"
        )
    return record


def note_end(directory: str | os.PathLike[str], why: str) -> None:
    """A daemon ends by itself: commands that look for one report the reason until the next one."""
    path = Path(directory) / ENDED
    with suppress(OSError):
        path.unlink(missing_ok=True)
        if why:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(why)


def _last_end(directory: str | os.PathLike[str]) -> str:
    try:
        why = _read_own(Path(directory) / ENDED).decode(errors="replace")
    except (FileNotFoundError, ConfigError):
        return ""
    return f" (the last one ended: {why})" if why else ""


def _read_own(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; remove it") from error
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_uid != os.geteuid():
            raise ConfigError(f"{path} belongs to uid {os.fstat(fd).st_uid}, so it is refused")
        return file.read(DISCOVERY_MAX)


def _parsed(text: bytes, path: Path) -> Discovery:
    try:
        raw: Any = json.loads(text)
    except ValueError:
        raw = None
    if not _is_record(raw):
        raise ConfigError(
            f"{path} was not written by this version of gmpd: end its daemon, or remove the file"
        )
    return Discovery(**{name: raw[name] for name in _RECORD_TYPES if name in raw})


def _is_record(raw: Any) -> bool:
    """Whether it names a daemon. Another version may write fewer fields, or more: its daemon can
    still be asked to end."""
    if not isinstance(raw, dict) or not raw.keys() >= _REQUIRED:
        return False
    if not all(isinstance(raw[name], kind) for name, kind in _RECORD_TYPES.items() if name in raw):
        return False
    return all(isinstance(address, str) for address in raw["endpoints"].values())


#: The JSON types of each field of a `Discovery`, where it is present.
_RECORD_TYPES: dict[str, Any] = {
    "pid": int,
    "pid_namespace": int,
    "started_ticks": int,
    "started_at": float,
    "version": str,
    "endpoints": dict,
    "http": str | None,
    "http_problem": str | None,
    "owner_pid": int | None,
}
_REQUIRED = {f.name for f in fields(Discovery) if f.default is MISSING}


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None if there is no such process, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return None if fields[0] in "ZX" else int(fields[19])
