"""Rules of the house that no tool knows: each is stated once, here, and holds for every file."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import gmpd
from tests.trees import nodes_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gmpd"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

#: A function that cannot be seen at once is not read.
FUNCTION_LINES_MAX = 60

#: A file is read from the top in one sitting.
FILE_LINES_MAX = 600

#: Names under which code is put that nobody has thought about.
SHAPELESS = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools"}

#: Modules whose import starts a process. They are read, not imported.
PROGRAMS = {"__main__"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(nodes: list[ast.AST]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in SOURCES + TESTS
        # An empty one marks a package, and holds nothing.
        if path.stat().st_size and not begins_with_text(path)
    ]
    assert not silent


def begins_with_text(path: Path) -> bool:
    """Whether there is a docstring, without reading on: half of all lines are tests."""
    with path.open() as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type not in (tokenize.COMMENT, tokenize.NL):
                return token.type == tokenize.STRING and bool(ast.literal_eval(token.string))
    return False


def test_no_file_is_shapeless() -> None:
    assert not [
        name_of(path)
        for path in SOURCES
        if path.stem in SHAPELESS or SHAPELESS & set(path.relative_to(PACKAGE).parts[:-1])
    ]


def test_every_file_can_be_read_in_one_sitting() -> None:
    long = {
        name_of(path): lines
        for path in SOURCES
        if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX
    }
    assert not long, "split it by responsibility"


def test_every_function_can_be_read_at_once() -> None:
    long = {
        f"{node.name} ({name_of(path)}:{node.lineno})": lines
        for path in SOURCES
        for node in functions(nodes_of(path))
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert not long


def test_only_netpoll_speaks_to_zeromq() -> None:
    assert not [
        (name_of(path), name)
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") != "netpoll"
        for name in imports(nodes_of(path))
        if name.partition(".")[0] == "zmq"
    ]


def test_the_environment_is_read_in_one_place() -> None:
    """`GMPD_...` variables are settings, and `gmpd.config` reads those."""
    assert not [
        (name_of(path), name)
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0] != "config"
        for name in asked_of_the_environment(nodes_of(path))
    ]


def asked_of_the_environment(nodes: list[ast.AST]) -> list[str]:
    return [
        node.value
        for call in nodes
        if isinstance(call, ast.Call | ast.Subscript)
        for node in ast.walk(call.args[0] if isinstance(call, ast.Call) and call.args else call)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("GMPD_")
        and "__" in node.value
    ]


def test_tests_stop_processes_by_the_helper_that_waits() -> None:
    """A bare SIGSTOP returns while the process still runs."""
    signal_name = "signal." + "SIGSTOP"
    assert [name_of(p) for p in TESTS if signal_name in p.read_text()] == ["tests/support.py"]


def test_nothing_is_left_for_later() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")
    found = []
    for path in SOURCES + TESTS:
        text = path.read_text()
        found += [(name_of(path), w) for w in words if f"{w}:" in text or f"# {w}" in text]
    assert not found


#: Calls that start a process.
STARTS = re.compile(
    r"\b(?:subprocess\.(?:run|Popen|call|check_\w+)|multiprocessing\.\w+|spawn_process"
    r"|os\.(?:forkpty|fork|posix_spawnp?|system|popen|spawn\w+))\("
)


def test_no_unit_test_starts_a_process() -> None:
    """They are to be quick and alike on every machine: tests/integration is for processes."""
    assert not [
        f"{name_of(path)}: {found.group()})"
        for path in TESTS
        if path.parent.name == "unit"
        for found in STARTS.finditer(path.read_text())
    ]


def test_every_module_can_be_imported() -> None:
    for path in SOURCES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        needs_gevent = name.endswith("green") and importlib.util.find_spec("gevent") is None
        if path.stem not in PROGRAMS and not needs_gevent:
            assert importlib.import_module(name).__name__ == name


@pytest.mark.parametrize("name", gmpd.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(gmpd, name) is not None
    assert name in dir(gmpd)


def test_what_a_closed_channel_raises_can_be_caught_by_its_short_name() -> None:
    assert gmpd.ChanClosed is gmpd.errors.ChanClosed


def test_a_public_name_is_not_hidden_by_a_module_of_that_name() -> None:
    """Importing gmpd.job, the module, must not put it in the place of gmpd.job, the decorator."""
    for name in gmpd.__all__:
        module = f"gmpd.{name}"
        if importlib.util.find_spec(module) is not None and name != "errors":
            importlib.import_module(module)
            assert not isinstance(getattr(gmpd, name), ModuleType), name


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gmpd' has no attribute 'nonsense'"):
        getattr(gmpd, "nonsense")  # noqa: B009 - a type checker would refuse the plain form


def test_each_contract_of_the_design_is_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {one["id"]: one for one in settings["tool"]["importlinter"]["contracts"]}
    assert contracts.keys() >= {"floors", "policy", "zmq", "cycles"}
    assert contracts["floors"]["exhaustive"] is True
    assert {"time", "random", "os", "logging", "zmq"} <= set(
        contracts["policy"]["forbidden_modules"]
    )


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


# ------------------------------------------------------------------------------------------ words

#: What people read that is no program.
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "gmpd/**/*.md", "config/**/*", "loadtests/*.md", "*.yml", "Dockerfile")
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix not in {".svg", ".json", ".pyc"}
)

#: Words and phrases that are not to be used: how many are left in documents, and in sources. A
#: number may only fall: write plainly what you add, and lower the number when you mend some.
FORBIDDEN = {
    # name the subject: the client, the caller, the kernel
    r"\b(?:[Nn]o|[Ss]ome)body\b": (0, 0),
    r"\bwhoever\b": (0, 0),
    r"\bwho(?:ever)? (?:is|has|was|waits|asks|comes|lets|had)\b": (0, 0),
    r"(?m)(?:^\s*(?:#:? |\"\"\")|[.:] )(?:What|Who|Whoever) (?![^.?\n]*\?)": (0, 0),
    # name the amount
    r"\b[Ss]o (?:many|long|often)\b": (0, 0),
    # "because", or a colon
    r", for (?:it|they|he|she|each|the|a|an|its|that|this|there|what|whoever) ": (0, 0),
    # release; continue; except
    r"\b(?:[Ll]ets?|[Ll]etting) go of\b": (0, 0),
    r"\b(?:goes|go|went) on\b": (0, 0),
    r"\b[Bb]ut for\b": (0, 0),
    # the glossary's words: lease; steal; effect; "of the same function"
    r"\b(?:[Hh]and[- ]outs?|handed out)\b": (0, 0),
    r"\b(?:[Rr]ob(?:s|bed|bing)?|loot)\b": (0, 0),
    # worker pool; migration; fan-out of an administrative call; overflow log; leasing
    r"\b(?:[Rr]oster|[Oo]ffspring|[Ii]nquir(?:y|ies)|[Ss]pill(?:s|ed)?|[Hh]andout)\b": (0, 0),
    r"\b[Dd]eeds?\b": (0, 0),
    r"(?:\b[Ii]ts|'s) like\b": (0, 0),
    # ChanMessage; unpin; "shared memory" (a page is a web page)
    r"\b(?:[Ll]etters?|[Tt]hank(?:s|ed)?)\b": (0, 0),
    r"(?:\b[Ii]ts|\b[Tt]he|'s) pages?\b": (0, 0),
    # "report", "know", "the only module that uses it"
    r"\btold of\b": (0, 0),
    r"\b(?:only|one) door\b": (0, 0),
}


text_of = functools.cache(Path.read_text)


@pytest.mark.parametrize("phrase", FORBIDDEN)
def test_forbidden_phrases_become_fewer(phrase: str) -> None:
    for files, at_most in zip((DOCUMENTS, SOURCES), FORBIDDEN[phrase], strict=True):
        found = [
            f"{name_of(path)}:{text.count(chr(10), 0, match.start()) + 1}"
            for path in files
            for text in [text_of(path)]
            for match in re.finditer(phrase, text)
        ]
        assert len(found) <= at_most, (
            f"{len(found)} of {phrase!r}, {at_most} are allowed: {' '.join(found)}"
        )


def glossary() -> dict[str, str]:
    text = (PACKAGE / "ARCHITECTURE.md").read_text()
    rows = text.partition("\n## Glossary\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", rows, re.MULTILINE))


def test_each_term_is_defined_once_and_in_one_place() -> None:
    terms = glossary()
    assert {"job", "attempt", "lease", "claim", "revoke", "credit", "probe"} <= terms.keys()
    assert all(terms.values())
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \|", (PACKAGE / "ARCHITECTURE.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == sorted(terms), "a term is defined twice, or outside of the glossary"
    elsewhere = [
        (name_of(path), term)
        for path in DOCUMENTS
        if path.name != "ARCHITECTURE.md"
        for term in re.findall(r"^\| \*\*(.+?)\*\* \|", path.read_text(), re.MULTILINE)
        if term in terms
    ]
    assert not elsewhere


def test_each_term_of_the_glossary_is_in_use() -> None:
    text = "\n".join(path.read_text() for path in [*SOURCES, *DOCUMENTS]).lower()
    assert not [term for term in glossary() if text.count(term.lower()) < 2]
