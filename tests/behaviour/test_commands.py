"""The commands that need a node or a switch, as an operator runs them."""

from __future__ import annotations

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

from esl_apps.cli.demo.script import CALLS
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support import zygote
from tests.support.node import Node, RedisServer, configuration
from tests.support.ports import free_port


@pytest.fixture
def settings(sandbox: SandboxRig, redis: RedisServer) -> dict[str, Any]:
    return configuration(sandbox, redis)


def written(settings: dict[str, Any], folder: Path) -> str:
    file = folder / "esl_apps.yml"
    file.write_text(json.dumps(settings, indent=1))
    return str(file)


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return zygote.run(list(argv))


def serve(file: str) -> str:
    """Run ``serve`` with a configuration that must not start; return what it prints."""
    done = run("serve", "-c", file)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "ready\n" not in done.stderr
    return done.stderr


# serve ---------------------------------------------------------------------------------------------------


def test_serve_wrong_configuration_names_the_place(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["integrators"][0]["tokn"] = settings["integrators"][0].pop("token")
    said = serve(written(settings, tmp_path))
    assert "esl_apps.yml:" in said
    assert "integrators[0].tokn: unknown key; did you mean token?" in said


@pytest.mark.parametrize("key", ["node.listen", "admin.listen", "integrators[0].listen"])
def test_serve_address_in_use_takes_no_call(settings: dict[str, Any], tmp_path: Path, key: str) -> None:
    section = settings["integrators"][0] if key.startswith("int") else settings[key.partition(".")[0]]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        section["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        said = serve(written(settings, tmp_path))
    assert f"{key}: can't listen on {section['listen']}" in said
    assert "switch_connected" not in said


def test_serve_state_folder_that_cannot_be_written(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings["node"]["state_dir"] = str(tmp_path / "file")
    assert "node.state_dir: no folder for the outbox can be written" in serve(written(settings, tmp_path))


def test_serve_second_node_of_one_name_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    node = Node(settings)
    try:
        other = json.loads(json.dumps(settings))
        for section in (other["node"], other["admin"], other["integrators"][0]):
            section["listen"] = f"127.0.0.1:{free_port()}"
        assert "is a node of this name running?" in serve(written(other, tmp_path))
        assert node.post("1000", "0820001234", query="?dry_run=1").json["ok"]
    finally:
        assert node.stop() == 0


def test_serve_without_switch_and_redis_runs_and_stops(settings: dict[str, Any]) -> None:
    settings["switches"][0]["address"] = f"127.0.0.1:{free_port()}"
    settings["redis"]["url"] = f"redis://127.0.0.1:{free_port()}/0"
    node = Node(settings)
    assert node.post("1000", "0820001234").status == 503
    began = time.monotonic()
    assert node.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 10
    assert "Traceback" not in node.log.read_text()


# check, calls and trace ------------------------------------------------------------------------------------


def test_check_on_the_sandbox_has_no_failure(settings: dict[str, Any], tmp_path: Path) -> None:
    done = run("check", "-c", written(settings, tmp_path))
    assert done.returncode == 0, done.stdout
    assert "ok   switch fs1: " in done.stdout
    assert done.stderr == ""


@pytest.fixture(scope="module")
def node(sandbox: SandboxRig, redis: RedisServer) -> Iterator[Node]:
    made = Node(configuration(sandbox, redis, agent_timeout=60))
    yield made
    made.stop()


def test_calls_shows_a_live_call(node: Node, sandbox: SandboxRig, redis: RedisServer) -> None:
    redis.client.flushdb()
    sandbox.phone("1000", Script(answer_after=None))
    ref = node.call("1000", "0820001234")
    eventually(lambda: "agent_ringing" in run("calls", "-c", str(node.file)).stdout)
    done = run("calls", "-c", str(node.file))
    assert (done.returncode, done.stderr) == (0, "1 live\n")
    (line,) = done.stdout.splitlines()
    assert line.startswith(ref)
    assert "1000 -> 0820001234" in line
    (call,) = map(json.loads, run("calls", "--json", "-c", str(node.file)).stdout.splitlines())
    assert (call["call_ref"], call["state"]) == (ref, "agent_ringing")
    node.delete(ref)
    eventually(lambda: run("calls", "-c", str(node.file)).stderr == "0 live\n")


def test_trace_tells_a_placed_calls_story(node: Node, sandbox: SandboxRig) -> None:
    sandbox.phone("1000")
    sandbox.outside("0820001234", Script(answer_after=0.1, hangup_after=0.1))
    ref = node.call("1000", "0820001234", contact_ref="lead-7")
    eventually(lambda: node.get(ref)["state"] == "ended")
    eventually(lambda: "ended" in run("trace", "-c", str(node.file), ref).stdout)
    head, *lines = run("trace", "-c", str(node.file), ref).stdout.splitlines()
    assert ref in head
    assert "lead-7" in head
    legs = next(number for number, line in enumerate(lines) if line.startswith("agent "))
    lines, sound = lines[:legs], lines[legs:]
    assert [line.split()[1] for line in sound if line.lstrip().startswith("Call-ID")]
    assert sound[-1].startswith("capture tshark -r FILE -Y 'sip.Call-ID == ")
    told = [line.split()[1] for line in lines]
    states = ["queued", "agent_ringing", "agent_answered", "callee_ringing", "bridged", "ended"]
    assert [state for state in told if state in states] == states
    assert "dial" in told
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)


# demo ------------------------------------------------------------------------------------------------------


def test_demo_json_prints_every_record(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "esl_apps", "demo", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    notifications = [json.loads(line) for line in done.stdout.splitlines()]
    refs = [body["payload"]["ref"] for body in notifications if body["type"] == "cdr"]
    # The last call is transferred: it has a record for each pair.
    assert refs == [*list(CALLS)[:-1], "click-dial", "transfer"]
    assert f"All {len(CALLS)} calls came out as they should." in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_demo_stopped_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, status: int) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "esl_apps", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        # A shell's background jobs inherit that SIGINT is ignored; a demo that a person runs isn't one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("1 of "):
            break
    demo.send_signal(number)
    _, said = demo.communicate(timeout=60)
    assert demo.returncode == status
    assert said == ("esl-apps: interrupted\n" if number == signal.SIGINT else "")
    assert list(tmp_path.iterdir()) == []
    # The demo's processes have its folder in their command lines.
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(tmp_path).encode() in command for command in running)
