"""The interface of a switch and its phones for tests.

The behaviour suite (``tests/behaviour``) uses only these types, which ``sandbox.py`` and ``freeswitch.py`` implement.
So each test runs on the sandbox and on a real FreeSWITCH, and the sandbox can't drift from it.

Times are seconds; instants are ``time.time()``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Script:
    """How a phone behaves when it is called, and once it is connected."""

    answer_after: float | None = 0.1
    """Seconds from the INVITE to the 200; None to ring for ever."""
    ring_after: float | None = 0.0
    """Seconds from the INVITE to the 180; None to send no 180."""
    early_media: bool = False
    """183 with the phone's tone in place of the 180."""
    reject: int | None = None
    """A final SIP status (486, 603, 404, …) in place of an answer, after ``answer_after`` (None: at once)."""
    redirect: str | None = None
    """The Contact if ``reject`` is 302."""
    reason: str | None = None
    """With ``reject``, a Reason header, as ``Q.850;cause=16``."""
    hangup_after: float | None = None
    """Seconds from the answer to this phone's BYE."""
    tone: int | None = None
    """Hz of the sine that the phone plays while it has media."""
    telephone_event: bool = True
    """Whether it offers telephone-event (RFC 4733) when it dials."""
    auto_answer: bool = False
    """Whether it answers at once if the INVITE asks for that: ``answer-after=0`` in Call-Info, or Alert-Info."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer, on a real FreeSWITCH."""
    digits: str = ""
    """DTMF (RFC 2833) sent ``digits_after`` seconds after the answer; ``,`` pauses half a second."""
    digits_after: float = 0.3


@dataclass
class Leg:
    """One call as one phone saw it. Filled in by the rig; tests read it."""

    direction: str
    """``in``: the phone was called; ``out``: it dialled."""
    number: str
    """``in``: the user part that was called (Request-URI or To); ``out``: the number dialled."""
    caller_number: str = ""
    """``in``: the user part of From, which the phone would show."""
    caller_name: str = ""
    headers: dict[str, list[str]] = field(default_factory=dict)
    """Headers of the INVITE (``in``) or of the final refusal (``out``), names in lower case."""
    started_at: float = 0.0
    ringing_at: float | None = None
    early_media_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    status: int | None = None
    """The final SIP status: 200, 486, …; 487 if the caller gave up."""
    ended_by: str | None = None
    """``phone`` or ``far``."""
    referred: list[int] = field(default_factory=list)
    """The SIP statuses of the NOTIFYs that ended this phone's REFERs. After a 200 the phone hangs up."""

    @property
    def lasted(self) -> float:
        """Seconds from the INVITE to the end, of a call that has ended."""
        assert self.ended_at is not None
        return self.ended_at - self.started_at

    @property
    def rang(self) -> float:
        """Seconds from the 180 to the answer or the end."""
        until = self.answered_at or self.ended_at
        assert self.ringing_at is not None
        assert until is not None
        return until - self.ringing_at

    @property
    def answered_after(self) -> float:
        """Seconds from the INVITE to the answer, of a call that was answered."""
        assert self.answered_at is not None
        return self.answered_at - self.started_at


class PhoneLeg(Protocol):
    """A live or ended call of a phone, and the actions that a test can take."""

    @property
    def leg(self) -> Leg:
        """A snapshot of the present state."""

    @property
    def received(self) -> str:
        """The keys that the other party pressed, as far as they came by RFC 2833 or SIP INFO."""

    def hangup(self) -> None: ...

    def answer(self) -> None:
        """Answer a ringing call, even if its script lets it ring for ever (``answer_after=None``)."""

    def reject(self, status: int) -> None:
        """Refuse a ringing call."""

    def digits(self, digits: str, method: str = "rfc2833") -> None:
        """Send DTMF; ``,`` pauses half a second. ``method``: ``rfc2833``, ``info`` (SIP INFO) or ``inband`` (tones)."""

    def transfer(self, to: str) -> None:
        """Send a REFER that asks the far side to call ``to`` (the whole Refer-To), as a phone's transfer key does."""

    def attend(self, other: Any) -> None:
        """Send a REFER that asks to join this call's far side with that of another call of the phone (Replaces)."""

    def hold(self) -> None: ...

    def unhold(self) -> None: ...

    def hears(self, *hz: int, within: float = 20.0) -> bool:
        """Whether a sine of this frequency arrives in time (real audio on the real switch).

        Several must arrive at once, with little else. A single one may also be part of a voice, as in a prompt.
        """


class RigError(Exception):
    """A fault of the rig itself, or a request that it can't fulfil; not a fault of what is tested."""


class Phone(Protocol):
    number: str

    @property
    def calls(self) -> Sequence[PhoneLeg]:
        """The phone's calls, oldest first."""

    def script(self, script: Script) -> None:
        """Change the script for calls from now on."""

    def dial(self, number: str, headers: Mapping[str, str] | None = None) -> PhoneLeg:
        """Call a number through the switch; return once the INVITE is sent."""

    def unregister(self) -> None: ...


class Rig(Protocol):
    """One switch, started by a fixture and shared by the tests of a session."""

    name: str
    """``sandbox`` or ``freeswitch``."""
    esl_address: str
    """host:port of its inbound event socket."""
    esl_password: str
    recordings: Path
    """Where the switch writes recordings; removed with the rig."""
    spool: Path
    """mod_json_cdr's folder, with one file per leg."""
    dial: dict[str, object]
    """``extension`` and ``external`` templates, as in the configuration's ``dial``, that reach this rig's phones. The
    gateway ``silent`` takes calls and never responds."""

    def phone(self, number: str, script: Script | None = None, *, registrations: int = 1) -> Phone:
        """Return a registered extension (3 or 4 digits).

        Called again for a number, return the same phone with a new script, and forget its calls. With
        ``registrations=2``, two phones share the number and one list of calls.
        """

    def outside(self, number: str, script: Script | None = None) -> Phone:
        """Return a phone behind the gateway. ``number``: as in the Request-URI (digits, an optional +).

        Its ``dial`` is an unauthenticated call from that number into the public context.
        """

    def dead_registration(self, number: str) -> None:
        """Register an extension once more, from a phone that is gone then."""

    def offer(self, number: str, codecs: Sequence[str]) -> int:
        """Call a number from outside, offering these codecs (``PCMU``, ``G729``). Return the final SIP status; hang up
        if the call is answered."""

    def route(self, number: str, path: str, node: str) -> None:
        """Route calls to ``number`` (public and default context) to ``socket node/path async full``, as the shipped
        dialplan does: the watchdog is armed before, and cancelled by the node."""

    def route_refers(self, node: str) -> None:
        """Route the REFERs of agents' phones to ``node``, as the shipped context ``esl_apps_refer`` does."""

    def api(self, command: str) -> str:
        """Return what ``fs_cli -x`` would print."""

    def live_channels(self) -> int: ...

    def kill(self) -> None:
        """Kill the switch with SIGKILL. ``start`` brings it back on the same addresses, with its phones registered."""

    def start(self) -> None: ...

    def pause(self) -> None:
        """Stop the switch with SIGSTOP."""

    def resume(self) -> None: ...

    def drop_sockets(self) -> None:
        """Cut every event-socket connection without a goodbye; calls stay up."""

    def reset(self) -> None:
        """Hang everything up and forget routes, outside phones and calls, between tests."""

    def close(self) -> None: ...


def ended(call: PhoneLeg, within: float = 30.0) -> Leg:
    """Wait until a call has ended, and return it as its phone saw it."""
    eventually(lambda: call.leg.ended_at is not None, within, f"this call did not end: {call.leg}")
    return call.leg


def eventually(predicate: Callable[[], object], within: float = 30.0, message: str = "") -> None:
    """Poll until the condition is true. :raises AssertionError: not within ``within`` seconds.

    The time is long because the machine may be busy with other tests. To check how soon something happened, compare its
    own times.
    """
    end = time.monotonic() + within
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(message or f"not so within {within} s: {predicate}")
        time.sleep(0.01)
