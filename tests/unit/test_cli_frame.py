"""The command line without a daemon: start, help, errors, exit codes, settings, doctor."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import socket
from pathlib import Path

import click
import pytest

from gmpd import compiled, errors
from gmpd.cli import app, doctor, main, report, status
from gmpd.cli.commands import COMMANDS, cli
from gmpd.cli.exits import Exit, exit_of
from gmpd.config import KEYS, Config
from gmpd.findings import Finding, Level
from gmpd.status import PStatus, read, read_p
from tests.support import is_setting

HERE = {
    name: text
    for commands in COMMANDS.values()
    for name, text in commands.items()
    if importlib.util.find_spec(f"gmpd.cli.{name}") is not None
}


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the settings of the user that runs the tests, and a place of our own."""
    for name in filter(is_setting, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


# -- help and names ------------------------------------------------------------------------------


def test_help_lists_what_is_there_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == Exit.OK
    listed = capsys.readouterr().out
    for commands in COMMANDS.values():
        for name in commands:
            assert (f"\n  {name} " in listed) == (name in HERE), name


@pytest.mark.parametrize("name", sorted(HERE))
def test_a_command_says_in_its_module_what_the_table_says(name: str) -> None:
    command = importlib.import_module(f"gmpd.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(200) == HERE[name]


@pytest.mark.parametrize("name", sorted(HERE))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == Exit.OK
    assert f"Usage: gmpd {name}" in capsys.readouterr().out


def test_a_mistyped_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doktor"]) == Exit.USAGE
    told = capsys.readouterr().err
    assert "error: there is no command 'doktor'; did you mean 'doctor'?" in told
    assert "Try `gmpd --help`." in told


def test_a_command_that_is_not_installed_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    COMMANDS["Setup"]["not_there"] = "x"
    try:
        assert main(["not_there"]) == Exit.USAGE
    finally:
        del COMMANDS["Setup"]["not_there"]
    assert "there is no command 'not_there'" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from gmpd import __version__

    assert main(["--version"]) == Exit.OK
    told = capsys.readouterr().out
    assert told.startswith(f"gmpd {__version__} (Python 3.")
    assert told.endswith(f", {compiled.variant()})\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_our_variable(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completions", shell]) == Exit.OK
    script = capsys.readouterr().out
    assert f"_GMPD_COMPLETE={shell}_complete" in script


def test_completions_know_the_shell_that_is_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["completions"]) == Exit.OK
    assert "fish_complete" in capsys.readouterr().out
    monkeypatch.setenv("SHELL", "/bin/oddsh")
    assert main(["completions"]) == Exit.USAGE
    assert "name your shell: bash, fish, zsh" in capsys.readouterr().err


# -- what runs where -----------------------------------------------------------------------------


def test_status_counts_the_clients_beside_the_one_that_asks() -> None:
    def told(sessions: int) -> str:
        return status.headline(read({"sessions": sessions})).splitlines()[0].rpartition(", ")[2]

    assert [told(n) for n in (1, 2, 1001)] == ["no client", "1 client", "1,000 clients"]


def test_status_tells_of_children_that_moved_once_some_did() -> None:
    ps = [PStatus(0, children={"out": 1204, "in": 0}), PStatus(1, children={"out": 0, "in": 1200})]
    assert status.children_line(ps) == "children that moved: 1,200 began, 1,200 on P1"
    assert status.children_line([PStatus(0, children={"out": 3, "in": 0}), PStatus(1)]) == ""


def test_status_fits_eighty_columns() -> None:
    seen = {
        "version": "1.10.100", "state": "degraded", "pid": 4194304, "uptime_s": 31536000,
        "sessions": 10_000, "queue": {"global": 10_000_000},
        "jobs": {
            "submitted": 123_456_789,
            "finished": {"ok": 120_000_000, "error": 3_000_000, "cancelled": 1000, "timeout": 20},
        },
    }  # fmt: skip
    p = {
        "p": 10, "state": "searching", "pid": 4194304, "core": 127, "fresh": 256, "started": 10_000,
        "ms": 1000, "jobs_finished": 123_456_789, "stolen": 1_234_567, "lost": 1_234_567,
        "running": "shop.warehouse.jobs:recount_everything", "running_s": 12.3,
    }  # fmt: skip
    short = {"p": 1, "state": "idle", "pid": 7, "core": 1, "running": "a:b", "running_s": 0}
    lines = [*status.headline(read(seen)).splitlines(), *status.table([read_p(short)])]
    assert [line for line in lines if len(line) > 80] == []
    assert lines[-1].endswith("a:b (0.0 s)")
    assert "in the global queue" in " ".join(lines)
    assert (
        status.table([read_p(p)])[-1] == "    runs shop.warehouse.jobs:recount_everything (12.3 s)"
    )


# -- how a command ends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 78),
        (errors.StoreBroken("x"), 75),
        (errors.GmpdError("x"), 6),
        (errors.DaemonUnreachable("x"), 3),
        (errors.ProtocolError("x"), 7),
        (errors.QueueFull("x"), 6),
        (errors.NotRegistered("x"), 4),
        (errors.Unserializable("x"), 2),
        (errors.JobTimeout("x"), 5),
        (errors.WorkerLost("x"), 1),
        (errors.InvariantError("x"), 70),
        (ZeroDivisionError("x"), 70),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 141),
        (click.UsageError("x"), 2),
        (SystemExit(143), 143),
        (SystemExit(None), 0),
        (SystemExit("x"), 1),
    ],
)
def test_an_error_ends_with_its_own_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "main", raises)
    monkeypatch.setattr(report, "settle_output", int)  # the PIPE case closes stdout for good
    assert main([]) == code


def test_every_error_of_the_tree_has_a_code() -> None:
    """A new class without an exit code would end as a bug."""
    reasons = {
        "InvariantError",
        "ChanClosed",
        "Deadlock",
        "Panic",
    }  # never reach a command
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.GmpdError) and name not in reasons:
            assert exit_of(kind("x")) is not Exit.BUG, name


def test_an_error_is_a_sentence_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.DaemonUnreachable("no daemon in /x: start one\nsecond line")
    error.add_note("a note")
    report.report(error)
    assert capsys.readouterr().err == (
        "error: no daemon in /x: start one\n  second line\n  a note\n"
    )


def test_an_error_on_a_terminal_is_folded_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_width", lambda: 40)
    report.report(errors.ConfigError("a number of words that need more than a line\nand more"))
    assert capsys.readouterr().err == (
        "error: a number of words that need more\n  than a line\n  and more\n"
    )


def test_a_bug_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    report.report(ZeroDivisionError("boom"))
    told = capsys.readouterr().err
    assert "ZeroDivisionError: boom" in told
    assert "this is a bug in gmpd" in told


def test_the_codes_are_told_in_help(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(f"{code.value} {code.meaning}" in told for code in Exit)


@pytest.mark.parametrize(
    ("env", "color"),
    [
        ({}, None),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, None),
        ({"FORCE_COLOR": "1"}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colour_is_as_the_surroundings_ask(env: dict[str, str], color: bool | None) -> None:
    assert app.color_of(env) is color


# -- gmpd config ---------------------------------------------------------------------------------


def test_show_prints_toml_that_means_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["config", "show"]) == Exit.OK
    shown = tmp_path / "shown.toml"
    shown.write_text(capsys.readouterr().out)
    assert Config.load(env={}, files=[shown]) == Config.load()


def test_show_tells_where_a_value_came_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gmpd.toml").write_text("[limits]\nsessions = 7\n")
    monkeypatch.setenv("GMPD_LIMITS__MAX_GS", "8")
    assert main(["config", "show", "--origin", "--runtime-dir", "/short"]) == Exit.OK
    lines = {
        line.split()[0]: line.split("# ")[-1]
        for line in capsys.readouterr().out.split("\n")
        if "=" in line
    }
    assert lines["sessions"] == f"file {tmp_path}/gmpd.toml:2"
    assert lines["max_gs"] == "environment GMPD_LIMITS__MAX_GS"
    assert lines["runtime_dir"] == "flag"
    assert lines["max_ms"] == "default"


def test_show_knows_json_and_single_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json"]) == Exit.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() == KEYS.keys()
    assert shown["daemon.drain_timeout"]["value"] == 30.0
    assert shown["daemon.drain_timeout"]["layer"] == "default"
    assert main(["config", "show", "limits.queue_bytes"]) == Exit.OK
    assert capsys.readouterr().out == '"1GiB"\n'
    assert main(["config", "show", "limits.queue_byte"]) == Exit.USAGE
    assert "did you mean 'limits.queue_bytes'?" in capsys.readouterr().err


def test_options_are_understood_before_and_after_the_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (
        ["--runtime-dir", "/a", "config", "show"],
        ["config", "show", "--runtime-dir", "/a"],
    ):
        assert main([*words, "daemon.runtime_dir"]) == Exit.OK
        assert capsys.readouterr().out == '"/a"\n'


def test_init_writes_a_template_and_replaces_nothing_unasked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["config", "init"]) == Exit.OK
    assert "gmpd config check gmpd.toml" in capsys.readouterr().err
    assert "# queue_jobs = 1_000_000\n" in (tmp_path / "gmpd.toml").read_text()
    assert main(["config", "check", "gmpd.toml"]) == Exit.OK
    capsys.readouterr()
    (tmp_path / "gmpd.toml").write_text("[daemon]\n")
    assert main(["config", "init"]) == Exit.USAGE
    assert "--force replaces it" in capsys.readouterr().err
    assert (tmp_path / "gmpd.toml").read_text() == "[daemon]\n"
    assert main(["config", "init", "--force", "-q"]) == Exit.OK
    assert "# queue_jobs" in (tmp_path / "gmpd.toml").read_text()
    assert main(["config", "init", "no/such/dir.toml"]) == Exit.CONFIG
    assert main(["config", "init", "-"]) == Exit.OK
    assert "# queue_jobs = 1_000_000\n" in capsys.readouterr().out


def test_check_tells_every_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[limits]\nqueue_job = 1\nsessions = 0\n")
    assert main(["config", "check", str(wrong)]) == Exit.CONFIG
    told = capsys.readouterr().err
    assert f"error: {wrong}:2: unknown key" in told
    assert f"  limits.sessions (file {wrong}:3): 0 is out of range" in told
    assert main(["config", "check", "--json", str(wrong)]) == Exit.CONFIG
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert len(answer["problems"]) == 2


def test_wrong_settings_are_wrong_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", "missing.toml"]) == Exit.CONFIG
    assert "missing.toml: cannot be read: No such file" in capsys.readouterr().err


def test_a_setting_that_is_ignored_is_reported_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`gmpd status` reads the settings to find the daemon, and again to name others."""
    monkeypatch.setenv("GMPD_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("GMPD_FOO__BAR", "1")
    assert main(["status"]) == Exit.UNREACHABLE
    assert capsys.readouterr().err.count("GMPD_FOO__BAR") == 1


# -- gmpd doctor ---------------------------------------------------------------------------------


def finding(about: str, **settings: object) -> Finding:
    flags: dict[str, object] = {"http.listen": "127.0.0.1:0"}
    flags |= {name.replace("__", "."): value for name, value in settings.items()}
    found = doctor.examine(app.App(flags=flags))
    return next(one for one in found if one.about == about)


def test_doctor_finds_nothing_bad_in_good_surroundings(
    capsys: pytest.CaptureFixture[str], short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMPD_HTTP__LISTEN", "127.0.0.1:0")
    code = main(["doctor", "--json", "--runtime-dir", str(short_tmp / "run")])
    found = json.loads(capsys.readouterr().out)
    assert [one for one in found if one["level"] == "bad"] == []
    assert code == Exit.OK
    assert {"packages", "cores", "open files", "runtime dir"} <= {one["about"] for one in found}


def test_doctor_names_the_holder_of_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert doctor.port_holder(port) == os.getpid()
        found = finding("http", http__listen=f"127.0.0.1:{port}")
    assert str(os.getpid()) in found.what
    assert finding("http").level is Level.OK


def test_doctor_tells_a_path_too_long_for_sockets() -> None:
    found = finding("runtime dir", daemon__runtime_dir="/tmp/" + "x" * 100)
    assert found.level is Level.BAD
    assert "ZeroMQ takes at most 107" in found.what


def test_doctor_tells_more_ps_than_cores() -> None:
    found = finding("cores", daemon__procs=4_096)
    assert found.level is Level.WARN
    assert found.fix.startswith("gmpd serve --procs ")


def test_doctor_tells_too_few_descriptors() -> None:
    assert finding("open files", limits__sessions=100_000).level is not Level.OK


@pytest.mark.parametrize(
    ("variant", "level", "what"),
    [
        (compiled.Variant("compiled", by="Cython 3"), "ok", "compiled by Cython 3"),
        (compiled.Variant("pure", why="no C compiler"), "ok", "pure Python: no C compiler"),
        (
            compiled.Variant("pure", why="g.py differs", is_stale=True),
            "warn",
            "pure Python, compiled modules are not used: g.py differs",
        ),
    ],
)
def test_doctor_tells_whether_the_core_is_compiled(
    variant: compiled.Variant, level: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_variant", variant)
    (found,) = [f for f in doctor.examine(app.App()) if f.about == "core"]
    assert (found.level.value, found.what) == (level, what)
    assert bool(found.fix) is (level == "warn")


def test_doctor_looks_on_when_the_settings_are_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMPD_DAEMON__PROCS", "many")
    assert main(["doctor"]) == Exit.CONFIG
    told = capsys.readouterr().out
    assert "bad  settings     daemon.procs (environment GMPD_DAEMON__PROCS): 'many'" in told
    assert "packages" in told
