"""The dialplan files on a real FreeSWITCH: with a node, without one, with one that is stopped, and with one that dies.

The nodes are a few lines of socket each, so that the tests show what FreeSWITCH does, not esl_apps.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import wave
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from esl_apps.cli import dialplan
from tests.conftest import ON_FREESWITCH
from tests.rig.base import eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.rig.tones import envelope, read_wav, tone_timeline, tones
from tests.support import ROOT
from tests.support.ports import free_ports

PROMPTS = ROOT / "esl_apps" / "prompts"
#: The folders of files without a context of their own.
CONTEXT = {dialplan.PUBLIC: "public", dialplan.DEFAULT: "default", dialplan.PROOF: "public"}
SECRET = "a-secret-of-the-dialplan"


def shipped() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "esl_apps.yml").read_text())
    return loaded


def freeswitch(test: Callable[..., None]) -> Callable[..., None]:
    for mark in ON_FREESWITCH:
        test = mark(test)
    return test


WATCHDOG = 1
"""Seconds, instead of 8, to keep the tests short. It fires 0.5 to 2 s after it is set."""


class Node:
    """A node that speaks only what matters here. ``flow`` is what it does with a call."""

    def __init__(self, port: int, flow: Callable[[Node, Any, dict[str, str]], None]) -> None:
        self.flow = flow
        self.calls: list[dict[str, str]] = []
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", port), backlog=50)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.sockets.append(connection)
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            file = connection.makefile("rwb")
            headers = self.ask(file, "connect")
            self.ask(file, f"api sched_del {headers['Unique-ID']}")
            self.calls.append(headers)
            self.flow(self, file, headers)

    @staticmethod
    def ask(file: Any, command: str) -> dict[str, str]:
        file.write(command.encode() + b"\n\n")
        file.flush()
        headers: dict[str, str] = {}
        while (line := file.readline()) != b"\n":
            if not line:
                raise ConnectionError
            name, _, value = line.decode().rstrip("\n").partition(": ")
            headers[name] = unquote(value)
        file.read(int(headers.get("Content-Length", 0)))
        return headers

    @classmethod
    def run(cls, file: Any, application: str, data: str = "") -> None:
        command = "sendmsg\ncall-command: execute\nevent-lock: true"
        cls.ask(file, f"{command}\nexecute-app-name: {application}\nexecute-app-arg: {data}")

    def die(self) -> None:
        """Close the listener and every connection without a goodbye, as a killed process does."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def take(node: Node, file: Any, headers: dict[str, str]) -> None:
    node.run(file, "set", f"esl_call_ref=ref-{len(node.calls)}")
    node.run(file, "answer")


def refuse(node: Node, file: Any, headers: dict[str, str]) -> None:
    node.run(file, "respond", "486")


STOPPED = """
import os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=50)
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@contextlib.contextmanager
def stopped_node(port: int) -> Iterator[subprocess.Popen[str]]:
    """A process that listens and is stopped: the kernel accepts connections for it, but it never answers."""
    with subprocess.Popen([sys.executable, "-c", STOPPED, str(port)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        try:
            yield process
        finally:
            process.kill()
            process.send_signal(signal.SIGCONT)


class Stand:
    """The switch with our files, and two addresses for nodes."""

    def __init__(self, folder: Path) -> None:
        first = free_ports(2)
        self.ports = (first, first + 1)
        self.plan = shipped()
        self.plan["node"]["secret"] = SECRET
        self.plan["dialplan"]["nodes"] = [f"127.0.0.1:{port}" for port in self.ports]
        files = []
        for name, text in dialplan.render(self.plan, watchdog=WATCHDOG, prompts=str(PROMPTS)).items():
            (folder / name).write_text(text)
            files.append((CONTEXT.get(name, ""), folder / name))
        conf = []
        for name in ("event_socket.conf.xml", "json_cdr.conf.xml"):
            text = (ROOT / "conf" / "freeswitch" / name).read_text()
            text = text.replace("8021", "$${rig_esl_port}").replace("ClueCon", "$${rig_esl_password}")
            (folder / name).write_text(text.replace("/var/log/freeswitch/json_cdr", "$${rig_spool}"))
            conf.append(folder / name)
        self.rig = FreeswitchRig(dialplan_files=files, conf_files=conf)

    def load(self, **how: Any) -> None:
        for name, text in dialplan.render(self.plan, **how).items():
            (self.rig.conf / "dialplan" / CONTEXT.get(name, "") / name).write_text(text)
        self.rig.reload_xml()

    def ended(self, call: Any, within: float = 30.0) -> Any:
        eventually(lambda: call.leg.ended_at is not None, within=within, message=f"it does not end: {call!r}")
        return call.leg

    def messages_played(self) -> int:
        """How often the switch has played the message to its end since the last reset."""
        return len(re.findall(r"done playing file \S*/unavailable\.wav", self.rig.log_text()))

    def gone(self, within: float = 30.0) -> None:
        eventually(lambda: self.rig.live_channels() == 0, within=within, message="a channel that does not end")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    stand = Stand(tmp_path_factory.mktemp("dialplan"))
    with stand.rig:
        yield stand


@pytest.fixture
def stand(loaded: Stand) -> Iterator[Stand]:
    loaded.load(watchdog=WATCHDOG, prompts=str(PROMPTS))
    yield loaded
    loaded.rig.reset()


CAUSE = 'Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE"'
DIALTHROUGH, CALLBACK, INBOUND, DISA = "5141115555", "5142223333", "0115550000", "+27115550002"


def heard_the_message(call: Any) -> None:
    """Check that the phone received the three tones, then a voice.

    The words are not compared: on a busy machine the phone loses pieces of the audio. ``Stand.messages_played`` shows
    that the switch played the message.
    """
    timeline = tone_timeline(call.recording, (950, 1400, 1800))
    order = [hz for _, heard in timeline for hz in sorted(heard)]
    assert [hz for n, hz in enumerate(order) if n == 0 or order[n - 1] != hz][:3] == [950, 1400, 1800]
    last_tone = next(at for at, heard in timeline if 1800 in heard)
    with wave.open(str(PROMPTS / "en" / "8000" / "unavailable.wav"), "rb") as file:
        message = array("h", file.readframes(file.getnframes()))
    rate, (samples, *_) = read_wav(call.recording)
    voice = samples[round((last_tone + 0.6) * rate) :]
    assert loud_seconds(voice, rate) > loud_seconds(message, 8000) / 2


def loud_seconds(samples: array[int], rate: int) -> float:
    return 0.02 * sum(level > 200 for level in envelope(samples, rate))


@freeswitch
def test_switch_loads_the_files_without_a_warning(loaded: Stand) -> None:
    loaded.rig.reload_xml()
    lines = loaded.rig.log_text(all_of_it=True).splitlines()
    warnings = [line for line in lines if re.search(r"\[(WARNING|ERR|CRIT|ALERT)\]", line)]
    assert not [line for line in warnings if "MSG Thread 0 Started" not in line]  # mod_sofia logs this at each start
    assert loaded.rig.api("module_exists mod_json_cdr").strip() == "true"


@freeswitch
def test_switch_has_the_nodes_secret_and_hashes_it(loaded: Stand) -> None:
    assert loaded.rig.api("expand md5 1${esl_apps_secret}") == hashlib.md5(f"1{SECRET}".encode()).hexdigest()
    assert SECRET not in loaded.rig.log_text(all_of_it=True)


@freeswitch
def test_call_without_a_node_gets_a_message_and_a_cause(stand: Stand) -> None:
    phone = stand.rig.outside("27820001234")
    calls = [phone.dial(did) for did in (DIALTHROUGH, INBOUND, DISA, "0027115550000")]
    calls.append(stand.rig.phone("1000").dial("0820001234", {"X-Teleforge-Outbound-ID": "27115550000"}))
    for call in calls:
        leg = stand.ended(call)
        assert leg.early_media_at is not None
        assert leg.early_media_at - leg.started_at < 1
        assert (leg.status, leg.headers["reason"], leg.answered_at) == (503, [CAUSE], None)
        heard_the_message(call)
    stand.gone()
    assert stand.messages_played() == len(calls)


@freeswitch
def test_call_without_a_node_or_prompt_gets_tones(stand: Stand) -> None:
    stand.load(watchdog=WATCHDOG, prompts="/nowhere")
    call = stand.rig.outside("27820001234").dial(DIALTHROUGH)
    leg = stand.ended(call)
    assert (leg.status, leg.headers["reason"]) == (503, [CAUSE])
    heard = [at for at, present in tones(call.recording, 950) if present]
    # Rounds of tones are 2 s apart. On a busy machine a tone has gaps.
    assert sum(n == 0 or at - heard[n - 1] > 1 for n, at in enumerate(heard)) == 3


@freeswitch
def test_callback_call_without_a_node_gets_only_a_cause(stand: Stand) -> None:
    leg = stand.ended(stand.rig.outside("27820001234").dial(CALLBACK))
    assert (leg.status, leg.headers["reason"]) == (503, [CAUSE])
    assert leg.early_media_at is None
    assert leg.answered_at is None
    assert leg.ended_at - leg.started_at < 1


@freeswitch
@pytest.mark.parametrize("did", ["+271155500001", "27115550000%0A", "+27115550000%0aX", "2711555000"])
def test_call_to_another_number_is_left_alone(stand: Stand, did: str) -> None:
    leg = stand.ended(stand.rig.outside("27820001234").dial(did))
    assert leg.early_media_at is None
    assert leg.headers.get("reason") != [CAUSE]
    assert "socket(127.0.0.1" not in stand.rig.log_text()


@freeswitch
def test_call_to_a_stopped_node_gets_a_message(stand: Stand) -> None:
    with stopped_node(stand.ports[0]):
        phone = stand.rig.outside("27820001234")
        calls = [phone.dial(INBOUND), phone.dial(CALLBACK)]
        inbound, callback = (stand.ended(call) for call in calls)
        assert inbound.early_media_at is not None
        assert inbound.early_media_at - inbound.started_at < WATCHDOG + 1.5
        assert callback.ended_at - callback.started_at < WATCHDOG + 1.5
        assert callback.early_media_at is None
        for leg in (inbound, callback):
            assert (leg.status, leg.headers["reason"], leg.answered_at) == (503, [CAUSE], None)
        heard_the_message(calls[0])
    stand.gone()
    assert stand.messages_played() == 1


@freeswitch
def test_node_that_answers_cancels_the_watchdog(stand: Stand) -> None:
    node = Node(stand.ports[0], take)
    try:
        call = stand.rig.outside("27820001234").dial(DISA)
        eventually(lambda: call.leg.answered_at is not None)
        assert node.calls[0]["variable_socket_path"] == "disa/acme/front"
        time.sleep(WATCHDOG + 2)
        assert call.leg.ended_at is None
        call.hangup()
        stand.gone()
    finally:
        node.die()


@freeswitch
def test_call_refused_by_a_node_goes_to_the_next(stand: Stand) -> None:
    node = Node(stand.ports[1], refuse)
    try:
        leg = stand.ended(stand.rig.outside("27820001234").dial(CALLBACK))
        assert (leg.status, leg.early_media_at, len(node.calls)) == (486, None, 1)
        assert leg.ended_at - leg.started_at < 1
    finally:
        node.die()


@freeswitch
def test_call_whose_node_dies_goes_to_another(stand: Stand) -> None:
    first, second = Node(stand.ports[0], take), Node(stand.ports[1], take)
    try:
        call = stand.rig.outside("27820001234").dial(DISA)
        eventually(lambda: call.leg.answered_at is not None)
        first.die()
        eventually(lambda: second.calls, message="no node took it")
        taken = second.calls[0]
        assert taken["variable_esl_call_ref"] == "ref-1"
        assert taken["variable_esl_apps_handover"] == "x"
        assert taken["variable_socket_path"] == "disa/acme/front"
        assert taken["Caller-Destination-Number"] == DISA
        assert taken["Unique-ID"] == first.calls[0]["Unique-ID"]
        time.sleep(WATCHDOG + 1.5)
        assert call.leg.ended_at is None
        call.hangup()
        stand.gone()
    finally:
        second.die()


@freeswitch
def test_call_whose_node_restarts_returns_to_it(stand: Stand) -> None:
    first = Node(stand.ports[0], take)
    call = stand.rig.outside("27820001234").dial(DISA)
    eventually(lambda: call.leg.answered_at is not None)
    first.die()
    # The node is missed twice, and the dialplan pauses before it tries again.
    eventually(lambda: "set(esl_apps_handover=xx)" in stand.rig.log_text())
    again = Node(stand.ports[0], take)
    try:
        eventually(lambda: again.calls, message="no node took it")
        assert again.calls[0]["variable_esl_apps_handover"] == "xx"
        assert call.leg.ended_at is None
    finally:
        again.die()


@freeswitch
def test_call_that_no_node_takes_over_gets_a_message(stand: Stand) -> None:
    node = Node(stand.ports[0], take)
    call = stand.rig.outside("27820001234").dial(DISA)
    eventually(lambda: call.leg.answered_at is not None)
    node.die()
    leg = stand.ended(call)
    assert (leg.status, leg.ended_by) == (200, "far")
    heard_the_message(call)
    stand.gone()
    assert stand.messages_played() == 1


@freeswitch
@pytest.mark.parametrize(
    "header",
    [
        "X-Teleforge-Outbound-ID",
        "X-Platforma-Outbound-ID",
        "x-teleforge-contact-ref",
        "X-Platforma-Contact-Ref",
    ],
)
def test_phone_with_a_header_reaches_click2dial(stand: Stand, header: str) -> None:
    node = Node(stand.ports[0], refuse)
    try:
        phone = stand.rig.phone("1000")
        leg = stand.ended(phone.dial("0820001234", {header: "27115550000"}))
        assert leg.status == 486
        assert node.calls[0]["variable_socket_path"] == "click2dial"
        assert node.calls[0]["Caller-Destination-Number"] == "0820001234"
    finally:
        node.die()


@freeswitch
def test_phone_without_the_headers_dials_as_before(stand: Stand) -> None:
    leg = stand.ended(stand.rig.phone("1000").dial("0820001234"))
    assert leg.headers.get("reason") != [CAUSE]
    assert "socket(127.0.0.1" not in stand.rig.log_text()
