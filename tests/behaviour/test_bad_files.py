"""A node among files that would stop it: a log that isn't read, a spool that others have filled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.node import ADMIN_TOKEN, Node, RedisServer, configuration, request

CALLEE = "0820001234"


class Piped(Node):
    """A node whose standard error is a pipe that only the test reads."""

    process: subprocess.Popen[bytes]

    def start(self) -> None:
        self.file.write_text(json.dumps(self.config))
        command = [sys.executable, "-m", "esl_apps", "serve", "-c", str(self.file)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        while b" ready\n" not in (line := self.process.stderr.readline()):
            assert line, "it ended"


@pytest.fixture
def rig() -> Iterator[SandboxRig]:
    made = SandboxRig()
    yield made
    made.close()


def healthy(node: Node) -> bool:
    return request(node.admin, "GET", "/healthz", token=ADMIN_TOKEN).status == 200


def test_node_whose_log_is_not_read_goes_on(rig: SandboxRig, redis: RedisServer) -> None:
    """journald, or a container's log driver, hangs. A pipe was full after 152 calls."""
    rig.phone("1000", Script(reject=486))
    node = Piped(configuration(rig, redis))
    try:
        refs = [node.call("1000", CALLEE) for _ in range(250)]
        assert healthy(node)
        eventually(lambda: node.get(refs[-1])["state"] == "ended")
    finally:
        node.process.terminate()
        _, log = node.process.communicate(timeout=60)
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    # Nothing had to be dropped yet, and the end of the process wrote what waited.
    assert {line["call_ref"] for line in lines if line["event"] == "record"} >= set(refs)
    assert len(log) > 65536


def test_node_with_odd_files_in_its_spool_goes_on(rig: SandboxRig, redis: RedisServer) -> None:
    node = Node(configuration(rig, redis))
    try:
        os.mkfifo(rig.spool / "fifo.cdr.json")
        (rig.spool / "zero.cdr.json").symlink_to("/dev/zero")
        (rig.spool / "folder.cdr.json").mkdir()
        (rig.spool / "stranger.cdr.json").write_text('{"variables": {"uuid": "x"}}')
        rig.phone("1000", Script(reject=486))
        ref = node.call("1000", CALLEE)
        eventually(lambda: node.get(ref)["state"] == "ended")
        # The call's own files go, so the folder was read past the odd ones.
        odd = {f"{name}.cdr.json" for name in ("fifo", "zero", "folder", "stranger")}
        eventually(lambda: {path.name for path in rig.spool.iterdir()} == odd)
        assert healthy(node)
    finally:
        assert node.stop() == 0
