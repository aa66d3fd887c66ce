"""A Redis Cluster of one master, or of three. One checks that keys share a slot as more do, and starts in a moment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from redis.crc import key_slot

from tests.support.node import RedisServer
from tests.support.ports import free_port

SLOTS = 16384


class Master(RedisServer):
    def __init__(self, slots: range, program: str = "") -> None:
        port = free_port()
        while port > 55535:  # its bus listens 10,000 higher; Redis 6.2 has no option for that
            port = free_port()
        # Others serve their slots when one is away, and none is given up while a test runs.
        options = "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "60000"
        super().__init__("--cluster-enabled", "yes", *options, port=port, program=program)
        self.slots = slots
        self.client.execute_command("CLUSTER", "ADDSLOTS", *slots)

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.port}"

    def has(self, key: str) -> bool:
        """Whether a key is in this master's part of the cluster."""
        return key_slot(key.encode()) in self.slots

    def wait(self) -> None:
        """Wait until the cluster is up and all slots have a master, as this one sees it."""
        end = time.monotonic() + 20
        while True:
            info: dict[str, Any] = self.client.cluster("info")
            if info["cluster_state"] == "ok" and int(info["cluster_slots_assigned"]) == SLOTS:
                return
            assert time.monotonic() < end, "the cluster did not come up"
            time.sleep(0.02)


class ClusterServer(Master):
    def __init__(self, program: str = "") -> None:
        super().__init__(range(SLOTS), program)
        self.wait()


@contextlib.contextmanager
def cluster_of_one() -> Iterator[int]:
    """Its port."""
    server = ClusterServer()
    try:
        yield server.port
    finally:
        server.close()


@contextlib.contextmanager
def cluster_of_three() -> Iterator[list[Master]]:
    """Its masters, each with a third of the slots."""
    ends = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
    with contextlib.ExitStack() as stack:
        masters: list[Master] = []
        for number in range(3):
            masters.append(master := Master(range(ends[number], ends[number + 1])))
            stack.callback(master.close)
            master.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for master in masters[1:]:
            masters[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", master.port)
        for master in masters:
            master.wait()
        yield masters
