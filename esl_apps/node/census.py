"""All legs of a switch that carry a reference, as the switch lists them when it is asked."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress

import msgspec
from gevent.lock import Semaphore

from esl_apps.core.terms import IN_PLACE
from esl_apps.esl.session import ReplyError
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import EVENT_PLAIN, CommandError, Event


class Census:
    def __init__(self) -> None:
        self._counted: dict[str, tuple[float, dict[str, list[Event]]]] = {}
        self._counting = Semaphore()

    def legs(self, switch: Switch, asked: float) -> dict[str, list[Event]]:
        """All legs by ``esl_call_ref``, not older than ``asked``. Calls that ask at about the same time share one
        census, which costs a command per leg.

        :raises SwitchUnavailable: :raises ReplyError:
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


def end_strangers(switch: Switch, application: str, data: str) -> None:
    """Hang up the channels that have taken the place of a leg that ran an application: they run it now, and it may have
    no end, as a conference or the music of a party on hold.

    They carry nothing of ours, and their sender can overwrite what the switch notes of a Replaces. What tells them is
    the number that the switch has made up for them.

    :raises SwitchUnavailable: :raises ReplyError:
    """
    made_up = f"answer,{application}:{data or IN_PLACE['current_application_data']}"
    listed = msgspec.json.decode(switch.api("show channels as json"))
    for row in listed.get("rows", ()):
        if row["dest"] == made_up:
            with suppress(ReplyError):
                # It may have ended by now.
                switch.api(f"uuid_kill {row['uuid']} CALL_REJECTED")


def is_parked(legs: Sequence[Event], after: Collection[str]) -> bool:
    """Whether a call has one leg only, which the switch has told to do nothing but one of these applications."""
    return len(legs) == 1 and legs[0].var("current_application") in (None, *after)
