"""A backend for Django's tasks: ``"BACKEND": "gmpd.contrib.django.GmpdBackend"`` in ``TASKS``.

Of Django 6 and later, or of the package ``django-tasks`` for earlier versions. A task is a durable
job: once ``enqueue`` has returned it is on disk, and its result is there for every process that
asks the daemon, by the id of the job. The worker sets Django up by the program's settings module.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections
from django.utils import timezone
from django.utils.module_loading import import_string

import gmpd
from gmpd.client.discovery import find
from gmpd.client.stored import Attempt, StoredJob
from gmpd.config import Config
from gmpd.errors import DaemonUnreachable
from gmpd.job import JobOptions
from gmpd.runtime.log_records import current_ids, worker_p

try:
    _home = import_module("django.tasks").__name__
except ImportError:
    _home = import_module("django_tasks").__name__
_base: Any = import_module(f"{_home}.base")
_backends: Any = import_module(f"{_home}.backends.base")
_errors: Any = import_module(f"{_home}.exceptions")
_signals: Any = import_module(f"{_home}.signals")
_json: Any = import_module("django.utils.json" if _home == "django.tasks" else f"{_home}.utils")
_Status: Any = _base.TaskResultStatus

#: Job options that ``OPTIONS`` may have; the others are the task's, or the backend's.
JOB_OPTIONS = frozenset(
    {"retries", "backoff", "retry_on", "timeout", "kill_after", "keep", "once", "expires", "limit",
     "isolate", "capture"}
)  # fmt: skip
#: Options of the backend itself.
OWN_OPTIONS = frozenset({"endpoint"})

_STATES = {
    "queued": _Status.READY,
    "blocked": _Status.READY,
    "running": _Status.RUNNING,
    "done": _Status.SUCCESSFUL,
}
#: Outcomes of attempts that have no exception of their own, and the error that stands for each.
_ERRORS = {"lost": "WorkerLost", "timeout": "JobTimeout", "cancelled": "JobCancelled"}


class GmpdBackend(_backends.BaseTaskBackend):  # type: ignore[misc]
    """Tasks as durable jobs of the daemon that runs on this machine.

    ``OPTIONS``: ``endpoint``, an address or a runtime directory; and job options for all tasks of
    this backend: ``retries``, ``timeout``, ``keep``, ... (``gmpd.job``). Raises
    ImproperlyConfigured for one that is wrong.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        options = dict(self.options)
        if unknown := sorted(options.keys() - JOB_OPTIONS - OWN_OPTIONS):
            raise ImproperlyConfigured(
                f"TASKS[{alias!r}]['OPTIONS'] has {', '.join(map(repr, unknown))}, which gmpd does"
                f" not know; it knows {', '.join(sorted(JOB_OPTIONS | OWN_OPTIONS))}"
            )
        self._endpoint = options.pop("endpoint", None)
        try:
            JobOptions().merged(**options)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]['OPTIONS']: {error}") from error
        self._job_options = options
        self._lock = threading.Lock()
        self._client: gmpd.Client | None = None
        self._pid = 0

    def enqueue(self, task: Any, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Store a task; it is on disk when this returns. Raises InvalidTask, TypeError for
        arguments that are not JSON, DaemonUnreachable, GmpdError when the daemon stores none."""
        self.validate_task(task)
        result = _base.TaskResult(
            task=task, id="", status=_Status.READY, enqueued_at=None, started_at=None,
            finished_at=None, last_attempted_at=None, args=args, kwargs=kwargs,
            backend=self.alias, errors=[], worker_ids=[],
        )  # fmt: skip
        record = {
            "path": task.module_path, "backend": self.alias, "priority": task.priority,
            "queue_name": task.queue_name, "args": result.args, "kwargs": result.kwargs,
            "run_after": task.run_after.isoformat() if task.run_after else None,
            "retries": self._job_options.get("retries", 0),
        }  # fmt: skip
        options = {**self._job_options, "priority": task.priority, "name": task.module_path[-256:]}
        if task.run_after is not None:
            aware = timezone.is_aware(task.run_after)
            options["at"] = task.run_after if aware else timezone.make_aware(task.run_after)
        run = run_coroutine if _is_async(task) else run_function
        id_ = self._ask(
            lambda client: client.options(**options).enqueue(run, _settings_module(), record)
        )
        _set(result, id=id_, enqueued_at=timezone.now())
        _signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """The result of a task by its id. Raises TaskResultDoesNotExist, also once the time for
        which it is kept (``keep``) is over."""
        try:
            return self._ask(lambda client: self._result(client.job(result_id)))
        except (LookupError, ValueError) as error:
            raise _errors.TaskResultDoesNotExist(f"{result_id}: {error}") from error

    def check(self, **_: Any) -> Iterable[Any]:
        """Django's system check: tasks need a settings module, which workers import."""
        from django.core import checks

        if not _settings_module():
            yield checks.Error(
                "gmpd's workers cannot set Django up: it was configured by settings.configure()",
                hint="set DJANGO_SETTINGS_MODULE",
                id="gmpd.E001",
            )

    # -- the daemon ------------------------------------------------------------------------------

    def _ask(self, question: Any) -> Any:
        try:
            return question(self._open())
        except DaemonUnreachable:
            with self._lock:  # the next one looks for the next daemon
                client, self._client = self._client, None
            if client is not None:
                client.close(wait=False)
            raise

    def _open(self) -> gmpd.Client:
        """The client of this process: a server forks its workers, and a client does not go along.
        It starts no daemon: a private one keeps no durable jobs."""
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                config = Config.load().override({"client.autostart": False})
                target = find(self._endpoint, config=config)
                self._client = gmpd.Client(target=target, name="django")
                self._pid = os.getpid()
            return self._client

    def _result(self, job: StoredJob) -> Any:
        info = job.info()
        value, record = None, None
        if info["state"] == "done":
            told = job.result()
            value, record = told["value"], told["record"]
        else:
            with suppress(LookupError):  # it was done just now
                (_, record), _ = job.arguments()
        if record is None:
            info = job.info()
            told = job.result()
            value, record = told["value"], told["record"]
        attempts = job.story()
        began = [each.began for each in attempts if each.began]
        result = _new_result(record, job.id)
        _set(
            result,
            status=_STATES.get(info["state"], _Status.FAILED),
            enqueued_at=_moment(info["created"]),
            started_at=_moment(began[0]) if began else None,
            last_attempted_at=_moment(began[-1]) if began else None,
            finished_at=_moment(info["ended"]) if info["ended"] else None,
            _return_value=value,
        )
        result.worker_ids.extend(_worker_id(each.p, each.pid) for each in attempts)
        result.errors.extend(_error(each) for each in attempts if each.outcome not in _NO_ERROR)
        if result.status == _Status.FAILED and not result.errors:  # it never began
            result.errors.append(_task_error("JobCancelled", info["text"] or info["state"]))
        return result


_NO_ERROR = frozenset({"ok", "running"})


# -- in a worker -----------------------------------------------------------------------------------


def run_function(module: str, record: dict[str, Any]) -> dict[str, Any]:
    """A task, as a job: its value, and the task for those who ask later."""
    _set_up(module)
    close_old_connections()
    result = _begun(record)
    sender = type(result.task.get_backend())
    _signals.task_started.send(sender=sender, task_result=result)
    try:
        value = _json.normalize_json(result.task.call(*_arguments(result), **result.kwargs))
    except BaseException as error:
        _failed(result, record, sender, error)
        raise
    finally:
        close_old_connections()
    return _succeeded(result, record, sender, value)


async def run_coroutine(module: str, record: dict[str, Any]) -> dict[str, Any]:
    """The same of a task that is an ``async def``: beside others, on the worker's event loop."""
    _set_up(module)
    result = _begun(record)
    sender = type(result.task.get_backend())
    await _signals.task_started.asend(sender=sender, task_result=result)
    try:
        value = _json.normalize_json(await result.task.acall(*_arguments(result), **result.kwargs))
    except BaseException as error:
        _failed(result, record, sender, error)
        raise
    finally:
        await sync_to_async(close_old_connections)()
    return _succeeded(result, record, sender, value)


_ready = threading.Lock()


def _set_up(module: str) -> None:
    """Django, once in a worker."""
    if not django.apps.apps.ready:
        with _ready:
            os.environ.setdefault("DJANGO_SETTINGS_MODULE", module)
            django.setup()
    if module != settings.SETTINGS_MODULE:
        raise ImproperlyConfigured(
            f"this worker runs tasks of {settings.SETTINGS_MODULE}, and the task is of {module}:"
            " each project needs a daemon of its own"
        )


def _begun(record: dict[str, Any]) -> Any:
    here, now = current_ids(worker_p()), timezone.now()
    result = _new_result(record, here.job)
    status = _Status.RUNNING
    _set(result, status=status, enqueued_at=now, started_at=now, last_attempted_at=now)
    own = _worker_id(here.p, os.getpid())
    result.worker_ids.extend([own] * int(here.attempt or 1))
    return result


def _arguments(result: Any) -> list[Any]:
    context = [_base.TaskContext(task_result=result)] if result.task.takes_context else []
    return [*context, *result.args]


def _succeeded(result: Any, record: dict[str, Any], sender: type, value: object) -> dict[str, Any]:
    _set(result, status=_Status.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
    _signals.task_finished.send(sender=sender, task_result=result)
    return {"value": value, "record": record}


def _failed(result: Any, record: dict[str, Any], sender: type, error: BaseException) -> None:
    """Told once: after the last attempt, as far as this one can know."""
    import traceback

    if len(result.worker_ids) <= record["retries"]:
        return
    path = f"{type(error).__module__}.{type(error).__qualname__}"
    text = "".join(traceback.format_exception(error))
    result.errors.append(_base.TaskError(exception_class_path=path, traceback=text))
    _set(result, status=_Status.FAILED, finished_at=timezone.now())
    _signals.task_finished.send(sender=sender, task_result=result)


# -- both ------------------------------------------------------------------------------------------


def _new_result(record: dict[str, Any], id_: str) -> Any:
    after = record["run_after"]
    try:
        task = import_string(record["path"]).using(
            priority=record["priority"],
            queue_name=record["queue_name"],
            backend=record["backend"],
            run_after=None if after is None else datetime.fromisoformat(after),
        )
    except (ImportError, AttributeError) as error:
        raise ValueError(f"its task {record['path']} is not there any more: {error}") from error
    return _base.TaskResult(
        task=task, id=id_, status=_Status.READY, enqueued_at=None, started_at=None,
        finished_at=None, last_attempted_at=None, args=record["args"], kwargs=record["kwargs"],
        backend=record["backend"], errors=[], worker_ids=[],
    )  # fmt: skip


def _set(result: Any, **values: Any) -> None:
    """A TaskResult is frozen for programs, and written by backends."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def _is_async(task: Any) -> bool:
    from inspect import iscoroutinefunction

    return iscoroutinefunction(task.func)


def _settings_module() -> str:
    """Its name; empty if there is none. Overridden settings, of a test, do not know it."""
    own = getattr(settings, "SETTINGS_MODULE", None)
    return own or os.environ.get("DJANGO_SETTINGS_MODULE", "")


def _moment(seconds: float) -> datetime:
    at = datetime.fromtimestamp(seconds, UTC)
    return at if settings.USE_TZ else timezone.make_naive(at)


def _worker_id(p: object, pid: object) -> str:
    return f"P{p} (pid {pid})" if str(p or 0).isdecimal() else f"{p or 'isolated'} (pid {pid})"


def _error(attempt: Attempt) -> Any:
    if not attempt.traceback:
        return _task_error(_ERRORS.get(attempt.outcome, "JobError"), attempt.text)
    lines = [line for line in attempt.traceback.splitlines() if line and not line[0].isspace()]
    name = lines[-1].partition(":")[0].strip() if lines else ""
    path = name if "." in name else f"builtins.{name}"
    return _base.TaskError(exception_class_path=path, traceback=attempt.traceback)


def _task_error(name: str, text: str) -> Any:
    return _base.TaskError(exception_class_path=f"gmpd.errors.{name}", traceback=text)
