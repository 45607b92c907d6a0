"""The live page's files: all from the package, none from elsewhere, under a strict policy."""

from __future__ import annotations

import graphlib
import re
from pathlib import Path

import gmpd.gateway
from gmpd.gateway.front import POLICY, Front
from tests.api_served import served

PAGE = Path(gmpd.gateway.__file__).with_name("page")
MODULES = {path.name: path.read_text() for path in PAGE.glob("*.js")}


def test_the_document_has_no_code_of_its_own_and_a_policy_that_allows_none() -> None:
    with served() as site:
        status, text, headers = site.ask("/")
        assert status == 200
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Frame-Options"] == "DENY"
        assert "unsafe" not in POLICY
        assert not re.search(r"\son\w+=|style=|<style|<script(?! type=\"module\" src=)", text)
        # Without JavaScript it says what there is.
        assert "gmpd 0.1.0 is running: 2 Ps" in text
        assert "href=/metrics" in text


def test_every_file_is_served_with_its_type_and_no_other_is() -> None:
    with served() as site:
        for name in Front().names:
            status, _, headers = site.ask(f"/page/{name}")
            kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
            assert status == 200
            assert headers.get_content_type() == kind[name.rpartition(".")[2]]
        assert site.ask("/favicon.ico")[2].get_content_type() == "image/svg+xml"
        for path in ("/page/", "/page/nothing.js", "/page/..%2fapp.py", "/page/index.html"):
            assert site.ask(path)[0] == 404
        assert site.ask("/page/app.js", "POST", b"")[0] == 405


def test_modules_import_each_other_and_nothing_from_elsewhere() -> None:
    assert {"app.js", "api.js"} <= set(MODULES)
    for text in MODULES.values():
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= set(MODULES)
        assert len(re.findall(r"\bfrom \"", text)) == len(re.findall(r'from "\./', text))
        # Texts never become HTML, and a namespace is no address.
        assert "innerHTML" not in text
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    order = graphlib.TopologicalSorter(
        {name: re.findall(r'from "\./([^"]+)"', text) for name, text in MODULES.items()}
    )
    assert [*order.static_order()][-1] == "app.js", "no circle: each is read after what it needs"
    styles = (PAGE / "style.css").read_text()
    assert "url(" not in styles
    assert "@import" not in styles
