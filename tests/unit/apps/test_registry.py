"""The registry: every application is whole, and others can be added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import msgspec
import pytest
import yaml

import esl_apps.apps as registry
from esl_apps.apps import APPLICATIONS, ApplicationError, add, application, load_installed
from esl_apps.apps.application import Application, Extension, Timed
from esl_apps.cli import dialplan
from esl_apps.cli.demo.script import CALLS
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.node import policy
from esl_apps.node.policy import own_settings
from tests.support import ROOT

SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "esl_apps.yml").read_text())


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Application]]:
    """A registry that the test may change."""
    mine = dict(APPLICATIONS)
    for module in (registry, dialplan, policy):
        monkeypatch.setattr(module, "APPLICATIONS", mine)
    load_installed.cache_clear()
    yield mine
    load_installed.cache_clear()


def served(*_context: object) -> None:
    pass


WAKEUP = Application(ref="wakeup", path="wakeup", title="Rings back later.", arrive=served, headers=["X-Wakeup"])


@pytest.mark.parametrize("app", APPLICATIONS.values(), ids=APPLICATIONS)
def test_application_has_every_part(app: Application) -> None:
    app.check()


#: Those that are on in every configuration. One with a section of its own is off in the shipped one, and so isn't in
#: its dialplan, the demo or the golden files: its own tests show all that.
ALWAYS_ON = [app for app in APPLICATIONS.values() if app.settings is None]


@pytest.mark.parametrize("app", [app for app in ALWAYS_ON if app.arrive], ids=lambda app: app.ref)
def test_application_of_the_dialplan_is_in_it(app: Application) -> None:
    text = "".join(dialplan.render(SHIPPED).values())
    assert f"/{app.path}" in text, f"extensions or headers of {app.ref}: the dialplan has nothing that reaches it"


@pytest.mark.parametrize("ref", [app.ref for app in ALWAYS_ON])
def test_application_has_a_call_in_the_demo(ref: str) -> None:
    assert ref in CALLS, f"cli/demo/script.py has no call through {ref}"


@pytest.mark.parametrize("ref", [app.ref for app in ALWAYS_ON])
def test_application_has_golden_records(ref: str) -> None:
    assert list((ROOT / "tests" / "golden" / "cdr_v3").glob(f"{ref}-*.json")), f"tests/golden has no record of {ref}"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"ref": "wake up"}, "ref"),
        ({"ref": ""}, "ref"),
        ({"path": "wakeup/x"}, "path"),
        ({"title": ""}, "title"),
        ({"api": 99}, "api"),
        ({"arrive": None}, "arrive"),
        ({"headers": ()}, "extensions"),
        ({"timed": Timed(due=served, store="wakeups")}, "restore"),  # type: ignore[arg-type]
        ({"timed": Timed(due=served, store="wake ups"), "restore": served}, "timed.store"),  # type: ignore[arg-type]
    ],
)
def test_application_with_a_missing_part_is_refused_by_name(change: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=f"^{part}: "):
        replace(WAKEUP, **change).check()


def test_add_makes_an_application_known(own_registry: dict[str, Application]) -> None:
    add(WAKEUP)
    assert application("wakeup") is WAKEUP
    assert list(own_registry)[-1] == "wakeup"


def test_add_of_the_same_application_changes_nothing(own_registry: dict[str, Application]) -> None:
    for _ in range(2):
        add(WAKEUP)
    assert list(own_registry).count("wakeup") == 1


@pytest.mark.parametrize("change", [{"ref": "disa"}, {"path": "disa"}])
def test_add_of_a_known_name_is_refused(own_registry: dict[str, Application], change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="disa"):
        add(replace(WAKEUP, **change))
    assert "wakeup" not in own_registry


def test_add_of_a_known_store_is_refused(own_registry: dict[str, Application]) -> None:
    timed = Timed(due=served, store="callbacks")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="callback"):
        add(replace(WAKEUP, restore=served, timed=timed))


@pytest.mark.parametrize(
    ("value", "said"),
    [("nowhere.at_all:APP", "No module named"), ("json:dumps", "expected an Application, not function")],
)
def test_installed_application_that_cant_be_used_is_named(
    own_registry: dict[str, Application], monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    entry = EntryPoint("wakeup", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.GROUP else [])
    with pytest.raises(ApplicationError, match=f"wakeup.*{said}"):
        load_installed()


def test_application_unknown_here_is_one_that_nothing_serves() -> None:
    unknown = application("elsewhere")
    assert (unknown.arrive, unknown.placed, unknown.session) == (None, False, False)


class Own(msgspec.Struct, forbid_unknown_fields=True):
    number: str


def numbers_of(config: Mapping[str, Any]) -> list[Extension]:
    return [Extension(["wakeup"], [config["applications"]["wakeup"]["number"]], "applications.wakeup.number")]


OWN = replace(WAKEUP, settings=Own, headers=(), extensions=numbers_of)


def test_dialplan_has_an_added_application_once_it_is_configured(own_registry: dict[str, Application]) -> None:
    add(OWN)
    assert "wakeup" not in dialplan.render(SHIPPED)[dialplan.PUBLIC]
    config = {**SHIPPED, "applications": {"wakeup": {"number": "0115553000"}}}
    assert "/wakeup async full" in dialplan.render(config)[dialplan.PUBLIC]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"wakeup": {}}, "applications.wakeup: .*number"),
        ({"wakeup": {"number": 5}}, "applications.wakeup: "),
        ({"wakeup": {"number": "1", "colour": "red"}}, "applications.wakeup: .*colour"),
        ({"elsewhere": {}}, "applications.elsewhere: no such application"),
    ],
)
def test_settings_that_cant_be_read_name_the_application(
    own_registry: dict[str, Application], section: dict[str, Any], said: str
) -> None:
    add(OWN)
    with pytest.raises(ConfigError, match=said):
        own_settings(Config(applications=section))


def test_settings_are_of_the_applications_own_type(own_registry: dict[str, Application]) -> None:
    add(OWN)
    assert own_settings(Config(applications={"wakeup": {"number": "1"}})) == {"wakeup": Own("1")}
    assert own_settings(Config()) == {}
