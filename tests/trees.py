"""Syntax trees of source files, parsed once for all tests that read the sources."""

from __future__ import annotations

import ast
import functools
import gc
from pathlib import Path


@functools.cache
def imports_of(path: Path) -> list[ast.AST]:
    """Every import of the file, and every ``if``, as those may hold imports for types only."""
    return [
        node for node in nodes_of(path) if isinstance(node, ast.Import | ast.ImportFrom | ast.If)
    ]


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Every node of the file's syntax tree, breadth first."""
    gc.disable()  # no node is garbage: its passes took longer than the parser
    try:
        return list(ast.walk(ast.parse(path.read_text(), str(path))))
    finally:
        gc.enable()
