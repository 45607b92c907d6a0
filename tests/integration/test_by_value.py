"""A script behaves on the daemon as it does in one process: scripts as people write them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(
    tmp: Path, source: str, *, command: tuple[str, ...] = (), stdin: str | None = None
) -> list[str]:
    """Run ``source`` as a script with a private daemon; the lines that it prints."""
    script = tmp / "script.py"
    script.write_text(textwrap.dedent(source))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GMPD_RUNTIME_DIR": str(tmp / "none"),
        "GMPD_DAEMON__PROCS": "1",
    }
    done = subprocess.run(
        [sys.executable, *(command or (str(script),))],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        cwd=tmp,
        input=stdin,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_functions_share_the_globals_of_their_script(tmp_path: Path) -> None:
    """A cache, a counter, a lock, a cached function, a context variable, a thread-local."""
    lines = run(
        tmp_path,
        """
        import contextvars, functools, gmpd, sys, threading

        _model, calls, seen = None, 0, []
        lock, local = threading.RLock(), threading.local()
        var = contextvars.ContextVar("var", default=7)

        def model():
            global _model, calls
            with lock:
                if _model is None:
                    calls += 1
                    _model = object()
            return id(_model)

        def use():
            seen.append(1)
            return model(), calls, len(seen)

        @functools.lru_cache(maxsize=10)
        def slow(x):
            return x + calls

        def hits(x):
            return slow(x), slow.cache_info().hits, slow.cache_parameters()["maxsize"]

        @functools.cache
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        def is_even(n):
            return n == 0 or is_odd(n - 1)

        def is_odd(n):
            return n != 0 and is_even(n - 1)

        with gmpd.Client() as client:
            used = [client.submit(use).result() for _ in range(3)]
            print(len({model for model, _, _ in used}), [used[1:] for used in used])
            print(client.submit(lambda: (calls, len(seen), var.get())).result())
            print([client.submit(hits, 1).result() for _ in range(2)])
            print(client.submit(slow, 5).result(), client.submit(fib, 90).result())
            main = sys.modules["__main__"]
            print(client.submit(lambda: sys.modules["__main__"]).result() is main)
            print(client.submit(is_even, 9).result(), calls, seen, _model)
        """,
    )
    assert lines == [
        "1 [(1, 1), (1, 2), (1, 3)]",
        "(1, 3, 7)",
        "[(2, 0, 10), (2, 1, 10)]",
        "6 2880067194370816120",
        "True",
        "False 0 [] None",
    ]


def test_what_is_bound_anew_travels_and_what_functions_assign_stays(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
        import gmpd

        LIMIT, count, table = 1, 0, {"a": 1}

        def helper():
            return "old"

        def f():
            global count
            count += 1
            return LIMIT, helper(), count, table["a"], late() if "late" in globals() else None

        class Thing:
            version = 1

        def of(thing):
            return type(thing).version, isinstance(thing, Thing)

        with gmpd.Client() as client:
            print(client.submit(f).result(), client.submit(of, Thing()).result())
            LIMIT, count, table["a"] = 2, 50, 9
            print(client.submit(f).result())

            def helper():
                return "new"

            def late():
                return "late"

            class Thing:
                version = 2

            table = {"a": 3}
            print(client.submit(f).result(), client.submit(of, Thing()).result())
            before = f

            def f():
                return "another"

            print(client.submit(f).result(), client.submit(before).result()[2])
        """,
    )
    assert lines == [
        "(1, 'old', 1, 1, None) (1, True)",
        "(2, 'old', 2, 1, None)",
        "(2, 'new', 3, 3, 'late') (2, True)",
        "another 4",
    ]


def test_classes_of_a_script_are_the_same_in_all_its_jobs(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
        import abc, dataclasses, enum, gmpd, pickle, typing

        class Colour(enum.Enum):
            RED = 1

        class Flag(enum.Flag):
            A = enum.auto()
            B = enum.auto()

        class Base(abc.ABC):
            registry = {}

            def __init_subclass__(cls, **kw):
                super().__init_subclass__(**kw)
                Base.registry[cls.kind] = cls

            @abc.abstractmethod
            def speak(self): ...

        class Sub(Base):
            kind = "sub"

            def speak(self):
                return super().registry is Base.registry, self.kind

        @dataclasses.dataclass
        class Thing:
            n: int
            colour: Colour = Colour.RED

        @dataclasses.dataclass(slots=True, frozen=True)
        class Frozen:
            a: int

        class Slots:
            __slots__ = ("p", "__q", "__weakref__")

            def __init__(self):
                self.p, self.__q = 1, 2

            def q(self):
                return self.__q

        class Row(typing.NamedTuple):
            x: int
            y: str = "y"

        class Movie(typing.TypedDict):
            name: str

        T = typing.TypeVar("T")
        UserId = typing.NewType("UserId", int)

        class Box(typing.Generic[T]):
            def __init__(self, value: T):
                self.value = value

        kept = []

        def keep(thing):
            kept.append(thing)

        def same(thing, colour):
            again = pickle.loads(pickle.dumps(thing))
            hints = typing.get_type_hints(Thing)
            return (
                type(kept[0]) is type(thing) is Thing is type(again), kept[0] == thing,
                colour is Colour.RED is thing.colour, hints["colour"] is Colour,
                Base.registry["sub"] is Sub, __name__, Flag.A | Flag.B, UserId(3),
            )

        def make():
            made = Slots(), Frozen(4), Row(1), Box[int](3)
            return *made, Movie(name="m"), Sub(), Thing, Colour.RED

        with gmpd.Client() as client:
            client.submit(keep, Thing(1)).result()
            print(client.submit(same, Thing(1), Colour.RED).result())
            slots, frozen, row, box, movie, sub, thing, red = client.submit(make).result()
            print(slots.p, slots.q(), type(slots) is Slots, frozen == Frozen(4))
            print(row, type(row) is Row, box.value, type(box) is Box)
            print(movie, sub.speak(), thing is Thing, red is Colour.RED)
            print(client.submit(Sub().speak).result(), client.submit(str, Thing(2)).result())
        """,
    )
    assert lines == [
        "(True, True, True, True, True, '__main__', <Flag.A|B: 3>, 3)",
        "1 2 True True",
        "Row(x=1, y='y') True 3 True",
        "{'name': 'm'} (True, 'sub') True True",
        "(True, 'sub') Thing(n=2, colour=<Colour.RED: 1>)",
    ]


def test_a_traceback_names_the_file_and_line_of_a_script_and_shows_it(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
        import gmpd

        def deep(x):
            return 1 / x  # here

        with gmpd.Client() as client:
            for fn in (deep, lambda x: deep(x)):
                try:
                    client.submit(fn, 0).result()
                except ZeroDivisionError as error:
                    text = str(error.__cause__)
                    print(f'{__file__}", line 5, in deep' in text, "1 / x  # here" in text)
        """,
    )
    assert lines == ["True True", "True True"]


INTERACTIVE = """
import gmpd
client = gmpd.Client()
K = 2

def f(x):
    return K * x

print(client.submit(f, 4).result())

def f(x):
    return [K * x][9]

try:
    client.submit(f, 4).result()
except IndexError as error:
    cause = str(error.__cause__)
    print("in f" in cause)

client.close()
"""


@pytest.mark.parametrize("how", ["stdin", "-c", "interactive", "-m"])
def test_however_a_program_is_started(tmp_path: Path, how: str) -> None:
    if how == "stdin":
        lines = run(tmp_path, "", command=("-",), stdin=INTERACTIVE)
    elif how == "-c":
        lines = run(tmp_path, "", command=("-c", INTERACTIVE))
    elif how == "interactive":
        lines = run(tmp_path, "", command=("-iq",), stdin=INTERACTIVE)
    else:
        package = tmp_path / "pkg"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "near.py").write_text("def g(): return 1")
        extra = "\ndef h():\n    from .near import g\n    return g(), __package__\n"
        ask = "print(client.submit(h).result())\nclient.close()"
        (package / "__main__.py").write_text(
            INTERACTIVE.replace("client.close()", "") + extra + ask
        )
        lines = run(tmp_path, "", command=("-m", "pkg"))
        assert lines.pop() == "(1, 'pkg')"
    assert lines == ["8", "True"]


#: A module that knows its own name and keeps a count; ``run`` has it used by jobs.
LOADED = """
from dataclasses import dataclass

count = 0

@dataclass
class Thing:
    x: int

def make(x):
    global count
    count += 1
    return Thing(x), count, __name__

def run(client):
    assert client.submit(len, [Thing(5)]).result() == 1
    assert [client.submit(make, i).result() for i in (1, 2)] == [
        (Thing(1), 1, __name__), (Thing(2), 2, __name__)
    ]
    assert client.submit(lambda thing: thing.x, Thing(3)).result() == 3
    assert list(client.map(Thing, range(2))) == [Thing(0), Thing(1)]
    print(__name__)

if __name__ == "<run_path>":
    import main_client
    run(main_client.client)
"""


def test_modules_that_no_worker_could_import_go_by_value(tmp_path: Path) -> None:
    """Loaded by their path under a name of their own, by runpy, or made at run time; also where
    another module of that name could be imported."""
    (tmp_path / "loaded.py").write_text(LOADED)
    (tmp_path / "taken.py").write_text("")
    lines = run(
        tmp_path,
        """
        import gmpd, importlib.util, runpy, sys, types

        if __name__ == "__main__":
            with gmpd.Client() as client:
                for name in ("by-path", "taken"):
                    spec = importlib.util.spec_from_file_location(name, "loaded.py")
                    sys.modules[name] = module = importlib.util.module_from_spec(spec)
                    spec.loader.exec_module(module)
                    module.run(client)
                sys.modules["made"] = module = types.ModuleType("made")
                exec(open("loaded.py").read(), vars(module))
                module.run(client)
                sys.modules["main_client"] = types.SimpleNamespace(client=client)
                runpy.run_path("loaded.py")
        """,
    )
    assert lines == ["by-path", "taken", "made", "<run_path>"]


def test_large_globals_travel_once(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
        import gmpd, time

        class Table:
            pickled = 0

            def __init__(self, data):
                self.data = data

            def __getstate__(self):
                Table.pickled += 1
                return {"data": self.data}

        data = bytes(20_000_000)
        other = 0
        table = Table(b"x" * 1_000_000)

        def look(i):
            return data[i], len(table.data)

        def light():
            return other

        with gmpd.Client() as client:
            print(client.submit(light).result(), client.submit(look, 3).result())
            pickled = Table.pickled
            began = time.process_time()
            futures = [client.submit(look, i) for i in range(300)]
            print({future.result() for future in futures}, Table.pickled - pickled)
            print(list(client.map(look, range(3)))[0], Table.pickled - pickled)
            other = 1
            print(client.submit(light).result(), time.process_time() - began < 2)
        """,
    )
    assert lines == ["0 (0, 1000000)", "{(0, 1000000)} 0", "(0, 1000000) 0", "1 True"]


def test_two_sessions_have_a_main_each(tmp_path: Path) -> None:
    """One daemon, two programs: each has its own names, and the first one's go with it."""
    source = """
    import gmpd, pickle, sys, threading

    WHO = sys.argv[1]

    class Thing:
        who = WHO

    def who(thing):
        again = pickle.loads(pickle.dumps(thing))
        told = []
        thread = threading.Thread(target=lambda: told.append(pickle.loads(pickle.dumps(thing)).who))
        thread.start()
        thread.join()
        return WHO, thing.who, type(again) is Thing, told

    def names():
        import __main__
        return sorted(name for name in vars(__main__) if not name.startswith("_"))

    with gmpd.Client(sys.argv[2]) as client:
        print(client.submit(who, Thing()).result(), flush=True)
        print(client.submit(names).result(), flush=True)
        input()
        print(client.submit(who, Thing()).result(), flush=True)
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    main = """
    import subprocess, sys, gmpd
    from gmpd.client.private import PrivateDaemon
    from gmpd.config import Config

    daemon = PrivateDaemon(Config.load())
    def start(who):
        command = [sys.executable, "script.py", who, daemon.endpoint]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    a, b = start("a"), start("b")
    for each in (a, b):
        print(each.stdout.readline().strip(), each.stdout.readline().strip())
    for each in (b, a):
        print(each.communicate("\\n")[0].strip())
    with gmpd.Client(daemon.endpoint) as client:
        from gmpd.codec import hosted_programs
        print(client.submit(len, ()).result(), client.submit(hosted_programs.count).result())
    daemon.close()
    """
    main_script = tmp_path / "main.py"
    main_script.write_text(textwrap.dedent(main))
    lines = run(tmp_path, source, command=(str(main_script),))
    names = "['Thing', 'WHO', 'pickle', 'threading', 'who']".replace("'who'", "'who'")
    assert lines[0].startswith("('a', 'a', True, ['a'])")
    assert lines[1].startswith("('b', 'b', True, ['b'])")
    assert "'WHO'" in names
    assert "'client'" not in lines[0]
    assert lines[2:] == ["('b', 'b', True, ['b'])", "('a', 'a', True, ['a'])", "0 0"]


def test_options_of_the_interpreter_reach_the_workers(tmp_path: Path) -> None:
    script = """
    import gmpd, sys, warnings

    def look():
        assert False, "not with -O"
        warned = []
        for kind in (UserWarning, FutureWarning):
            try:
                warnings.warn("text", kind)
            except kind:
                warned.append(kind.__name__)
        return warned, sys._xoptions.get("mine"), sys.warnoptions, sys.flags.optimize, __debug__

    with gmpd.Client() as client:
        print(client.submit(look).result() == look())
        print(client.submit(look).result())
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    options = ("-O", "-X", "mine=5", "-W", "error::UserWarning", "-W", "ignore::FutureWarning")
    lines = run(tmp_path, script, command=(*options, "script.py"))
    told = "(['UserWarning'], '5', ['error::UserWarning', 'ignore::FutureWarning'], 1, False)"
    assert lines == ["True", told]


def test_whatever_a_script_defines(tmp_path: Path) -> None:
    """Dispatching and cached functions, descriptors, metaclasses, enumerations of each kind, slots,
    protocols, decorators, conditions and queues, and since Python 3.12 aliases and parameters."""
    lines = run(tmp_path, (ROOT / "tests" / "script_by_value.txt").read_text())
    expected = [
        "True",
        "True True True True True 1 2 3 True True",
        "(3, 1) (3, 2) 2 3",
        "MyErr (1,) 2",
        "('Holder', 1) 2",
        "4 True",
    ]
    if sys.version_info >= (3, 12):
        expected.append("('Alias', 3, 3, 4) 1 True")
    assert lines == [*expected, "True 4"]


def test_values_call_functions_of_their_script_while_they_are_rebuilt(tmp_path: Path) -> None:
    """By __setstate__, __reduce__, __hash__ and the hooks of classes: the names that these use are
    there before."""
    lines = run(tmp_path, (ROOT / "tests" / "calls_while_rebuilt.txt").read_text())
    assert lines == ["((3, 'name3', 3, 3, 3), (7, 4, 3, True, (1, 2)))"]


def test_a_global_that_cannot_be_rebuilt_fails_the_jobs_that_use_it(tmp_path: Path) -> None:
    """Others run, whichever came first; once it can be rebuilt, all do."""
    source = """
    import os
    import sys
    import gmpd

    class Broken:
        def __setstate__(self, state):
            if not os.path.exists("mended"):
                raise FileNotFoundError("not mended yet")
            vars(self).update(state)

    broken = Broken()
    broken.n = 5
    holder = [broken]
    table = {"n": 3}
    again = [table, table]

    def uses():
        return broken.n

    def uses_deeply(n):
        return uses() + n

    def uses_what_holds_it():
        return holder[0].n

    class Uses:
        def method(self):
            return uses()

    def uses_not():
        return table["n"], again[0] is table, again[1] is table

    def calls_class():
        return Uses().method()

    if __name__ == "__main__":
        jobs = [uses, lambda: uses_deeply(1), uses_what_holds_it, Uses().method, calls_class,
                uses_not, lambda: uses_not()]
        with gmpd.Client() as client:
            def look():
                for job in jobs:
                    error = client.submit(job).exception()
                    print(type(error).__name__, "not mended yet" in str(error), end="; ")
                print()
            look()
            look()
            open("mended", "w").close()
            print([client.submit(job).result() for job in jobs])
    """
    line = "NotRegistered True; " * 5 + "NoneType False; NoneType False; "
    values = [5, 6, 5, 5, 5, (3, True, True), (3, True, True)]
    assert run(tmp_path, source) == [line, line, str(values)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with 3.12")
def test_hints_that_wait_for_a_name_wait_in_a_job_too(tmp_path: Path) -> None:
    """Bounds, defaults, aliases, and since Python 3.14 all annotations: of names that come later,
    that are local, or that only type checkers know."""
    lines = run(tmp_path, (ROOT / "tests" / "hints_by_value.txt").read_text())
    said = ["[1, 1, 7, (1, 2), (1, 2)]", "hints True", "defaults True", "deferred True"]
    assert lines == [*said, "[]", "4 5"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_job_may_start_processes_that_know_the_scripts_classes(
    tmp_path: Path, method: str
) -> None:
    lines = run(
        tmp_path,
        """
        import concurrent.futures, gmpd, multiprocessing, sys, warnings

        class Thing:
            def __init__(self, n):
                self.n = n

        def double(thing):
            return Thing(thing.n * 2)

        def in_processes(method):
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads
            context = multiprocessing.get_context(method)
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                thing = pool.submit(double, Thing(3)).result()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                return type(thing) is Thing, pool.submit(double, thing).result().n

        if __name__ == "__main__":
            with gmpd.Client() as client:
                print(client.submit(in_processes, METHOD).result())
        """.replace("METHOD", repr(method)),
    )
    assert lines == ["(True, 12)"]


def test_a_programs_memory_comes_back_when_it_ends(tmp_path: Path) -> None:
    """That of its sent values, and of the values that its jobs made."""
    (tmp_path / "memory.py").write_text(
        "def resident_mb():\n"
        "    with open('/proc/self/statm') as file:\n"
        "        return int(file.read().split()[1]) * 4096 // 1_000_000\n"
    )
    lines = run(
        tmp_path,
        """
        import gmpd, time
        from gmpd.client.private import PrivateDaemon
        from gmpd.config import Config
        from memory import resident_mb

        data = [bytes(1000) + i.to_bytes(8, "big") for i in range(40_000)]
        made = None

        def use():
            global made
            made = made or bytearray(b"x") * 60_000_000
            return len(data), len(made)

        daemon = PrivateDaemon(Config.load())
        with gmpd.Client(daemon.endpoint) as client:
            client.submit(len, ()).result()
            before = client.submit(resident_mb).result()
            print(client.submit(use).result())
            during = client.submit(resident_mb).result()
        with gmpd.Client(daemon.endpoint) as client:
            end = time.monotonic() + 20
            while (after := client.submit(resident_mb).result()) > before + 25:
                assert time.monotonic() < end, (before, during, after)
                time.sleep(0.6)
        print(during - before > 90)
        daemon.close()
        """,
    )
    assert lines == ["(40000, 60000000)", "True"]


def test_lambdas_of_a_module_share_its_globals_too(tmp_path: Path) -> None:
    """Also a test module's, under whatever import mode of pytest; and wrappers of a library."""
    (tmp_path / "library.py").write_text(
        textwrap.dedent(
            """
            import functools, threading

            lock, calls = threading.Lock(), 0

            def counted(fn):
                @functools.wraps(fn)
                def wrapper(*args):
                    global calls
                    with lock:
                        calls += 1
                    return fn(*args), calls
                return wrapper

            def reader():
                return lambda: calls
            """
        )
    )
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent(
            """
            import gmpd, library, pickle

            seen = []

            class Thing:
                pass

            @library.counted
            def decorated(x):
                return x

            def test_it():
                with gmpd.Client() as client:
                    def note(thing):
                        seen.append(type(pickle.loads(pickle.dumps(thing))) is Thing)
                        return len(seen)

                    assert [client.submit(note, Thing()).result() for _ in range(2)] == [1, 2]
                    assert client.submit(lambda: seen).result() == [True, True]
                    assert [client.submit(decorated, 7).result() for _ in range(2)] == [
                        (7, 1), (7, 2),
                    ]
                    assert client.submit(library.reader()).result() == 2
                    assert not seen and not library.calls
            """
        )
    )
    for mode in ("prepend", "importlib"):
        quiet = ("-q", "-p", "no:cacheprovider", f"--import-mode={mode}", "test_mine.py")
        assert "1 passed" in run(tmp_path, "", command=("-m", "pytest", *quiet))[-1]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_spawned_process_uses_a_client_as_its_script_does(tmp_path: Path, method: str) -> None:
    """There the script is ``__mp_main__``, with a namespace that is not its module's."""
    lines = run(
        tmp_path,
        f"""
        import gmpd, multiprocessing

        count = 0

        class Point:
            def __init__(self, x): self.x = x
            def __repr__(self): return f"P{{self.x}}"

        def move(point):
            global count
            count += 1
            return Point(point.x + 1), count

        def child():
            with gmpd.Client() as client:
                client.submit(move, Point(1)).result()
                moved, n = client.submit(move, Point(1)).result()
                print(type(moved) is Point, moved.x, n)
                print(client.submit(repr, Point(1)).result())
                print(client.submit(lambda point: move(point)[1], Point(1)).result())

        if __name__ == "__main__":
            process = multiprocessing.get_context({method!r}).Process(target=child)
            process.start()
            process.join()
            print(process.exitcode)
        """,
    )
    assert lines == ["True 2 2", "P1", "3", "0"]
