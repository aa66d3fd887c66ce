"""The flow language: what an application may do to a call, and what comes back.

This is a public interface. The applications of this package are written in it, and so are those that are installed
next to it (entry point group ``esl_apps.applications``). A flow is plain code that runs from top to bottom in a
greenlet of its own, as if its call were the only one::

    def arrive(call, arrival, policy, host):
        call.answer()
        minutes = call.collect("enter_number", most=3, first=5.0, between=2.0)
        call.play("goodbye")
        call.hangup("NORMAL_CLEARING")

Rules for all of it:

- **Outcomes are values, the caller's leaving is an exception.** A busy callee is a :class:`Bridged`, silence an empty
  string. Whatever a flow waits for, it raises :class:`CallEnded` when the caller hangs up or the switch stops
  answering. Catch it in one place, around the whole flow; then :meth:`Call.ended` says how the call ended.
- **Every wait has an end.** Durations are seconds, as floats; a ``timeout`` or ``longest`` of 0 doesn't wait.
- **Points in time are Unix seconds** with fractions, by the node's clock (``now`` of ``apps.interface``), not by
  ``time.time``. What the switch reports is converted, so that any two times may be subtracted.
- **Numbers in dial strings, texts in variables.** Input from a caller or a client goes through ``core.numbers`` and
  ``core.dialstring`` before it becomes an endpoint. A variable's value may be any text: it is encoded.
- **One greenlet per call.** Only the flow that was given a call may use it.

Two classes implement :class:`Call`: ``esl.channel.Channel`` over an event socket, and ``testing.ScriptedCall`` over a
script, so that a flow is tested without a switch.

**Versions.** :data:`API_VERSION` is (major, minor). A new minor version adds methods, fields or keyword parameters
with defaults; a new major version may remove or change some, and the changelog says what to do. The names in
:data:`__all__` here and in ``apps.interface`` are stable. Everything else may change in any release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from esl_apps.core import causes
from esl_apps.core.quality import LegQuality

__all__ = ["API_VERSION", "Bridged", "Call", "CallEnded", "Ended", "Endpoint", "Leg", "Progress"]

API_VERSION = (1, 5)

#: Seconds by which the switch's own timers are longer. They only fire if the application is gone.
SWITCH_MARGIN = 5


class CallEnded(Exception):
    """The A-leg has ended, or can no longer be reached. ``str()`` says why, for the timeline.

    After it, only :meth:`Call.ended` may be called.
    """

    def __init__(self, reason: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.lost = lost
        """The switch can no longer be asked. The caller may still be there."""


#: ``sip_hangup_disposition`` of a leg whose own phone sent the BYE (or gave up before the answer).
_BY_PHONE = frozenset({"recv_bye", "recv_cancel"})


@dataclass(slots=True)
class Leg:
    """One leg, as the switch reported it. Times are Unix seconds; None: it has not happened."""

    uuid: str
    """The channel's on the switch; empty if it is not known."""
    created_at: float | None = None
    ringing_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    cause: str | None = None
    """FreeSWITCH's name of the hang-up cause."""
    q850: int | None = None
    """Why it ended as a number of Q.850, 1 to 127, read by ``causes.read`` from all that the switch reported."""
    disposition: str | None = None
    """``sip_hangup_disposition``: ``recv_bye``, ``send_bye``, ``recv_refuse``, ``send_cancel``, …"""
    hold_seconds: float = 0.0
    """For how long this leg's phone had the other party on hold."""
    user: str | None = None
    """The extension that this leg rang, if several were rung at once."""
    quality: LegQuality | None = None
    """How it sounded, once it has ended. (Since version 1.2.)"""

    @property
    def hung_up_itself(self) -> bool:
        """Whether this leg's own phone ended it."""
        return self.disposition in _BY_PHONE


@dataclass(slots=True)
class Bridged:
    """The outcome of one :meth:`Call.bridge`."""

    answered: bool
    code: int
    """Q.850, 1 to 127: why B did not answer; if it did, why it ended."""
    cause: str = "NORMAL_CLEARING"
    """FreeSWITCH's name of ``code``'s cause, as it may be passed on to the caller with :meth:`Call.hangup`."""
    bleg: Leg | None = None
    """The leg that answered, otherwise the last that failed; None if the switch said nothing of one."""
    timed_out: bool = False
    """B rang for ``timeout`` seconds, and the application ended the ringing."""
    broken: bool = False
    """The caller ended it with ``**``."""
    by_switch: bool = False
    """The switch had no session to spare: neither B nor a gateway was asked."""
    legs: Sequence[Leg] = ()
    """All legs, if a user was named for them. (Since version 1.2.)"""

    def __post_init__(self) -> None:
        if not self.answered:
            self.cause = causes.NAMES.get(self.code, self.cause)

    @property
    def gateway_failed(self) -> bool:
        """Whether the gateway failed, not the callee: the next one of a list is worth a try."""
        return not (self.answered or self.timed_out or self.by_switch) and self.code in causes.GATEWAY_FAILED


@dataclass(slots=True)
class Ended:
    """How the A-leg ended, with the last B-leg if there was one."""

    at: float
    """Unix seconds."""
    aleg: Leg
    bleg: Leg | None
    lost: bool = False
    """Nothing was heard of its end: ``at`` is when the switch was last reached."""
    legs: Sequence[Leg] = ()
    """All legs of the last bridge, if a user was named for them. (Since version 1.2.)"""

    @property
    def both_up(self) -> bool:
        """Whether both legs were answered. B's answer alone doesn't connect them: A's media may not work, or A left at
        that moment. If nothing is known of A, B's answer counts."""
        a_up = self.aleg.answered_at is not None or self.aleg.ended_at is None
        return a_up and self.bleg is not None and self.bleg.answered_at is not None


#: A dial string as ``user/1000@pbx``, and the user that it is, to be told which leg is whose; None if only one is rung.
Endpoint = tuple[str, str | None]

#: Called with what happened to B, when (Unix seconds), and B's leg as far as it is known: ``dialled`` once before
#: anything is sent, then ``ringing`` or ``early_media``, and ``answered``. It must neither wait nor raise.
Progress = Callable[[str, float, Leg | None], None]

#: Called with the keys of an entry after each one; True ends the entry.
Complete = Callable[[str], bool] | None


class Call(Protocol):
    """The A-leg, from its socket to its hang-up.

    Methods that do something or wait raise :class:`CallEnded` if the caller has left, or leaves meanwhile.
    Properties, :meth:`variable`, :meth:`header` and :meth:`sip_header` only read, and never wait.
    """

    @property
    def uuid(self) -> str:
        """The channel's on the switch."""

    @property
    def answered_at(self) -> float | None:
        """Unix seconds; None: the A-leg has not been answered."""

    @property
    def created_at(self) -> float:
        """When the INVITE came in or went out, in Unix seconds."""

    def variable(self, name: str) -> str | None:
        """A channel variable as it was when the call arrived or was answered, decoded; None if it is not set.

        The same holds for :meth:`header` and :meth:`sip_header`.

        :raises RuntimeError: after the first :meth:`bridge`. The channel's data is let go of then.
        """

    def header(self, name: str) -> str | None:
        """A header of the channel's data, as ``Caller-Destination-Number``, decoded."""

    def sip_header(self, name: str) -> str | None:
        """A header of the caller's INVITE, its name in any case. Anyone can send one: believe it from registered
        phones and trusted trunks only."""

    def set(self, variables: Mapping[str, str]) -> None:
        """Set channel variables. Returns at once."""

    def ring(self) -> None:
        """Send 180 Ringing to the caller. Returns at once."""

    def answer(self, variables: Mapping[str, str] | None = None) -> None:
        """Answer, with these variables set first, and wait until the switch has done it.

        From here on the caller's keys are heard by the application alone, except in a :meth:`bridge` or a
        :meth:`conference`: they are in no log, event or variable. A key that a phone says in two ways counts once.
        """

    def play(self, audio: str, timeout: float = 60.0) -> None:
        """Play a prompt by name, a URL or a tone (``tone_stream://…``), to its end, for ``timeout`` seconds at most,
        or to the first key, which is kept for :meth:`collect`. Keys that were pressed before skip it. Several prompts,
        with spaces between their names, are played one after the other (since version 1.2)."""

    def collect(self, audio: str | None, most: int, first: float, between: float, longest: float = 120.0) -> str:
        """Return the keys pressed: up to ``most``, or those before ``#``; empty if none came in time.

        The first key stops ``audio``. Keys pressed before it count, and then it is not played.

        :param audio: As :meth:`play`; None: silence.
        :param first: Seconds from the audio's end to the first key.
        :param between: Seconds from key to key.
        :param longest: Seconds for all of it, the audio included.
        """

    def collect_pin(
        self, audio: str, most: int, first: float, between: float, longest: float = 120.0, *, complete: Complete = None
    ) -> str:
        """As :meth:`collect`, and the switch keeps nothing of what is keyed, not for a moment.

        :param complete: For a PIN whose length isn't known.
        """

    def drop_keys(self, quiet: float, longest: float) -> None:
        """Forget the keys pressed so far. If there are any, also those that follow, until none came for ``quiet``
        seconds: what a mailbox's greeting keys isn't meant for a prompt. Returns after ``longest`` seconds at the
        latest. (Since version 1.1.)"""

    def pass_keys(self) -> None:
        """Undo what :meth:`answer` did to the caller's keys: from here on each is the other party's, ``**`` as well.
        Returns at once. (Since version 1.2.)"""

    def wait_for_hangup(self, seconds: float) -> None:
        """Return after the time, unless the caller leaves before: that raises :class:`CallEnded`."""

    def conference(self, name: str, longest: float) -> None:
        """Join a conference room; return when the caller is out of it, or after ``longest`` seconds.

        If the node dies meanwhile, the switch ends the caller's leg some seconds later than that.
        """

    def bridge(
        self,
        leg: Mapping[str, str],
        endpoints: Sequence[Endpoint],
        timeout: float,
        longest: float,
        progress: Progress,
        *,
        parts: bool = False,
        until: float | None = None,
    ) -> Bridged:
        """Ring the endpoints at once and connect the caller with the first that answers.

        Returns when B has failed. If B answers, it returns when the talk has ended and the A-leg goes on; an A-leg
        with ``hangup_after_bridge`` ends with the talk, which raises :class:`CallEnded`. A caller who was answered by
        :meth:`answer` ends it with ``**``, pressed within 0.8 s; B doesn't hear those two, but every other key.

        :param leg: Channel variables of the B-legs.
        :param timeout: Seconds from the first INVITE to an answer, with or without early media. The application
            holds it.
        :param longest: Seconds that the two may talk.
        :param parts: After the talk, the leg that is left goes on: A without ``hangup_after_bridge``, B by its
            ``transfer_after_bridge``. (Since version 1.3.)
        :param until: The time (``time.monotonic()``) at which the talk ends at the latest, however long B rang. (Since
            version 1.4.)
        """

    def go_on(self) -> None:
        """Leave the caller to the steps of the dialplan behind this application. Returns at once; the flow ends, and
        nothing more may be called. (Since version 1.3.)"""

    def play_early(self, prompt: str, timeout: float) -> None:
        """Play a prompt by early media, without answering, for ``timeout`` seconds at most."""

    def respond(self, status: int, headers: Sequence[tuple[str, str]] = (), *, code: int | None = None) -> None:
        """Refuse an unanswered call with a SIP status (400 to 699) and headers in that answer.

        ``code``: the Q.850 cause in the answer's ``Reason``; None: the one that the switch derives from the status. A
        name may come twice. Waits for the hang-up, and returns or raises :class:`CallEnded`.
        """

    def hangup(self, cause: str) -> None:
        """Hang up with a cause of FreeSWITCH, as ``NORMAL_CLEARING``. Always raises :class:`CallEnded`."""

    def ended(self) -> Ended:
        """Wait for the details of the hang-up, some seconds at most. Never raises. Call it once, after
        :class:`CallEnded`."""
