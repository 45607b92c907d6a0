"""The build hook: when it compiles, and its words where it does not."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from importlib.util import source_hash
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".build" / "hook.py"

pytest.importorskip("hatchling", reason="of the extra dev")
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="not in the repository")


@pytest.fixture
def hook() -> ModuleType:
    """The script, as Hatchling loads it."""
    spec = importlib.util.spec_from_file_location("hook_under_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "gmpd").mkdir()
    (tmp_path / "gmpd" / "one.py").write_text("x = 1\n")
    (tmp_path / "gmpd" / "one.pxd").write_text("cdef int x\n")
    (tmp_path / "gmpd" / "other.py").write_text("y = 1\n")
    return tmp_path


def build(
    hook: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, version: str, **env: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The build data, and the names of the manifest."""
    monkeypatch.delenv("GMPD_PURE", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    config = {"modules": ["gmpd.one"], "directives": {}, "requires": ["cython"]}
    one = hook.Hook(str(project), config, None, None, "", "wheel")
    data: dict[str, Any] = {"force_include": {}, "force_include_editable": {}}
    one.initialize(version, data)
    names: dict[str, Any] = {}
    (made,) = data["force_include"]
    assert data["force_include"] == {made: "_gmpd_compiled"} == data["force_include_editable"]
    exec(Path(made, "__init__.py").read_text(), names)
    one.finalize(version, data, "")
    assert not Path(made).exists()
    return data, names


@pytest.fixture
def compiles(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A compiler that notes what it was given."""
    seen: list[str] = []

    def run(root: Path, modules: list[str], directives: object, into: Path, cc: str) -> None:
        seen.extend(modules)

    monkeypatch.setattr(hook, "run_compiler", run)
    monkeypatch.setattr(hook, "compiler", lambda env: "cc")
    monkeypatch.setattr(hook, "compiler_version", lambda cc: "cc 1.2")
    monkeypatch.setattr(hook, "version", lambda name: "3.9")
    monkeypatch.setattr(hook, "find_spec", lambda name: name)
    return seen


def test_a_wheel_names_what_it_was_compiled_of(
    hook: ModuleType, project: Path, compiles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, told = build(hook, project, monkeypatch, "standard")
    assert compiles == ["gmpd.one"]
    assert (data["pure_python"], data["infer_tag"]) == (False, True)
    assert told["BY"] == "Cython 3.9 and cc 1.2"
    assert told["WHY_PURE"] == ""
    assert told["MODULES"] == ("gmpd.one",)
    assert told["SOURCES"] == {
        "gmpd/one.py": source_hash(b"x = 1\n").hex(),
        "gmpd/one.pxd": source_hash(b"cdef int x\n").hex(),
    }


@pytest.mark.parametrize(
    ("version", "env", "why"),
    [
        ("standard", {"GMPD_PURE": "1"}, "GMPD_PURE=1 was set when it was installed"),
        ("editable", {"GMPD_PURE": "1"}, "GMPD_PURE=1 was set when it was installed"),
        ("editable", {}, "an editable install is compiled on GMPD_PURE=0 alone"),
    ],
)
def test_what_nobody_wants_compiled_is_pure(
    hook: ModuleType,
    project: Path,
    compiles: list[str],
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    env: dict[str, str],
    why: str,
) -> None:
    data, told = build(hook, project, monkeypatch, version, **env)
    assert compiles == []
    assert data.keys() == {"force_include", "force_include_editable"}, "py3-none-any"
    assert told["WHY_PURE"] == why
    assert (told["MODULES"], told["SOURCES"], told["BY"]) == ((), {}, "")


def test_an_editable_install_is_compiled_when_asked_for(
    hook: ModuleType, project: Path, compiles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, told = build(hook, project, monkeypatch, "editable", GMPD_PURE="0")
    assert told["MODULES"] == ("gmpd.one",)


def test_failed_compiling_makes_a_pure_wheel_or_an_error(
    hook: ModuleType,
    project: Path,
    compiles: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise hook.NotCompiled("compiling failed: no")

    monkeypatch.setattr(hook, "run_compiler", fail)
    data, told = build(hook, project, monkeypatch, "standard")
    assert told["WHY_PURE"] == "compiling failed: no"
    assert "pure_python" not in data
    said = capsys.readouterr()
    assert "gmpd: the package is pure Python: compiling failed: no" in said.out + said.err
    with pytest.raises(
        SystemExit, match="not compiled, as GMPD_PURE=0 demands: compiling failed: no;"
    ):
        build(hook, project, monkeypatch, "standard", GMPD_PURE="0")


def test_a_build_without_isolation_names_the_tool_that_is_missing(
    hook: ModuleType, project: Path, compiles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "find_spec", lambda name: None)
    _, told = build(hook, project, monkeypatch, "standard")
    assert told["WHY_PURE"].startswith("Cython is not installed")


def test_without_a_compiler_nothing_is_required(
    hook: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = {"requires": ["cython"]}
    one = hook.Hook(str(project), config, None, None, "", "wheel")
    monkeypatch.setattr(hook, "compiler", lambda env: "cc")
    monkeypatch.delenv("GMPD_PURE", raising=False)
    assert one.dependencies() == ["cython"]
    monkeypatch.setenv("GMPD_PURE", "1")
    assert one.dependencies() == []
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert one.dependencies() == []


def command(directory: Path, name: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text("#!/bin/sh\n")
    (directory / name).chmod(0o755)


def test_the_compiler_is_that_of_cc_of_python_or_any(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = tmp_path / "include" / "Python.h"
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(header.parent))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "icc -pthread")
    path = tmp_path / "bin"
    env = {"PATH": str(path)}
    with pytest.raises(hook.NotCompiled, match="no C compiler"):
        hook.compiler(env)
    command(path, "clang")
    with pytest.raises(hook.NotCompiled, match="python3-dev"):
        hook.compiler(env)
    header.parent.mkdir()
    header.touch()
    assert hook.compiler(env) == "clang"
    command(path, "icc")
    assert hook.compiler(env) == "icc -pthread"
    with pytest.raises(hook.NotCompiled, match="there is no mycc -m32, which CC names"):
        hook.compiler({**env, "CC": "mycc -m32"})


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("gcc -c\nx.c:1:1: fatal error: a.h: No such file\nmore",
         "x.c:1:1: fatal error: a.h: No such file"),
        ("\nError compiling Cython file:\n---\nx\n\ngmpd/one.py:3:5: Expected an indented block\n",
         "gmpd/one.py:3:5: Expected an indented block"),
        ("Traceback (most recent call last):\n  File\nValueError: no\n", "ValueError: no"),
        ("only this", "only this"),
        ("", "nothing was said"),
        ("error: " + "x" * 500, "error: " + "x" * 143 + "..."),
    ],
)  # fmt: skip
def test_the_first_error_is_told(hook: ModuleType, output: str, said: str) -> None:
    assert hook.first_error(output) == said


def test_listed_modules_are_there(hook: ModuleType) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    table = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    assert hook.sources(ROOT, table["modules"]).keys() >= {
        f"{name.replace('.', os.sep)}.py" for name in table["modules"]
    }
