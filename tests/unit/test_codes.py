"""The modules that code imports, as found in its instructions."""

from __future__ import annotations

from gmpd.codec.codes import imports_within

SOURCE = """
import os.path, plain as other
from package import part
def f():
    from . import beside
    from ..above import thing
    class C:
        def g(self): import deep
"""


def test_every_import_of_a_module_is_found_with_what_may_be_a_module_in_it() -> None:
    found = imports_within(compile(SOURCE, "<module>", "exec"), "top.middle")
    assert found == {
        "os.path", "plain", "package", "package.part", "top.middle", "top.middle.beside",
        "top.above", "top.above.thing", "deep",
    }  # fmt: skip


def test_imports_beyond_the_first_256_names_are_found() -> None:
    names = "".join(f"name_{i} = 'constant {i}'\n" for i in range(300))
    code = compile(f"{names}from late import it\nfrom .near import it\n", "<module>", "exec")
    assert imports_within(code, "package") == {"late", "late.it", "package.near", "package.near.it"}


def test_code_without_imports() -> None:
    assert imports_within(compile("a = 1", "<module>", "exec"), "") == set()
