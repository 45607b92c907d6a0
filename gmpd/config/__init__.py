"""The settings: every key with its default, unit and meaning, and where a value came from.

The only reader of configuration files and of the environment. Everything else is handed a `Config`
or a section of it, and must not look for itself; `gmpd.sched` gets an even smaller policy object.

The first of these places that sets a value wins:

    flags > GMPD_SECTION__KEY > --config or $GMPD_CONFIG > ./gmpd.toml
          > ~/.config/gmpd/config.toml > /etc/gmpd/config.toml > the defaults

What is wrong anywhere in them is refused, also where another layer hides it: a typing error that
waits for the day on which the upper layer is removed is worse than one found now.
All problems are reported at once, each with file and line or variable, and what to write instead.

`units` reads and writes values, `keys` is the catalogue, `layers` says which source set which
value, `places` chooses directories, `load` puts it all together.
"""

from gmpd.config.keys import (
    KEYS,
    SECTIONS,
    Client,
    Cluster,
    Daemon,
    Dispatch,
    Http,
    Key,
    Limits,
    Restart,
    Tcp,
)
from gmpd.config.layers import Layer, Origin
from gmpd.config.load import Config, render
from gmpd.config.schedules import Scheduled, rendered
from gmpd.config.units import (
    Kind,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    split_address,
    split_cluster,
)

__all__ = [
    "KEYS",
    "SECTIONS",
    "Client",
    "Cluster",
    "Config",
    "Daemon",
    "Dispatch",
    "Http",
    "Key",
    "Kind",
    "Layer",
    "Limits",
    "Origin",
    "Restart",
    "Scheduled",
    "Tcp",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_size",
    "render",
    "rendered",
    "split_address",
    "split_cluster",
]
