"""A daemon to be watched, and its watchers: a real browser with the page open, top, readers.

Used by ``watching.py`` and ``watched_hour.py``.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gmpd import rundir
from gmpd.errors import DaemonUnreachable

ROOT = Path(__file__).parents[1]

#: Of the browser: it may run as root, and without a display.
FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--enable-precise-memory-info",
)


class Watched:
    """A daemon of two Ps with the functions of the load tests, and where it is."""

    def __init__(self, directory: str, **settings: str) -> None:
        self.directory = directory
        self.env = {
            **os.environ,
            "GMPD_RUNTIME_DIR": directory,
            "GMPD_STATE_DIR": f"{directory}/state",
            "GMPD_HTTP__LISTEN": "127.0.0.1:0",
            "GMPD_DAEMON__PROCS": "2",
            "GMPD_DAEMON__IMPORTS": "loadtests.jobs",
            "PYTHONPATH": str(ROOT),
            **settings,
        }
        self._log = (Path(directory) / "stderr").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gmpd.cli", "serve"],
            env=self.env, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.pid = self._process.pid
        self.url = self._where()
        self.gateway = next(pid for pid, text in children(self.pid) if "gmpd.gateway" in text)

    def _where(self) -> str:
        end = time.monotonic() + 60
        while True:
            try:
                if url := rundir.read_discovery(self.directory).http:
                    return url
            except DaemonUnreachable:
                pass
            if self._process.poll() is not None or time.monotonic() > end:
                self._log.seek(0)
                code = self._process.poll()
                raise SystemExit(f"the daemon did not start ({code}): {self._log.read()}")
            time.sleep(0.05)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


@contextmanager
def watched(**settings: str) -> Iterator[Watched]:
    """A daemon in a directory of its own while in the ``with``."""
    with tempfile.TemporaryDirectory(prefix="gl-", dir="/tmp") as directory:
        daemon = Watched(directory, **settings)
        try:
            yield daemon
        finally:
            daemon.close()


def children(parent: int) -> list[tuple[int, str]]:
    """All processes below one, with their command lines."""
    lines: dict[int, str] = {}
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        pid = int(entry.name)
        lines[pid] = text
        below.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(pid)
    found, left = [], [parent]
    while left:
        more = below.get(left.pop(), [])
        left += more
        found += [(pid, lines[pid]) for pid in more]
    return found


class Top:
    """`gmpd top` in a terminal of its own while in the ``with``."""

    def __init__(self, daemon: Watched) -> None:
        self._daemon = daemon

    def __enter__(self) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gmpd.cli", "top"],
            env={**self._daemon.env, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"},
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        shown = threading.Event()
        self._drain = threading.Thread(target=self._read, args=(shown,))
        self._drain.start()
        if not shown.wait(60):
            raise SystemExit("gmpd top has shown nothing")

    def _read(self, shown: threading.Event) -> None:
        text = b""
        with suppress(OSError):  # the other end has closed
            while block := os.read(self._ours, 1 << 16):
                text = text[-4096:] + block
                if b"P1" in text:
                    shown.set()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._drain.join()
        os.close(self._ours)


class Browser:
    """A Chromium with pages of a daemon, each in a context of its own."""

    def __init__(self, url: str) -> None:
        from playwright.sync_api import sync_playwright

        self._url = url
        self._playwright = sync_playwright().start()
        self._chromium = self._playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=list(FLAGS),
        )

    def open(self, view: str = "/") -> Any:
        """One more page, once it has heard of the daemon."""
        page = self._chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.set_default_timeout(60_000)
        self.show(page, view)
        return page

    def show(self, page: Any, view: str = "/") -> None:
        """The daemon's page, in a tab that is open; see ``blank``."""
        page.goto(f"{self._url}/#{view}")
        page.wait_for_selector("body[data-link=live][data-seq]")

    def blank(self, page: Any) -> None:
        """The tab shows nothing."""
        page.goto("about:blank")

    def close(self) -> None:
        """End it."""
        self._chromium.close()
        self._playwright.stop()
