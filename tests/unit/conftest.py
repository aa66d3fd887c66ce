"""No unit test sees the applications that happen to be installed next to this package."""

from __future__ import annotations

import pytest

import esl_apps.apps as registry


@pytest.fixture(autouse=True)
def no_installed_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda **_selection: [])
