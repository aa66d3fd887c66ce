"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esl_apps import __version__
from esl_apps.cli import check, main
from esl_apps.config import load
from esl_apps.config.model import PinGuard
from esl_apps.core.pins import OPEN, Source
from esl_apps.store import keys, redis_client
from esl_apps.store.cards import hash_pin
from esl_apps.store.pin_guard import GuardStore
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.node import Node, RedisServer, configuration
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxRig]:
    with SandboxRig() as rig:
        yield rig


@pytest.fixture
def settings(sandbox: SandboxRig, redis: RedisServer) -> dict[str, Any]:
    return configuration(sandbox, redis)


def written(settings: dict[str, Any], folder: Path) -> str:
    file = folder / "esl_apps.yml"
    file.write_text(json.dumps(settings, indent=1))
    return str(file)


class Ran:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """``esl-apps`` within this process."""

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            status = main.main(list(argv))
        except SystemExit as left:
            status = int(left.code or 0)
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run


def serve(file: str, timeout: float = 10, **environ: str) -> Ran:
    """A node that is expected not to start."""
    done = subprocess.run(
        [sys.executable, "-m", "esl_apps", "serve", "-c", file],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environ},
    )
    return Ran(done.returncode, done.stdout, done.stderr)


# serve ---------------------------------------------------------------------------------------------------


def test_a_wrong_configuration_stops_the_start_with_its_place(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["integrators"][0]["tokn"] = settings["integrators"][0].pop("token")
    ran = serve(written(settings, tmp_path))
    assert ran.status == 2
    assert "esl_apps.yml:" in ran.err
    assert "integrators[0].tokn: unknown key; did you mean token?" in ran.err
    assert "Traceback" not in ran.err


def test_no_file_stops_the_start(tmp_path: Path) -> None:
    ran = serve(str(tmp_path / "none.yml"))
    assert ran.status == 2
    assert "none.yml" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("key", ["node.listen", "admin.listen", "integrators[0].listen"])
def test_an_address_in_use_stops_the_start_before_any_call_is_taken(
    settings: dict[str, Any], tmp_path: Path, key: str, sandbox: SandboxRig
) -> None:
    section = settings["integrators"][0] if key.startswith("int") else settings[key.partition(".")[0]]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        section["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = serve(written(settings, tmp_path))
    assert ran.status == 2
    assert f"{key}: can't listen on {section['listen']}" in ran.err
    assert "ready\n" not in ran.err
    assert "switch_connected" not in ran.err
    assert "Traceback" not in ran.err


def test_a_state_folder_that_cannot_be_written_stops_the_start(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings["node"]["state_dir"] = str(tmp_path / "file")
    ran = serve(written(settings, tmp_path))
    assert ran.status == 2
    assert "node.state_dir: no folder for the outbox can be written" in ran.err
    assert "Traceback" not in ran.err


def test_a_second_node_of_one_name_is_refused_and_harms_not_the_first(settings: dict[str, Any], tmp_path: Path) -> None:
    node = Node(settings)
    try:
        other = json.loads(json.dumps(settings))
        for section in (other["node"], other["admin"], other["integrators"][0]):
            section["listen"] = f"127.0.0.1:{free_port()}"
        ran = serve(written(other, tmp_path))
        assert ran.status == 2
        assert "is a node of this name running?" in ran.err
        assert node.post("1000", "0820001234", query="?dry_run=1").json["ok"]
    finally:
        assert node.stop() == 0


def test_a_node_starts_with_neither_switch_nor_redis_and_ends_when_told(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["switches"][0]["address"] = f"127.0.0.1:{free_port()}"
    settings["redis"]["url"] = f"redis://127.0.0.1:{free_port()}/0"
    node = Node(settings)
    assert node.post("1000", "0820001234").status == 503
    began = time.monotonic()
    assert node.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 3
    assert "Traceback" not in node.log.read_text()


# check ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_WAIT", 0.5)


def test_check_says_ok_line_by_line(run: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    ran = run("check", "-c", written(settings, tmp_path))
    assert ran.status == 0, ran.out
    lines = ran.out.splitlines()
    assert all(line.startswith(("ok   ", "WARN ")) for line in lines)
    for what in ("configuration", "switch fs1", "dial.extension", "dial.external[0]", "redis.url", "recordings.dir"):
        assert sum(line[5:].startswith(what) for line in lines) == 1, what


def test_check_says_what_bounds_a_fraud(run: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    ran = run("check", "-c", written(settings, tmp_path))
    assert "WARN spending: no limit and no breaker" in ran.out
    settings["spending"] = {"limits": {"calls_per_day": 100}}
    settings["accounts"] = {"acme": {"breaker": {"high_risk_calls_per_hour": 3}}}
    ran = run("check", "-c", written(settings, tmp_path))
    assert "ok   spending: limits of spending, breaker account:acme; 1" in ran.out


def failures(run: Any, settings: dict[str, Any], folder: Path) -> list[str]:
    ran = run("check", "-c", written(settings, folder))
    found = [line[5:] for line in ran.out.splitlines() if line.startswith("FAIL ")]
    assert ran.status == (1 if found else 0)
    return found


def test_check_goes_on_where_something_fails(run: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    closed = f"127.0.0.1:{free_port()}"
    settings["switches"].append({"name": "fs2", "address": closed, "password": "x"})
    settings["integrators"][0]["redis"] = {"url": f"redis://{closed}/0"}
    settings["integrators"][0]["record"] = True
    settings["recordings"]["dir"] = "/nowhere/recordings"
    settings["dial"]["external"] = ["sofia/gateway/none/{number}"]
    found = failures(run, settings, tmp_path)
    assert {line.partition(": ")[0] for line in found} == {
        "switch fs2",
        "dial.external[0] on fs1",
        "integrators[0].redis.url",
        "recordings.dir",
    }


@pytest.mark.parametrize(
    ("trust", "means"),
    [
        ("any", "a shown number proves nothing"),
        ("national", "dials at home only"),
        ("pin", "a number alone opens nothing"),
        ("attested", "where X-Verstat, from an address of trust, says that STIR/SHAKEN verified it "),
    ],
)
def test_check_says_what_a_callers_number_opens(
    run: Any, settings: dict[str, Any], tmp_path: Path, trust: str, means: str
) -> None:
    settings["cccp"] = {"cid_trust": trust, "attest_header": "X-Verstat", "attest_level": "B", "pin_from": "enrolled"}
    settings["trust"] = ["10.0.0.0/8"]
    ran = run("check", "-c", written(settings, tmp_path))
    assert ran.status == 0, ran.out
    (line,) = [line for line in ran.out.splitlines() if "cccp.cid_trust" in line]
    assert line.startswith(f"ok   cccp.cid_trust: {trust}: ")
    assert means in line
    assert "ok   cccp.pin_from: enrolled: " in ran.out
    assert "ok   pin_guard: in 3600 s, 10 wrong PINs lock a caller and 50 a service; first for 300 s" in ran.out


def test_check_says_that_nobody_can_be_attested(run: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    settings["cccp"] = {"cid_trust": "attested"}
    (line,) = failures(run, settings, tmp_path)
    assert line.startswith("trust: empty: nobody's attestation is believed")


def test_check_says_that_the_password_is_wrong(run: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    settings["switches"][0]["password"] = "wrong"
    (line,) = failures(run, settings, tmp_path)
    assert "refused the password" in line
    assert "wrong" not in line


def test_check_of_a_wrong_configuration_fails(run: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    settings["dial"]["region"] = "XX"
    ran = run("check", "-c", written(settings, tmp_path))
    assert ran.status == 1
    assert "FAIL configuration: " in ran.out
    assert "dial.region" in ran.out


# calls and trace -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(sandbox: SandboxRig, redis: RedisServer) -> Iterator[Node]:
    made = Node(configuration(sandbox, redis))
    yield made
    made.stop()


def test_calls_shows_what_is_live(run: Any, node: Node, sandbox: SandboxRig, redis: RedisServer) -> None:
    redis.client.flushdb()
    sandbox.phone("1000", Script(answer_after=None))
    ref = node.call("1000", "0820001234")
    eventually(lambda: "agent_ringing" in run("calls", "-c", str(node.file)).out)
    ran = run("calls", "-c", str(node.file))
    assert (ran.status, ran.err) == (0, "1 live\n")
    (line,) = ran.out.splitlines()
    assert line.startswith(ref)
    assert "1000 -> 0820001234" in line
    node.delete(ref)
    eventually(lambda: run("calls", "-c", str(node.file)).err == "0 live\n")


def test_trace_tells_a_calls_story_in_order(run: Any, node: Node, sandbox: SandboxRig, redis: RedisServer) -> None:
    sandbox.phone("1000")
    sandbox.outside("0820001234", Script(answer_after=0.1, hangup_after=0.1))
    ref = node.call("1000", "0820001234", contact_ref="lead-7")
    eventually(lambda: node.get(ref)["state"] == "ended")
    eventually(lambda: "ended" in run("trace", "-c", str(node.file), ref).out)
    ran = run("trace", "-c", str(node.file), ref)
    assert ran.status == 0
    head, *lines = ran.out.splitlines()
    assert ref in head
    assert "lead-7" in head
    told = [line.split()[1] for line in lines]
    states = ["queued", "agent_ringing", "agent_answered", "callee_ringing", "bridged", "ended"]
    assert [state for state in told if state in states] == states
    assert "dial" in told
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)


@pytest.mark.parametrize("ref", ["none", "a b", "*", ""])
def test_trace_of_an_unknown_call(run: Any, node: Node, ref: str) -> None:
    ran = run("trace", "-c", str(node.file), ref)
    assert (ran.status, ran.out) == (1, "")
    assert "no such call" in ran.err


@pytest.mark.parametrize("command", [["calls"], ["trace", "x"]])
def test_without_redis_a_command_says_so(
    run: Any, settings: dict[str, Any], tmp_path: Path, command: list[str]
) -> None:
    settings["redis"]["url"] = f"redis://127.0.0.1:{free_port()}/0"
    ran = run(command[0], "-c", written(settings, tmp_path), *command[1:])
    assert ran.status == 1
    assert ran.err.startswith("esl-apps: Redis: ")


# The others ----------------------------------------------------------------------------------------------


def test_dialplan_prints_this_configurations_numbers(run: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    settings["cccp"] = {"cccp_cb_number": "+27115551111", "cccp_cc_number": "+27115552222"}
    ran = run("dialplan", "-c", written(settings, tmp_path))
    assert ran.status == 0
    assert "27115551111" in ran.out
    assert "27115552222" in ran.out
    assert settings["node"]["listen"] in ran.out
    assert "esl_apps_unavailable" in ran.out


def hash_of(run: Any, file: str, typed: str, monkeypatch: pytest.MonkeyPatch) -> Ran:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    return run("hash-pin", "-c", file)


def test_hash_pin_prints_what_a_configuration_takes(
    run: Any, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings["pin_key"] = "k"
    ran = hash_of(run, written(settings, tmp_path), "4821907356\n", monkeypatch)
    assert (ran.status, ran.out) == (0, hash_pin("k", "4821907356") + "\n")
    assert "4821907356" not in ran.out + ran.err
    settings["accounts"] = {"a": {"disa": {"front": {"pin_hash": ran.out.strip()}}}}
    assert load(written(settings, tmp_path)).accounts["a"].disa["front"].pin_hash == ran.out.strip()


@pytest.mark.parametrize("typed", ["", "\n", "12ab\n", "١٢٣٤\n"])
def test_hash_pin_of_what_is_no_pin(
    run: Any, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    settings["pin_key"] = "k"
    assert hash_of(run, written(settings, tmp_path), typed, monkeypatch).status == 1


def test_hash_pin_needs_the_key(
    run: Any, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = hash_of(run, written(settings, tmp_path), "1234\n", monkeypatch)
    assert ran.status == 2
    assert "pin_key: missing" in ran.err


@pytest.mark.parametrize("argv", [[], ["nothing"], ["serve", "--colour"], ["trace"]])
def test_a_command_line_that_is_wrong(run: Any, argv: list[str]) -> None:
    ran = run(*argv)
    assert ran.status == 2
    assert "usage: esl-apps" in ran.err


# Breakers -----------------------------------------------------------------------------------------------


def test_breaker_trips_lists_and_resets_and_says_who(
    run: Any, settings: dict[str, Any], redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.client.flushdb()
    monkeypatch.setenv("SUDO_USER", "jo")
    cuba = {"country:CU": {"calls_per_day": 1}}
    settings["accounts"] = {"acme": {"breaker": {"calls_per_hour": 40, "destinations": cuba}}}
    file = written(settings, tmp_path)
    listed = run("breaker", "-c", file)
    assert listed.status == 0
    assert "ok      account:acme: trips over calls_per_hour 40\n" in listed.out
    assert "ok      account:acme/country:CU: trips over calls_per_day 1\n" in listed.out
    assert run("breaker", "-c", file, "--trip", "account:acme", "--end-calls").status == 0
    assert run("breaker", "-c", file, "--trip", "account:acme").status == 1
    listed = run("breaker", "-c", file)
    assert "TRIPPED account:acme: by hand, by jo@" in listed.out
    assert "its calls were ended" in listed.out
    assert run("breaker", "-c", file, "--reset", "account:acme").status == 0
    again = run("breaker", "-c", file, "--reset", "account:acme")
    assert (again.status, again.err) == (1, "esl-apps: account:acme: has not tripped\n")
    listed = run("breaker", "-c", file)
    assert "TRIPPED" not in listed.out
    assert "account:acme reset by jo@" in listed.out
    assert redis.client.hgetall(keys.TRIPPED) == {}


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ("acount:acme", "expected system, account:NAME"),
        ("account:acmee", "no such account"),
        ("", "expected system"),
        ("account:acme/Cuba", "expected system"),
        ("account:acme/country:ZZ", "unknown country"),
        ("account:acme/class:mobil", "unknown class"),
        ("integrator:none", "no such integrator"),
        ("card:12", "expected a card's id"),
        ("system/", "expected system"),
        ("system\n", "expected system"),
        ("account:a/../b", "expected system"),
    ],
)
def test_a_breaker_that_is_misspelt_is_refused(
    run: Any, settings: dict[str, Any], redis: RedisServer, tmp_path: Path, scope: str, told: str
) -> None:
    redis.client.flushdb()
    settings["accounts"] = {"acme": {}}
    ran = run("breaker", "-c", written(settings, tmp_path), "--trip", scope)
    assert (ran.status, ran.out) == (2, "")
    assert told in ran.err
    assert list(redis.client.scan_iter("*breaker*")) == []


def test_trip_and_reset_at_once_or_end_calls_alone_are_refused(
    run: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    file = written(settings, tmp_path)
    assert run("breaker", "-c", file, "--trip", "system", "--reset", "system").status == 2
    assert run("breaker", "-c", file, "--end-calls").status == 2


def test_version(run: Any) -> None:
    ran = run("--version")
    assert (ran.status, ran.out) == (0, f"{__version__}\n")


def test_sandbox_refuses_an_address_where_something_listens(sandbox: SandboxRig) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "esl_apps", "sandbox", f"--listen={sandbox.esl_address}"],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 1
    assert "something listens there already" in done.stderr


# locks ---------------------------------------------------------------------------------------------------


def test_locks_are_listed_and_lifted(run: Any, settings: dict[str, Any], redis: RedisServer, tmp_path: Path) -> None:
    redis.client.flushdb()
    file = written(settings, tmp_path)
    empty = run("locks", "-c", file)
    assert (empty.status, empty.out, empty.err) == (0, "", "0 locked\n")
    guard = GuardStore(redis_client.connect(redis.url), PinGuard(per_number=2, lock=300), lambda kind, **_: None)
    guesser = Source("27845550000", "", "dialthrough", "27115551000")
    for _ in range(2):
        guard.judge(guesser, False, "", guessed=True)
    listed = run("locks", "-c", file)
    assert listed.out.startswith("number:27845550000 ")
    assert listed.out.endswith(" s left\n")
    assert listed.err == "1 locked\n"
    wrong = run("locks", "-c", file, "--lift", "number:0845550000")
    assert (wrong.status, wrong.out) == (1, "")
    assert "not locked: number:0845550000" in wrong.err
    assert run("locks", "-c", file, "--lift", "number:27845550000").out == "lifted number:27845550000\n"
    assert guard.judge(guesser, True, "", guessed=True) == OPEN


def test_locks_without_redis_say_so(run: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    settings["redis"]["url"] = f"redis://127.0.0.1:{free_port()}/0"
    ran = run("locks", "-c", written(settings, tmp_path))
    assert ran.status == 1
    assert "Redis" in ran.err
