"""Ctrl-C at any moment of `gmpd`: no traceback, and a shell sees 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

#: Interrupts the process as it begins to import a module; `main` is called as the script does.
PROGRAM = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

moment, sys.argv[1:] = sys.argv[1], ["status"]
sys.meta_path.insert(0, Interrupt())
from gmpd.cli import main
if moment == "the end":
    import atexit
    atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.exit(main())
"""

MOMENTS = [
    "gmpd.cli.commands", "click", "click.core", "click.shell_completion", "gmpd.inherited",
    "gmpd.cli.app", "gmpd.cli.report", "gmpd.cli.status", "gmpd.rundir", "the end",
]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_prints_no_traceback(moment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, moment],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (-signal.SIGINT, 130), done
    assert "Traceback" not in done.stderr


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """`nohup gmpd …`, or `&` of a shell's script."""
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program, "click"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode not in (-signal.SIGINT, 130), done
    assert "Traceback" not in done.stderr


def test_nothing_of_the_standard_library_is_imported_before_main() -> None:
    """Until then Ctrl-C prints a traceback. ``importlib`` and ``types`` are of ``gmpd`` itself."""
    program = """if True:
        import sys
        before = set(sys.modules)
        import gmpd.cli
        print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    late = {"signal", "enum", "contextlib", "re", "typing", "collections", "functools"}
    assert not late & set(done.stdout.split()), done.stdout
