"""From a request to an answer: parameters are checked by their types, errors become statuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from gmpd.errors import DaemonUnreachable, ProtocolError
from gmpd.gateway.api import openapi, shapes
from gmpd.gateway.api.events import BYE, Full, Hub
from gmpd.gateway.api.jobs import Absent, Conflict, Wrong
from gmpd.gateway.api.questions import Busy, Questions, Unready
from gmpd.gateway.api.routes import Route, match
from gmpd.gateway.link import Refused

log = logging.getLogger(__name__)

#: Bytes of a body: arguments that are larger go through a client.
BODY_MAX: Final = 1 << 20


class Api:
    """The routes, around the questions that they ask."""

    def __init__(self, ask: Questions, hub: Hub) -> None:
        self._ask = ask
        self._hub = hub

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The answer to a request that the rules let through."""
        found = match(request.path)
        route = None if found is None else found.route(request.method)
        if found is None or route is None:
            return problem(
                404, f"there is nothing at {request.path[:200]}", hint="/api/v1/openapi.json"
            )
        try:
            params = read_params(route, found.in_path, request)
            if route.streams:
                return await self._stream(request, params)
            return await self._answer(request, route, params)
        except Exception as error:  # noqa: BLE001 - each has its status
            return refused(error, request)

    async def _answer(
        self, request: web.Request, route: Route, params: shapes.Params
    ) -> web.StreamResponse:
        if route.path == "/openapi.json":
            return _json(200, openapi.document())
        if route.body is None:
            return _json(route.status, await route.handler(self._ask, params))
        body = read_body(route.body, await request.read(), request.content_type)
        return _json(route.status, await route.handler(self._ask, params, body))

    async def _stream(self, request: web.Request, params: shapes.Params) -> web.StreamResponse:
        assert isinstance(params, shapes.OfStream)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        if request.method == "HEAD":
            return response
        reader = self._hub.enter(params.period_ms / 1000)
        try:
            response.headers.update(request.app[HEADERS])
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            while True:
                news = await reader.take()
                await response.write(news)
                if news is BYE:
                    return response
        except ConnectionError:
            return response
        finally:
            self._hub.leave(reader)


#: Headers of every answer, which a stream sends before a middleware could add them.
HEADERS: web.AppKey[Mapping[str, str]] = web.AppKey("headers", Mapping)


def read_params(route: Route, in_path: Mapping[str, str], request: web.Request) -> shapes.Params:
    """The parameters of the path, the query and the headers, checked. Raises ValidationError."""
    given = dict(in_path)
    for name in request.query:
        if name in given or len(request.query.getall(name)) > 1:
            raise msgspec.ValidationError(f"Given twice - at `$.{name}`")
        if name in route.in_header:
            raise msgspec.ValidationError(f"Expected a header, got a parameter - at `$.{name}`")
        given[name] = request.query[name]
    for name, text in given.items():
        if text.lower() == "null":  # a text that reads as null is none of ours
            raise msgspec.ValidationError(f"Expected a value, got `null` - at `$.{name}`")
    given |= {name: request.headers[name] for name in route.in_header if name in request.headers}
    return msgspec.convert(given, route.params, strict=False)


def read_body(kind: type[shapes.Body], data: bytes, content_type: str) -> shapes.Body:
    """A body, checked. Raises ValidationError, or what says that it is no JSON."""
    if content_type != "application/json":
        raise NoJson(415, f"the body is {content_type}: send application/json")
    try:
        raw = msgspec.json.decode(data)
    except RecursionError:
        raise NoJson(400, "the body is nested too deeply") from None
    if isinstance(raw, dict) and isinstance(options := raw.get("options"), dict):
        raw["options"] = {name: _whole(value) for name, value in options.items()}
    return msgspec.convert(raw, kind)


def _whole(value: Any) -> Any:
    """A whole number as an int: to JSON 3.0 is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class NoJson(Exception):
    """A body that cannot be read; ``status`` says how."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


#: Errors that a request has earned, and their statuses.
_STATUSES: Final[dict[type[Exception], int]] = {
    Absent: 404,
    Conflict: 409,
    Refused: 409,
    web.HTTPRequestEntityTooLarge: 413,
    Full: 503,
    Unready: 503,
    DaemonUnreachable: 503,
    ProtocolError: 503,
}


def refused(error: Exception, request: web.Request) -> web.Response:
    """The answer that an error gives."""
    text = str(error)
    match error:
        case msgspec.ValidationError():
            what, _, at = text.partition(" - at `")
            return problem(400, what, field=_field(what, at.rstrip("`")))
        case msgspec.DecodeError():
            return problem(400, f"the body is no JSON: {text}", field="$")
        case NoJson(status=status):
            return problem(status, text, field="$")
        case Wrong(field=field, hint=hint):
            return problem(404 if field == "$.function" else 422, text, field=field, hint=hint)
        case Busy(retry_s=retry_s):
            return problem(429, text, headers={"Retry-After": f"{retry_s:.0f}"})
        case _ if type(error) in _STATUSES:
            status = _STATUSES[type(error)]
            return problem(status, text, field="$" if status == 413 else "")
        case _:
            log.error("%s %s failed", request.method, request.path, exc_info=error)
            return problem(500, f"{type(error).__name__}: {text}")


def _field(what: str, at: str) -> str:
    """Where it is wrong. Of unknown and missing fields msgspec names them in its words."""
    named = what.rpartition("field `")[2].rstrip("`") if "field `" in what else ""
    path = at or "$"
    return f"{path}.{named}" if named else path


def problem(
    status: int, text: str, *, field: str = "", hint: str = "", headers: Mapping[str, str] = {}
) -> web.Response:
    """A refusal."""
    response = _json(status, shapes.Problem(error=text, field=field, hint=hint))
    response.headers.update(headers)
    return response


def _json(status: int, value: Any) -> web.Response:
    body = msgspec.json.encode(value)
    response = web.Response(status=status, body=body, content_type="application/json")
    if len(body) > 1024:
        response.enable_compression()
    return response
