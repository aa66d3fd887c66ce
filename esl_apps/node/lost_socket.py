"""A call whose socket was lost, and whose flow waits for its end: from the inbound connection, or from the switch's CDR
files."""

from __future__ import annotations

import time

import gevent

from esl_apps.apps import application
from esl_apps.core import node_clock
from esl_apps.esl.answers import SwitchFailed
from esl_apps.esl.channel import Channel
from esl_apps.esl.leg_commands import is_up
from esl_apps.esl.wire import Event
from esl_apps.node.census import is_parked
from esl_apps.node.live import AWAY, PARKED, Live
from esl_apps.node.services import Services

#: Seconds by which the last event of a leg that has ended may come late, and B's end after A's.
_LATE, _APART = 1.0, 0.5
#: Seconds after which to ask again for a leg whose end was not heard.
_ASK_EVERY = 30.0
#: The last application of a caller's leg that is alone and waits for a node.
_IDLE = frozenset({"socket", "bridge"})


class Followed(gevent.GreenletExit):
    """Ends a flow whose call goes on without it. No application handles it."""


def find_end(services: Services, live: Live, channel: Channel, core_uuid: str | None) -> Event | None:
    """Return the end of the A-leg, and tell its channel what the lost socket didn't hear. None: how it ended isn't
    known."""
    attempt, calls, switch_cdr = live.attempt, services.calls, services.switch_cdr
    ref, uuid = attempt.call_ref, channel.uuid
    if calls.on_socket_lost(live):
        # No flow goes on with its caller.
        attempt.closes = True
        raise Followed
    talked = attempt.bridged_at is not None
    end = wait_for_end(services, live, uuid, core_uuid)
    if live.seen_at is not None:
        channel.seen(live.seen_at)
    if end is None and not live.switch.connected:
        return None
    if end is None:
        # It ended while no connection was up.
        end = switch_cdr.wait_for(ref, uuid)
        for cdr in switch_cdr.legs(ref):
            if cdr.bleg:
                live.ends.setdefault(cdr.uuid, cdr.event)
    if end is not None:
        _tell_answer(channel, end)
        for bleg in _ends_of_blegs(services, live, channel):
            _tell_answer(channel, bleg)
            channel.tell(bleg, b"CHANNEL_HANGUP_COMPLETE")
    if live is calls.live.get(ref) and not talked:
        session = application(attempt.app).session
        calls.leave(live, dialled=attempt.number is not None if session else bool(live.bleg_ends))
    return end


def wait_for_end(services: Services, live: Live, uuid: str, core_uuid: str | None) -> Event | None:
    """Wait as long as the switch says that the A-leg lives, and hang it up if no node goes on with it.

    None: its FreeSWITCH process is gone, or doesn't know the leg.
    """
    calls, ref = services.calls, live.attempt.call_ref
    live.attempt.note("socket_lost", "the call goes on without its socket, if it lives")

    def there() -> bool:
        return live.switch.connected and live.switch.core_uuid == core_uuid

    def nowhere() -> bool:
        return not there() and all(health.switch.connected for health in services.switch_pool.health.values())

    parked_at = None
    while True:
        if uuid in live.ends:
            return live.ends[uuid]
        live.switch.hurry()
        if not live.wait(lambda: there() or nowhere(), time.monotonic() + AWAY) or not there():
            return None
        switch = live.switch
        try:
            asked = time.monotonic()
            alive = is_up(switch, uuid)
            parked = alive and is_parked(calls.census.legs(switch, asked).get(ref, []), _IDLE)
        except SwitchFailed:
            # Writing to a connection that has just broken fails at once. Pause, or the greenlet that reads the
            # connection never runs to notice the break.
            gevent.sleep(0.05)
            continue
        if not alive:
            # Its last event may still be on its way.
            live.wait(lambda: uuid in live.ends, time.monotonic() + _LATE)
            return live.ends.get(uuid)
        parked_at = (parked_at or asked) if parked else None
        if parked_at is not None and asked - parked_at >= PARKED and services.records.has(live):
            calls.reap_orphan(switch, ref)
        patience = PARKED if parked else _ASK_EVERY
        live.wait(lambda: uuid in live.ends or not live.switch.connected, time.monotonic() + patience)
        # Until now its end would have been heard.
        live.seen_at = node_clock.now()


def _ends_of_blegs(services: Services, live: Live, channel: Channel) -> list[Event]:
    """Return the ends of the B-legs, in order. They arrive at about the same time as that of the A-leg, which has
    ended."""
    aleg, open_blegs = channel.uuid, channel.open_blegs
    expected = {aleg, *open_blegs}
    live.wait(lambda: len(live.ends) > 1 and live.ends.keys() >= expected, time.monotonic() + _APART)
    blegs = [end for uuid, end in live.ends.items() if uuid != aleg]
    for open_bleg in open_blegs:
        # Its file may be written after A's.
        if open_bleg not in live.ends and (end := services.switch_cdr.wait_for(live.attempt.call_ref, open_bleg)):
            blegs.append(end)
    return blegs


def _tell_answer(channel: Channel, end: Event) -> None:
    """Tell the channel that a leg has answered, if it has."""
    if end.int("Caller-Channel-Answered-Time") > 0:
        channel.tell(end, b"CHANNEL_ANSWER")
