"""gmpd.daemon.watch: which files have changed, and when that counts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gmpd.daemon.watch import LOOK_NS, SETTLE_NS, State, Watch, drop_bytecode, state_of


class Disk:
    """Files by name; a number stands for their state."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}

    def read(self, path: str) -> State:
        state = self.files.get(path)
        return None if state is None else (state, state, state)


def watched(**files: int) -> tuple[Disk, Watch]:
    disk = Disk()
    disk.files.update(files)
    watch = Watch(disk.read)
    watch.add(files)
    return disk, watch


def test_a_change_counts_when_the_file_rests() -> None:
    disk, watch = watched(a=1, b=1)
    assert watch.look() == []
    for state in (2, 3, 4):
        disk.files["a"] = state
        assert watch.look() == []
        assert watch.pause_ns == SETTLE_NS
    assert watch.look() == ["a"]
    assert (watch.look(), watch.pause_ns) == ([], LOOK_NS)


def test_changes_are_told_together_when_all_of_them_rest() -> None:
    disk, watch = watched(a=1, b=1)
    disk.files["a"] = 2
    assert watch.look() == []
    disk.files["b"] = 2
    assert watch.look() == []
    assert watch.look() == ["a", "b"]


def test_a_file_that_is_away_for_a_moment_has_changed_once() -> None:
    disk, watch = watched(a=1)
    del disk.files["a"]
    assert watch.look() == []
    disk.files["a"] = 2
    assert watch.look() == []
    assert watch.look() == ["a"]


def test_a_file_that_is_removed_and_comes_back_changes_twice() -> None:
    disk, watch = watched(a=1)
    del disk.files["a"]
    assert [watch.look(), watch.look(), watch.look()] == [[], ["a"], []]
    disk.files["a"] = 1
    assert [watch.look(), watch.look()] == [[], ["a"]]


def test_a_change_that_is_taken_back_is_none() -> None:
    disk, watch = watched(a=1)
    disk.files["a"] = 2
    assert watch.look() == []
    disk.files["a"] = 1
    assert [watch.look(), watch.look()] == [[], []]


def test_a_file_that_is_reported_again_is_known_as_it_was() -> None:
    """A worker that imports it after an edit does not hide that edit from the others."""
    disk, watch = watched(a=1)
    disk.files["a"] = 2
    watch.add(["a"])
    assert [watch.look(), watch.look()] == [[], ["a"]]
    assert len(watch) == 1


def test_the_state_of_a_real_file(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    assert state_of(str(path)) is None
    path.write_text("x = 1\n")
    before = state_of(str(path))
    other = tmp_path / "m.py~"
    other.write_text("x = 2\n")
    assert state_of(str(path)) == before
    other.rename(path)
    assert state_of(str(path)) != before


def test_stale_bytecode_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    cached = Path(importlib.util.cache_from_source(str(path)))
    cached.parent.mkdir()
    cached.write_bytes(b"compiled")
    drop_bytecode([str(path), str(tmp_path / "none.py")])
    assert not cached.exists()
