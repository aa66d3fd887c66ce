"""A Redis Cluster of one master. It checks that keys share a slot as a larger one does, and starts in a moment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tests.support.node import RedisServer
from tests.support.ports import free_port


class ClusterServer(RedisServer):
    def __init__(self, program: str = "") -> None:
        port = free_port()
        while port > 55535:  # its bus listens 10,000 higher; Redis 6.2 has no option for that
            port = free_port()
        super().__init__("--cluster-enabled", "yes", port=port, program=program)
        self.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        end = time.monotonic() + 20
        while self.client.cluster("info")["cluster_state"] != "ok":
            assert time.monotonic() < end, "the cluster did not come up"
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.port}"


@contextlib.contextmanager
def cluster_of_one() -> Iterator[int]:
    """Its port."""
    server = ClusterServer()
    try:
        yield server.port
    finally:
        server.close()
