"""``esl-apps demo``: its script, its text and its parts, without a sandbox or a node."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from esl_apps.cli import demo
from esl_apps.cli.demo import by_hand, report, stage
from esl_apps.cli.demo.script import CALLEE, CALLEE_E164, CALLER, CALLER_E164, CALLS
from esl_apps.cli.demo.stage import DID, DemoFailed, Stage
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.calls import CallStore
from esl_apps.store.redis_client import connect
from tests.support.node import RedisServer
from tests.support.ports import free_port
from tests.unit.cli.conftest import Run

REF = "01a22692-54fc-74a4-bcc3-d9fa0291b388"
#: How each record must read, by the application's ref.
RECORDS: dict[str, dict[str, Any]] = {
    "click-dial": {"contact_ref": "demo-1", "hung_up_by": "callee"},
    "inbound": {"number": CALLER, "hung_up_by": "agent"},
    "disa": {"number": f"+{CALLEE_E164}", "dial_number": f"+{DID}", "hung_up_by": "callee"},
    "dialthrough": {"extension": CALLER, "number": f"+{CALLEE_E164}"},
    "callback": {"extension": f"+{CALLER_E164}", "number": f"+{CALLEE_E164}"},
    "autodial": {"hung_up_by": "callee"},
    "transfer": {"session_ref": REF, "extension": "1001", "number": CALLEE, "hung_up_by": "agent"},
}


def popped(ref: str) -> list[str]:
    """Whose records a call pops: a transfer has that of the call before, too."""
    return ["transfer", "transfer"] if ref == "transfer" else [ref]


def record(ref: str) -> dict[str, Any]:
    return {"call_ref": REF, "ref": ref, "end_reason": "answered", "dialed_at": 1795943453, **RECORDS[ref]}


class ScriptedStage(Stage):
    """Every request is granted, and every record is as it should be, but for what ``wrong`` changes."""

    def __init__(self, on_notification: Callable[[str, bytes], None] = lambda *_: None, **wrong: object) -> None:
        self.wrong = wrong
        self.asked: list[tuple[str, str]] = []
        self.refs = iter([ref for call in RECORDS for ref in popped(call)])
        self.api, self.token = "127.0.0.1:10001", "0123456789abcdef"
        self.admin, self.admin_token = "127.0.0.1:10002", "fedcba9876543210"
        self.control, self.node = "127.0.0.1:10003", "127.0.0.1:10004"
        self.event_socket, self.password = "127.0.0.1:10005", "event-socket-password"
        self.redis_url, self.pin = "redis://127.0.0.1:10006/0", "0123456789"
        self.on_notification = on_notification
        self.node_log = Path("/dev/null")

    def pop(self, key: str) -> dict[str, Any]:
        if key.endswith("inbound"):
            payload: dict[str, Any] = {"call_ref": REF, "ref": "1001", "number": CALLER}
        else:
            payload = {**record(next(self.refs)), **self.wrong}
        body = {"type": "cdr" if key.endswith("cdr") else "call", "payload": payload}
        self.on_notification(key, json.dumps(body).encode())
        return payload

    def ended_call(self, ref: str) -> dict[str, Any]:
        return call("click-dial", ref)


def call(app: str, ref: str = REF) -> dict[str, Any]:
    states = ["queued", "agent_ringing", "agent_answered", "callee_ringing", "bridged"]
    if app == "inbound":
        states[1] = "ringing"
    moments = [{"state": state, "at": 100 + n / 4, "detail": ""} for n, state in enumerate(states)]
    moments[1]["detail"] = "1000, 1001" if app == "inbound" else ""
    return {
        "call_ref": ref,
        "app": app,
        "agent": "1000",
        "callee": CALLEE,
        "timeline": [*moments, {"state": "ended", "at": 103.5, "detail": "answered 16"}],
        "decisions": [
            {"what": "dial", "at": 100.6, "detail": "sofia/…"},
            {"what": "card", "at": 100.55, "detail": "c1"},
            {"what": "aleg_ended", "at": 103.6, "detail": "the channel hung up"},
        ],
    }


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every HTTP request of the demo is answered with a call."""
    asked: list[tuple[str, str]] = []

    def request(_address: str, method: str, path: str, *_: object) -> Any:
        asked.append((method, path))
        live = {"call": "c-1", "leg": {"ended_at": None}}
        ended = {"call": "c-0", "leg": {"ended_at": 1.0}}
        return {"call_ref": REF, "transfer_ref": REF, "state": "bridged", "calls": [ended, live]}

    monkeypatch.setattr(stage, "request", request)
    return asked


# The script --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", CALLS)
def test_demo_call_accepts_its_record(requests: list[tuple[str, str]], ref: str) -> None:
    scripted = ScriptedStage()
    scripted.refs = iter(popped(ref))
    assert CALLS[ref].place(scripted) == record(ref)
    if ref == "disa":
        assert ("POST", "/calls/c-1/hangup") in requests
        assert ("POST", "/calls/c-0/hangup") not in requests


@pytest.mark.parametrize("ref", CALLS)
@pytest.mark.usefixtures("requests")
def test_demo_call_refuses_another_record(ref: str) -> None:
    scripted = ScriptedStage(end_reason="callee_busy")
    scripted.refs = iter(popped(ref))
    with pytest.raises(DemoFailed, match="end_reason of the record is 'callee_busy', expected 'answered'"):
        CALLS[ref].place(scripted)


# The command -------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, requests: list[tuple[str, str]]) -> Callable[..., None]:
    """``opened(**wrong)``: the demo gets a scripted stage."""

    def opened(error: Exception | None = None, **wrong: object) -> None:
        @contextmanager
        def open_stage(_say: object, on_notification: Callable[[str, bytes], None]) -> Iterator[Stage]:
            if error is not None:
                raise error
            yield ScriptedStage(on_notification, **wrong)

        monkeypatch.setattr(demo, "open_stage", open_stage)

    return opened


def test_demo_shows_each_call_and_what_to_do_next(run: Run, opened: Callable[..., None]) -> None:
    opened()
    ran = run("demo")
    assert (ran.status, ran.err) == (0, "")
    headings = [line for line in ran.out.splitlines() if " of 7: " in line]
    assert headings == [f"{n} of 7: {CALLS[ref].title}" for n, ref in enumerate(CALLS, 1)]
    assert "\nAll 7 calls came out as they should.\n" in ran.out
    assert "demo --keep\n" in ran.out
    assert "docs/tutorials/freeswitch.rst\n" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_demo_next_steps_outside_a_clone(
    run: Run, opened: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/x/esl_apps/__main__.py"])
    said = run("demo").out
    assert "docs/" not in said
    assert "  python -m esl_apps demo --keep\n" in said


def test_demo_json_prints_notifications_alone(run: Run, opened: Callable[..., None]) -> None:
    opened()
    ran = run("demo", "--json")
    assert ran.status == 0
    assert [body["type"] for body in ran.json] == ["cdr", "call", *["cdr"] * 7]
    assert "All 7 calls came out as they should." in ran.err


def test_demo_wrong_record_fails_with_the_nodes_log(
    run: Run, opened: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(end_reason="lost")
    monkeypatch.setattr(demo, "last_lines", lambda _log: "line one\nline two")
    ran = run("demo")
    assert ran.status == 1
    assert ran.err.splitlines() == [
        "esl-apps: demo: Click-to-dial: end_reason of the record is 'lost', expected 'answered'",
        "esl-apps: demo: The node's log ends:",
        "esl-apps: demo: line one",
        "esl-apps: demo: line two",
    ]
    assert "came out as they should" not in ran.out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DemoFailed("Redis did not start"), "Redis did not start"),
        (FileNotFoundError("no redis-server on PATH"), "no redis-server on PATH"),
        (PermissionError(13, "Permission denied", "/tmp/x"), "/tmp/x: Permission denied"),
        (StoreUnavailable("redis: gone"), "Redis: gone"),
    ],
)
def test_demo_that_cannot_start_names_the_reason(
    run: Run, opened: Callable[..., None], error: Exception, told: str
) -> None:
    opened(error)
    ran = run("demo")
    assert (ran.status, ran.err) == (1, f"esl-apps: demo: {told}\n")


def test_demo_whose_reader_is_gone_ends_quietly(run: Run, opened: Callable[..., None]) -> None:
    opened(BrokenPipeError(32, "Broken pipe"))
    ran = run("demo")
    assert (ran.status, ran.err) == (0, "")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, as soon as the demo waits for it."""

    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("client", ["/usr/bin/redis-cli", None])
def test_demo_keep_prints_commands_that_work(
    run: Run, opened: Callable[..., None], monkeypatch: pytest.MonkeyPatch, client: str | None
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: client)
    # Its length is the machine's.
    monkeypatch.setattr(sys, "executable", "python")
    opened()
    ran = run("demo", "--keep")
    assert ran.status == 0
    said = ran.out.partition("came out as they should")[2]
    assert max(map(len, said.splitlines())) <= 80
    assert said.endswith("Stopping.\n")
    for text in (
        "http://127.0.0.1:10001",
        "0123456789abcdef",
        "fedcba9876543210",
        "/phones/1000/answer",
        "/console/",
        "/phone/",
    ):
        assert text in said
    # Each command is one that a shell can read.
    begins = ("  curl", "  redis-cli", "  python", "       ")
    commands = "".join(line[2:] + "\n" for line in said.splitlines() if line.startswith(begins))
    subprocess.run(["bash", "-n"], input=commands, text=True, check=True)
    pop = "redis-cli -u redis://127.0.0.1:10006/0 BRPOP" if client else "python -c 'import redis; "
    assert pop in commands
    for code in re.findall("-c '(.*?)'", commands, re.DOTALL):
        compile(code, "printed", "exec")


@pytest.mark.usefixtures("interrupted")
def test_demo_keep_json_ends_with_the_access(run: Run, opened: Callable[..., None]) -> None:
    opened()
    ran = run("demo", "--keep", "--json")
    assert ran.json[-1]["type"] == "access"
    assert ran.json[-1]["payload"]["api"] == "http://127.0.0.1:10001"


def test_by_hand_pops_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    said = "\n".join(by_hand.instructions(ScriptedStage()))
    assert "redis-cli" not in said
    assert sys.executable in said


# The text ------------------------------------------------------------------------------------------------


def test_timeline_in_order_and_in_words() -> None:
    assert list(report.timeline(call("click-dial"))) == [
        "",
        "    0.00 s  queued          the node has the call",
        "    0.25 s  agent_ringing   1000 rings",
        "    0.50 s  agent_answered  1000 answers",
        "    0.55 s  card            allowed by card c1",
        f"    0.60 s  dial            the node dials {CALLEE}",
        f"    0.75 s  callee_ringing  {CALLEE} rings",
        f"    1.00 s  bridged         {CALLEE} answers: the two can talk",
        "    3.50 s  ended           end_reason answered, end_code 16",
        "    3.60 s  aleg_ended      the channel hung up",
    ]


def test_timeline_of_a_session_and_of_ringing_agents() -> None:
    assert any(line.endswith("the node answers 1000") for line in report.timeline(call("disa")))
    lines = list(report.timeline(call("inbound")))
    assert any(line.endswith("1000, 1001: their phones ring") for line in lines)
    assert any(line.endswith("1000 answers: the two can talk") for line in lines)


def test_notification_in_aligned_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "localtime", time.gmtime)
    payload = {"call_ref": REF, "number": "0820001234", "dialed_at": 1795943453, "ended_at": 1795943456.25, "x": None}
    assert list(report.notification("enigma:notifications:cdr", payload)) == [
        "",
        "  Popped from Redis, enigma:notifications:cdr:",
        f"    call_ref       {REF}",
        "    number         0820001234           ended_at       09:10:56.250",
        "    dialed_at      09:10:53             x              -",
    ]


# The stage -------------------------------------------------------------------------------------------------


def test_open_stage_starts_its_parts_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: dict[str, list[str]] = {}

    def start(_self: object, name: str, _title: str, command: list[str], *_: object) -> None:
        commands[name] = command

    monkeypatch.setattr(stage._Parts, "start", start)
    with stage.open_stage(lambda _line: None, lambda *_: None) as opened:
        assert list(commands) == ["redis", "sandbox", "node"]
        assert opened.event_socket in commands["sandbox"]
        file = Path(commands["node"][-3])
        settings = json.loads(file.read_text())
        assert settings["integrators"][0]["token"] == opened.token
    assert not file.parent.exists()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[stage._Parts, list[str]]]:
    said: list[str] = []
    with ExitStack() as stack:
        yield stage._Parts(stack, tmp_path, said.append), said


def test_part_that_is_ready_is_reported(parts: tuple[stage._Parts, list[str]]) -> None:
    ready = iter([False, True])
    parts[0].start("x", "Part", ["sleep", "60"], "127.0.0.1:1", lambda: next(ready))
    (line,) = parts[1]
    assert line.startswith("  Part                   127.0.0.1:1       up in 0.")


def test_part_that_ends_fails_with_its_last_words(parts: tuple[stage._Parts, list[str]]) -> None:
    def not_ready() -> bool:
        raise ConnectionRefusedError

    with pytest.raises(DemoFailed, match="Part did not start: no room"):
        parts[0].start("x", "Part", ["sh", "-c", "echo no room >&2"], "", not_ready)


def test_part_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["sh", "-c", "trap '' TERM; echo ready; sleep 60 & wait; wait"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    wait = process.wait
    monkeypatch.setattr(process, "wait", lambda timeout=None: wait(0.2 if timeout else None))
    stage._end(process)
    assert process.returncode == -9
    process.stdout.close()


@pytest.fixture
def on_redis(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage of which only the Redis is real."""
    redis.client.flushdb()
    monkeypatch.setattr(stage, "_NOTIFIED", 0.1)
    scripted = ScriptedStage()
    scripted.redis = connect(redis.url)
    scripted.store = CallStore(scripted.redis)
    return scripted


def test_stage_pops_a_payload(on_redis: Stage, redis: RedisServer) -> None:
    popped: list[tuple[str, bytes]] = []
    on_redis.on_notification = lambda key, body: popped.append((key, body))
    redis.client.lpush("list", '{"payload": {"a": 1}}')
    assert Stage.pop(on_redis, "list") == {"a": 1}
    assert popped == [("list", b'{"payload": {"a": 1}}')]


def test_stage_without_a_notification_fails(on_redis: Stage) -> None:
    with pytest.raises(DemoFailed, match="nothing was pushed to list within"):
        Stage.pop(on_redis, "list")


def test_stage_waits_for_a_call_to_end(on_redis: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([None, {"state": "bridged"}, {"state": "ended"}])
    monkeypatch.setattr(on_redis.store, "call", lambda _ref: next(calls))
    assert Stage.ended_call(on_redis, REF) == {"state": "ended"}


def test_stage_call_that_does_not_end_fails(on_redis: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 100, 3))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with pytest.raises(DemoFailed, match="did not end"):
        Stage.ended_call(on_redis, REF)


def test_request_error_names_the_answer() -> None:
    not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nno such"
    with server(not_found) as address, pytest.raises(DemoFailed, match="GET /x: 404 no such"):
        stage.request(address, "GET", "/x")


def test_request_returns_the_json() -> None:
    with server(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}') as address:
        assert stage.request(address, "POST", "/x", {"b": 2}) == {"a": 1}


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """The address of a server with one answer."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.sendall(answer)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield "{}:{}".format(*listening.getsockname())
    finally:
        thread.join()
        listening.close()


def test_request_refused_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        stage.request(f"127.0.0.1:{free_port()}", "GET", "/x")
