"""Private names of asyncio, threading and concurrent.futures: one module takes them, all are there,
and a Python without one of them is refused by its name.
"""

from __future__ import annotations

import ast
import asyncio
import concurrent.futures
import functools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmpd.errors import UnsupportedPython
from gmpd.runtime import internals
from tests.trees import nodes_of

PACKAGE = Path(__file__).parents[2] / "gmpd"
DOOR = PACKAGE / "runtime" / "internals.py"
OTHERS = sorted(path for path in PACKAGE.rglob("*.py") if path != DOOR)

#: Whose private names these rules are about.
BEHIND_THE_DOOR = ("asyncio", "_asyncio", "threading", "concurrent")
#: Submodules of asyncio whose names are not documented, be they public or not.
UNDOCUMENTED = {
    "base_events", "base_futures", "base_subprocess", "base_tasks", "constants", "coroutines",
    "events", "format_helpers", "log", "mixins", "selector_events", "staggered", "tasks",
    "thread", "trsock", "unix_events", "process", "_base",
}  # fmt: skip
#: Names in those modules that the documentation has.
NAMED_IN_DOCUMENTS = {"concurrent.futures.process.BrokenProcessPool"}
#: Their private functions are CPython's, and documented.
DOCUMENTED = {"os", "sys", "ctypes"}

ATTRIBUTE_CALLS = {"getattr", "setattr", "hasattr", "delattr"}

LISTED = {
    "_is_owned": "whether this thread has an RLock; threading.Condition asks it, too",
    **internals.LOOP,
    **internals.HANDLE,
    **internals.TIMER,
    **internals.FUTURE,
    **internals.TASK,
    **internals.EXECUTOR_FUTURE,
}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def called(node: ast.AST) -> str:
    """The name, if it is one."""
    return node.id if isinstance(node, ast.Name) else ""


def root(node: ast.AST) -> str:
    """The first name of ``a.b.c``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return called(node)


@functools.cache
def owned() -> frozenset[str]:
    """Names that gmpd's own classes and modules define."""
    return frozenset(name for path in OTHERS for name in owned_by(path))


def owned_by(path: Path) -> Iterator[str]:
    yield from (node.name for node in defined(path))
    for name in nodes_of(path, ast.Name):
        if isinstance(name.ctx, ast.Store):
            yield name.id
    for attribute in nodes_of(path, ast.Attribute):
        if isinstance(attribute.ctx, ast.Store) and called(attribute.value) in ("self", "cls"):
            yield attribute.attr
    for assign in nodes_of(path, ast.Assign):
        if called(assign.targets[0]) == "__slots__":
            yield from (str(n.value) for n in ast.walk(assign) if isinstance(n, ast.Constant))


def defined(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    yield from nodes_of(path, ast.FunctionDef)
    yield from nodes_of(path, ast.AsyncFunctionDef)
    yield from nodes_of(path, ast.ClassDef)


@functools.cache
def asked() -> list[tuple[str, str]]:
    """Private attributes of other objects, also those that are asked for by a string; and where."""
    return [(name, f"{path}:{line}") for path in OTHERS for name, line in asked_in(path)]


def asked_in(path: Path) -> Iterator[tuple[str, int]]:
    for attribute in nodes_of(path, ast.Attribute):
        if private(attribute.attr) and called(attribute.value) not in DOCUMENTED:
            yield attribute.attr, attribute.lineno
    for call in nodes_of(path, ast.Call):
        if called(call.func) in ATTRIBUTE_CALLS:
            name = call.args[1]
            if isinstance(name, ast.Constant) and private(str(name.value)):
                yield str(name.value), call.lineno


def theirs() -> set[str]:
    """Private names in the sources of these packages, on this Python."""
    found: set[str] = set()
    for package in (asyncio, threading, concurrent.futures):
        assert package.__file__ is not None
        file = Path(package.__file__)
        for path in file.parent.glob("*.py") if file.stem == "__init__" else [file]:
            found |= {node.attr for node in nodes_of(path, ast.Attribute)}
            found |= {node.name for node in defined(path)}
    return {name for name in found if private(name)}


def test_no_other_module_imports_a_private_name() -> None:
    found = []
    for path in OTHERS:
        for name, line in imported(path):
            top, *rest = name.split(".")
            if name in NAMED_IN_DOCUMENTS:
                continue
            if top in BEHIND_THE_DOOR and (
                private(top) or any(private(r) or r in UNDOCUMENTED for r in rest)
            ):
                found.append(f"{path}:{line}: {name}")
    assert found == []


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The full names that the file imports, and their lines."""
    for plain in nodes_of(path, ast.Import):
        yield from ((alias.name, plain.lineno) for alias in plain.names)
    for node in nodes_of(path, ast.ImportFrom):
        if node.level == 0 and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_no_other_module_asks_a_module_for_a_private_name() -> None:
    """``asyncio.tasks._current_tasks`` is as private as one that was imported."""
    found = []
    for path in OTHERS:
        for node in nodes_of(path, ast.Attribute):
            if root(node) in BEHIND_THE_DOOR:
                _, *rest = ast.unparse(node).partition("(")[0].split(".")
                if any(private(r) or r in UNDOCUMENTED for r in rest):
                    found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def test_every_private_attribute_that_gmpd_does_not_define_is_listed() -> None:
    foreign = theirs() - owned() - set(LISTED)
    assert [f"{where}: {name}" for name, where in asked() if name in foreign] == []


def test_frames_of_threads_have_one_door() -> None:
    """``sys._current_frames`` aborts the process beside sub-interpreters."""
    assert [
        f"{path}:{node.lineno}"
        for path in OTHERS
        for node in nodes_of(path, ast.Attribute)
        if node.attr == "_current_frames"
    ] == []


def test_whatever_is_listed_is_used() -> None:
    assert set(LISTED) <= {name for name, _ in asked()} | owned()
    text = "\n".join(path.read_text() for path in OTHERS)
    assert [name for name in internals.__all__ if name not in text and name != "absent"] == []


def test_whatever_is_listed_says_what_for_and_is_here() -> None:
    assert all(LISTED.values())
    assert all(one.purpose for one in internals.TAKEN)
    assert internals.absent() == []


def test_an_attribute_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(internals.LOOP, "_gone", "going nowhere")
    (told,) = internals.absent()
    assert "asyncio.SelectorEventLoop._gone, which gmpd needs for going nowhere" in told


@pytest.mark.parametrize("name", [f"{one.where}:{one.name}" for one in internals.TAKEN])
def test_a_python_without_it_is_refused_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, _, attribute = name.partition(":")
    monkeypatch.delattr(sys.modules[where], attribute)
    source = compile(DOOR.read_text(), str(DOOR), "exec", dont_inherit=True)
    with pytest.raises(UnsupportedPython, match=rf"has no {where}\.{attribute}, which gmpd needs"):
        exec(source, {"__name__": "gmpd.runtime.internals_again"})
