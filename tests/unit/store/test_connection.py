"""The line to Redis, where sockets are gevent's: in a process of its own, which this one is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.node import RedisServer

#: A client in a patched process; what follows is told ``client`` and ``port``.
BEGINNING = """
from gevent import monkey
monkey.patch_all()
import sys, time, gevent, redis
from esl_apps.store import redis_client
from esl_apps.store.connection import Line
client = redis_client.connect(f"redis://127.0.0.1:{sys.argv[1]}/0")
client.ping()
connection = client.connection_pool.get_connection()
assert type(connection._sock) is Line, connection._sock
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
    print(redis_client.TIMEOUT <= time.monotonic() - began < redis_client.TIMEOUT + 5)
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


def test_what_redis_py_makes_of_answers_is_what_comes(server: RedisServer) -> None:
    code = """
pipeline = client.pipeline(transaction=False)
pipeline.set("a", "1").set("a", "2", nx=True).get("a").lpush("a", "x").hgetall("none")
pipeline.execute_command("EVALSHA", "0" * 40, 0)
answers = pipeline.execute(raise_on_error=False)
print(answers[:3], [type(one).__name__ for one in answers[3:]], pipeline.execute())
print(client.set("a", "3", nx=True, get=True), client.zadd("z", {"m": 1.5}), client.zscore("z", "m"))
print(len(client.script_load("return 1")))
pipeline.set("b", "1").lpush("a", "x").set("c", "1")
try:
    pipeline.execute()
except redis.ResponseError as error:
    print(str(error).split()[0], client.get("c"))
"""
    told = run(server, code).splitlines()
    assert told[0] == "[True, None, b'1'] ['ResponseError', 'dict', 'NoScriptError'] []"
    assert told[1:3] == ["b'1' 1 1.5", "40"]
    # An error of one command is told once the others were answered.
    assert told[3] == "WRONGTYPE b'1'"


def test_what_redis_does_not_take_is_not_sent(server: RedisServer) -> None:
    code = """
pipeline = client.pipeline(transaction=False)
pipeline.set("first", "1").set("second", object())
try:
    pipeline.execute()
except redis.DataError:
    print(client.get("first"))
"""
    assert run(server, code) == "None"


def test_a_transaction_is_redis_py_s(server: RedisServer) -> None:
    assert run(server, 'print(client.pipeline().set("t", "1").get("t").execute())') == "[True, b'1']"


#: In Redis's place, a server that answers with ``lines``, a byte at a time.
SAYS = """
from gevent.server import StreamServer
def says(*lines):
    left = list(lines)
    def serve(sock, _address):
        while data := sock.recv(65536):
            if b"CLIENT" in data:
                sock.sendall(b"+OK\\r\\n" * data.count(b"CLIENT"))
                continue
            for byte in left.pop(0) if left else b"+PONG\\r\\n":
                sock.sendall(bytes([byte]))
                gevent.sleep(0)
    fake = StreamServer(("127.0.0.1", 0), serve)
    fake.start()
    return redis_client.connect(f"redis://127.0.0.1:{fake.server_port}/0")
def tell(ask):
    try:
        print(ask())
    except redis.RedisError as error:
        print(type(error).__name__)
"""


def test_an_answer_that_comes_byte_by_byte(server: RedisServer) -> None:
    code = """
fake = says(b"*3\\r\\n$5\\r\\nhello\\r\\n:12\\r\\n*1\\r\\n$-1\\r\\n", b"$0\\r\\n\\r\\n")
tell(lambda: fake.execute_command("EVALSHA", "x", 0))
tell(lambda: fake.get("x"))
"""
    assert run(server, SAYS + code).splitlines() == ["[b'hello', 12, [None]]", "b''"]


def test_a_redis_that_is_loading_is_away_and_asked_on_another_line(server: RedisServer) -> None:
    code = """
loading, read_only = b"-LOADING Redis is loading the dataset in memory\\r\\n", b"-READONLY You can't write\\r\\n"
fake = says(loading, read_only, b"$1\\r\\nx\\r\\n")
tell(lambda: fake.get("x"))
print(fake.connection_pool.pool.queue[-1]._sock)
tell(lambda: fake.get("x"))
tell(lambda: fake.get("x"))
"""
    assert run(server, SAYS + code).splitlines() == ["BusyLoadingError", "None", "ReadOnlyError", "b'x'"]


def test_what_is_no_redis_is_away(server: RedisServer) -> None:
    code = """
fake = says(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
tell(lambda: fake.get("x"))
tell(lambda: fake.ping())
"""
    assert run(server, SAYS + code).splitlines() == ["InvalidResponse", "True"]
