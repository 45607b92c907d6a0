"""The default store of durable jobs: one SQLite database in ``daemon.state_dir``.

Settings, and why:

- WAL and ``synchronous=FULL``: a commit returns after the log was flushed to the device. NORMAL
  makes no flush per commit, and loses acknowledged jobs in a power cut.
- ``locking_mode=EXCLUSIVE``, set before WAL: one owner, no ``-shm`` file; a second daemon or a
  stray tool is refused at once.
- No automatic checkpoints: this module makes them when it is idle, or above 16 MiB of log.
- ``commit_no``: a damaged log loses its tail without an error, and ``integrity_check`` says ok. So
  each commit raises a number, which is also written to a side file about once a second. A database
  that is behind its side file has lost commits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gmpd.daemon.sqlite_jobs import JobTables
from gmpd.daemon.sqlite_place import (
    Connect,
    check_file,
    check_place,
    create,
    open_database,
    refused,
    unusable,
)
from gmpd.daemon.sqlite_schema import upgrade
from gmpd.daemon.store import StoreBrokenError, StoreFullError, StoreRefusedError
from gmpd.sched.stored import READS, Answer, Operation

log = logging.getLogger("gmpd.store")

#: The log is written back to the database when it is larger than this.
CHECKPOINT_BYTES = 16 << 20
#: Freed when the disk is full, so that ends of jobs can still be stored.
BALLAST_BYTES = 16 << 20
#: The side file is written at most once in this time (s).
SIDE_EVERY_S = 1.0
_SIDE_BYTES = 4096


class SqliteStore:
    """The jobs of one daemon. Raises StoreRefusedError when the database cannot be used."""

    def __init__(
        self,
        directory: Path,
        *,
        accept_loss: bool = False,
        connect: Connect = sqlite3.connect,
    ) -> None:
        self._path = directory / "jobs.sqlite"
        self._side_path = directory / "jobs.commits"
        self._ballast_path = directory / "jobs.ballast"
        check_place(directory)
        if not self._path.exists():
            create(self._path, connect)
        check_file(self._path)
        self._db = open_database(self._path, connect)
        try:
            upgrade(self._db)
            self._commit_no = self._meta("commit_no")
            self._check_loss(accept_loss=accept_loss)
            self.epoch = self._meta("epoch") + 1
            self._side = os.open(self._side_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._side_due = 0.0
            self._tables = JobTables(self._db)
            self._boot()
            self._make_ballast()
        except sqlite3.Error as error:
            self._db.close()
            raise refused(self._path, error) from error
        except OSError as error:
            self._db.close()
            raise unusable(directory, error) from error
        except BaseException:
            self._db.close()
            raise

    # -- opening -----------------------------------------------------------------------------------

    def _meta(self, key: str) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(row[0])

    def _check_loss(self, *, accept_loss: bool) -> None:
        try:
            seen = int(self._side_path.read_bytes().split(b"\n")[0] or b"0")
        except (FileNotFoundError, ValueError):
            return
        if self._commit_no >= seen:
            return
        if not accept_loss:
            raise StoreRefusedError(
                f"{self._path} has lost {seen - self._commit_no} commits, as after a damaged disk"
                " or when its -wal file was deleted: restore it, or start once with"
                " `gmpd serve --accept-loss` to continue with the jobs that are left"
            )
        lost = seen - self._commit_no
        log.warning("%s has lost %d commits, and is used all the same", self._path, lost)
        self._commit_no = seen

    def _boot(self) -> None:
        with self._transaction():
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (self.epoch,))
            self._tables.boot(time.time_ns() // 1_000_000)
            self._compare_python()

    def _compare_python(self) -> None:
        """Functions that were sent by value are code of one version of Python."""
        here = sys.version_info.major * 100 + sys.version_info.minor
        row = self._db.execute("SELECT value FROM meta WHERE key = 'python'").fetchone()
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('python', ?)", (here,))
        if row is None or row[0] == here:
            return
        (jobs,) = self._db.execute(
            "SELECT count(*) FROM jobs WHERE ended_ms IS NULL AND function IN"
            " (SELECT digest FROM functions WHERE kind != 'name')"
        ).fetchone()
        if jobs:
            before, now = (f"{each // 100}.{each % 100}" for each in (row[0], here))
            log.warning(
                "%d durable jobs in %s were stored under Python %s with functions by value, and"
                " this is Python %s: they may fail; the daemon under Python %s runs them",
                jobs, self._path, before, now, before,
            )  # fmt: skip

    # -- one transaction ---------------------------------------------------------------------------

    def apply(self, batch: Sequence[Operation]) -> list[Answer]:
        """See ``store.Store``."""
        next_number = self._tables.next_number
        reads = all(isinstance(operation, READS) for operation in batch)
        try:
            with self._reading() if reads else self._transaction():
                answers = self._tables.do_all(batch)
        except StoreFullError:
            self._tables.next_number = next_number
            self._tables.reload()
            raise
        if reads:
            return answers
        self._note_commit()
        if self._log_bytes() > CHECKPOINT_BYTES:
            self._checkpoint("PASSIVE")
        return answers

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything in it, or nothing; on disk when it has ended."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            number = self._commit_no + 1
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'commit_no'", (number,))
            self._db.execute("COMMIT")
            self._commit_no = number  # not before: the side file must never be ahead
        except sqlite3.Error as error:
            self._undo(error)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Read the state of one moment, without a flush."""
        try:
            self._db.execute("BEGIN")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo(error)

    def _undo(self, error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        if code == sqlite3.SQLITE_FULL:
            raise StoreFullError(f"the disk of {self._path} is full") from error
        raise StoreBrokenError(f"{self._path}: {error}") from error

    def _note_commit(self) -> None:
        now = time.monotonic()
        if now >= self._side_due:
            self._write_side()
            self._side_due = now + SIDE_EVERY_S

    def _write_side(self) -> None:
        # A failure is no loss: the number on disk is smaller, so it detects less.
        with contextlib.suppress(OSError):
            os.pwrite(self._side, b"%d\n".ljust(_SIDE_BYTES, b"\0") % self._commit_no, 0)
            os.fdatasync(self._side)

    def _log_bytes(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except FileNotFoundError:
            return 0

    def _checkpoint(self, how: str) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # a full disk: later
            self._db.execute(f"PRAGMA wal_checkpoint({how})")

    def rest(self) -> None:
        """See ``store.Store``."""
        self._write_side()
        if self._log_bytes() > CHECKPOINT_BYTES:
            self._checkpoint("TRUNCATE")
        self._make_ballast()

    def make_room(self) -> bool:
        """See ``store.Store``."""
        try:
            self._ballast_path.unlink()
        except FileNotFoundError:
            return False
        self._checkpoint("PASSIVE")
        return True

    def _make_ballast(self) -> None:
        if self._ballast_path.exists():
            return
        descriptor = os.open(self._ballast_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
        except OSError:
            self._ballast_path.unlink()
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """See ``store.Store``."""
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint("TRUNCATE")
            self._write_side()
        os.close(self._side)
        self._db.close()
