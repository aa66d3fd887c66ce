"""``bind_digit_action``: digits that trigger an action, whichever application runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from esl_apps.sandbox.protocols import Leg
from esl_apps.sandbox.run.sleeper import Handle, later
from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.events import Event


@dataclass(slots=True)
class Binding:
    """One action: ``~regex`` or the digits themselves, and what to do."""

    realm: str
    digits: str
    action: str
    value: str
    target: str

    @property
    def regex(self) -> str | None:
        """The pattern, if this binding has one."""
        return self.digits[1:] if self.digits.startswith("~") else None


class DigitMachine:
    """Collects the digits of one channel and matches them against its bindings.

    A digit that isn't part of any binding goes on to the application at once. One that may start a longer match waits
    for the digit time-out (1.5 s), so a single ``*`` reaches the far side a little late.
    """

    def __init__(self, channel: Leg) -> None:
        self.channel = channel
        self.bindings: list[Binding] = []
        self.realm = ""
        self.digits = ""
        self.digit_timeout = strings.number(channel.get("bind_digit_digit_timeout"), 1500) / 1000
        self._timer: Handle | None = None

    def bind(self, binding: Binding) -> None:
        """Add a binding, whose realm becomes the current one. If the realm has these digits, only replace their
        action."""
        for index, known in enumerate(self.bindings):
            if (known.realm, known.digits) == (binding.realm, binding.digits):
                self.bindings[index] = binding
                return
        self.realm = binding.realm
        self.bindings.append(binding)

    def clear_realm(self, realm: str) -> None:
        """Drop the bindings of one realm."""
        self.bindings = [binding for binding in self.bindings if binding.realm != realm]

    def stop(self) -> None:
        """Cancel the time-out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def feed(self, digit: str) -> None:
        """Take one digit."""
        self.digits += digit
        self._check(timeout=False)
        if self.digits and self._timer is None:
            self._arm()

    def _arm(self) -> None:
        self.stop()
        if self.digit_timeout:
            self._timer = later(self.digit_timeout, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        if self.digits and not self.channel.down and self.channel.machine is self:
            self._check(timeout=True)

    def _check(self, *, timeout: bool) -> None:
        bindings = [binding for binding in self.bindings if binding.realm == self.realm]
        regexes = [binding for binding in bindings if binding.regex is not None]
        exact: Binding | None = None
        longer = False
        for binding in bindings:
            if binding.regex is not None:
                # A single pattern acts at once. If there are other bindings it waits, because it may match more.
                if _matches(binding.regex, self.digits):
                    if timeout or len(bindings) == 1:
                        exact = exact or binding
                    else:
                        longer = True
                continue
            if binding.digits == self.digits:
                if not regexes or timeout:
                    exact = exact or binding
                else:
                    longer = True
            elif binding.digits.startswith(self.digits):
                longer = True
        if exact is not None and (timeout or not longer):
            digits, self.digits = self.digits, ""
            self.stop()
            self._act(exact, digits)
        elif timeout or (not longer and not regexes) or len(self.digits) >= 128:
            digits, self.digits = self.digits, ""
            self.stop()
            self._no_match(digits)
        else:
            self._arm()

    def _act(self, binding: Binding, digits: str) -> None:
        channel = self.channel
        if binding.target in ("peer", "both") and channel.partner is not None:
            self._run(channel.partner, binding, digits)
            if binding.target == "peer":
                return
        self._run(channel, binding, digits)

    def _run(self, channel: Leg, binding: Binding, digits: str) -> None:
        channel.set("last_matching_digits", digits)
        action = binding.action
        execute = re.fullmatch(r"exec(?:\[(?P<flags>[^\]]*)\])?:(?P<app>.*)", action, re.IGNORECASE)
        api = re.fullmatch(r"api:(.*)", action, re.IGNORECASE)
        name = execute["app"] if execute else api[1] if api else action
        headers = [(name, binding.value), ("digits", digits)]
        if execute:
            blocking = "i" in (execute["flags"] or "")
            headers.append(("execute", "blocking" if blocking else "non-blocking"))
        event = Event("CHANNEL_DATA")
        event.head = [header for header in headers if header[1]]
        channel.queue_event(event)
        if execute:
            channel.run_inline(f"{name}::{binding.value}")
        elif api:
            channel.switch.api_text(name, binding.value)

    def _no_match(self, digits: str) -> None:
        channel = self.channel
        channel.set("last_non_matching_digits", digits)
        event = Event("CHANNEL_DATA")
        event.head = [("digits", digits)]
        channel.queue_event(event)
        for digit in digits:
            channel.accept_digit(digit, source="APP")


def _matches(pattern: str, digits: str) -> bool:
    try:
        return bool(re.search(pattern, digits))
    except re.error:
        return False
