"""Hatchling's build hook: compiles the modules that pyproject.toml lists, where that can be done.

``GMPD_PURE`` in the environment of the build decides: ``1`` compiles nothing; ``0`` makes whatever
keeps it from compiling an error; without it such a wheel is pure, and the build says why. An
editable install is compiled on ``0`` alone, as its first changed source would end that again.

Each wheel carries the package ``_gmpd_compiled``: the compiled modules, and the hashes of the files
that they were made of, or why there are none. ``gmpd.compiled`` reads it. The reasons for all this
are in gmpd/decisions/build.md.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec, source_hash
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "_gmpd_compiled"
#: Tried in this order where neither CC nor Python's own configuration names one that is there.
COMPILERS = ("cc", "gcc", "clang")
TOOLS = ("Cython", "setuptools")

EDITABLE = "an editable install is compiled on GMPD_PURE=0 alone"
#: Characters of a compiler's message that are told.
ERROR_MAX = 150
HOW = "GMPD_PURE=1 in the environment installs the pure package"


class NotCompiled(Exception):
    """Why nothing is compiled: half a sentence."""


class Hook(BuildHookInterface[Any]):
    """Adds ``_gmpd_compiled`` to a wheel."""

    def dependencies(self) -> list[str]:
        """The tools that compile, if anything is to be compiled. Asked for before the build."""
        try:
            wanted(os.environ)
            compiler(os.environ)
        except NotCompiled:
            return []
        return list(self.config["requires"])

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is made; ``version`` is "standard" or "editable"."""
        self.made = tempfile.TemporaryDirectory(prefix="gmpd-build-")
        package = Path(self.made.name, PACKAGE)
        package.mkdir()
        root, modules = Path(self.root), list(self.config["modules"])
        try:
            wanted(os.environ, editable=version == "editable")
            by = self._compile(root, modules, package)
        except NotCompiled as why:
            if os.environ.get("GMPD_PURE") == "0":
                self.made.cleanup()
                raise SystemExit(
                    f"gmpd: not compiled, as GMPD_PURE=0 demands: {why}; {HOW}"
                ) from None
            self.app.display_warning(f"gmpd: the package is pure Python: {why}")
            (package / "__init__.py").write_text(manifest(why=str(why)))
        else:
            many = "1 module was" if len(modules) == 1 else f"{len(modules)} modules were"
            self.app.display_info(f"gmpd: {many} compiled by {by}")
            files = sources(root, modules)
            (package / "__init__.py").write_text(manifest(by=by, modules=modules, files=files))
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
        build_data["force_include"][str(package)] = PACKAGE
        build_data["force_include_editable"][str(package)] = PACKAGE

    def _compile(self, root: Path, modules: Sequence[str], package: Path) -> str:
        cc = compiler(os.environ)
        for tool in TOOLS:
            if find_spec(tool) is None:
                raise NotCompiled(f"{tool} is not installed, and the build runs without isolation")
        run_compiler(root, modules, self.config["directives"], package, cc)
        return f"Cython {cython_version()} and {compiler_version(cc)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.made.cleanup()


# ---- whether, and by what ------------------------------------------------------------------------


def wanted(env: Mapping[str, str], *, editable: bool = False) -> None:
    """Raises NotCompiled where the environment or the kind of install asks for pure Python."""
    pure = env.get("GMPD_PURE", "")
    if pure not in ("", "0"):
        raise NotCompiled(f"GMPD_PURE={pure} was set when it was installed")
    if editable and pure != "0":
        raise NotCompiled(EDITABLE)


def compiler(env: Mapping[str, str]) -> str:
    """The command of the C compiler. Raises NotCompiled without it, or without Python's headers."""
    asked = env.get("CC")
    named = [asked] if asked else [sysconfig.get_config_var("CC") or "cc", *COMPILERS]
    path = env.get("PATH", os.defpath)
    found = [each for each in named if shutil.which(shlex.split(each)[0], path=path)]
    if not found:
        raise NotCompiled(
            f"there is no {asked}, which CC names" if asked else "no C compiler is here"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        raise NotCompiled("no headers of Python (Debian: python3-dev)")
    return found[0]


def compiler_version(cc: str) -> str:
    told = subprocess.run(
        [*shlex.split(cc), "-dumpfullversion", "-dumpversion"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    name = Path(shlex.split(cc)[0]).name
    return f"{name} {told.stdout.strip()}" if told.returncode == 0 else name


def cython_version() -> str:
    return version("Cython")


# ---- the work, in a process of its own -----------------------------------------------------------


def run_compiler(
    root: Path, modules: Sequence[str], directives: Mapping[str, Any], into: Path, cc: str
) -> None:
    """Compile ``modules`` into the directory ``into``. Raises NotCompiled with the first error.

    In a process of its own: setuptools changes the one that it runs in, and a tool that ends by
    ``SystemExit`` or a crash ends nothing else.
    """
    order = json.dumps({"modules": modules, "directives": directives, "into": str(into)})
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), order],
        cwd=root, env={**os.environ, "CC": cc}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode == 0:
        return
    sys.stderr.write(done.stdout)
    raise NotCompiled(f"compiling failed: {first_error(done.stdout)}")


def first_error(output: str) -> str:
    """The line that says most of what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if "error: " in line.lower()]  # of compiler and linker
    named = [line for line in lines if re.match(r"[\w/.]+\.(py|pxd):\d+:\d+: ", line)]  # of Cython
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    found = (named or told or raised or lines or ["nothing was said"])[0]
    return found if len(found) <= ERROR_MAX else f"{found[:ERROR_MAX]}..."


def compile_all(modules: Sequence[str], directives: Mapping[str, Any], into: Path) -> None:
    """In the current directory, which is the project's: compiled code names its sources so."""
    cythonize: Any = import_module("Cython.Build").cythonize  # it has no types
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    work = into.parent / "work"
    cores = len(os.sched_getaffinity(0))
    # Without debugging information: it is most of the size, and says nothing of the .py files.
    plain = [
        Extension(name, [name.replace(".", "/") + ".py"], extra_compile_args=["-g0"])
        for name in modules
    ]
    extensions = cythonize(
        plain, build_dir=str(work), compiler_directives=dict(directives), nthreads=cores, quiet=True
    )
    command = build_ext(Distribution({"name": "gmpd", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(work / "lib"), str(work / "temp")
    command.parallel = cores
    command.ensure_finalized()
    command.run()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for name in modules:
        shutil.move(command.get_ext_fullpath(name), into / f"{name}{suffix}")


# ---- what the installed package is told ----------------------------------------------------------


def sources(root: Path, modules: Sequence[str]) -> dict[str, str]:
    """The files that the compiled modules are made of, with the hashes of their contents."""
    files = [root / (name.replace(".", "/") + ".py") for name in modules]
    files += sorted((root / "gmpd").rglob("*.pxd"))
    return {str(file.relative_to(root)): source_hash(file.read_bytes()).hex() for file in files}


def manifest(
    *,
    by: str = "",
    why: str = "",
    modules: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> str:
    """The text of ``_gmpd_compiled/__init__.py``."""
    return (
        '"""Modules of gmpd as they were compiled at its installation; gmpd.compiled reads it."""\n'
        f"BY = {by!r}\n"
        f"WHY_PURE = {why!r}\n"
        f"MODULES = {tuple(modules)!r}\n"
        f"SOURCES = {dict(files or {})!r}\n"
    )


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    compile_all(given["modules"], given["directives"], Path(given["into"]))
