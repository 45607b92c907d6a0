"""Keys of other machines: the line that a client is given, and the files that are believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmpd.errors import ConfigError
from gmpd.keys import (
    AllowedClient,
    ClientKey,
    KeyDirectory,
    Role,
    checked_address,
    parse_client_key,
    read_client_key,
)

SERVER, SECRET, PUBLIC = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
KEY = ClientKey("alice", SERVER, SECRET, "tcp://host:7411")
ALICE = AllowedClient("alice", PUBLIC, Role.SUBMIT, False, SECRET)


@pytest.fixture
def directory(tmp_path: Path) -> KeyDirectory:
    made = KeyDirectory(tmp_path / "keys")
    made.create(SECRET)
    return made


def test_a_key_is_one_line_that_no_shell_changes() -> None:
    assert parse_client_key(f" {KEY.text}\n") == KEY
    assert not set(KEY.text) & set(" \t'\"$`\\!#&*?;<>|(){}~")


@given(st.text(max_size=300))
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="this is none") as caught:
        parse_client_key(f"gmpd-key-1:{text}")
    assert len(text) < 20 or text not in str(caught.value)


def test_secrets_are_in_no_repr() -> None:
    for thing in (KEY, ALICE):
        assert repr(SECRET) not in repr(thing)
        assert SECRET.hex() not in repr(thing)


@pytest.mark.parametrize(
    "address", ["tcp://host:7411", "tcp://192.0.2.1:1", "tcp://[::1]:65535", "tcp://a.b-c:80"]
)
def test_addresses(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize(
    "address",
    ["host:7411", "tcp://host", "tcp://host:0", "tcp://host:65536", "tcp://:7411", "tcp://a b:1",
     "tcp://h:1;tcp://i:2", "tcp://::1:7411", "ipc:///tmp/x", "tcp://u@h:1", "tcp://h:1/x"],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="write it as tcp://host:7411"):
        checked_address(address)


def test_a_client_that_was_added_is_found_until_it_is_revoked(directory: KeyDirectory) -> None:
    directory.add(ALICE)
    directory.add(AllowedClient("bob", SERVER, Role.ADMIN, True))
    assert directory.clients() == [ALICE, AllowedClient("bob", SERVER, Role.ADMIN, True)]
    assert directory.client("alice") == ALICE
    directory.revoke("alice")
    assert [client.name for client in directory.clients()] == ["bob"]
    with pytest.raises(ConfigError, match="no key 'alice'"):
        directory.revoke("alice")


def test_nothing_that_is_there_is_replaced(directory: KeyDirectory) -> None:
    directory.add(ALICE)
    with pytest.raises(ConfigError, match="there is a key 'alice' already"):
        directory.add(ALICE)
    with pytest.raises(ConfigError, match="is there already, and clients rely on it"):
        directory.create(PUBLIC)
    assert directory.server_secret() == SECRET
    assert [path.name for path in directory.client_files()] == ["alice.toml"], "no draft is left"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", ".x", "a b", "ä", "x" * 65, "a\n"])
def test_names_are_names_of_files(directory: KeyDirectory, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a key"):
        directory.add(AllowedClient(name, PUBLIC))
    with pytest.raises(ConfigError, match="there is no key"):
        directory.revoke(name)


def test_all_files_are_their_owners_alone(directory: KeyDirectory) -> None:
    directory.add(ALICE)
    for path in (directory.path, *directory.path.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_missing_parents_of_the_directory_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        KeyDirectory(tmp_path / "share" / "gmpd" / "keys").create(SECRET)
    finally:
        os.umask(before)
    for path in (tmp_path / "share").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def _opened(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o044)


def _as_link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


@pytest.mark.parametrize(
    ("spoil", "which", "told"),
    [
        (_opened, "", "others may enter"),
        (_opened, "clients", "others may enter"),
        (_opened, "server.key", "others may read or write"),
        (_opened, "clients/alice.toml", "others may read or write"),
        (_as_link, "server.key", "cannot be read"),
        (_as_link, "clients/alice.toml", "cannot be read"),
        (_as_link, "clients", "no directory"),
    ],
)
def test_files_that_cannot_be_trusted_are_refused(
    directory: KeyDirectory, spoil: Callable[[Path], None], which: str, told: str
) -> None:
    directory.add(ALICE)
    spoil(directory.path / which)
    with pytest.raises(ConfigError, match=told):
        _ = directory.server_secret(), directory.clients()


@pytest.mark.parametrize(
    "text",
    ["", "x", "public = 5", f'public = "{PUBLIC.hex()}"',
     f'public = "{PUBLIC.hex()}"\nrole = "root"\npickle = false',
     f'public = "{PUBLIC.hex()}"\nrole = "submit"\npickle = "no"',
     f'public = "{PUBLIC.hex()}"\nrole = "submit"\npickle = false\nadmin = true',
     'public = "zz"\nrole = "submit"\npickle = false'],
)  # fmt: skip
def test_a_damaged_file_of_a_client_is_refused(directory: KeyDirectory, text: str) -> None:
    path = directory.path / "clients/eve.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"eve.toml is no key \(.*remove it"):
        directory.clients()


def test_without_keys_the_error_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`gmpd keys init`"):
        KeyDirectory(tmp_path / "none").server_secret()


def test_a_client_reads_its_key_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    path.write_text(f"{KEY.text}\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read or write"):
        read_client_key(path)
    path.chmod(0o400)
    assert read_client_key(path) == read_client_key(str(path)) == read_client_key(KEY.text) == KEY
    with pytest.raises(ConfigError, match="no key file"):
        read_client_key(tmp_path / "none")
    with pytest.raises(ConfigError, match="no regular file"):
        read_client_key(os.devnull)
