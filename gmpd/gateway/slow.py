"""Connections that send no whole request in time: closed, or a few hundred of them would use up the
gateway's descriptors (the attack named Slowloris, and every broken client).

aiohttp bounds the time between two requests of a connection (keep-alive), not before the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

#: Seconds from a connection's begin to the end of its first request's header. A scraper sends it in
#: one packet; a person with telnet is no intended user.
HEADER_S = 10.0
#: Connections at once; what comes beyond is closed. A scraper has one, a browser six.
CONNECTIONS_MAX = 256


class FirstRequests:
    """Makes the protocols of a server, and closes those that no request has come through in time.

    ``header_s``: seconds. Use ``middleware`` as the application's first, and this object as the
    protocol factory of its listening socket.
    """

    def __init__(self, header_s: float = HEADER_S) -> None:
        #: Set once the application runs, before the first connection.
        self.server: web.Server | None = None
        self._header_s = header_s
        self._silent: set[asyncio.BaseProtocol] = set()

    def __call__(self) -> web.RequestHandler:
        assert self.server is not None
        protocol = self.server()
        self._silent.add(protocol)
        full = len(self.server.connections) >= CONNECTIONS_MAX
        delay = 0.0 if full else self._header_s
        asyncio.get_running_loop().call_later(delay, self._expire, protocol)
        return protocol

    def heard(self, protocol: asyncio.BaseProtocol) -> None:
        """A whole request has come through it: from now on keep-alive bounds it."""
        self._silent.discard(protocol)

    def _expire(self, protocol: web.RequestHandler) -> None:
        if protocol in self._silent:
            self._silent.remove(protocol)
            protocol.force_close()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The middleware that tells ``FirstRequests`` of a request."""
    request.app[FIRST_REQUESTS].heard(request.protocol)
    return await handler(request)


#: Where an application keeps it.
FIRST_REQUESTS: web.AppKey[FirstRequests] = web.AppKey("first_requests", FirstRequests)
