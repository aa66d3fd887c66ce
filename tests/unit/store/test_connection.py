"""The fast path to Redis: each greenlet gets its own answer, even if connections break."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gevent
import pytest
import redis
from gevent.server import StreamServer

from esl_apps.cli.embedded_redis import redis_server
from esl_apps.config import redis_url
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.connection import Connection, Pool, pack
from esl_apps.store.errors import Fault, NoScript, Unsent
from esl_apps.store.fast_client import TIMEOUT, FastClient, fast_client
from esl_apps.store.redis_client import connect
from tests.support import redis_servers
from tests.support.node import RedisServer
from tests.support.peer import eventually

PING = pack(("PING",))


@pytest.fixture(scope="module", params=["", *redis_servers.ENDS])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    made = RedisServer(program=redis_servers.program(request.param) if request.param else "")
    yield made
    made.close()


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    server.client.flushall()
    made = fast_client(server.url)
    yield made
    made.close()


@pytest.fixture
def pool(server: RedisServer) -> Iterator[Pool]:
    """A pool with one connection."""
    made = Pool(lambda: Connection(redis_url.server(server.url), 10.0), 1, 10.0)
    yield made
    made.close()


def kill_connections(server: RedisServer) -> None:
    admin: Any = server.client
    admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def arrived(line: Connection) -> None:
    """Wait until something has come that nothing reads, or the end."""
    assert line._stream is not None
    readable = line._stream._sock.fileno()
    eventually(lambda: select.select([readable], [], [], 0)[0])


def idle(client: Any) -> Connection:
    """The connection that is used next."""
    line: Connection = client._connections._free.queue[-1]
    return line


def told(ask: Callable[[], object]) -> str:
    with pytest.raises(StoreUnavailable) as error:
        ask()
    return str(error.value)


# Asking -----------------------------------------------------------------------------------------------


def test_client_asked_by_many_answers_each(client: Any) -> None:
    asking: list[Any] = [gevent.spawn(client.execute_command, "ECHO", f"{i}" * 1000) for i in range(200)]
    gevent.joinall(asking, raise_error=True)
    assert [one.value.decode() for one in asking] == [f"{i}" * 1000 for i in range(200)]


def test_client_takes_an_answer_of_many_megabytes(client: Any) -> None:
    assert len(client.execute_command("ECHO", b"x" * 20_000_000)) == 20_000_000


def test_client_lets_others_run_while_one_waits(client: Any) -> None:
    waiting = gevent.spawn(client.brpop, ["nothing"], timeout=1)
    gevent.sleep(0)
    for _ in range(50):
        client.ping()
    assert not waiting.ready()
    assert waiting.get() is None


def test_client_reads_answers_as_redis_py_does(client: Any, server: RedisServer) -> None:
    theirs: Any = redis.Redis.from_url(server.url)
    theirs.zadd("z", {"m": 1.5, "n": 1.5})
    theirs.rpush("l", "a", "b")
    theirs.sadd("s", "a", "b")
    for ask in ASKED:
        ours = ask(client)
        client.delete("a", "h")
        assert ask(theirs) == ours
        client.delete("a", "h")


#: Each method, as both clients are called.
ASKED: list[Callable[[Any], object]] = [
    lambda client: [client.set("a", "3", ex=60, nx=True), client.set("a", "3", nx=True), client.get("a")],
    lambda client: [client.get("none"), client.delete("none"), client.ping(), client.time()[0] > 1.7e9],
    lambda client: [
        client.hset("h", "f", "1"),
        client.hset("h", "f", "2"),
        client.hget("h", "f"),
        client.hget("h", "g"),
    ],
    lambda client: [client.hset("h", "f", "1"), client.hgetall("h"), client.hkeys("h"), client.hexists("h", "f")],
    lambda client: [
        client.hset("h", "f", "1"),
        client.hdel("h", "f", "g"),
        client.hgetall("h"),
        client.hexists("h", "f"),
    ],
    lambda client: [client.smembers("s"), client.smembers("none"), client.lrange("l", 0, -1), client.lrange("l", 1, 1)],
    lambda client: [client.zrevrangebylex("z", "[m", "-", 0, 9), client.zrem("z", "none")],
    lambda client: [client.brpop(["l2", "none"], timeout=0.01), client.zrevrangebylex("z", "+", "-", 1, 1)],
    lambda client: [client.info("server")[name] for name in ("tcp_port", "uptime_in_days")],
    lambda client: [client.info("memory")["maxmemory_policy"], client.info("persistence")["aof_enabled"]],
    # -1 until the first dump.
    lambda client: client.info("persistence")["rdb_last_bgsave_time_sec"],
    lambda client: client.send_all([("HGETALL", "none")]) if hasattr(client, "send_all") else [{}],
]


def test_send_all_answers_errors_in_their_places(client: Any) -> None:
    assert client.send_all([]) == []
    commands = [("SET", "a", "1"), ("SET", "a", "2", "NX"), ("GET", "a"), ("LPUSH", "a", "x"), ("HGETALL", "none")]
    answers = client.send_all([*commands, ("EVALSHA", "0" * 40, 0)], raise_on_error=False)
    assert answers[:3] == [True, None, b"1"]
    assert [type(answer) for answer in answers[3:]] == [Fault, dict, NoScript]


def test_send_all_raises_once_all_commands_were_run(client: Any) -> None:
    client.set("a", "1")
    commands = [("SET", "b", "1"), ("LPUSH", "a", "x"), ("SET", "c", "1")]
    assert told(lambda: client.send_all(commands)).startswith("redis: WRONGTYPE ")
    assert client.get("c") == b"1"
    assert told(lambda: client.execute_command("LPUSH", "a", "x")).startswith("redis: WRONGTYPE ")


def test_send_all_with_a_bad_argument_sends_nothing(client: Any) -> None:
    with pytest.raises(TypeError):
        client.send_all([("SET", "first", "1"), ("SET", "second", object())])
    assert client.get("first") is None


# Connections that fail --------------------------------------------------------------------------------


def test_silent_redis_is_away_within_the_time_out(client: Any) -> None:
    pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        assert told(client.ping) == "redis: no answer in time"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert TIMEOUT <= time.monotonic() - began < TIMEOUT + 5
    assert client.ping()


def test_redis_that_is_not_there_is_told_by_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = fast_client(f"redis://:secret@127.0.0.1:{port}")
    assert told(client.ping) == f"redis: 127.0.0.1:{port}: Connection refused"
    assert told(lambda: client.closes_within(1)) == f"redis: 127.0.0.1:{port}: Connection refused"
    client = fast_client("unix:///nowhere/redis.sock")
    assert told(client.ping) == "redis: /nowhere/redis.sock: No such file or directory"


def test_connection_that_redis_closed_is_made_again(client: Any, server: RedisServer) -> None:
    client.ping()
    kill_connections(server)
    arrived(idle(client))
    assert client.ping()


def test_redis_that_is_gone_is_known_to_have_run_nothing() -> None:
    """So the request can be sent again, even if it must not be done twice."""
    server = RedisServer()
    client = fast_client(server.url)
    assert client.ping()
    server.kill()
    arrived(idle(client))
    for ask in (client.ping, lambda: client.send_all([("PING",)])):
        with pytest.raises(Unsent):
            ask()
    server.close()


@pytest.mark.parametrize("in_parser", [False, True])
def test_answer_left_behind_is_not_the_next_ones(pool: Pool, in_parser: bool) -> None:
    line = pool.take()
    line.ask(PING, 1)
    assert line._stream is not None
    line._stream.send(pack(("ECHO", "stray")), 2.0)
    arrived(line)
    if in_parser:
        line._reader.feed(line._stream.look())
    pool.give_back(line)
    assert pool.take().ask(pack(("ECHO", "mine")), 1) == [b"mine"]


def test_greenlet_killed_while_it_waits_leaves_no_answer(client: Any) -> None:
    client.ping()
    loop = "local i = 0 while i < 2000000 do i = i + 1 end return 'late'"
    asking = gevent.spawn(client.execute_command, "EVAL", loop, 0)
    gevent.sleep(0.001)
    asking.kill()
    assert client.execute_command("ECHO", "mine") == b"mine"


def test_pool_that_is_used_up_waits_then_raises(pool: Pool) -> None:
    line = pool.take()
    gevent.spawn_later(0.05, pool.give_back, line)
    assert pool.take() is line
    pool._timeout = 0.05
    assert told(pool.take) == "redis: no connection has come free"


def test_pool_that_was_closed_connects_again(pool: Pool) -> None:
    line = pool.take()
    line.ask(PING, 1)
    pool.give_back(line)
    pool.close()
    assert line._stream is None
    assert pool.take().ask(PING, 1) == [b"PONG"]


# Watching ---------------------------------------------------------------------------------------------


def test_watch_ends_when_redis_closes_the_idle_line(client: Any, server: RedisServer) -> None:
    assert not client.closes_within(0.05)
    watching = gevent.spawn(client.closes_within, 20)
    gevent.sleep(0.05)
    began = time.monotonic()
    kill_connections(server)
    assert watching.get()
    assert time.monotonic() - began < 10
    assert client.ping()


def test_watch_of_a_broken_line_ends(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    line = pool.take()
    line.ask(PING, 1)

    def broken(*_arguments: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(type(line._stream), "recv", broken)
    assert line.closes_within(20)
    assert line._stream is None


def test_watch_that_is_killed_closes_its_line(client: Any) -> None:
    watching = gevent.spawn(client.closes_within, 20)
    gevent.sleep(0.05)
    watching.kill()
    assert client._connections.take()._stream is None


# Logins -----------------------------------------------------------------------------------------------


def is_added(admin: FastClient) -> bool:
    """Add the user of a node; False while Redis starts."""
    try:
        admin.execute_command("ACL", "SETUSER", "node", "on", ">p@ss", "~*", "+@all")
    except StoreUnavailable:
        return False
    return True


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The Unix socket of a Redis that wants a login."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        command = [redis_server(), "--port", "0", "--unixsocket", str(path), "--dir", folder, "--save", ""]
        process = subprocess.Popen([*command, "--requirepass", "s/c"], stdout=subprocess.DEVNULL)
        admin = fast_client(f"unix://:s%2Fc@{path}")
        try:
            eventually(lambda: is_added(admin))
            yield str(path)
        finally:
            process.terminate()
            process.wait()


def test_login_and_database_are_those_of_the_url(guarded: str) -> None:
    fast_client(f"unix://:s%2Fc@{guarded}").set("where", "0")
    fast_client(f"unix://node:p%40ss@{guarded}?db=3").set("where", "3")
    assert fast_client(f"unix://node:p%40ss@{guarded}").get("where") == b"0"
    assert fast_client(f"unix://:s%2Fc@{guarded}?db=3").get("where") == b"3"


def test_login_that_is_refused_is_told(guarded: str) -> None:
    assert told(fast_client(f"unix://{guarded}").ping).startswith("redis: NOAUTH ")
    assert told(fast_client(f"unix://:wrong@{guarded}").ping).startswith("redis: WRONGPASS ")
    assert told(fast_client(f"unix://:s%2Fc@{guarded}?db=99").ping) == "redis: ERR DB index is out of range"


# Servers that answer otherwise ------------------------------------------------------------------------


@pytest.fixture
def says() -> Iterator[Callable[..., Any]]:
    """Makes a client of a server that gives these answers, a byte at a time, and then PONG."""
    servers = []

    def make(*answers: bytes) -> Any:
        left = list(answers)

        def serve(sock: Any, _address: object) -> None:
            while sock.recv(65536):
                for byte in left.pop(0) if left else b"+PONG\r\n":
                    sock.sendall(bytes([byte]))
                    gevent.sleep(0)

        fake = StreamServer(("127.0.0.1", 0), serve)
        fake.start()
        servers.append(fake)
        return fast_client(f"redis://127.0.0.1:{fake.server_port}/0")

    yield make
    for fake in servers:
        fake.stop(0.1)


def test_answer_that_comes_byte_by_byte_is_read(says: Callable[..., Any]) -> None:
    client = says(b"*3\r\n$5\r\nhello\r\n:12\r\n*1\r\n$-1\r\n", b"$0\r\n\r\n")
    assert client.execute_command("EVALSHA", "x", 0) == [b"hello", 12, [None]]
    assert client.get("x") == b""


def test_redis_that_is_loading_is_asked_on_another_line(says: Callable[..., Any]) -> None:
    client = says(b"-LOADING Redis is loading the dataset\r\n", b"-READONLY You can't write\r\n", b"$1\r\nx\r\n")
    line = client._connections.take()
    client._connections.give_back(line)
    assert told(lambda: client.get("x")) == "redis: LOADING Redis is loading the dataset"
    assert line._stream is None
    # Its name may lead to the new master by now.
    assert told(lambda: client.get("x")) == "redis: READONLY You can't write"
    assert line._stream is None
    assert client.get("x") == b"x"


def test_server_that_is_no_redis_is_away(says: Callable[..., Any]) -> None:
    client = says(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert re.match(r"redis: 127\.0\.0\.1:\d+: not a Redis: ", told(lambda: client.get("x")))
    assert client.ping()


def test_answer_cut_anywhere_is_no_answer() -> None:
    whole = b"*2\r\n$5\r\nhello\r\n:12\r\n"
    sent = list(range(len(whole) + 1))

    def serve(sock: Any, _address: object) -> None:
        sock.recv(65536)
        sock.sendall(whole[: sent.pop(0)])
        sock.close()

    fake = StreamServer(("127.0.0.1", 0), serve)
    fake.start()
    client = fast_client(f"redis://127.0.0.1:{fake.server_port}/0")
    cut = {told(lambda: client.execute_command("EVALSHA", "x", 0)) for _ in range(len(whole))}
    assert cut == {"redis: the connection broke: closed by the server"}
    assert client.execute_command("EVALSHA", "x", 0) == [b"hello", 12]
    fake.stop(0.1)


# Which client -----------------------------------------------------------------------------------------


def test_patched_process_gets_the_fast_client(server: RedisServer) -> None:
    code = f"""
from gevent import monkey
monkey.patch_all()
from esl_apps.store.redis_client import connect
for url in ("{server.url}", "unix:///run/redis.sock", "{server.url}?client_name=n", "rediss://127.0.0.1:1"):
    print(type(connect(url)).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["FastClient", "FastClient", "RedisPyClient", "RedisPyClient"]
    assert not isinstance(connect(server.url), FastClient)


def test_redis_py_client_raises_one_exception_too(server: RedisServer) -> None:
    client = connect(server.url + "?client_name=node1")
    assert client.client_getname() in ("node1", b"node1")
    assert client.masters() == [client]
    commands = [("SET", "a", "1"), ("LPUSH", "a", "x"), ("EVALSHA", "0" * 40, 0)]
    answers = client.send_all(commands, raise_on_error=False)
    assert answers[0] is True
    assert [type(answer) for answer in answers[1:]] == [Fault, NoScript]
    assert told(lambda: client.send_all(commands)).startswith("redis: WRONGTYPE ")
    assert told(lambda: client.lpush("a", "x")).startswith("redis: WRONGTYPE ")


def test_redis_py_client_watches_its_line(server: RedisServer) -> None:
    client = connect(server.url)
    assert not client.closes_within(0.05)
    with ThreadPoolExecutor() as threads:
        watching = threads.submit(client.closes_within, 20)
        time.sleep(0.1)
        kill_connections(server)
        assert watching.result(10)
    assert told(lambda: connect("redis://127.0.0.1:1/0").closes_within(1)).startswith("redis: ")
