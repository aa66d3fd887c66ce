"""After a build: every link to a page, an anchor or a file of the site must lead somewhere, and every benchmark's
table must be on a page."""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)


_ATTRIBUTE = re.compile(r'<[^>]*?\s(id|href|src)="([^"]*)"(?:[^>]*?\s(id|href|src)="([^"]*)")?')


class _Page:
    """A page's links and the anchors in it."""

    def __init__(self, text: str) -> None:
        self.links: list[str] = []
        self.anchors: set[str] = set()
        for match in _ATTRIBUTE.finditer(text):
            for name, value in (match.group(1, 2), match.group(3, 4)):
                if name == "id":
                    self.anchors.add(unescape(value))
                elif name and value:
                    self.links.append(unescape(value))


def broken_links(site: Path) -> list[str]:
    """``PAGE: LINK`` for each link within the site that leads nowhere."""
    read = cache(lambda path: _Page(path.read_text(encoding="utf-8")))
    broken = []
    for path in sorted(site.rglob("*.html")):
        for link in sorted(set(read(path).links)):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists() or (
                anchor and target.suffix == ".html" and anchor not in read(target).anchors | {"top"}
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


def _check(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    for link in broken_links(Path(app.outdir)):
        _log.warning("broken link: %s", link)
    source = "".join(path.read_text() for path in Path(app.srcdir).rglob("*.rst"))
    for table in sorted((Path(app.srcdir) / "benchmarks").glob("*.txt")):
        if not re.search(rf"benchmark:: {table.stem}\b", source):
            _log.warning("no page shows benchmarks/%s", table.name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
