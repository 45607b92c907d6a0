"""The gateway's application on a loopback port in this process, before a coordinator of the test's
making."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gmpd.errors import DaemonUnreachable
from gmpd.gateway.api.questions import Questions
from gmpd.gateway.api.rules import Rules
from gmpd.gateway.app import make_app, serve_until
from gmpd.gateway.latest import Latest
from gmpd.gateway.link import Refused
from tests.fake_coordinator import SNAPSHOT

ID = "0123456789abcdef" * 2


class Sink:
    """Takes what a question would send."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def ask_jobs(self, what: str, ids: list[bytes], _sink: Any, **more: Any) -> None:
        self.said.append(("ask_jobs", what, ids[0].hex(), more))

    def enqueue(self, ref: Any, jobs: Any, options: Any, stored: Any, _sink: Any) -> None:
        self.said.append(("enqueue", ref.name, jobs, options, stored))


class FakeLink:
    """Answers as ``answers`` say, by the method or the question; an exception is raised."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    async def snapshot(self) -> Any:
        return await self.call("snapshot")

    async def call(self, method: str, **params: Any) -> Any:
        self.asked.append((method, params))
        return self._told(method)

    async def put(self, put: Callable[[Any, Any], None]) -> Any:
        sink = Sink()
        put(sink, None)
        self.asked += sink.said
        (said,) = sink.said
        return self._told(said[0] if said[0] == "enqueue" else said[1])

    def _told(self, name: str) -> Any:
        answer = self.answers.get(name, Refused(f"no answer to {name}"))
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        pass


def job_row(**more: Any) -> dict[str, Any]:
    """A job as the coordinator tells it."""
    return {
        "number": 7, "id": bytes.fromhex(ID), "function": "m:f", "client": "c", "state": 3,
        "priority": 0, "attempt": 1, "deaths": 0, "created_ms": 1000, "run_at_ms": 1000,
        "ended_ms": 2000, "expires_ms": None, "keep_ms": 10, "unique": None, "text": "",
        "runs_since_ms": None, **more,
    }  # fmt: skip


def g_row(id_: int, **more: Any) -> dict[str, Any]:
    """A G as a worker tells it."""
    return {
        "id": id_, "state": "waiting", "reason": "chan receive", "function": f"m:f{id_}",
        "since_s": float(id_), "job": True, "m": None, **more,
    }  # fmt: skip


def p_row(p: int, **more: Any) -> dict[str, Any]:
    """The status of a P as the coordinator tells it."""
    return {"p": p, "up": 1, "state": "running", "epoch": 3, "pid": 50 + p, **more}


def answers() -> dict[str, Any]:
    """Of a daemon in which nothing is wrong."""
    return {
        "snapshot": dict(SNAPSHOT),
        "picture": {
            "global": [0], "names": ["m:f"],
            "ps": [{"p": 0, "fresh": [0], "aside": 0, "begun": [[0, ID, 1.5]]}],
        },
        "clients": {"clients": [], "total": 0},
        "config": {"settings": [{"key": "daemon.procs", "value": "0", "doc": "how many",
                                 "default": True, "layer": "default", "where": ""}]},
        "registered": {"functions": [{"name": "m:f", "options": {"retries": 2}, "expires": None,
                                      "keep": 5.0, "once": False}], "total": 1},
        "gs": {"ps": [{"p": 0, "answered": True, "gs": 3, "rows": [g_row(1), g_row(2), g_row(3)],
                       "status": p_row(0)},
                      {"p": 1, "answered": False, "status": p_row(1)}]},
        "g": {"ps": [{"p": 0, "answered": True, "gs": 1, "shown": 1, "rows": [g_row(1)],
                      "text": "goroutine 1", "job": ID, "status": p_row(0),
                      "story": {"token": 4, "events": [{
                          "kind": "step", "ago_us": 2_000_000, "took_us": 500, "reason": "sleep",
                      }]}}]},
        "failures": {
            "failures": [{
                "number": 7, "at": 1.5, "id": ID, "function": "m:f", "client": "", "attempt": 1,
                "p": 1, "outcome": "error", "again": False, "type": "ValueError", "message": "no",
                "traceback": "Traceback", "text": "",
            }],
            "kept": 1, "failed": 7,
        },
        "timeline": {
            "since": 1_000_000_000, "until": 2_000_000_000, "now": 2_020_000_000, "wall_ms": 5,
            "ps": [{"p": 0, "epoch": 1, "parts": [], "state": "deaf", "pid": 5, "silent_s": 2.0}],
            "jobs": [], "steals": [[1_500_000_000, 0, 1, 3]], "workers": [],
            "isolated": [[65_536, 1_100_000_000, 0, "m:f", ID, 1_000_000_000, True]],
        },
        "volatile_jobs": {"rows": [], "next": None},
        "jobs": [job_row()],
        "job_counts": {0: 1, 1: 1, 3: 5},
        "find": [job_row()],
        "story": [{"n": 1, "outcome": "ok", "text": "", "began_ms": 1, "ended_ms": 2, "ran_us": 5,
                   "p": 0, "pid": 3, "strikes": 0, "error": b""}],
        "result": {"state": 3, "value": b"\xc0", "buffers": [], "ran_us": 5, "outcome": "ok",
                   "attempt": 1, "text": ""},
        "log": {"n": 1, "data": b"hello", "end": 9, "runs": False, "over": True, "last": 1},
        "cancel": {"cancelled": [bytes.fromhex(ID)], "asked": []},
        "force": {"cancelled": [], "asked": [bytes.fromhex(ID)]},
        "retry": [],
        "enqueue": {"verdicts": [0], "ids": [bytes.fromhex(ID)]},
    }  # fmt: skip


class Served:
    """``link`` is what the application asks."""

    def __init__(self, host: str, link: FakeLink, latest: Latest) -> None:
        self.host = host
        self.link = link
        self.latest = latest

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """Status, JSON (or text) and headers of an answer. ``body``: bytes, or it becomes JSON."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        sent = dict(headers or {})
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json" and data
        return response.status, json.loads(data) if is_json else data.decode(), response.headers


@contextmanager
def served(
    told: dict[str, Any] | None = None,
    *,
    allow: frozenset[str] = frozenset(),
    token: str = "",
    rate: float = 1e6,
) -> Iterator[Served]:
    """The application on a port, until the end of the block."""
    link = FakeLink(answers() if told is None else told)
    ready, found = threading.Event(), list[Any]()

    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        host = f"127.0.0.1:{sock.getsockname()[1]}"
        latest, stop = Latest(link.snapshot, wait_s=10), asyncio.Event()
        ask = Questions(latest, lambda _role: link, rate=rate)  # type: ignore[arg-type,return-value]
        app = make_app(latest, Rules(frozenset({host}), allow, token), ask)
        found.extend([host, latest, stop, asyncio.get_running_loop()])
        ready.set()
        await serve_until(app, sock, stop)
        await latest.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(20)
        host, latest, stop, loop = found
        yield Served(host, link, latest)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


UNREACHABLE = DaemonUnreachable("nobody there")
