"""The table of routes: checks, answers, the OpenAPI document and the documentation follow from it.

A route's types are those of its handler's signature: parameters, body and answer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, get_type_hints

from gmpd.gateway.api import handlers, jobs, shapes
from gmpd.gateway.api.rules import CANCEL, RETRY, SUBMIT, methods_of

ROOT: Final = "/api/v1"


@dataclass(frozen=True)
class Route:
    """``path`` is below ROOT, its parameters in braces. ``permission``: the word of ``http.allow``
    that it needs. ``status``: of its answer."""

    method: str
    path: str
    handler: Callable[..., Any]
    permission: str = ""
    status: int = 200
    #: It answers with server-sent events, as long as the reader stays.
    streams: bool = False
    #: Parameters that are headers.
    in_header: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """Its purpose, in a sentence or two."""
        return " ".join(inspect.cleandoc(self.handler.__doc__ or "").split())

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return {name.lstrip("_"): kind for name, kind in get_type_hints(self.handler).items()}

    @property
    def params(self) -> type[shapes.Params]:
        """Parameters of the path, the query and the headers."""
        found: type[shapes.Params] = self._hints["params"]
        return found

    @property
    def body(self) -> type[shapes.Body] | None:
        """None: it has none."""
        return self._hints.get("body")

    @property
    def answer(self) -> Any:
        """The type of its answer."""
        return self._hints["return"]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Pattern of the whole path."""
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", ROOT + self.path) + r"\Z")

    @cached_property
    def in_path(self) -> frozenset[str]:
        """The parameters in its path."""
        return frozenset(re.findall(r"\{(\w+)\}", self.path))


async def events(_params: shapes.OfStream) -> shapes.Watched:
    """Server-sent events: ``snapshot`` with the status and the queues whenever they have changed,
    ``gone`` while the coordinator does not answer, ``lost`` with the number of events that this
    reader was too slow for, ``bye`` at the end. A comment every 15 s keeps the connection."""
    raise AssertionError("gateway.api.events serves it")


async def document(_params: shapes.NoParams) -> dict[str, Any]:
    """This API, as an OpenAPI 3.1 document."""
    raise AssertionError("gateway.api.openapi makes it")


ROUTES: Final = (
    Route("GET", "/snapshot", handlers.snapshot),
    Route("GET", "/ps", handlers.ps),
    Route("GET", "/hosts", handlers.hosts),
    Route("GET", "/ps/{p}", handlers.one_p),
    Route("GET", "/ps/{p}/gs/{id}", handlers.one_g),
    Route("GET", "/gs", handlers.gs),
    Route("GET", "/jobs", handlers.jobs),
    Route(
        "POST", "/jobs", jobs.submit, SUBMIT, status=201, in_header=("traceparent", "tracestate")
    ),
    Route("GET", "/jobs/{id}", jobs.show),
    Route("GET", "/jobs/{id}/result", jobs.result),
    Route("GET", "/jobs/{id}/log", jobs.log),
    Route("POST", "/jobs/{id}/cancel", jobs.cancel, CANCEL),
    Route("POST", "/jobs/{id}/retry", jobs.retry, RETRY),
    Route("GET", "/failures", handlers.failures),
    Route("GET", "/functions", handlers.functions),
    Route("GET", "/registered", handlers.registered),
    Route("GET", "/clients", handlers.clients),
    Route("GET", "/config", handlers.settings),
    Route("GET", "/warnings", handlers.warnings),
    Route("GET", "/trace", handlers.trace),
    Route("GET", "/events", events, streams=True),
    Route("GET", "/openapi.json", document),
)


@dataclass(frozen=True, slots=True)
class Match:
    """The routes of a path by method, and the parameters in it."""

    routes: dict[str, Route]
    in_path: dict[str, str]

    @property
    def methods(self) -> frozenset[str]:
        return methods_of(self.routes)

    def route(self, method: str) -> Route | None:
        """The route of a method of this path."""
        return self.routes.get("GET" if method == "HEAD" else method)


def match(path: str) -> Match | None:
    """The routes of a path; None if there are none."""
    found = [(route, hit) for route in ROUTES if (hit := route.pattern.match(path))]
    if not found:
        return None
    return Match({route.method: route for route, _ in found}, found[0][1].groupdict())
