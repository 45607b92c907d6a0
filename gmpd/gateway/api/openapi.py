"""The OpenAPI 3.1 document, from the table of routes and the types of its handlers."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from msgspec.json import schema_components

import gmpd
from gmpd.gateway.api import shapes
from gmpd.gateway.api.routes import ROOT, ROUTES, Route

_REF: Final = "#/components/schemas/{name}"

#: Refusals that every route may give.
_REFUSALS: Final = {
    400: "A parameter or a field is wrong: `field` names it.",
    401: "Another machine, or another user, needs a token.",
    403: "A foreign origin, no token is set, or `http.allow` does not name it.",
    421: "The Host header names another server.",
    429: "Too many questions at once: Retry-After says when to ask again.",
    500: "A fault of the gateway.",
    503: "The daemon does not answer.",
}
_OF_ONE: Final = {404: "There is no such thing.", 409: "It cannot be done as things are."}
_OF_BODIES: Final = {
    404: "There is no such thing.",
    409: "It cannot be done as things are.",
    413: "The body is too large.",
    415: "The body is no application/json.",
    422: "A value cannot be sent: `field` names it.",
}


@cache
def document() -> dict[str, Any]:
    """The document; its readers must not change it."""
    kinds: list[Any] = [shapes.Problem, shapes.Lost, shapes.Gone]
    kinds += [kind for route in ROUTES for kind in (route.body, route.answer)]
    kinds = [kind for kind in dict.fromkeys(kinds) if hasattr(kind, "__struct_fields__")]
    _, components = schema_components(kinds, ref_template=_REF)
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(ROOT + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gmpd",
            "version": gmpd.__version__,
            "description": "A daemon of gmpd: its Ps, Gs, jobs and clients. It only looks, unless"
            " `http.allow` says otherwise. Beyond its own user on its own machine it asks for a"
            " token.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": {str(route.status): _answer(route), **_refusals(route)},
    }
    if route.permission:
        operation["description"] = f'Needs `http.allow = ["{route.permission}"]`.'
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(_ref(route.body))}
    return operation


def _answer(route: Route) -> dict[str, Any]:
    if route.streams:
        content: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
    elif hasattr(route.answer, "__struct_fields__"):
        content = _json(_ref(route.answer))
    else:
        content = _json({"type": "object"})
    return {"description": "The answer.", "content": content}


def _refusals(route: Route) -> dict[str, Any]:
    known = dict(_REFUSALS)
    if route.in_path:
        known |= _OF_ONE
    if route.body is not None:
        known |= _OF_BODIES
    if route.path == "/jobs":
        known |= _OF_ONE
    return {
        str(status): {"description": text, "content": _json(_ref(shapes.Problem))}
        for status, text in sorted(known.items())
    }


def _parameters(route: Route) -> list[dict[str, Any]]:
    _, components = schema_components([route.params], ref_template=_REF)
    declared = components[route.params.__name__]
    parameters = []
    for name, schema in declared.get("properties", {}).items():
        plain = dict(schema)
        where = "path" if name in route.in_path else "query"
        if name in route.in_header:
            where = "header"
        required = where == "path" or name in declared.get("required", ())
        parameter = {"name": name, "in": where, "required": required}
        if text := plain.pop("description", ""):
            parameter["description"] = text
        parameters.append({**parameter, "schema": _without_null(plain)})
    return parameters


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out rather than null."""
    if "anyOf" in schema:
        kinds = [each for each in schema["anyOf"] if each.get("type") != "null"]
        rest = {k: v for k, v in schema.items() if k not in ("anyOf", "default")}
        schema = {**rest, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}
    if "enum" in schema:
        schema = {**schema, "enum": [each for each in schema["enum"] if each is not None]}
    if schema.get("default", 0) is None:
        schema = {k: v for k, v in schema.items() if k != "default"}
    return schema


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(kind: type[Any]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
