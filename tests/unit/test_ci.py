"""The script that checks everything: a part of it that hangs is ended, with all that it started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import wait_until

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"

HANGS = """
part() {
    bash -c 'setsid sleep 3600 & exec sleep 3600'
    echo "went on"
}
begin hangs part
end_of hangs && exit 9
begin fails false
end_of fails && exit 8
begin ends echo passed
end_of ends
"""


def with_mark(mark: str) -> list[str]:
    """Command lines of processes with this in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:  # it has ended, or is another user's
            continue
    return found


@pytest.mark.skipif(not SCRIPT.exists(), reason="these tests are not in their repository")
def test_a_part_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    functions = SCRIPT.read_text().removesuffix('main "$@"\n')
    assert functions != SCRIPT.read_text()
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_text(functions + HANGS)
    mark = f"GUARD={tmp_path}"
    done = subprocess.run(
        ["bash", str(script)],
        env={**os.environ, "PART_S_MAX": "1", "DUMP_S": "0.1", "GUARD": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hangs: still not over after 1 s" in done.stdout
    assert "sleep 3600" in done.stdout
    assert "went on" not in done.stdout
    assert done.stdout.endswith("passed\n")
    wait_until(lambda: not with_mark(mark), "nothing of it is left")
