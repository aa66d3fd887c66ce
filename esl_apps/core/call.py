"""What a flow may do to a call, and what comes back.

Outcomes are values; the caller leaving is :class:`CallEnded`, raised by whatever the flow was waiting for
and caught in one place (Adhearsion's rule). The edge (``esl/channel.py``) implements :class:`Call` over an
event socket, a test over a script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from esl_apps.core import causes


class CallEnded(Exception):
    """The A-leg hung up, or (``lost``) its switch can no longer be asked."""

    def __init__(self, reason: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.lost = lost


#: ``sip_hangup_disposition`` of a leg whose own phone sent the BYE (or gave up before the answer).
_BY_PHONE = frozenset({"recv_bye", "recv_cancel"})


@dataclass(slots=True)
class Leg:
    """What the switch said of one leg. Times are Unix seconds; None where the thing has not happened."""

    uuid: str
    created_at: float | None = None
    ringing_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    cause: str | None = None
    """FreeSWITCH's name of the hang-up cause."""
    q850: int | None = None
    disposition: str | None = None
    """``sip_hangup_disposition``: ``recv_bye``, ``send_bye``, ``recv_refuse``, ``send_cancel``, …"""
    hold_seconds: float = 0.0
    user: str | None = None
    """The extension that this leg rang, where it is one of several."""

    @property
    def hung_up_itself(self) -> bool:
        return self.disposition in _BY_PHONE


@dataclass(slots=True)
class Bridged:
    """One ``bridge``, ended or joined. ``bleg`` is the leg that answered, else the last that failed."""

    answered: bool
    code: int
    """Q.850 of why B did not answer; of B's hang-up where it did."""
    cause: str = "NORMAL_CLEARING"
    """FreeSWITCH's name of ``code``'s cause, as it goes back to the caller."""
    bleg: Leg | None = None
    timed_out: bool = False
    """The application ended the ringing."""
    broken: bool = False
    """The caller ended it with ``**``."""

    @property
    def gateway_failed(self) -> bool:
        """Whether the next gateway of the list is worth a try (contract §2)."""
        return not self.answered and not self.timed_out and self.code in causes.GATEWAY_FAILED


@dataclass(slots=True)
class Ended:
    """How the A-leg ended, with the B-leg where there was one."""

    at: float
    aleg: Leg
    bleg: Leg | None
    lost: bool = False


#: What is dialled, and the user that it is, where several are rung at once.
Endpoint = tuple[str, str | None]

#: Told of the B-leg while it is being joined: ``dialled``, ``ringing``, ``early_media``, ``answered``, and when.
Progress = Callable[[str, float, Leg | None], None]


class Call(Protocol):
    """The A-leg, from ``socket`` to hang-up. Every method raises :class:`CallEnded` when the caller has left."""

    @property
    def uuid(self) -> str: ...

    @property
    def answered_at(self) -> float | None: ...

    @property
    def created_at(self) -> float:
        """When the INVITE came, or went out."""

    def variable(self, name: str) -> str | None:
        """A channel variable as it was when the call came to the application; decoded. This, a header and a SIP header
        are asked for before the first bridge."""

    def header(self, name: str) -> str | None:
        """A header of the channel's data, as ``Caller-Destination-Number``; decoded."""

    def sip_header(self, name: str) -> str | None:
        """A header of the caller's INVITE, its name in any case; None where it is not there."""

    def set(self, variables: Mapping[str, str]) -> None: ...

    def ring(self) -> None:
        """180 to the caller."""

    def answer(self, variables: Mapping[str, str] | None = None) -> None:
        """Answer, with these variables on it, and hear the caller's keys from now on: for the application alone, in no
        log, no event and no variable (hazard 27)."""

    def play(self, audio: str, timeout: float = 60.0) -> None:
        """A prompt by name, a URL, or a tone, to its end or to the first key, which is kept for ``collect``."""

    def collect(self, audio: str | None, most: int, first: float, between: float, longest: float = 120.0) -> str:
        """Keys: up to ``most``, or until ``#`` (which is not among them). Empty where none came.

        The first key stops ``audio``; keys pressed before it count, and it is not played then. ``first``:
        seconds from the audio's end to the first key; ``between``: from key to key; ``longest``: for all of it,
        the audio included.
        """

    def collect_pin(self, audio: str, most: int, first: float, between: float, longest: float = 120.0) -> str:
        """As ``collect``; nothing of what is keyed stays with the switch, not for a moment."""

    def wait_for_hangup(self, seconds: float) -> None:
        """Return after the time; :class:`CallEnded` where the caller leaves before it."""

    def conference(self, name: str, longest: float) -> None:
        """Talk in a conference until it is left."""

    def bridge(
        self, leg: Mapping[str, str], endpoints: Sequence[Endpoint], timeout: float, longest: float, progress: Progress
    ) -> Bridged:
        """Ring the endpoints at once and join the first that answers.

        ``timeout``: seconds from the first INVITE to an answer, held by the application, early media or not.
        ``longest``: seconds that the two may talk. Returns when B failed or, where the A-leg outlives it, when
        the talk ended. A caller whose keys are heard ends it with ``**``; B does not hear those.
        """

    def play_early(self, prompt: str, timeout: float) -> None:
        """A prompt by early media, unanswered."""

    def respond(self, status: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse with a SIP status and headers of that answer; one name may come twice."""

    def hangup(self, cause: str) -> None: ...

    def ended(self) -> Ended:
        """Wait for the hang-up's details: the only thing left to ask of an ended call. Never raises."""
