"""Virtual environments of other revisions of this repository, for scripts that compare two.

Each one has gmpd installed as its own ``pip install .`` installs it, by the interpreter that runs
this.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python_of(revision: str | None, directory: Path) -> str:
    """The interpreter of an environment in ``directory`` that has this revision; None: the files as
    they are now. One that is there already is used again, except of the files.

    Raises SystemExit when there is no such revision, or it cannot be installed.
    """
    if revision is None:
        name = "tree"
        shutil.rmtree(directory / name, ignore_errors=True)
    else:
        name = (
            _git("rev-parse", "--verify", "--short=12", f"{revision}^{{commit}}").decode().strip()
        )
    home = directory / name
    python = home / "venv" / "bin" / "python"
    if (home / "installed").exists():
        return str(python)
    shutil.rmtree(home, ignore_errors=True)
    print(f"installing {revision or 'this tree'}", file=sys.stderr)
    source = home / "source"
    source.mkdir(parents=True)
    copy_of(revision, source)
    _run(sys.executable, "-m", "venv", str(home / "venv"))
    _run(str(python), "-m", "pip", "install", "--quiet", str(source))
    (home / "installed").touch()
    return str(python)


def copy_of(revision: str | None, to: Path) -> None:
    if revision is not None:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", revision))) as archive:
            archive.extractall(to, filter="data")
        return
    for name in _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0"):
        path = Path(os.fsdecode(name))
        if name and (ROOT / path).is_file():  # else it was removed
            (to / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, to / path)


def _git(*args: str) -> bytes:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(args)}: {done.stderr.decode().strip()}")
    return done.stdout


def _run(*command: str) -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
