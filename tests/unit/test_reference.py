"""`help(gmpd)` is an API reference: public names with their docstrings, no internals."""

from __future__ import annotations

import inspect
import pydoc
import re

import pytest

import gmpd

#: What a program may call of a client, however it waits.
VERBS = {
    "call", "close", "drain", "enqueue", "enqueue_many", "job", "map", "options", "stream",
    "submit", "unfinished",
}  # fmt: skip
METHODS = {
    "Client": VERBS,
    "AsyncClient": VERBS | {"connect"},
    "Executor": {"kill_workers", "map", "shutdown", "submit", "terminate_workers"},
}


def shown(name: str) -> set[str]:
    """The methods that pydoc shows."""
    text = pydoc.plain(pydoc.render_doc(getattr(gmpd, name)))
    return {
        method
        for method in re.findall(r"^ \|  (?:async )?([a-z]\w*)\(", text, re.MULTILINE)
        if not method.startswith("_")
    }


@pytest.mark.parametrize("name", METHODS)
def test_help_shows_the_methods_for_programs_and_no_others(name: str) -> None:
    assert shown(name) == METHODS[name]


def test_every_public_name_is_documented() -> None:
    things = {name: getattr(gmpd, name) for name in gmpd.__all__ if name != "__version__"}
    assert [name for name, thing in things.items() if not inspect.getdoc(thing)] == []
    silent = [
        f"{name}.{attribute}"
        for name, thing in things.items()
        if inspect.isclass(thing)
        for attribute, value in vars(thing).items()
        if not attribute.startswith("_")
        and callable(value)
        and attribute in dir(thing)
        and not inspect.getdoc(getattr(thing, attribute))
    ]
    assert not silent


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_blocking_and_asyncio_clients_take_the_same_arguments(verb: str) -> None:
    blocking, waiting = (
        inspect.signature(getattr(client, verb)).parameters.values()
        for client in (gmpd.Client, gmpd.AsyncClient)
    )
    assert [(p.name, p.kind, p.default) for p in blocking] == [
        (p.name, p.kind, p.default) for p in waiting
    ]
    assert inspect.getdoc(getattr(gmpd.AsyncClient, verb))
