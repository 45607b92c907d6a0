"""The rules by which requests are refused: Host, Origin, method, token, permission (SECURITY.md,
S16).

A page in some browser must neither read nor change anything: it is found out by its Host (DNS
rebinding), its Origin, and what browsers say of a request's site. Other users of this machine, and
other machines, need the token. Pure: facts in, a refusal or None out, so that a test can go through
the whole table.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

#: The words of ``http.allow``.
SUBMIT, CANCEL, RETRY = "submit", "cancel", "retry"

#: Browsers say one of these of requests that no foreign page makes.
_OWN_SITES: Final = frozenset({"same-origin", "none"})


class Why(Enum):
    """Why a request is refused: the label ``reason`` of the metric."""

    HOST = "host"
    ORIGIN = "origin"
    TOKEN = "token"  # noqa: S105 - the name of a reason
    METHOD = "method"
    PERMISSION = "permission"


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the gateway. ``hosts``: Host headers, in lower case. ``allow``: words of
    ``http.allow``. ``token``: empty if there is none."""

    hosts: frozenset[str]
    allow: frozenset[str] = frozenset()
    token: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as the rules look at it. ``is_own``: it comes from this machine, of this
    user or root. ``methods``: those of its path. ``permission``: the word of ``http.allow`` that it
    needs; empty if it only looks."""

    method: str
    hosts: tuple[str, ...]
    methods: frozenset[str]
    is_api: bool
    is_own: bool
    origin: str | None = None
    site: str | None = None
    authorization: str | None = None
    permission: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """``status`` and what is said."""

    status: int
    why: Why
    text: str
    hint: str = ""
    allow: str = ""


def refusal(asked: Asked, rules: Rules) -> Refusal | None:
    """The first rule that a request breaks."""
    return (
        _host(asked, rules)
        or _origin(asked)
        or _method(asked)
        or _token(asked, rules)
        or _permission(asked, rules)
    )


def _host(asked: Asked, rules: Rules) -> Refusal | None:
    if len(asked.hosts) == 1 and asked.hosts[0].lower() in rules.hosts:
        return None
    given = repr(asked.hosts[0][:100]) if asked.hosts else "'no host'"
    text = f"this gateway does not answer to {given}, only to {', '.join(sorted(rules.hosts))}."
    hint = "If the name is right, add it to http.hosts in the daemon's configuration."
    return Refusal(421, Why.HOST, text, hint)


def _origin(asked: Asked) -> Refusal | None:
    own = {f"{scheme}://{asked.hosts[0].lower()}" for scheme in ("http", "https")}
    foreign = asked.origin is not None and asked.origin.lower() not in own
    if asked.is_api and asked.site is not None and asked.site not in _OWN_SITES:
        foreign = True
    if not foreign:
        return None
    return Refusal(403, Why.ORIGIN, "this gateway answers no page of another site")


def _method(asked: Asked) -> Refusal | None:
    if asked.method in asked.methods:
        return None
    allow = ", ".join(sorted(asked.methods))
    return Refusal(405, Why.METHOD, f"only {allow} are served here", allow=allow)


def _token(asked: Asked, rules: Rules) -> Refusal | None:
    if not asked.is_api or asked.is_own:
        return None
    if not rules.token:
        text = "the JSON API answers its own user on this machine only"
        return Refusal(403, Why.TOKEN, text, "set http.token_file to admit others by a token")
    scheme, _, given = (asked.authorization or "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode(errors="replace"), rules.token.encode()
    ):
        return None
    text = "another token is needed" if asked.authorization else "a token is needed"
    return Refusal(401, Why.TOKEN, text, "send `Authorization: Bearer TOKEN` (http.token_file)")


def _permission(asked: Asked, rules: Rules) -> Refusal | None:
    if not asked.permission or asked.permission in rules.allow:
        return None
    text = f"http.allow does not name {asked.permission!r}"
    hint = f'set http.allow = ["{asked.permission}"] in the daemon\'s configuration'
    return Refusal(403, Why.PERMISSION, text, hint)


def methods_of(found: Iterable[str]) -> frozenset[str]:
    """The methods of a path: GET brings HEAD with it."""
    methods = frozenset(found)
    return methods | {"HEAD"} if "GET" in methods else methods
