"""One daemon, several projects: no job runs another project's code, nor code that was edited."""

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

#: A class that only the arguments, the globals or the closure name. Each line runs in a session of
#: its own: what one has imported is another's to meet.
VALUES = """
import sys
import gmpd, models

thing = models.Model()
things = {"a": [thing]}

def ask(thing): return thing.who()
def use_global(): return things["a"][0].who()
def closed(thing=thing): return lambda: thing.who()
def late():
    import lazy
    return lazy.who()

calls = [
    ("argument", ask, thing), ("nested", lambda d: d["x"][0].who(), {"x": (thing, 1)}),
    ("named", repr, thing), ("method", thing.who), ("global", use_global), ("closure", closed()),
    ("class", lambda cls: cls().who(), models.Model), ("late", late),
]
for name, call, *args in calls:
    with gmpd.Client(sys.argv[1]) as client:
        try:
            print(name, client.submit(call, *args).result())
        except gmpd.errors.NotRegistered as error:
            print(name, "refused:", str(error).splitlines()[0])
"""

MODELS = """
import base
class Model(base.Base):
    def who(self): return {0!r}
    def __repr__(self): return self.who()
"""


#: Modules that functions import when they run, or of which a module has only values.
DEFERRED = """
import os, sys
import gmpd
{imports}

if os.environ.get("LOADED"):
    import lazy, package.inner
for name in sys.argv[2:]:
    with gmpd.Client(sys.argv[1]) as client:
        try:
            print(name, client.submit(getattr(sys.modules["by_" + name], "who")).result())
        except gmpd.errors.NotRegistered as error:
            print(name, "refused:", str(error).splitlines()[0])
"""

#: The same in all projects.
BY_NAME = {
    "function": "def who():\n    import lazy\n    return lazy.who()\n",
    "method": "class C:\n    @staticmethod\n    def who():\n        from lazy import who\n"
    "        return who()\nwho = C.who\n",
    "value": "from lazy import NAME\ndef who(): return NAME\n",
    "package": "def who():\n    from package import inner\n    return inner.who()\n",
    "through": "def who():\n    import between\n    return between.who()\n",
}


def write_deferred(project: Path, who: str) -> None:
    modules = ", ".join(f"by_{each}" for each in BY_NAME)
    (project / "deferred.py").write_text(DEFERRED.format(imports=f"import {modules}"))
    for each, text in BY_NAME.items():
        (project / f"by_{each}.py").write_text(text)
    (project / "between.py").write_text(BY_NAME["function"])
    (project / "package").mkdir()
    (project / "package" / "__init__.py").touch()
    inner = "from .deep import NAME\ndef who(): return NAME\n"
    (project / "package" / "inner.py").write_text(inner)
    (project / "package" / "deep.py").write_text(f"NAME = {who!r}\n")


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateDaemon]:
    """It stands in project "a", which it was started for."""
    for name in ("a", "b", "same"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "script.py").write_text(textwrap.dedent(SCRIPT))
        (tmp_path / name / "values.py").write_text(textwrap.dedent(VALUES))
        who = "a" if name == "same" else name
        (tmp_path / name / "models.py").write_text(textwrap.dedent(MODELS.format(who)))
        write_deferred(tmp_path / name, who)
        (tmp_path / name / "lazy.py").write_text(f"NAME = {who!r}\ndef who(): return NAME\n")
        (tmp_path / name / "tasks.py").write_text("import helper\ndef who(): return helper.NAME\n")
        (tmp_path / name / "base.py").write_text("class Base: pass\n")
        (tmp_path / name / "helper.py").write_text(f"NAME = {who!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "a"))
    monkeypatch.setenv("GMPD_DAEMON__PROCS", "1")
    started = PrivateDaemon(Config.load())
    yield started
    started.close()


def ask(
    daemon: PrivateDaemon, project: Path, script: str = "script.py", *arguments: str
) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, script, daemon.endpoint, *arguments],
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


def test_values_of_another_projects_classes_are_refused_too(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    for _ in range(2):  # before the workers have imported any of it, and after
        lines = ask(daemon, tmp_path / "b", "values.py")
        assert len(lines) == 8
        for line in lines:
            assert line.split()[1] == "refused:", line
            assert str(tmp_path / "b" / "") in line
        for equal in ("a", "same"):
            lines = ask(daemon, tmp_path / equal, "values.py")
            assert [line.split()[1] for line in lines] == ["a"] * 8


def test_what_equal_modules_import_is_compared_too(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """The module of a class is the same in both projects; that of its base is not."""
    (tmp_path / "same" / "base.py").write_text("class Base: other = True\n")
    for line in ask(daemon, tmp_path / "same", "values.py")[:-1]:
        assert line.split()[1] == "refused:", line
        assert str(tmp_path / "same" / "base.py") in line


def test_what_functions_by_name_import_when_they_run_is_compared(
    daemon: PrivateDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the client and the worker have imported it, and after."""
    for loaded in ("", "yes"):
        monkeypatch.setenv("LOADED", loaded)
        for line in ask(daemon, tmp_path / "b", "deferred.py", *BY_NAME):
            assert line.split()[1] == "refused:", line
            assert str(tmp_path / "b" / "") in line
        if not loaded:
            lines = ask(daemon, tmp_path / "same", "deferred.py", *BY_NAME)
            assert lines == [f"{each} a" for each in BY_NAME]
