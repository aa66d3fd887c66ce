"""The caller's keys: which of them the switch reports, which were pressed, and the playback that a key stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from esl_apps.core.call import Complete
from esl_apps.esl import wire
from esl_apps.esl.presses import Presses, key_of_info
from esl_apps.esl.session import Completion, OutboundSession
from esl_apps.esl.wire import Event

#: Waits until a condition holds; False if the seconds passed first.
Wait = Callable[[Callable[[], bool], float], bool]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a call, and everything that is set on the caller's channel for it alone.

    :meth:`Keypad.enter` is the one place that sets any of this, so nothing of one phase is left in the next.
    """

    name: str
    """Its name at the switch (a realm): a binding of another name replaces the present one."""
    keys: str
    """The keys that the switch reports to this socket only: ``~`` and a pattern, or the keys themselves."""
    variables: Mapping[str, str] | None
    """Channel variables; an empty one is unset. None: those of the phase before don't matter."""


#: Keys are in no log, event or CDR, and don't reach the other leg, either (hazards 26, 27 and 35).
_HIDDEN = {"sensitive_dtmf": "true", "playback_terminators": "none"}
_SHOWN = dict.fromkeys(_HIDDEN, "")
#: While a key may be a PIN's.
PIN = Phase("keys", "~^(.)$", _HIDDEN)
#: While other keys are awaited. A key that is reported to this socket is neither logged nor passed on.
ENTRY = Phase("keys", "~^(.)$", None)
#: From dialling a callee to the end of the talk: every key reaches the far side, except ``**`` (hazard 28).
TALK = Phase("talk", "**", _SHOWN)
#: The same for a phone that says each key in two ways: the keypad passes on each press.
TALK_TWOFOLD = Phase("keys", "~^(.)$", _SHOWN)
#: In a conference, which has keys of its own.
CONFERENCE = Phase("conference", "", _SHOWN)
#: Milliseconds within which the second ``*`` must follow the first. It is also by how much a single one is late.
STAR_STAR_MS = 800
#: Its variable, which the switch reads at the first binding. If a caller comes with it, another node bound keys before.
STAR_STAR_WITHIN = "bind_digit_digit_timeout"
#: Keys that may wait to be collected: more than callers type ahead.
_AHEAD = 100


def says_keys_in_rtp(answered: Event) -> bool:
    """Whether the caller's phone offered telephone-event (RFC 4733). The switch says so of every phone if its profile
    has ``liberal-dtmf``, so read the offer, too."""
    if answered.var("dtmf_type") != "rfc2833":
        return False
    # Undecoded: an SDP is nearly all line breaks and blanks to a percent-decoder.
    offer = answered.raw(b"variable_switch_r_sdp")
    return offer is None or offer.find(b"telephone-event") >= 0


class Keypad:
    """The keys that one caller presses."""

    __slots__ = (
        "_audio",
        "_forget",
        "_full_until",
        "_phase",
        "_presses",
        "_session",
        "_variables",
        "broken",
        "heard",
        "keys",
        "secret",
    )

    def __init__(self, session: OutboundSession) -> None:
        self._session = session
        # A list, because an empty deque takes as much memory as five calls' keys.
        self.keys: list[str] = []
        """Pressed and not collected yet."""
        self.heard = False
        """The caller was answered, so keys are reported."""
        self.secret = False
        """Keys may be a PIN's: remove each from the switch."""
        self.broken = False
        """``**`` ended the talk."""
        self._phase: Phase | None = None
        #: The variables that are set now.
        self._variables: Mapping[str, str] = _HIDDEN
        self._presses = Presses()
        #: The command that removes the last key from the switch.
        self._forget = b""
        #: The current playback, until it is told to stop.
        self._audio: Completion | None = None
        #: Until when a ``#`` belongs to the last entry, unless another key comes first.
        self._full_until = 0.0
        session.on_keys = self._on_keys

    def answer(self, variables: Mapping[str, str], *, bound_before: bool) -> Completion:
        """Answer with these variables, and have every key reported. ``bound_before``: by a node that is gone.

        The keys are hidden before the answer, so that one pressed at once is in no log either. Until something else
        than a PIN is asked for, each may be a PIN's, also during "wrong PIN" and the prompt that ends the call.
        """
        session = self._session
        self.secret = True
        self._forget = wire.command(f"api uuid_setvar {session.uuid} last_matching_digits")
        with session.together():
            session.multiset({**variables, **_HIDDEN, STAR_STAR_WITHIN: str(STAR_STAR_MS)})
            completion = session.execute("answer", lock=True)
            session.post("divert_events on")
            if bound_before:
                self._clear()
            self._bind(PIN)
        self._phase = PIN
        return completion

    def leave(self) -> None:
        """Have the switch report no key any more, and let all of them through to the far side."""
        with self._session.together():
            self.enter(CONFERENCE)
            self._session.post("divert_events off")
            # Only a caller without telephone-event needed it; otherwise this does nothing.
            self._session.post_execute("stop_dtmf", lock=True)
        self.drop()
        self._phase, self.heard = None, False

    def enter(self, phase: Phase) -> None:
        """Set everything that this phase needs, and unset what only the one before needed."""
        before = self._phase
        if before is phase or before is None:
            return
        self._phase = phase
        with self._session.together():
            if phase.variables is not None and phase.variables is not self._variables:
                self._session.multiset(phase.variables)
                self._variables = phase.variables
            if phase.keys == before.keys:
                return
            if before.name != "keys" or not phase.keys:
                # This also drops a star that the switch still holds, which was meant for the far side.
                self._clear()
            if phase.keys:
                self._bind(phase)

    def _bind(self, phase: Phase) -> None:
        self._session.post_execute("bind_digit_action", f"{phase.name},{phase.keys},key,x", lock=True)

    def _clear(self) -> None:
        self._session.post_execute("clear_digit_action", "all", lock=True)

    def talk(self) -> None:
        """Let the caller's keys through to the far side, but ``**``."""
        if self.heard:
            self.drop()
            self.enter(TALK_TWOFOLD if self._presses.twofold else TALK)

    @property
    def passes_on(self) -> bool:
        """Whether it passes the keys of this talk on to the far side, because the switch would pass each on twice."""
        return self._phase is TALK_TWOFOLD

    def pass_on(self, done: Callable[[], bool], seconds: float, wait: Wait) -> bool:
        """Wait as ``wait`` does, and pass on the caller's presses. A ``*`` waits for a second one, as at the switch."""
        keys, presses = self.keys, self._presses
        end = time.monotonic() + seconds
        # Until when a star is held back.
        star: float | None = None
        while not done():
            if keys:
                key = keys.pop(0)
                if key != "*":
                    self._pass(key if star is None else "*" + key)
                    star = None
                elif star is None:
                    star = time.monotonic() + STAR_STAR_MS / 1000
                else:
                    self.broken = True
                continue
            now, until = time.monotonic(), min(end, star or end)
            doubt = presses.doubt(now)
            if doubt is None:
                wait(lambda: done() or bool(keys) or presses.in_doubt, until - now)
            else:
                wait(lambda: done() or bool(keys) or not presses.in_doubt, min(until - now, doubt))
            now = time.monotonic()
            if presses.doubt(now) == 0:
                keys.extend(presses.settle())
            elif star is not None and now >= star and not keys:
                self._pass("*")
                star = None
            elif now >= end:
                return done()
        return True

    def _pass(self, keys: str) -> None:
        # As if they had just come, but past the bindings.
        self._session.post(f"api uuid_recv_dtmf {self._session.uuid} {keys}")

    def hear(self) -> None:
        """Have the switch report every key."""
        if self.heard:
            self.enter(PIN if self.secret else ENTRY)

    def drop(self) -> None:
        """Forget keys that nothing has asked for."""
        self._presses.settle()
        self.keys.clear()

    def drop_until_quiet(self, quiet: float, longest: float, wait: Wait) -> None:
        """Forget keys until none has come for ``quiet`` seconds, or ``longest`` have passed."""
        deadline = time.monotonic() + longest
        while self.keys and time.monotonic() < deadline:
            self.drop()
            wait(lambda: bool(self.keys), min(quiet, max(0.0, deadline - time.monotonic())))
        self.drop()

    def play(self, audio: str) -> Completion:
        """Start a playback, which the next key stops."""
        with self._session.together():
            self.hear()
            self._audio = completion = self._session.execute("playback", audio)
        return completion

    def silence(self) -> None:
        """Stop the current playback, unless it has ended or was stopped already."""
        audio, self._audio = self._audio, None
        if audio is not None and not audio.done:
            self._session.post(f"api uuid_break {self._session.uuid} all")

    def take(self, most: int, first: float, between: float, wait: Wait, complete: Complete = None) -> str:
        """Collect up to ``most`` digits, those before ``#``, or those that are ``complete``."""
        digits = ""
        patience = first
        keys = self.keys
        while keys or self._next(patience, wait):
            key = keys.pop(0)
            if key == "#":
                break
            digits += key
            if len(digits) == most or (complete is not None and complete(digits)):
                self._expect_hash(between)
                break
            patience = between
        return digits

    def _expect_hash(self, seconds: float) -> None:
        """Drop the ``#`` that a caller presses although the entry is complete: it must not end the next one."""
        if not self.keys:
            self._full_until = time.monotonic() + seconds
        elif self.keys[0] == "#":
            del self.keys[0]

    def _next(self, patience: float, wait: Wait) -> bool:
        """Wait for a press. Return False when the time is up."""
        keys, presses = self.keys, self._presses
        end = time.monotonic() + patience
        while not keys:
            now = time.monotonic()
            doubt = presses.doubt(now)
            if doubt is None:
                if not wait(lambda: bool(keys) or presses.in_doubt, end - now):
                    return False
            elif not wait(lambda: bool(keys) or not presses.in_doubt, doubt):
                self._pressed(presses.settle())
        return True

    def _on_keys(self, keys: str, matched: bool) -> None:
        if not matched:
            # Keys of a talk, which went on to the far side.
            return
        if len(keys) > 1:
            self.broken = True
            return
        if len(self.keys) > _AHEAD:
            return
        if self.secret:
            # The switch stores the key in a variable, which other clients would see in the next event. An api command
            # fires no event. It must go before the break that ends the prompt.
            self._session.post_raw(self._forget)
        self._pressed(self._presses.hear(keys, time.monotonic()))

    def on_info(self, body: str) -> None:
        """Note that a key came by SIP INFO: the switch reports it so, in addition to the key itself."""
        key = key_of_info(body)
        if key is not None:
            self._pressed(self._presses.hear_info(key, time.monotonic()))

    def _pressed(self, keys: str) -> None:
        if keys and self._full_until:
            if keys[0] == "#" and time.monotonic() < self._full_until:
                keys = keys[1:]
            self._full_until = 0.0
        self.keys.extend(keys)
        if self.keys and self._audio is not None:
            self.silence()
