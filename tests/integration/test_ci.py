"""The scripts that check everything: a part that hangs is ended with all that it started, and tests
that fail once in a while are run once more, and named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import wait_until

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"

HANGS = """
part() {
    bash -c 'setsid sleep 3600 & exec sleep 3600'
    echo "went on"
}
begin hangs part
end_of hangs && exit 9
begin fails false
end_of fails && exit 8
begin second echo "all of it
passed only at the second try: a::b"
end_of second
second_tries
begin ends echo passed
end_of ends
"""


def with_mark(mark: str) -> list[str]:
    """Command lines of processes with this in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:  # it has ended, or is another user's
            continue
    return found


pytestmark = pytest.mark.skipif(
    not SCRIPT.exists(), reason="these tests are not in their repository"
)


def test_a_part_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    functions = SCRIPT.read_text().removesuffix('main "$@"\n')
    assert functions != SCRIPT.read_text()
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_text(functions + HANGS)
    mark = f"GUARD={tmp_path}"
    done = subprocess.run(
        ["bash", str(script)],
        env={**os.environ, "PART_S_MAX": "1", "DUMP_S": "0.1", "GUARD": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hangs: still not over after 1 s" in done.stdout
    assert "sleep 3600" in done.stdout
    assert "went on" not in done.stdout
    assert "all of it\npassed only at the second try: a::b\n" in done.stdout
    assert done.stdout.count("a::b") == 2, "named once more at the end"
    assert done.stdout.endswith("passed\n")
    wait_until(lambda: not with_mark(mark), "nothing of it is left")


# ------------------------------------------------------------------------------- the second try

TESTS = """
import pathlib, pytest

def tried(name):
    with open(f"{name}.tried", "a+") as file:
        file.write("x")
        file.seek(0)
        return len(file.read())

def test_good(): pass
"""
SELDOM = """
def test_seldom(): assert tried("seldom") > 1, "too early"
"""
ALWAYS = """
def test_always(): assert tried("always") > 2
"""
SKIPPED = """
def test_skipped():
    if tried("skipped") > 1: pytest.skip("now")
    assert False
"""
FOUR = """
@pytest.mark.parametrize("n", range(4))
def test_four(n): assert tried(f"four{n}") > 1
"""


def run_tests(top: Path, text: str, **env: str) -> tuple[int, str]:
    """Exit code and output of a run of these tests."""
    (top / ".ci").mkdir()
    shutil.copy(SCRIPT.with_name("tests"), top / ".ci")
    (top / "test_it.py").write_text(text)
    done = subprocess.run(
        [top / ".ci" / "tests", "-q"],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "",
            "SECOND_TRIES": str(top / "told"),
            **env,
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=35,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_test_that_passes_at_the_second_try_is_named(tmp_path: Path) -> None:
    """All others are run, even with ``-x`` in the environment; the first failure stays readable."""
    code, output = run_tests(tmp_path, TESTS + SELDOM, PYTEST_ADDOPTS="-x")
    assert code == 0, output
    named = "passed only at the second try: test_it.py::test_seldom\n"
    assert output.endswith(named)
    assert (tmp_path / "told").read_text() == named
    assert "AssertionError: too early" in output
    assert (tmp_path / "seldom.tried").read_text() == "xx"


@pytest.mark.parametrize(
    ("text", "expected", "tries"),
    [
        (TESTS + SELDOM + ALWAYS, 1, {"seldom": 2, "always": 2}),
        (TESTS + SKIPPED, 1, {"skipped": 2}),
        (TESTS + FOUR, 1, {"four0": 1}),
        (TESTS + SELDOM + "\nimport no_such_module\n", 2, {}),
        ("", 5, {}),
    ],
    ids=["fails again", "is skipped", "four failed", "cannot be collected", "no tests"],
)
def test_all_else_stays_a_failure(
    text: str, expected: int, tries: dict[str, int], tmp_path: Path
) -> None:
    code, output = run_tests(tmp_path, text)
    assert code == expected, output
    assert {name: len((tmp_path / f"{name}.tried").read_text()) for name in tries} == tries
    assert not (tmp_path / "told").exists()
