"""A master, a replica and a sentinel that makes the replica the master where the master is killed."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import redis as redispy

from esl_apps.cli.embedded_redis import redis_server
from tests.rig.base import eventually
from tests.support.node import RedisServer
from tests.support.ports import free_port


class SentinelServer:
    def __init__(self) -> None:
        self.master, self.replica = RedisServer(), RedisServer()
        self.replica.client.replicaof("127.0.0.1", self.master.port)
        eventually(lambda: self.replica.client.info("replication")["master_link_status"] == "up")
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="sentinel-")
        file = Path(self.folder.name, "sentinel.conf")
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder.name}\n"
            f"sentinel monitor main 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        self.process = subprocess.Popen([redis_server(), str(file), "--sentinel"], stdout=subprocess.DEVNULL)
        self.client = redispy.Redis(port=self.port, decode_responses=True)
        end = time.monotonic() + 10
        while True:
            try:
                if self.client.sentinel_slaves("main"):
                    return
            except redispy.RedisError:
                pass
            assert time.monotonic() < end, "the sentinel does not know the replica"
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/main/0"

    def fail_over(self) -> None:
        """Wait until the replica is the master, which was killed."""

        def promoted() -> bool:
            try:
                return bool(self.replica.client.info("replication")["role"] == "master")
            except redispy.RedisError:
                # It drops its clients as it changes its part.
                return False

        eventually(promoted, within=30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for one in (self.master, self.replica):
            one.close()
        self.folder.cleanup()
