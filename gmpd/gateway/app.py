"""The HTTP application: routes, and the guard before them.

    /                   an index for people
    /metrics            Prometheus text or OpenMetrics, by prometheus_client
    /healthz            200 while this process serves: for a supervisor
    /readyz             200 while the coordinator answers and takes jobs, else 503 and why
    /api/v1/snapshot    the coordinator's snapshot as JSON, and its age

Nothing here changes anything, so only GET and HEAD exist. A page in some browser could still *read*
all of it by naming this address as its own (DNS rebinding), therefore the Host header has to be one
of a known few, exactly. It must never know ZeroMQ, and no handler waits for a worker.
"""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from gmpd.gateway.collector import SnapshotCollector
from gmpd.gateway.latest import Latest
from gmpd.gateway.slow import FIRST_REQUESTS, HEADER_S, FirstRequests, note_request
from gmpd.status import read

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The links of ``/``, with their texts.
PLACES: Final = (
    ("/metrics", "metrics, for Prometheus"),
    ("/api/v1/snapshot", "a snapshot of the daemon, as JSON"),
    ("/readyz", "whether the daemon takes jobs"),
    ("/healthz", "whether this gateway serves"),
)

#: Sent with every answer: nothing here is for another site, nor to be guessed at or kept.
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def make_registry(latest: Latest) -> CollectorRegistry:
    """Everything that ``/metrics`` shows: the snapshot, and /proc of coordinator and gateway."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(latest.reading))
    ProcessCollector("gmpd_gateway", registry=registry)
    # Read from /proc here, so that its numbers cost the coordinator nothing.
    ProcessCollector(
        "gmpd_coordinator",
        pid=lambda: read(latest.reading().snapshot).pid,
        registry=registry,
    )
    return registry


def make_app(latest: Latest, hosts: Iterable[str]) -> web.Application:
    """The application; ``hosts`` are the Host headers it answers to, compared as they are."""
    site = Site(latest)
    app = web.Application(middlewares=[note_request, _guard(frozenset(hosts))])
    app.router.add_get("/", site.index)
    app.router.add_get("/metrics", site.metrics)
    app.router.add_get("/healthz", site.healthz)
    app.router.add_get("/readyz", site.readyz)
    app.router.add_get("/api/v1/snapshot", site.snapshot)
    return app


def _guard(hosts: frozenset[str]) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = _refusal(request, hosts)
        if response is None:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.reason}\n")
        response.headers.update(HEADERS)
        return response

    return guard


def _refusal(request: web.Request, hosts: frozenset[str]) -> web.StreamResponse | None:
    given = request.headers.getall("Host", [])
    if len(given) != 1 or given[0].lower() not in hosts:
        asked = given[0][:100] if given else "no host"
        return web.Response(
            status=421,
            text=(
                f"this gateway does not answer to {asked!r}, only to {', '.join(sorted(hosts))}.\n"
                "If the name is right, add it to http.hosts in the daemon's configuration.\n"
            ),
        )
    if request.method not in ("GET", "HEAD"):
        return web.Response(
            status=405, headers={"Allow": "GET, HEAD"}, text="only GET and HEAD are served here\n"
        )
    return None


class Site:
    """The handlers, around the one snapshot that they share."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest
        self._registry = make_registry(latest)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """The exposition; ``name[]=`` picks metrics, as with every prometheus_client server."""
        await self._latest.refresh()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        names = request.query.getall("name[]", [])
        registry: Any = self._registry.restricted_registry(names) if names else self._registry
        response = web.Response(body=encode(registry), headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def snapshot(self, _request: web.Request) -> web.StreamResponse:
        """``{"age_s": …, "up": …, "snapshot": {…}}``; 503 before there is one."""
        await self._latest.refresh()
        reading = self._latest.reading()
        if not reading.snapshot:
            return web.json_response({"error": self._latest.trouble}, status=503)
        body = {"age_s": reading.age_s, "up": reading.up, "snapshot": reading.snapshot}
        return web.json_response(body, dumps=to_json)

    async def healthz(self, _request: web.Request) -> web.StreamResponse:
        """This process serves; the coordinator's health is /readyz."""
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.StreamResponse:
        """Whether a job handed in now would be taken."""
        await self._latest.refresh()
        reading = self._latest.reading()
        if not reading.up:
            return web.Response(status=503, text=f"not ready: {self._latest.trouble}\n")
        seen = read(reading.snapshot)
        if seen.state == "draining":
            return web.Response(status=503, text="not ready: the daemon drains\n")
        if seen.stalled:
            return web.Response(status=503, text=f"not ready: {seen.stalled}\n")
        return web.Response(text=f"ready: {seen.state}\n")

    async def index(self, _request: web.Request) -> web.StreamResponse:
        """The index page."""
        await self._latest.refresh()
        reading = self._latest.reading()
        lines = [f"<li><a href={path}>{path}</a> {html.escape(what)}" for path, what in PLACES]
        return web.Response(
            content_type="text/html",
            text=_PAGE.format(status=html.escape(self._status(reading)), places="\n".join(lines)),
        )

    def _status(self, reading: Any) -> str:
        if not reading.snapshot:
            return f"No snapshot yet: {self._latest.trouble}."
        seen = read(reading.snapshot)
        text = (
            f"gmpd {seen.version} is {seen.state}: {seen.procs} Ps, up for {seen.uptime_s:.0f} s."
        )
        if not reading.up:
            text += f" As of {reading.age_s:.1f} s ago: {self._latest.trouble}."
        return text


_PAGE: Final = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>gmpd</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}}
@media(prefers-color-scheme:dark){{body{{background:#111;color:#ddd}}a{{color:#8bf}}}}</style>
<h1>gmpd</h1>
<p>{status}
<ul>
{places}
</ul>
"""


def to_json(value: Any) -> str:
    """JSON text of a snapshot: bytes as hex, numbers that JSON has not as null."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bytes():
            return value.hex()
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case _:
            return value


async def serve_until(
    app: web.Application, sock: Any, stop: asyncio.Event, *, header_s: float = HEADER_S
) -> None:
    """Serve on the bound socket until ``stop``; requests under way get a second to end.

    ``header_s``: seconds that a connection may take to send its first request.
    """
    # 70 s of keep-alive: longer than the usual scrape interval of 15 to 60 s, so that a scraper
    # keeps its connection.
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=70.0, handle_signals=False, shutdown_timeout=1.0
    )
    app[FIRST_REQUESTS] = first = FirstRequests(header_s)
    await runner.setup()
    first.server = runner.server
    listening = await asyncio.get_running_loop().create_server(first, sock=sock, backlog=128)
    try:
        await stop.wait()
    finally:
        listening.close()
        await runner.cleanup()
