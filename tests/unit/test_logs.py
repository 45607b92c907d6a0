"""How the daemon's log looks."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gmpd.daemon import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _own_root() -> Iterator[None]:
    """The root logger without the handlers of whoever runs the tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(form: str, stream: io.StringIO) -> str:
    logging.getLogger().handlers[:] = []  # those of pytest
    logs.set_up("info", form, stream)
    log = logging.getLogger("gmpd.test")
    log.debug("not this")
    try:
        raise ValueError("bad\nworse")
    except ValueError:
        log.exception("it %s", "failed")
    return stream.getvalue()


def test_json_is_one_object_a_line() -> None:
    (line,) = logged("json", io.StringIO()).splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == (
        "error", "gmpd.test", "it failed",
    )  # fmt: skip
    assert record["time"].endswith("Z")
    assert "ValueError: bad" in record["traceback"]


def test_console_is_for_people() -> None:
    text = logged("console", io.StringIO())
    assert " ERROR gmpd.test: it failed\nTraceback" in text


#: Names that a client may give: a forged record, a terminal's escapes, characters that run
#: backwards, ends of lines for other programs.
HOSTILE = "a\n2026-01-01 ERROR gmpd: forged\x1b[2J\x9b31m\u202etxt\u2028\x00\r"


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_name_forges_a_record_or_moves_a_cursor(form: str) -> None:
    stream = io.StringIO()
    logging.getLogger().handlers[:] = []
    logs.set_up("info", form, stream)
    logging.getLogger("gmpd.test").warning("job of %s", HOSTILE)
    text = stream.getvalue()
    assert text.replace("\n", "").isprintable()
    records = [line for line in text.splitlines() if not line.startswith("    ")]
    assert len(records) == 1
    if form == "json":
        assert json.loads(records[0])["message"] == f"job of {HOSTILE}"


def test_auto_looks_whether_somebody_is_there() -> None:
    assert logged("auto", io.StringIO()).startswith("{")
    assert not logged("auto", Terminal()).startswith("{")


def test_what_comes_with_every_message_is_told_seldom_and_counted() -> None:
    """The first at once; a million more are one line."""
    told: list[str] = []
    warn = logs.RateLimitedLog(lambda text, *args: told.append(text % args))
    for now in range(1, 1001):
        warn(now, "bad: %s", now)
    assert told == ["bad: 1"]
    warn(1 + logs.WARN_EVERY_NS, "bad: %s", "later")
    assert told[1:] == ["bad: later (and 999 more like it since the last)"]
    warn(2 * logs.WARN_EVERY_NS + 1, "bad: %s", "alone")
    assert told[2:] == ["bad: alone"]
