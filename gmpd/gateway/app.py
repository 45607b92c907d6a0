"""The HTTP application: routes, and the guard before them.

    /                   the live page (``gateway.front``)
    /page/...           its files
    /metrics            Prometheus text or OpenMetrics, by prometheus_client
    /healthz            200 while this process serves: for a supervisor
    /readyz             200 while the coordinator answers and takes jobs, else 503 and why
    /api/v1/...         the JSON API (``gateway.api``)

The guard asks ``api.rules`` about every request and counts what they refuse. It must never know
ZeroMQ, and no handler waits for a worker longer than a question may take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from gmpd.gateway import peer
from gmpd.gateway.api.dispatch import BODY_MAX, HEADERS, Api, problem
from gmpd.gateway.api.events import Hub
from gmpd.gateway.api.questions import Questions
from gmpd.gateway.api.routes import match
from gmpd.gateway.api.rules import Asked, Refusal, Rules, refusal
from gmpd.gateway.collector import SnapshotCollector
from gmpd.gateway.front import Front
from gmpd.gateway.latest import Latest
from gmpd.gateway.slow import FIRST_REQUESTS, HEADER_S, FirstRequests, note_request
from gmpd.status import read

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: A coordinator that answers within this is ready: it is busy, with a reload perhaps. Below the
#: second for which probes usually wait.
READY_S: Final = 0.8

#: The links of ``/``, with their texts.
PLACES: Final = (
    ("/metrics", "metrics, for Prometheus"),
    ("/api/v1/snapshot", "the status of the daemon, as JSON"),
    ("/api/v1/openapi.json", "the JSON API, as OpenAPI 3.1"),
    ("/readyz", "whether the daemon takes jobs"),
    ("/healthz", "whether this gateway serves"),
)

#: Sent with every answer: nothing here is for another site, nor to be guessed at or kept.
SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
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


def make_app(latest: Latest, ruled: Rules, ask: Questions) -> web.Application:
    """The application; ``ruled`` says which requests it answers."""
    site, hub = Site(latest), Hub(ask)
    api = Api(ask, hub)
    app = web.Application(
        middlewares=[note_request, _guard(ruled, latest)], client_max_size=BODY_MAX
    )
    app[HEADERS] = SECURITY_HEADERS
    app[HUB] = hub
    app.router.add_get("/", site.index)
    app.router.add_get("/page/{name}", site.front.file)
    app.router.add_get("/favicon.ico", site.front.file)
    app.router.add_get("/metrics", site.metrics)
    app.router.add_get("/healthz", site.healthz)
    app.router.add_get("/readyz", site.readyz)
    app.router.add_route("*", "/api{below:(/.*)?}", api.serve)
    app.on_shutdown.append(_end_streams)
    return app


#: The readers of events.
HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)


async def _end_streams(app: web.Application) -> None:
    await app[HUB].close()


def _guard(ruled: Rules, latest: Latest) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = _asked(request)
        broken = refusal(asked, ruled)
        if broken is not None:
            latest.refused[broken.why.value] += 1
            response: web.StreamResponse = _told(broken, is_api=asked.is_api)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.reason}\n")
        if not response.prepared:
            for name, value in SECURITY_HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    return guard


#: Headers that a proxy adds: its clients are none of this machine's.
_PROXIED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")

_LOOKING: Final = frozenset({"GET", "HEAD"})


def _asked(request: web.Request) -> Asked:
    """A request as the rules see it."""
    headers, is_api = request.headers, request.path.startswith("/api")
    found = match(request.path) if is_api else None
    route = None if found is None else found.route(request.method)
    if found is not None:
        methods = found.methods
    else:  # what is not there has no methods: the API says that it is not there
        methods = frozenset({request.method}) if is_api else _LOOKING
    return Asked(
        method=request.method,
        hosts=tuple(headers.getall("Host", [])),
        methods=methods,
        is_api=is_api,
        is_own=is_api and not any(name in headers for name in _PROXIED) and _is_own(request),
        origin=headers.get("Origin"),
        site=headers.get("Sec-Fetch-Site"),
        authorization=headers.get("Authorization"),
        permission="" if route is None else route.permission,
    )


def _is_own(request: web.Request) -> bool:
    """Whether this user's process is at the other end; found out once for a connection."""
    transport = request.transport
    if transport is None:
        return False
    known: bool | None = getattr(request.protocol, "_gmpd_own", None)
    if known is None:
        known = peer.is_own(transport.get_extra_info("socket"))
        with suppress(AttributeError):
            request.protocol._gmpd_own = known  # type: ignore[attr-defined]
    return known


def _told(broken: Refusal, *, is_api: bool) -> web.Response:
    """The answer that a refusal gives."""
    if is_api:
        response = problem(broken.status, broken.text, hint=broken.hint)
    else:
        lines = [broken.text, *([broken.hint] if broken.hint else [])]
        response = web.Response(status=broken.status, text="\n".join(lines) + "\n")
    if broken.allow:
        response.headers["Allow"] = broken.allow
    if broken.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


class Site:
    """The handlers, around the one snapshot that they share."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest
        self._registry = make_registry(latest)
        self.front = Front()

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """The exposition; ``name[]=`` picks metrics, as with every prometheus_client server."""
        await self._latest.refresh()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        names = request.query.getall("name[]", [])
        registry: Any = self._registry.restricted_registry(names) if names else self._registry
        response = web.Response(body=encode(registry), headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def healthz(self, _request: web.Request) -> web.StreamResponse:
        """This process serves; the coordinator's health is /readyz."""
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.StreamResponse:
        """Whether a job handed in now would be taken. A coordinator that answers late takes it."""
        answers = await self._latest.refresh(READY_S)
        reading = self._latest.reading()
        if not answers:
            return web.Response(status=503, text=f"not ready: {self._latest.trouble}\n")
        seen = read(reading.snapshot)
        if seen.state == "draining":
            return web.Response(status=503, text="not ready: the daemon drains\n")
        if seen.stalled:
            return web.Response(status=503, text=f"not ready: {seen.stalled}\n")
        return web.Response(text=f"ready: {seen.state}\n")

    async def index(self, _request: web.Request) -> web.StreamResponse:
        """The live page."""
        await self._latest.refresh()
        return self.front.document(self._status(self._latest.reading()), [*PLACES])

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
