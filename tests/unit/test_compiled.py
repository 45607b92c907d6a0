"""Which variant of the core runs, and why."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import source_hash
from pathlib import Path
from types import ModuleType

import pytest

from gmpd import compiled

SOURCE = "gmpd/one.py"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package of compiled modules that fits its sources, and gmpd beside it."""
    monkeypatch.delenv("GMPD_PURE", raising=False)
    monkeypatch.setattr(compiled, "_ROOT", str(tmp_path))
    (tmp_path / "gmpd").mkdir()
    (tmp_path / SOURCE).write_bytes(b"x = 1\n")
    made = ModuleType("_gmpd_compiled")
    made.__file__ = str(tmp_path / "_gmpd_compiled" / "__init__.py")
    (tmp_path / "_gmpd_compiled").mkdir()
    (tmp_path / "_gmpd_compiled" / f"gmpd.one{EXTENSION_SUFFIXES[0]}").touch()
    names = {
        "BY": "Cython 3.9 and cc 1.2",
        "WHY_PURE": "",
        "MODULES": ("gmpd.one",),
        "SOURCES": {SOURCE: source_hash(b"x = 1\n").hex()},
    }
    vars(made).update(names)
    monkeypatch.setitem(sys.modules, "_gmpd_compiled", made)
    return made


def decide() -> tuple[compiled.Variant, list[str]]:
    files: dict[str, str] = {}
    return compiled._decide(files), list(files)


def test_what_fits_is_used(installed: ModuleType) -> None:
    found, files = decide()
    assert found == compiled.Variant("compiled", by="Cython 3.9 and cc 1.2")
    assert str(found) == "compiled by Cython 3.9 and cc 1.2"
    assert files == ["gmpd.one"]


def test_a_changed_source_ends_it_for_all(
    installed: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / SOURCE).write_bytes(b"x = 2\n")
    why = "gmpd/one.py is not the file that was compiled"
    assert decide() == (compiled.Variant("pure", why=why, is_stale=True), [])
    (tmp_path / SOURCE).unlink()
    assert decide() == (compiled.Variant("pure", why=why, is_stale=True), [])


def test_modules_of_another_python_are_not_used(installed: ModuleType, tmp_path: Path) -> None:
    (file,) = (tmp_path / "_gmpd_compiled").iterdir()
    file.rename(file.with_name("gmpd.one.cpython-39-x86_64-linux-gnu.so"))
    found, files = decide()
    assert (found.name, found.is_stale, files) == ("pure", True, [])
    assert found.why == f"gmpd.one was not compiled for this Python ({EXTENSION_SUFFIXES[0]})"


def test_the_environment_takes_the_sources(
    installed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMPD_PURE", "1")
    assert decide() == (compiled.Variant("pure", why="GMPD_PURE is set"), [])
    monkeypatch.setenv("GMPD_PURE", "")
    assert decide()[0].name == "compiled"


def test_a_pure_installation_says_why(installed: ModuleType) -> None:
    installed.MODULES, installed.WHY_PURE = (), "no C compiler"  # type: ignore[attr-defined]
    assert decide() == (compiled.Variant("pure", why="no C compiler"), [])


def test_an_interpreter_beside_the_main_one_takes_the_sources(
    installed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not compiled._is_subinterpreter()
    monkeypatch.setattr(compiled, "_is_subinterpreter", lambda: True)
    found, files = decide()
    assert (found.name, files) == ("pure", [])


def test_pure_python_can_be_forbidden(
    installed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_variant", compiled.Variant("pure", why="no C compiler"))
    compiled.use()
    monkeypatch.setenv("GMPD_PURE", "0")
    with pytest.raises(ImportError, match="which GMPD_PURE=0 forbids: no C compiler; install"):
        compiled.use()


def test_a_module_that_cannot_be_loaded_says_what_to_do(installed: ModuleType) -> None:
    files: dict[str, str] = {}
    compiled._decide(files)
    finder = compiled._Finder(files)
    assert finder.find_spec("gmpd.other") is None
    spec = finder.find_spec("gmpd.one")
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"gmpd\.one was compiled .* run it with GMPD_PURE=1"):
        spec.loader.create_module(spec)
