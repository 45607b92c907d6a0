"""Crash images of the store: a recorded run is cut at every write, and opened again.

`kill -9` cannot show a missing flush, since the kernel still has the data. So strace records the
writes and flushes of a program that stores jobs, and each prefix of them is laid out as a disk
could have it after a power cut: with all writes, without those that were not flushed, or with some
of those, torn at 512 bytes. No acknowledged job may be missing, and the database is never damaged.
"""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gmpd.daemon.sqlite_store import SqliteStore
from gmpd.daemon.store import StoreRefusedError
from gmpd.sched.stored import Find

ROOT = Path(__file__).parents[2]
COMMITS = 12
CALLS = "openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,rename"

PROGRAM = """
    import os, sqlite3, sys
    from pathlib import Path
    from gmpd.daemon.sqlite_store import SqliteStore
    from gmpd.sched.stored import Finish, PutJobs
    from tests.integration.test_sqlite_store import FUNCTION, ended, new

    class Lax(sqlite3.Connection):
        def execute(self, sql, *values):
            return super().execute(sql.replace("= FULL", "= NORMAL"), *values)

    Connection = Lax if sys.argv[2] == "lax" else sqlite3.Connection

    def connect(*args, **how):
        return sqlite3.connect(*args, factory=Connection, **how)

    store = SqliteStore(Path(sys.argv[1]), connect=connect)
    for n in range(1, {commits} + 1):
        jobs = tuple(new(100 * n + each, payload=bytes([n]) * 900) for each in range(3))
        store.apply([PutJobs((FUNCTION,), jobs, True)])
        os.write(1, b"ack %d" % n)
        if n % 4 == 0:
            store.apply([Finish((ended(n),))])
        if n == {commits} // 2:
            store._checkpoint("TRUNCATE")
"""


class Op(NamedTuple):
    """One system call on a file of the store; ``ack`` is the program's word."""

    what: str
    path: str
    data: bytes = b""
    at: int = 0


LINE = re.compile(r"^\d+\s+(\w+)\((.*)\)\s+= (-?\d+)")
FD = re.compile(r"^\d+<((?:\\x..)*)>")
TEXT = re.compile(r'"((?:\\x..)*)"')


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def record(place: Path, log: Path, how: str) -> list[Op]:
    """The operations of a run of the program on the files of ``place``."""
    script = textwrap.dedent(PROGRAM.format(commits=COMMITS))
    traced = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={CALLS}"]
    subprocess.run(
        [*traced, sys.executable, "-c", script, str(place), how], check=True, cwd=ROOT, timeout=120,
        stdout=subprocess.DEVNULL, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return list(parse(log.read_text(), str(place)))


def parse(text: str, place: str) -> Iterator[Op]:
    for line in text.splitlines():
        if (found := LINE.match(line)) is None or found[3].startswith("-"):
            continue
        call, rest = found[1], found[2]
        named = FD.match(rest)
        path = unhex(named[1]).decode() if named else ""
        texts = [unhex(each) for each in TEXT.findall(rest)]
        if call == "write" and texts[0].startswith(b"ack "):
            yield Op("ack", "", texts[0])
        elif call in ("rename", "unlink") and texts[0].decode().startswith(place):
            yield Op(call, texts[0].decode(), texts[-1])
        elif not path.startswith(place):
            continue
        elif call == "pwrite64":
            yield Op("write", path, texts[0], int(rest.rsplit(", ", 1)[1]))
        elif call in ("fsync", "fdatasync"):
            yield Op("sync", path)
        elif call == "ftruncate":
            yield Op("truncate", path, b"", int(rest.rsplit(", ", 1)[1]))


class Disk:
    """Files as the kernel has them, and the parts that the device has for certain."""

    def __init__(self) -> None:
        self.safe: dict[str, bytearray] = {}
        self.pending: dict[str, list[Op]] = {}

    def do(self, op: Op) -> None:
        match op.what:
            case "write" | "truncate":
                self.safe.setdefault(op.path, bytearray())
                self.pending.setdefault(op.path, []).append(op)
            case "sync":
                for each in self.pending.pop(op.path, ()):
                    put(self.safe[op.path], each)
            case "rename":
                to = op.data.decode()
                self.safe[to] = self.safe.pop(op.path)
                moved = self.pending.pop(op.path, [])
                self.pending[to] = [each._replace(path=to) for each in moved]
            case "unlink":
                self.safe.pop(op.path, None)
                self.pending.pop(op.path, None)
            case _:  # the program's own words
                pass

    def image(self, how: str, dice: random.Random) -> dict[str, bytes]:
        files = {}
        for path, safe in self.safe.items():
            data = bytearray(safe)
            for op in self.pending.get(path, ()):
                if how == "all":
                    put(data, op)
                elif how == "some" and dice.random() < 0.5:
                    put(data, torn(op, dice))
            files[path] = bytes(data)
        return files


def put(data: bytearray, op: Op) -> None:
    if op.what == "truncate":
        del data[op.at :]
        return
    data.extend(bytes(max(0, op.at - len(data))))
    data[op.at : op.at + len(op.data)] = op.data


def torn(op: Op, dice: random.Random) -> Op:
    """Perhaps the first sectors of a write only."""
    if op.what == "truncate" or dice.random() < 0.5:
        return op
    return op._replace(data=op.data[: 512 * dice.randint(0, len(op.data) // 512)])


@pytest.fixture
def place() -> Iterator[Path]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=base) as directory:
        yield Path(directory) / "state"


def losses(ops: list[Op], place: Path, how: str, every: int) -> list[str]:
    """The faults of the images of every ``every``-th prefix."""
    disk, acknowledged, wrong = Disk(), 0, []
    dice = random.Random(1)
    for i, op in enumerate(ops):
        disk.do(op)
        if op.what == "ack":
            acknowledged = int(op.data.split()[1])
        # Until the database has its name there is no store.
        if str(place / "jobs.sqlite") in disk.safe and (i % every == 0 or op.what == "ack"):
            lay_out(disk.image(how, dice), place)
            if what := fault(place, acknowledged):
                wrong.append(f"after {i} calls, with {how}: {what}")
    return wrong


def lay_out(files: dict[str, bytes], place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(0o700)
    for path, data in files.items():
        if not path.endswith(("ballast", "-shm")):
            Path(path).write_bytes(data)
            Path(path).chmod(0o600)


def fault(place: Path, acknowledged: int) -> str:
    """The fault of a store after its crash; empty if it has none."""
    try:
        store = SqliteStore(place)
    except StoreRefusedError as error:
        return str(error)
    try:
        (check,) = store._db.execute("PRAGMA integrity_check").fetchone()
        ids = [
            (100 * n + each).to_bytes(16, "big")
            for n in range(1, acknowledged + 1)
            for each in range(3)
        ]
        found: Any = store.apply([Find(tuple(ids))])[0]
        missing = sum(job is None for job in found)
        if check != "ok":
            return f"integrity_check: {check}"
        return f"{missing} acknowledged jobs are missing" if missing else ""
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        store.close()


def test_no_acknowledged_job_is_missing_in_any_image(place: Path, tmp_path: Path) -> None:
    ops = record(place, tmp_path / "trace", "strict")
    assert sum(op.what == "ack" for op in ops) == COMMITS
    assert sum(op.what == "sync" for op in ops) > COMMITS
    for how, every in (("all", 5), ("none", 2), ("some", 2)):
        assert losses(ops, place, how, every) == []


def test_the_images_would_show_a_missing_flush(place: Path, tmp_path: Path) -> None:
    """`kill -9` would not: with all writes nothing is missing."""
    ops = record(place, tmp_path / "trace", "lax")
    assert losses(ops, place, "all", 9) == []
    assert any("missing" in each for each in losses(ops, place, "none", 9))
