"""The broker and tasks of Taskiq's workers and client."""

from __future__ import annotations

import os

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from loadtests.peers.tasks import TASKS

url = os.environ["PEERS_REDIS"]
results: RedisAsyncResultBackend = RedisAsyncResultBackend(url, max_connection_pool_size=100)
broker = RedisStreamBroker(url, max_connection_pool_size=100).with_result_backend(results)
registered = {fn: broker.register_task(fn, task_name=fn.__name__) for fn in TASKS}
