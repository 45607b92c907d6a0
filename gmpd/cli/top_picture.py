"""The picture of the plain `gmpd top`, by rich: two tables, or a detail, or the help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from gmpd.cli.top_detail import Detail, detail
from gmpd.cli.top_view import COLUMNS, HELP, RIGHT, WIDE, Facts, Pane, Row, View, keyed_rows, rows
from gmpd.daemon.logs import visible
from gmpd.findings import problems

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

#: Lines that are neither Ps nor functions, with the empty one between the tables.
FRAME_LINES: Final = 7
#: Of texts that name a state.
STYLES: Final = {
    "running": "green", "idle": "dim", "searching": "cyan", "deaf": "bold red", "dead": "red",
    "failed": "red", "error": "red", "bad": "bold red", "warn": "yellow", "waiting": "dim",
    "lost": "red", "timeout": "red", "blocked": "yellow", "refused": "yellow",
    "joining": "yellow", "leaving": "yellow",
}  # fmt: skip
#: The hint at the other face.
MORE: Final = "pip install 'gmpd[tui]' adds Gs, jobs, failures and warnings to this screen"


def screen(view: View, facts: Facts, console: Console) -> RenderableType:
    """All of it, in the lines that there are."""
    from rich.console import Group
    from rich.text import Text

    height = console.size.height
    room = max(2, height - FRAME_LINES - 1)
    found = {pane: keyed_rows(view, facts, pane) for pane in view.panes}
    ps = min(len(found[Pane.PS]), max(1, room // 2))
    most = {Pane.PS: ps, Pane.FUNCTIONS: room - ps}
    view.shown = [key for key, _ in found[view.pane]][: most[view.pane]]
    if view.helps:
        lines = [Text(f"  {keys:18} {what}", no_wrap=True, overflow="ellipsis")
                 for keys, what in (*HELP, ("", MORE))]  # fmt: skip
        return Group(head(view, facts), *lines[: height - 2])
    if view.detail is not None:
        lines = detail_text(detail(view.detail, facts))
        view.scrolled = max(0, min(view.scrolled, len(lines) - (height - 4)))
        part = lines[view.scrolled : view.scrolled + height - 4]
        return Group(head(view, facts), *part, foot(view))
    tables = [
        _table(view, pane, [row for _, row in found[pane]], most[pane], facts.note)
        for pane in view.panes
    ]
    return Group(head(view, facts), tables[0], Text(""), tables[1], foot(view))


def head(view: View, facts: Facts) -> Text:
    """The daemon in two lines: the second says what is wrong."""
    from rich.text import Text

    now = facts.now
    others = now.sessions - 1  # this command is one
    clients = f"{others:,} client{'' if others == 1 else 's'}"
    line = (
        f"gmpd {now.version} {now.state}, up {now.uptime_s:,.0f} s, {clients};"
        f" {now.queue.in_queue:,} queued, {now.queue.unfinished:,} unfinished"
    )
    text = Text(line, no_wrap=True, overflow="ellipsis")
    text.append("\n")
    silent = [f"P{p.p}" for p in now.ps if p.state in ("deaf", "dead")]
    note = f"not answering: {', '.join(silent)}" if silent else ""
    text.append(facts.trouble or now.stalled or now.degraded or note, style="red")
    if not text.plain.endswith("\n"):
        text.append("  ")
    if found := problems(now):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        warning = f"warning: {found[0].about}: {found[0].what}{more}"
        text.append(visible(warning), style="yellow")
    if view.paused:
        text.append("  paused", style="reverse")
    return text


def foot(view: View) -> Text:
    """The keys, or the filter that is typed."""
    from rich.text import Text

    if view.typing:
        return Text(f"/{view.words}_", no_wrap=True)
    keys = "q quit  space pause  ←→ sort  i invert  t table  / filter  Enter detail  ? help"
    if view.detail is not None:
        keys = "q quit  space pause  ↑↓ scroll  s stacks  Esc back"
    words = f"  filter: {view.words}" if view.words else ""
    return Text(keys + words, style="dim", no_wrap=True, overflow="ellipsis")


def detail_text(told: Detail) -> list[Text]:
    """A detail, line by line."""
    from rich.text import Text

    lines = [Text(told.title, style="bold", no_wrap=True, overflow="ellipsis")]
    for line, is_heading in told.lines():
        style = "underline" if is_heading else ""
        lines.append(Text(line, style=style, no_wrap=True, overflow="ellipsis"))
    return lines


def _table(view: View, pane: Pane, found: list[Row], most: int, note: str = "") -> Table:
    """The first rows, and a heading that shows the order."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True, collapse_padding=True
    )
    for n, name in enumerate(COLUMNS[pane]):
        is_sorted = view.sort[pane] == n
        table.add_column(
            heading(view, pane, n),
            justify="right" if name in RIGHT else "left",
            header_style="reverse" if is_sorted and view.pane is pane else "bold",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if n == WIDE[pane] else None,
        )
    hidden = len(found) - most
    here = view.at() if view.pane is pane and pane in view.cursor else -1
    for n, row in enumerate(found[: most - 1] if hidden > 0 else found):
        cells = (Text(visible(text), style=STYLES.get(text, "")) for _, text in row)
        table.add_row(*cells, style="reverse" if n == here else "")
    if hidden > 0:
        table.add_row(Text(f"+{hidden + 1}", style="dim"))
    elif not found:
        table.add_row(Text(note, style="dim"))
    return table


def heading(view: View, pane: Pane, column: int) -> str:
    """The name of a column, with an arrow if the table is sorted by it."""
    arrow = ("▼" if view.falling[pane] else "▲") if view.sort[pane] == column else ""
    return f"{COLUMNS[pane][column]}{arrow}"


def print_once(view: View, facts: Facts) -> None:
    """As wide as it has to be, without styles for a file."""
    from rich.console import Console

    console: Any = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 100)
    console.print(head(view, facts))
    panes: Sequence[Pane] = view.panes
    for pane in panes:
        found = rows(view, facts, pane)
        console.print(_table(view, pane, found, max(1, len(found)), facts.note))
