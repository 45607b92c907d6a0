"""How the daemon's log looks."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gmpd.daemon import logs
from tests.log_threads import no_thread_is_left


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _own_root() -> Iterator[None]:
    """The root logger without the handlers of the test run."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    with no_thread_is_left():
        yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(stream: io.StringIO) -> str:
    """Once the thread that writes has come so far."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    return stream.getvalue()


def logged(form: str, stream: io.StringIO) -> str:
    logging.getLogger().handlers[:] = []  # those of pytest
    logs.set_up("info", form, stream)
    log = logging.getLogger("gmpd.test")
    log.debug("not this")
    try:
        raise ValueError("bad\nworse")
    except ValueError:
        log.exception("it %s", "failed")
    return written(stream)


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
    text = written(stream)
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


class Odd:
    """A value whose code raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


ODD: dict[str, tuple[object, ...]] = {
    "bytes": (b"\xff\x00",),
    "a surrogate": ("a\udc80b",),
    "lines": ("a\nb\r\nc",),
    "its code raises": (Odd(),),
    "too many": (1, 2),
    "none": (),
    "long": ("x" * 1_000_000,),
}


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("values", ODD.values(), ids=ODD)
def test_odd_values_lose_no_line_and_break_none(form: str, values: tuple[object, ...]) -> None:
    stream = io.StringIO()
    logging.getLogger().handlers[:] = []
    logs.set_up("info", form, stream)
    log = logging.getLogger("gmpd.test")
    log.warning("value %s of %d", *values, extra={"gmpd_job": "a\udc80", "gmpd_p": Odd()})
    log.warning("the next")
    text = written(stream)
    text.encode()  # valid Unicode
    assert len(text) < 20_000
    if form == "console":
        assert "value " in text
        assert text.splitlines()[-1].endswith("gmpd.test: the next")
        return
    first, second = map(json.loads, text.splitlines())
    assert first["message"].startswith("value ")
    assert first["job"] == r"a\udc80"
    assert "p" not in first
    assert second["message"] == "the next"


def test_json_says_which_process_and_job(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logging.getLogger().handlers[:] = []
    logs.set_up("info", "json", stream, "worker")
    ids = {"gmpd_job": "01ab", "gmpd_attempt": "2", "gmpd_g": "", "gmpd_p": "3"}
    logging.getLogger("gmpd.test").error("x", extra=ids)
    record = json.loads(written(stream))
    assert (record["process"], record["job"], record["attempt"], record["p"]) == (
        "worker", "01ab", "2", "3",
    )  # fmt: skip
    assert "g" not in record
    assert record["pid"] > 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("form", "line"), [("json", ""), ("console", "gmpd serves\n")])
def test_an_announcement_is_a_line_of_its_form(form: str, line: str) -> None:
    stream = io.StringIO()
    logging.getLogger().handlers[:] = []
    logs.set_up("error", form, stream).announce("gmpd serves")
    text = written(stream)
    assert text == line or json.loads(text)["message"] == "gmpd serves"
