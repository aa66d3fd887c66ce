"""Record the calls that the load generator plays: a real FreeSWITCH and a node, with a relay on each connection.

``python -m benchmarks.recordings`` writes ``calls/APPLICATION.outbound.esl`` and ``….inbound.esl``, one call
each, as the node of this commit performs it, in the format of ``tests/support/captures``. Record again when the node
sends the switch other commands than before, or to play another version of FreeSWITCH.
"""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.load import node_bench
from benchmarks.load.node_bench import CARD, DISA, HOST, INBOUND, OWN, PIN, TOKEN
from tests.rig.base import Script, eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.support.node import Node, RedisServer, request

CALLS = Path(__file__).parent / "calls"
AGENT, QUEUED, CALLER, CALLEE, E164, A_PARTY = "1000", "1001", "0825556666", "0820001234", "27820001234", "27820001235"
#: Replaces the path to this project. It has the same length, as each frame states its own.
_SOMEWHERE = b"/opt/esl_apps".ljust(len(str(process.ROOT)), b"/")[: len(str(process.ROOT))]
_LENGTH = re.compile(rb"^Content-Length: (\d+)$", re.M | re.IGNORECASE)


class Relay:
    """Forward connections from ``port`` to ``target`` and record the frames that pass."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.chunks: list[tuple[float, str, bytes]] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection((HOST, self._target()))
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        """Forward data in one direction, and record it."""
        rest = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                rest = self._write_down(rest + data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _write_down(self, data: bytes) -> bytes:
        while (end := data.find(b"\n\n")) >= 0:
            head = data[:end]
            from_switch = head.startswith((b"Content-", b"Event-Name")) or b"\nContent-Type: " in head
            end += 2
            if length := _LENGTH.search(head):
                end += int(length[1])
            if end > len(data):
                break
            with self._lock:
                self.chunks.append((time.time(), "<" if from_switch else ">", data[:end]))
            data = data[end:]
        return data

    def take(self, file: Path) -> None:
        """Write the recorded frames to a file and forget them."""
        with self._lock:
            chunks, self.chunks = self.chunks, []
        began = chunks[0][0] if chunks else 0.0
        with file.open("wb") as out:
            for at, direction, data in chunks:
                data = data.replace(str(process.ROOT).encode(), _SOMEWHERE)
                out.write(b"### %.3f %s %d\n%s\n" % (at - began, direction.encode(), len(data), data))


def main() -> None:
    CALLS.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="record-")))
        rig = stack.enter_context(FreeswitchRig())
        redis = RedisServer()
        stack.callback(redis.close)
        inbound = Relay(lambda: rig.esl_port)
        config = node_bench.configuration(
            folder, redis.url, f"{HOST}:{inbound.port}", dial={"region": "ZA", **rig.dial}
        )
        config["switches"][0]["password"] = rig.esl_password
        listen = int(config["node"]["listen"].rpartition(":")[2])
        outbound = Relay(lambda: listen)
        config["node"]["advertise"] = f"{HOST}:{outbound.port}"
        node = Node(config)
        stack.callback(node.stop)
        headers: dict[str, Any] = {"token": node_bench.ADMIN_TOKEN}
        card = {"data": {"active": True, "cid": CALLER, "user_id": "u1"}}
        assert request(node.admin, "PUT", "/v2/accounts/acme/cccps", card, **headers).status == 201
        for did, path in ((DISA, "disa/acme/front"), (CARD, "dialthrough"), (INBOUND, "inbound")):
            rig.route(did, path, f"{HOST}:{outbound.port}")
        rig.phone(AGENT, Script(answer_after=0.2))
        rig.phone(QUEUED, Script(answer_after=0.2, hangup_after=1.0))
        rig.outside(E164, Script(answer_after=0.2, hangup_after=1.0))
        rig.outside(A_PARTY, Script(answer_after=0.2))
        rig.outside(CALLEE, Script(answer_after=0.2, hangup_after=1.0))
        time.sleep(1.0)

        def dialled(did: str, *digits: str) -> Callable[[], None]:
            def dial() -> None:
                leg = rig.outside(CALLER, Script()).dial(did)
                eventually(lambda: leg.leg.answered_at is not None)
                for part in digits:
                    time.sleep(1.0)
                    leg.digits(part)
                if digits:
                    # The callee has hung up; let the prompt that follows begin.
                    eventually(lambda: redis.client.llen(node_bench.CDRS) == 1, 20)
                    time.sleep(0.5)
                    leg.hangup()

            return dial

        def click2dial() -> None:
            body = {"agent": AGENT, "callee": CALLEE, "outbound_id": OWN}
            assert request(node.api, "POST", "/click2dial/calls", body, token=TOKEN).status == 202

        def autodial() -> None:
            body = {"data": {"a_leg_number": A_PARTY, "b_leg_number": CALLEE, "callback_delay": 0}}
            assert request(node.admin, "PUT", "/v2/accounts/acme/cccps/autodial", body, **headers).status == 201

        calls: dict[str, Callable[[], None]] = {
            "disa": dialled(DISA, PIN, f"{CALLEE}#"),
            "dialthrough": dialled(CARD, f"{CALLEE}#"),
            "inbound": dialled(INBOUND),
            "click2dial": click2dial,
            "autodial": autodial,
        }
        for name, call in calls.items():
            for relay in (outbound, inbound):
                # The first recording of the inbound relay is the beginning of its connection.
                relay.take(CALLS / (f"{name}.none" if relay is outbound or name != "disa" else "connection.esl"))
            call()
            record = redis.pop()
            assert record["end_reason"] == "answered", record
            eventually(lambda: rig.live_channels() == 0, 20)
            time.sleep(1.0)
            outbound.take(CALLS / f"{name}.outbound.esl")
            inbound.take(CALLS / f"{name}.inbound.esl")
            print(name, record)
        for file in CALLS.glob("*.none"):
            file.unlink()


if __name__ == "__main__":
    main()
