"""The inbound event socket of one switch: originates, kills, and the events of legs that ring.

There is one connection per switch, kept for ever: it reconnects with back-off and jitter, subscribes again, and
notices a dead or stopped peer by pings, which TCP alone would not.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent import socket
from gevent.event import AsyncResult
from gevent.event import Event as Flag
from gevent.lock import Semaphore

from esl_apps.core.reference import new_job
from esl_apps.esl import wire
from esl_apps.esl.answers import NO_WAITER, Job, NoWaiter, ReplyError, SwitchUnavailable
from esl_apps.esl.greenswitch_base import GreenswitchInbound, NotConnectedError
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import Event, Framer, FramingError
from esl_apps.net.address import plain
from esl_apps.net.allowance import UNIT, Allowance
from esl_apps.net.stream import Stream
from esl_apps.process import background

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
REPLY_TIMEOUT = 5.0
PING_EVERY = 2.0
BACKOFF_FIRST, BACKOFF_LAST = 0.1, 5.0
#: Seconds after which a new connection's switch is first asked for its time.
_TIMED_AFTER = 0.25
#: If a connection that lasted longer than these seconds is lost, reconnect at once.
SETTLED = 1.0
#: Units of work (``net.allowance``) that a switch may bring before other connections go first: 1,000 calls at once, and
#: what fills a sixth of a core.
_BURST, _RATE = 4000, 5000.0
#: Fewer bytes than any event has: the switch's names, addresses and dates alone are longer. Replies to what was posted,
#: which nothing waits for, come with the next event.
_SMALLEST_EVENT = 400


class Switch(GreenswitchInbound):  # type: ignore[misc]
    """greenswitch's inbound connection, kept alive, with waits that end (hazards 2, 3 and 5)."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        password: str,
        *,
        events: str = "BACKGROUND_JOB",
        filters: tuple[str, ...] = (),
        on_event: Callable[[Switch, Event], None] | None = None,
        on_up: Callable[[Switch], None] | None = None,
        on_down: Callable[[Switch], None] | None = None,
        observe_ping: Callable[[float], None] | None = None,
    ) -> None:
        """``events``: names to subscribe to. ``filters``: ``Header value`` each; an event must match one of them.
        One that matches ``Header -value`` isn't sent.

        The callbacks run in the connection's own greenlet and must not wait.
        """
        # Not super().__init__(), which makes a queue and a poll that this class doesn't use.
        self.name = name
        self.host, self.port = address
        self.password = password
        self.connected = False
        self.core_uuid: str | None = None
        """Identifies the FreeSWITCH process. If it differs after a reconnect, the old process's calls are gone."""
        self.clock = SwitchClock()
        """That process's clock."""
        self.addresses: frozenset[str] = frozenset()
        """Its host's addresses, as of the last try to connect."""
        self.reconnects = 0
        self.round_trip: float | None = None
        """Seconds that the last ping took."""
        self.status = ""
        """The last output of its ``status`` command: whether it is ready, its sessions, and their limit."""
        self._asked_at: float | None = None
        self.last_error = "not connected yet"
        self._events = events
        self._filters = filters
        self._on_event = on_event or (lambda _switch, _event: None)
        self._on_up = on_up or (lambda _switch: None)
        self._on_down = on_down or (lambda _switch: None)
        self._observe_ping = observe_ping or (lambda _seconds: None)
        self._replies: deque[AsyncResult[Event] | NoWaiter] = deque()
        #: How many of them a greenlet waits for.
        self._waiters = 0
        self._posted: list[bytes] = []
        self._posting = Flag()
        """Set while posted frames wait for the switch to read on."""
        self._unsent: tuple[Stream, bytes] | None = None
        """The rest of a write of posted frames. Until it is written, ``_writing`` is held."""
        self._poster: gevent.Greenlet[[], None] | None = None
        self._jobs: dict[str, Job] = {}
        self._timing: Job | None = None
        self._writing = Semaphore()
        self._up = Flag()
        self._hurry = Flag()
        self._keeper: gevent.Greenlet[[], None] | None = None
        self._stopping = False
        self.sock: Stream | None = None

    # Life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and stay connected until `stop`."""
        self._keeper = background.keep("switch", self._keep, switch=self.name)
        self._poster = background.keep("switch_posts", self._post_slowly, switch=self.name)

    def wait_up(self, timeout: float | None = None) -> bool:
        return bool(self._up.wait(timeout))

    def stop(self) -> None:
        self._stopping = True
        for greenlet in (self._keeper, self._poster):
            if greenlet is not None:
                greenlet.kill()
        self._lost("stopped")

    def _keep(self) -> None:
        try:
            self._stay_connected()
        except Exception as error:
            # Whatever it was: release those who wait, and connect again.
            self._lost(f"{type(error).__name__}: {error}")
            raise

    def _stay_connected(self) -> None:
        delay = pause = BACKOFF_FIRST
        while not self._stopping:
            try:
                self._connect()
            except (OSError, NotConnectedError, FramingError, ValueError) as error:
                reason = str(error) or type(error).__name__
                if reason != self.last_error:
                    log.warning("switch_unreachable", extra={"switch": self.name, "reason": reason})
                self._lost(reason)
                self._pause(delay * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                delay = min(delay * 2, BACKOFF_LAST)
                continue
            delay = BACKOFF_FIRST
            since = time.monotonic()
            log.info("switch_connected", extra={"switch": self.name, "core_uuid": self.core_uuid})
            pinger = background.keep("switch_ping", self._ping, switch=self.name)
            timer = background.later(_TIMED_AFTER, "switch_time", self._ask_time)
            try:
                reason = self._read()
            finally:
                gevent.killall([pinger, timer])
            if not self._stopping:
                log.warning("switch_lost", extra={"switch": self.name, "reason": reason})
                self.reconnects += 1
                self._lost(reason)
                if time.monotonic() - since > SETTLED:
                    pause = BACKOFF_FIRST
                    continue
                # Back off: a switch that crashes after each login would be asked in a tight loop.
                gevent.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                pause = min(pause * 2, SETTLED)

    def hurry(self) -> None:
        """Try to connect again soon, if it isn't connected: its FreeSWITCH is back, because a call has come from it, or
        a call waits for it."""
        self._hurry.set()

    def _pause(self, seconds: float) -> None:
        """Wait before the next try to connect: less long if it hurries."""
        self._hurry.clear()
        least = min(seconds, BACKOFF_FIRST)
        gevent.sleep(least)
        self._hurry.wait(seconds - least)

    def _connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        self.addresses = frozenset(plain(str(info[4][0])) for info in found)
        sock = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = Stream(sock)
        self._framer = Framer(wire.MAX_LISTING)
        self._backlog: deque[Event] = deque()
        hello = self._first(time.monotonic() + CONNECT_TIMEOUT)
        if hello.content_type != wire.AUTH_REQUEST:
            raise SwitchUnavailable(f"refused by the switch's ACL: {hello.data.strip() or hello.content_type.decode()}")
        if not self._ask(f"auth {self.password}").ok:
            raise SwitchUnavailable("the switch refused the password")
        core_uuid = self._ask("api global_getvar core_uuid").data.strip() or None
        if core_uuid != self.core_uuid:
            # Calls of the old process keep its clock, for what it has left in its files.
            self.core_uuid, self.clock = core_uuid, SwitchClock(self.clock.ahead)
        for text in self._filters:
            self._ask(f"filter {text}")
        # Last, because ``_read`` dispatches what follows this reply.
        if not self._ask(f"event plain {self._events}").ok:
            raise SwitchUnavailable("the switch refused the subscription")
        self.connected = True
        self.last_error = ""
        self._up.set()
        self._call_back(self._on_up, self)

    def _first(self, deadline: float) -> Event:
        """Return the next frame, before ``_read`` runs."""
        while not self._backlog:
            self._backlog.extend(self._framer.feed(self._received(deadline)))
        return self._backlog.popleft()

    def _received(self, deadline: float | None) -> bytes:
        """Return what comes next on the connection."""
        sock = self.sock
        assert sock is not None
        data = sock.recv(deadline)
        if data is None:
            raise TimeoutError("timed out")
        if not data:
            raise SwitchUnavailable("closed by the switch")
        return data

    def _ask(self, text: str) -> Event:
        assert self.sock is not None
        deadline = time.monotonic() + CONNECT_TIMEOUT
        self.sock.send(wire.command(text), CONNECT_TIMEOUT)
        while True:
            frame = self._first(deadline)
            if frame.content_type in (wire.COMMAND_REPLY, wire.API_RESPONSE):
                return frame
            if frame.content_type == wire.DISCONNECT:
                raise SwitchUnavailable(frame.data.strip())

    def _read(self) -> str:
        """Dispatch frames until the connection ends; return why it ended."""
        allowance = Allowance((self.host, self.port), _BURST, _RATE)
        try:
            for frame in self._backlog:
                allowance.spend()
                self._dispatch(frame)
            while True:
                if self.sock is not None:
                    self.sock.wait_for(1 if self._waiters or self._framer.is_within else _SMALLEST_EVENT)
                data = self._received(None)
                if allowance.over(1 + (len(data) >> UNIT)):
                    allowance.give_way()
                for frame in self._framer.feed(data):
                    if allowance.over():
                        allowance.give_way()
                    self._dispatch(frame)
        except (OSError, FramingError, SwitchUnavailable) as error:
            return self.last_error or str(error)

    def _dispatch(self, frame: Event) -> None:
        if frame.content_type == wire.EVENT_PLAIN:
            if frame.name == b"BACKGROUND_JOB":
                job = self._jobs.pop(frame.get("Job-UUID") or "", None)
                if job is not None:
                    self.clock.hear(frame, job.sent_at, time.monotonic())
                    job.answer(frame.data)
                return
            self._call_back(self._on_event, self, frame)
        elif frame.content_type in (wire.COMMAND_REPLY, wire.API_RESPONSE):
            if not self._replies:
                raise FramingError("a reply to nothing")
            reply = self._replies.popleft()
            if reply is not NO_WAITER:
                self._waiters -= 1
            reply.set(frame)
        elif frame.content_type == wire.DISCONNECT:
            raise FramingError("the switch said goodbye")

    def _call_back(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Run a callback; a fault in it must not end the connection."""
        try:
            callback(*arguments)
        except Exception:
            log.exception("event_handler_failed", extra={"switch": self.name})

    def _ping(self) -> None:
        """Ping the switch: a stopped FreeSWITCH keeps its connections open and says nothing."""
        while True:
            gevent.sleep(PING_EVERY)
            self._ask_time()
            self._asked_at = start = time.monotonic()
            answered = False
            # The time-out also covers the write, which waits if the switch's buffers are full.
            with gevent.Timeout(REPLY_TIMEOUT, False), suppress(NotConnectedError):  # type: ignore[arg-type]
                self.status = self.send("api status", REPLY_TIMEOUT).data
                answered = True
            self._asked_at = None
            if not answered:
                self.last_error = f"no answer within {REPLY_TIMEOUT:g} s"
                if self.sock is not None:
                    # Wake the reader. A close from another greenlet would not.
                    with suppress(OSError):
                        self.sock.shutdown(socket.SHUT_RDWR)
                return
            self.round_trip = time.monotonic() - start
            self._observe_ping(self.round_trip)

    def _ask_time(self) -> None:
        """Have the switch make an event, which says its time. Nothing waits for it."""
        with suppress(NotConnectedError), gevent.Timeout(REPLY_TIMEOUT, False):  # type: ignore[arg-type]
            if self._timing is None or self._timing.done:
                self._timing = self.bgapi("status")

    def silent_for(self) -> float:
        """Seconds since a ping that has had no answer yet; 0 if there is none."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    def _lost(self, reason: str) -> None:
        was_up, self.connected = self.connected, False
        self.last_error = reason
        self._up.clear()
        if self.sock is not None:
            self.sock.close()
        error = SwitchUnavailable(f"switch {self.name}: {reason}")
        self._posted = []
        replies, self._replies = self._replies, deque()
        self._waiters = 0
        for reply in replies:
            reply.set_exception(error)
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            job.fail(error)
        if was_up:
            self._call_back(self._on_down, self)

    def also_hear(self, text: str) -> None:
        """Add a filter, ``Header value``, now and after each reconnect."""
        if text not in self._filters:
            self._filters += (text,)
            with suppress(NotConnectedError):
                self.send(f"filter {text}")

    # Commands -----------------------------------------------------------------------------------------

    def _write(self, raw: bytes) -> AsyncResult[Event]:
        sock = self.sock
        if not self.connected or sock is None:
            raise SwitchUnavailable(f"switch {self.name}: {self.last_error}")
        reply: AsyncResult[Event] = AsyncResult()
        try:
            # A send that blocks lets other greenlets run. Their commands must not land inside this one.
            with self._writing:
                if not self.connected or self.sock is not sock:
                    # The connection was lost while this waited for the lock, so the command has failed.
                    raise SwitchUnavailable(f"switch {self.name}: {self.last_error or 'reconnected'}")
                # Inside the lock, because replies come in the order of the writes.
                posted = self._take_posted()
                self._replies.append(reply)
                self._waiters += 1
                sock.wait_for(1)
                sock.send(posted + raw, REPLY_TIMEOUT)
        except OSError as error:
            self.last_error = f"write failed: {error}"
            raise SwitchUnavailable(self.last_error) from None
        return reply

    def _take_posted(self) -> bytes:
        """Return the posted frames, to be written first, and expect their replies."""
        posted, self._posted = self._posted, []
        self._replies.extend([NO_WAITER] * len(posted))
        return b"".join(posted)

    def _post(self) -> None:
        """Write posted frames that no command has taken along: those of one turn of the event loop in one write. The
        loop calls this, so it must not wait."""
        sock = self.sock
        if not self.connected or not self._posted or sock is None or self._posting.is_set():
            return
        if not self._writing.acquire(blocking=False):
            self._posting.set()
            return
        rest = b""
        try:
            rest = sock.send_now(self._take_posted())
        except OSError as error:
            # The reader will see the connection end.
            self.last_error = f"write failed: {error}"
        if rest:
            self._unsent = sock, rest
            self._posting.set()
        else:
            self._writing.release()

    def _post_slowly(self) -> None:
        """Write posted frames that the switch doesn't read at once, and those posted meanwhile."""
        while True:
            self._posting.wait()
            if self._unsent is None:
                self._writing.acquire()
            try:
                if self._unsent is not None:
                    self._unsent[0].send(self._unsent[1], REPLY_TIMEOUT)
                while self.connected and self._posted and self.sock is not None:
                    self.sock.send(self._take_posted(), REPLY_TIMEOUT)
            except OSError as error:
                self.last_error = f"write failed: {error}"
            finally:
                self._unsent = None
                self._posting.clear()
                self._writing.release()

    def send(self, data: str, timeout: float = REPLY_TIMEOUT) -> Event:
        """Send one command and return its reply.

        :raises SwitchUnavailable: not connected, or no reply within ``timeout``.
        """
        reply = self._write(wire.command(data))
        try:
            frame = reply.get(timeout=timeout)
            assert frame is not None
            return frame
        except gevent.Timeout:
            # Keep its place in the queue: a late reply must not be taken for the next command's.
            raise SwitchUnavailable(f"switch {self.name}: no reply within {timeout:g} s") from None

    def post_raw(self, raw: bytes) -> None:
        """Write a ready frame in this turn of the event loop, without waiting for the reply. If the switch isn't
        connected, do nothing. Never waits."""
        if self.connected:
            if not self._posted:
                gevent.get_hub().loop.run_callback(self._post)
            self._posted.append(raw)

    @property
    def backlog(self) -> int:
        """How many commands wait for their replies. The switch works on one after the other."""
        return len(self._replies)

    def api(self, command: str, timeout: float = REPLY_TIMEOUT) -> str:
        """:raises ReplyError: the output begins with ``-ERR``. :raises SwitchUnavailable: as ``send``."""
        reply = self.send("api " + command, timeout)
        if not reply.ok:
            raise ReplyError(reply.data.strip())
        return reply.data

    def bgapi(self, command: str) -> Job:
        """Start a job; return once it is written. Its answer, or the loss of the connection, ends the job.

        The Job-UUID is chosen here: the answer can come before the reply in which FreeSWITCH would name one.
        :raises SwitchUnavailable: not connected. :raises ValueError: a line break in the command.
        """
        job = Job(new_job())
        raw = wire.command("bgapi " + command)
        self._jobs[job.uuid] = job
        try:
            reply = self._write(raw[:-1] + f"Job-UUID: {job.uuid}\n\n".encode())
        except NotConnectedError:
            self._jobs.pop(job.uuid, None)
            raise
        reply.rawlink(lambda result: self._job_refused(job, result))
        return job

    def _job_refused(self, job: Job, result: Any) -> None:
        if result.successful() and not result.value.ok:
            self._jobs.pop(job.uuid, None)
            job.answer(result.value.data)
