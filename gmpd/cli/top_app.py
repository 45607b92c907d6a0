"""The full `gmpd top`, by textual: tables of Ps, functions, Gs, jobs, failures and warnings, and
the detail of each row.

A thread looks at the daemon, so keys are heard while it does not answer. The rows and details are
those of the plain table.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from functools import partial
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Static, Tab, Tabs

from gmpd.cli.exits import Exit
from gmpd.cli.top_detail import detail
from gmpd.cli.top_look import Looks, gone
from gmpd.cli.top_picture import STYLES, detail_text, head, heading
from gmpd.cli.top_view import COLUMNS, HELP, RIGHT, WIDE, Facts, Found, Pane, View, keyed_rows
from gmpd.daemon.logs import visible
from gmpd.errors import GmpdError
from gmpd.timeouts import wait_s

#: Columns between two of a table.
GAP: Final = 2
#: The least width of the column that gets what others leave, and the one below which columns wider
#: than ``NARROW_MAX`` give way.
WIDE_MIN: Final = 12
WIDE_WANTED: Final = 20
NARROW_MAX: Final = 14
#: Characters of a cell beside that.
CELL_MAX: Final = 40


def watch(view: View, source: Looks, first: Facts, interval: float) -> int:
    """Show it until q, Ctrl-C or SIGTERM; the exit code."""
    app = TopApp(view, source, first, interval)
    app.run()
    return app.return_code or 0


class Arrived(Message):
    """A look has ended: with facts, or with the reason why there are none."""

    def __init__(self, pane: Pane, found: Found | None, facts: Facts | None, trouble: str) -> None:
        super().__init__()
        self.pane, self.found, self.facts, self.trouble = pane, found, facts, trouble


class Looker(threading.Thread):
    """Looks every ``interval`` seconds, and at once when it is poked."""

    def __init__(self, app: TopApp, source: Looks, interval: float) -> None:
        super().__init__(name="gmpd-top", daemon=True)
        self._app = app
        self._source = source
        self._interval = interval
        self._poked = threading.Event()
        self._over = False

    def poke(self) -> None:
        """Another table or detail is open."""
        self._poked.set()

    def stop(self) -> None:
        """Look no more. A look under way is left behind."""
        self._over = True
        self._poked.set()

    def run(self) -> None:
        """Until it is stopped."""
        poked = False
        while not self._over:
            view, began = self._app.view, time.monotonic()
            if poked or not view.paused:
                self._look(view.pane, view.detail)
            left = max(0.0, began + self._interval - time.monotonic())
            poked = self._poked.wait(wait_s(left))
            if poked:  # a poke that comes after the wait has passed is for the next one
                self._poked.clear()

    def _look(self, pane: Pane, found: Found | None) -> None:
        try:
            facts, trouble = self._source.look(pane, self._interval, found), ""
        except GmpdError as error:
            facts, trouble = None, gone(error)
        if self._over:
            return
        try:
            self._app.post_message(Arrived(pane, found, facts, trouble))
        except RuntimeError:  # the loop of the app has ended
            self._over = True


class RowTable(DataTable[Text]):
    """A table whose keys for columns sort."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "app.sort(-1)", "Sort", show=False),
        Binding("right,l", "app.sort(1)", "Sort", show=False),
        Binding("enter", "select_cursor", "Detail"),
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("g", "scroll_top", show=False),
        Binding("G", "scroll_bottom", show=False),
    ]


class TopApp(App[None]):
    """The tables. ``facts`` is the last look."""

    CSS = """
    #head { height: 2; padding: 0 1; }
    Tabs { height: 2; }
    RowTable { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    #filter { display: none; height: 1; border: none; padding: 0 1; }
    #filter.open { display: block; }
    #note { height: auto; padding: 0 1; display: none; }
    #note.open { display: block; }
    """
    TITLE = "gmpd top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("space", "pause", "Pause"),
        Binding("i", "invert", "Invert"),
        Binding("t,tab", "pane(1)", "Table", priority=True),
        Binding("shift+tab", "pane(-1)", show=False, priority=True),
        Binding("slash", "filter", "Filter"),
        Binding("escape", "unfilter", show=False),
        Binding("question_mark", "help", "Help"),
        *(Binding(str(n), f"show_pane({n - 1})", show=False) for n in range(1, len(Pane) + 1)),
    ]

    def __init__(self, view: View, source: Looks, first: Facts, interval: float) -> None:
        super().__init__()
        self.theme = "ansi-dark"  # the terminal's own colours: a light one stays light
        view.panes = tuple(Pane)
        self.view = view
        self.facts = first
        self._looker = Looker(self, source, interval)
        #: The table as it is shown: only changes are drawn.
        self._pane: Pane | None = None
        self._heads: list[str] = []
        self._widths: list[int] = []
        self._least: list[int] = []
        self._keys: list[str] = []
        self._texts: list[list[str]] = []

    def compose(self) -> ComposeResult:
        """Head, tabs, table, filter, keys."""
        yield Static(id="head")
        yield Tabs(*(Tab(pane.value, id=pane.name.lower()) for pane in Pane))
        yield Static(id="note")
        yield RowTable(cursor_type="row", cell_padding=0)
        yield Input(self.view.words, placeholder="filter", id="filter", compact=True)
        yield Footer()

    def on_mount(self) -> None:
        """It is there."""
        self.query_one(Tabs).can_focus = False
        self.query_one(RowTable).focus()
        self.draw()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.exit)
        ended = partial(self.exit, return_code=Exit.TERMINATED)  # with the terminal as it was
        loop.add_signal_handler(signal.SIGTERM, ended)
        self._looker.start()

    def on_unmount(self) -> None:
        """It ends."""
        self._looker.stop()

    def on_resize(self, _: events.Resize) -> None:
        """Columns get other widths."""
        self._widths, self._least = [], []
        self.call_after_refresh(self.draw)

    # -- facts -------------------------------------------------------------------------------------

    def on_arrived(self, look: Arrived) -> None:
        """One at a table or row that is open no more shows nothing."""
        if look.facts is None:
            self.facts.trouble = look.trouble
        elif (look.pane, look.found) == (self.view.pane, self.view.detail):
            self.facts = look.facts
        self.draw()

    def draw(self) -> None:
        """Show the facts."""
        if isinstance(self.screen, DetailScreen):
            self.screen.draw()
        elif self.screen is self.screen_stack[0] and self.query("#head"):  # else it is being closed
            self.query_one("#head", Static).update(head(self.view, self.facts))
            self._draw_table()

    def _draw_table(self) -> None:
        view, table = self.view, self.query_one(RowTable)
        pane = view.pane
        found = keyed_rows(view, self.facts, pane)
        keys = [key for key, _ in found]
        texts = [[text for _, text in row] for _, row in found]
        heads = [heading(view, pane, n) for n in range(len(COLUMNS[pane]))]
        room = table.size.width - (len(keys) >= table.size.height)  # of which a scroll bar is
        widths = self._fitting(pane, heads, texts, room)
        if (pane, heads, widths, keys) == (self._pane, self._heads, self._widths, self._keys):
            self._draw_cells(table, texts)
        else:
            if pane is self._pane and self._keys and table.cursor_row < len(self._keys):
                view.shown = self._keys
                view.point(table.cursor_row)
            self._pane, self._heads, self._widths, self._keys = pane, heads, widths, keys
            self._draw_all(table, texts)
        self._texts, view.shown = texts, keys
        self._draw_note(pane, bool(keys))

    def _draw_cells(self, table: RowTable, texts: list[list[str]]) -> None:
        for row, (before, now) in enumerate(zip(self._texts, texts, strict=True)):
            for column, text in enumerate(now):
                if before[column] != text:
                    table.update_cell(self._keys[row], str(column), self._cell(column, text))

    def _draw_all(self, table: RowTable, texts: list[list[str]]) -> None:
        top = table.scroll_y
        with self.batch_update():
            table.clear(columns=True)
            for column, name in enumerate(self._heads):
                table.add_column(
                    self._cell(column, name, "bold"), width=self._widths[column], key=str(column)
                )
            for key, row in zip(self._keys, texts, strict=True):
                cells = [self._cell(column, text) for column, text in enumerate(row)]
                table.add_row(*cells, key=key)
            self.view.shown = self._keys
            table.move_cursor(row=self.view.at(), animate=False)
            table.scroll_to(y=top, animate=False, force=True)

    def _fitting(
        self, pane: Pane, heads: list[str], texts: list[list[str]], room: int
    ) -> list[int]:
        """The width of each column. Columns of one table only grow, so that they stay in place."""
        widths = [
            min(
                CELL_MAX, max(len(name), len(COLUMNS[pane][n]) + 1, *(len(row[n]) for row in texts))
            )
            + GAP
            if texts
            else len(name) + 1 + GAP
            for n, name in enumerate(heads)
        ]
        if pane is self._pane and self._least:
            widths = [max(each) for each in zip(widths, self._least, strict=True)]
        self._least = widths.copy()
        wide = WIDE[pane]
        widths[wide] = 0
        while room - sum(widths) < WIDE_WANTED and max(widths) > NARROW_MAX:
            widths[widths.index(max(widths))] -= 1
        widths[wide] = max(WIDE_MIN, room - sum(widths) - 1)
        return widths

    def _cell(self, column: int, text: str, style: str = "") -> Text:
        pane = self._pane or Pane.PS
        room, text = self._widths[column] - GAP, visible(text)
        shown = text if len(text) <= room else _cut(text, room)
        if COLUMNS[pane][column] in RIGHT:
            shown = shown.rjust(room)
        return Text(shown, style=style or STYLES.get(text, ""), no_wrap=True)

    def _draw_note(self, pane: Pane, has_rows: bool) -> None:
        note = self.query_one("#note", Static)
        text = ""
        if not has_rows:
            text = f"nothing has {self.view.words!r} in it" if self.view.words else _EMPTY[pane]
            if pane is Pane.FUNCTIONS and not self.view.words:
                text = self.facts.note
        elif self.facts.silent and pane is Pane.GS:
            text = f"not answering: {', '.join(f'P{p}' for p in self.facts.silent)}"
        note.update(Text(text, style="dim"))
        note.set_class(bool(text), "open")

    # -- keys --------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a filter is typed, no key does anything else; a detail has keys of its own."""
        if action in ("pane", "show_pane", "sort", "invert", "filter"):
            return self.screen is self.screen_stack[0] and not isinstance(self.focused, Input)
        return True

    def action_pause(self) -> None:
        """Look no more, or again."""
        self.view.change("paused")
        if not self.view.paused:
            self._looker.poke()
        self.draw()

    def action_invert(self) -> None:
        """Sort the other way round."""
        self.view.turn()
        self.draw()

    def action_sort(self, by: int) -> None:
        """Sort by the column beside."""
        self.view.move(by)
        self.draw()

    def action_pane(self, by: int) -> None:
        """Another table."""
        at = self.view.panes.index(self.view.pane)
        self.action_show_pane((at + by) % len(Pane))

    def action_show_pane(self, n: int) -> None:
        """The table with this number."""
        self.query_one(Tabs).active = tuple(Pane)[n].name.lower()

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        """By key or mouse."""
        pane = Pane[str(event.tab.id).upper()]
        if pane is self.view.pane:
            return
        self.view.point(self.query_one(RowTable).cursor_row)
        self.view.pane = pane
        self._looker.poke()
        self.draw()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click sorts by the column."""
        self.view.sort_by(event.column_index)
        self.draw()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter, or a second click."""
        key = event.row_key.value
        if key is not None:
            self.view.detail = Found(self.view.pane, key)
            self.push_screen(DetailScreen())
            self._looker.poke()

    def action_filter(self) -> None:
        """Type one."""
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """With each character."""
        self.view.words = event.value
        self.draw()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Keep it."""
        self._close_filter()

    def _close_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.set_class(bool(box.value), "open")
        self.query_one(RowTable).focus()

    def action_unfilter(self) -> None:
        """No filter."""
        if self.screen is self.screen_stack[0]:
            self.query_one("#filter", Input).value = ""
            self._close_filter()

    def action_help(self) -> None:
        """The keys in words."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def close_detail(self) -> None:
        """Back to the table."""
        self.view.detail = None
        self.pop_screen()
        self._looker.poke()
        self.draw()

    def change_stacks(self) -> None:
        """With the stacks of a P's Gs, or without."""
        if self.view.detail is not None:
            shown = self.view.detail
            self.view.detail = shown._replace(stacks=not shown.stacks)
            self._looker.poke()


class DetailScreen(Screen[None]):
    """The detail of a row."""

    CSS = """
    #title { height: 2; padding: 0 1; text-style: bold; }
    VerticalScroll { padding: 0 1; }
    #body { width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,left", "close", "Back"),
        Binding("s", "stacks", "Stacks"),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]

    def compose(self) -> ComposeResult:
        """Title, text, keys."""
        yield Static(id="title")
        with VerticalScroll():
            yield Static(id="body")
        yield Footer()

    def on_mount(self) -> None:
        """It is there."""
        self.query_one(VerticalScroll).focus()
        self.draw()

    def draw(self) -> None:
        """Show the facts."""
        app = self.app
        assert isinstance(app, TopApp)
        found = app.view.detail
        if found is None or not self.query("#body"):
            return
        title, *lines = detail_text(detail(found, app.facts))
        if app.facts.trouble:
            title.append(f"  {app.facts.trouble}", style="red")
        if app.view.paused:
            title.append("  paused", style="reverse")
        self.query_one("#title", Static).update(title)
        body = Text()
        for line in lines:
            body.append_text(line).append("\n")
        self.query_one("#body", Static).update(body)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only Ps of this machine have stacks to show; one G shows its own."""
        app = self.app
        if action == "stacks":
            assert isinstance(app, TopApp)
            shown = app.view.detail
            return shown is not None and shown.pane is Pane.PS and not shown.host
        return True

    def action_close(self) -> None:
        """Back to the table."""
        app: Any = self.app
        app.close_detail()

    def action_stacks(self) -> None:
        """With the stacks, or without."""
        app: Any = self.app
        app.change_stacks()

    def action_scroll(self, by: int) -> None:
        """A line."""
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)


class HelpScreen(ModalScreen[None]):
    """The keys in words."""

    CSS = """
    HelpScreen { align: center middle; }
    #keys { width: auto; max-width: 100%; height: auto; border: round $foreground; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,enter,q", "dismiss", "Close")
    ]

    def compose(self) -> ComposeResult:
        """A box with lines."""
        keys = (
            *HELP,
            ("1 to 6", "a table by its number"),
            ("click", "a column sorts, a row opens"),
        )
        yield Static(Text("\n".join(f"{key:18} {what}" for key, what in keys)), id="keys")


_EMPTY: Final = {
    Pane.PS: "no P has started",
    Pane.FUNCTIONS: "no jobs in this time",
    Pane.GS: "no G: nothing runs or waits",
    Pane.JOBS: "no job waits or runs, and no durable one is kept",
    Pane.FAILURES: "no job has failed since the daemon began",
    Pane.WARNINGS: "nothing to warn of",
}


def _cut(text: str, room: int) -> str:
    """Functions and ids are told apart by their ends, other texts by their beginnings."""
    if room < 2:
        return text[:room]
    if " " not in text:
        return f"…{text[1 - room :]}"
    return f"{text[: room - 1]}…"
