"""Applications that answer, refuse, move and join legs."""

from __future__ import annotations

import re
import time

from esl_apps.sandbox.applications.registry import application, extension_of
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.leg.state import State
from esl_apps.sandbox.run.bridge import bridge, handle_cause
from esl_apps.sandbox.run.dialplan import inline
from esl_apps.sandbox.run.originate import Attempt
from esl_apps.sandbox.wire import causes, strings


@application("answer", quick=True)
def answer(channel: Channel, data: str) -> None:
    """Answer the caller."""
    del data
    channel.answer()


@application("pre_answer", quick=True)
def pre_answer(channel: Channel, data: str) -> None:
    """Send early media (183)."""
    del data
    channel.pre_answer()


@application("ring_ready", quick=True)
def ring_ready(channel: Channel, data: str) -> None:
    """Send ringing (180)."""
    del data
    channel.ring()


@application("hangup", quick=True)
def hangup(channel: Channel, data: str) -> None:
    """End the call with a cause."""
    channel.hangup(causes.parse(data) if data else "NORMAL_CLEARING")


@application("respond", quick=True)
def respond(channel: Channel, data: str) -> None:
    """Refuse the caller with this SIP response."""
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
            partner.transfer(*extension_of(words[1:]))
        if words[0] == "-bleg":
            return
        words = words[1:]
    if words:
        channel.transfer(*extension_of(words))


@application("execute_extension", quick=True)
def execute_extension(channel: Channel, data: str) -> None:
    """Run another extension's actions and come back."""
    extension, dialplan, context = extension_of(strings.separate(data, " "))
    lookup = channel.switch.dialplan.lookup
    is_inline = dialplan.lower() == "inline"
    actions = inline(extension) if is_inline else lookup(channel, context or channel.profile.context, extension)
    for app, argument in actions or ():
        if not channel.ready:
            break
        channel.execute(app, argument)


@application("blind_transfer_ack", quick=True)
def blind_transfer_ack(channel: Channel, data: str) -> None:
    """Tell the phone that has transferred this leg whether that worked."""
    channel.confirm_transfer(success=strings.true(data))


@application("park")
def park(channel: Channel, data: str) -> None:
    """Wait for commands."""
    del data
    channel.park()


@application("sleep")
def sleep(channel: Channel, data: str) -> None:
    """Wait for some milliseconds."""
    deadline = time.monotonic() + strings.number(data) / 1000
    while channel.ready and time.monotonic() < deadline:
        if channel.breaking:
            channel.breaking = False
            break
        channel.idle(deadline)


@application("echo", media=True)
def echo(channel: Channel, data: str) -> None:
    """Play the caller's own audio back until the end."""
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


@application("intercept")
def intercept(channel: Channel, data: str) -> None:
    """Take another leg, wherever it is, and join it. The leg that it was joined with ends."""
    words = strings.separate(data, " ")
    leg = channel.switch.locate(words[-1]) if words else None
    if leg is None or leg.down:
        return
    partner = leg.bonded()
    channel.answer()
    leg.answer()
    channel.pending_bridge = leg
    leg.move(State.HIBERNATE)
    channel.move(State.SOFT_EXECUTE, keep=True)
    if partner is not None and partner is not channel:
        partner.hangup("PICKED_OFF")


@application("conference", media=True)
def conference(channel: Channel, data: str) -> None:
    """Join a named room until the end or a break. Members hear each other's tones."""
    name = re.split(r"[@+]", data, maxsplit=1)[0]
    room = channel.switch.conferences.setdefault(name, [])
    switch = channel.switch
    channel.answer()
    room.append(channel)

    def others() -> set[int]:
        return {hz for member in room if member is not channel for hz in switch.tones_from(member)}

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


@application("hold", quick=True)
def hold(channel: Channel, data: str) -> None:
    """Put the far end on hold."""
    del data
    channel.endpoint.hold(True)


@application("unhold", quick=True)
def unhold(channel: Channel, data: str) -> None:
    """Take the far end off hold."""
    del data
    channel.endpoint.hold(False)
