"""The daemon: coordinator and workers. Each external interface has one module here that uses it."""

from gmpd import compiled

compiled.use()
