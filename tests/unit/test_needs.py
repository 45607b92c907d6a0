"""gmpd.needs: whether a daemon of some size fits."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from gmpd.errors import ConfigError
from gmpd.needs import Given, fitting, read_given


def test_what_is_not_limited_fits() -> None:
    assert fitting(64, 0, Given()) == (64, "")
    assert fitting(2, 0, Given(files=1024, tasks=100, memory=1 << 30)) == (2, "")


def test_it_is_made_smaller_and_says_why() -> None:
    procs, why = fitting(16, 0, Given(files=256))
    assert 1 <= procs < 16
    assert why.startswith("a daemon of 16 Ps needs 352 descriptors, 256 are allowed (ulimit -n")
    assert why.endswith(f"it has {procs} Ps instead")


@pytest.mark.parametrize(
    ("given", "lack"),
    [
        (Given(files=64), "112 descriptors, 64 are allowed"),
        (Given(tasks=10), "24 processes and threads, 10 more are allowed"),
        (Given(memory=50 << 20), "116 MB of memory, 50 MB more are allowed"),
    ],
)
def test_too_little_for_one_is_refused(given: Given, lack: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fitting(4, 0, given)
    assert lack in str(caught.value)


def test_the_tightest_cgroup_counts(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    group = tmp_path / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    files = {
        "pids.max": "max", "pids.current": "3", "memory.max": "1000", "memory.current": "900",
        "memory.stat": "anon 1\ninactive_file 50\n",
    }  # fmt: skip
    for name, text in files.items():
        (group / name).write_text(text)
    (group.parent / "pids.max").write_text("20\n")
    (group.parent / "pids.current").write_text("15\n")
    given = read_given(tmp_path)
    assert (given.tasks, given.memory) == (5, 150)
    assert given.files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
