"""`gmpd top` by textual with recorded looks; both faces of it in a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from gmpd.cli.exits import Exit
from gmpd.cli.top_app import DetailScreen, HelpScreen, TopApp
from gmpd.cli.top_view import COLUMNS, Facts, Found, Pane, View
from gmpd.status import Cluster, HostStatus
from tests.durable_daemon import Daemon
from tests.recorded_looks import KEYS, RecordedLooks, facts
from tests.support import wait_until

Story = Callable[[TopApp, Pilot[None], RecordedLooks], Awaitable[None]]


def play(story: Story, size: tuple[int, int] = (80, 24), words: str = "") -> None:
    """Run the app with recorded looks, five a second."""

    async def main() -> None:
        looks = RecordedLooks()
        app = TopApp(View(words=words), looks, facts(Pane.PS), 0.2)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: looks.asked)
            await story(app, pilot, looks)
            if not app._exit:
                await pilot.press("q")
        assert app.return_code == 0

    asyncio.run(main())


async def until(pilot: Pilot[None], fact: Callable[[], Any]) -> None:
    async with asyncio.timeout(100):
        while not fact():
            await pilot.pause(0.01)


def shown(app: TopApp) -> list[list[str]]:
    """The rows of the table as texts."""
    table = app.query_one(DataTable)
    return [[str(cell).strip() for cell in table.get_row_at(n)] for n in range(table.row_count)]


def text_of(app: TopApp, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).content)


def is_open(app: TopApp, kind: type[object]) -> bool:
    return isinstance(app.screen, kind)


def heads(app: TopApp) -> list[str]:
    return [str(column.label).strip() for column in app.query_one(DataTable).columns.values()]


def test_every_table_has_its_rows_and_asks_for_no_more_than_it_shows() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        assert [row[0] for row in shown(app)] == ["P0", "P1"]
        for n, pane in enumerate(Pane, 1):
            await pilot.press(str(n))
            await until(pilot, lambda: looks.asked[-1][0] is app.view.pane)
            assert app.view.pane is pane
            assert [head.rstrip("▲▼") for head in heads(app)] == [*COLUMNS[pane]]
            if pane in KEYS:
                await until(pilot, lambda: shown(app))
        assert "nothing to warn of" in text_of(app, "#note")
        await pilot.press("tab")
        assert app.view.pane is Pane.PS
        await pilot.press("shift+tab", "t")
        assert app.view.pane is Pane.PS
        assert {found for _, found in looks.asked} == {None}

    play(story)


def test_keys_sort_invert_and_filter() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        await pilot.press("i")
        assert [row[0] for row in shown(app)] == ["P1", "P0"]
        assert heads(app)[0] == "P▼"
        await pilot.press("right", "l", "left")
        assert heads(app)[1] == "STATE▼"
        await pilot.press("2")
        await until(pilot, lambda: len(shown(app)) > 2)
        await pilot.press("slash", *"QRes", "t", "q")
        assert app.query_one(Input).value == "QRestq", "letters are letters"
        assert shown(app) == []
        assert "nothing has 'QRestq' in it" in text_of(app, "#note")
        await pilot.press("backspace", "backspace", "home", "delete", "enter")
        assert [row[0] for row in shown(app)] == ["shop.work:resize"]
        await pilot.press("escape")
        assert len(shown(app)) > 2

    play(story)


EXPECTED = {
    Pane.PS: "Hand-offs to another M", Pane.FUNCTIONS: "scheduling wait",
    Pane.GS: "Why it is where it is", Pane.JOBS: "attempt 1: running",
    Pane.FAILURES: "ValueError: no 3",
}  # fmt: skip


async def show_detail(
    app: TopApp, pilot: Pilot[None], looks: RecordedLooks, pane: Pane, key: str
) -> None:
    """Of a row, and back."""
    await pilot.press(str([*Pane].index(pane) + 1))
    await until(pilot, lambda: shown(app))
    table = app.query_one(DataTable)
    table.move_cursor(row=table.get_row_index(key))
    await pilot.press("enter")
    assert is_open(app, DetailScreen)
    await until(pilot, lambda: looks.asked[-1] == (pane, Found(pane, key)))
    await until(pilot, lambda: EXPECTED[pane] in text_of(app, "#body"))
    if pane is Pane.PS:
        await pilot.press("s")
        await until(pilot, lambda: "goroutine 24" in text_of(app, "#body"))
    await pilot.press("j", "k", "escape")
    assert not is_open(app, DetailScreen)
    assert app.view.detail is None
    await until(pilot, lambda: looks.asked[-1] == (pane, None))


def test_enter_shows_the_detail_of_a_row_and_escape_goes_back() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        for pane, key in KEYS.items():
            await show_detail(app, pilot, looks, pane, key)

    play(story)


def test_the_cursor_stays_on_its_row_and_only_changes_are_drawn() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        table = app.query_one(DataTable)
        await pilot.press("j")
        assert table.cursor_row == 1
        columns = [*table.columns.values()]

        def busier(seen: Facts) -> None:
            seen.now.ps[1].runq = 77

        looks.change = busier
        await until(pilot, lambda: shown(app)[1][3] == "77")
        assert [*table.columns.values()] == columns, "not built anew"

        def turned(seen: Facts) -> None:
            seen.now.ps[0].p, seen.now.ps[1].p = 1, 0

        looks.change = turned
        await pilot.press("i")
        await until(pilot, lambda: table.cursor_row == 0)
        assert shown(app)[0][0] == "P1"

    play(story)


def test_hosts_come_and_go_below_the_ps_and_have_details() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        def joined(seen: Facts) -> None:
            hosts = [HostStatus("tcp://b:1", 8, "running", p=32768, started=6)]
            seen.now.cluster = Cluster("dask", "tcp://a:1", "", hosts)

        looks.change = joined
        await until(pilot, lambda: [row[0] for row in shown(app)] == ["P0", "P1", "host"])
        assert "tcp://b:1: 8 cores" in shown(app)[2][9]
        await pilot.press("slash", *"b:1", "enter")
        assert [row[0] for row in shown(app)] == ["host"]
        await pilot.press("enter")
        await until(pilot, lambda: "work for 6 of 8 cores" in text_of(app, "#body"))
        await pilot.press("s")
        assert app.view.detail == Found(Pane.PS, "host tcp://b:1")
        looks.change = lambda _facts: None
        await until(pilot, lambda: "no such host" in text_of(app, "#body"))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: [row[0] for row in shown(app)] == ["P0", "P1"])

    play(story, size=(120, 24))


def test_pause_stops_looking_and_help_lists_the_keys() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        await pilot.press("space")
        assert "paused" in text_of(app, "#head")
        before = 0
        while before != len(looks.asked):  # a look under way ends, and no other one begins
            before = len(looks.asked)
            await pilot.pause(0.6)
        await pilot.press("question_mark")
        assert is_open(app, HelpScreen)
        await pilot.press("escape")
        assert not is_open(app, HelpScreen)
        await pilot.press("enter")  # a detail is asked for once
        await until(pilot, lambda: looks.asked[-1][1] is not None)
        await pilot.press("escape", "space")
        await until(pilot, lambda: len(looks.asked) > before + 3)

    play(story)


def test_a_daemon_that_goes_away_is_said_to_and_comes_back() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        looks.gone = True
        await until(pilot, lambda: "looking for it" in text_of(app, "#head"))
        assert len(shown(app)) == 2, "the last look stays"
        await pilot.press("enter")
        assert is_open(app, DetailScreen)
        await until(pilot, lambda: "looking for it" in text_of(app, "#title"))
        looks.gone = False
        await until(pilot, lambda: "looking for it" not in text_of(app, "#title"))
        await pilot.press("escape")
        await until(pilot, lambda: "looking for it" not in text_of(app, "#head"))

    play(story)


def test_keys_are_heard_while_a_daemon_does_not_answer() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        looks.answers.clear()
        n = len(looks.asked)
        await until(pilot, lambda: len(looks.asked) > n)
        await pilot.press("i", "3", "1")
        assert [row[0] for row in shown(app)] == ["P1", "P0"]
        await pilot.press("q")  # without waiting for the look
        looks.answers.set()

    play(story)


async def fits(app: TopApp, pilot: Pilot[None], width: int, height: int) -> None:
    """All tables in a terminal of this size; a narrow one shows the first columns."""
    await pilot.resize_terminal(width, height)
    table = app.query_one(DataTable)
    for n in range(1, len(Pane) + 1):
        await pilot.press(str(n))
        await until(pilot, lambda: table.virtual_size.width <= max(width, 80))


def test_the_last_column_fits_any_terminal() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        for width, height in ((80, 24), (200, 60), (40, 10)):
            await fits(app, pilot, width, height)

    play(story)


def test_a_click_on_a_heading_sorts() -> None:
    async def story(app: TopApp, pilot: Pilot[None], looks: RecordedLooks) -> None:
        await pilot.click(DataTable, offset=(1, 0))
        assert heads(app)[0] == "P▼"
        await pilot.press("ctrl+c")

    play(story)


# -- in a terminal ---------------------------------------------------------------------------------


class Terminal:
    """A command in a terminal of 80 by 24."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execve(command[0], command, env)
        self.seen = b""

    def sees(self, text: str) -> bool:
        while self.fd >= 0 and select.select([self.fd], [], [], 0)[0]:
            try:
                self.seen += os.read(self.fd, 1 << 16)
            except OSError:  # it has ended
                break
        return text.encode() in self.seen

    def press(self, keys: bytes) -> None:
        self.seen = b""
        os.write(self.fd, keys)

    def end(self) -> int:
        """Its exit code, in its own time."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.sees("")  # else it waits for its reader
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.sees("")
                os.close(self.fd)
                self.fd = -1
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(self.pid, 9)
        raise AssertionError(f"it does not end: {self.seen[-2000:]!r}")


NO_TEXTUAL = """
import sys
from importlib.abc import MetaPathFinder
class No(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "textual":
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, No())
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="top", dir="/tmp") as directory:
        place = Path(directory)
        (place / "without").mkdir()
        (place / "without/sitecustomize.py").write_text(NO_TEXTUAL)
        with Daemon(place, TERM="xterm-256color") as daemon:
            daemon.client(name="nightly").submit(abs, -1).result(60)
            yield daemon


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "plain"])
def test_it_shows_a_daemon_and_the_detail_of_a_p_in_a_terminal(
    served: Daemon, is_full: bool
) -> None:
    env = dict(served.env)
    if not is_full:
        env["PYTHONPATH"] = f"{served.directory / 'without'}:{env['PYTHONPATH']}"
    terminal = Terminal([sys.executable, "-m", "gmpd.cli", "top", "--interval", "0.2"], env)
    try:
        wait_until(lambda: terminal.sees("Warnings" if is_full else "FUNCTION"), "it", timeout=60)
        terminal.press(b"\r")
        wait_until(lambda: terminal.sees("Worker"), "the detail of P0")
        terminal.press(b"\x1b")
        wait_until(lambda: terminal.sees("STARTED"), "the table again")
        terminal.press(b"?")
        wait_until(lambda: terminal.sees("column sorts" if is_full else "gmpd[tui]"), "help")
    finally:
        if is_full:
            os.kill(terminal.pid, signal.SIGTERM)
        else:
            terminal.press(b"\x03")  # Ctrl-C
        code = terminal.end()
    assert code == (Exit.TERMINATED if is_full else Exit.OK)
    assert terminal.sees("\x1b[?1049l"), "the screen is as it was"


def test_without_a_terminal_it_prints_once(served: Daemon) -> None:
    ran = served.cli("top")
    assert "FUNCTION" in ran.stdout
    assert (ran.returncode, ran.stderr) == (0, "")
