"""``esl-apps check``, against a switch that the test plays."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from esl_apps.apps import APPLICATIONS
from esl_apps.cli import browser_profiles, check, service_unit
from esl_apps.esl.switch import Switch
from esl_apps.node import descriptors
from esl_apps.prompts import PROMPTS
from tests.support import ROOT, TLS
from tests.support.certificates import expiring
from tests.support.node import RedisServer
from tests.support.peer import FakeSwitch, api_response, rejection
from tests.support.ports import free_port
from tests.unit.cli.conftest import Ran, Run, Settings

#: The fake switch has one domain and one gateway, and the gateway is up.
DOMAIN = api_response("true")
GATEWAY = api_response("Name\tpstn\nStatus\tUP\n")


@pytest.fixture
def good(switch: FakeSwitch, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A configuration in which nothing fails. A slow machine isn't mentioned."""
    monkeypatch.setattr(check, "SILENCE", 60.0)
    switch.answers["api version"] = api_response("FreeSWITCH Version 1.11\nmore")
    switch.answers["api domain_exists"] = DOMAIN
    switch.answers["api sofia status gateway"] = GATEWAY
    settings["spending"] = {"limits": {"calls_per_day": 100}}
    return settings


def lines(ran: Ran, level: str) -> list[str]:
    return [line[5:] for line in ran.out.splitlines() if line.startswith(f"{level:<5}")]


def failures(run: Run, settings: Settings) -> list[str]:
    ran = run("check", "-c", settings.written())
    assert ran.status == (1 if lines(ran, "FAIL") else 0)
    assert "Traceback" not in ran.err
    return lines(ran, "FAIL")


def test_check_prints_ok_line_by_line(run: Run, good: Settings) -> None:
    ran = run("check", "-c", good.written())
    assert (ran.status, ran.err) == (0, "")
    assert all(line.startswith("ok   ") for line in ran.out.splitlines()), ran.out
    for what in ("configuration", "switch fs1", "dial.extension", "dial.external[0]", "redis.url", "recordings.dir"):
        assert sum(line.startswith(what) for line in lines(ran, "ok")) == 1, what
    assert f"switch fs1: {good['switches'][0]['address']}: FreeSWITCH Version 1.11" in lines(ran, "ok")


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({}, "this machine, 127.0.0.1 may connect to {listen}, no secret asked for"),
        ({"allow": ["10.0.0.0/8", "::1"]}, "10.0.0.0/8, ::1 may connect to {listen}, no secret asked for"),
        ({"secret": "sixteen--letters"}, "this machine, 127.0.0.1 may connect to {listen}, with node.secret"),
    ],
)
def test_check_says_who_may_connect(run: Run, good: Settings, node: dict[str, object], told: str) -> None:
    good["node"].update(node)
    ran = run("check", "-c", good.written())
    listen = good["node"].get("listen", "127.0.0.1:8084")
    assert f"node.allow: {told.format(listen=listen)}" in lines(ran, "ok")
    assert "sixteen--letters" not in ran.out


def test_check_json_has_a_line_for_each_result(run: Run, good: Settings) -> None:
    del good["spending"]
    ran = run("check", "-c", good.written(), "--json")
    assert ran.status == 0
    assert ran.json[0] == {"what": "configuration", "level": "ok", "message": "read"}
    assert {result["level"] for result in ran.json} == {"ok", "warn"}


@pytest.mark.usefixtures("wakeup")
@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"wakeup": {"number": "0115553000", "account": "acme"}}, []),
        ({"wakeup": {"account": "acme"}}, ["applications.wakeup: Object missing required field `number`"]),
        ({"wakeups": {}}, ["applications.wakeups: no such application; those with settings are: {}"]),
    ],
)
def test_check_reads_the_sections_of_applications(
    run: Run, good: Settings, section: dict[str, Any], told: list[str]
) -> None:
    good["applications"] = section
    found = failures(run, good)
    with_settings = ", ".join(sorted(ref for ref, one in APPLICATIONS.items() if one.settings is not None))
    assert found == [line.replace("{}", with_settings) for line in told]


def test_check_warnings_alone_are_success(run: Run, good: Settings) -> None:
    del good["spending"]
    ran = run("check", "-c", good.written())
    assert ran.status == 0
    (warning,) = lines(ran, "WARN")
    assert warning.startswith("spending: ")


def test_check_reports_what_bounds_a_fraud(run: Run, good: Settings) -> None:
    good["accounts"] = {"acme": {"breaker": {"high_risk_calls_per_hour": 3}}}
    ran = run("check", "-c", good.written())
    assert "ok   spending: limits of spending, breaker account:acme; 1" in ran.out


@pytest.mark.parametrize("as_json", [False, True])
def test_check_wrong_configuration_fails(run: Run, settings: Settings, as_json: bool) -> None:
    settings["dial"] = {"region": "XX"}
    ran = run("check", "-c", settings.written(), *(["--json"] if as_json else []))
    assert ran.status == 1
    assert "dial.region" in ran.out
    if as_json:
        assert [result["level"] for result in ran.json] == ["fail"]
    else:
        assert ran.out.startswith("FAIL configuration: ")


@pytest.mark.parametrize("file", ["none.yml", ".", "\udcff"])
def test_check_names_a_file_that_cannot_be_read(run: Run, file: str) -> None:
    ran = run("check", "-c", file)
    assert ran.status == 1
    (line,) = ran.out.splitlines()
    assert line.startswith("FAIL configuration: ")


def test_check_goes_on_after_a_failure(run: Run, good: Settings, switch: FakeSwitch) -> None:
    closed = f"127.0.0.1:{free_port()}"
    good["switches"].append({"name": "fs2", "address": closed, "password": "x"})
    good["integrators"][0]["redis"] = {"url": f"redis://{closed}/0"}
    good["integrators"][0]["record"] = True
    good["recordings"]["dir"] = "/nowhere/recordings"
    switch.answers["api sofia status gateway"] = api_response("Invalid Gateway!")
    assert {line.partition(": ")[0] for line in failures(run, good)} == {
        "switch fs2",
        "dial.external[0] on fs1",
        "integrators[0].redis.url",
        "recordings.dir",
    }


# Phones in browsers --------------------------------------------------------------------------------------

LACKS = "lacks apply-candidate-acl"


def sofia(*settings: tuple[str, str], name: str = "internal") -> str:
    params = "".join(f'<param name="{param}" value="{value}"></param>' for param, value in settings)
    gateway = '<gateway name="pstn"><param name="password" value="gateway-secret"/></gateway>'
    return (
        f'<configuration name="sofia.conf"><profiles><profile name="{name}"><gateways>{gateway}</gateways>'
        f"<settings>{params}</settings></profile></profiles></configuration>\n\n"
    )


WS, WSS = ("ws-binding", ":5066"), ("wss-binding", ":7443")
PRIVATE, PUBLIC = ("apply-candidate-acl", "rfc1918.auto"), ("apply-candidate-acl", "wan.auto")


@pytest.mark.parametrize(
    ("params", "level", "told"),
    [
        ((WS, WSS), "WARN", LACKS),
        ((WSS,), "WARN", LACKS),
        ((WS, ("apply-candidate-acl", "")), "WARN", LACKS),
        ((WS, PRIVATE, ("apply-candidate-acl", "none")), "WARN", LACKS),
        ((WS, PUBLIC), "WARN", "apply-candidate-acl has only wan.auto"),
        ((WS, PRIVATE), "ok", "ws-binding :5066; audio goes to addresses of rfc1918.auto"),
        ((WS, WSS, PRIVATE, PUBLIC), "ok", "ws-binding :5066, wss-binding :7443; audio goes to addresses of rfc1918"),
    ],
)
def test_check_reports_a_profile_without_candidate_acl(
    run: Run, good: Settings, switch: FakeSwitch, params: tuple[tuple[str, str], ...], level: str, told: str
) -> None:
    good["integrators"][0]["phone"] = True
    switch.answers["api xml_locate"] = api_response(sofia(*params))
    ran = run("check", "-c", good.written())
    assert ran.status == 0
    (line,) = [line for line in lines(ran, level) if line.startswith("phones in browsers on fs1, profile internal: ")]
    assert told in line
    assert "gateway-secret" not in ran.out


@pytest.mark.parametrize("xml", [sofia(), sofia(("ws-binding", ""), PRIVATE), "<section/>"])
def test_check_fails_without_a_websocket_binding(run: Run, good: Settings, switch: FakeSwitch, xml: str) -> None:
    good["integrators"][0]["phone"] = True
    switch.answers["api xml_locate"] = api_response(xml)
    (line,) = failures(run, good)
    assert line.startswith("phones in browsers on fs1: no SIP profile has a ws-binding or a wss-binding")


@pytest.mark.parametrize("answer", ["-ERR xml_locate Command not found!\n", "can't find anything\n"])
def test_check_of_profiles_it_cannot_read_says_so(run: Run, good: Settings, switch: FakeSwitch, answer: str) -> None:
    good["integrators"][0]["phone"] = True
    switch.answers["api xml_locate"] = api_response(answer)
    (line,) = [line for line in lines(run("check", "-c", good.written()), "ok") if line.startswith("phones in")]
    assert "this switch can't tell" in line


def test_check_asks_for_profiles_only_for_browsers(run: Run, good: Settings, switch: FakeSwitch) -> None:
    switch.answers["api xml_locate"] = api_response(sofia())
    assert "phones in browsers" not in run("check", "-c", good.written()).out


def test_shipped_webrtc_snippet_passes_the_check() -> None:
    snippet = (ROOT / "conf" / "freeswitch" / "webrtc.snippet").read_text()
    xml = snippet.replace("<include>", '<c><profile name="internal"><settings>').replace(
        "</include>", "</settings></profile></c>"
    )
    (profile,) = browser_profiles.profiles(xml)
    assert profile.candidates == ("rfc1918.auto", "wan.auto")
    assert profile.fault is None


# Transfer keys -----------------------------------------------------------------------------------------

CONTEXT = (ROOT / "dialplan" / "00_esl_apps_refer.xml").read_text().replace("<include>", "").replace("</include>", "")


def keys(ran: Ran, level: str) -> list[str]:
    return [line for line in lines(ran, level) if line.startswith("transfer keys on fs1")]


@pytest.mark.parametrize(
    ("answer", "level", "told"),
    [
        (CONTEXT, "ok", "the context esl_apps_refer leads to a node"),
        ("can't find anything\n", "WARN", "install 00_esl_apps_refer.xml"),
        ('<context name="esl_apps_refer"></context>', "WARN", "install 00_esl_apps_refer.xml"),
    ],
)
def test_check_tells_whether_phones_can_transfer(
    run: Run, good: Settings, switch: FakeSwitch, answer: str, level: str, told: str
) -> None:
    switch.answers["api xml_locate configuration"] = api_response(sofia(("disable-transfer", "true")))
    switch.answers["api xml_locate dialplan"] = api_response(answer)
    (line,) = keys(run("check", "-c", good.written()), level)
    assert told in line


def test_check_warns_of_the_trunk_of_emergency_calls(run: Run, good: Settings, switch: FakeSwitch) -> None:
    good["dial"] = {"external": [], "emergency": "sofia/external/{number}@trunk.example"}
    switch.answers["api xml_locate configuration"] = api_response(sofia(name="external"))
    assert any("profile external: a far end" in line for line in keys(run("check", "-c", good.written()), "WARN"))


@pytest.mark.parametrize("value", ["", "false", "no", "0"])
def test_check_warns_of_a_trunk_that_may_transfer(run: Run, good: Settings, switch: FakeSwitch, value: str) -> None:
    switch.answers["api xml_locate configuration"] = api_response(sofia(("disable-transfer", value), name="external"))
    switch.answers["api xml_locate dialplan"] = api_response(CONTEXT)
    ran = run("check", "-c", good.written())
    (line,) = keys(ran, "WARN")
    assert line.startswith("transfer keys on fs1, profile external: a far end can have the switch dial any number")
    assert "gateway-secret" not in ran.out


@pytest.mark.parametrize(
    ("param", "level", "told"),
    [
        (("auth-calls", "false"), "WARN", ", profile external: anyone may call"),
        (("apply-inbound-acl", "trunks"), "ok", ": each SIP profile asks for a password or lists addresses"),
    ],
)
def test_check_warns_of_a_profile_in_which_anyone_may_call(
    run: Run, good: Settings, switch: FakeSwitch, param: tuple[str, str], level: str, told: str
) -> None:
    """FreeSWITCH runs what a stranger dials in an INVITE with Replaces: hazard 47."""
    switch.answers["api xml_locate configuration"] = api_response(sofia(param, name="external"))
    ran = run("check", "-c", good.written())
    (line,) = [line for line in lines(ran, level) if line.startswith("callers of fs1")]
    assert line.startswith(f"callers of fs1{told}")


# The switch --------------------------------------------------------------------------------------------


def test_check_refused_connection_fails_at_once(run: Run, settings: Settings) -> None:
    began = time.monotonic()
    ran = run("check", "-c", settings.written())
    assert time.monotonic() - began < 4  # a switch that is silent takes five
    address = settings["switches"][0]["address"]
    assert lines(ran, "FAIL") == [
        f"switch fs1: {address}: Connection refused; is FreeSWITCH running, with mod_event_socket on this address?"
    ]
    assert ran.err == ""


@pytest.mark.parametrize(
    ("reason", "asks"), [("timed out", True), ("the switch refused the password", False), ("refused by its ACL", False)]
)
def test_check_asks_for_freeswitch_at_a_silent_address(reason: str, asks: bool) -> None:
    """As with the address of a Redis: it says nothing before its client does."""

    class Silent:
        last_error = "not connected yet"

        def wait_up(self, seconds: float) -> bool:
            self.last_error = reason
            return False

    told = check._connect(cast(Switch, Silent()))
    assert told is not None
    assert told.startswith(reason)
    assert ("is FreeSWITCH running" in told) is asks


def test_check_unknown_host_fails_at_once(run: Run, settings: Settings) -> None:
    settings["switches"][0]["address"] = "nowhere.invalid:8021"
    (line,) = failures(run, settings)
    assert line.startswith("switch fs1: nowhere.invalid:8021: ")
    assert "Errno" not in line


def test_check_prints_no_log(settings: Settings) -> None:
    command = [sys.executable, "-m", "esl_apps", "check", "-c", settings.written()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_check_says_what_it_waits_for(
    run: Run, settings: Settings, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "WAIT", 0.5)
    monkeypatch.setattr(check, "SILENCE", 0.1)
    settings["switches"][0]["address"] = silent
    ran = run("check", "-c", settings.written())
    assert f"trying switch fs1 at {silent}, for 0.5 s at most ..." in ran.err.splitlines()
    assert lines(ran, "FAIL") == [f"switch fs1: {silent}: no answer within 0.5 s"]


def test_check_wrong_password_fails_without_showing_it(run: Run, good: Settings) -> None:
    good["switches"][0]["password"] = "not-the-password"
    (line,) = failures(run, good)
    assert "refused the password" in line
    assert "not-the-password" not in line


def test_check_address_outside_the_acl_fails(run: Run, good: Settings, switch: FakeSwitch) -> None:
    switch.hello = rejection()
    (line,) = failures(run, good)
    assert "refused by the switch's ACL: Access Denied" in line


def test_check_switch_that_is_lost_meanwhile_fails(run: Run, good: Settings, switch: FakeSwitch) -> None:
    def lose(_peer: object, _command: str) -> bytes:
        switch.drop()
        return b""

    switch.answers["api version"] = lose
    (line,) = failures(run, good)
    assert line.startswith("switch fs1: ")


@pytest.mark.parametrize(
    ("answer", "level", "told"),
    [
        (GATEWAY, "ok", "gateway pstn is up"),
        (api_response("Name\tpstn\n"), "ok", "gateway pstn is there"),
        (api_response("Status\tDOWN\n"), "FAIL", "gateway pstn is down"),
        (api_response("Invalid Gateway!\n"), "FAIL", "the switch has no gateway pstn"),
    ],
)
def test_check_judges_a_gateway(
    run: Run, good: Settings, switch: FakeSwitch, answer: bytes, level: str, told: str
) -> None:
    switch.answers["api sofia status gateway"] = answer
    ran = run("check", "-c", good.written())
    assert f"dial.external[0] on fs1: {told}" in lines(ran, level)


@pytest.mark.parametrize(
    ("dial", "answer", "level", "told"),
    [
        ({}, DOMAIN, "ok", "dial.extension on fs1: domain 127.0.0.1 is there"),
        ({}, api_response("false"), "FAIL", "dial.extension on fs1: domain 127.0.0.1 is not in the switch's directory"),
        (
            {},
            api_response("-ERR domain_exists Command not found!"),
            "ok",
            "dial.extension on fs1: domain 127.0.0.1: this switch can't tell",
        ),
        ({}, api_response("-ERR busy"), "FAIL", "dial.extension on fs1: -ERR busy"),
        (
            {"extension": "user/{number}@{number}.example"},
            DOMAIN,
            "ok",
            "dial.extension on fs1: a domain by number, not checked",
        ),
        (
            {"emergency": "loopback/{number}"},
            DOMAIN,
            "ok",
            "dial.emergency on fs1: loopback/{number}: not a gateway or a user, not checked",
        ),
    ],
)
def test_check_judges_a_domain(
    run: Run, good: Settings, switch: FakeSwitch, dial: dict[str, str], answer: bytes, level: str, told: str
) -> None:
    good["dial"] = dial
    switch.answers["api domain_exists"] = answer
    assert told in lines(run("check", "-c", good.written()), level)


# Redis, folders, ports ----------------------------------------------------------------------------------


def test_check_state_folder_that_cannot_be_written_fails(run: Run, good: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    good["node"]["state_dir"] = str(tmp_path / "file")
    (line,) = failures(run, good)
    assert line.startswith("node.state_dir: ")
    assert str(tmp_path / "file") in line


def test_check_leaves_no_state_folder_behind(run: Run, good: Settings, tmp_path: Path) -> None:
    """One of this user's the node might not be able to write, as after a check as root."""
    (tmp_path / "state" / "outbox" / "other").mkdir(parents=True)
    good["node"]["state_dir"] = str(tmp_path / "state")
    assert any(line.endswith("/outbox/n1") for line in lines(run("check", "-c", good.written()), "ok"))
    assert [path.name for path in (tmp_path / "state" / "outbox").iterdir()] == ["other"]


def test_check_state_folder_on_a_remote_mount_is_a_warning(
    run: Run, good: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "remote_type", lambda _folder: "nfs4")
    (line,) = [line for line in lines(run("check", "-c", good.written()), "WARN") if "state_dir" in line]
    assert "on nfs4; a node stops while that hangs, use a local disk" in line


def test_check_state_folder_that_is_not_a_path_fails(run: Run, good: Settings) -> None:
    good["node"]["state_dir"] = "a\0b"
    (line,) = failures(run, good)
    assert line.startswith("node.state_dir: ")


def test_check_recordings_that_cannot_be_read_fail(run: Run, good: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = good["recordings"]["dir"]
    access = os.access
    # As root, every folder can be read.
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    assert failures(run, good) == [f"recordings.dir: {folder}: this user can't read it"]


@pytest.mark.parametrize("deletes", ["keep_days", "record_delete", ""])
def test_check_recordings_that_cannot_be_deleted_fail(
    run: Run, good: Settings, monkeypatch: pytest.MonkeyPatch, deletes: str
) -> None:
    """The switch makes the folders of days, as a user of its own."""
    root = Path(good["recordings"]["dir"])
    for day in ("20261130", "20261201"):
        (root / "acme" / day).mkdir(parents=True)
    closed = str(root / "acme" / "20261201")
    if deletes == "keep_days":
        good["recordings"]["keep_days"] = 30
    elif deletes:
        good["integrators"][0]["tokens"] = [{"name": "gdpr", "token": "t" * 20, "scopes": [deletes]}]
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == closed and mode & os.W_OK) and access(path, mode))
    expected = f"recordings.dir: {closed}: this user can't delete recordings in it, as the configuration says"
    assert failures(run, good) == ([expected] if deletes else [])


def test_check_spool_whose_files_stay_is_warned_of(
    run: Run, good: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    good["spool"] = {"dir": folder}
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == folder and mode & os.W_OK) and access(path, mode))
    (line,) = [line for line in lines(run("check", "-c", good.written()), "WARN") if "spool.dir" in line]
    assert "can't delete files in it" in line


def test_check_warns_of_a_folder_that_the_unit_closes(
    run: Run, good: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A node under the unit can't delete there, and this user can."""
    units = tmp_path / "units"
    drop_ins = units / "esl-apps.service.d"
    drop_ins.mkdir(parents=True)
    monkeypatch.setattr(service_unit, "FOLDERS", (str(units),))
    (tmp_path / "spool").mkdir()
    good["spool"] = {"dir": str(tmp_path / "spool")}
    folders = {"recordings.dir": good["recordings"]["dir"], "spool.dir": str(tmp_path / "spool")}

    def warned() -> set[str]:
        found = lines(run("check", "-c", good.written()), "WARN")
        for key, folder in folders.items():
            for line in found:
                assert not line.startswith(key) or f"add ReadWritePaths={folder} below [Service]" in line
        return {line.partition(": ")[0] for line in found} & folders.keys()

    assert warned() == set()
    unit = (ROOT / "conf/systemd/esl-apps.service").read_text()
    (units / "esl-apps.service").write_text(unit)
    # Nothing is to be deleted in the folder of recordings.
    assert warned() == {"spool.dir"}
    good["recordings"]["keep_days"] = 30
    assert warned() == set(folders)
    (drop_ins / "override.conf").write_text(f"[Service]\nReadWritePaths=-{folders['recordings.dir']}\n")
    assert warned() == {"spool.dir"}
    (drop_ins / "override.conf").write_text(f"[Service]\nReadWritePaths=/elsewhere {tmp_path}/\n")
    assert warned() == set()
    (drop_ins / "override.conf").write_text("[Service]\nProtectSystem=full\n")
    assert warned() == set()


def test_check_warns_of_few_descriptors_of_the_unit(
    run: Run, good: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A shell may have more than the service, or less."""
    monkeypatch.setattr(service_unit, "FOLDERS", (str(tmp_path),))

    def warned(of_shell: int, of_unit: int) -> list[str]:
        monkeypatch.setattr(descriptors, "limit", lambda: of_shell)
        (tmp_path / "esl-apps.service").write_text(f"[Service]\nLimitNOFILE={of_unit}\n")
        found = lines(run("check", "--offline", "-c", good.written()), "WARN")
        return [line for line in found if line.startswith("node.max_calls: ")]

    (line,) = warned(1 << 20, 4096)
    assert "a process may have 4096" in line
    assert warned(4096, 65536) == []


def test_unit_opens_the_folders_of_the_default_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_unit, "FOLDERS", (str(ROOT / "conf/systemd"),))
    assert not service_unit.forbids("/var/lib/esl_apps/recordings")
    assert not service_unit.forbids("/var/log/freeswitch/json_cdr")
    assert service_unit.forbids("/var/lib/esl_apps_other")


def test_check_prompts_that_are_missing_fail(run: Run, good: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "prompt_path", lambda *_: "/nowhere/unavailable.wav")
    assert failures(run, good) == ["prompts in en: /nowhere/unavailable.wav: not there"]
    good["prompts"] = {"language": "de"}
    assert failures(run, good) == ["prompts in de: /nowhere/unavailable.wav: not there"]


def test_check_prompts_folder_that_is_missing_fails(run: Run, good: Settings, tmp_path: Path) -> None:
    good["prompts"] = {"dir": str(tmp_path)}
    assert f"prompts.dir: {tmp_path}" in lines(run("check", "-c", good.written()), "ok")
    good["prompts"] = {"dir": f"{tmp_path}/no"}
    assert failures(run, good) == [
        f"prompts.dir: {tmp_path}/no: not there, so this package's own prompts would be played"
    ]


def test_check_language_that_lacks_prompts_is_warned_of(run: Run, good: Settings, tmp_path: Path) -> None:
    (tmp_path / "nl" / "8000").mkdir(parents=True)
    for path in (PROMPTS / "en" / "8000").iterdir():
        if path.stem not in ("goodbye", "enter_pin"):
            (tmp_path / "nl" / "8000" / path.name).touch()
    good["prompts"] = {"dir": str(tmp_path), "language": "fr", "numbers": {"27115550000": "nl"}}
    ran = run("check", "-c", good.written())
    assert lines(ran, "WARN") == ["prompts in nl: spoken in fr, because they are not there: enter_pin, goodbye"]
    assert "prompts in fr: all there" in lines(ran, "ok")
    assert ran.status == 0


def test_check_unknown_language_fails_and_names_those_there(run: Run, good: Settings) -> None:
    good["accounts"] = {"acme": {"language": "deutsch"}}
    (line,) = failures(run, good)
    assert line == "accounts.acme.language: expected one of de, en, es, fr, pt, or another folder of prompts.dir"


def test_check_tells_which_recordings_a_switch_has(run: Run, good: Settings, switch: FakeSwitch) -> None:
    good["prompts"] = {"language": "fr", "numbers": {"27115550000": "en"}}
    voice = "/sounds/en/us/callie"
    there = {voice, f"{voice}/ivr/16000/ivr-user_busy.wav", f"{voice}/digits/8000/1.wav"}
    switch.answers["api global_getvar sounds_dir"] = api_response("/sounds")
    switch.answers["api file_exists"] = lambda _peer, command: api_response(str(command[16:] in there).lower())
    told = "en: 1, fr: none; without freeswitch-sounds-… the package's own voice speaks"
    assert f"recorded prompts on fs1: {told}" in lines(run("check", "-c", good.written()), "ok")
    good["prompts"]["recorded"] = False
    assert "recorded prompts" not in run("check", "-c", good.written()).out


def test_check_ports_by_tls_and_address(run: Run, good: Settings) -> None:
    certificate, key = f"{TLS}/one.pem", f"{TLS}/one.key"
    good["integrators"][0]["listen"] = "0.0.0.0:8300"
    good["integrators"].append(
        {
            "name": "b",
            "listen": "[::]:8301",
            "token": "another-token-for-tests",
            "tls": {"cert": certificate, "key": key},
        }
    )
    ran = run("check", "-c", good.written())
    assert "admin.listen: 127.0.0.1:8000: plain HTTP, on this machine only" in lines(ran, "ok")
    assert f"integrators[1].listen: [::]:8301: TLS with {certificate}" in lines(ran, "ok")
    assert [line.partition(": ")[0] for line in lines(ran, "WARN")] == ["integrators[0].listen"]


@pytest.mark.parametrize(
    ("days", "lifetime", "level", "end"),
    [
        (15, 90, "ok", ""),
        (13, 90, "WARN", ", which expires in 13 days; renew it"),
        (-1, 90, "WARN", ", which has expired; renew it"),
        (3, 6.7, "ok", ""),
        (1.4, 6.7, "WARN", ", which expires in 1 days; renew it"),
    ],
)
def test_check_warns_of_a_certificate_that_expires(
    run: Run, good: Settings, tmp_path: Path, days: float, lifetime: float, level: str, end: str
) -> None:
    cert = expiring(tmp_path, days, lifetime)
    good["integrators"][0]["tls"] = {"cert": cert, "key": f"{TLS}/one.key"}
    (line,) = [line for line in lines(run("check", "-c", good.written()), level) if "integrators[0].listen" in line]
    assert line.startswith(f"integrators[0].listen: 127.0.0.1:8300: TLS with {cert}{end}")


# Entrances -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trust", "means"),
    [
        ("any", "a shown number proves nothing"),
        ("national", "dials at home only"),
        ("pin", "a number alone opens nothing"),
        ("attested", "if X-Verstat, from an address of trust, says that STIR/SHAKEN verified it "),
    ],
)
def test_check_explains_what_a_callers_number_opens(run: Run, good: Settings, trust: str, means: str) -> None:
    good["cccp"] = {"cid_trust": trust, "attest_header": "X-Verstat", "attest_level": "B", "pin_from": "enrolled"}
    good["trust"] = ["10.0.0.0/8"]
    ran = run("check", "-c", good.written())
    assert ran.status == 0, ran.out
    (line,) = [line for line in ran.out.splitlines() if "cccp.cid_trust" in line]
    assert line.startswith(f"ok   cccp.cid_trust: {trust}: ")
    assert means in line
    assert "ok   cccp.pin_from: enrolled: " in ran.out
    assert "ok   pin_guard: in 3600 s, 10 wrong PINs lock a caller and 50 a service; first for 300 s" in ran.out


def test_check_attested_without_trust_fails(run: Run, good: Settings) -> None:
    good["cccp"] = {"cid_trust": "attested"}
    assert failures(run, good) == ["trust: empty: no attestation is believed, so every caller is asked for a PIN"]


@pytest.mark.parametrize(
    ("disa", "level", "told"),
    [
        ({"pin": "4821907356"}, "FAIL", "its PIN is the example's"),
        ({"pin": "12345"}, "FAIL", "its PIN is shorter than 6 digits"),
        ({"pin": "123456"}, "ok", "asks for a PIN"),
        ({"allow_no_pin": True}, "WARN", "no PIN: anyone who calls it dials as this account"),
    ],
)
def test_check_judges_a_disas_pin(run: Run, good: Settings, disa: dict[str, object], level: str, told: str) -> None:
    good["accounts"] = {"acme": {"disa": {"front": disa}}}
    ran = run("check", "-c", good.written())
    assert any(line.startswith(f"accounts.acme.disa.front: {told}") for line in lines(ran, level)), ran.out


# Redis -------------------------------------------------------------------------------------------------


@pytest.fixture
def unfit(redis: RedisServer) -> Iterator[RedisServer]:
    yield redis
    redis.client.config_set("maxmemory-policy", "noeviction")
    redis.client.execute_command("ACL", "DELUSER", "node")


def test_check_names_the_version_of_redis(run: Run, good: Settings) -> None:
    ran = run("check", "-c", good.written())
    assert re.search(r"redis\.url: answers: (redis|valkey) \d+\.\d+\.\d+$", ran.out, re.MULTILINE)


def test_check_fails_on_a_redis_that_evicts(run: Run, good: Settings, unfit: RedisServer) -> None:
    unfit.client.config_set("maxmemory-policy", "volatile-lru")
    (failure,) = failures(run, good)
    assert failure.startswith("redis.url: maxmemory-policy is volatile-lru, set noeviction: ")
    assert "a record may come twice" in failure


def test_check_names_missing_rights_of_redis(run: Run, good: Settings, unfit: RedisServer) -> None:
    unfit.client.execute_command("ACL", "SETUSER", "node", "on", ">pw", "~*", "+@all", "-@dangerous", "-zadd")
    good["redis"]["url"] = unfit.url.replace("://", "://node:pw@")
    ran = run("check", "-c", good.written())
    assert lines(ran, "FAIL") == ["redis.url: its user lacks rights: +zadd"]
    (warning,) = [line for line in lines(ran, "WARN") if line.startswith("redis.url")]
    assert "+info" in warning
