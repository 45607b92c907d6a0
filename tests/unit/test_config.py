"""The settings: layers, values as written, refusals with their place, documents."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmpd import config as settings
from gmpd.config import (
    KEYS,
    Config,
    Layer,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    render,
    split_address,
)
from gmpd.config.keys import RENAMED
from gmpd.config.places import choose_runtime_dir, choose_state_dir
from gmpd.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "config" / "gmpd.toml"


def load(
    *,
    flags: dict[str, object] | None = None,
    env: dict[str, str] | None = None,
    files: list[Path] | None = None,
) -> Config:
    return Config.load(flags=flags, env=env or {}, files=files or [])


def refused(
    *,
    flags: dict[str, object] | None = None,
    env: dict[str, str] | None = None,
    files: list[Path] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags=flags, env=env, files=files)
    return str(caught.value)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "gmpd.toml"


# -- values as people write them -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("2ms", 0.002),
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("20us", 0.00002),
        ("2 d", 172_800.0),
        ("0", 0.0),
    ],
)
def test_a_duration_is_number_and_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "ms", "10 parsecs", "-1s", "1s 2", "1,5s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write number and unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64MiB", 64 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("10MB", 10_000_000),
        ("4kb", 4_000),
        ("4096", 4_096),
        ("1_000B", 1_000),
        ("0", 0),
    ],
)
def test_a_size_is_number_and_unit(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "10 MiX", "-1KiB", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.integers(0, 10**15))
def test_a_duration_is_read_back_as_it_was_written(microseconds: int) -> None:
    seconds = microseconds / 1_000_000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)


@given(st.integers(0, 2**60))
def test_a_size_is_read_back_as_it_was_written(count: int) -> None:
    assert parse_size(format_size(count)) == count


def test_an_address_may_be_ipv6() -> None:
    assert split_address("127.0.0.1:7412") == ("127.0.0.1", 7412)
    assert split_address("[::1]:0") == ("::1", 0)


@pytest.mark.parametrize("text", ["7412", "localhost", "::1:80", "a:b", "a:65536", ":80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not host:port|has no port"):
        split_address(text)


# -- layers --------------------------------------------------------------------------------------


def test_without_anything_the_defaults_hold() -> None:
    config = load()
    assert config.limits == Config().limits
    assert config.limits.queue_jobs == 1_000_000
    assert config.limits.value_bytes == 512 * 2**20
    assert config.dispatch.credit_work == 0.002
    assert config.http.listen == "127.0.0.1:7412"
    assert config.origin("limits.queue_jobs").layer is Layer.DEFAULT


def test_the_stronger_layer_wins_key_by_key(tmp_path: Path) -> None:
    strong, weak = tmp_path / "strong.toml", tmp_path / "weak.toml"
    weak.write_text("[limits]\nqueue_jobs = 1\nsessions = 1\nmax_gs = 1\nmax_ms = 1\n")
    strong.write_text("[limits]\nqueue_jobs = 2\nsessions = 2\nmax_gs = 2\n")
    config = load(
        flags={"limits.queue_jobs": 4},
        env={"GMPD_LIMITS__QUEUE_JOBS": "3", "GMPD_LIMITS__SESSIONS": "3"},
        files=[strong, weak],
    )
    limits = config.limits
    assert (limits.queue_jobs, limits.sessions, limits.max_gs, limits.max_ms) == (4, 3, 2, 1)
    assert [
        str(config.origin(f"limits.{leaf}"))
        for leaf in ("queue_jobs", "sessions", "max_gs", "max_ms")
    ] == ["flag", "environment GMPD_LIMITS__SESSIONS", f"file {strong}:4", f"file {weak}:5"]


def test_files_are_found_in_the_documented_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    (home / ".config/gmpd").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "gmpd.toml").write_text("[daemon]\nprocs = 2\n")
    (home / ".config/gmpd/config.toml").write_text("[daemon]\nprocs = 3\npin = false\n")
    named = tmp_path / "named.toml"
    named.write_text("[daemon]\nlog_level = 'debug'\n")
    env = {"HOME": str(home), "GMPD_CONFIG": str(named)}
    daemon = Config.load(env=env).daemon
    assert (daemon.procs, daemon.pin, daemon.log_level) == (2, False, "debug")
    named.write_text("[daemon]\nprocs = 1\n")
    assert Config.load(env=env).daemon.procs == 1


def test_an_option_that_was_not_given_says_nothing() -> None:
    config = load(
        flags={"daemon.procs": None, "daemon.imports": ()}, env={"GMPD_DAEMON__PROCS": "7"}
    )
    assert config.daemon.procs == 7


def test_every_kind_of_value_may_stand_in_a_variable() -> None:
    config = load(
        env={
            "GMPD_DAEMON__IMPORTS": "a.jobs, b.jobs",
            "GMPD_DAEMON__PIN": "no",
            "GMPD_LIMITS__QUEUE_BYTES": "2GiB",
            "GMPD_DAEMON__DRAIN_TIMEOUT": "1m",
            "GMPD_HTTP__LISTEN": "[::1]:0",
        }
    )
    assert config.daemon.imports == ("a.jobs", "b.jobs")
    assert config.daemon.pin is False
    assert config.limits.queue_bytes == 2**31
    assert config.daemon.drain_timeout == 60.0
    assert config.http.listen == "[::1]:0"


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[limits]\n# many\nqueue_job = 1\n",
            ":3: unknown key 'limits.queue_job'; did you mean 'limits.queue_jobs'?",
        ),
        ("[limit]\nqueue_jobs = 1\n", ":1: unknown section [limit]; did you mean 'limits'?"),
        ("procs = 4\n", ":1: 'procs' stands outside of a section; did you mean 'daemon.procs'?"),
        (
            "[dispatch]\nmax_gs = 5\n",
            ":2: unknown key 'dispatch.max_gs'; did you mean 'limits.max_gs'?",
        ),
        (
            "[limits]\nworker_memory = '1GiB'\n",
            ":2: unknown key 'limits.worker_memory'; it is called 'recycle.memory' now",
        ),
        (
            "[daemon]\ndrain_timeout = 30\n",
            ':2: daemon.drain_timeout = 30 has no unit; write "30s" or "30ms"',
        ),
        ("[daemon]\nprocs = true\n", "True is not a whole number"),
        ("[daemon]\nprocs = -1\n", "-1 is out of range: at least 0"),
        ("[daemon]\nimports = [1]\n", "[1] is not a list of texts"),
        (
            "[daemon]\nlog_level = 'inf'\n",
            "'inf' is not one of debug, info, warning, error; did you",
        ),
        ("[limits]\nsessions = 1000000\n", "1_000_000 is out of range: at most 100_000"),
        ("[client]\nliveness = '1ms'\n", '"1ms" is out of range: at least "500ms"'),
        ("[limits\n", "not TOML: "),
        ("limits.queue_jobz = 3\n", ":1: unknown key 'limits.queue_jobz'"),
        ("limits = {queue_jobz = 3}\n", ":1: unknown key 'limits.queue_jobz'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(written: Path, text: str, problem: str) -> None:
    written.write_text(text)
    message = refused(files=[written])
    assert str(written) in message
    assert problem in message


def test_all_problems_are_told_at_once_also_hidden_ones(written: Path) -> None:
    written.write_text("[limits]\nqueue_jobs = 0\nnonsense = 1\n[http]\nlisten = 'x'\n")
    lines = refused(flags={"limits.queue_jobs": 5, "no.key": 1}, files=[written]).splitlines()
    assert len(lines) == 4
    assert any("limits.queue_jobs (file" in line for line in lines)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("GMPD_LIMITS__QUEUE_JOB", "GMPD_LIMITS__QUEUE_JOBS"),
        ("GMPD_LIMITS_QUEUE_JOBS", "GMPD_LIMITS__QUEUE_JOBS"),
        ("GMPD_RUNTIME__DIR", "GMPD_RUNTIME_DIR"),
    ],
)
def test_a_mistyped_variable_is_refused(variable: str, meant: str) -> None:
    assert f"unknown variable {variable}; did you mean '{meant}'?" in refused(env={variable: "1"})


def test_a_variable_of_earlier_versions_is_refused_with_its_name_of_today() -> None:
    env = {"GMPD_LIMITS__WORKER_MEMORY": "1GiB"}
    said = "unknown variable GMPD_LIMITS__WORKER_MEMORY; it is called 'GMPD_RECYCLE__MEMORY' now"
    assert said in refused(env=env)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_key_is_known_by_its_new_name_only(old: str, new: str) -> None:
    assert old not in KEYS
    assert new in KEYS


def test_variables_of_others_are_none_of_our_business() -> None:
    env = {"GMPD_PORT": "tcp://10.0.0.1:80", "GMPD_SERVICE_HOST": "10.0.0.1"}
    assert load(env=env) == load()


def test_keys_that_contradict_each_other_are_refused_with_both_origins() -> None:
    message = refused(env={"GMPD_RESTART__BACKOFF_MAX": "50ms"})
    assert 'restart.backoff_min = "100ms" (default) is more than restart.backoff_max' in message
    assert "(environment GMPD_RESTART__BACKOFF_MAX)" in message


@pytest.mark.parametrize("listen", ["0.0.0.0:7411", "[::]:7411", "*:7411"])
def test_every_network_at_once_must_be_allowed(listen: str) -> None:
    flags: dict[str, object] = {"tcp.enabled": True, "tcp.listen": listen}
    with pytest.raises(ConfigError, match=r"set tcp\.all_interfaces = true"):
        load(flags=flags)
    assert load(flags={**flags, "tcp.all_interfaces": True}).tcp.listen == listen
    assert load(flags={"tcp.listen": listen}).tcp.listen == listen, "it does not listen"


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Config.load(env={}, config_file=tmp_path / "missing.toml")


def test_a_file_that_anybody_may_write_is_not_read(written: Path) -> None:
    written.write_text("[daemon]\nimports = ['evil']\n")
    written.chmod(0o666)
    assert f"chmod o-w {written}" in refused(files=[written])


def test_a_found_file_of_a_stranger_is_not_read(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.write_text("[daemon]\nimports = ['evil']\n")
    monkeypatch.chdir(written.parent)
    if os.geteuid() == 0:
        os.chown(written, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(ConfigError, match=r"belongs to uid .*, so it is not read unasked"):
        Config.load(env={"HOME": str(written.parent)})


def test_a_file_must_be_utf8(written: Path) -> None:
    written.write_bytes(b"# caf\xe9\n")
    assert "not UTF-8 at byte 5" in refused(files=[written])


# -- directories ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "uid", "own", "chosen"),
    [
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/x"}, 5, ["/x"], "/run/a"),
        ({"XDG_RUNTIME_DIR": "/run/user/5"}, 5, ["/run/user/5"], "/run/user/5/gmpd"),
        ({"XDG_RUNTIME_DIR": "/run/user/5"}, 5, [], "/tmp/gmpd-5"),
        ({"XDG_RUNTIME_DIR": "/run/user/5"}, 0, ["/run"], "/run/gmpd"),
        ({}, 0, ["/run"], "/run/gmpd"),
        ({}, 0, [], "/tmp/gmpd-0"),
        ({}, 5, ["/run"], "/tmp/gmpd-5"),
        ({}, 5, ["/run/user/5"], "/tmp/gmpd-5"),
        ({}, 5, ["/run/user/5/gmpd", "/run/gmpd"], "/run/user/5/gmpd"),  # cron, beside a session
        ({}, 5, ["/run/gmpd"], "/run/gmpd"),  # a service, beside the one of gmpd
        ({"XDG_RUNTIME_DIR": "/run/user/5"}, 5, ["/run/user/5", "/run/gmpd"], "/run/user/5/gmpd"),
    ],
)
def test_the_runtime_directory_is_the_first_that_is_ours(
    env: dict[str, str], uid: int, own: list[str], chosen: str
) -> None:
    assert choose_runtime_dir(env, uid, own.__contains__)[0] == chosen


def test_a_said_runtime_directory_is_stronger_than_a_chosen_one() -> None:
    config = load(env={"GMPD_RUNTIME_DIR": "/short", "RUNTIME_DIRECTORY": "/run/gmpd"})
    assert config.daemon.runtime_dir == "/short"
    assert str(config.origin("daemon.runtime_dir")) == "environment GMPD_RUNTIME_DIR"


def test_an_empty_runtime_directory_is_chosen_and_says_why() -> None:
    config = load(env={"GMPD_RUNTIME_DIR": "", "RUNTIME_DIRECTORY": "/run/gmpd"})
    assert config.daemon.runtime_dir == "/run/gmpd"
    assert str(config.origin("daemon.runtime_dir")) == "system $RUNTIME_DIRECTORY"


def test_the_state_directory_follows_systemd_then_the_user() -> None:
    assert choose_state_dir({"STATE_DIRECTORY": "/s", "XDG_STATE_HOME": "/x"})[0] == "/s"
    assert choose_state_dir({"XDG_STATE_HOME": "/x"})[0] == "/x/gmpd"
    assert choose_state_dir({"HOME": "/h"})[0] == "/h/.local/state/gmpd"


def test_a_key_that_is_like_none_is_not_taken_for_one(written: Path) -> None:
    """That both begin with the section's name says nothing."""
    written.write_text("limits.nix = 3\n")
    assert refused(files=[written]).endswith("unknown key 'limits.nix'")


# -- the object and its documents ----------------------------------------------------------------


def test_it_crosses_to_a_child_process_unchanged() -> None:
    config = load(flags={"daemon.imports": ["a", "b"], "limits.queue_bytes": "3MiB"})
    assert Config.from_wire(config.to_wire()) == config
    with pytest.raises(ConfigError, match=r"unknown key 'limits\.new'"):
        Config.from_wire({"limits": {"new": 1}})


def test_some_keys_can_be_changed_later() -> None:
    config = load(flags={"restart.backoff_min": "1ms"})
    changed = config.override({"restart.backoff_max": "5ms", "daemon.procs": 3})
    assert (changed.restart.backoff_min, changed.restart.backoff_max) == (0.001, 0.005)
    assert changed.daemon.procs == 3
    assert config.daemon.procs == 0
    with pytest.raises(ConfigError, match="out of range"):
        config.override({"daemon.procs": -3})


def test_the_shipped_file_is_what_the_catalogue_renders() -> None:
    assert SHIPPED.read_text() == render(), "write it anew: gmpd.config.render()"


def test_the_shipped_file_holds_every_key_with_its_default() -> None:
    document = tomllib.loads(SHIPPED.read_text())
    assert {f"{s}.{leaf}" for s, table in document.items() for leaf in table} == set(KEYS)
    config = load(files=[SHIPPED])
    assert {name for name in KEYS if config.value(name) != KEYS[name].default} <= {
        "daemon.runtime_dir",
        "daemon.state_dir",
        "tcp.keys",
    }


def test_a_template_sets_nothing() -> None:
    assert tomllib.loads(render(active=False)) == {section: {} for section in settings.SECTIONS}
