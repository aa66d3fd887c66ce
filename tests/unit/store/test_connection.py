"""The fast path to Redis, where sockets are gevent's: in a process of its own, which this one is not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from esl_apps.cli.embedded_redis import redis_server
from tests.support.node import RedisServer

#: A client in a patched process; the code that follows finds ``client``, ``url`` and ``port``.
BEGINNING = """
from gevent import monkey
monkey.patch_all()
import sys, time, gevent
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import redis_client
port = int(sys.argv[1])
url = f"redis://127.0.0.1:{port}/0"
client = redis_client.connect(url)
assert type(client) is redis_client.FastClient, client
client.ping()
def tell(ask):
    try:
        print(ask())
    except StoreUnavailable as error:
        print(error)
def other():
    import redis
    return redis.Redis(port=port)
def kill_connections():
    other().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
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


# Asking -----------------------------------------------------------------------------------------------


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


def test_what_redis_py_makes_of_answers_is_what_comes(server: RedisServer) -> None:
    code = """
answers = client.send_all(
    [("SET", "a", "1"), ("SET", "a", "2", "NX"), ("GET", "a"), ("LPUSH", "a", "x"), ("HGETALL", "none"),
     ("EVALSHA", "0" * 40, 0)], raise_on_error=False)
print(answers[:3], [type(one).__name__ for one in answers[3:]], client.send_all([]))
print(client.set("a", "3", nx=True, get=True), client.zadd("z", {"m": 1.5}), client.zscore("z", "m"))
print(client.zrange("z", 0, 0, withscores=True), client.info("server")["tcp_port"] == port, end=" ")
print(len(client.script_load("return 1")))
try:
    client.send_all([("SET", "b", "1"), ("LPUSH", "a", "x"), ("SET", "c", "1")])
except StoreUnavailable as error:
    print(str(error).split()[1], client.get("c"))
"""
    told = run(server, code).splitlines()
    assert told[0] == "[True, None, b'1'] ['StoreUnavailable', 'dict', 'NoScript'] []"
    assert told[1:3] == ["b'1' 1 1.5", "[(b'm', 1.5)] True 40"]
    # The error of one command is raised once the others were run.
    assert told[3] == "WRONGTYPE b'1'"


def test_what_redis_does_not_take_is_not_sent(server: RedisServer) -> None:
    code = """
try:
    client.send_all([("SET", "first", "1"), ("SET", "second", object())])
except TypeError:
    print(client.get("first"))
"""
    assert run(server, code) == "None"


def test_a_transaction_is_redis_py_s(server: RedisServer) -> None:
    assert run(server, 'print(client.pipeline().set("t", "1").get("t").execute())') == "[True, b'1']"


# Connections that fail --------------------------------------------------------------------------------


def test_a_redis_that_does_not_answer_is_away_within_the_time_out(server: RedisServer) -> None:
    code = """
import os, signal
pid = client.info("server")["process_id"]
os.kill(pid, signal.SIGSTOP)
began = time.monotonic()
try:
    client.ping()
except StoreUnavailable as error:
    print(error, redis_client.TIMEOUT <= time.monotonic() - began < redis_client.TIMEOUT + 5)
finally:
    os.kill(pid, signal.SIGCONT)
client.ping()
"""
    assert run(server, code) == "redis: no answer in time True"


def test_a_redis_that_is_not_there_is_told_by_its_address(server: RedisServer) -> None:
    code = """
import socket
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
try:
    redis_client.connect(f"redis://:secret@127.0.0.1:{port}").ping()
except StoreUnavailable as error:
    print(str(error).replace(str(port), "PORT"))
tell(redis_client.connect("unix:///nowhere/redis.sock").ping)
"""
    assert run(server, code).splitlines() == [
        "redis: 127.0.0.1:PORT: [Errno 111] Connection refused",
        "redis: /nowhere/redis.sock: [Errno 2] No such file or directory",
    ]


def test_a_connection_that_redis_closed_meanwhile_is_made_anew(server: RedisServer) -> None:
    code = """
kill_connections()
gevent.sleep(0.1)
print(client.ping())
"""
    assert run(server, code) == "True"


def test_an_answer_left_behind_is_not_taken_for_the_next(server: RedisServer) -> None:
    code = """
from esl_apps.config.redis_url import server
from esl_apps.store.connection import Connection, Pool, pack
pool = Pool(lambda: Connection(server(url), 2.0), 1, 2.0)
for sent in (1, 2):
    line = pool.take()
    line.ask(pack(("PING",)), 1)
    # Two stray answers: one that is still in the socket, then one that the parser has already.
    line._stream.send(pack(("ECHO", "stray")) * sent, 2.0)
    gevent.sleep(0.1)
    if sent == 2:
        line._reader.feed(line._stream.look())
    pool.give_back(line)
    line = pool.take()
    print(line.ask(pack(("ECHO", "mine")), 1))
    pool.give_back(line)
"""
    assert run(server, code).splitlines() == ["[b'mine']", "[b'mine']"]


def test_who_is_killed_while_it_waits_leaves_no_answer_to_the_next(server: RedisServer) -> None:
    code = """
asking = gevent.spawn(client.eval, "local i = 0 while i < 2000000 do i = i + 1 end return 'late'", 0)
gevent.sleep(0.001)
asking.kill()
print(client.echo("mine").decode())
"""
    assert run(server, code) == "mine"


def test_a_pool_that_is_used_up_waits_and_then_says_so(server: RedisServer) -> None:
    code = """
from esl_apps.config.redis_url import server
from esl_apps.store.connection import Connection, Pool, pack
pool = Pool(lambda: Connection(server(url), 2.0), 1, 0.2)
line = pool.take()
gevent.spawn_later(0.05, pool.give_back, line)
print(pool.take() is line)
tell(pool.take)
pool.give_back(line)
pool.close()
print(line._stream, pool.take().ask(pack(("PING",)), 1))
"""
    assert run(server, code).splitlines() == ["True", "redis: no connection has come free", "None [b'PONG']"]


# Watching ---------------------------------------------------------------------------------------------


def test_an_idle_line_that_redis_closes_wakes_who_watches_it(server: RedisServer) -> None:
    code = """
watching = gevent.spawn(client.closes_within, 20)
gevent.sleep(0.05)
began = time.monotonic()
kill_connections()
print(watching.get(), time.monotonic() - began < 10)
print(client.closes_within(0.05), client.ping())
client.close()
print(client.closes_within(0.05), client.ping())
"""
    assert run(server, code).splitlines() == ["True True", "False True", "False True"]


def test_a_watch_that_is_killed_closes_its_line(server: RedisServer) -> None:
    code = """
watching = gevent.spawn(client.closes_within, 20)
gevent.sleep(0.05)
watching.kill()
from esl_apps.store.connection import pack
line = client._connections.take()
print(line._stream, line.ask(pack(("PING",)), 1))
"""
    assert run(server, code) == "None [b'PONG']"


# Logins -----------------------------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Iterator[str]:
    """The folder of a Redis that wants a login, on a Unix socket only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        command = [redis_server(), "--port", "0", "--unixsocket", str(path), "--dir", folder, "--save", ""]
        process = subprocess.Popen([*command, "--requirepass", "s/c"], stdout=subprocess.DEVNULL)
        try:
            yield str(path)
        finally:
            process.terminate()
            process.wait()


def test_logins_and_databases_of_a_unix_socket(server: RedisServer, guarded: str) -> None:
    code = f"""
def reach(login="", query=""):
    made = redis_client.connect(f"unix://{{login}}{guarded}{{query}}")
    assert type(made) is redis_client.FastClient
    return made
for _ in range(100):
    try:
        reach(":s%2Fc@").ping()
        break
    except StoreUnavailable:
        gevent.sleep(0.05)
reach(":s%2Fc@").set("where", "0")
reach(":s%2Fc@").execute_command("ACL", "SETUSER", "node", "on", ">p@ss", "~*", "+@all")
reach("node:p%40ss@", "?db=3").set("where", "3")
print(reach("node:p%40ss@").get("where"), reach(":s%2Fc@", "?db=3").get("where"))
tell(reach().ping)
tell(reach(":wrong@").ping)
tell(reach(":s%2Fc@", "?db=99").ping)
"""
    told = run(server, code).splitlines()
    assert told[0] == "b'0' b'3'"
    assert told[1].startswith("redis: NOAUTH ")
    assert told[2].startswith("redis: WRONGPASS ")
    assert told[3] == "redis: ERR DB index is out of range"


def test_a_url_with_options_goes_through_redis_py(server: RedisServer) -> None:
    code = """
slow = redis_client.connect(url + "?client_name=node1")
print(type(slow).__name__, slow.ping(), slow.client_getname(), slow.closes_within(0.05))
print(slow.send_all([("SET", "a", "1"), ("LPUSH", "a", "x")], raise_on_error=False)[0])
tell(lambda: slow.send_all([("SET", "a", "1"), ("LPUSH", "a", "x")]))
tell(lambda: slow.lpush("a", "x"))
watching = gevent.spawn(slow.closes_within, 20)
gevent.sleep(0.05)
kill_connections()
print(watching.get())
"""
    assert run(server, code).splitlines() == [
        "Client True node1 False",
        "True",
        *["redis: WRONGTYPE Operation against a key holding the wrong kind of value"] * 2,
        "True",
    ]


# Servers that answer otherwise ------------------------------------------------------------------------

#: In Redis's place, a server that answers with ``lines``, a byte at a time.
SAYS = """
from gevent.server import StreamServer
def says(*lines):
    left = list(lines)
    def serve(sock, _address):
        while sock.recv(65536):
            for byte in left.pop(0) if left else b"+PONG\\r\\n":
                sock.sendall(bytes([byte]))
                gevent.sleep(0)
    fake = StreamServer(("127.0.0.1", 0), serve)
    fake.start()
    return redis_client.connect(f"redis://127.0.0.1:{fake.server_port}/0")
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
loading, read_only = b"-LOADING Redis is loading the dataset\\r\\n", b"-READONLY You can't write\\r\\n"
fake = says(loading, read_only, b"$1\\r\\nx\\r\\n")
line = fake._connections.take()
fake._connections.give_back(line)
tell(lambda: fake.get("x"))
print(line._stream)
tell(lambda: fake.get("x"))
print(line._stream is not None)
tell(lambda: fake.get("x"))
"""
    assert run(server, SAYS + code).splitlines() == [
        "redis: LOADING Redis is loading the dataset",
        "None",
        "redis: READONLY You can't write",
        "True",
        "b'x'",
    ]


def test_what_is_no_redis_is_away(server: RedisServer) -> None:
    code = """
fake = says(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
tell(lambda: fake.get("x"))
tell(lambda: fake.ping())
"""
    told = run(server, SAYS + code).splitlines()
    assert told[0].startswith("redis: not a Redis: ")
    assert told[1] == "True"


def test_an_answer_cut_anywhere_is_no_answer(server: RedisServer) -> None:
    code = """
whole = b"*2\\r\\n$5\\r\\nhello\\r\\n:12\\r\\n"
from gevent.server import StreamServer
cut = [0]
def serve(sock, _address):
    sock.recv(65536)
    sock.sendall(whole[:cut[0]])
    sock.close()
fake = StreamServer(("127.0.0.1", 0), serve)
fake.start()
cutting = redis_client.connect(f"redis://127.0.0.1:{fake.server_port}/0")
told = set()
for cut[0] in range(len(whole)):
    try:
        told.add(str(cutting.execute_command("EVALSHA", "x", 0)))
    except StoreUnavailable as error:
        told.add(str(error))
print(told)
cut[0] = len(whole)
tell(lambda: cutting.execute_command("EVALSHA", "x", 0))
"""
    assert run(server, SAYS + code).splitlines() == [
        "{'redis: the connection broke: closed by the server'}",
        "[b'hello', 12]",
    ]
