"""The budget of a call: what is read from a trace by strace."""

from __future__ import annotations

from benchmarks.load.wakeups import Peers, Reader, WakeUp, all_forms, merged, parsed
from benchmarks.suites.budget import counted
from esl_apps.store.script import sha_of, text_of

PEERS = Peers({9000: "call"}, {8021: "switch", 6379: "Redis"}, "/dev/shm/marks")
CALL = "11<TCP:[127.0.0.1:9000->127.0.0.1:40000]>"
REDIS = "18<TCP:[127.0.0.1:41000->127.0.0.1:6379]>"
SCRIPT = sha_of(text_of("usage_begin"))


def woken(*lines: str, background: frozenset[str] = frozenset()) -> list[WakeUp]:
    numbered = [f"7 {number}.5 {line}" for number, line in enumerate(lines)]
    return list(Reader(7, PEERS, background).wakeups(parsed(numbered)))


def wait(*fds: int, timeout: int = 50) -> str:
    ready = ", ".join(f"{{events=EPOLLIN, data={{u32={fd}, u64=8589934610}}}}" for fd in fds)
    return f"epoll_wait(4<anon_inode:[eventpoll]>, [{ready}], 64, {timeout}) = {len(fds)}"


def read(socket: str, text: str) -> str:
    return f'recvfrom({socket}, "{text}", 65536, 0, NULL, NULL) = {len(text)}'


def written(socket: str, text: str) -> str:
    return f'sendto({socket}, "{text}", {len(text)}, 0, NULL, 0) = {len(text)}'


def asked(*tokens: str) -> str:
    return f"*{len(tokens)}\\r\\n" + "".join(f"${len(token)}\\r\\n{token}\\r\\n" for token in tokens)


EVENT = "Content-Length: 900\\nContent-Type: text/event-plain\\n\\nEvent-Name: CHANNEL_ANSWER\\nCore-UUID: 1"
REPLY = "Content-Type: command/reply\\nReply-Text: +OK\\n\\n"


def test_wakeup_has_what_was_read_and_written() -> None:
    execute = "sendmsg\\ncall-command: execute\\nexecute-app-name: playback\\nexecute-app-arg: x\\n\\n"
    _, one = woken(
        wait(), read(CALL, REPLY), wait(11), read(CALL, REPLY + EVENT), written(CALL, "linger 5\\n\\n" + execute)
    )
    assert one.by == ["call"]
    assert merged(one.read) == f"call {len(REPLY + EVENT)} reply, ANSWER"
    assert one.written["call"].names == ["linger", "playback"]
    assert one.of_call


def test_pass_that_did_not_wait_belongs_to_the_one_before() -> None:
    (one,) = woken(wait(), read(CALL, REPLY), wait(timeout=0), read(CALL, REPLY))
    assert one.read["call"].names == ["reply", "reply"]
    assert one.calls["epoll_wait"] == 2


def test_cpu_comes_from_the_marks_which_are_no_call() -> None:
    (one,) = woken(wait(), 'write(3</dev/shm/marks>, "4700 9000\\n", 10) = 10')
    assert one.cpu == 4.7
    assert one.calls == {"epoll_wait": 1}


def test_redis_scripts_have_their_names() -> None:
    text = asked("EVALSHA", SCRIPT, "1", "a:{b}:limits", "1") + asked("GET", "x")
    (one,) = woken(wait(), written(REDIS, text))
    assert one.written["Redis"].names == ["usage_begin", "GET"]


def test_background_is_known_by_its_form_without_numbers() -> None:
    line = f"7 1.0 {written(REDIS, asked('GET', 'done:01a2299d-d1ad-7335-ba95-2c1e0e9632b7'))}"
    background = frozenset(all_forms(parsed([line]), PEERS))
    other = written(REDIS, asked("GET", "done:77a2299d-d1ad-7335-ba95-2c1e0e963000"))
    first, answer, call = woken(
        wait(), other, wait(18), read(REDIS, "$-1"), wait(), written(REDIS, asked("GET", "a")), background=background
    )
    assert [first.of_call, answer.of_call, call.of_call] == [False, False, True]


def test_call_that_was_interrupted_is_put_together() -> None:
    lines = [
        f"7 1.0 recvfrom({CALL},  <unfinished ...>",
        "9 1.1 futex(0x55, FUTEX_WAIT, 0, NULL) = 0",
        f'7 1.2 <... recvfrom resumed>"{REPLY}", 65536, 0, NULL, NULL) = 40',
    ]
    calls = [call for call in parsed(lines) if call.thread == 7]
    assert [(call.name, call.result, call.fd) for call in calls] == [("recvfrom", 40, 11)]


def test_counts_of_strace_are_read_with_and_without_errors() -> None:
    text = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 48.67    0.000073           2        30        13 openat\n"
        " 22.00    0.000033           1        21           mmap\n"
        "100.00    0.000150           1       218        13 total\n"
    )
    assert counted(text) == {"openat": 30, "mmap": 21}
