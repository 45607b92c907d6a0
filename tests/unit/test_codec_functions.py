"""Functions as references: by name where that finds the same, else by value (codec.functions)."""

from __future__ import annotations

import functools
import gc
import json
import os.path
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gmpd.codec import FunctionRef, describe_function, functions, pickles, resolve_function
from gmpd.errors import NotRegistered, ProtocolError, Unserializable
from gmpd.job import job


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """An importable module of this test's own."""
    made = types.ModuleType("gmpd_test_module")
    sys.modules[made.__name__] = made
    source = "def double(x): return 2 * x\nvalue = 5\nempty = None\nclass Box:\n    item = 1\n"
    exec(source, made.__dict__)
    yield made
    del sys.modules[made.__name__]


def script(source: str) -> dict[str, Any]:
    """What a script leaves in ``__main__``."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source, namespace)
    return namespace


class Tools:
    @staticmethod
    def static(x: int) -> int:
        return x + 1

    @classmethod
    def of_class(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x


# --------------------------------------------------------------------------------------- by name


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (json.dumps, "json:dumps"),
        (os.path.join, "posixpath:join"),
        (len, "builtins:len"),
        (Tools.static, f"{__name__}:Tools.static"),
        (Tools.of_class, f"{__name__}:Tools.of_class"),
        (Tools, f"{__name__}:Tools"),
        (str.upper, "builtins:str.upper"),
    ],
    ids=lambda value: str(value)[-12:] if isinstance(value, str) else "fn",
)
def test_what_can_be_imported_goes_by_name(fn: Callable[..., Any], name: str) -> None:
    ref = describe_function(fn)
    assert ref == FunctionRef("name", name, b"")
    assert resolve_function(ref) == fn


def test_a_decorated_job_goes_by_name(module: types.ModuleType) -> None:
    job(retries=2)(module.double)
    assert describe_function(module.double).kind == "name"


def test_a_name_that_finds_something_else_is_not_used(module: types.ModuleType) -> None:
    old = module.double
    assert describe_function(old).kind == "name"
    exec("def double(x): return 3 * x", module.__dict__)
    ref = describe_function(old)
    assert ref.kind == "pickle"
    assert resolve_function(ref)(4) == 8
    assert resolve_function(describe_function(module.double))(4) == 12


def test_a_module_that_is_loaded_anew_gives_its_new_function(module: types.ModuleType) -> None:
    ref = describe_function(module.double)
    exec("def double(x): return 5 * x", module.__dict__)
    assert resolve_function(ref)(1) == 5


# -------------------------------------------------------------------------------------- by value


def test_a_closure_goes_by_value_with_what_it_holds() -> None:
    offset = 10
    ref = describe_function(lambda x: x + offset)
    assert (ref.kind, ref.name.partition(":")[0]) == ("pickle", __name__)
    assert resolve_function(ref)(1) == 11


def test_a_change_of_what_a_closure_holds_is_seen() -> None:
    offset = 10

    def add(x: int) -> int:
        return x + offset

    assert resolve_function(describe_function(add))(1) == 11
    offset = 20
    assert resolve_function(describe_function(add))(1) == 21


def test_a_change_of_a_global_of_a_script_is_seen() -> None:
    main = script(
        "FACTOR = 2\ndef scale(x): return helper(x) * FACTOR\ndef helper(x): return x + 1"
    )
    scale = main["scale"]
    assert resolve_function(describe_function(scale))(1) == 4
    assert describe_function(scale) is describe_function(scale)  # kept while nothing changes
    main["FACTOR"] = 10
    assert resolve_function(describe_function(scale))(1) == 20
    exec("def helper(x): return 0", main)
    assert resolve_function(describe_function(scale))(1) == 0


def test_one_call_leaves_nothing_behind_for_the_next() -> None:
    main = script("SEEN = []\ndef collect(x):\n    SEEN.append(x)\n    return list(SEEN)")
    ref = describe_function(main["collect"])
    assert [resolve_function(ref)(x) for x in (1, 2)] == [[1], [2]]


def test_a_function_without_state_is_rebuilt_once() -> None:
    ref = describe_function(script("def square(x): return x * x")["square"])
    assert resolve_function(ref) is resolve_function(ref)


def test_a_partial_and_a_bound_method_work() -> None:
    ref = describe_function(functools.partial(int, base=2))
    assert ref.name == "builtins:int"
    assert resolve_function(ref)("101") == 5
    assert resolve_function(describe_function([3, 4].index))(4) == 1


# ------------------------------------------------------------------------------------ no growth


def test_a_function_that_is_gone_leaves_no_trace() -> None:
    def count() -> int:
        gc.collect()
        return len(functions._known)

    before = count()
    made = [script(f"def f(x): return x + {i}")["f"] for i in range(50)]
    for fn in made:
        describe_function(fn)
    watched = weakref.ref(made[0])
    assert count() == before + 50
    made.clear()
    del fn
    assert count() == before
    assert watched() is None


def test_rebuilt_functions_are_bounded() -> None:
    for i in range(300):
        fn = script(f"def f(x): return x + {i}")["f"]
        assert resolve_function(describe_function(fn))(1) == 1 + i
    assert len(functions._kept) <= 128


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gmpd_test_module:doubl", "has no 'doubl', did you mean 'double'?"),
        ("gmpd_test_module:value", "gmpd_test_module:value is not callable: it is an int"),
        ("gmpd_test_module:empty", "is not callable: it is None"),
        ("gmpd_test_module:Absent.method", "has no class 'Absent'"),
        ("gmpd_test_module:Box.nothing", "no function gmpd_test_module:Box.nothing"),
        ("gmpd_absent.part:f", "there is no module 'gmpd_absent'"),
        ("json.decoderr:f", "there is no module 'json.decoderr' .*did you mean 'json.decoder'"),
        ("no colon", "write it as module:function"),
        (":f", "write it as module:function"),
        ("json:", "write it as module:function"),
        ("json:dumps.__globals__.get", "no function"),
    ],
)
def test_a_name_that_finds_nothing_is_refused_with_the_reason(
    module: types.ModuleType, name: str, text: str
) -> None:
    with pytest.raises(NotRegistered, match=text):
        resolve_function(FunctionRef("name", name))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("1 / 0", "importing 'gmpd_broken' raised ZeroDivisionError: division by zero"),
        ("raise SystemExit(4)", r"called sys.exit\(4\)"),
        ("import gmpd_absent", "raised ModuleNotFoundError: No module named 'gmpd_absent'"),
        ("def (", "raised SyntaxError"),
    ],
)
def test_a_module_that_fails_to_import_says_why(
    source: str, text: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gmpd_broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NotRegistered, match=text):
        resolve_function(FunctionRef("name", "gmpd_broken:f"))


async def coroutine_function() -> None:
    pass


def test_what_is_no_function_is_refused_with_the_mend() -> None:
    wrong: list[Any] = [5, None, "json:dumps"]
    for thing in wrong:
        with pytest.raises(Unserializable, match=r"submit\(f, x\) instead of submit\(f\(x\)\)"):
            describe_function(thing)
    with pytest.raises(Unserializable, match="pass the async function"):
        describe_function(coroutine_function())  # type: ignore[arg-type]


def test_a_function_that_cannot_be_sent_names_what_it_holds() -> None:
    stream = (x for x in (1, 2))

    def use() -> int:
        return next(stream)

    with pytest.raises(Unserializable, match=r"closure variable 'stream' of .*use is a generator"):
        describe_function(use)


@pytest.mark.parametrize(
    "ref", [FunctionRef("other", "m:f"), FunctionRef("pickle", "m:f", b"garbage")], ids=str
)
def test_a_reference_that_nobody_made_is_a_protocol_error(ref: FunctionRef) -> None:
    with pytest.raises(
        (ProtocolError, NotRegistered), match=r"kind 'other'|not a whole pickle|not a pickle"
    ):
        resolve_function(ref)


def test_a_pickle_of_something_else_is_not_called() -> None:
    number = FunctionRef("pickle", "m:f", pickles.dump(5)[0])
    with pytest.raises(NotRegistered, match="m:f is not callable: it is an int"):
        resolve_function(number)
