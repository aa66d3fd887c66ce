"""A Redis Cluster of one master. It checks that keys share a slot as a larger one does, and starts in a moment."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import redis

from esl_apps.cli.embedded_redis import redis_server
from tests.support.ports import free_port


@contextlib.contextmanager
def cluster_of_one() -> Iterator[int]:
    """Its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        command = [
            redis_server(),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            "--save",
            "",
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            str(free_port()),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait(redis.Redis(port=port, decode_responses=True))
            yield port
        finally:
            process.kill()
            process.wait()


def _wait(control: Any) -> None:
    end = time.monotonic() + 10
    owned = False
    while time.monotonic() < end:
        with contextlib.suppress(redis.ConnectionError):
            if not owned:
                control.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
                owned = True
            if "cluster_state:ok" in str(control.execute_command("CLUSTER", "INFO")):
                return
        time.sleep(0.02)
    raise AssertionError("the cluster did not start")
