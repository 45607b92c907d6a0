"""The public API only grows: a program written for the recorded version runs with this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gmpd.client.reference import FOR_GMPD
from tests.public_api import Parameters, parameters, surface

RECORDED: dict[str, Parameters | None] = json.loads(
    Path(__file__).parents[1].joinpath("data/public_api.json").read_text()
)
NOW = surface()
POSITIONAL = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD")
#: Methods without an underscore that are gmpd's own: no document names them, nor does ``help``.
INTERNAL = FOR_GMPD | {
    "lead", "new_queue", "finish_value", "finish_error", "finish_cancelled", "watched",
}  # fmt: skip


def accepts(now: Parameters, then: Parameters) -> str:
    """Why a call that fitted the parameters ``then`` may not fit ``now``; empty if it does."""
    by_name = {name: optional for name, kind, optional in now if kind != POSITIONAL[0]}
    for name, kind, optional in then:
        if kind == POSITIONAL[0]:
            continue
        if name not in by_name:
            return f"{name} is gone"
        if optional and not by_name[name]:
            return f"{name} must be given now"
    known = {name for name, _, _ in then}
    if added := [name for name, optional in by_name.items() if name not in known and not optional]:
        return f"{', '.join(added)} must be given now"
    before, after = ([each for each in of if each[1] in POSITIONAL] for of in (then, now))
    same = all(
        kind == POSITIONAL[0] or name == new
        for (name, kind, _), (new, _, _) in zip(before, after, strict=False)
    )
    return "" if same and len(after) >= len(before) else f"positions are {after}, were {before}"


def test_the_public_api_only_grows() -> None:
    public = {name for name in RECORDED if name.rpartition(".")[2] not in INTERNAL}
    assert public - NOW.keys() == set(), "public: keep it, or keep the name beside the new one"
    for name in public:
        then, now = RECORDED[name], NOW[name]
        if then is not None:
            assert now is not None, f"{name} was callable"
            assert not (why := accepts(now, then)), f"{name}: {why}"


def test_a_change_that_breaks_a_call_is_found() -> None:
    def why(now: Any) -> str:
        return accepts(*map(asked, (now, lambda a, /, b, *, c=1: None)))

    assert not why(lambda a, /, b, d=2, *, c=1, e=3: None)
    assert not why(lambda x, /, b, *, c=1: None)
    assert "b is gone" in why(lambda a, /, x, *, c=1: None)
    assert "c must be given" in why(lambda a, /, b, *, c: None)
    assert "e must be given" in why(lambda a, /, b, *, e, c=1: None)
    assert "positions" in why(lambda a, /, d=2, b=3, *, c=1: None)


def asked(fn: Any) -> Parameters:
    found = parameters(fn)
    assert found is not None
    return found
