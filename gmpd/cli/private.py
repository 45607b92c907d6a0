"""A daemon of a command's own, for commands that show or measure one: it ends with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmpd.cli.app import App
    from gmpd.client.sync import Client


@contextmanager
def private_client(app: App, procs: int | None, imports: Sequence[str] = ()) -> Iterator[Client]:
    """A client with a daemon of its own, whose workers have imported these modules."""
    from gmpd.client.discovery import Target
    from gmpd.client.private import PrivateDaemon
    from gmpd.client.sync import Client

    config = app.config({"daemon.procs": procs, "daemon.imports": tuple(imports)})
    daemon = PrivateDaemon(config)
    with Client(target=Target.of(daemon.endpoint, config, daemon)) as client:
        yield client
