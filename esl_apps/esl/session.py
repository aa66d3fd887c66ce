"""One call's outbound event socket.

A call has one greenlet, which reads its own socket: a flow that waits for something reads frames until it has come.
There are no reader greenlets, queues or event objects between the wire and the flow. Other libraries spend most of
their time on those; and reading here makes "the caller hung up" visible at every wait. Only the session's own
greenlet may call its methods.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
from gevent import socket

from esl_apps.core.dialstring import UNHEARD
from esl_apps.core.terms import SECRET_VARIABLE
from esl_apps.esl import wire
from esl_apps.esl.answers import ReplyError
from esl_apps.esl.greenswitch_base import GreenswitchSession, OutboundSessionHasGoneAway
from esl_apps.esl.proof import Proof
from esl_apps.esl.wire import EVENT_PLAIN, KEYS, Event, Framer, FramingError
from esl_apps.net.allowance import UNIT, Allowance
from esl_apps.net.stream import Stream

log = logging.getLogger(__name__)

#: A command's reply comes within milliseconds; a switch that takes this long is stopped or gone.
REPLY_TIMEOUT = 10.0
#: Seconds for the reply to ``connect``. Three seconds later the dialplan's watchdog takes the caller away.
FIRST_TIMEOUT = 5.0
#: The most bytes of the reply to ``connect``, which comes from a peer that is not known yet.
FIRST_FRAME = 1 << 17
#: Seconds for which the switch keeps the socket after the hang-up, so that CHANNEL_HANGUP_COMPLETE of both legs comes.
LINGER = 5
#: The most bytes of a channel's name. A hang-up's notice contains it, with the caller's From user, unencoded and cut at
#: 512 bytes: the one place where a caller writes on this socket.
NAME_LENGTH = 300
#: Reads of fewer bytes are a trickle, if there are so many that they use up the socket's allowance, and wait so many
#: seconds for more.
_TRICKLE, _TRICKLE_PAUSE = 1024, 0.005
#: Frames of one read that are charged together. A call's reads have fewer.
_GROUP = 16
#: Commands that may wait for their replies on a socket that floods.
_UNANSWERED = 1000
_CONTROL = re.compile(rb"[\x00-\x1f]")
_REPLY_TYPES = frozenset({wire.COMMAND_REPLY, wire.API_RESPONSE})


class Gone(OutboundSessionHasGoneAway):  # type: ignore[misc]
    """The channel hung up (``hung_up``) or its socket was lost. ``str()`` says which."""

    def __init__(self, reason: str, *, hung_up: bool) -> None:
        super().__init__(reason)
        self.hung_up = hung_up


class Silent(TimeoutError):
    """The switch did not reply in time: it is stopped, or gone."""


class Unservable(Exception):
    """The channel has to be hung up. ``str()`` says why."""


class Completion:
    """An application sent to the channel; ``event`` is its CHANNEL_EXECUTE_COMPLETE once it has come."""

    __slots__ = ("app", "error", "event", "uuid")

    def __init__(self, app: str, uuid: str) -> None:
        self.app = app
        self.uuid = uuid
        self.event: Event | None = None
        self.error: str | None = None

    @property
    def done(self) -> bool:
        return self.event is not None or self.error is not None


class _Reply:
    __slots__ = ("completion", "event")

    def __init__(self, completion: Completion | None = None) -> None:
        self.event: Event | None = None
        self.completion = completion


class _Together:
    """``OutboundSession.together``. A generator would cost four more Python calls, several times per call."""

    __slots__ = ("_outermost", "_session")

    def __init__(self, session: OutboundSession) -> None:
        self._session = session
        self._outermost = session._held is None

    def __enter__(self) -> None:
        if self._outermost:
            self._session._held = []

    def __exit__(self, *_error: object) -> None:
        if self._outermost:
            self._session._send_held()


class OutboundSession(GreenswitchSession):  # type: ignore[misc]
    """greenswitch's session, with its reader, its waits and its matching replaced (hazards 1 to 6, and 12).

    ``connect``, ``call_command``, ``send``, ``answer``, ``playback``, ``bridge``, ``hangup``, ``linger``,
    ``uuid_break`` and ``register_handle`` keep their names and meaning.
    """

    uuid: str = ""
    """The channel's (greenswitch makes it a property of ``session_data``)."""

    def __init__(self, client_address: Any, sock: socket.socket) -> None:
        # Not super().__init__(), which starts two greenlets.
        self.client_address = client_address
        self.sock = Stream(sock)
        self.connected = True
        self.event_handlers: dict[str, list[Callable[[Event], None]]] = {}
        self.session_data: Event | None = None
        self.hangup_event: Event | None = None
        """CHANNEL_HANGUP of this channel, once it has come."""
        self.hangup_complete: Event | None = None
        self.on_event: Callable[[Event], None] | None = None
        """Called with every event, in addition to ``event_handlers``. One attribute is cheaper than a dictionary."""
        self.on_keys: Callable[[str, bool], None] | None = None
        """Called with keys that ``bind_digit_action`` diverted, and whether they matched (hazards 27, 28)."""
        self.on_connected: Callable[[OutboundSession], None] | None = None
        """Called when the peer has proved to be a switch, by answering ``connect`` with a channel."""
        self.secrets: Sequence[str] = ()
        """The switch must prove that it knows one of these; empty: it need not."""
        self.close_reason = ""
        self._held: list[bytes] | None = None
        self._asking = False  # a flow waits for a reply, not only for events
        self._lingering = False
        self._named_fairly = True
        self._framer = Framer(FIRST_FRAME)
        self._allowance = Allowance(client_address[0] if client_address else "")
        self._replies: list[_Reply | None] = []
        """Replies to come, in their order; None if no flow waits for it."""
        self._completions: dict[bytes, Completion] = {}
        self._executes = 0

    # For the flow to ask ------------------------------------------------------------------------------

    def connect(self, *commands: str, events: str = "", timeout: float | None = None) -> Event:
        """Take the call over: ``connect`` and ``linger`` in one write, then ``commands`` and, with ``events``, a
        subscription to this channel's events of those names. ``{uuid}`` in a command becomes the channel's.

        Nothing waits for the second write's replies. The filter goes first: without it, other calls' events would come
        (hazard 7).
        :raises Gone: the switch closed instead of answering. :raises Silent: it did not answer in time.
        :raises Unservable: the channel can't be named in a command.
        """
        if timeout is None:
            timeout = FIRST_TIMEOUT
        self._replies += [reply := _Reply(), None]
        proof = Proof(self.secrets) if self.secrets else None
        if proof is not None:
            self._replies.append(answer := _Reply())
        self._write(b"connect\n\nlinger %d\n\n" % LINGER + (b"" if proof is None else proof.question))
        self.session_data = data = self._reply(reply, timeout)
        self._framer.most = wire.MAX_FRAME
        if not data.raw(b"Unique-ID"):
            raise Gone("connect was not answered with a channel", hung_up=False)
        self.uuid = data.uuid or ""
        if not self.uuid:
            raise Unservable("its Unique-ID is not a UUID")
        if proof is not None and not proof.is_given_by(self._reply(answer, timeout)):
            raise Unservable(f"its switch has another {SECRET_VARIABLE} than node.secret, or none")
        if self.on_connected is not None:
            self.on_connected(self)
            self.on_connected = None
        name = unquote_to_bytes(data.raw(b"Channel-Name") or b"")
        self._named_fairly = len(name) <= NAME_LENGTH and not _CONTROL.search(name)
        if data.raw(b"Answer-State") == b"hangup":
            self._lingering = True
        rest = [text.replace("{uuid}", self.uuid) for text in commands]
        if events:
            rest += [f"filter Unique-ID {self.uuid}", f"event plain {events}"]
        if rest:
            self.post(*rest)
        return data

    @property
    def hung_up(self) -> bool:
        return self._lingering or self.hangup_event is not None

    def send(self, data: str, timeout: float = REPLY_TIMEOUT) -> Event:
        """Send one command and return its reply.

        :raises Gone: the socket closed before the reply. :raises Silent: none came in time. :raises ValueError: a line
            break in the command.
        """
        raw = wire.command(data)
        self._replies.append(reply := _Reply())
        self._write(raw)
        return self._reply(reply, timeout)

    def post(self, *commands: str) -> None:
        """Send commands in one write, without waiting for their replies."""
        raw = b"".join(map(wire.command, commands))
        self._replies.extend([None] * len(commands))
        self._write(raw)

    def post_raw(self, raw: bytes) -> None:
        """Send one ready frame (``wire.custom_event``), without waiting for its reply."""
        self._replies.append(None)
        self._write(raw)

    def api(self, command: str, timeout: float = REPLY_TIMEOUT) -> str:
        """Run an api command and return its output. :raises ReplyError: it begins with ``-ERR``."""
        reply = self.send("api " + command, timeout)
        if not reply.ok:
            raise ReplyError(reply.data.strip())
        return str(reply.data)

    def execute(self, app: str, arg: str = "", *, lock: bool = False) -> Completion:
        """Start an application on the channel; ``finish`` waits for it.

        :raises Gone: the channel has hung up.
        """
        if self.hung_up:
            raise Gone("the channel hung up", hung_up=True)
        self._executes += 1
        uuid = str(self._executes)
        raw = wire.execute(app, arg, uuid, lock=lock)
        # Registered before the write: the completion can arrive together with the reply.
        self._completions[uuid.encode()] = completion = Completion(app, uuid)
        self._replies.append(_Reply(completion))
        self._write(raw)
        return completion

    def post_execute(self, app: str, arg: str = "", *, lock: bool = False) -> None:
        """Start an application without waiting for its end. After ``filter Application-UUID -0`` the switch doesn't
        report the end at all, which saves an event with all the channel's headers.

        :raises Gone: the channel has hung up.
        """
        if self.hung_up:
            raise Gone("the channel hung up", hung_up=True)
        self.post_raw(wire.execute(app, arg, UNHEARD, lock=lock))

    def hangup(self, cause: str = "NORMAL_CLEARING") -> None:
        self.post_execute("hangup", cause)

    def multiset(self, variables: Mapping[str, str]) -> None:
        """Set many variables in one execute, which takes one tick of the switch instead of one each (hazard 8).

        :raises ValueError: every separator occurs in some value.
        """
        used = "".join(variables.values())
        between = next((mark for mark in "|~!;" if mark not in used), None)
        if between is None:
            raise ValueError("no separator is left for these channel variables")
        pairs = between.join([f"{name}={value}" for name, value in variables.items()])
        self.post_execute("multiset", f"^^{between}{pairs}", lock=True)

    def finish(self, completion: Completion, timeout: float | None) -> Event:
        """Wait for an application's end.

        :raises Gone: hang-up or a lost socket. :raises ReplyError: the switch refused it.
        :raises TimeoutError: not within ``timeout``; its late completion will be dropped.
        """
        if not self.wait(lambda: completion.done, timeout):
            self._completions.pop(completion.uuid.encode(), None)
            raise TimeoutError(f"{completion.app} did not complete within {timeout} s")
        if completion.error is not None:
            raise ReplyError(completion.error)
        assert completion.event is not None
        return completion.event

    def wait(self, done: Callable[[], bool], timeout: float | None, *, past_hangup: bool = False) -> bool:
        """Read until ``done()``; False when ``timeout`` seconds passed first.

        :raises Gone: the socket closed, or the channel hung up (unless ``past_hangup``).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            if not past_hangup and self.hung_up:
                raise Gone("the channel hung up", hung_up=True)
            if not self._receive(deadline):
                return done()
        return True

    def together(self) -> _Together:
        """Send everything inside the ``with`` in one write, at its end (the outermost's). Nothing inside may wait."""
        return _Together(self)

    def leave(self) -> None:
        """Send ``exit``, after the channel has ended or to let it go on without us, and close."""
        try:
            if self.connected:
                with suppress(Gone):
                    self._write(b"exit\n\n")
        finally:
            self.close("left")

    def close(self, reason: str) -> None:
        if not self.connected:
            return
        self.connected = False
        self.close_reason = reason
        for completion in self._completions.values():
            completion.error = reason
        self._completions.clear()
        self.sock.close()
        # Listeners hold this session. Without this the cycle, with tens of KB of events, would wait for the collector.
        self.on_event = self.on_keys = None
        self.event_handlers = {}

    # For code written for greenswitch; nothing of ours calls these ------------------------------------

    def call_command(
        self, app_name: str, app_args: str | None = None, block: bool = False, response_timeout: float | None = None
    ) -> Any:
        completion = self.execute(app_name, app_args or "")
        return self.finish(completion, response_timeout) if block else completion

    def playback(self, path: str, block: bool = True) -> Any:
        return self.call_command("playback", path, block=block)

    def answer(self) -> Event:
        return self.finish(self.execute("answer"), REPLY_TIMEOUT)

    def myevents(self) -> None:
        self.send("myevents")

    def linger(self, timeout: int | None = None) -> None:
        """Send ``linger`` with a number: without one, a client that forgets to leave pins the channel (hazard 6)."""
        self.send(f"linger {LINGER if timeout is None else timeout}")

    def stop(self) -> None:
        self.leave()

    @property
    def _outbound_connected(self) -> bool:
        """Read by greenswitch's ``raise_if_disconnected`` and ``while_connected``."""
        return self.connected and not self.hung_up

    # The wire -----------------------------------------------------------------------------------------

    def _write(self, raw: bytes) -> None:
        if not self.connected:
            raise Gone(self.close_reason or "the socket is closed", hung_up=self.hung_up)
        if self._held is not None:
            self._held.append(raw)
            return
        try:
            self.sock.send(raw, REPLY_TIMEOUT)
        except OSError as error:
            self.close(f"write failed: {error}")
            raise Gone(self.close_reason, hung_up=self.hung_up) from None

    def _send_held(self) -> None:
        """Send what was held."""
        held, self._held = self._held, None
        if held:
            self._write(b"".join(held))

    def _reply(self, reply: _Reply, timeout: float) -> Event:
        deadline = time.monotonic() + timeout
        while reply.event is None:
            self._asking = True
            if not self._receive(deadline):
                # Keep the slot: a late reply must not be taken for the next command's (hazard 2).
                raise Silent(f"no reply within {timeout:g} s")
        return reply.event

    def _receive(self, deadline: float | None) -> bool:
        """Read once from the socket and dispatch the frames; False if the deadline passed."""
        if self._held:
            self._send_held()
        if not self.connected:
            raise Gone(self.close_reason, hung_up=self.hung_up)
        try:
            # A lone "+OK" that no flow waits for isn't worth waking up: each key that is pressed brings one.
            self.sock.wait_for(1 if self._asking or self._framer.is_within else wire.PLAIN_REPLY + 1)
            self._asking = False
            data = self.sock.recv(deadline)
        except OSError as error:
            self.close(f"read failed: {error}")
            raise Gone(self.close_reason, hung_up=self.hung_up) from None
        if data is None:
            return False
        if not data:
            self.close("the switch closed the socket")
            raise Gone(self.close_reason, hung_up=self.hung_up)
        allowance = self._allowance
        if allowance.over(1 + (len(data) >> UNIT)):
            if len(data) < _TRICKLE:
                # Let more come before the next read, which costs as much for one byte as for all.
                gevent.sleep(_TRICKLE_PAUSE)
            self._give_way()
        self._held = []  # answer frames that came together (keys typed ahead) in one write
        left = _GROUP
        try:
            for frame in self._framer.feed(data):
                left -= 1
                if not left:
                    left = _GROUP
                    if allowance.over(_GROUP):
                        self._send_held()
                        self._give_way()
                        self._held = []
                if frame.content_type == EVENT_PLAIN:
                    self._on_event(frame)
                else:
                    self._on_other(frame)
        except FramingError as error:
            self._held = None
            self.close(f"framing: {error}")
            raise Gone(self.close_reason, hung_up=self.hung_up) from None
        finally:
            self._send_held()
        return True

    def _give_way(self) -> None:
        """Wait until this socket may go on: it brings more than a call's.

        :raises Gone: it was closed meanwhile, or has made us send commands without end that it doesn't answer.
        """
        if len(self._replies) > _UNANSWERED:
            self.close("commands are not answered")
        self._allowance.give_way()
        if not self.connected:
            raise Gone(self.close_reason, hung_up=self.hung_up)

    def _on_other(self, frame: Event) -> None:
        content_type = frame.content_type
        if content_type in _REPLY_TYPES:
            if not self._replies:
                raise FramingError("a reply to nothing")
            reply = self._replies.pop(0)
            if reply is None:
                return
            reply.event = frame
            completion = reply.completion
            if completion is not None and not frame.ok:
                self._completions.pop(completion.uuid.encode(), None)
                completion.error = frame.data
        elif content_type == wire.DISCONNECT:
            self._lingering = self._lingering or frame.raw(b"Content-Disposition") == b"linger"
            if not self._named_fairly:
                # The next bytes may be the caller's: forged frames, or half of the switch's next one. The inbound
                # connection will report the end.
                raise FramingError("a hang-up notice with a forged channel name")
            self._tell(self.event_handlers.get("DISCONNECT", ()), frame)

    def _on_event(self, event: Event) -> None:
        name = event.name
        if not name:
            if self.on_keys is not None:
                key = KEYS.get(event)
                if key is not None:
                    self.on_keys(key, True)
                    return
                if keys := event.get("digits"):
                    self.on_keys(keys, event.raw(b"key") is not None)
                    return
        elif name == b"CHANNEL_EXECUTE_COMPLETE":
            # Check the channel: a B-leg that runs an application of its own also counts from 1.
            uuid = event.last(b"Application-UUID") or b""
            if uuid in self._completions and event.uuid == self.uuid:
                self._completions.pop(uuid).event = event
        elif name == b"CHANNEL_HANGUP":
            if event.uuid == self.uuid:
                self.hangup_event = event
        elif name == b"CHANNEL_HANGUP_COMPLETE" and event.uuid == self.uuid:
            self.hangup_complete = event
            self._lingering = True
        if self.on_event is not None:
            try:
                self.on_event(event)
            except Exception:
                log.exception("event_handler_failed", extra={"uuid": self.uuid})
        handlers = self.event_handlers
        if handlers:
            key = (event.get("Event-Subclass") or "") if name == b"CUSTOM" else name.decode("latin-1")
            self._tell(handlers.get(key) or handlers.get("*") or (), event)

    def _tell(self, handlers: Sequence[Callable[[Event], None]], event: Event) -> None:
        for handler in tuple(handlers):  # copied, because one may unregister itself
            try:
                handler(event)
            except Exception:
                log.exception("event_handler_failed", extra={"uuid": self.uuid})
