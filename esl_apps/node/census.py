"""All legs of a switch that carry a reference, as the switch lists them when it is asked."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress

import gevent
import msgspec
from gevent.lock import Semaphore

from esl_apps.core.terms import IN_PLACE
from esl_apps.esl.answers import ReplyError, SwitchFailed
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import EVENT_PLAIN, CommandError, Event
from esl_apps.process import background

#: Seconds for which to look for a stranger's channel, and between two looks.
SOUGHT, EVERY = 1.2, 0.3


class Census:
    def __init__(self) -> None:
        self._counted: dict[str, tuple[float, dict[str, list[Event]]]] = {}
        self._counting = Semaphore()

    def legs(self, switch: Switch, asked: float) -> dict[str, list[Event]]:
        """All legs by ``esl_call_ref``, not older than ``asked``. Calls that ask at about the same time share one
        census, which costs a command per leg.

        :raises SwitchFailed:
        """
        with self._counting:
            counted, found = self._counted.get(switch.name, (-1.0, {}))
            if counted >= asked:
                return found
            counted, found = time.monotonic(), {}
            listed = msgspec.json.decode(switch.api("show channels as json"))
            for row in listed.get("rows", ()):
                try:
                    text = switch.api(f"uuid_dump {row['uuid']}")
                except (ReplyError, CommandError):
                    # It has ended, or isn't named as our legs are.
                    continue
                leg = Event(b"", text.encode(), EVENT_PLAIN)
                ref = leg.var("esl_call_ref")
                if ref:
                    found.setdefault(ref, []).append(leg)
            self._counted[switch.name] = counted, found
            return found


class Strangers:
    """Hangs up the channels that an INVITE with Replaces has put in the place of one of our legs, or next to it.

    They carry nothing of ours, and their sender can overwrite what the switch notes of a Replaces. What tells them is
    the number that the switch has made up for them: the application that the leg ran, which they run now. It may have
    no end, as a conference or the music of a party on hold.
    """

    def __init__(self) -> None:
        self._sought: dict[str, dict[str, float]] = {}
        """By switch: the numbers that it has made up → until when to look for them."""

    def end(self, switch: Switch, application: str, data: str) -> None:
        """Hang up the channels that run this application with this data. Returns at once."""
        number = f"answer,{application}:{data or IN_PLACE['current_application_data']}"
        if switch.name not in self._sought:
            self._sought[switch.name] = {}
            background.once("strangers_ending", self._look, switch)
        self._sought[switch.name][number] = time.monotonic() + SOUGHT

    def _look(self, switch: Switch) -> None:
        """Look for all at once: a list of thousands of channels costs milliseconds, and an INVITE may ask for one."""
        sought = self._sought[switch.name]
        while sought:
            # The switch lists a channel some time after it has made it.
            past = [number for number, until in sought.items() if until < time.monotonic()]
            # ValueError: a list that can't be read.
            with suppress(SwitchFailed, ValueError):
                _hang_up(switch, sought)
            for number in past:
                if sought[number] < time.monotonic():
                    del sought[number]
            gevent.sleep(EVERY)
        del self._sought[switch.name]


def _hang_up(switch: Switch, numbers: Collection[str]) -> None:
    """:raises SwitchFailed:"""
    listed = msgspec.json.decode(switch.api("show channels as json"))
    for row in listed.get("rows", ()):
        if row["dest"] in numbers:
            with suppress(ReplyError):
                # It may have ended by now.
                switch.api(f"uuid_kill {row['uuid']} CALL_REJECTED")


def is_parked(legs: Sequence[Event], after: Collection[str]) -> bool:
    """Whether a call has one leg only, which the switch has told to do nothing but one of these applications."""
    return len(legs) == 1 and legs[0].var("current_application") in (None, *after)
