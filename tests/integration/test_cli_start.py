"""`gmpd` as a process of its own: its imports, its exit code, its output to a pipe or a shell."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gmpd.cli.commands import COMMANDS
from gmpd.cli.exits import Exit
from tests.support import is_setting


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the user that runs the tests."""
    for name in filter(is_setting, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def gmpd(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gmpd.cli", *args],
        env={**os.environ, **env}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_help_loads_nothing_but_click() -> None:
    """Imports are what takes the time; a clock would only measure the machine."""
    program = (
        "import sys\n"
        "from gmpd.cli import main\n"
        "code = main(['--help'])\n"
        "print(code, *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    code, *loaded = done.stderr.split()
    assert code == "0"
    heavy = {
        "aiohttp", "asyncio", "cloudpickle", "concurrent", "email", "http", "json", "logging",
        "msgpack", "multiprocessing", "numpy", "prometheus_client", "rich", "sqlite3", "subprocess",
        "tomllib", "unittest", "urllib", "zmq",
    }  # fmt: skip
    bare = subprocess.run(
        [sys.executable, "-c", "import sys, click.shell_completion; print(*sys.modules)"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert heavy & {name.partition(".")[0] for name in loaded} <= {
        name.partition(".")[0] for name in bare.stdout.split()
    }
    ours = {name for name in loaded if name.split(".")[0] == "gmpd"}
    assert ours <= {
        "gmpd",
        "gmpd.errors",
        "gmpd.inherited",
        "gmpd.job",
        *(
            f"gmpd.cli{part}"
            for part in ("", ".app", ".commands", ".exits", ".interrupt", ".report")
        ),
    }
    names = [name for commands in COMMANDS.values() for name in commands]
    installed = [name for name in names if importlib.util.find_spec(f"gmpd.cli.{name}")]
    assert installed
    assert all(name in done.stdout for name in installed)


def test_a_shell_can_complete_names_and_options() -> None:
    for typed, expected in (
        ("gmpd do", "doctor"),
        ("gmpd config sh", "show"),
        ("gmpd --ver", "--version"),
    ):
        words = typed.split()
        done = gmpd(
            _GMPD_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1)
        )
        assert f"plain,{expected}" in done.stdout.splitlines(), done


def test_a_reader_that_leaves_is_not_a_failed_job() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "gmpd.cli", "config", "show"],
            stdout=out, stderr=subprocess.PIPE, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (Exit.PIPE, "")


def test_colour_is_off_in_a_pipe_and_on_when_forced() -> None:
    assert "\x1b[" not in gmpd("config", "show", "--origin").stdout
    assert "\x1b[" in gmpd("config", "show", "--origin", FORCE_COLOR="1").stdout
