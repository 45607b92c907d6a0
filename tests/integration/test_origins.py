"""One daemon, several projects: nobody's job runs another project's code, nor what was edited."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmpd.client.private import PrivateDaemon
from gmpd.config import Config

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import gmpd, tasks

with gmpd.Client(sys.argv[1]) as client:
    for call in (tasks.who, lambda: tasks.who()):
        try:
            print(client.submit(call).result())
        except gmpd.errors.NotRegistered as error:
            print("refused:", str(error).splitlines()[0])
"""


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateDaemon]:
    """It stands in project "a", which it was started for."""
    for name in ("a", "b", "same"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "script.py").write_text(textwrap.dedent(SCRIPT))
        who = "a" if name == "same" else name
        (tmp_path / name / "tasks.py").write_text("import helper\ndef who(): return helper.NAME\n")
        (tmp_path / name / "helper.py").write_text(f"NAME = {who!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "a"))
    monkeypatch.setenv("GMPD_DAEMON__PROCS", "1")
    started = PrivateDaemon(Config.load())
    yield started
    started.close()


def ask(daemon: PrivateDaemon, project: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "script.py", daemon.endpoint],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        cwd=project,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_another_project_is_refused_by_name_and_an_equal_one_is_not(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    for _ in range(2):
        refused = ask(daemon, tmp_path / "b")
        assert len(refused) == 2
        for line in refused:
            assert line.startswith("refused: ")
            assert str(tmp_path / "b" / "") in line
            assert str(tmp_path / "a" / "") in line
            assert "private daemon" in line
        assert ask(daemon, tmp_path / "a") == ["a", "a"]
        assert ask(daemon, tmp_path / "same") == ["a", "a"]


@pytest.mark.parametrize("file", ["tasks.py", "helper.py"])
def test_what_was_edited_while_the_daemon_runs_is_refused(
    daemon: PrivateDaemon, tmp_path: Path, file: str
) -> None:
    assert ask(daemon, tmp_path / "a") == ["a", "a"]
    edited = tmp_path / "a" / file
    edited.write_text(edited.read_text() + "\n# edited\n")
    for line in ask(daemon, tmp_path / "a"):
        assert "was changed after it was imported" in line
        assert str(edited) in line
        assert "gmpd down" in line
