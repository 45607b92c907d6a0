"""The live page: one document and the few files that it needs, all from this package.

The files are read once, so a request touches no disk and can name no other file.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Final

from aiohttp import web

_DIRECTORY: Final = Path(__file__).with_name("page")
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

#: Nothing but files of this gateway: no inline code or style, no other host, no frame around it.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Front:
    """The document, and its files by name."""

    def __init__(self) -> None:
        self._document = (_DIRECTORY / "index.html").read_text()
        self._files = {
            path.name: (path.read_bytes(), _TYPES[path.suffix])
            for path in sorted(_DIRECTORY.iterdir())
            if path.suffix in _TYPES
        }

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        return list(self._files)

    def document(self, status: str, places: list[tuple[str, str]]) -> web.Response:
        """The document. ``status`` and ``places`` are for browsers without JavaScript."""
        items = [f"<li><a href={path}>{path}</a> {html.escape(text)}" for path, text in places]
        text = self._document.replace("{status}", html.escape(status))
        text = text.replace("{places}", "\n".join(items))
        response = web.Response(content_type="text/html", text=text)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One of the files."""
        found = self._files.get(request.match_info.get("name", "icon.svg"))
        if found is None:
            raise web.HTTPNotFound
        body, content_type = found
        response = web.Response(body=body, content_type=content_type, charset="utf-8")
        response.enable_compression()
        return response
