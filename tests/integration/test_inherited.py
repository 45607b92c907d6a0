"""A daemon inherits the state of the program that starts it: jobs run, and dead workers are
replaced, all the same. Each oddity is tried with a private daemon, and those that go together with
`gmpd up`."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What every program here does.
JOB = """
import os, subprocess, sys
import gmpd
from gmpd.errors import WorkerLost
from concurrent.futures import Future

def main():
    with gmpd.Client(%s) as client:
        assert client.submit(divmod, 17, 5).result(30) == (3, 2)
        try:
            client.submit(os._exit, 3).result(30)
        except WorkerLost as lost:
            assert lost.exitcode == 3, lost.exitcode
        else:
            raise AssertionError("the worker lives")
        assert client.submit(divmod, 17, 5).result(30) == (3, 2)
        assert client.options(isolate=True).submit(divmod, 17, 5).result(30) == (3, 2)
        code = client.submit(os.system, "exit 7").result(30)
        assert os.waitstatus_to_exitcode(code) == 7, code
        client.submit(print, "x" * 70_000).result(30)
        ask = (
            "import signal as s;"
            "print(*(int(s.getsignal(n)) for n in (s.SIGCHLD, s.SIGTERM)));"
            "print(s.pthread_sigmask(0, ()))"
        )
        said = client.submit(subprocess.check_output, [sys.executable, "-c", ask]).result(30)
        assert said == b"0 0\\nset()\\n", said

main()
with open(os.environ["VERDICT"], "a") as verdict:
    verdict.write("good")
"""


def ignore(*numbers: signal.Signals) -> Callable[[], None]:
    def act() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return act


def close(*fds: int) -> Callable[[], None]:
    def act() -> None:
        for fd in fds:
            os.close(fd)

    return act


def block_all() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def limit(what: int, soft: int) -> Callable[[], None]:
    def act() -> None:
        resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))

    return act


def unblock_output() -> None:
    os.set_blocking(1, False)
    os.set_blocking(2, False)


def umask(mask: int) -> Callable[[], None]:
    def act() -> None:
        os.umask(mask)

    return act


def be_nice() -> None:
    os.nice(10)


def score() -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("990")


def nothing() -> None:
    pass


#: What is done in the program's process before it begins.
ACTS: dict[str, Callable[[], None]] = {
    "SIGCHLD ignored": ignore(signal.SIGCHLD),
    "SIGTERM and more ignored": ignore(
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1
    ),
    "all signals blocked": block_all,
    "stdin closed": close(0),
    "stdout closed": close(1),
    "stderr closed": close(2),
    "all three closed": close(0, 1, 2),
    "umask 0777": umask(0o777),
    "umask 0277": umask(0o277),
    "few descriptors, softly": limit(resource.RLIMIT_NOFILE, 40),
    "a small stack": limit(resource.RLIMIT_STACK, 256 << 10),
    "a huge stack": limit(resource.RLIMIT_STACK, 4 << 30),
    "output that does not block": unblock_output,
    "the kernel's first victim": score,
    "nice": be_nice,
}

#: What it finds in its environment.
VARIABLES: dict[str, dict[str, str]] = {
    "warnings are errors": {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"},
    "inspect": {"PYTHONINSPECT": "1", "PYTHONSTARTUP": "/no/such/file"},
    "optimized": {"PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"},
    "asyncio debugs": {"PYTHONASYNCIODEBUG": "1", "PYTHONUNBUFFERED": "1"},
    "plain C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii", "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1"},
    "bytes that are no text": {
        "ODD": os.fsdecode(b"\xff\xfe"),
        "PYTHONPATH": os.fsdecode(b"/\xff"),
    },
}


def run(
    tmp: Path,
    words: list[str],
    act: Callable[[], None] = nothing,
    variables: dict[str, str] | None = None,
    cwd: Path | str | None = None,
) -> None:
    """Run it in that state; its own verdict counts, for its output may be closed."""
    verdict = tmp / "verdict"
    env = {
        "PATH": os.environ["PATH"],
        "VERDICT": str(verdict),
        "GMPD_DAEMON__PROCS": "1",
        "GMPD_RUNTIME_DIR": str(tmp / "run"),
        "GMPD_STATE_DIR": str(tmp / "state"),
        "GMPD_HTTP__LISTEN": "127.0.0.1:0",
        **{k: v for k, v in os.environ.items() if k.startswith("PYTEST_SESSION")},
        **(variables or {}),
    }
    said = tmp / "said"
    with said.open("ab") as out:
        process = subprocess.Popen(
            words, env=env, cwd=cwd or tmp, preexec_fn=act, stdin=subprocess.DEVNULL, stdout=out,
            stderr=out,
        )  # fmt: skip
        code = process.wait(60)
    text = said.read_text(errors="replace")[-3000:]
    assert code == 0, f"{words[:3]} ended with {code}:\n{text}"


def judged(tmp: Path) -> str:
    return (tmp / "verdict").read_text()


PRIVATE = [sys.executable, "-c", JOB % ""]
SHARED = [sys.executable, "-c", JOB % "os.environ['GMPD_RUNTIME_DIR']"]


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_a_private_daemon_of_an_odd_process(short_tmp: Path, act: Callable[[], None]) -> None:
    run(short_tmp, PRIVATE, act)
    assert judged(short_tmp) == "good"


@pytest.mark.parametrize("variables", VARIABLES.values(), ids=VARIABLES.keys())
def test_a_private_daemon_in_an_odd_environment(short_tmp: Path, variables: dict[str, str]) -> None:
    run(short_tmp, PRIVATE, nothing, variables)
    assert judged(short_tmp) == "good"


@pytest.mark.skipif(sys.version_info[:3] == (3, 13, 0), reason="3.13.0 imports no socket in it")
def test_a_private_daemon_whose_directory_is_gone(short_tmp: Path) -> None:
    gone = short_tmp / "gone"
    gone.mkdir()
    run(short_tmp, PRIVATE, gone.rmdir, cwd=gone)
    assert judged(short_tmp) == "good"


def test_a_private_daemon_in_a_directory_whose_name_is_no_text(short_tmp: Path) -> None:
    odd = short_tmp / os.fsdecode(b"od\xffd")
    odd.mkdir()
    (odd / "program.py").write_text(PRIVATE[2])
    run(short_tmp, [sys.executable, "program.py"], cwd=odd)
    assert judged(short_tmp) == "good"


GMPD = [sys.executable, "-m", "gmpd.cli"]


def everything() -> None:
    """All that goes together."""
    for name in ("few descriptors, softly", "a small stack", "output that does not block",
                 "the kernel's first victim"):  # fmt: skip
        ACTS[name]()
    ignore(signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM)()
    os.umask(0o777)
    block_all()


UPS: dict[str, tuple[Callable[[], None], dict[str, str]]] = {
    "everything": (
        everything,
        VARIABLES["warnings are errors"] | VARIABLES["plain C"],
    ),
    "closed": (close(0, 1, 2), VARIABLES["optimized"]),
}


@pytest.mark.parametrize(("act", "variables"), UPS.values(), ids=UPS.keys())
def test_a_daemon_that_an_odd_shell_started(
    short_tmp: Path, act: Callable[[], None], variables: dict[str, str]
) -> None:
    (short_tmp / "state").mkdir()  # by hand: `up` itself keeps the umask that it has
    (short_tmp / os.fsdecode(b"od\xffd")).mkdir()
    run(short_tmp, [*GMPD, "up"], act, variables, cwd=short_tmp / os.fsdecode(b"od\xffd"))
    try:
        run(short_tmp, SHARED)
        assert judged(short_tmp) == "good"
    finally:
        run(short_tmp, [*GMPD, "down"])


def test_a_runtime_directory_whose_name_is_no_text(short_tmp: Path) -> None:
    place = {"GMPD_RUNTIME_DIR": os.fsdecode(bytes(short_tmp) + b"/r\xff")}
    run(short_tmp, [*GMPD, "up"], variables=place)
    try:
        run(short_tmp, SHARED, variables=place)
    finally:
        run(short_tmp, [*GMPD, "down"], variables=place)


FACTS = """
import os, signal, sys
from gmpd import inherited
inherited.settle()
print(signal.getitimer(signal.ITIMER_REAL)[0], signal.getitimer(signal.ITIMER_PROF)[0])
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()) or "none blocked")
print(signal.getsignal(signal.SIGCHLD).name, signal.getsignal(signal.SIGHUP).name)
print(os.get_blocking(1), os.getcwd())
"""


def test_facts_after_settling(tmp_path: Path) -> None:
    """Timers, which exec passes on and fork does not."""

    def act() -> None:
        signal.setitimer(signal.ITIMER_REAL, 1000)
        signal.setitimer(signal.ITIMER_PROF, 1000)
        ignore(signal.SIGCHLD, signal.SIGHUP)()
        block_all()
        os.set_blocking(1, False)
        tmp_path.rmdir()

    done = subprocess.run(
        [sys.executable, "-c", FACTS], cwd=tmp_path, preexec_fn=act, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "0.0 0.0", "none blocked", "SIG_DFL SIG_IGN", "True /"
    ]  # fmt: skip


def test_too_few_descriptors_are_told_at_once(short_tmp: Path) -> None:
    """In one sentence; no worker is killed over and over for not starting."""
    done = subprocess.run(
        [*GMPD, "serve", "--procs", "2"],
        env={**os.environ, "GMPD_RUNTIME_DIR": str(short_tmp / "run")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "needs 112 descriptors, 64 are allowed" in done.stderr
    assert "Traceback" not in done.stderr
