"""The broker and actors of Dramatiq's workers and client."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from loadtests.peers.tasks import TASKS

# The client of Redis allows 100 connections, and a result that finds none is lost.
url = os.environ["PEERS_REDIS"] + "?max_connections=5000"
broker = RedisBroker(url=url)
broker.add_middleware(Results(backend=RedisBackend(url=url)))
dramatiq.set_broker(broker)
registered = {
    fn: dramatiq.actor(fn, actor_name=fn.__name__, store_results=True)
    for fn in TASKS
    if not fn.__name__.startswith("nap")  # coroutines need a middleware, and a thread each
}
