"""The unit file as systemd reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "config" / "systemd" / "gmpd.service"


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (systemd)"
)
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "gmpd.service"
    # The program need not be installed where the unit says for the unit to be right.
    unit.write_text(UNIT.read_text().replace("/opt/gmpd/bin/gmpd", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    about_us = [line for line in done.stderr.splitlines() if "gmpd.service" in line]
    assert (done.returncode, about_us) == (0, [])
