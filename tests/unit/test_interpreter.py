"""Where what gmpd starts looks for modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gmpd import interpreter

HOME = str(Path(interpreter.__file__).parents[1])


def test_the_current_directory_is_not_looked_into() -> None:
    assert interpreter.command("gmpd.cli", "up") == [sys.executable, "-P", "-m", "gmpd.cli", "up"]


def test_what_jobs_want_stands_before_installed_packages_and_behind_the_library() -> None:
    own = ["/lib/python3.11", "/v/site-packages", "/editable"]
    wanted = ["/work", "/lib/python3.11", "/editable", "/work"]
    assert interpreter.jobs_path(own, wanted) == [
        "/lib/python3.11", "/work", "/v/site-packages", "/editable",
    ]  # fmt: skip
    assert interpreter.jobs_path(["/lib"], ["/work"]) == ["/lib", "/work"]


@pytest.mark.parametrize(
    ("path", "named"),
    [([HOME, "/lib"], True), (["/bin", HOME], False), ([HOME, "/lib", HOME], False)],
)
def test_a_gmpd_that_only_the_script_can_see_is_found_again(
    monkeypatch: pytest.MonkeyPatch, path: list[str], named: bool
) -> None:
    monkeypatch.setattr(sys, "path", path)
    env = interpreter.environment({"PYTHONPATH": "/x"})
    assert env["PYTHONPATH"] == (f"/x{os.pathsep}{HOME}" if named else "/x")
