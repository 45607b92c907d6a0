"""How many Ps: Go's GOMAXPROCS rule over injected values, and the reader over fake trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gmpd.cpus import Facts, check_procs, gomaxprocs, read_facts, read_quota
from gmpd.errors import ConfigError

V2_MOUNT = "30 24 0:26 {root} {mount} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "32 31 0:29 {root} {mount} rw,relatime - cgroup cgroup rw,{controllers}\n"


class Tree:
    """A fake / with what the kernel shows of cgroups."""

    def __init__(self, root: Path):
        self.root = root
        (root / "proc/self").mkdir(parents=True)

    def proc(self, cgroup: str, mountinfo: str) -> None:
        (self.root / "proc/self/cgroup").write_text(cgroup)
        (self.root / "proc/self/mountinfo").write_text(mountinfo)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def v2(self, group: str, **limits: str) -> None:
        """`limits`: cpu.max by directory, with _ for / and top for the mount itself."""
        self.proc(f"0::{group}\n", V2_MOUNT.format(root="/", mount="/sys/fs/cgroup"))
        for directory, text in limits.items():
            below = "" if directory == "top" else directory.replace("_", "/") + "/"
            self.write(f"sys/fs/cgroup/{below}cpu.max", text)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("cpus", "affinity", "quota", "procs"),
    [
        (8, 8, None, 8),
        (8, 3, None, 3),
        (8, 8, 1.5, 2),  # the rows of reference row 45
        (8, 8, 2.5, 3),
        (8, 8, 2.0, 2),
        (8, 8, 0.1, 2),  # the quota's part is never below 2 ...
        (1, 1, 0.1, 1),  # ... unless there is but one CPU
        (8, 1, 4.0, 1),
        (8, 4, 64.0, 4),
        (2, 8, None, 2),
    ],
)
def test_procs_are_the_allowed_cpus_bounded_by_the_quota(
    cpus: int, affinity: int, quota: float | None, procs: int
) -> None:
    assert gomaxprocs(cpus, affinity, quota) == procs
    assert Facts(cpus, tuple(range(affinity)), quota).procs == procs


def test_v2_reads_cpu_max(tree: Tree) -> None:
    tree.v2("/app", app="150000 100000")
    assert read_quota(tree.root) == 1.5


def test_v2_max_is_no_limit(tree: Tree) -> None:
    tree.v2("/app", app="max 100000")
    assert read_quota(tree.root) is None


def test_v2_the_tightest_level_counts(tree: Tree) -> None:
    tree.v2("/a/b/c", a="400000 100000", a_b="250000 100000", a_b_c="max 100000")
    assert read_quota(tree.root) == 2.5


def test_v2_in_a_container_sees_its_own_group_as_the_top(tree: Tree) -> None:
    tree.v2("/", top="50000 100000")
    assert read_quota(tree.root) == 0.5


def test_a_mount_may_show_only_a_part_of_the_hierarchy(tree: Tree) -> None:
    tree.proc("0::/docker/abc/app\n", V2_MOUNT.format(root="/docker/abc", mount="/sys/fs/cgroup"))
    tree.write("sys/fs/cgroup/app/cpu.max", "300000 100000")
    assert read_quota(tree.root) == 3.0


def test_a_group_outside_of_every_mount_limits_nothing(tree: Tree) -> None:
    tree.proc("0::/elsewhere\n", V2_MOUNT.format(root="/docker/abc", mount="/sys/fs/cgroup"))
    tree.write("sys/fs/cgroup/cpu.max", "300000 100000")
    assert read_quota(tree.root) is None


def test_a_mount_point_may_hold_blanks(tree: Tree) -> None:
    tree.proc("0::/app\n", V2_MOUNT.format(root="/", mount=r"/sys/fs/my\040cgroup"))
    tree.write("sys/fs/my cgroup/app/cpu.max", "200000 100000")
    assert read_quota(tree.root) == 2.0


def v1(tree: Tree, group: str, controllers: str = "cpu,cpuacct") -> str:
    mount = f"/sys/fs/cgroup/{controllers}"
    tree.proc(
        f"4:memory:/other\n3:{controllers}:{group}\n0::/unified\n",
        V1_MOUNT.format(root="/", mount="/sys/fs/cgroup/cpuset", controllers="cpuset")
        + V1_MOUNT.format(root="/", mount=mount, controllers=controllers)
        + V2_MOUNT.format(root="/", mount="/sys/fs/cgroup/unified"),
    )
    tree.write("sys/fs/cgroup/unified/unified/cpu.max", "900000 100000")
    return mount.lstrip("/")


def test_v1_reads_quota_and_period_and_goes_before_v2(tree: Tree) -> None:
    mount = v1(tree, "/app")
    tree.write(f"{mount}/app/cpu.cfs_quota_us", "250000")
    tree.write(f"{mount}/app/cpu.cfs_period_us", "100000")
    assert read_quota(tree.root) == 2.5


def test_v1_minus_one_is_no_limit(tree: Tree) -> None:
    mount = v1(tree, "/app", "cpu")
    tree.write(f"{mount}/app/cpu.cfs_quota_us", "-1")
    tree.write(f"{mount}/app/cpu.cfs_period_us", "100000")
    assert read_quota(tree.root) is None


@pytest.mark.parametrize("text", ["", "nonsense", "1", "1 0", "1 2 3"])
def test_what_cannot_be_read_limits_nothing(tree: Tree, text: str) -> None:
    tree.v2("/app", app=text)
    assert read_quota(tree.root) is None


def test_without_cgroups_nothing_is_limited(tree: Tree) -> None:
    assert read_quota(tree.root) is None
    tree.proc("", "broken line\n")
    assert read_quota(tree.root) is None


def test_the_facts_of_this_process_are_those_of_the_kernel() -> None:
    facts = read_facts()
    assert set(facts.allowed) == os.sched_getaffinity(0)
    assert 1 <= facts.procs <= len(facts.allowed)


@pytest.mark.parametrize(("cpus", "most"), [(1, 64), (2, 64), (8, 64), (9, 72), (128, 1024)])
def test_more_ps_than_a_machine_can_use_are_refused_in_words(cpus: int, most: int) -> None:
    check_procs(most, cpus)
    with pytest.raises(ConfigError, match=f"{most + 1} Ps are more .* at most {most} "):
        check_procs(most + 1, cpus)
