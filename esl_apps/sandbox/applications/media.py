"""The dialplan applications: what ``execute`` runs. Each takes the channel and its expanded argument.

A waiting application loops on `Channel.idle`, which runs whatever commands came in meanwhile: that is what
makes a second ``execute`` run *inside* the first, as on FreeSWITCH.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent

from esl_apps.sandbox.doors import listener
from esl_apps.sandbox.leg import media
from esl_apps.sandbox.leg.bindings import Binding
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.run.originate import Attempt, bridge, handle_cause
from esl_apps.sandbox.wire import causes, strings
from esl_apps.sandbox.wire.events import NAMES, Event


@dataclass(frozen=True, slots=True)
class Application:
    """One application: its function, and how the switch may run it."""

    name: str
    run: Callable[[Channel, str], None]
    media: bool = False
    """It needs audio: an unanswered caller is given early media first."""
    zombie: bool = False
    """It runs on a channel that has hung up, too."""
    quick: bool = False
    """It never waits."""


_TABLE: dict[str, Application] = {}


def application(
    name: str, *, media: bool = False, zombie: bool = False, quick: bool = False
) -> Callable[[Callable[[Channel, str], None]], Callable[[Channel, str], None]]:
    """Enter a function in the table."""

    def enter(function: Callable[[Channel, str], None]) -> Callable[[Channel, str], None]:
        _TABLE[name] = Application(name, function, media, zombie, quick)
        return function

    return enter


def table() -> dict[str, Application]:
    """All applications by name."""
    return dict(_TABLE)


# -- call control ----------------------------------------------------------------------------------------


@application("answer", quick=True)
def answer(channel: Channel, data: str) -> None:
    """Answer the caller."""
    del data
    channel.answer()


@application("pre_answer", quick=True)
def pre_answer(channel: Channel, data: str) -> None:
    """Early media (183)."""
    del data
    channel.pre_answer()


@application("ring_ready", quick=True)
def ring_ready(channel: Channel, data: str) -> None:
    """Ringing (180)."""
    del data
    channel.ring()


@application("hangup", quick=True)
def hangup(channel: Channel, data: str) -> None:
    """End the call with a cause."""
    channel.hangup(causes.parse(data) if data else "NORMAL_CLEARING")


@application("respond", quick=True)
def respond(channel: Channel, data: str) -> None:
    """Refuse the caller with this very SIP response."""
    number, _, reason = data.partition(" ")
    status = strings.number(number)
    if channel.answered or channel.direction != "inbound" or channel.endpoint.kind != "sofia":
        return
    if 300 <= status < 700:
        channel.endpoint.respond(status, reason)
        channel.hangup(causes.from_sip(status))
    elif status == 180:
        channel.ring()
    elif status == 183:
        channel.pre_answer()


@application("redirect", quick=True)
def redirect(channel: Channel, data: str) -> None:
    """Refuse with a 302."""
    del data
    channel.endpoint.respond(302, "Moved Temporarily")
    channel.hangup("NORMAL_CLEARING")


@application("transfer", quick=True)
def transfer(channel: Channel, data: str) -> None:
    """Go to ``EXTENSION [DIALPLAN [CONTEXT]]``."""
    words = strings.separate(data, " ")
    if words and words[0] in ("-bleg", "-both"):
        partner = channel.bonded()
        if partner is not None:
            partner.transfer(*_extension(words[1:]))
        if words[0] == "-bleg":
            return
        words = words[1:]
    if words:
        channel.transfer(*_extension(words))


def _extension(words: list[str]) -> tuple[str, str, str]:
    padded = [*words, "", "", ""]
    return padded[0], padded[1], padded[2]


@application("execute_extension")
def execute_extension(channel: Channel, data: str) -> None:
    """Run another extension's actions and come back."""
    extension, _, context = _extension(strings.separate(data, " "))
    actions = channel.switch.dialplan.lookup(channel, context or channel.profile.context, extension)
    for app, argument in actions or ():
        if not channel.ready:
            break
        channel.execute(app, argument)


@application("park")
def park(channel: Channel, data: str) -> None:
    """Wait for commands."""
    del data
    channel.park()


@application("sleep")
def sleep(channel: Channel, data: str) -> None:
    """Wait for milliseconds."""
    deadline = time.monotonic() + strings.number(data) / 1000
    while channel.ready and time.monotonic() < deadline:
        if channel.breaking:
            channel.breaking = False
            break
        channel.idle(deadline)


@application("echo", media=True)
def echo(channel: Channel, data: str) -> None:
    """Hear oneself until the end."""
    del data
    channel.heard.append(lambda: channel.switch.tones_from(channel))
    try:
        while channel.ready and not channel.breaking:
            channel.idle(None)
    finally:
        channel.heard.pop()


@application("bridge")
def bridge_application(channel: Channel, data: str) -> None:
    """Dial, and join the two legs."""
    if not data:
        return
    was_active = channel.call_state == "ACTIVE"
    if was_active:
        channel.set_call_state("RING_WAIT")
    outcome = Attempt(channel.switch, channel, data).run()
    if was_active and not channel.down:
        channel.set_call_state("ACTIVE")
    if outcome.leg is None:
        channel.set("originate_failed_cause", outcome.cause)
        handle_cause(channel, outcome.cause)
        return
    bridge(channel, outcome.leg)


@application("conference", media=True)
def conference(channel: Channel, data: str) -> None:
    """Sit in a named room until the end or a break; members hear each other's tones."""
    name = re.split(r"[@+]", data, maxsplit=1)[0]
    room = channel.switch.conferences.setdefault(name, [])
    switch = channel.switch
    channel.answer()
    room.append(channel)

    def others() -> set[int]:
        return {hz for one in room if one is not channel for hz in switch.tones_from(one)}

    channel.heard.append(others)
    channel.set("conference_name", name)
    channel.set("conference_member_id", str(len(room)))
    try:
        while channel.ready:
            while channel.digits:
                channel.dequeue_digit()
            channel.idle(None)
    finally:
        channel.heard.remove(others)
        if channel in room:
            room.remove(channel)


# -- variables -------------------------------------------------------------------------------------------


def _assign(channel: Channel, data: str, *, export: bool = False) -> None:
    name, equals, value = data.partition("=")
    if not equals:
        name, value = data, ""
    name = name.lstrip(" ")
    value = channel.expand(value)
    if value == "undef":
        value = ""
    if export:
        nolocal = name.startswith("nolocal:")
        if name.startswith("_nolocal_"):
            nolocal, name = True, name[len("_nolocal_") :]
        known = [one for one in (channel.get("export_vars") or "").split(",") if one]
        if name not in known:
            channel.set("export_vars", ",".join([*known, name]))
        if nolocal and name.startswith("nolocal:"):
            name = name[len("nolocal:") :]
    channel.set(name, value)


@application("set", zombie=True, quick=True)
def set_(channel: Channel, data: str) -> None:
    """``name=value``."""
    _assign(channel, data)


@application("multiset", zombie=True, quick=True)
def multiset(channel: Channel, data: str) -> None:
    """Several at once: ``a=1 b=2``, or ``^^;a=1;b=2`` with a separator of one's own."""
    separator = " "
    if data.startswith("^^") and len(data) > 2:
        separator, data = data[2], data[3:]
    for pair in strings.separate(data, separator):
        if pair:
            _assign(channel, pair)


@application("export", zombie=True, quick=True)
def export(channel: Channel, data: str) -> None:
    """``name=value`` for this leg and those that it dials."""
    _assign(channel, data, export=True)


@application("unset", zombie=True, quick=True)
def unset(channel: Channel, data: str) -> None:
    """Remove a variable."""
    channel.set(data.strip(), None)


@application("multiunset", zombie=True, quick=True)
def multiunset(channel: Channel, data: str) -> None:
    """Remove several."""
    for name in data.split(" "):
        channel.set(name, None)


@application("set_profile_var", zombie=True, quick=True)
def set_profile_var(channel: Channel, data: str) -> None:
    """Change the caller profile: ``caller_id_number=…``."""
    name, _, value = data.partition("=")
    if isinstance(getattr(channel.profile, name.strip(), None), str):
        setattr(channel.profile, name.strip(), value)
        channel.profile.touch()


@application("set_user", quick=True)
def set_user(channel: Channel, data: str) -> None:
    """Take a user's variables from the directory."""
    user = data.split("@", maxsplit=1)[0]
    for name, value in channel.switch.user_variables(user):
        channel.set(name, value)


# -- playing -----------------------------------------------------------------------------------------------


def play(channel: Channel, path: str, on_digit: Callable[[str], bool] | None = None) -> str:
    """Play to the end: ``done``, ``break``, ``gone`` (the channel went) or ``missing``.

    ``on_digit`` says whether a digit ends it.
    """
    sound = media.sound(channel.expand(path))
    if sound is None:
        channel.switch.log.error("Error opening file [%s]", path)
        return "missing"
    kind = "tone_stream" if path.startswith("tone_stream://") else ""
    if path.startswith("local_stream://"):
        kind = "local_stream"
    marks = [("Playback-File-Type", kind)] if kind else []
    marks.append(("Playback-File-Path", path))
    channel.fire("PLAYBACK_START", (), marks)
    deadline = None if sound.loops < 0 or sound.seconds < 0 else time.monotonic() + sound.seconds * max(1, sound.loops)
    tones = set(sound.tones)

    def heard() -> set[int]:
        return tones

    began = time.monotonic()
    channel.heard.append(heard)
    channel.switch.shape_changed(channel)
    status = "done"
    try:
        while True:
            if not channel.ready:
                status = "gone"
                break
            if channel.breaking:
                channel.breaking = False
                status = "break"
                break
            dtmf = channel.dequeue_digit()
            if dtmf is not None:
                if on_digit is not None and on_digit(dtmf.digit):
                    status = "break"
                    break
                # One a frame, as the switch reads them.
                channel.sleeper.frame()
                continue
            channel.drain_events()
            if deadline is not None and time.monotonic() >= deadline:
                break
            spent = channel.idle(deadline)
            if deadline is not None:
                deadline += spent
    finally:
        channel.heard.remove(heard)
        channel.switch.shape_changed(channel)
    seconds = time.monotonic() - began
    channel.set("playback_last_offset_pos", str(int(seconds * media.RATE)))
    channel.set("playback_seconds", str(int(seconds)))
    channel.set("playback_ms", str(int(seconds * 1000)))
    channel.set("playback_samples", str(int(seconds * media.RATE)))
    channel.fire("PLAYBACK_STOP", (), [*marks, ("Playback-Status", "break" if status == "break" else "done")])
    return status


def _terminators(channel: Channel) -> str:
    value = channel.get("playback_terminators")
    if value is None:
        return "*"
    return {"any": "1234567890*#", "none": ""}.get(value.lower(), value)


@application("playback", media=True)
def playback(channel: Channel, data: str) -> None:
    """Play a file, a tone or silence."""
    channel.set("playback_terminator_used", None)

    def ends(digit: str) -> bool:
        if digit in _terminators(channel):
            channel.set("playback_terminator_used", digit)
            return True
        return False

    status = play(channel, data, ends)
    response = {"missing": "FILE NOT FOUND", "gone": "PLAYBACK ERROR"}.get(status, "FILE PLAYED")
    channel.set("current_application_response", response)


@application("endless_playback", media=True)
def endless_playback(channel: Channel, data: str) -> None:
    """Play again and again."""
    while channel.ready and play(channel, data) == "done":
        pass


@application("loop_playback", media=True)
def loop_playback(channel: Channel, data: str) -> None:
    """``+N path``: play N times."""
    match = re.match(r"\+(\d+)\s+(.*)", data)
    count, path = (int(match[1]), match[2]) if match else (1, data)
    for _ in range(count):
        if not channel.ready or play(channel, path) != "done":
            break


@application("gentones", media=True)
def gentones(channel: Channel, data: str) -> None:
    """Play TGML."""
    play(channel, f"tone_stream://{data.split('|', maxsplit=1)[0]}")


@application("say", media=True)
@application("speak", media=True)
def say(channel: Channel, data: str) -> None:
    """Speak; a tenth of a second a character."""
    play(channel, f"silence_stream://{100 * max(1, len(data.rsplit(' ', maxsplit=1)[-1]))}")


@application("break", quick=True)
def break_(channel: Channel, data: str) -> None:
    """End what plays."""
    del data
    channel.breaking = True


# -- digits ------------------------------------------------------------------------------------------------


def _collect(
    channel: Channel,
    digits: str,
    minimum: int,
    maximum: int,
    terminators: str,
    first: float,
    between: float,
) -> tuple[str, str, bool]:
    """Digits, the terminator and whether time ran out."""
    del minimum
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
    """One try: the digits, and ``success``, ``timeout``, ``too_small`` or ``failure``."""
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
        digits, terminator, late = _collect(channel, digits, minimum, maximum, terminators, timeout / 1000, between)
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
        channel.transfer(*_extension(strings.separate(words[10], " ")))


@application("flush_dtmf", quick=True)
def flush_dtmf(channel: Channel, data: str) -> None:
    """Forget digits that nobody read."""
    del data
    channel.digits.clear()


@application("queue_dtmf", quick=True)
def queue_dtmf(channel: Channel, data: str) -> None:
    """Digits as if the far end had sent them."""
    for digit in data.split("@", maxsplit=1)[0]:
        if digit in "0123456789*#ABCDabcd":
            channel.accept_digit(digit, 2000, "APP")


@application("send_dtmf", quick=True)
def send_dtmf(channel: Channel, data: str) -> None:
    """Digits to the far end."""
    for digit in data.split("@", maxsplit=1)[0]:
        if digit in "0123456789*#ABCDabcd":
            channel.endpoint.digit(digit)


@application("start_dtmf", media=True, quick=True)
def start_dtmf(channel: Channel, data: str) -> None:
    """Detect in-band digits."""
    del data
    channel.detects_dtmf = True


@application("stop_dtmf", media=True, quick=True)
def stop_dtmf(channel: Channel, data: str) -> None:
    """No more in-band digits."""
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
        targets = [one for one in (partner, channel if words[4] == "both" else None) if one is not None]
    for target in targets:
        binding = Binding(words[0], words[1], words[2], words[3], words[5] or "self")
        target.switch.bind_digits(target).bind(binding)


@application("clear_digit_action", quick=True)
def clear_digit_action(channel: Channel, data: str) -> None:
    """Forget the bindings of a realm, or ``all``."""
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
    """Which bindings count."""
    if channel.machine is not None:
        channel.machine.realm = data.split(",", maxsplit=1)[0]


# -- recording -----------------------------------------------------------------------------------------------


@application("record_session", quick=True)
def record_session(channel: Channel, data: str) -> None:
    """Record both directions from now on: ``FILE [+SECONDS]``."""
    match = re.match(r"(.*?)\s+\+(\d+)\s*$", data)
    path, limit = (match[1], float(match[2])) if match else (data.strip(), None)
    path = re.sub(r"^\{[^}]*\}", "", path)
    if path and path not in channel.recordings:
        channel.recordings[path] = media.Recording(channel, path, limit)


@application("stop_record_session", quick=True)
def stop_record_session(channel: Channel, data: str) -> None:
    """End one recording, or ``all``."""
    for path, recording in list(channel.recordings.items()):
        if data.strip() in ("all", path):
            recording.stop()


@application("record", media=True)
def record(channel: Channel, data: str) -> None:
    """Record the caller alone: ``FILE [SECONDS]``; a terminator ends it."""
    words = strings.separate(data, " ")
    if not words:
        return
    limit = strings.number(words[1]) if len(words) > 1 else 0
    recording = channel.recordings[words[0]] = media.Recording(channel, words[0], None)
    deadline = time.monotonic() + limit if limit else None
    while channel.ready and not channel.breaking:
        dtmf = channel.dequeue_digit()
        if dtmf is not None and dtmf.digit in _terminators(channel):
            break
        if deadline is not None and time.monotonic() >= deadline:
            break
        channel.idle(deadline)
    channel.breaking = False
    recording.stop()


# -- later ---------------------------------------------------------------------------------------------------


@application("sched_hangup", quick=True)
def sched_hangup(channel: Channel, data: str) -> None:
    """``+SECONDS [CAUSE]``."""
    words = data.split()
    if words:
        cause = causes.parse(words[1]) if len(words) > 1 else "ALLOTTED_TIMEOUT"
        channel.schedule(words[0], "switch_ivr_schedule_hangup", channel.hangup, cause)


@application("sched_transfer", quick=True)
def sched_transfer(channel: Channel, data: str) -> None:
    """``+SECONDS EXTENSION [DIALPLAN [CONTEXT]]``."""
    words = strings.separate(data, " ")
    if len(words) > 1:
        channel.schedule(words[0], "switch_ivr_schedule_transfer", channel.transfer, *_extension(words[1:]))


@application("sched_cancel", quick=True)
def sched_cancel(channel: Channel, data: str) -> None:
    """Take back this channel's tasks, or one by number."""
    channel.switch.scheduler.cancel(data.strip() or channel.uuid)


@application("sched_broadcast", quick=True)
def sched_broadcast(channel: Channel, data: str) -> None:
    """``+SECONDS PATH``."""
    words = data.split()
    if len(words) > 1:
        channel.schedule(words[0], "switch_ivr_schedule_broadcast", channel.run_inline, f"playback::{words[1]}")


# -- events, logs, holding ----------------------------------------------------------------------------------


@application("event", zombie=True, quick=True)
def event(channel: Channel, data: str) -> None:
    """Fire an event: ``Event-Name=CUSTOM,Event-Subclass=x::y,Header=value``."""
    headers = []
    name, subclass = "CHANNEL_APPLICATION", ""
    for part in strings.separate(data, ","):
        key, _, value = part.partition("=")
        if key.lower() == "event-name" and value.upper() in NAMES:
            name = value.upper()
        elif key.lower() == "event-subclass":
            subclass = value
        elif key:
            headers.append((key, value))
    channel.switch.bus.fire(Event(name, channel, after=headers, subclass=subclass if name == "CUSTOM" else ""))


@application("log", quick=True)
def log(channel: Channel, data: str) -> None:
    """Write to the log."""
    channel.switch.log.info("%s", data)


@application("info", zombie=True, quick=True)
def info(channel: Channel, data: str) -> None:
    """Write all variables to the log."""
    del data
    for name, value in channel.headers(True):
        channel.switch.log.info("%s: [%s]", name, value)


@application("eval", zombie=True, quick=True)
def eval_(channel: Channel, data: str) -> None:
    """Nothing but the expansion of the argument."""
    del channel, data


@application("hold", quick=True)
def hold(channel: Channel, data: str) -> None:
    """Put the far end on hold."""
    del data
    channel.endpoint.hold(True)


@application("unhold", quick=True)
def unhold(channel: Channel, data: str) -> None:
    """Take it off."""
    del data
    channel.endpoint.hold(False)


def _nothing(channel: Channel, data: str) -> None:
    """Accepted, with no effect here."""
    del channel, data


for _name in (
    "verbose_events",
    "privacy",
    "presence",
    "set_name",
    "enable_heartbeat",
    "sched_heartbeat",
    "remove_bugs",
    "set_audio_level",
    "jitterbuffer",
    "block_dtmf",
    "unblock_dtmf",
    "stop",
    "early_hangup",
    "send_display",
    "stop_tone_detect",
    "tone_detect",
    "start_dtmf_generate",
    "stop_dtmf_generate",
    "cng_plc",
    "set_media_stats",
    "bind_meta_app",
    "unbind_meta_app",
    "session_loglevel",
    "capture",
    "limit",
    "system",
    "set_zombie_exec",
    "deduplicate_dtmf",
    "media_reset",
    "recovery_refresh",
    "reuse_caller_profile",
):
    _TABLE[_name] = Application(_name, _nothing, quick=True)


# -- the outbound event socket -------------------------------------------------------------------------------


@application("socket")
def socket(channel: Channel, data: str) -> None:
    """Hand the channel to an application: ``host:port/path|host:port/path async full``."""
    words = data.split(" ")
    flags = {word.lower() for word in words[1:]}
    connection = _connect(channel, words[0])
    if connection is None:
        channel.switch.log.error("Socket Error!")
        return
    threaded = "async" in flags
    control = listener.Listener(channel.switch, connection, channel, full="full" in flags, threaded=threaded)
    channel.listener = control
    gevent.spawn(control.serve)
    if not threaded:
        control.run_inline()
        return
    # Neither commands nor media till ``connect``; only a hang-up or a transfer gets through.
    while channel.ready and not control.finished and not control.connected:
        channel.sleeper.sleep(None)
    # A connection that went before this point leaves the channel parked for ever: nobody is left to
    # end the park. That is FreeSWITCH's own behaviour.
    if not (control.finished and control.served):
        channel.park()
    channel.parse_events()


def _connect(channel: Channel, targets: str) -> Any:
    port = 8084
    for host in targets.split("|"):
        if not host:
            continue
        name, colon, rest = host.rpartition(":")
        if not colon:
            name, rest = host, ""
        number, slash, path = rest.partition("/") if colon else ("", "", "")
        if colon:
            port = strings.number(number)
        else:
            name, slash, path = host.partition("/")
        if slash:
            channel.set("socket_path", path)
        channel.set("socket_host", name)
        try:
            return listener.connect(name, port)
        except (OSError, UnicodeError, OverflowError) as error:
            channel.switch.log.error("Socket Error: %s", error)
    return None
