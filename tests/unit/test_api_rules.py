"""Requests that the gateway refuses, cell by cell (SECURITY.md, S16)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gmpd.gateway.api.routes import ROOT, ROUTES
from gmpd.gateway.api.rules import Asked, Rules, Why, refusal

HOST = "127.0.0.1:7412"
RULES = Rules(
    frozenset({HOST, "gmpd.example:7412"}), frozenset({"cancel"}), "correct-horse-battery"
)
WORDS = ("submit", "cancel", "retry")
LOOK: dict[str, Any] = {
    "method": "GET", "hosts": (HOST,), "methods": frozenset({"GET", "HEAD"}), "is_api": True,
    "is_own": True,
}  # fmt: skip
CHANGE = LOOK | {"method": "POST", "methods": frozenset({"POST"}), "permission": "cancel"}
TOKEN = "Bearer correct-horse-battery"


def told(rules: Rules = RULES, **asked: Any) -> tuple[int, Why] | None:
    found = refusal(Asked(**asked), rules)
    return None if found is None else (found.status, found.why)


@pytest.mark.parametrize("base", [LOOK, CHANGE, LOOK | {"is_api": False}])
@pytest.mark.parametrize(
    ("hosts", "passes"),
    [
        ((HOST,), True), (("GMPD.example:7412",), True),
        ((), False), (("",), False), (("127.0.0.1",), False), (("127.0.0.1:7413",), False),
        (("evil.example",), False), (("evil.example:7412",), False), ((HOST, HOST), False),
        ((f"{HOST}.evil.example",), False), ((f"user@{HOST}",), False),
    ],
)  # fmt: skip
def test_it_answers_to_its_own_names_only(
    base: dict[str, Any], hosts: tuple[str, ...], passes: bool
) -> None:
    assert told(**base | {"hosts": hosts}) == (None if passes else (421, Why.HOST))


@pytest.mark.parametrize("base", [LOOK, CHANGE, LOOK | {"is_api": False}])
@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        (None, True), (f"http://{HOST}", True), (f"https://{HOST}", True), (f"HTTP://{HOST}", True),
        ("null", False), ("", False), ("http://127.0.0.1", False), ("http://evil.example", False),
        ("http://gmpd.example:7412", False), (f"http://{HOST}.evil.example", False),
        (f"ws://{HOST}", False), (f"file://{HOST}", False),
    ],
)  # fmt: skip
def test_no_page_of_another_site_is_answered(
    base: dict[str, Any], origin: str | None, passes: bool
) -> None:
    assert told(**base | {"origin": origin}) == (None if passes else (403, Why.ORIGIN))


@pytest.mark.parametrize("site", [None, "none", "same-origin", "same-site", "cross-site", "odd"])
def test_what_a_browser_says_of_a_requests_site_counts_for_the_api(site: str | None) -> None:
    own = site in (None, "none", "same-origin")
    assert told(**LOOK | {"site": site}) == (None if own else (403, Why.ORIGIN))
    assert told(**CHANGE | {"site": site}) == (None if own else (403, Why.ORIGIN))
    # A link on another page may lead here.
    assert told(**LOOK | {"site": site, "is_api": False}) is None


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"]
)
def test_a_path_has_the_methods_of_its_routes(method: str) -> None:
    looks, changes = method in ("GET", "HEAD"), method == "POST"
    assert told(**LOOK | {"method": method}) == (None if looks else (405, Why.METHOD))
    assert told(**CHANGE | {"method": method}) == (None if changes else (405, Why.METHOD))


@pytest.mark.parametrize(
    ("is_own", "token", "given"),
    [*itertools.product([True, False], ["", "correct-horse-battery"],
                      [None, "", "Bearer", "Bearer wrong", "Basic correct-horse-battery",
                       "correct-horse-battery", TOKEN, "bearer  correct-horse-battery",
                       "Bearer correct-horse-battery-and-more", "Bearer \u00fc"])],
)  # fmt: skip
def test_others_need_the_token(is_own: bool, token: str, given: str | None) -> None:
    rules = Rules(RULES.hosts, RULES.allow, token)
    right = given in (TOKEN, "bearer  correct-horse-battery")
    if is_own:
        expected = None
    elif not token:
        expected = (403, Why.TOKEN)
    else:
        expected = None if right else (401, Why.TOKEN)
    for base in (LOOK, CHANGE):
        asked = base | {"is_own": is_own, "authorization": given}
        assert told(rules, **asked) == expected
    # Metrics and health have no token: they show names and numbers.
    assert told(rules, **LOOK | {"is_own": is_own, "authorization": given, "is_api": False}) is None


@pytest.mark.parametrize(
    ("permission", "allow"),
    [*itertools.product(["", *WORDS], [(), ("submit",), ("cancel", "retry"), WORDS])],
)
def test_a_change_needs_its_word_whoever_asks(permission: str, allow: tuple[str, ...]) -> None:
    rules = Rules(RULES.hosts, frozenset(allow), RULES.token)
    passes = not permission or permission in allow
    for who in ({"is_own": True}, {"is_own": False, "authorization": TOKEN}):
        found = told(rules, **CHANGE | who | {"permission": permission})
        assert found == (None if passes else (403, Why.PERMISSION))


def test_every_route_that_changes_needs_a_word_and_no_other_does() -> None:
    for route in ROUTES:
        assert bool(route.permission) == (route.method != "GET"), route.path
        assert (route.body is not None) == (route.method != "GET"), route.path
    assert {r.permission for r in ROUTES} == {"", "submit", "cancel", "retry"}
    assert ROOT == "/api/v1"
