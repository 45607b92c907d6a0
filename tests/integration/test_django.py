"""Django's tasks as durable jobs: a project, its programs and a daemon, as their users have them.

With Django 6 its own tasks, before that those of django-tasks.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.durable_daemon import Daemon

pytest.importorskip("django", reason="it is in the extra dev")
if not find_spec("django.tasks") and not find_spec("django_tasks"):
    pytest.skip("django-tasks is in the extra dev", allow_module_level=True)

SETTINGS = """
import os
SECRET_KEY = "of a test"
USE_TZ = True
INSTALLED_APPS = []
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SHOP_DB"]}}
TASKS = {
    "default": {
        "BACKEND": "gmpd.contrib.django.GmpdBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"retries": 1, "backoff": 0.01, "timeout": 60},
    },
}
"""
TASKS = """
import asyncio, time
from django.db import connection
try:
    from django.tasks import task
    from django.tasks.signals import task_finished, task_started
except ImportError:
    from django_tasks import task
    from django_tasks.signals import task_finished, task_started

told = []
task_started.connect(lambda task_result, **_: told.append("started"), weak=False)
task_finished.connect(lambda task_result, **_: told.append(str(task_result.status)), weak=False)

@task
def add(x, y):
    return x + y

@task(priority=7, queue_name="mail")
async def greet(name):
    await asyncio.sleep(0.01)
    return "hello " + name

@task
def fail(text):
    raise ValueError(text)

@task(takes_context=True)
def who(context, word):
    return [context.attempt, context.task_result.id, word]

@task
def no_json():
    return object()

@task
def from_database():
    with connection.cursor() as cursor:
        return list(cursor.execute("SELECT 40 + 2").fetchone())

@task
def signals():
    return list(told)

@task
def nap(seconds):
    time.sleep(seconds)
"""
HEAD = """
import asyncio, datetime, os, time
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
django.setup()
from django.utils import timezone
from shop.tasks import *

def wait(result):
    while not result.is_finished:
        time.sleep(0.02)
        result.refresh()
    return result
"""


@contextmanager
def shop(directory: Path) -> Iterator[Daemon]:
    """A project and a daemon for it, which takes clients."""
    (directory / "shop").mkdir()
    (directory / "shop" / "__init__.py").touch()
    (directory / "shop" / "settings.py").write_text(SETTINGS)
    (directory / "shop" / "tasks.py").write_text(TASKS)
    with Daemon(directory, SHOP_DB=str(directory / "db.sqlite")) as daemon:
        daemon.client()
        yield daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with shop(tmp_path_factory.mktemp("d")) as daemon:
        yield daemon


def lines_of(daemon: Daemon, program: str, head: str = HEAD, **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", head + program], env={**daemon.env, **env}, cwd=daemon.directory,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_tasks_of_all_kinds_and_their_results(daemon: Daemon) -> None:
    program = """
result = add.enqueue(1, y=2)
print(result.status, len(result.id), result.enqueued_at is not None, result.args, result.kwargs)
wait(result)
print(result.status, result.return_value, result.attempts, "pid" in result.worker_ids[0])
print(result.enqueued_at <= result.started_at <= result.finished_at, result.errors)
found = add.get_result(result.id)
print(found.return_value, found.args, found.kwargs, found.task == add)

result = wait(greet.enqueue(name="Ada"))
print(result.return_value, result.task.priority, result.task.queue_name)

async def main():
    result = await add.aenqueue(3, 4)
    while not result.is_finished:
        await asyncio.sleep(0.02)
        await result.arefresh()
    return (await add.aget_result(result.id)).return_value
print(asyncio.run(main()))

result = wait(who.enqueue("x"))
print(result.return_value == [1, result.id, "x"])
print(wait(from_database.enqueue()).return_value)
print(wait(signals.enqueue()).return_value[-3:])
"""
    assert lines_of(daemon, program) == [
        "READY 32 True [1] {'y': 2}",
        "SUCCESSFUL 3 1 True",
        "True []",
        "3 [1] {'y': 2} True",
        "hello Ada 7 mail",
        "7",
        "True",
        "[42]",
        "['started', 'SUCCESSFUL', 'started']",
    ]


def test_tasks_that_fail(daemon: Daemon) -> None:
    program = """
result = wait(fail.enqueue("broken"))
print(result.status, result.attempts, [each.exception_class.__name__ for each in result.errors])
print("raise ValueError(text)" in result.errors[0].traceback)
try:
    result.return_value
except ValueError as error:
    print(error)
result = wait(no_json.enqueue())
print(result.status, result.errors[-1].exception_class.__name__, result.task == no_json)
hurried = nap.using(backend="default")
hurried.get_backend()._job_options.update(timeout=0.1, retries=0)
result = wait(hurried.enqueue(60))
print(result.status, result.errors[0].exception_class_path)
"""
    assert lines_of(daemon, program) == [
        "FAILED 2 ['ValueError', 'ValueError']",
        "True",
        "Task failed",
        "FAILED TypeError True",
        "FAILED gmpd.errors.JobTimeout",
    ]


@pytest.fixture
def mortal(short_tmp: Path) -> Iterator[Daemon]:
    with shop(short_tmp) as daemon:
        yield daemon


def test_a_task_outlives_its_program_and_the_daemon(mortal: Daemon) -> None:
    daemon = mortal
    (id_,) = lines_of(
        daemon,
        "after = timezone.now() + datetime.timedelta(hours=1)\n"
        "print(add.using(run_after=after, priority=-3).enqueue(5, 6).id)",
    )
    daemon.kill()
    daemon.start()
    client = daemon.client()
    asked = f"result = add.get_result({id_!r})\n"
    later = (
        "print(result.status, result.args, result.task.priority,"
        " result.task.run_after > timezone.now(), result.is_finished, result.started_at)"
    )
    assert lines_of(daemon, asked + later) == ["READY [5, 6] -3 True False None"]
    assert client.job(id_).arguments()[0][1]["path"] == "shop.tasks.add"
    assert client.job(id_).cancel()
    ended = "print(result.status, [each.exception_class_path for each in result.errors])"
    assert lines_of(daemon, asked + ended) == ["FAILED ['gmpd.errors.JobCancelled']"]
    assert client.job(id_).remove()
    unknown = f"""
for id_ in ({id_!r}, "nonsense"):
    try:
        add.get_result(id_)
    except Exception as error:
        print(type(error).__name__, str(error)[:40])
"""
    assert lines_of(daemon, unknown) == [
        f"TaskResultDoesNotExist {id_}: the da",
        "TaskResultDoesNotExist nonsense: 'nonsense' is no id of a job: ",
    ]


def test_wrong_settings_and_calls_are_said(daemon: Daemon) -> None:
    program = """
import copy
from django.conf import settings
from gmpd.contrib.django import GmpdBackend
for options in ({"retry": 3}, {"timeout": "long"}, {"retries": -1}):
    try:
        GmpdBackend("default", {"OPTIONS": options})
    except Exception as error:
        print(type(error).__mro__[0].__name__, str(error)[:60])
print(list(GmpdBackend("default", {}).check()))
for call in (lambda: add.enqueue(object()), lambda: add.using(queue_name="none"),
             lambda: fail.get_result(add.enqueue(1, 2).id)):
    try:
        call()
    except Exception as error:
        print(type(error).__name__.removesuffix("Error"), error)
"""
    assert lines_of(daemon, program) == [
        "ImproperlyConfigured TASKS['default']['OPTIONS'] has 'retry', which gmpd does not",
        "ImproperlyConfigured TASKS['default']['OPTIONS']: timeout='long': must be seconds",
        "ImproperlyConfigured TASKS['default']['OPTIONS']: retries=-1: must be from 0 to 1",
        "[]",
        "Type Unsupported type: <class 'object'>",
        "InvalidTask Queue 'none' is not valid for backend.",
        "TaskResultMismatch Task does not match (received 'shop.tasks.add')",
    ]


def test_without_a_daemon_it_says_how_to_start_one_and_starts_none(
    daemon: Daemon, short_tmp: Path
) -> None:
    program = """
try:
    add.enqueue(1, 2)
except Exception as error:
    print(type(error).__name__, "gmpd up" in str(error))
"""
    elsewhere = str(short_tmp / "none")
    found = lines_of(daemon, program, GMPD_RUNTIME_DIR=elsewhere)
    assert found == ["DaemonUnreachable True"]
    configured = """
from django.conf import settings
settings.configure(USE_TZ=True)
from gmpd.contrib.django import GmpdBackend
print([each.id for each in GmpdBackend("default", {}).check()])
"""
    assert lines_of(daemon, configured, head="") == ["['gmpd.E001']"]
