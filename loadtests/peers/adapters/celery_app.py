"""The application of Celery's workers and client."""

from __future__ import annotations

import os

import celery

from loadtests.peers.tasks import TASKS

url = os.environ["PEERS_REDIS"]
app = celery.Celery("peers", broker=url, backend=url)
if os.environ.get("PEERS_MODE") == "kill":
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
registered = {fn: app.task(fn, name=fn.__name__) for fn in TASKS}
