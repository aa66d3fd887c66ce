"""Texts of configurations, and what comes of reading them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from esl_apps.config import parse
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from tests.support import ROOT

SHIPPED = ROOT / "conf" / "esl_apps.yml"
SECRETS = {
    name: f"{name.lower()}-secret"
    for name in ("PIN_KEY", "FS_PASSWORD", "ADMIN_TOKEN", "ACME_TOKEN", "ACME_ADMIN_TOKEN")
}

#: The least that starts; each test adds its section behind it, from line 6 on.
LEAST = """\
switches: [{name: fs1, address: "127.0.0.1:8021", password: s3cret}]
admin: {token: t0ken}
node: {name: app1}
integrators:
  - {name: acme, listen: "127.0.0.1:8300", token: t0ken}
"""


def read(more: str = "", environ: Mapping[str, str] | None = None) -> Config:
    """The least configuration with more behind it."""
    return parse(LEAST + more, environ or {}, "f.yml")


def problems_of(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Everything that is wrong with a text, a line each."""
    with pytest.raises(ConfigError) as caught:
        parse(text, environ or {}, "f.yml")
    return str(caught.value).split("\n")


def refusal(more: str, environ: Mapping[str, str] | None = None) -> str:
    """The one problem of the least configuration with more behind it."""
    (problem,) = problems_of(LEAST + more, environ)
    return problem


def refusal_of_integrator(line: str) -> str:
    """The one problem of a second integrator with this line, which is line 10 of the file."""
    return refusal(f'  - name: other\n    listen: "127.0.0.1:8301"\n    token: t\n\n    {line}\n')


def instead(old: str, new: str) -> str:
    """The one problem of the least configuration with one thing in it changed."""
    assert old in LEAST
    (problem,) = problems_of(LEAST.replace(old, new))
    return problem
