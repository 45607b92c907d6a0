"""Functions and classes of gmpd that only tests would use, or none: there are none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.trees import nodes_of

PACKAGE = Path(__file__).parents[2] / "gmpd"
SOURCES = sorted(PACKAGE.rglob("*.py"))

#: Defined for programs or called by other packages.
FOR_OTHERS = {
    "broadcast": "sync.Cond's",
    "emit": "logging.Handler's",
    "format_commands": "click's Group calls it",
    "get_debug": "asyncio's handles call it",
    "remove_done_callback": "asyncio.Future's",
    "get_source": "linecache asks loaders for the lines of a traceback",
    "abort_everything": "joblib's backends have it",
    "retrieve_result_callback": "joblib's backends have it",
    "get_result": "Django's backends of tasks have it",
    "imap_unordered": "multiprocessing.Pool's",
    "successful": "multiprocessing.pool.AsyncResult's",
    "persistent_load": "pickle.Unpickler calls it",
    "page_url": "for programs: where the gateway of a client's daemon serves",
    "rlocker": "sync.RWMutex's",
    "set_limit": "errgroup.Group's",
    "teardown": "Dask's workers call it",
    "try_go": "errgroup.Group's",
    "uncancel": "asyncio.Task's",
    "_cancel_message": "asyncio.Future's",
    "_get_snapshot": "concurrent.futures.Future's",
}

#: textual calls methods of its apps and screens by their names.
TEXTUAL = "cli/top_app.py"
BY_NAME = re.compile(r"(action|on)_\w+$|compose$|check_action$")

#: Names stand at the beginning of a text, if they do.
SHORT = 200

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def defined(path: Path) -> Iterator[Definition]:
    """Definitions without a decorator that may register them, dunders aside."""
    found: list[Definition] = [*nodes_of(path, ast.FunctionDef), *nodes_of(path, ast.ClassDef)]
    for node in [*found, *nodes_of(path, ast.AsyncFunctionDef)]:
        if not node.name.startswith("__") and all(
            isinstance(each, ast.Name) for each in node.decorator_list
        ):
            yield node


def named(path: Path) -> Iterator[str]:
    """Names that are read, and words of short texts: `__all__`, `getattr`, names of functions."""
    for name in nodes_of(path, ast.Name):
        if isinstance(name.ctx, ast.Load):
            yield name.id
    for attribute in nodes_of(path, ast.Attribute):
        if isinstance(attribute.ctx, ast.Load):
            yield attribute.attr
    for constant in nodes_of(path, ast.Constant):
        if isinstance(constant.value, str):
            yield from re.findall(r"\w+", constant.value[:SHORT])


def test_whatever_is_defined_is_used_by_gmpd_or_meant_for_others() -> None:
    """A name that is used anywhere counts: methods of one name are not told apart."""
    used = {name for path in SOURCES for name in named(path)}
    unused = {
        node.name: f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in SOURCES
        for node in defined(path)
        if node.name not in used
    }
    assert {
        name: where
        for name, where in unused.items()
        if name not in FOR_OTHERS and not (where.startswith(TEXTUAL) and BY_NAME.match(name))
    } == {}
