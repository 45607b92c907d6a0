"""A function goes by name where the name finds it, else by value; and nothing is kept too long."""

from __future__ import annotations

import collections
import contextvars
import functools
import gc
import importlib
import math
import operator
import os
import os.path
import pickle
import sys
import textwrap
import threading
import types
import weakref
import zlib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd import codec
from gmpd.codec import FunctionRef, functions, pickles
from gmpd.errors import NotRegistered, ProtocolError, Unserializable
from gmpd.job import job, options_of


def double(x: int) -> int:
    return 2 * x


async def fetch(url: str) -> str:
    return url


class Service:
    def __init__(self, factor: int = 1) -> None:
        self.factor = factor

    def times(self, x: int) -> int:
        return self.factor * x

    def __call__(self, x: int) -> int:
        return -x

    @classmethod
    def make(cls, factor: int) -> Service:
        return cls(factor)

    @staticmethod
    def half(x: int) -> float:
        return x / 2


@functools.lru_cache
def cached(x: int) -> int:
    return x


def undecorated(x: int) -> int:
    """Stands for a function whose module knows it only in its decorated form."""
    return x


plain_form = undecorated
undecorated = functools.wraps(plain_form)(lambda x: plain_form(x) + 100)


def there_and_back(fn: Callable[..., Any]) -> Callable[..., Any]:
    return codec.resolve_function(codec.describe_function(fn))


def main_namespace(source: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that ``__main__`` would hold had it run ``source``."""
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(textwrap.dedent(source), namespace)
    for name in namespace.keys() - {"__name__", "__builtins__"}:
        monkeypatch.setattr(sys.modules["__main__"], name, namespace[name], raising=False)
    return namespace


# ---------------------------------------------------------------------------------- by name

BY_NAME: dict[str, Callable[..., Any]] = {
    "function": double,
    "coroutine function": fetch,
    "class": Service,
    "static method": Service.half,
    "class method": Service.make,
    "method of a class": Service.times,
    "builtin": len,
    "C function": math.sqrt,
    "of another name": os.path.join,
    "builtin class": dict,
    "method of a builtin class": str.upper,
    "class method of a builtin class": dict.fromkeys,
    "cached": cached,
    "decorated": undecorated,
    "operator": operator.add,
}


@pytest.mark.parametrize("name", BY_NAME)
def test_what_its_name_finds_goes_by_name(name: str) -> None:
    fn = BY_NAME[name]
    ref = codec.describe_function(fn)
    assert ref.kind == "name"
    # Where a module comes from goes along, unless it is the standard library's.
    assert bool(ref.payload) is ref.name.startswith(__name__)
    assert codec.resolve_function(ref) == fn
    assert codec.describe_function(fn) == ref


def test_names_are_module_and_qualified_name() -> None:
    assert codec.describe_function(double).name == f"{__name__}:double"
    assert codec.describe_function(Service.half).name == f"{__name__}:Service.half"
    assert codec.describe_function(len).name == "builtins:len"


def test_a_job_goes_by_name_with_its_options() -> None:
    fn = sys.modules[__name__].__dict__["double"]
    assert job(fn) is fn
    try:
        assert codec.describe_function(fn).kind == "name"
    finally:
        del fn.__gmpd_job__


# --------------------------------------------------------------------------------- by value


def by_value() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]]:
    offset = 10

    class Local:
        def __call__(self, x: int) -> int:
            return x + offset

    return {
        "lambda": (lambda x: x + 1, (1,), 2),
        "closure": (lambda x: x + offset, (1,), 11),
        "partial": (functools.partial(double, 4), (), 8),
        "partial of a lambda": (functools.partial(lambda a, b: a - b, 4), (1,), 3),
        "bound method": (Service(3).times, (2,), 6),
        "callable object": (Service(3), (2,), -2),
        "object of a local class": (Local(), (1,), 11),
        "method of a builtin": ("-".join, (["a", "b"],), "a-b"),
        "item getter": (operator.itemgetter(1), ("ab",), "b"),
        "replaced in its module": (plain_form, (1,), 1),
    }


@pytest.mark.parametrize("name", by_value())
def test_what_has_no_name_of_its_own_goes_by_value(name: str) -> None:
    fn, args, expected = by_value()[name]
    ref = codec.describe_function(fn)
    assert ref.kind == "pickle"
    assert codec.resolve_function(ref)(*args) == expected


def test_a_reference_describes_itself() -> None:
    ref = FunctionRef("name", "json:dumps")
    assert codec.describe_function(ref) is ref  # type: ignore[arg-type]


def test_a_function_of_main_goes_by_value_with_its_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import math
        BASE = 2
        def power(n): return BASE ** n
        def root(n): return math.sqrt(power(n))
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
    """
    namespace = main_namespace(source, monkeypatch)
    ref = codec.describe_function(namespace["root"])
    assert (ref.kind, ref.name) == ("pickle", "__main__:root")
    back = codec.resolve_function(ref)
    assert back is not namespace["root"]
    assert back(4) == 4.0
    assert there_and_back(namespace["fib"])(10) == 55


def test_a_function_by_value_may_use_gmpd_itself() -> None:
    """A script says `import gmpd`, and its jobs say `gmpd.go`: the package goes by its name."""
    child = codec.resolve_function(codec.describe_function(lambda: gmpd))
    assert child() is gmpd
    assert pickle.loads(pickle.dumps(gmpd)) is gmpd


def test_options_travel_with_a_function_by_value() -> None:
    fn = job(retries=4)(lambda: 1)
    assert options_of(there_and_back(fn)).retries == 4


def test_a_module_that_the_user_sends_by_value_goes_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shipped.py").write_text("def f(): return 5")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("shipped")
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    try:
        ref = codec.describe_function(module.f)
        value = codec.encode({"f": module.f}).data
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["shipped"]
    monkeypatch.undo()
    assert ref.kind == "main"
    assert value.count(b"shipped") == 1, "the value says the name only"
    learned = tuple(codec.learn_part(part.name, part.data()) for part in ref.needs)
    try:
        own = contextvars.copy_context()  # as a job has
        assert own.run(codec.resolve_function, ref._replace(needs=learned))() == 5
    finally:
        for part in learned:
            part.forget()


# --------------------------------------------------------------------- what is kept, and not


def count_dumps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    dumped: list[object] = []
    dump = pickles.dump_function

    def counted(fn: object) -> Any:
        dumped.append(fn)
        return dump(fn)

    monkeypatch.setattr(pickles, "dump_function", counted)
    return dumped


STEADY = {
    "lambda": "f = lambda x: x + 1",
    "scalar global": "K = 2\ndef f(x): return K * x",
    "module": "import math\ndef f(x): return math.sqrt(x)",
    "by name": "from os.path import join\ndef f(x): return join('a', str(x))",
    "itself": "def f(x): return x if x < 1 else f(x - 1)",
    "helper": "def g(x): return x\ndef f(x): return g(x)",
    "default": "def f(x, y=3, z='a'): return x",
    "annotated": "def f(x: int) -> 'str': return x",
}
UNSTEADY = {
    "mutable global": "SEEN = []\ndef f(x): SEEN.append(x); return len(SEEN)",
    "mutable default": "def f(x, seen=[]): seen.append(x); return len(seen)",
    "keyword default": "def f(x, *, seen=[]): return x",
    "mutable global of a helper": "SEEN = []\ndef g(x): return SEEN\ndef f(x): return g(x)",
    "inner function": "SEEN = []\ndef f(x): return (lambda: SEEN)()",
    "closure": "def outer():\n  seen = []\n  return lambda x: seen\nf = outer()",
    "class": "def make():\n  class A: n = 1\n  return A\nA = make()\ndef f(x): return A.n",
    "attributes": "def f(x): return f.n\nf.n = 1",
}


@pytest.mark.parametrize("name", STEADY)
def test_what_cannot_change_is_pickled_and_loaded_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fn = main_namespace(STEADY[name], monkeypatch)["f"]
    dumped = count_dumps(monkeypatch)
    refs = {codec.describe_function(fn) for _ in range(3)}
    assert len(refs) == len(dumped) == 1
    (ref,) = refs
    assert codec.resolve_function(ref) is codec.resolve_function(ref)


@pytest.mark.parametrize("name", UNSTEADY)
def test_what_could_change_is_pickled_and_loaded_each_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fn = main_namespace(UNSTEADY[name], monkeypatch)["f"]
    dumped = count_dumps(monkeypatch)
    ref = codec.describe_function(fn)
    codec.describe_function(fn)
    assert len(dumped) == 2
    assert codec.resolve_function(ref) is not codec.resolve_function(ref)


def test_one_call_leaves_nothing_behind_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    source = UNSTEADY["mutable global"]
    ref = codec.describe_function(main_namespace(source, monkeypatch)["f"])
    assert [codec.resolve_function(ref)(0) for _ in range(3)] == [1, 1, 1]
    counter = "N = 0\ndef f(): \n  global N\n  N += 1\n  return N"
    ref = codec.describe_function(main_namespace(counter, monkeypatch)["f"])
    assert [codec.resolve_function(ref)() for _ in range(3)] == [1, 1, 1]


def replace_scalar(space: dict[str, Any]) -> None:
    space["K"] = 10


def replace_helper(space: dict[str, Any]) -> None:
    space["g"] = lambda: 9


def replace_code(space: dict[str, Any]) -> None:
    space["f"].__code__ = (lambda y=0: 10).__code__


def replace_code_of_helper(space: dict[str, Any]) -> None:
    space["g"].__code__ = (lambda: 9).__code__


def replace_default(space: dict[str, Any]) -> None:
    space["f"].__defaults__ = (9,)


def shadow_builtin(space: dict[str, Any]) -> None:
    space["int"] = lambda value: 10


CHANGES = [
    replace_scalar,
    replace_helper,
    replace_code,
    replace_code_of_helper,
    replace_default,
    shadow_builtin,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_that_the_function_would_see_travels(
    change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "K = 1\ndef g(): return 0\ndef f(y=0): return int(K + g() + y)"
    space = main_namespace(source, monkeypatch)
    assert there_and_back(space["f"])() == 1
    change(space)
    assert space["f"]() == 10
    assert there_and_back(space["f"])() == 10


def test_a_function_that_was_replaced_in_its_module_goes_by_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = double
    assert codec.describe_function(original).kind == "name"
    monkeypatch.setattr(sys.modules[__name__], "double", lambda x: x)
    ref = codec.describe_function(original)
    assert ref.kind == "pickle"
    assert codec.resolve_function(ref)(4) == 8
    monkeypatch.undo()
    assert codec.describe_function(original).kind == "name"


def test_a_module_that_is_loaded_anew_gives_its_new_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("reloaded")
    module.__spec__ = ModuleSpec("reloaded", None)  # as one that is imported
    monkeypatch.setitem(sys.modules, "reloaded", module)
    exec("def f(x): return 2 * x", module.__dict__)
    old, ref = module.f, codec.describe_function(module.f)
    exec("def f(x): return 5 * x", module.__dict__)
    assert codec.resolve_function(ref)(1) == 5
    assert there_and_back(module.f)(1) == 5
    assert codec.describe_function(old).kind == "pickle"
    assert there_and_back(old)(1) == 2


def test_a_change_of_what_a_closure_holds_travels() -> None:
    offset = 10

    def add(x: int) -> int:
        return x + offset

    assert there_and_back(add)(1) == 11
    offset = 20
    assert there_and_back(add)(1) == 21


def test_functions_that_are_gone_leave_no_trace() -> None:
    def count() -> int:
        gc.collect()
        return len(functions._known)

    before = count()
    made = [eval(f"lambda: {n}") for n in range(50)]
    for fn in made:
        codec.describe_function(fn)
    del fn
    assert count() == before + 50
    made.clear()
    assert count() == before


def make_lambda() -> Callable[..., Any]:
    return lambda x: x


def make_recursive() -> Callable[..., Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(x): return f(x - 1) if x else g()\ndef g(): return 1", namespace)
    made: Callable[..., Any] = namespace["f"]
    return made


def make_closure() -> Callable[..., Any]:
    big = Service()
    return lambda x: (x, big)


@pytest.mark.parametrize("make", [make_lambda, make_recursive, make_closure])
def test_describing_a_function_keeps_nothing_alive(make: Callable[[], Callable[..., Any]]) -> None:
    gc.collect()
    before = len(functions._known)
    fn = make()
    codec.describe_function(fn)
    gone = weakref.ref(fn)
    del fn
    gc.collect()
    assert gone() is None
    assert len(functions._known) <= before


def test_a_function_that_dies_at_the_interpreters_exit_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names of modules are None by then, and pytest tells of what a callback raises."""
    remembered = functions._known
    fn = make_lambda()
    codec.describe_function(fn)
    key = id(fn)
    assert key in remembered
    monkeypatch.setattr(functions, "_known", None)
    del fn
    gc.collect()
    assert key not in remembered


@pytest.mark.skipif(sys.version_info < (3, 14), reason="they are evaluated at once")
def test_annotations_that_cannot_be_evaluated_are_left_alone() -> None:
    """Of a function inside another one of an importable module, and of one whose argument fails."""
    source = "def make():\n def fn(x: Missing, y: Missing = 2) -> Missing: return x, y\n return fn"
    space: dict[str, Any] = {"__name__": "elsewhere"}
    exec(compile(source, "<elsewhere>", "exec", dont_inherit=True), space)
    assert there_and_back(space["make"]())(1) == (1, 2)
    with pytest.raises(Unserializable, match=r"argument 'y' of fn\(\)"):
        codec.encode_call("elsewhere:fn", (1, sys._getframe()), {}, fn=space["make"]())


def test_a_new_function_in_the_memory_of_an_old_one_is_not_taken_for_it() -> None:
    for n in range(200):
        fn = eval(f"lambda: {n}")
        assert there_and_back(fn)() == n
        del fn


def test_the_functions_kept_in_a_worker_are_bounded() -> None:
    for n in range(functions._KEPT_MAX + 50):
        there_and_back(eval(f"lambda: {n}"))
    assert len(functions._kept) <= functions._KEPT_MAX


def test_threads_may_describe_and_resolve_at_once() -> None:
    wrong: list[int] = []
    made = [eval(f"lambda: {n}") for n in range(functions._KEPT_MAX * 2)]

    def work() -> None:
        wrong.extend(n for n, fn in enumerate(made) if there_and_back(fn)() != n)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


# ---------------------------------------------------------------------------- what is refused


def test_what_is_no_function_is_refused_with_the_likely_mistake() -> None:
    with pytest.raises(Unserializable, match=r"not an int: .*submit\(f, x\) instead of"):
        codec.describe_function(double(2))  # type: ignore[arg-type]
    wrong: list[Any] = [None, "json:dumps"]
    for thing in wrong:
        with pytest.raises(Unserializable, match="a function is needed, not a"):
            codec.describe_function(thing)
    with pytest.raises(Unserializable, match=r"coroutine fetch\(\): .*submit\(fetch, url\)"):
        codec.describe_function(fetch("u"))  # type: ignore[arg-type]


def test_a_function_that_cannot_be_sent_is_named_with_what_it_holds() -> None:
    lock = threading.Lock()
    with pytest.raises(Unserializable) as info:
        codec.describe_function(lambda: lock)
    text = str(info.value)
    assert "<lambda>() cannot be sent: closure variable 'lock' of" in text
    assert "is a _thread.lock" in text
    with pytest.raises(Unserializable, match=r"times\(\) cannot be sent: .*factor is a _thread"):
        codec.describe_function(Service(lock).times)  # type: ignore[arg-type]


def error_for(name: str) -> str:
    with pytest.raises(NotRegistered) as info:
        codec.resolve_function(FunctionRef("name", name))
    return str(info.value)


REFUSED = [
    ("os.path:joinn", "has no 'joinn', did you mean 'join'?"),
    ("collections:OrderedDict.fromkey", "'OrderedDict' has no 'fromkey', did you mean 'fromkeys'?"),
    ("collections:Nothing.at.all", "no class 'Nothing.at'"),
    ("jsom:loads", "there is no module 'jsom' where the job was to run, did you mean 'json'?"),
    ("json.decodr:x", "there is no module 'json.decodr' where the job was to run, did you mean"),
    ("zzzqqq.sub:x", "there is no module 'zzzqqq' where the job was to run; install it there"),
    ("os:sep", "os:sep is not callable: it is a str"),
    ("json:decoder", "json:decoder is not callable: it is a module"),
    ("double", "'double' names no function: write it as module:function"),
    (":f", "write it as module:function"),
    ("os:", "write it as module:function"),
    ("__main__:f", "move it into a module"),
    ("os:path.join.__globals__.get", "no class"),
    ("..os:getcwd", "write it as module:function"),
    ("os\0:getcwd", "write it as module:function"),
]


@pytest.mark.parametrize(("name", "expected"), REFUSED, ids=[repr(name) for name, _ in REFUSED])
def test_a_name_that_finds_nothing_says_what_is_wrong(name: str, expected: str) -> None:
    assert expected in error_for(name)


BROKEN = {
    "raises": ("1 / 0", "importing 'broken' raised ZeroDivisionError: division by zero"),
    "lacks": ("import nosuchthing", "raised ModuleNotFoundError: No module named 'nosuchthing'"),
    "exits": ("import sys; sys.exit(3)", "importing 'broken' called sys.exit(3)"),
    "syntax": ("def", "raised SyntaxError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_fails_to_import_keeps_its_own_reason(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, expected = BROKEN[name]
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert expected in error_for("broken:f")


def test_none_is_not_callable(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("holder")
    module.nothing = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "holder", module)
    assert "holder:nothing is not callable: it is None" in error_for("holder:nothing")


def test_damaged_references_are_refused() -> None:
    good = codec.describe_function(lambda: 1)
    with pytest.raises(ProtocolError):
        codec.resolve_function(good._replace(payload=good.payload[:-1]))
    with pytest.raises(ProtocolError, match="not a pickle"):
        codec.resolve_function(good._replace(payload=b"garbage"))
    with pytest.raises(ProtocolError, match="kind 'other'"):
        codec.resolve_function(good._replace(kind="other"))
    number, _ = pickles.dump(collections.deque([1]))
    with pytest.raises(NotRegistered, match=r"is not callable: it is a collections\.deque"):
        codec.resolve_function(good._replace(payload=number))


def test_a_function_by_value_whose_module_is_missing_names_both() -> None:
    payload, _ = pickles.dump(functools.partial(os.path.join, "a"))
    hidden = payload[:-4].replace(b"posixpath", b"posixpaht")
    ref = FunctionRef("pickle", "m:f", hidden + zlib.crc32(hidden).to_bytes(4, "little"))
    with pytest.raises(NotRegistered, match=r"m:f cannot be rebuilt: .*No module named 'posix"):
        codec.resolve_function(ref)
