"""Say what pyproject.toml lacks before the project can be published: ``python tools/published.py pyproject.toml``."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

#: Pages that ``[project.urls]`` must name.
PAGES = ("Homepage", "Documentation", "Changelog")


def lacking(file: Path) -> list[str]:
    """Return a line for each thing that is missing."""
    project = tomllib.loads(file.read_text())["project"]
    urls = project.get("urls", {})
    problems = [f"[project.urls] {page}: expected an address with https" for page in PAGES if not _is_page(urls, page)]
    if not any("email" in author for author in project["authors"]):
        problems.append("none of authors has an email: SECURITY.rst refers to it")
    return problems


def _is_page(urls: dict[str, str], page: str) -> bool:
    return re.fullmatch(r"https://\S+", urls.get(page, "")) is not None


if __name__ == "__main__":
    problems = lacking(Path(sys.argv[1]))
    for problem in problems:
        print(f"{sys.argv[1]}: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)
