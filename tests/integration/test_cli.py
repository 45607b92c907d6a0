"""The command line with a real daemon: what people type, what comes out, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmpd import compiled
from gmpd.cli.exits import Exit
from gmpd.cpus import procs_max, starts_at_once
from tests.shell import Done, Shell
from tests.support import stop, wait_until


@pytest.fixture
def bare(short_tmp: Path) -> Shell:
    return Shell(short_tmp)


def with_daemon(shell: Shell) -> Iterator[Shell]:
    """With a daemon of two Ps and a module of functions."""
    (shell.directory / "words.py").write_text(
        "import asyncio, pathlib, time\n"
        "import gmpd\n"
        "def shout(text): return text.upper()\n"
        "def pair(a, b=0): return [a, b]\n"
        "def thing(text): return object()\n"
        "async def inner(): await asyncio.sleep(600)\n"
        "async def parked():\n"
        "    for _ in range(30): gmpd.go(inner)\n"
        "    await gmpd.Chan().recv()\n"
        "async def deaf():\n"
        "    await asyncio.sleep(0.05)\n"
        "    time.sleep(4)\n"
        "def slow(path): pathlib.Path(path).touch(); time.sleep(1); return 'slow'\n"
        "def slower(path): pathlib.Path(path).touch(); time.sleep(60)\n"
        "async def wait_long(path): pathlib.Path(path).touch(); await asyncio.sleep(60)\n"
    )
    up = shell("up", "--procs", "2")
    assert up.returncode == 0, up.stderr
    yield shell
    down = shell("down", "--now")
    assert down.returncode == 0, down.stderr


@pytest.fixture(scope="module")
def gmpd() -> Iterator[Shell]:
    """A daemon for all tests that leave it as it was."""
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as directory:
        yield from with_daemon(Shell(Path(directory)))


@pytest.fixture
def alone(bare: Shell) -> Iterator[Shell]:
    """A daemon of one test, which may end it, or leave work to it."""
    yield from with_daemon(bare)


def test_a_life(bare: Shell) -> None:
    assert bare("status").returncode == Exit.UNREACHABLE
    assert bare("health").returncode == Exit.UNREACHABLE
    up = bare("up", "--procs", "1")
    assert (up.returncode, up.stdout) == (0, ""), up.stderr
    assert "runs already" in bare("up").stderr
    again = bare("serve")
    assert again.returncode == Exit.CONFIG
    assert "a daemon already runs" in again.stderr
    assert bare("health").returncode == 0
    seen = json.loads(bare("status", "--json").stdout)
    assert (seen["procs"], seen["state"]) == (1, "running")
    assert bare("procs", "2").stdout == "2\n"
    assert bare("procs").stdout == "2\n"
    assert "P1" in bare("status").stdout
    assert "SessionOpened(sid=" in bare("status", "--events").stdout
    assert bare("down").returncode == 0
    assert bare("down").returncode == 0
    named = bare("--runtime-dir", str(bare.directory / "run"), "submit", "math:sqrt", "4")
    assert named.returncode == Exit.UNREACHABLE


def test_serve_ends_with_a_signal_and_leaves_nothing(bare: Shell) -> None:
    with bare.start("serve", "--procs", "1") as serve:
        wait_until(lambda: bare("health").returncode == 0, "it serves", timeout=20)
        serve.send_signal(signal.SIGTERM)
        _, errors = serve.communicate(timeout=20)
    assert serve.returncode == 0, errors


def test_a_bad_setting_keeps_up_from_starting_it(bare: Shell) -> None:
    up = bare("up", "--procs", "-1")
    assert up.returncode == Exit.CONFIG
    assert "procs" in up.stderr


def test_submit(gmpd: Shell) -> None:
    assert gmpd("submit", "math:sqrt", "4").stdout == "2.0\n"
    assert gmpd("submit", "words:shout", "hé", "--wait").stdout == "HÉ\n"
    assert gmpd("submit", "words:pair", "1", "--kw", "b=[2]").stdout == "[1, [2]]\n"
    assert gmpd("submit", "words:pair", "1", "--text").stdout == '["1", 0]\n'


def test_a_failed_submit_says_what_happened(gmpd: Shell) -> None:
    failed = gmpd("submit", "math:sqrt", "x")
    assert (failed.returncode, failed.stdout) == (Exit.JOB_FAILED, "")
    assert failed.stderr.startswith("error: TypeError: must be real number")
    assert "gmpd/" not in failed.stderr
    record = json.loads(gmpd("submit", "math:sqrt", "x", "--json").stdout)
    assert (record["outcome"], record["error"]["type"]) == ("error", "TypeError")
    assert "TypeError: must be" in record["error"]["traceback"]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("nowhere:f", "no module 'nowhere'"),
        ("math:sqrtt", "did you mean 'sqrt'"),
        ("math:pi", "not callable"),
    ],
)
def test_an_unknown_function_is_named(gmpd: Shell, function: str, text: str) -> None:
    failed = gmpd("submit", function)
    assert failed.returncode == Exit.NOT_FOUND
    assert failed.stderr.count(text) == 1
    assert "Traceback" not in failed.stderr
    mapped = gmpd("map", function, stdin="1\n" * 50)
    assert (mapped.returncode, mapped.stdout) == (Exit.NOT_FOUND, "")
    assert mapped.stderr.count(text) == 1


def test_what_is_no_name_and_what_is_not_plain_is_refused(gmpd: Shell) -> None:
    assert gmpd("submit", "math").returncode == Exit.USAGE
    refused = gmpd("submit", "words:thing", "x")
    assert refused.returncode == Exit.JOB_FAILED
    assert "object" in refused.stderr


def test_map_keeps_order_and_equals_a_plain_loop(gmpd: Shell) -> None:
    lines = [f"line {n}" for n in range(20_000)]
    mapped = gmpd("map", "words:shout", stdin="\n".join(lines) + "\n")
    assert mapped.returncode == 0, mapped.stderr
    assert mapped.stdout.splitlines() == [line.upper() for line in lines]


def test_map_tells_which_line_failed(gmpd: Shell) -> None:
    mapped = gmpd("map", "builtins:int", stdin="1\nx\n3")
    assert (mapped.returncode, mapped.stdout) == (Exit.JOB_FAILED, "1\n\n3\n")
    assert "line 2: ValueError: invalid literal" in mapped.stderr
    records = gmpd("map", "builtins:int", "--json", stdin="1\nx\n3").stdout.splitlines()
    assert [json.loads(record)["outcome"] for record in records] == ["ok", "error", "ok"]
    assert json.loads(records[2])["value"] == 3


def test_map_refuses_what_is_not_text(gmpd: Shell) -> None:
    with gmpd.start("map", "words:shout") as process:
        assert process.stdin is not None
        os.write(process.stdin.fileno(), b"fine\n\xff\n")
        _, errors = process.communicate(timeout=20)
    assert process.returncode == Exit.USAGE
    assert "line 2 is not UTF-8" in errors


def test_map_gives_results_while_its_input_is_open_and_reports_at_ctrl_c(gmpd: Shell) -> None:
    with gmpd.start("map", "words:shout") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ONE\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == Exit.INTERRUPTED
    assert "interrupted: 1 ok, 0 failed" in errors


def test_map_ends_when_its_reader_left(gmpd: Shell) -> None:
    with gmpd.start("map", "words:shout") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.wait(20) == Exit.PIPE


def test_run_ends_as_the_command_did(gmpd: Shell) -> None:
    ran = gmpd("run", "--", "sh", "-c", "echo out; echo err >&2; pwd; exit 3")
    assert (ran.returncode, ran.stdout) == (3, f"out\n{gmpd.directory}\n")
    assert ran.stderr == "err\n"
    assert gmpd("run", "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    missing = gmpd("run", "--", "no-such-command")
    assert (missing.returncode, missing.stderr) == (
        127,
        "gmpd: no-such-command: command not found\n",
    )
    denied = gmpd("run", "--", "./words.py")
    assert (denied.returncode, denied.stderr) == (126, "gmpd: ./words.py: Permission denied\n")


def test_a_timeout_has_its_own_code(gmpd: Shell) -> None:
    late = gmpd("submit", "time:sleep", "5", "--timeout", "0.2")
    assert late.returncode == Exit.TIMEOUT
    assert "Traceback" not in late.stderr
    assert gmpd("run", "--timeout", "0.2", "--", "sleep", "30").returncode == Exit.TIMEOUT


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "1e99"])
@pytest.mark.parametrize("words", ["submit math:sqrt 4", "map math:sqrt", "run true"])
def test_a_timeout_that_cannot_be_is_a_wrong_argument(
    bare: Shell, words: str, seconds: str
) -> None:
    command, *rest = words.split()
    refused = bare(command, "--timeout", seconds, *rest)
    assert refused.returncode == Exit.USAGE
    assert "--timeout=" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_argument_like_an_option_gets_a_hint(gmpd: Shell) -> None:
    refused = gmpd("submit", "math:fabs", "-1")
    assert refused.returncode == Exit.USAGE
    assert "write -- before" in refused.stderr
    assert gmpd("submit", "math:fabs", "--", "-1").stdout == "1.0\n"


def test_map_of_nothing_says_so(gmpd: Shell) -> None:
    mapped = gmpd("map", "words:shout")
    assert (mapped.returncode, mapped.stdout, mapped.stderr) == (0, "", "no lines\n")


def test_the_counter_of_map_stays_out_of_results_on_the_same_terminal(gmpd: Shell) -> None:
    seen = _on_a_terminal(gmpd, "map words:shout")
    assert seen.replace("\r\n", "\n") == "ONE\nTWO\n"
    assert _on_a_terminal(gmpd, "map words:shout | cat").replace("\r\n", "\n") == "ONE\nTWO\n"
    counted = _on_a_terminal(gmpd, "map words:shout > results")
    assert "2 ok, 0 failed" in counted
    assert (gmpd.directory / "results").read_text() == "ONE\nTWO\n"
    assert "ok," not in _on_a_terminal(gmpd, "map words:shout -q > results")


def _on_a_terminal(gmpd: Shell, words: str) -> str:
    """The output of `gmpd ...` on a terminal, with two lines on stdin."""
    ours, theirs = os.openpty()
    command = f"printf 'one\\ntwo\\n' | {sys.executable} -m gmpd.cli {words}"
    with subprocess.Popen(
        ["sh", "-c", command], env=gmpd.env, cwd=gmpd.directory, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 1 << 16):
                seen += part
        except OSError:  # the other end is closed: Linux says it so
            pass
        os.close(ours)
    assert process.returncode == 0
    return seen.decode()


def test_help_is_no_error(bare: Shell) -> None:
    for words in ((), ("config",)):
        told = bare(*words)
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.startswith("Usage: gmpd")


def test_config_shows_a_section(bare: Shell) -> None:
    shown = bare("config", "show", "limits")
    assert shown.stdout.startswith("[limits]\n")
    assert [line for line in shown.stdout.splitlines()[1:] if line.startswith("[")] == []
    assert bare("config", "show", "limitz").returncode == Exit.USAGE
    assert "1 or more, not 'x'" in bare("procs", "x").stderr


def test_ctrl_c_ends_the_command_of_run(gmpd: Shell) -> None:
    mark = gmpd.directory / "pid"
    with gmpd.start("run", "--", "sh", "-c", f"echo $$ > {mark}; exec sleep 60") as process:
        pid = wait_until(lambda: mark.exists() and mark.read_text().strip(), "it runs")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == Exit.INTERRUPTED
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the command is gone")


def test_down_finishes_what_runs(alone: Shell) -> None:
    mark = alone.directory / "began"
    with alone.start("submit", "words:slow", str(mark)) as process:
        wait_until(mark.exists, "it runs")
        assert alone("down").returncode == 0
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "slow\n"), errors


def test_the_demo_shows_it_all_and_leaves_nothing(bare: Shell) -> None:
    demo = bare("demo", "--files", "40", "--pages", "100", "--procs", "2")
    assert demo.returncode == 0, demo.stderr
    for text in ("read      40 files", "100 pages", "ValueError: port 70000", "P1", "stolen"):
        assert text in demo.stdout
    code = "    "  # paths and source lines are as long as they are
    lines = [line for line in demo.stdout.splitlines() if not line.startswith(code)]
    assert [line for line in lines if len(line) > 80] == []


def test_the_walkthrough_shows_what_really_happened(bare: Shell) -> None:
    done = bare("demo", "--walkthrough", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    step = {each["number"]: each["moments"] for each in told["steps"]}
    assert step[1][0]["queue"] == ["G1", "G2", "G3"]
    assert [step[1][1][key] for key in ("holder", "running", "queue")] == ["M0", "G1", ["G2", "G3"]]
    assert (step[2][0]["running"], step[2][0]["parked"]) == (None, {"G1": "IO wait"})
    assert (step[3][0]["running"], step[3][0]["queue"]) == ("G2", ["G3"])
    before, after = ({k: v for k, v in m.items() if k not in ("ms", "detail")} for m in step[4])
    assert before == after
    assert step[5][0]["queue"] == ["G3", "G1"]
    assert [moment["g"] for moment in step[6]] == ["G3", "G1", "G1"]

    # The kernel really took M0's core, for a process that ran there meanwhile.
    seen = told["preemption"]
    assert seen["happened"]
    assert seen["involuntary_after"] > seen["involuntary_before"]
    assert seen["rival_cpu_ms"] > 0

    # And G3 could write what G1 was blocked for: P had gone on to M0, the thread of coroutines.
    at = {each["number"]: each["moments"] for each in told["syscall"]}
    assert [at[1][0]["holder"], at[2][0]["holder"]] == ["M1", "M0"]
    assert at[2][0]["syscall"] == at[3][1]["syscall"] == {"G1": "M1"}
    assert (at[3][1]["running"], at[4][0]["syscall"]) == ("G3", {})


def test_the_walkthrough_says_what_switches_and_memory_cost(bare: Shell) -> None:
    done = bare("demo", "--walkthrough")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    told = json.loads(bare("demo", "--walkthrough", "--json").stdout)
    g, thread, process = told["switches"]
    assert g["kernel_switches"] < 0.1 < 0.5 < min(thread["kernel_switches"], 1)
    assert process["kernel_switches"] > 0.5
    assert all(row["median"] > 0 and row["how"] for row in told["switches"] + told["memory"])
    assert told["memory"][0]["median"] < told["memory"][1]["median"] < told["memory"][2]["median"]


def test_the_cpu_bound_demo_counts_what_more_gs_cost(bare: Shell) -> None:
    done = bare("demo", "--cpu-bound", "--work", "0.02", "--procs", "2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["procs"] == 2
    one, ten, thousand = told["cases"]
    assert [case["gs"] for case in (one, ten, thousand)] == [2, 20, 2000]
    assert [case["alive"] for case in (one, ten, thousand)] == [2, 20, 2000]
    for case in (one, ten, thousand):
        assert case["work_per_s"] > 0
        assert case["g_switches_per_s"] > 0
        assert case["voluntary_per_s"] + case["involuntary_per_s"] > 0
        assert case["rss_bytes"] > 10_000_000
    assert "Gs computed" in told["conclusion"]


def test_two_demos_at_once_are_refused(bare: Shell) -> None:
    both = bare("demo", "--cpu-bound", "--walkthrough")
    assert both.returncode == Exit.USAGE
    assert "one after the other" in both.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--procs -1", "--procs"),
        ("--files 0 --pages 0", "--files"),
        ("--files -1", "--files"),
        ("--pages 0", "--pages"),
        ("--work 1", "--work is for --cpu-bound alone"),
        ("--cpu-bound --files 3", "--files is not for --cpu-bound"),
        ("--walkthrough --procs 1", "--procs is not for --walkthrough"),
    ],
)
def test_what_a_demo_would_ignore_is_refused(bare: Shell, options: str, said: str) -> None:
    refused = bare("demo", *options.split())
    assert refused.returncode == Exit.USAGE
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_bench_prints_ratios(bare: Shell) -> None:
    bench = bare("bench", "--scale", "0.01", "--rounds", "1", "--json")
    assert bench.returncode == 0, bench.stderr
    rows = json.loads(bench.stdout)
    units = ["jobs/s", "jobs/s", "us", "items/s", "s", "MB", "MB", "% of one core"]
    assert [row["unit"] for row in rows] == units
    assert {row["variant"] for row in rows} == {compiled.variant().name}
    assert all(row["gmpd"] > 0 for row in rows[:-1])
    assert all(row["ratio"] > 0 for row in rows if "peer_name" in row)


def test_an_isolated_job_is_seen_and_has_a_worker_of_its_own(alone: Shell) -> None:
    (alone.directory / "alone.py").write_text(
        "import os, pathlib, time\n"
        "def pid(): return os.getpid()\n"
        "def stay(path):\n"
        "    pathlib.Path(path).touch()\n"
        "    while pathlib.Path(path).exists(): time.sleep(0.01)\n"
    )
    assert "isolated" not in alone("status").stdout
    first, second = (alone("submit", "--isolate", "alone:pid", "--wait") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout != second.stdout
    path = alone.directory / "here"
    staying = alone.start("submit", "alone:stay", str(path), "--isolate")
    wait_until(path.exists, "it runs")
    seen = alone("status").stdout
    path.unlink()
    assert staying.communicate(timeout=20)[0].strip() == "null"
    assert "isolated: " in seen
    assert "1 running" in seen
    assert "alone:stay" in seen
    lines = alone("map", "--isolate", "os.path:basename", stdin="a/b\nc/d\n")
    assert (lines.returncode, lines.stdout) == (0, "b\nd\n")


def stacks_with(gmpd: Shell, *texts: str) -> Done:
    """The stacks of all Ps, once all of ``texts`` are among them."""

    def look() -> Done | None:
        done = gmpd("stacks", "--timeout", "10")
        there = done.returncode == 0 and all(text in done.stdout for text in texts)
        return done if there else None

    found = wait_until(look, f"{', '.join(texts)} are among the stacks", timeout=30)
    assert found is not None
    return found


def test_stacks_show_every_g_as_go_does(alone: Shell) -> None:
    waiting = alone.start("submit", "words:parked", "--wait")
    blocked = alone.start("submit", "words:slower", '"touched"', "--wait")
    try:
        done = stacks_with(alone, "created by job words:parked", "inner(...)", "slower(...)")
        heads = re.findall(r"^goroutine \d+ \[(.*)\]:$", done.stdout, re.MULTILINE)
        assert len(heads) >= 31
        for p in (0, 1):
            title = rf"^P{p}, worker \d+: (no goroutines|\d+ goroutines?)$"
            assert len(re.findall(title, done.stdout, re.MULTILINE)) == 1
        assert any(head.startswith("chan receive") for head in heads)
        assert "parked(...)\n\t" in done.stdout
        assert "words.py:" in done.stdout
        assert "created by job words:parked" in done.stdout
        told = json.loads(alone("stacks", "--json", "--limit", "5").stdout)["ps"]
        assert [each["p"] for each in told] == [0, 1]
        assert all(each["answered"] and each["shown"] <= 5 for each in told)
        assert max(each["gs"] for each in told) >= 31
        assert any("more goroutines not shown" in each["text"] for each in told)
        missing = alone("stacks", "7")
        assert (missing.returncode, missing.stdout) == (Exit.NOT_FOUND, "")
        assert "there is no P7" in missing.stderr
    finally:
        for process in (waiting, blocked):
            process.kill()
            process.communicate()


def test_a_worker_that_does_not_answer_is_named_with_what_it_runs(alone: Shell) -> None:
    deaf = alone.start("submit", "words:deaf", "--wait")
    try:

        def look() -> Done | None:
            done = alone("stacks", "--timeout", "0.3")
            return done if done.returncode == Exit.TIMEOUT else None

        done = wait_until(look, "the worker is deaf", timeout=20)
        assert done is not None
        assert "did not answer: it has been running words:deaf" in done.stderr
    finally:
        deaf.communicate(timeout=30)


# -- daemons that do not answer, and Ps without end ------------------------------------------------


def test_a_daemon_that_does_not_answer_is_ended_by_its_process(bare: Shell) -> None:
    assert bare("up", "--procs", "1").returncode == 0
    pid = json.loads(bare("status", "--json").stdout)["pid"]
    bare.env["GMPD_CLIENT__CONNECT_TIMEOUT"] = "1s"
    stop(pid)  # it hears neither its socket nor SIGTERM
    try:
        seen = bare("status")
        assert seen.returncode == Exit.UNREACHABLE
        assert "`gmpd status`" not in seen.stderr
        assert "`gmpd down --now`" in seen.stderr
        down = bare("down", "--now")
        assert down.returncode == 0, down.stderr
        assert f"(pid {pid}) does not answer" in down.stderr
        assert f"pid {pid} did not end within" in down.stderr
        assert "no daemon runs" in bare("down").stderr
        assert not any((bare.directory / "run").iterdir())
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_daemon_of_another_container_is_ended_by_its_socket(bare: Shell) -> None:
    assert bare("up", "--procs", "1").returncode == 0
    # No process here has it open under this pid, as when the pid is another container's.
    (bare.directory / "run" / "gmpd.lock").write_text(f"{os.getppid()}\n")
    down = bare("down")
    assert (down.returncode, down.stderr) == (0, "gmpd is down\n")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_more_ps_than_a_machine_can_use_are_refused(gmpd: Shell) -> None:
    most = procs_max()
    refused = gmpd("procs", str(most + 1))
    assert refused.returncode == Exit.USAGE
    assert f"at most {most}" in refused.stderr
    assert gmpd("procs").stdout == "2\n"
    up = gmpd("up", "--procs", str(most + 1), "--runtime-dir", str(gmpd.directory / "other"))
    assert up.returncode == Exit.CONFIG
    assert f"at most {most}" in up.stderr


def test_many_ps_start_a_few_at_a_time_and_the_daemon_answers(alone: Shell) -> None:
    assert alone("procs", "24").stdout == "24\n"
    most = 0
    for _ in range(5):
        seen = json.loads(alone("status", "--json").stdout)
        living = [p for p in seen["ps"] if p.get("pid") and p["state"] == "starting"]
        most = max(most, len(living))
    assert most <= starts_at_once()
    assert alone("submit", "math:sqrt", "4").stdout == "2.0\n"
    assert alone("procs", "2").stdout == "2\n"


def test_up_starts_gmpd_and_nothing_that_lies_about(bare: Shell) -> None:
    """Stray modules of the directory are no part of the daemon; its jobs find what lies there."""
    here = bare.directory / "code"
    (here / "gmpd").mkdir(parents=True)
    for name in ("random.py", "logging.py", "gmpd/__init__.py"):
        (here / name).write_text("raise SystemExit('a stray module was imported')\n")
    (here / "mine.py").write_text("def double(x): return 2 * x\n")

    def gmpd(*words: str) -> Done:
        return subprocess.run(
            [sys.executable, "-P", "-m", "gmpd.cli", *words],
            env=bare.env, cwd=here, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip

    up = gmpd("up", "--procs", "1")
    assert up.returncode == 0, up.stderr
    try:
        assert gmpd("submit", "mine:double", "4").stdout == "8\n"
    finally:
        assert gmpd("down").returncode == 0


# -- Ctrl-C on a job -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (("words:slower",), "continues in the daemon"),
        (("words:slower", "--isolate"), "the job was cancelled"),
        (("words:wait_long",), "the job was cancelled"),
    ],
)
def test_an_interrupted_submit_says_what_became_of_the_job(
    alone: Shell, function: tuple[str, ...], said: str
) -> None:
    began = alone.directory / "began"
    with alone.start("submit", *function, str(began)) as submit:
        wait_until(began.exists, "the job runs", timeout=20)
        submit.send_signal(signal.SIGINT)
        _, errors = submit.communicate(timeout=20)
    assert submit.returncode == Exit.INTERRUPTED, errors
    assert said in errors
    assert "Traceback" not in errors


def test_an_interrupt_in_the_midst_of_a_submit_says_it_too(alone: Shell) -> None:
    """The job has begun, and its future is not yet returned."""
    began = alone.directory / "began"
    program = (
        "import os, pathlib, signal, sys, time\n"
        "from gmpd.cli import link\n"
        "from gmpd.cli import main\n"
        "real = link.PlainClient.submit_named\n"
        "def submit(*args, **named):\n"
        "    future = real(*args, **named)\n"
        "    end = time.monotonic() + 30\n"
        "    while not pathlib.Path(sys.argv[-1]).exists() and time.monotonic() < end:\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return future\n"
        "link.PlainClient.submit_named = submit\n"
        "sys.exit(main())\n"
    )
    done = alone.python("-c", program, "submit", "words:slower", str(began))
    assert done.returncode == Exit.INTERRUPTED, done.stderr
    assert "continues in the daemon" in done.stderr


def test_up_beside_a_daemon_that_drains_says_so(alone: Shell) -> None:
    began = alone.directory / "began"
    with alone.start("submit", "words:slower", str(began)) as submit:
        wait_until(began.exists, "the job runs", timeout=20)
        assert alone("drain").returncode == 0
        up = alone("up")
        assert up.returncode == Exit.REJECTED, up.stderr
        assert "takes no more work" in up.stderr
        assert alone("down", "--now").returncode == 0
        submit.communicate(timeout=20)
