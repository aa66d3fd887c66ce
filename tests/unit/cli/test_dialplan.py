"""The dialplan, the prompts, and the configuration that ship, as files."""

from __future__ import annotations

import contextlib
import math
import os
import re
import wave
from array import array
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
import yaml

from esl_apps import config
from esl_apps.apps.legs import OF_PHONE, REFER
from esl_apps.cli import dialplan
from esl_apps.config.model import Config
from tests.rig.tones import envelope
from tests.support import ROOT
from tests.unit.cli.conftest import Run, Settings
from tools import make_prompts

PROMPTS = ROOT / "esl_apps" / "prompts"
YAML = ROOT / "conf" / "esl_apps.yml"
CONTEXT = {dialplan.PUBLIC: "public", dialplan.DEFAULT: "default"}
FILES = [*CONTEXT, dialplan.TRANSFERS]


@cache
def loaded() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(YAML.read_text())
    return document


def shipped() -> dict[str, Any]:
    return deepcopy(loaded())


def extensions(text: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(text).findall("extension")


def expression(text: str, name: str) -> str:
    (found,) = [e for e in extensions(text) if e.get("name") == name]
    condition = found.find("condition")
    assert condition is not None
    return condition.get("expression", "")


# As files


@pytest.mark.parametrize("name", FILES)
def test_render_of_the_shipped_configuration_is_shipped(name: str) -> None:
    path, rendered = ROOT / "dialplan" / name, dialplan.render(shipped())[name]
    if os.environ.get("UPDATE_DIALPLAN"):
        path.write_text(rendered)
    assert path.read_text() == rendered, "run this with UPDATE_DIALPLAN=1"


@pytest.mark.parametrize("name", CONTEXT)
def test_shipped_files_say_what_takes_a_new_legs_place(name: str) -> None:
    """Hazard 47: the switch reads each of them, also on its own."""
    root = ElementTree.fromstring((ROOT / "dialplan" / name).read_text())
    lines = [(line.get("cmd"), line.get("data")) for line in root.findall("X-PRE-PROCESS")]
    assert lines == [("set", "current_application=hangup"), ("set", "current_application_data=CALL_REJECTED")]


def test_dialplan_folder_has_no_other_file() -> None:
    assert {path.name for path in (ROOT / "dialplan").iterdir()} == set(FILES)


@pytest.mark.parametrize("name", CONTEXT)
def test_shipped_extensions_load_before_the_stock_files(name: str) -> None:
    text = (ROOT / "dialplan" / name).read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == "include"
    assert {child.tag for child in root} == {"X-PRE-PROCESS", "extension"}
    assert "<context" not in text
    # public/ and default/ are read in the order of names; these are the first there
    stock = ["00_inbound_did.xml", "00_pizza_demo.xml", "01_example.com.xml"]
    assert sorted([name, *stock])[0] == name


@pytest.mark.parametrize(("name", "context"), CONTEXT.items())
def test_each_socket_has_a_watchdog_and_a_fallback(name: str, context: str) -> None:
    armed = 0
    for extension in extensions((ROOT / "dialplan" / name).read_text()):
        actions = [(a.get("application"), a.get("data")) for a in extension.iter("action")]
        if "socket" not in [application for application, _ in actions]:
            continue
        (watchdog, socket_, after) = actions
        assert watchdog == ("sched_transfer", f"+8 esl_apps_unavailable XML {context}")
        assert re.fullmatch(r"127\.0\.0\.1:8084/[a-z0-9/]+ async full", socket_[1] or "")
        assert after == ("transfer", f"esl_apps_unavailable XML {context}")
        armed += 1
    assert armed == {"public": 4, "default": 1}[context]
    names = [e.get("name") for e in extensions((ROOT / "dialplan" / name).read_text())]
    assert len(names) == len(set(names))
    assert names.index("esl_apps_unavailable") < min(
        names.index(n) for n in names if n in ("esl_apps_click2dial", "esl_apps_dialthrough")
    )


def test_transfers_have_a_context_that_ends_behind_the_socket() -> None:
    """FreeSWITCH joins the two parties again where the context ends, so nothing may follow."""
    (context,) = ElementTree.fromstring((ROOT / "dialplan" / dialplan.TRANSFERS).read_text())
    assert (context.tag, context.get("name")) == ("context", REFER)
    parting, refused, refer = context
    assert [one.get("expression") for one in (*parting, *refused)] == ["^esl_apps_parting$", "^esl_apps_refused$"]
    actions = [(a.get("application"), a.get("data")) for a in refer.iter("action")]
    assert actions == [
        ("set", "api_hangup_hook=uuid_kill ${blind_transfer_uuid}"),
        ("sched_transfer", f"+8 esl_apps_refused XML {REFER}"),
        ("socket", "127.0.0.1:8084/transfer/refer async full"),
        ("sched_cancel", None),
    ]
    assert f"esl_apps_parting XML {REFER}" in OF_PHONE["execute_on_blind_transfer"]


def test_render_names_every_application_and_node() -> None:
    plan = shipped()
    plan["dialplan"]["nodes"] = ["10.0.0.1:8084", "fs-node.example.net:9000"]
    text = "".join(dialplan.render(plan).values())
    for path in ("dialthrough", "callback", "disa/acme/front", "inbound", "click2dial", "transfer/refer"):
        assert f'"10.0.0.1:8084/{path}|fs-node.example.net:9000/{path} async full"' in text


ZA = {"+27115550000", "27115550000", "0027115550000", "0115550000", "115550000"}


@pytest.mark.parametrize(
    ("number", "region", "expected"),
    [
        ("27115550000", "ZA", ZA),
        ("+27 11 555 0000", "ZA", ZA),
        ("0115550000", "ZA", ZA),
        ("0027115550000", "ZA", ZA),
        ("27115550000", "GB", {"+27115550000", "27115550000", "0027115550000"}),
        ("5141115555", "US", {"+5141115555", "5141115555", "005141115555"}),  # 111: no number there
        (
            "5142223333",
            "CA",
            {"+15142223333", "15142223333", "0015142223333", "01115142223333", "5142223333"},
        ),
        ("5142223333", "ZA", {"+5142223333", "5142223333", "005142223333"}),
        ("+390212345678", "IT", {"+390212345678", "390212345678", "00390212345678", "0212345678"}),
        ("1000", "ZA", {"1000"}),
        ("info.desk", "ZA", {"info.desk"}),
    ],
)
def test_forms_of_a_number(number: str, region: str, expected: set[str]) -> None:
    assert set(dialplan.forms(number, region)) == expected


def test_expression_matches_all_forms_and_nothing_else() -> None:
    pattern = re.compile(expression(dialplan.render(shipped())[dialplan.PUBLIC], "esl_apps_inbound_27115550000"))
    for form in ZA:
        assert pattern.search(form), form
        others = [
            form + "1",
            "1" + form,
            form[:-1],
            form[1:],
            form + "\n",
            "x\n" + form,
            form + " ",
        ]
        others += [form.replace("555", "55a"), "+" + form, form.upper() + "#", f"sip:{form}", form + "@x", ""]
        for other in others:
            assert other in ZA or not pattern.search(other), other
        # Number portability, and the context of a local number.
        assert pattern.search(form + ";npdi;rn=+27110000000")
        assert not pattern.search(form + ";x\n")
    assert pattern.search("+27-11-555.0000;phone-context=x")
    assert not pattern.search("+0115550000")


@pytest.mark.usefixtures("wakeup")
def test_dialplan_has_the_number_of_an_installed_application(run: Run, settings: Settings) -> None:
    settings["applications"] = {"wakeup": {"number": "0115553000", "account": "acme"}}
    ran = run("dialplan", "-c", settings.written())
    assert (ran.status, "/wakeup async full" in ran.out) == (0, True)


@pytest.mark.usefixtures("wakeup")
def test_dialplan_names_a_missing_setting_of_an_application(run: Run, settings: Settings) -> None:
    settings["applications"] = {"wakeup": {"account": "acme"}}
    ran = run("dialplan", "-c", settings.written())
    assert (ran.status, ran.out) == (2, "")
    assert "applications.wakeup: Object missing required field `number`" in ran.err


def test_render_number_of_two_applications_is_refused() -> None:
    plan = shipped()
    plan["inbound"]["0115550002"] = {}
    with pytest.raises(ValueError, match=r"already reaches accounts\.acme\.disa\.front\.numbers"):
        dialplan.render(plan)
    plan = shipped()
    plan["cccp"]["cccp_cb_number"] = "+5141115555"
    with pytest.raises(ValueError, match=r"already reaches cccp\.cccp_cc_number"):
        dialplan.render(plan)


def test_render_disa_may_have_several_numbers() -> None:
    plan = shipped()
    plan["accounts"]["acme"]["disa"]["front"]["numbers"] = ["27115550002", "0115550003"]
    pattern = re.compile(expression(dialplan.render(plan)[dialplan.PUBLIC], "esl_apps_disa_acme_front"))
    assert all(pattern.search(form) for form in ("0115550002", "+27115550003"))
    assert not pattern.search("27115550001")


HOSTILE = [
    '1" application="system',
    "1000)|(.*",
    "${system(id)}",
    "$${x}",
    "1000 XML default",
    "a|b",
    "1\n2",
    "&#36;{x}",
    "a&b",
    "<x>",
    "'",
    "\\",
    "]]>",
    "-->",
    "{{x}}",
    "é",
    "1000;x",
    "1,2",
    "%0a",
]


def at(plan: dict[str, Any], path: str, value: str) -> dict[str, Any]:
    plan = deepcopy(plan)
    *way, last = path.split("/")
    inner: Any = plan
    for key in way:
        inner = inner[key]
    if last == "KEY":
        inner[value] = inner.pop(next(iter(inner)))
    else:
        inner[last] = [value] if isinstance(inner[last], list) else value
    return plan


@pytest.mark.parametrize(
    "path",
    [
        "cccp/cccp_cc_number",
        "cccp/cccp_cb_number",
        "inbound/KEY",
        "accounts/KEY",
        "accounts/acme/disa/KEY",
        "accounts/acme/disa/front/numbers",
        "dialplan/nodes",
        "prompts/dir",
        "prompts/language",
        "dial/region",
    ],
)
def test_render_hostile_values_are_refused_or_escaped(path: str) -> None:
    as_shipped = shape(dialplan.render(shipped()))
    for value in HOSTILE:
        plan = at(shipped(), path, value)
        if path in ("prompts/dir", "dial/region"):
            with contextlib.suppress(ValueError):  # harmless there, then: nothing but values differs from what ships
                assert shape(dialplan.render(plan)) == as_shipped, value
        else:
            section = path.split("/", maxsplit=1)[0]
            with pytest.raises(ValueError, match=section):
                dialplan.render(plan)


def shape(rendered: dict[str, str]) -> list[list[str | None]]:
    return [
        [element.tag if element.tag != "action" else element.get("application") for element in extension.iter()]
        for text in rendered.values()
        for extension in extensions(text)
    ]


@pytest.mark.parametrize("number", ["a.b", "*9#", "x_y-z"])
def test_expression_escapes_its_special_characters(number: str) -> None:
    plan = at(shipped(), "cccp/cccp_cc_number", number)
    pattern = re.compile(expression(dialplan.render(plan)[dialplan.PUBLIC], "esl_apps_dialthrough"))
    assert pattern.search(number)
    for other in ("axb", "ab", "9#", "99#", "x_yz", "x_"):
        assert not pattern.search(other)


def test_render_node_must_be_reachable_from_a_switch() -> None:
    plan = shipped()
    plan["node"] = {"listen": "0.0.0.0:8084", "advertise": None}
    with pytest.raises(ValueError, match=r"node\.advertise"):
        dialplan.render(plan)


def test_render_kazoos_form_and_missing_sections() -> None:
    plan = shipped()
    whole = dialplan.render(plan)
    plan["cccp"] = {"_id": "cccp", "default": plan["cccp"]}
    assert dialplan.render(plan) == whole
    bare = dialplan.render({"node": {"listen": "127.0.0.1:8084"}})
    assert [e.get("name") for e in extensions(bare[dialplan.PUBLIC])] == [
        "esl_apps_handover_1",
        "esl_apps_handover_2",
        "esl_apps_unavailable",
    ]


# The configuration that ships


def secrets() -> dict[str, str]:
    names = re.findall(r"\$\{(\w+)\}", "\n".join(line.partition("#")[0] for line in YAML.read_text().splitlines()))
    return dict.fromkeys(names, "4821907356")


def test_example_environment_has_every_secret() -> None:
    text = (ROOT / "conf" / "esl_apps.env.example").read_text()
    assert set(re.findall(r"(?m)^(\w+)=$", text)) == set(secrets())


def test_shipped_configuration_is_valid() -> None:
    assert config.load(str(YAML), secrets())


def test_shipped_configuration_has_every_key() -> None:
    """All keys that ``Config`` knows."""
    missing = sorted(unnamed(Config, shipped(), ""))
    assert not missing, f"not in conf/esl_apps.yml: {missing}"


def unnamed(kind: Any, data: Any, path: str) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        here = f"{path}.{field.encode_name}".lstrip(".")
        if field.encode_name not in data:
            yield here
            continue
        inside, found = struct_in(field.type), data[field.encode_name]
        if inside is None or not found:
            continue
        several = found if isinstance(found, list) else [found]
        names = {f.encode_name for f in msgspec.structs.fields(inside)}
        if isinstance(found, dict) and not names & set(found):
            several = list(found.values())  # a mapping of names
        for one in several:
            if isinstance(one, dict) and (names & set(one) or path == ""):
                yield from unnamed(inside, one, here)


def struct_in(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    inside = (struct_in(argument) for argument in getattr(kind, "__args__", ()))
    return next((found for found in inside if found is not None), None)


CONTRACT = """
node: name listen advertise max_calls drain_timeout
redis: url stale_cards
switches[]: name address password
dial: region extensions extension external caller_id_format emergency classifiers
admin: listen token
recordings: dir
prompts: dir language
spool: dir
integrators[]: name listen token redis payload record caller_ids campaigns agent_timeout callee_timeout
    patterns call_restriction dispositions push legacy_get legacy_c2d
cccp: cccp_cb_number cccp_cc_number last_number_redial_code ensure_valid_caller_id default_caller_id_number
    allowed_callee_regex callback_delay prompt_delay cid_trust
callback: retries retry_after cool_down per_day answer_after confirm
callflow.disa: default_use_account_caller_id default_pin_length
accounts{}: token caller_id integrator caller_ids call_restriction users disa
inbound{}: integrator agents ring_timeout
"""


def test_shipped_configuration_has_the_promised_keys() -> None:
    plan = shipped()
    assert {"pin_key", "trust"} <= set(plan)
    for line in re.sub(r"\n +", " ", CONTRACT).strip().splitlines():
        section, _, keys = line.partition(": ")
        found = plan[section.rstrip("[]{}")]
        found = found[0] if section.endswith("[]") else found
        found = next(iter(found.values())) if section.endswith("{}") else found
        assert set(keys.split()) <= set(found), section
    disa = "pin retries interdigit max_digits preconnect_audio ring_repeat_count use_account_caller_id"
    assert set(disa.split()) | {"enforce_call_restriction"} <= set(plan["accounts"]["acme"]["disa"]["front"])


def test_shipped_configuration_explains_keys_without_secrets() -> None:
    for line in YAML.read_text().splitlines():
        key, _, value = line.partition("#")[0].strip().lstrip("- ").partition(":")
        if key in ("token", "token_hash", "link_key", "password", "pin", "pin_key", "pin_hash"):
            # The example's PIN is readable there: `esl-apps check` fails until it is changed.
            assert re.fullmatch(r'"\$\{\w+\}"|null|"4821907356"', value.strip()), line
        if value.strip() and not value.strip().startswith("{") and key != "enforce_call_restriction":
            assert "#" in line, f"no comment: {line}"


def test_systemd_unit_waits_for_the_drain() -> None:
    unit = (ROOT / "conf" / "systemd" / "esl-apps.service").read_text()
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", unit))
    assert float(settings["TimeoutStopSec"]) > shipped()["node"]["drain_timeout"] + 5
    assert settings["KillMode"] == "mixed"
    assert settings["Restart"] == "always"
    # systemd skips what follows a command that fails, and ReloadRefused rings for what the node itself has refused.
    signal, check = re.findall(r"(?m)^ExecReload=(.*)$", unit)
    assert signal == "/bin/kill -HUP $MAINPID"
    assert " check --offline " in check
    for hardened in ("NoNewPrivileges=true", "ProtectSystem=strict", "ReadWritePaths=", "EnvironmentFile="):
        assert f"\n{hardened}" in unit


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "freeswitch").glob("*.xml")), ids=lambda path: path.name)
def test_switch_files_configure_what_they_are_named_after(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    assert root.tag == "configuration"
    assert path.name == f"{root.get('name')}.xml"
    values = {param.get("name"): param.get("value") for param in root.iter("param")}
    if path.name == "json_cdr.conf.xml":
        assert values["log-dir"] == shipped()["spool"]["dir"]
        assert not {"url", "queue-capacity"} & set(values)
    if path.name == "event_socket.conf.xml":
        assert f"{values['listen-ip']}:{values['listen-port']}" == shipped()["switches"][0]["address"]


# Prompts

LANGUAGES = ("de", "en", "es", "fr", "pt")
NEEDED = """
enter_pin invalid_pin retries_exceeded enter_number invalid_extension unauthorized_call too_many_channels
emergency_refused callee_busy callee_no_answer callee_no_such_number callee_refused callee_failed unavailable
agents_unavailable confirm_callback goodbye announcement please_hold
"""


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_of_every_language_exist(language: str) -> None:
    about = make_prompts.texts(language)
    names = {f"{name}.wav" for name in (*about["spoken"], *make_prompts.TONES)}
    assert {f"{name}.wav" for name in NEEDED.split()} <= names
    for rate in about["voice"].get("rates", [8000]):
        assert {path.name for path in (PROMPTS / language / str(rate)).iterdir()} == names


def test_prompts_are_all_languages_and_small() -> None:
    assert {path.name for path in PROMPTS.iterdir() if (path / "8000").is_dir()} == set(LANGUAGES)
    assert sum(path.stat().st_size for path in PROMPTS.rglob("*.wav")) < 8_000_000


def _as_id(path: Path) -> str:
    return f"{path.parent.parent.name}-{path.stem}-{path.parent.name}"


@pytest.mark.parametrize("path", sorted(PROMPTS.rglob("*.wav")), ids=_as_id)
def test_prompt_is_loud_and_without_silence(path: Path) -> None:
    rate = int(path.parent.name)
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (rate, 1, 2)
        samples = array("h", file.readframes(file.getnframes()))
    # A word that was cut short: all digits have 0.35 s and more.
    assert (0.19 if path.stem == "beep" else 0.35) < len(samples) / rate < 7
    with wave.open(str(path.parent.parent / "8000" / path.name), "rb") as file:
        assert abs(file.getnframes() / 8000 - len(samples) / rate) < 0.05  # the same words
    loud = envelope(samples, rate)
    threshold = max(loud) / 30
    speech = [one for one in loud if one > threshold]
    level = 20 * math.log10(math.sqrt(sum(one * one for one in speech) / len(speech)) / 32767)
    assert -22 < level < -16
    assert max(abs(sample) for sample in samples) < 32767
    # it begins and ends at once: at most 0.1 s of silence; "three" begins softly, and "fünf" ends so
    assert max(loud[:6]) > threshold / 10
    assert max(loud[-8:]) > threshold / 10
