"""Syntax trees of source files, parsed once for all tests that read the sources."""

from __future__ import annotations

import ast
import functools
import gc
from pathlib import Path


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Every node of the file's syntax tree, breadth first."""
    gc.disable()  # no node is garbage: its passes took longer than the parser
    try:
        return list(ast.walk(ast.parse(path.read_text(), str(path))))
    finally:
        gc.enable()
