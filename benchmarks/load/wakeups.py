"""Read a trace by strace of a node that marks its wake-ups (``marked_node``): what woke it, what it read and wrote.

strace has to say the addresses of sockets and all bytes: ``strace -f -ttt -yy -s 65536``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from esl_apps.store.script import sha_of, text_of
from tests.support.commands import split

_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_FD = re.compile(r"(\d+)<((?:TCP|TCPv6|UNIX|UNIX-STREAM):\[.*?\]|[^>]*)>")
_TCP = re.compile(r"TCP(?:v6)?:\[.*?:(\d+)(?:->.*?:(\d+))?\]")
_READY = re.compile(r"data=\{u32=(\d+)")
_APP = re.compile(r"execute-app-name: (\w+)")
_FRAME = re.compile(r"Event-Name: ([A-Z_]+)|(command/reply)|(api/response)|\\n(key: )|(disconnect-notice)")
_ARRAY = re.compile(r"\*\d+\\r\\n((?:\$\d+\\r\\n.*?\\r\\n)+?)(?=\*\d+\\r\\n\$|\"|$)", re.DOTALL)
_TOKEN = re.compile(r"\$\d+\\r\\n(.*?)\\r\\n", re.DOTALL)
_VARYING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\d+")
#: Peers that only calls have to do with.
_OF_CALLS = {"call", "HTTP"}
#: The marking's own calls.
_OURS = {"clock_gettime"}
_READS, _WRITES = {"recvfrom", "read", "recvmsg"}, {"sendto", "write", "sendmsg", "writev", "pwrite64"}


@dataclass(frozen=True)
class Syscall:
    thread: int
    at: float
    name: str
    args: str
    result: int
    path: str
    """The file or socket of its first argument, as strace has it."""
    fd: int


@dataclass
class Part:
    """Bytes and names of all that was read from, or written to, one peer."""

    size: int = 0
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        names = ", ".join(f"{count} {name}" if count > 1 else name for name, count in Counter(self.names).items())
        return f"{self.size:,} {names}".rstrip()


@dataclass
class WakeUp:
    at: float
    by: list[str]
    """The peers that woke the process; none: a timer."""
    read: dict[str, Part] = field(default_factory=dict)
    written: dict[str, Part] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    """System calls by name."""
    cpu: float = 0.0
    """Microseconds of the thread's CPU, under strace."""
    of_call: bool = False
    """A call caused it; otherwise it would have been without calls, too."""


def parsed(lines: Iterable[str]) -> Iterator[Syscall]:
    """Yield the system calls of a trace, each at its end."""
    unfinished: dict[str, str] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        thread, at, text = match[1], match[2], match[3].rstrip("\n")
        if text.endswith("<unfinished ...>"):
            unfinished[thread] = text.removesuffix("<unfinished ...>")
            continue
        if (resumed := _RESUMED.match(text)) is not None:
            text = unfinished.pop(thread, f"{resumed[1]}(") + resumed[2]
        call = _CALL.match(text)
        if call is None:
            continue
        file = _FD.match(call[2])
        result = -1 if call[3] == "?" else int(call[3], 0)
        fd, path = (int(file[1]), file[2]) if file is not None else (-1, "")
        yield Syscall(int(thread), float(at), call[1], call[2], result, path, fd)


@dataclass(frozen=True)
class Peers:
    """How sockets and files are called, by port and by name."""

    local: Mapping[int, str]
    remote: Mapping[int, str]
    marks: str

    def name(self, path: str) -> str:
        match = _TCP.match(path)
        if match is None:
            return "log" if path.endswith(".log") else "file"
        local, remote = int(match[1]), int(match[2] or 0)
        return self.local.get(local) or self.remote.get(remote) or "other"


class Reader:
    """Reads a trace of one thread. Knows what its sockets are, and what was last asked on each."""

    def __init__(self, main: int, peers: Peers, background: Set[str] = frozenset()) -> None:
        """``background``: the forms of commands that no call causes (``all_forms``)."""
        self._main, self._peers, self._background = main, peers, background
        self._names: dict[int, str] = {}
        self._asked_by_call: dict[int, bool] = {}
        self._scripts = script_names()

    def wakeups(self, calls: Iterable[Syscall]) -> Iterator[WakeUp]:
        """Yield the wake-ups. A pass of the loop that didn't wait belongs to the one before it."""
        current: WakeUp | None = None
        for call in calls:
            if call.thread != self._main or call.name in _OURS:
                continue
            if call.name in {"epoll_wait", "epoll_pwait"}:
                waited = not call.args.rstrip().endswith(", 0")
                if waited or call.result or current is None:
                    if current is not None:
                        yield current
                    current = WakeUp(call.at, self._ready(call))
                current.calls["epoll_wait"] += 1
            elif current is not None:
                self._note(call, current)
        if current is not None:
            yield current

    def _ready(self, call: Syscall) -> list[str]:
        fds = map(int, _READY.findall(call.args)) if call.result > 0 else ()
        return list(dict.fromkeys(self._names.get(fd) or "loop" for fd in fds))

    def _note(self, call: Syscall, current: WakeUp) -> None:
        if call.path == self._peers.marks:
            if call.name == "write":
                current.cpu += int(call.args.split('"')[1].split(" ")[0]) / 1000
            return
        current.calls[call.name] += 1
        if not call.path:
            return
        name = self._names[call.fd] = self._peers.name(call.path)
        if call.result <= 0:
            return
        if call.name in _WRITES:
            self._asked_by_call[call.fd] = not forms(name, call) <= self._background
            _add(current.written, name, call, self._scripts)
        elif call.name in _READS:
            _add(current.read, name, call, self._scripts)
        else:
            return
        asked = name in {"Redis", "switch"} and self._asked_by_call.get(call.fd, False)
        told = name == "switch" and "Event-Name: " in call.args
        current.of_call |= name in _OF_CALLS or asked or told


def _add(parts: dict[str, Part], name: str, call: Syscall, scripts: Mapping[str, str]) -> None:
    part = parts.setdefault(name, Part())
    part.size += call.result
    text = _text(call)
    if name == "Redis":
        part.names += redis_commands(text, scripts)
    elif call.name in _READS:
        part.names += frames(text)
    elif name in {"call", "switch"}:
        part.names += commands(text)


def _text(call: Syscall) -> str:
    return call.args.partition('"')[2].rpartition('"')[0]


def frames(text: str) -> list[str]:
    """Return what each frame of the switch is: an event's name, ``reply``, ``key`` or ``linger``."""
    result = []
    for event, reply, api, key, notice in _FRAME.findall(text):
        if event:
            result.append(event.removeprefix("CHANNEL_"))
        else:
            result.append("reply" if reply or api else "key" if key else "linger" if notice else "")
    return result


def commands(text: str) -> list[str]:
    """Return the commands to a switch: the application of an execute, otherwise the first word or two."""
    result = []
    for command in split(text.encode().decode("unicode_escape").encode("latin-1"))[0]:
        line = command.partition(b"\n")[0].decode()
        app = _APP.search(command.decode())
        words = line.split(" ")
        result.append(app[1] if app else " ".join(words[:2]) if words[0] in {"api", "bgapi"} else words[0])
    return result


def redis_commands(text: str, scripts: Mapping[str, str]) -> list[str]:
    """Return the names of commands to Redis, those of scripts in lower case; none for an answer of Redis."""
    result = []
    for body in _ARRAY.findall(text):
        tokens = _TOKEN.findall(body)
        if tokens and tokens[0].isupper():
            result.append(scripts.get(tokens[1], "a script") if tokens[0] == "EVALSHA" else tokens[0])
    return result


def script_names() -> dict[str, str]:
    """Return the name of each script of the store, by the hash that Redis knows it by."""
    from esl_apps import store

    folder = Path(store.__path__[0]) / "lua"
    return {sha_of(text_of(path.stem)): path.stem for path in folder.glob("*.lua")}


def all_forms(calls: Iterable[Syscall], peers: Peers) -> set[str]:
    """Return the forms of all that was written to Redis and to the switch's inbound socket."""
    result: set[str] = set()
    for call in calls:
        if call.name in _WRITES and call.path and (name := peers.name(call.path)) in {"Redis", "switch"}:
            result |= forms(name, call)
    return result


def forms(name: str, call: Syscall) -> set[str]:
    """Return commands without what differs each time: those to Redis with their first keys."""
    if name != "Redis":
        return set(commands(_text(call)))
    result = set()
    for body in _ARRAY.findall(_text(call)):
        tokens = _TOKEN.findall(body)
        is_script = tokens[:1] == ["EVALSHA"]
        key = tokens[3] if is_script and len(tokens) > 3 else "".join(tokens[1:2])
        result.add(" ".join([*tokens[: 2 if is_script else 1], _VARYING.sub("#", key)]))
    return result


def merged(parts: Mapping[str, Part]) -> str:
    return "; ".join(f"{name} {part}" for name, part in parts.items())
