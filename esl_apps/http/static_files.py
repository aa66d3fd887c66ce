"""Serve the files of a folder of the package: read once, each with an ETag, under a strict Content-Security-Policy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import falcon

from esl_apps.http.errors import problem
from esl_apps.http.ranges import is_listed

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class _File:
    data: bytes
    content_type: str
    etag: str


class StaticFiles:
    """The files of one folder, by name. Only names that were there at the start are served."""

    def __init__(self, folder: Path, headers: Mapping[str, str]) -> None:
        """:param headers: sent with every file."""
        self._headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", **headers}
        self._files = {path.name: _read(path) for path in sorted(folder.iterdir()) if path.suffix in _TYPES}

    def send(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """:raises Problem: 404."""
        file = self._files.get(name)
        if file is None:
            raise problem(404, "not_found", "no such resource")
        for header, value in {**self._headers, "ETag": file.etag}.items():
            resp.set_header(header, value)
        if is_listed(file.etag, req.get_header("If-None-Match") or ""):
            resp.status = 304
            return
        resp.content_type = file.content_type
        if req.method == "HEAD":
            resp.content_length = len(file.data)
        else:
            resp.data = file.data


def _read(path: Path) -> _File:
    data = path.read_bytes()
    return _File(data, _TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
