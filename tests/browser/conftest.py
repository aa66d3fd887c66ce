"""A real Chromium, axe-core to check pages, and screenshots for the docs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
HERE = Path(__file__).parent
#: Screenshots are smaller than this, so that the repository stays small.
_LARGEST = 200_000
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    # Tones instead of a microphone, and no question whether a page may have it.
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [
        what
        for what, is_here in (
            ("a Chromium (set $CHROMIUM, or install Debian's)", bool(CHROMIUM)),
            ("playwright", importlib.util.find_spec("playwright") is not None),
            ("axe-playwright-python", importlib.util.find_spec("axe_playwright_python") is not None),
        )
        if not is_here
    ]
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a page with cookies of its own. Errors that a page writes to its console, such as
    breaches of its content security policy, fail the test; their list is ``page.faults``."""
    contexts = []
    faults: list[str] = []

    def open_page(scheme: str = "light", size: str = "desktop", **options: Any) -> Any:
        context = chromium.new_context(color_scheme=scheme, viewport=SIZES[size], **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.faults = faults
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def axe() -> Callable[[Any], list[str]]:
    """Return a function that lists what axe-core finds wrong on a page."""
    from axe_playwright_python.base import AXE_SCRIPT

    def find(page: Any) -> list[str]:
        page.evaluate(AXE_SCRIPT)
        violations = page.evaluate("axe.run().then(results => results.violations)")
        return [
            f"{violation['id']}: {violation['help']}: {' | '.join(node['html'] for node in violation['nodes'])}"
            for violation in violations
        ]

    return find


@pytest.fixture
def screenshot(tmp_path: Path) -> Callable[..., None]:
    """Return a function that takes ``docs/images/NAME.png``. The file is only replaced with ``SCREENSHOTS=write``."""
    folder = ROOT / "docs" / "images" if os.environ.get("SCREENSHOTS") == "write" else tmp_path

    def take(page: Any, name: str, **options: Any) -> None:
        path = folder / f"{name}.png"
        page.screenshot(path=str(path), animations="disabled", caret="hide", **options)
        assert 5_000 < path.stat().st_size < _LARGEST, f"{name}: {path.stat().st_size} bytes"

    return take
