"""Circles among modules, imports for type checking included: there are none."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.trees import nodes_of

ROOT = Path(__file__).parents[2]

#: The public face: it names what programs use, and imports each when it is asked for.
FACE = "gmpd"

Graph = Mapping[str, frozenset[str]]


@functools.cache
def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "gmpd").rglob("*.py")
    }


def imported(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules() else node.module


def for_types_only(nodes: list[ast.If]) -> set[int]:
    """The nodes under ``if TYPE_CHECKING``, by identity."""
    return {
        id(inner)
        for node in nodes
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }


def graph(*, types: bool) -> Graph:
    """The imports of each module, wherever in it; ``types``: for type checking too."""
    found = {}
    for name, path in modules().items():
        skipped = set() if types else for_types_only(nodes_of(path, ast.If))
        imports: list[ast.AST] = [*nodes_of(path, ast.Import), *nodes_of(path, ast.ImportFrom)]
        wanted = imported([node for node in imports if id(node) not in skipped])
        found[name] = frozenset(wanted) & modules().keys() - {name}
    return {**found, FACE: frozenset()}


def in_circles(of: Graph) -> set[str]:
    """Every module from which imports lead back to it."""
    left = dict(of)
    found: set[str] = set()
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle = set(error.args[1])
            found |= circle
            # One node in place of the circle, so that the next round finds what else is in it.
            node = min(circle)
            out = frozenset().union(*(left[each] for each in circle)) - circle
            left = {
                name: frozenset(node if each in circle else each for each in wanted) - {name}
                for name, wanted in left.items()
                if name not in circle
            }
            left[node] = out
        else:
            return found


def test_no_module_names_itself_by_what_it_imports() -> None:
    """Imports for type checking are counted: a type is a thing that a reader must know."""
    assert in_circles(graph(types=True)) == set()


def test_no_module_needs_itself_to_be_imported() -> None:
    """Imports inside functions are counted, those for type checking are not."""
    assert in_circles(graph(types=False)) == set()
