"""The document of the JSON API, and the guide: both have every route."""

from __future__ import annotations

import json
from pathlib import Path

from gmpd.gateway.api import openapi
from gmpd.gateway.api.routes import ROOT, ROUTES

GUIDE = Path(__file__).parents[2] / "gmpd" / "GUIDE.md"


def test_the_document_names_every_route_and_its_references_are_there() -> None:
    document = openapi.document()
    named = {(m.upper(), path) for path, each in document["paths"].items() for m in each}
    assert named == {(route.method, ROOT + route.path) for route in ROUTES}
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in schemas
    assert all(route.summary for route in ROUTES)


def test_the_guide_lists_every_route() -> None:
    text = GUIDE.read_text()
    for route in ROUTES:
        word = f" (`{route.permission}`)" if route.permission else ""
        assert f"| `{route.method} {route.path}`{word} |" in text, route.path
