"""The command line where no daemon runs, and where the settings are broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmpd.cli.exits import Exit
from tests.shell import Shell


@pytest.fixture
def bare(short_tmp: Path) -> Shell:
    (short_tmp / "words.py").write_text(
        "def shout(text):\n    print('said', text)\n    return text.upper()\n"
    )
    return Shell(short_tmp)


@pytest.mark.parametrize(
    ("words", "stdin", "out"),
    [
        (("submit", "words:shout", "hi"), "", "HI\n"),
        (("map", "words:shout"), "a\nb\n", "A\nB\n"),
        (("run", "--", "echo", "hi"), "", "hi\n"),
    ],
)
def test_a_command_that_starts_jobs_starts_a_private_daemon_and_says_so(
    bare: Shell, words: tuple[str, ...], stdin: str, out: str
) -> None:
    done = bare(*words, stdin=stdin)
    assert (done.returncode, done.stdout) == (0, out), done.stderr
    assert done.stderr.count("started a private daemon (pid ") == 1
    assert str(bare.directory / "run") in done.stderr
    assert done.stderr.count("said") == out.count("\n") * ("words:shout" in words)


def test_a_private_daemon_can_be_forbidden_and_its_line_hidden(bare: Shell) -> None:
    bare.env["GMPD_CLIENT__ANNOUNCE"] = "false"
    quiet = bare("run", "--", "true")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    bare.env["GMPD_CLIENT__AUTOSTART"] = "false"
    refused = bare("run", "--", "true")
    assert refused.returncode == Exit.UNREACHABLE
    assert "no daemon in" in refused.stderr


def test_a_broken_settings_file_keeps_nobody_from_the_daemon(bare: Shell) -> None:
    up = bare("up", "--procs", "1")
    assert up.returncode == 0, up.stderr
    (bare.directory / "gmpd.toml").write_text("[limits\n")
    try:
        for words in (("status",), ("health",), ("stacks",)):
            done = bare(*words)
            assert done.returncode == 0, done.stderr
            assert "gmpd.toml: not TOML" in done.stderr
        refused = bare("submit", "words:shout", "x")  # it would start work with other settings
        assert refused.returncode == Exit.CONFIG
        assert "gmpd.toml: not TOML" in refused.stderr
    finally:
        down = bare("down")
    assert (down.returncode, "gmpd is down" in down.stderr) == (0, True), down.stderr
