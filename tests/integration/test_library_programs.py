"""Other people's libraries, unmodified, beside plain functions that block: each in a program of its
own under ``gmpd.run``, and as a job of a daemon (``tests/library_programs.py``).
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import wait_until

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "library_programs.py"

#: The package of the server that each needs, which this machine may lack.
SERVERS = {
    "asyncpg": "postgresql",
    "psycopg": "postgresql",
    "sqlalchemy": "postgresql",
    "redis": "redis-server",
}
NAMES = (
    "aiohttp", "anyio", "asyncpg", "fastapi", "grpc", "psycopg", "redis", "sqlalchemy", "tornado",
    "websockets",
)  # fmt: skip


@contextmanager
def postgres(place: Path) -> Iterator[str | None]:
    """The directory of its socket; None where it is missing. It refuses to be root, and is its own
    user then.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        yield None
        return
    bin_: Path = programs[-1].parent
    home = place / "postgres"
    home.mkdir()
    user = None
    if os.geteuid() == 0:
        user = "postgres"
        entry = pwd.getpwnam(user)
        os.chown(home, entry.pw_uid, entry.pw_gid)
    # No fsync, no locale: it is gone after the tests. Trust: the users of its directory.
    made = ["-U", "test", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"]
    subprocess.run(
        [str(bin_ / "initdb"), "-D", str(home / "data"), *made],
        user=user, cwd="/", check=True, capture_output=True, timeout=50,
    )  # fmt: skip
    server = subprocess.Popen(
        [bin_ / "postgres", "-D", home / "data", "-F", "-k", home, "-c", "listen_addresses="],
        user=user, cwd="/", stderr=subprocess.DEVNULL,
    )  # fmt: skip
    ask = [str(bin_ / "pg_isready"), "-q", "-h", str(home)]
    try:
        wait_until(
            lambda: not subprocess.run(ask, check=False).returncode, "PostgreSQL", timeout=50
        )
        yield str(home)
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for its clients
        server.wait(50)


@contextmanager
def redis(place: Path) -> Iterator[str | None]:
    """The path of its socket; None where it is missing."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    socket = place / "redis"
    server = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", place],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(socket.exists, "Redis", timeout=50)
        yield str(socket)
    finally:
        server.terminate()
        server.wait(50)


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[dict[str, str | None]]:
    """Where they listen. They start before the first test, which else would have left them behind.
    In a short place, for sockets, where a server that runs as another user gets in.
    """
    place = Path(tempfile.mkdtemp(prefix="gmpd-lib-", dir="/tmp"))
    place.chmod(0o755)
    try:
        with postgres(place) as home, redis(place) as socket:
            yield {"postgresql": home, "redis-server": socket}
    finally:
        shutil.rmtree(place)


@pytest.fixture
def run(
    servers: dict[str, str | None], short_tmp: Path
) -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    def run(mode: str, name: str) -> subprocess.CompletedProcess[str]:
        package = SERVERS.get(name)
        argument = "" if package is None else servers[package]
        if argument is None:
            pytest.skip(f"{package} is not installed (apt-get install {package})")
        return subprocess.run(
            [sys.executable, str(PROGRAM), mode, name, argument],
            cwd=ROOT, capture_output=True, text=True, timeout=55,
            env={**os.environ, "GMPD_RUNTIME_DIR": str(short_tmp), "GMPD_DAEMON__PROCS": "1"},
        )  # fmt: skip

    return run


@pytest.mark.parametrize("mode", ["run", "daemon"])
@pytest.mark.parametrize("name", NAMES)
def test_it_works_beside_functions_that_block(
    run: Callable[[str, str], subprocess.CompletedProcess[str]],
    name: str,
    mode: str,
) -> None:
    done = run(mode, name)
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


def test_every_library_of_these_tests_is_installed() -> None:
    """They are extras of the project: a test that skips for want of one would say nothing."""
    assert [name for name in NAMES if importlib.util.find_spec(name) is None] == []
