"""Syntax trees of source files, parsed once for all tests that read the sources."""

from __future__ import annotations

import ast
import functools
import gc
from collections import defaultdict
from pathlib import Path
from typing import TypeVar, cast

Node = TypeVar("Node", bound=ast.AST)


def nodes_of(path: Path, *kinds: type[Node]) -> list[Node]:
    """The nodes of these classes in the file, kind after kind, each kind breadth first."""
    by_kind = _kinds_of(path)
    return cast("list[Node]", [node for kind in kinds for node in by_kind.get(kind, ())])


@functools.cache
def _kinds_of(path: Path) -> dict[type[ast.AST], list[ast.AST]]:
    """Every node of the file's syntax tree, by its class, ``Load`` and ``Store`` left out."""
    gc.disable()  # no node is garbage: the collector's passes took longer than the parser
    try:
        found = defaultdict(list)
        nodes: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
        for node in nodes:
            found[type(node)].append(node)
            for value in vars(node).values():  # in the order of fields, as ast.walk has it
                if isinstance(value, list):
                    nodes += [each for each in value if isinstance(each, ast.AST)]
                elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
                    nodes.append(value)
        gc.freeze()
    finally:
        gc.enable()
    return found


def forget() -> None:
    """Free the trees: every pass of the collector would go through their objects."""
    _kinds_of.cache_clear()
