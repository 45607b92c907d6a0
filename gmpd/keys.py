"""Keys of clients on other machines: the files of a daemon, and the line that a client is given.

A daemon's directory of keys (``tcp.keys``) has ``server.key``, and ``clients/NAME.toml`` for each
client that may connect: what is not there is refused. The client gets one line of text
(``ClientKey``), in a file or a variable: the daemon's address and public key, which it insists on,
and its own secret.

A key is 32 bytes of Curve25519, written as 64 hex digits; ``netpoll.curve`` makes them. Secrets are
in no ``repr``, no command line and no log. As OpenSSH does it, a file that others may read or write
is refused, and so is what is in a directory that others may enter.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from gmpd.errors import ConfigError
from gmpd.private_dir import make_private

#: The first word of a client's line, by which programs that look for leaked secrets know it.
MARK = "gmpd-key-1"
KEY_BYTES = 32
#: A client's name is a file's name, and is shown in tables and logs.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
#: Larger files are no keys.
_FILE_BYTES_MAX = 16_384


class Role(StrEnum):
    """The rights of a client."""

    #: Run registered functions, and see its own jobs.
    SUBMIT = "submit"
    #: Everything, with the jobs of all clients.
    ADMIN = "admin"
    #: Look at the daemon's state.
    READ = "read"


@dataclass(frozen=True, slots=True)
class AllowedClient:
    """A client that may connect, as the daemon knows it. ``pickle``: it may send and get Python
    objects, and a pickle runs code of its maker."""

    name: str
    public: bytes
    role: Role = Role.SUBMIT
    pickle: bool = False
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ClientKey:
    """All that a client needs; ``text`` is the line that it is given. ``server``: the daemon's
    public key. ``address``: ``tcp://host:port``."""

    name: str
    server: bytes
    secret: bytes = field(repr=False)
    address: str

    @property
    def text(self) -> str:
        """One line without blanks, and without characters that a shell reads in another way."""
        return f"{MARK}:{self.name}:{self.server.hex()}:{self.secret.hex()}:{self.address}"


def parse_client_key(text: str) -> ClientKey:
    """The key of a client's line. Raises ConfigError, which does not repeat the text."""
    words = text.strip().split(":", 4)
    try:
        mark, name, server, secret, address = words
        key = ClientKey(name, _from_hex(server), _from_hex(secret), checked_address(address))
    except ValueError:
        mark, key = "", None
    if key is None or mark != MARK or not _NAME.fullmatch(key.name):
        raise ConfigError(
            f"a key of a client is one line that begins with {MARK}:, as `gmpd keys export NAME`"
            " prints it where the daemon runs; this is none"
        )
    return key


def read_client_key(key: str | os.PathLike[str]) -> ClientKey:
    """A client's key: the line itself, or the path of a file that has it.

    Raises ConfigError for a file that others may read, and for what is no key.
    """
    if is_key_text(key):
        return parse_client_key(str(key))
    path = Path(key).expanduser()
    try:
        return parse_client_key(read_private(path, follow=True))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no key file {path}: `gmpd keys export NAME` prints its content where the"
            " daemon runs"
        ) from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def is_key_text(key: str | os.PathLike[str]) -> bool:
    """Whether it is a client's line, and not a path."""
    return isinstance(key, str) and key.lstrip().startswith(f"{MARK}:")


def checked_address(address: str) -> str:
    """``tcp://host:port``. Raises ValueError for anything else."""
    found = re.fullmatch(r"tcp://(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]@]+):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65_536:
        raise ValueError(f"{address!r} is no address of a daemon: write it as tcp://host:7411")
    return address


def _from_hex(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != KEY_BYTES or len(text) != 2 * KEY_BYTES:
        raise ValueError("a key has 64 hex digits")
    return key


# ---------------------------------------------------------------------------- the daemon's files


class KeyDirectory:
    """The keys of one daemon. Every method raises ConfigError when the files cannot be trusted."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._server = self.path / "server.key"
        self._clients = self.path / "clients"

    @property
    def is_there(self) -> bool:
        """Whether the daemon has a key of its own."""
        return self._server.exists()

    def create(self, secret: bytes) -> None:
        """Make the directory, with the daemon's own secret key."""
        for directory in (self.path, self._clients):
            try:
                make_private(directory)
            except OSError as error:
                raise ConfigError(
                    f"{directory} cannot be made: {error.strerror}; set tcp.keys"
                ) from error
        self.check()
        try:
            _write_private(self._server, f"{secret.hex()}\n")
        except FileExistsError:
            raise ConfigError(
                f"{self._server} is there already, and clients rely on it: remove it yourself if"
                " all of them are to get new keys"
            ) from None

    def server_secret(self) -> bytes:
        """The daemon's own secret key."""
        self.check()
        try:
            return _from_hex(read_private(self._server).strip())
        except FileNotFoundError:
            raise ConfigError(
                f"there is no key of this daemon in {self.path}: `gmpd keys init` makes it"
            ) from None
        except ValueError:
            raise ConfigError(f"{self._server} is no key: restore it") from None

    def add(self, client: AllowedClient) -> None:
        """Let a client connect."""
        check_name(client.name)
        self.check()
        text = (
            f'public = "{client.public.hex()}"\nsecret = "{client.secret.hex()}"\n'
            f'role = "{client.role}"\npickle = {str(client.pickle).lower()}\n'
        )
        try:
            _write_private(self._file(client.name), text)
        except FileExistsError:
            raise ConfigError(
                f"there is a key {client.name!r} already: `gmpd keys revoke {client.name}` removes"
                " it, or choose another name"
            ) from None

    def revoke(self, name: str) -> None:
        """Let a client connect no more."""
        self.check()
        try:
            if not _NAME.fullmatch(name):
                raise FileNotFoundError
            self._file(name).unlink()
        except FileNotFoundError:
            raise ConfigError(f"there is no key {name!r}: `gmpd keys ls` lists them") from None

    def client(self, name: str) -> AllowedClient:
        """One that may connect."""
        for client in self.clients():
            if client.name == name:
                return client
        raise ConfigError(f"there is no key {name!r}: `gmpd keys ls` lists them")

    def clients(self) -> list[AllowedClient]:
        """All that may connect, by name."""
        self.check()
        return [read_allowed(path) for path in self.client_files()]

    def client_files(self) -> list[Path]:
        """The files of those that may connect."""
        try:
            found = [Path(entry) for entry in os.scandir(self._clients)]
        except OSError as error:
            raise ConfigError(f"{self._clients} cannot be read: {error.strerror}") from error
        return sorted(path for path in found if path.suffix == ".toml")

    def _file(self, name: str) -> Path:
        return self._clients / f"{name}.toml"

    def check(self) -> None:
        """Refuse directories that others may enter. Raises ConfigError."""
        for directory in (self.path, self._clients):
            try:
                info = directory.lstat()
            except FileNotFoundError:
                raise ConfigError(
                    f"there are no keys in {self.path}: `gmpd keys init` makes the daemon's own"
                ) from None
            except OSError as error:
                raise ConfigError(f"{directory} cannot be read: {error.strerror}") from error
            if not stat.S_ISDIR(info.st_mode):
                raise ConfigError(f"{directory} is no directory, so no key in it is believed")
            if info.st_uid != os.geteuid():
                raise ConfigError(
                    f"{directory} belongs to uid {info.st_uid}, not to uid {os.geteuid()} who runs"
                    " this, so no key in it is believed: chown it, or set tcp.keys"
                )
            if stat.S_IMODE(info.st_mode) & 0o077:
                raise ConfigError(
                    f"others may enter {directory}, so no key in it is believed:"
                    f" chmod 700 {directory}"
                )


def check_name(name: str) -> None:
    """Raises ConfigError for what is no name of a client."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a key: 1 to 64 of A-Z, a-z, 0-9, dot, dash, underscore"
        )


def read_allowed(path: Path) -> AllowedClient:
    """The client of one file of a KeyDirectory. Raises ConfigError; FileNotFoundError."""
    try:
        table = tomllib.loads(read_private(path))
        return _allowed(path.stem, table)
    except (tomllib.TOMLDecodeError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is no key ({error}): remove it, and add it again") from None


def _allowed(name: str, table: dict[str, Any]) -> AllowedClient:
    check_name(name)
    if unknown := table.keys() - {"public", "secret", "role", "pickle"}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    if type(table["pickle"]) is not bool:
        raise ValueError("pickle is neither true nor false")
    secret = table.get("secret", "")
    return AllowedClient(
        name,
        _from_hex(table["public"]),
        Role(table["role"]),
        table["pickle"],
        _from_hex(secret) if secret else b"",
    )


def read_private(path: Path, *, follow: bool = False) -> str:
    """The text of a file that only its owner can read and write. ``follow``: also by a link."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"{path} is no regular file, so no key in it is believed")
        if info.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"{path} belongs to uid {info.st_uid}, so no key in it is believed")
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise ConfigError(
                f"others may read or write {path}, so no key in it is believed: chmod 600 {path},"
                " and make a new key if it may have been read"
            )
        return file.read(_FILE_BYTES_MAX).decode(errors="replace")


def _write_private(path: Path, text: str) -> None:
    """A new file, whole or not at all, on disk when this returns. Raises FileExistsError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
