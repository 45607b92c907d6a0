"""The JSON API keeps to its own OpenAPI document, whatever is sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings

from gmpd.gateway.api import openapi
from gmpd.gateway.api.routes import ROOT, ROUTES
from tests.api_served import served

schemathesis = pytest.importorskip("schemathesis", reason="it is in the extra dev")


def test_schemathesis_finds_no_request_that_breaks_the_document() -> None:
    schema = schemathesis.openapi.from_dict(openapi.document())
    tried = set()
    with served(allow=frozenset({"submit", "cancel", "retry"})) as site:
        schema.config.base_url = f"http://{site.host}"
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.path.endswith("/events"):
                continue  # it does not end

            @seed(7)
            @given(case=operation.as_strategy())
            @settings(
                max_examples=12,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            def try_some(case: Any) -> None:
                case.call_and_validate()

            try_some()
            tried.add((operation.method.upper(), operation.path))
    streams = {each for each in ROUTES if each.streams}
    assert tried == {(each.method, ROOT + each.path) for each in {*ROUTES} - streams}
