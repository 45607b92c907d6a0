"""Connections to the gateway that send no request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gmpd.gateway import slow
from gmpd.gateway.api.questions import Questions
from gmpd.gateway.api.rules import Rules
from gmpd.gateway.app import make_app, serve_until
from gmpd.gateway.latest import Latest
from gmpd.gateway.link import CoordinatorLink

REQUEST = "GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"


def serving(test: Callable[[int], Coroutine[Any, Any, None]], header_s: float) -> None:
    """Run ``test`` with the port of a gateway that gives a first request ``header_s`` seconds."""

    async def nothing() -> dict[str, Any]:
        return {}

    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        port = sock.getsockname()[1]
        latest, stop = Latest(nothing), asyncio.Event()
        rules = Rules(frozenset({f"127.0.0.1:{port}"}))
        app = make_app(latest, rules, Questions(latest, CoordinatorLink))
        server = asyncio.create_task(serve_until(app, sock, stop, header_s=header_s))
        try:
            await test(port)
        finally:
            stop.set()
            await server
            await latest.close()

    asyncio.run(asyncio.wait_for(main(), 15))


async def get(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST.format(host=f"127.0.0.1:{port}").encode())
    assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x"], ids=["nothing", "half"])
def test_a_connection_without_a_whole_request_is_closed_and_others_are_not(sent: bytes) -> None:
    async def test(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        kept = await asyncio.open_connection("127.0.0.1", port)
        await get(port, *kept)
        writer.write(sent)
        assert await reader.read() == b""  # the end, though this side has not closed
        await get(port, *kept)  # long after the limit for a first request
        writer.close()
        kept[1].close()

    serving(test, 0.1)


def test_more_connections_than_may_be_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow, "CONNECTIONS_MAX", 2)

    async def test(port: int) -> None:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in kept:
            await get(port, reader, writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        for _, other in [*kept, (reader, writer)]:
            other.close()

    serving(test, 60)
