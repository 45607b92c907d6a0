"""Where the database of durable jobs may be, how it is made and opened, and why it is refused.

It knows no job: its counterpart is ``sqlite_jobs``.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

from gmpd.daemon.sqlite_schema import SCHEMA
from gmpd.daemon.store import StoreRefusedError
from gmpd.private_dir import make_private

#: "gmpd" as a big-endian number, in the header of each of its databases.
APPLICATION_ID = 0x676D7064
SCHEMA_VERSION = 4

#: It updates from a list of values since then, and takes more than 999 of them.
SQLITE_MIN = (3, 33)

#: File systems without the locks and flushes that SQLite needs.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "9p"}
)

#: How a database is opened: ``sqlite3.connect``, or a test's own.
Connect = Callable[..., sqlite3.Connection]


def check_place(directory: Path) -> None:
    """Make the directory if need be. Raises StoreRefusedError."""
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise StoreRefusedError(
            f"durable jobs need SQLite {'.'.join(map(str, SQLITE_MIN))} or newer, and this Python"
            f" has {sqlite3.sqlite_version}: use another build of Python"
        )
    try:
        make_private(directory)
        info = directory.lstat()
    except OSError as error:
        raise unusable(directory, error) from error
    if info.st_uid != os.geteuid():
        raise StoreRefusedError(
            f"{directory} belongs to uid {info.st_uid}, and the daemon runs as {os.geteuid()}:"
            " set daemon.state_dir to a directory of its own"
        )
    if stat.S_IMODE(info.st_mode) & 0o022:
        raise StoreRefusedError(
            f"others may write to {directory}, and could have the daemon run their jobs:"
            f" chmod go-w {directory}"
        )
    kind = _file_system(directory)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreRefusedError(
            f"{directory} is on a network file system ({kind}), whose locks and flushes do not"
            " protect a database: set daemon.state_dir to a local disk"
        )


def _file_system(directory: Path) -> str:
    """The type of the file system, as the kernel names it; empty when that cannot be told."""
    device = directory.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, about = line.partition(" - ")
        if fields.split()[2] == name:
            return about.split()[0]
    return ""


def check_file(path: Path) -> None:
    """Refuse a file that is no store of gmpd, before SQLite touches it."""
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        raise StoreRefusedError(f"{path} is no regular file: move it away")
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o022:
        raise StoreRefusedError(
            f"{path} may be written by others, who could have the daemon run their jobs:"
            f" chown and chmod 600 it, if you trust what is in it"
        )
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise StoreRefusedError(f"{path} is no database of durable jobs: move it away")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise StoreRefusedError(f"{path} is a database of another program: move it away")
    version = int.from_bytes(header[60:64], "big")
    if version > SCHEMA_VERSION:
        raise StoreRefusedError(
            f"{path} was written by a newer gmpd (schema {version}, this one knows"
            f" {SCHEMA_VERSION}): upgrade gmpd, or move it away"
        )


def create(path: Path, connect: Connect) -> None:
    """Make an empty database, whole or not at all: its header tells whose it is from the start."""
    draft = path.with_suffix(".new")
    for left in (draft, Path(f"{draft}-journal")):
        left.unlink(missing_ok=True)
    old = os.umask(0o077)
    try:
        db = connect(draft, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            db.execute("INSERT INTO meta VALUES ('commit_no', 0), ('epoch', 0)")
        finally:
            db.close()
        draft.rename(path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)  # its name, too
        finally:
            os.close(descriptor)
    except sqlite3.Error as error:
        raise refused(path, error) from error
    finally:
        os.umask(old)


def open_database(path: Path, connect: Connect) -> sqlite3.Connection:
    """Open a database that ``check_file`` has passed; this process alone may use it.

    Raises StoreRefusedError.
    """
    old = os.umask(0o077)
    try:
        db = connect(path, isolation_level=None, timeout=0, cached_statements=64)
    except sqlite3.Error as error:
        raise refused(path, error) from error
    finally:
        os.umask(old)
    try:
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 0",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "foreign_keys = OFF",
            "temp_store = MEMORY",
            "journal_size_limit = 67108864",
        ):
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN IMMEDIATE")  # takes the lock, and recovers the log
        db.execute("COMMIT")
    except sqlite3.Error as error:
        db.close()
        raise refused(path, error) from error
    return db


def unusable(directory: Path, error: OSError) -> StoreRefusedError:
    """An error of the file system, in a sentence that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreRefusedError(
            f"the disk of {directory} is full ({error.strerror}): free some space, and restart the"
            " daemon"
        )
    return StoreRefusedError(
        f"{directory} cannot hold durable jobs ({error.strerror}): set daemon.state_dir to a"
        " directory that the daemon may write"
    )


def refused(path: Path, error: sqlite3.Error) -> StoreRefusedError:
    """An error of SQLite, in a sentence that says what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreRefusedError(
            f"{path} is held by another process, probably another daemon of this user: only one"
            " keeps durable jobs in one daemon.state_dir"
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreRefusedError(f"the disk of {path} is full: free some space, and start again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreRefusedError(
            f"{path} cannot be written ({error}): check its file system and owner, or set"
            " daemon.state_dir"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreRefusedError(
            f"{path} is damaged ({error}): restore it from a backup, or move it away"
        )
    return StoreRefusedError(f"{path} cannot be used: {error}")
