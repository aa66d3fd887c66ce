"""Applications that read, send and bind digits."""

from __future__ import annotations

import re
import time

from esl_apps.sandbox.applications.playing import play
from esl_apps.sandbox.applications.registry import application, extension_of
from esl_apps.sandbox.leg.bindings import Binding, DigitMachine
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.run.sleeper import later
from esl_apps.sandbox.wire import strings

#: Seconds of a digit, and of the pauses, in ``send_dtmf``.
_DIGIT = 0.1
_PAUSES = {"w": 0.5, "W": 1.0}


def _collect(
    channel: Channel,
    digits: str,
    maximum: int,
    terminators: str,
    first: float,
    between: float,
) -> tuple[str, str, bool]:
    """Collect digits. Return them, the terminator, and whether time ran out. ``first``, ``between``: seconds to wait
    for the first digit, and for each further one."""
    deadline = time.monotonic() + (between if digits else first)
    while channel.ready:
        if len(digits) >= maximum:
            return digits, "", False
        dtmf = channel.dequeue_digit()
        if dtmf is not None:
            if dtmf.digit in terminators:
                return digits, dtmf.digit, False
            digits += dtmf.digit
            deadline = time.monotonic() + between
            continue
        if channel.breaking:
            channel.breaking = False
            return digits, "", False
        if time.monotonic() >= deadline:
            return digits, "", True
        channel.idle(deadline)
    return digits, "", False


def _read(
    channel: Channel,
    minimum: int,
    maximum: int,
    prompt: str,
    variable: str,
    timeout: int,
    terminators: str,
    digit_timeout: int,
) -> tuple[str, str]:
    """Ask once. Return the digits, and ``success``, ``timeout``, ``too_small`` or ``failure``."""
    collected = {"digits": "", "terminator": ""}
    channel.set("read_terminator_used", None)
    if variable:
        channel.set(variable, None)

    def first(digit: str) -> bool:
        if digit in terminators:
            collected["terminator"] = digit
        else:
            collected["digits"] = digit
        return True

    if prompt and prompt != "silence" and play(channel, prompt, first) == "missing":
        return "", "failure"
    digits, terminator, late = collected["digits"], collected["terminator"], False
    between = (digit_timeout or timeout) / 1000
    if not terminator and len(digits) < maximum:
        digits, terminator, late = _collect(channel, digits, maximum, terminators, timeout / 1000, between)
    if terminator:
        channel.set("read_terminator_used", terminator)
    if late:
        result = "timeout"
    elif not channel.ready:
        result = "failure"
    elif len(digits) < minimum:
        result = "too_small"
    else:
        result = "success"
    if result == "timeout" and len(digits) >= minimum > 0:
        result = "timeout_enough"
    channel.set("read_result", {"timeout_enough": "timeout", "too_small": "failure"}.get(result, result))
    if variable and digits:
        channel.set(variable, digits)
    return digits, result


@application("read", media=True)
def read(channel: Channel, data: str) -> None:
    """``min max prompt variable timeout terminators [digit_timeout]``."""
    words = [*strings.separate(data, " "), *[""] * 7]
    _read(
        channel,
        strings.number(words[0]),
        strings.number(words[1]) or 128,
        words[2],
        words[3],
        max(1000, strings.number(words[4], 1000)),
        words[5] or "#",
        strings.number(words[6]),
    )


@application("play_and_get_digits", media=True)
def play_and_get_digits(channel: Channel, data: str) -> None:
    """``min max tries timeout terminators prompt invalid variable regex digit_timeout failure``."""
    words = [*strings.separate(data, " "), *[""] * 11]
    minimum = max(0, strings.number(words[0]))
    maximum = max(minimum, strings.number(words[1]))
    tries = strings.number(words[2])
    timeout = max(1000, strings.number(words[3], 1000))
    terminators = words[4] or "#"
    prompt, invalid, variable, pattern = words[5], words[6], words[7], words[8]
    if pattern and variable:
        channel.set(f"{variable}_invalid", None)
    while channel.ready and tries > 0:
        digits, result = _read(
            channel, minimum, maximum, prompt, variable, timeout, terminators, strings.number(words[9])
        )
        if minimum == 0 and not digits and channel.get("read_terminator_used"):
            return
        if digits and result in ("success", "timeout_enough"):
            try:
                matches = not pattern or bool(re.search(pattern, digits))
            except re.error:
                matches = False
            if matches:
                return
            if variable:
                channel.set(variable, None)
                channel.set(f"{variable}_invalid", digits)
        if not channel.ready:
            break
        if invalid:
            play(channel, invalid)
        tries -= 1
    if words[10] and channel.ready:
        channel.transfer(*extension_of(strings.separate(words[10], " ")))


@application("flush_dtmf", quick=True)
def flush_dtmf(channel: Channel, data: str) -> None:
    """Drop digits that have not been read."""
    del data
    channel.digits.clear()


@application("queue_dtmf", quick=True)
def queue_dtmf(channel: Channel, data: str) -> None:
    """Queue digits as if the far end had sent them."""
    for digit in data.split("@", maxsplit=1)[0]:
        if digit in "0123456789*#ABCDabcd":
            channel.accept_digit(digit, 2000, "APP")


@application("send_dtmf", quick=True)
def send_dtmf(channel: Channel, data: str) -> None:
    """Send digits to the far end; ``w`` pauses half a second and ``W`` a second."""

    def send(digit: str) -> None:
        if not channel.down:
            channel.endpoint.digit(digit)

    at = 0.0
    for digit in data.split("@", maxsplit=1)[0]:
        if digit in _PAUSES:
            at += _PAUSES[digit]
        elif digit in "0123456789*#ABCDabcd":
            if at:
                later(at, send, digit)
                at += _DIGIT
            else:
                channel.endpoint.digit(digit)


@application("start_dtmf", media=True, quick=True)
def start_dtmf(channel: Channel, data: str) -> None:
    """Start detecting in-band digits."""
    del data
    channel.detects_dtmf = True


@application("stop_dtmf", media=True, quick=True)
def stop_dtmf(channel: Channel, data: str) -> None:
    """Stop detecting in-band digits."""
    del data
    channel.detects_dtmf = False


@application("bind_digit_action", quick=True)
def bind_digit_action(channel: Channel, data: str) -> None:
    """``realm,digits|~regex,action,value[,target[,bind target]]``."""
    words = strings.separate(data, ",", 6)
    if len(words) < 3 or not all(words[:3]):
        return
    words = [*words, *[""] * 6]
    targets = [channel]
    if words[4] in ("peer", "both"):
        partner = channel.bonded()
        targets = [leg for leg in (partner, channel if words[4] == "both" else None) if leg is not None]
    for target in targets:
        binding = Binding(words[0], words[1], words[2], words[3], words[5] or "self")
        if target.machine is None:
            target.machine = DigitMachine(target)
        target.machine.bind(binding)


@application("clear_digit_action", quick=True)
def clear_digit_action(channel: Channel, data: str) -> None:
    """Drop the bindings of a realm, or ``all``."""
    realm = data.split(",", maxsplit=1)[0]
    if channel.machine is None:
        return
    if realm in ("", "all"):
        channel.machine.stop()
        channel.machine = None
    else:
        channel.machine.clear_realm(realm)


@application("digit_action_set_realm", quick=True)
def digit_action_set_realm(channel: Channel, data: str) -> None:
    """Choose the realm whose bindings count."""
    if channel.machine is not None:
        channel.machine.realm = data.split(",", maxsplit=1)[0]
