"""The caller's keys: which of them the switch reports, which were pressed, and the playback that a key stops."""

from __future__ import annotations

import time
from collections.abc import Callable

from esl_apps.esl import wire
from esl_apps.esl.session import Completion, OutboundSession

#: Arguments of ``bind_digit_action``: each key, at once, to this socket only; ``**`` during a talk (hazards 27 and 28).
EVERY_KEY = "keys,~^(.)$,key,x"
STAR_STAR = "keys,**,key,x"
#: Seconds within which an equal key is a repetition, while the detector runs: one comes from SIP INFO, one from the
#: audio (hazard 29). A diverted key doesn't say where it came from. Callers don't press a key twice this fast: a
#: receiver need not recognise less than 40 ms of tone and 40 ms of pause (ITU-T Q.24).
_ECHO = 0.1
#: Keys that may wait to be collected: more than callers type ahead.
_AHEAD = 100


class Keypad:
    """The keys that one caller presses."""

    __slots__ = (
        "_audio",
        "_bound",
        "_forget",
        "_full_until",
        "_last_key",
        "_session",
        "broken",
        "heard",
        "inband",
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
        self.inband = False
        """The switch detects tones in the audio, too."""
        self.broken = False
        """``**`` ended the talk."""
        #: The present argument of ``bind_digit_action``.
        self._bound = ""
        #: The command that removes the last key from the switch.
        self._forget = b""
        #: The current playback, until it is told to stop.
        self._audio: Completion | None = None
        self._full_until = 0.0
        self._last_key = ("", 0.0)
        session.on_keys = self._on_keys

    def open(self) -> None:
        """Prepare for the answer. Until something else than a PIN is asked for, each key may be a PIN's."""
        self.secret = True
        self._forget = wire.command(f"api uuid_setvar {self._session.uuid} last_matching_digits")

    def bind(self, action: str) -> None:
        """Have the switch report these keys from now on, and no others."""
        if self._bound == action:
            return
        with self._session.together():
            if self._bound:
                self._session.post_execute("clear_digit_action", "all", lock=True)
            self._session.post_execute("bind_digit_action", action, lock=True)
        self._bound = action

    def hear(self) -> None:
        """Have the switch report every key. After a bridge it reports only ``**``."""
        if self.heard:
            self.bind(EVERY_KEY)

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

    def take(self, most: int, first: float, between: float, wait: Callable[[Callable[[], bool], float], bool]) -> str:
        """Collect up to ``most`` digits, or those before ``#``.

        ``wait(done, seconds)`` waits for a key and returns False when the time is up.
        """
        keys = self.keys
        digits = ""
        patience = first
        while keys or wait(lambda: bool(keys), patience):
            key = keys.pop(0)
            if key == "#":
                if not digits and time.monotonic() < self._full_until:
                    # The entry before was complete without it, and the caller pressed # all the same.
                    self._full_until = 0.0
                    continue
                break
            digits += key
            if len(digits) == most:
                self._full_until = time.monotonic() + between
                break
            patience = between
        return digits

    def _on_keys(self, keys: str, matched: bool) -> None:
        if keys == "**" and matched:
            self.broken = True
            return
        if len(self.keys) > _AHEAD:
            return
        if self.secret:
            # The switch stores the key in a variable, which other clients would see in the next event. An api command
            # fires no event. It must go before the break that ends the prompt.
            self._session.post_raw(self._forget)
        now = time.monotonic()
        for key in keys:
            if self.inband and self._last_key[0] == key and now - self._last_key[1] < _ECHO:
                continue
            self._last_key = (key, now)
            self.keys.append(key)
        if self.keys and self._audio is not None:
            self.silence()
