"""The line to Redis, where sockets are gevent's: in a process of its own, which this one is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.node import RedisServer

#: A client in a patched process; what follows is told ``client`` and ``port``.
BEGINNING = """
from gevent import monkey
monkey.patch_all()
import sys, time, gevent, redis
from esl_apps import redisclient, redisline
client = redisclient.connect(f"redis://127.0.0.1:{sys.argv[1]}/0")
client.ping()
connection = client.connection_pool.get_connection()
assert type(connection._sock) is redisline.Line, connection._sock
client.connection_pool.release(connection)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    made = RedisServer()
    yield made
    made.close()


def run(server: RedisServer, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + code, str(server.port)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_many_ask_at_once_and_each_gets_its_own_answer(server: RedisServer) -> None:
    code = """
asking = [gevent.spawn(client.echo, f"{i}" * 1000) for i in range(200)]
gevent.joinall(asking, raise_error=True)
print([one.value.decode() for one in asking] == [f"{i}" * 1000 for i in range(200)])
"""
    assert run(server, code) == "True"


def test_an_answer_of_many_megabytes(server: RedisServer) -> None:
    assert run(server, "print(len(client.echo(b'x' * 20_000_000)))") == "20000000"


def test_others_go_on_while_one_waits(server: RedisServer) -> None:
    code = """
waiting = gevent.spawn(client.blpop, ["nothing"], timeout=1)
gevent.sleep(0)
for _ in range(50):
    client.ping()
print(waiting.ready(), waiting.get())
"""
    assert run(server, code) == "False None"


def test_a_redis_that_does_not_answer_is_away_within_the_time_out(server: RedisServer) -> None:
    code = """
import os, signal
pid = client.info("server")["process_id"]
os.kill(pid, signal.SIGSTOP)
began = time.monotonic()
try:
    client.ping()
except redis.TimeoutError:
    print(redisclient.TIMEOUT <= time.monotonic() - began < redisclient.TIMEOUT + 5)
finally:
    os.kill(pid, signal.SIGCONT)
client.ping()
"""
    assert run(server, code) == "True"


def test_a_connection_that_redis_closed_meanwhile_is_made_anew(server: RedisServer) -> None:
    code = """
import redis as plain
plain.Redis(port=int(sys.argv[1])).execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
gevent.sleep(0.1)
print(client.ping())
"""
    assert run(server, code) == "True"


def test_who_is_killed_while_it_waits_leaves_no_answer_to_the_next(server: RedisServer) -> None:
    code = """
asking = gevent.spawn(client.eval, "local i = 0 while i < 2000000 do i = i + 1 end return 'late'", 0)
gevent.sleep(0.001)
asking.kill()
print(client.echo("mine").decode())
"""
    assert run(server, code) == "mine"


def test_an_idle_line_that_redis_closes_wakes_who_watches_it(server: RedisServer) -> None:
    code = """
import redis as plain
watched = client.connection_pool.get_connection()
def watch():
    try:
        return watched.can_read(timeout=20)
    except redis.ConnectionError:
        return "closed"
watching = gevent.spawn(watch)
gevent.sleep(0.05)
began = time.monotonic()
plain.Redis(port=int(sys.argv[1])).execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
print(watching.get(), time.monotonic() - began < 10)
"""
    assert run(server, code) == "closed True"
