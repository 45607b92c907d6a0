"""Wheels as pip makes them: compiled or pure, what each says, and which modules then run.

What is compiled here is a small project with the real hook, `pyproject.toml` and `gmpd.compiled`:
CI installs gmpd itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = ROOT / ".build" / "hook.py"

pytest.importorskip("hatchling", reason="of the extra dev")
pytest.importorskip("Cython", reason="of the extra dev")
pytestmark = pytest.mark.skipif(not HOOK.exists(), reason="not in the repository")
compiles = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


OURS = {"GMPD_PURE": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(words: Sequence[str], fails: bool = False, cwd: Path | None = None, **env: str) -> str:
    """The output of ``python words``."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **OURS, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout
    return done.stdout


PIP = ("-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps", "--no-index")


def wheel(project: Path, **env: str) -> tuple[Path, str]:
    """The wheel, and what was said."""
    place = project.parent / "wheels"
    shutil.rmtree(place, ignore_errors=True)
    words = (*PIP, "-w", str(place), str(project))
    said = run(words, False, project.parent, **env)
    (made,) = place.iterdir()
    return made, said


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


# ---- gmpd itself ---------------------------------------------------------------------------------


def test_a_source_distribution_has_all_that_a_wheel_needs(tmp_path: Path) -> None:
    run(["-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], cwd=ROOT)
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (project,) = (tmp_path / "unpacked").iterdir()
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert ".build/hook.py" in files
    declared = {str(path.relative_to(ROOT)) for path in (ROOT / "gmpd").rglob("*.pxd")}
    assert declared <= files
    assert not {name for name in files if name.endswith((".c", ".so"))}, "they would go stale"
    pure, said = wheel(project, GMPD_PURE="1")
    assert pure.name.endswith("-py3-none-any.whl")
    assert "gmpd: the package is pure Python: GMPD_PURE=1 was set" in said
    assert {"_gmpd_compiled/__init__.py", "gmpd/compiled.py", "gmpd/py.typed", *declared} <= names(
        pure
    )


# ---- a small project -----------------------------------------------------------------------------

ONE = """
def fails(n):
    raise ValueError(n)  # here
"""
LOOK = """
    import sys, traceback
    import gmpd.sched.one as one
    from gmpd import compiled
    assert one.__file__.endswith("gmpd/sched/one.py"), one.__file__
    found = compiled.variant()
    assert ("cython" in type(one.fails).__name__) is (found.name == "compiled")
    print(found.name, found.is_stale, found.why, sep="|", flush=True)
    try:
        one.fails(1)
    except ValueError:
        traceback.print_exc()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """gmpd with one compiled module of a few lines."""
    top = tmp_path / "project"
    (top / "gmpd" / "sched").mkdir(parents=True)
    (top / ".build").mkdir()
    shutil.copy(HOOK, top / ".build")
    for name in ("README.md", "LICENSE", "gmpd/__init__.py", "gmpd/compiled.py"):
        shutil.copy(ROOT / name, top / name)
    (top / "gmpd" / "sched" / "__init__.py").write_text(
        "from gmpd import compiled\n\ncompiled.use()\n"
    )
    (top / "gmpd" / "sched" / "one.py").write_text(ONE)
    text = (ROOT / "pyproject.toml").read_text()
    before, _, after = text.partition("\nmodules = [")
    assert after
    text = f'{before}\nmodules = ["gmpd.sched.one"]{after.partition("]")[2]}'
    (top / "pyproject.toml").write_text(text)
    return top


def look(place: Path, *, fails: bool = False, **env: str) -> str:
    """The words of the module in this directory."""
    program = textwrap.dedent(LOOK)
    words = ("-P", "-c", program)
    return run(words, fails, place.parent, PYTHONPATH=str(place), **env)


def install(made: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    words = "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target"
    run([*words, str(place), str(made)])


@compiles
def test_a_compiled_wheel_runs_compiled_while_it_fits(project: Path, tmp_path: Path) -> None:
    made, said = wheel(project, GMPD_PURE="0")
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert f"-{tag}-{tag}-linux_" in made.name
    assert "gmpd: 1 module was compiled by Cython " in said
    assert not list(project.rglob("*.c")) + list(project.rglob("*.so")), "nothing lies in the tree"
    place = tmp_path / "installed"
    install(made, place)
    told = look(place, GMPD_PURE="0")
    assert told.startswith("compiled|False|\n")
    assert "raise ValueError(n)  # here" in told, "a traceback has the lines of the source"

    assert look(place, GMPD_PURE="1").startswith("pure|False|GMPD_PURE is set\n")

    source = place / "gmpd" / "sched" / "one.py"
    source.write_text(ONE + "# changed\n")
    stale = "gmpd/sched/one.py is not the file that was compiled"
    assert look(place).startswith(f"pure|True|{stale}\n")
    assert f"which GMPD_PURE=0 forbids: {stale}" in look(place, fails=True, GMPD_PURE="0")
    source.write_text(ONE)
    assert look(place).startswith("compiled|")

    (file,) = place.glob("_gmpd_compiled/*.so")
    file.write_bytes(b"no machine code")
    said = look(place, fails=True)
    assert "gmpd.sched.one was compiled when gmpd was installed, and cannot be loaded" in said
    file.rename(file.with_name("gmpd.sched.one.cpython-39-x86_64-linux-gnu.so"))
    assert look(place).startswith("pure|True|gmpd.sched.one was not compiled for this Python")


def test_what_fails_to_compile_is_pure_and_says_why(project: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "failing"
    compiler.write_text(
        "#!/bin/sh\necho 'x.c:1:1: fatal error: stdio.h: No such file' >&2\nexit 1\n"
    )
    compiler.chmod(0o755)
    made, said = wheel(project, CC=str(compiler))
    why = "compiling failed: x.c:1:1: fatal error: stdio.h: No such file"
    assert f"gmpd: the package is pure Python: {why}" in said
    assert made.name.endswith("-py3-none-any.whl")
    place = tmp_path / "installed"
    install(made, place)
    assert look(place).startswith(f"pure|False|{why}\n")

    words = (*PIP, "-w", str(tmp_path), str(project))
    said = run(words, fails=True, CC=str(compiler), GMPD_PURE="0")
    assert f"gmpd: not compiled, as GMPD_PURE=0 demands: {why}" in said


def test_a_machine_without_compiler_needs_none(project: Path, tmp_path: Path) -> None:
    made, said = wheel(project, CC="no-such-compiler")
    assert "pure Python: there is no no-such-compiler, which CC names" in said
    assert made.name.endswith("-py3-none-any.whl")


# ---- processes -----------------------------------------------------------------------------------


def test_workers_run_the_sources_as_their_daemon_does(no_daemon: None) -> None:
    program = textwrap.dedent("""
        import gmpd

        def why():
            import os
            from gmpd import compiled
            return compiled.variant().why, os.environ["GMPD_PURE"]

        with gmpd.Executor(1) as pool:
            print(*pool.submit(why).result(), sep="|")
    """)
    assert run(["-c", program], cwd=ROOT, GMPD_PURE="1") == "GMPD_PURE is set|1\n"


def test_the_choice_of_a_variant_imports_little() -> None:
    """``importlib.abc`` imported 60 ms of modules up to Python 3.11."""
    program = "import gmpd.compiled, sys; print('importlib.abc' in sys.modules)"
    assert run(["-S", "-c", program], cwd=ROOT, PYTHONPATH=str(ROOT)) == "False\n"
