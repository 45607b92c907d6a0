"""Syntax trees of source files, parsed once for all tests that read the sources."""

from __future__ import annotations

import ast
import functools
import gc
from collections import defaultdict
from pathlib import Path
from typing import TypeVar

Node = TypeVar("Node", bound=ast.AST)


def nodes_of(path: Path, *kinds: type[Node]) -> list[Node]:
    """The nodes of these classes in the file, kind after kind, each kind breadth first."""
    by_kind = _kinds_of(path)
    return [node for kind in kinds for node in by_kind.get(kind, ()) if isinstance(node, kind)]


@functools.cache
def _kinds_of(path: Path) -> dict[type[ast.AST], list[ast.AST]]:
    """Every node of the file's syntax tree, by its class."""
    gc.disable()  # no node is garbage: the collector's passes took longer than the parser
    try:
        found = defaultdict(list)
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            found[type(node)].append(node)
        gc.freeze()
    finally:
        gc.enable()
    return found


def forget() -> None:
    """Free the trees: every pass of the collector would go through their objects."""
    _kinds_of.cache_clear()
