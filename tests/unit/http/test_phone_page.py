"""The files of the phone for browsers."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from esl_apps.http import phone_page
from tests.support.http_services import World, errors

FOLDER = Path(phone_page.__file__).parent / "phone"
FILES = sorted(path.name for path in FOLDER.iterdir())


@pytest.fixture
def served(world: World) -> World:
    world.configure(integrators={"phone": True})
    return world


@pytest.mark.parametrize("path", ["/phone/", "/phone", "/phone/phone.js", "/phone/settings.json"])
def test_phone_is_off_by_default(world: World, path: str) -> None:
    assert errors(world.api.simulate_get(path), 404) == [("", "not_found")]


def test_phone_page_needs_no_token_and_has_a_strict_csp(served: World) -> None:
    result = served.api.simulate_get("/phone/", headers={"Authorization": ""})
    assert result.status_code == 200
    assert result.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().partition(" ")[::2] for part in result.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in result.headers["content-security-policy"]
    assert result.headers["x-content-type-options"] == "nosniff"


def test_phone_page_without_its_slash_is_sent_there(served: World) -> None:
    result = served.api.simulate_get("/phone")
    assert (result.status_code, result.headers["location"]) == (301, "phone/")


@pytest.mark.parametrize("name", FILES)
def test_phone_file_has_a_type_and_an_etag(served: World, name: str) -> None:
    result = served.api.simulate_get(f"/phone/{name}")
    assert result.status_code == 200
    assert result.content == (FOLDER / name).read_bytes()
    kinds = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".txt": "text/plain"}
    assert result.headers["content-type"].startswith(kinds.get(Path(name).suffix, "image/svg+xml"))
    etag = result.headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = served.api.simulate_get(f"/phone/{name}", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    head = served.api.simulate_head(f"/phone/{name}")
    assert (head.headers["content-length"], head.content) == (str(len(result.content)), b"")


@pytest.mark.parametrize(
    "name", ["..%2fphone_page.py", "%2e%2e", "phone.js%00", ".", "sub/phone.js", "PHONE.JS", "none"]
)
def test_phone_file_that_is_not_there_is_404(served: World, name: str) -> None:
    assert served.api.simulate_get(f"/phone/{name}").status_code == 404


def test_phone_settings_name_the_allowed_origins(served: World) -> None:
    served.configure(integrators={"allow_origins": ["https://crm.example.com"], "phone": True})
    result = served.api.simulate_get("/phone/settings.json")
    assert result.json == {"allow_origins": ["https://crm.example.com"]}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open_script = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        self.open_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self.open_script = False

    def handle_data(self, data: str) -> None:
        assert not (self.open_script and data.strip()), "an inline script"


def test_phone_page_has_no_inline_code_and_names_its_files() -> None:
    tags = _Tags()
    tags.feed((FOLDER / "index.html").read_text())
    named = [attrs.get("src") or attrs.get("href") for tag, attrs in tags.found if tag in ("script", "link")]
    assert set(named) <= set(FILES)
    assert not [name for _tag, attrs in tags.found for name in attrs if name.startswith("on") or name == "style"]


def test_phone_scripts_import_files_that_are_there() -> None:
    for name in ("phone.js", "line.js", "follow.js"):
        imported = re.findall(r'from "\./([^"]+)"', (FOLDER / name).read_text())
        assert imported
        assert set(imported) <= set(FILES)


def test_phone_keeps_no_password() -> None:
    text = (FOLDER / "phone.js").read_text()
    stored = re.search(r"const STORED = \[(.*?)\]", text)
    assert stored is not None
    assert "password" not in stored[1]
    assert "sessionStorage" not in text
    assert "document.cookie" not in text


def test_phone_bundle_has_its_version_and_its_licence() -> None:
    assert "SIP.js 0.21.2" in (FOLDER / "sip.js").read_text()[:200]
    assert "Permission is hereby granted" in (FOLDER / "sip.LICENSE.txt").read_text()
