"""Be another node whose calls change state: write their events to Redis at a steady rate, by the node's own writer.

``python -m benchmarks.load.event_source PLAN``, an ``event_plan.Written`` as JSON. Prints how many events were
written, and in how many seconds.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json
import sys
import time

import gevent

from benchmarks.load.event_plan import EACH, Written
from esl_apps.apps import click2dial
from esl_apps.core import call_events, terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.store import redis_client
from esl_apps.store.event_writer import EventWriter

#: The states of an answered call.
_STATES = (terms.AGENT_RINGING, terms.AGENT_ANSWERED, terms.CALLEE_RINGING, terms.BRIDGED)
#: Seconds between two looks at the clock.
_STEP = 0.005
#: Calls that are up at a time.
_CALLS = 200


class Source:
    """Calls that are up at the same time, and change state in turn."""

    def __init__(self, writer: EventWriter, integrator: str, agents: int) -> None:
        self._writer, self._integrator, self._agents = writer, integrator, agents
        self._live: list[tuple[Attempt, int]] = []
        self._begun = self._turn = 0

    def changed(self, attempt: Attempt, moment: Moment) -> None:
        if attempt.record is None:
            self._writer.add(attempt, moment)
        else:
            self._writer.add(attempt, call_events.of_end(attempt.record, moment.at))

    def save(self, attempt: Attempt) -> None:
        """A live call is kept nowhere here."""

    def has_recording(self, _attempt: Attempt) -> bool:
        return False

    def step(self, more: bool) -> bool:
        """Have one event more. False: all calls have ended, and no ``more`` are to begin."""
        if more and len(self._live) < _CALLS:
            self._begin()
            return True
        if not self._live:
            return False
        self._turn = (self._turn + 1) % len(self._live)
        attempt, state = self._live[self._turn]
        now = time.time()
        if state < len(_STATES):
            self._live[self._turn] = attempt, state + 1
            attempt.enter(_STATES[state], now)
        else:
            self._live[self._turn] = self._live[-1]
            self._live.pop()
            attempt.end(terms.ANSWERED, 16, terms.CALLEE, now)
        return True

    def _begin(self) -> None:
        self._begun += 1
        attempt = Attempt(
            app=click2dial.REF,
            integrator=self._integrator,
            extension=str(1000 + self._begun % self._agents),
            number="0820001234",
            dial_number="27115550000",
            call_dir="outbound",
            observer=self,
        )
        self._live.append((attempt, 0))
        self._writer.add(attempt, attempt.timeline[0])


def main() -> None:
    plan = Written(**json.loads(sys.argv[1]))
    writer = EventWriter(redis_client.connect(plan.redis))
    writer.look()
    writer.start()
    source = Source(writer, plan.integrator, plan.agents)
    began, sent = time.monotonic(), 0
    calls = plan.count // EACH
    while True:
        due = int((time.monotonic() - began) * plan.rate) - sent
        for _ in range(due):
            if not source.step(more=source._begun < calls):
                break
            sent += 1
        else:
            gevent.sleep(_STEP)
            continue
        break
    took = time.monotonic() - began
    writer.stop()
    print(json.dumps({"written": sent, "seconds": took, "cpu": time.process_time()}), flush=True)


if __name__ == "__main__":
    main()
