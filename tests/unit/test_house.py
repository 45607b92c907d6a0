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
PAGE = PACKAGE / "gateway" / "page"
PAGE_SOURCES = sorted([*PAGE.glob("*.js"), *PAGE.glob("*.css")])

#: A function that cannot be seen at once is not read.
FUNCTION_LINES_MAX = 60

#: A file is read from the top in one sitting.
FILE_LINES_MAX = 600

#: Names of modules without a subject.
SHAPELESS = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools"}

#: Modules whose import starts a process. They are read, not imported.
PROGRAMS = {"__main__"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from nodes_of(path, ast.FunctionDef)
    yield from nodes_of(path, ast.AsyncFunctionDef)


def imports(path: Path) -> Iterator[str]:
    for plain in nodes_of(path, ast.Import):
        yield from (alias.name for alias in plain.names)
    for node in nodes_of(path, ast.ImportFrom):
        if node.level == 0:
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
        for path in SOURCES + PAGE_SOURCES
        if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX
    }
    assert PAGE_SOURCES
    assert not long, "split it by responsibility"


def test_every_function_can_be_read_at_once() -> None:
    long = {
        f"{node.name} ({name_of(path)}:{node.lineno})": lines
        for path in SOURCES
        for node in functions(path)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert not long


def test_only_netpoll_speaks_to_zeromq() -> None:
    assert not [
        (name_of(path), name)
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") != "netpoll"
        for name in imports(path)
        if name.partition(".")[0] == "zmq"
    ]


def test_the_environment_is_read_in_one_place() -> None:
    """`GMPD_...` variables are settings, and `gmpd.config` reads those."""
    assert not [
        (name_of(path), name)
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0] != "config"
        for name in asked_of_the_environment(path)
    ]


def asked_of_the_environment(path: Path) -> list[str]:
    if "GMPD_" not in text_of(path):
        return []
    calls = nodes_of(path, ast.Call)
    keys: list[ast.AST] = [call.args[0] if call.args else call for call in calls]
    return [
        node.value
        for key in [*keys, *nodes_of(path, ast.Subscript)]
        for node in ast.walk(key)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("GMPD_")
        and "__" in node.value
    ]


def test_tests_clear_settings_by_the_helper_that_keeps_the_variant_of_the_core() -> None:
    """Or processes of a test with the sources run the compiled core."""
    cleared = re.compile(r"not \w+\.startswith\(\"GMPD_|if \w+\.startswith\(\"GMPD_")
    assert not [name_of(p) for p in TESTS if cleared.search(p.read_text())]


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


#: Modules for users of a library.
NEEDED = {
    "gmpd.client.green": "gevent",
    "gmpd.cluster.dask": "distributed",
    "gmpd.cluster.ray": "ray",
    "gmpd.contrib.django": "django",
    "gmpd.contrib.joblib": "joblib",
}


@pytest.mark.timeout(180)  # those that need Django, Dask or gevent import thousands of modules
def test_every_module_can_be_imported() -> None:
    for path in SOURCES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        needed = NEEDED.get(name, "gmpd")
        if path.stem not in PROGRAMS and importlib.util.find_spec(needed) is not None:
            assert importlib.import_module(name).__name__ == name


def test_every_public_name_is_there() -> None:
    for name in gmpd.__all__:
        assert getattr(gmpd, name) is not None, name
    assert set(gmpd.__all__) <= set(dir(gmpd))


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

#: Words and phrases that are not to be used. Each begins at the beginning of a word.
WORDS = (
    # name the subject: the client, the caller, the kernel
    r"(?:[Nn]o|[Ss]ome|[Aa]ny|[Ee]very)body\b",
    r"whoever\b",
    r"who(?:ever)? (?:is|has|was|waits|asks|comes|lets|had)\b",
    # name the amount
    r"[Ss]o (?:many|long|often)\b",
    # release; continue; except
    r"[Ll]et(?:s|ting)? go of\b",
    r"(?:go|goes|went) on\b",
    r"[Bb]ut for\b",
    # the glossary's words: lease; steal; effect; "of the same function"
    r"[Hh]and[- ]outs?\b",
    r"handed out\b",
    r"[Rr]ob(?:s|bed|bing)?\b",
    r"loot\b",
    r"[Dd]eeds?\b",
    r"[Ii]ts like\b",
    # worker pool; migration; fan-out of an administrative call; overflow log; leasing
    r"[Rr]oster\b",
    r"[Oo]ffspring\b",
    r"[Ii]nquir(?:y|ies)\b",
    r"[Ss]pill(?:s|ed)?\b",
    r"[Hh]andout\b",
    # ChanMessage; unpin; "shared memory" (a page is a web page)
    r"[Ll]etters?\b",
    r"[Tt]hank(?:s|ed)?\b",
    r"(?:[Ii]ts|[Tt]he) pages?\b",
    # "report", "know", "the only module that uses it"
    r"told of\b",
    r"(?:only|one) door\b",
)
#: As those, but each may begin anywhere.
PHRASES = (
    # the subject of a sentence has a name
    r"(?:[.:] |(?<!#)# |\"\"\")(?:What|Whatever|Who|Whoever) (?![^.?\n]*\?)",
    # a docstring begins with the thing that it describes
    r"\"\"\"(?:Of|Those|That) ",
    # "because", or a colon
    r", for (?:it|they|he|she|each|the|a|an|its|that|this|there|what|whoever) ",
    r"'s (?:like|pages?)\b",
)
#: All words are looked for at once: a search for each took most of the time of these tests.
FORBIDDEN = [rf"\b(?:{'|'.join(WORDS)})", *PHRASES]

text_of = functools.cache(Path.read_text)


def forbidden_in(text: str) -> list[re.Match[str]]:
    return [found for each in FORBIDDEN for found in re.finditer(each, text)]


@pytest.mark.parametrize("files", [DOCUMENTS, SOURCES], ids=["documents", "sources"])
def test_forbidden_words_and_phrases_are_not_used(files: list[Path]) -> None:
    assert not [
        f"{name_of(path)}:{text.count(chr(10), 0, found.start()) + 1}: {found.group()!r}"
        for path in files
        for text in [text_of(path)]
        for found in forbidden_in(text)
    ]


#: In tests and load tests: a docstring begins with its subject, which has a name.
WITHOUT_SUBJECT = re.compile(
    r"(?:\"\"\"Wh(?:at|atever|o|oever) |(?:Some|some|Any|any|Every|every)body\b|[Ww]hoever\b).*"
)


def test_no_docstring_of_a_test_leaves_its_subject_to_be_guessed() -> None:
    found = [
        f"{name_of(path)}: {found.group()!r}"
        for path in [*TESTS, *ROOT.glob(".build/*.py"), *ROOT.glob("loadtests/**/*.py")]
        if path != Path(__file__)
        for found in WITHOUT_SUBJECT.finditer(path.read_text())
    ]
    assert not found


def test_a_forbidden_phrase_is_found() -> None:
    planted = [
        "anybody", "the child that\nwhoever has", "who is", "so often", "letting go of it",
        "It goes on", "but for", "hand-out", "a robbed P", "its like", "'s like", "the roster",
        "Spilled", "a letter", "its page", "the job's pages", "told of", "one door", "X, for it ",
        "A G. What ends it", '"""Who asks."""', "    #: What is kept", "# Whoever asked",
        '"""Of all Ps."""', '"""Those that run."""',
    ]  # fmt: skip
    assert [text for text in planted if not forbidden_in(text)] == []


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
    text = "\n".join(text_of(path) for path in [*DOCUMENTS, *SOURCES]).lower()
    unused = []
    for term in map(str.lower, glossary()):
        if text.find(term, text.index(term) + 1) < 0:
            unused.append(term)
    assert not unused
