"""gmpd.daemon.reload and gmpd.config.live: what a running daemon takes over, and its log file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gmpd.config import Config
from gmpd.config.keys import KEYS
from gmpd.config.live import LIVE, take_over
from gmpd.daemon.notify import Notifier
from gmpd.daemon.recycling import Told
from gmpd.daemon.reload import Reloads
from gmpd.errors import ConfigError
from gmpd.logfile import LogFile


class Daemon:
    def __init__(self) -> None:
        self.config = Config()
        self.draining = False
        self.log: list[Any] = []
        self.told: list[Told | None] = []

    def configure(self, config: Config) -> None:
        self.config = config
        self.log.append("configured")

    def resize(self, procs: int) -> int:
        self.log.append(procs)
        return 1

    def replace_workers(self, why: str, told: Told | None) -> int:
        self.log.append(why)
        self.told.append(told)
        return 3


def reloads(daemon: Daemon, **settings: object) -> Reloads:
    def reread() -> Config:
        return Config().override({k.replace("__", "."): v for k, v in settings.items()})

    def reopen() -> None:
        daemon.log.append("reopen")

    return Reloads(daemon, reread, lambda config: config.daemon.procs, Notifier(""), reopen)


def test_every_live_key_is_a_key() -> None:
    assert KEYS.keys() >= LIVE


def test_live_keys_are_taken_over_and_the_others_named() -> None:
    old = Config()
    new = old.override(
        {"recycle.jobs": 7, "limits.queue_jobs": 5, "daemon.imports": ("m",), "client.liveness": 3}
    )
    taken, live, rest = take_over(old, new)
    assert (live, rest) == (["daemon.imports", "recycle.jobs"], ["limits.queue_jobs"])
    assert (taken.recycle.jobs, taken.daemon.imports) == (7, ("m",))
    assert taken.limits.queue_jobs == old.limits.queue_jobs


def test_a_reload_says_what_it_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    daemon = Daemon()
    over: list[str] = []
    caplog.set_level(logging.INFO)
    settings = {"daemon__procs": 5, "limits__queue_jobs": 9}
    assert reloads(daemon, **settings).reload("asked", over.append) == 3
    assert daemon.log == ["reopen", "configured", 5, "asked"]
    assert "daemon.procs = 5 from now on" in caplog.text
    assert "limits.queue_jobs has changed: it needs a restart" in caplog.text
    (told,) = daemon.told
    assert told is not None
    told("")
    assert over == [""]
    assert "all workers are new" in caplog.text


def test_wrong_settings_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    daemon = Daemon()
    wrong = reloads(daemon, recycle__jobs=-1)
    with pytest.raises(ConfigError, match=r"recycle\.jobs"):
        wrong.reload("asked")
    wrong.on_signal()
    assert "nothing is reloaded: recycle.jobs" in caplog.text
    assert daemon.log == ["reopen"] * 2


def test_a_daemon_that_drains_reloads_nothing() -> None:
    daemon = Daemon()
    daemon.draining = True
    with pytest.raises(ConfigError, match="drains"):
        reloads(daemon).reload("asked")


@pytest.fixture
def log_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    yield fd
    os.close(fd)


def test_a_log_that_was_moved_away_is_made_again(tmp_path: Path, log_fd: int) -> None:
    file = LogFile(log_fd)
    os.write(log_fd, b"one\n")
    file.reopen()
    os.write(log_fd, b"two\n")
    (tmp_path / "log").rename(tmp_path / "log.1")
    file.reopen()
    os.write(log_fd, b"three\n")
    assert (tmp_path / "log.1").read_text() == "one\ntwo\n"
    assert (tmp_path / "log").read_text() == "three\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


def test_a_log_whose_directory_is_gone_goes_on(
    tmp_path: Path, log_fd: int, caplog: pytest.LogCaptureFixture
) -> None:
    file = LogFile(log_fd)
    (tmp_path / "log").unlink()
    tmp_path.rename(f"{tmp_path}.away")
    file.reopen()
    os.write(log_fd, b"still open\n")
    assert "cannot be opened again: No such file or directory" in caplog.text
    Path(f"{tmp_path}.away").rename(tmp_path)


def test_a_pipe_is_no_log_file() -> None:
    reader, writer = os.pipe()
    LogFile(writer).reopen()
    os.write(writer, b"x")
    os.close(writer)
    os.close(reader)
