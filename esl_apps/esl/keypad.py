"""The caller's keys: which the switch tells of, what has been keyed, and the sound that a key stops."""

from __future__ import annotations

import time
from collections.abc import Callable

from esl_apps.esl import wire
from esl_apps.esl.session import Completion, OutboundSession

#: ``bind_digit_action``: each key at once to this socket alone; ``**`` while two talk (hazards 27 and 28).
EVERY_KEY = "keys,~^(.)$,key,x"
STAR_STAR = "keys,**,key,x"
#: Seconds within which an equal key is the same key again, while the detector runs: once from SIP INFO, once from
#: the speech (hazard 29). A diverted key does not say where it came from, and nobody presses one key twice this
#: fast: 40 ms of tone and 40 of pause are the least that a receiver must hear (ITU-T Q.24).
_ECHO = 0.1


class Keypad:
    """The keys of one call."""

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
        # A list: an empty deque is as large as five calls' keys.
        self.keys: list[str] = []
        """What was keyed and nobody has collected."""
        self.heard = False
        """The caller was answered, and keys are heard."""
        self.secret = False
        """What is keyed may be a PIN: nothing of it stays with the switch."""
        self.inband = False
        """A detector listens to the speech, too."""
        self.broken = False
        """``**`` ended the talk."""
        #: The keys that the switch tells of now, as ``bind_digit_action`` has it.
        self._bound = ""
        #: What takes the switch's last key away from it.
        self._forget = b""
        #: What is heard, until it is told to stop.
        self._audio: Completion | None = None
        self._full_until = 0.0
        self._last_key = ("", 0.0)
        session.on_keys = self._on_keys

    def open(self) -> None:
        """Hear each key from the answer on; until something else than a PIN is asked for, each may be a PIN's."""
        self.secret = True
        self._forget = wire.command(f"api uuid_setvar {self._session.uuid} last_matching_digits")

    def bind(self, action: str) -> None:
        """Hear these keys from now on, and no others; nothing where that is so."""
        if self._bound == action:
            return
        with self._session.together():
            if self._bound:
                self._session.post_execute("clear_digit_action", "all", lock=True)
            self._session.post_execute("bind_digit_action", action, lock=True)
        self._bound = action

    def hear(self) -> None:
        """Hear every key; after a bridge only ``**`` is heard."""
        if self.heard:
            self.bind(EVERY_KEY)

    def play(self, audio: str) -> Completion:
        """Start what the next key stops."""
        with self._session.together():
            # After a bridge these are not yet heard again.
            self.hear()
            self._audio = completion = self._session.execute("playback", audio)
        return completion

    def silence(self) -> None:
        """Stop what is heard, unless it has ended or was told to."""
        audio, self._audio = self._audio, None
        if audio is not None and not audio.done:
            self._session.post(f"api uuid_break {self._session.uuid} all")

    def take(self, most: int, first: float, between: float, wait: Callable[[Callable[[], bool], float], bool]) -> str:
        """Up to ``most`` digits, or those before ``#``. ``wait``: until a key comes, or the seconds have gone."""
        keys = self.keys
        digits = ""
        patience = first
        while keys or wait(lambda: bool(keys), patience):
            key = keys.pop(0)
            if key == "#":
                if not digits and time.monotonic() < self._full_until:
                    # The last digits were as many as asked for; a caller used to # pressed it all the same.
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
        if self.secret:
            # The switch notes the key that matched in a variable, which other clients would see with the next
            # event; an api tells nobody, and goes before the break that ends the prompt.
            self._session.post_raw(self._forget)
        now = time.monotonic()
        for key in keys:
            if self.inband and self._last_key[0] == key and now - self._last_key[1] < _ECHO:
                continue
            self._last_key = (key, now)
            self.keys.append(key)
        if self.keys and self._audio is not None:
            self.silence()
