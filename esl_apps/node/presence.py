"""Whether an agent is there: registered, and not in a call.

The switches are asked, all at once, when the question comes: phones register with a switch, and may be in calls that no
node has. A node's own calls come first, since a switch lists a new channel some milliseconds late.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import gevent
import msgspec

from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import is_with
from esl_apps.core.dialstring import Endpoints, mark_of
from esl_apps.core.numbers import Number
from esl_apps.esl.answers import ReplyError, SwitchFailed, SwitchUnavailable
from esl_apps.esl.leg_commands import is_up, variable
from esl_apps.esl.switch import Switch
from esl_apps.node.calls import Calls
from esl_apps.process import background

IDLE, BUSY, UNKNOWN = "idle", "busy", "unknown"
NOT_REGISTERED = "not_registered"
#: Seconds that the switches have; the answer over HTTP is promised within 50 ms.
WITHIN = 0.04
#: Commands that wait for a switch, above which it is asked nothing more here: those that place and end calls would come
#: behind the questions, also behind those that were given up.
_BACKLOG = 20
#: Channels of a switch that are looked at one by one: anyone may call with an agent's number in From.
_MOST = 20
#: Seconds for questions that no client waits for.
_PATIENT = 1.0


@dataclass(frozen=True, slots=True)
class Presence:
    """What is known of an agent."""

    registered: bool | None
    """None: it isn't known."""
    state: str
    calls: list[str]
    """References of their calls."""

    def lacks(self, wanted: str) -> str | None:
        """Return why the agent isn't ``registered`` or ``idle``, as is ``wanted``; None if they are, or if that isn't
        known."""
        if self.registered is False:
            return NOT_REGISTERED
        return BUSY if wanted == IDLE and self.state == BUSY else None

    def tells(self, wanted: str) -> bool:
        """Return whether it is known that the agent is as ``wanted``, or isn't."""
        return self.lacks(wanted) is not None or (
            self.registered is not None and (wanted != IDLE or self.state != UNKNOWN)
        )


class AgentUnavailable(Exception):
    """The agent isn't as ``require_agent`` asks: nothing is dialled."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            {NOT_REGISTERED: "no phone of the agent is registered", BUSY: "the agent is in a call"}[reason]
        )
        self.reason = reason


@dataclass(slots=True)
class _Said:
    """What one switch has said. None: nothing, in time."""

    registered: bool | None = None
    busy: bool | None = None
    calls: Sequence[str] = ()


class _Channel(msgspec.Struct):
    uuid: str
    direction: str = ""
    name: str = ""
    presence_data: str = ""


class _Channels(msgspec.Struct):
    rows: list[_Channel] = msgspec.field(default_factory=list)


def look(
    switches: Sequence[Switch],
    calls: Calls,
    endpoints: Endpoints,
    agent: Number,
    integrator: str,
    *,
    with_calls: bool = False,
) -> Presence:
    """Ask about an extension. ``calls``: this node's. ``with_calls``: also find the integrator's calls with this agent
    that other nodes have."""
    question = _Question(agent.dialled, endpoints.registration(agent), integrator if with_calls else "")
    # The phones of a switch that is away can't be rung.
    asked = [background.once("presence", question.ask, switch) for switch in switches if switch.connected]
    own = [live.attempt for live in list(calls.live.values()) if _is_in(live.attempt, agent.dialled)]
    gevent.joinall(asked, timeout=WITHIN)
    said = [greenlet.value or _Said() for greenlet in asked]
    gevent.killall(asked, block=False)
    refs = [attempt.call_ref for attempt in own if attempt.integrator == integrator]
    refs += [ref for answer in said for ref in answer.calls]
    busy = True if own else _any([answer.busy for answer in said])
    return Presence(
        _any([answer.registered for answer in said]),
        UNKNOWN if busy is None else BUSY if busy else IDLE,
        list(dict.fromkeys(refs)),
    )


def legs(switch: Switch, agent: Number) -> Iterator[str]:
    """Yield the UUIDs of the legs of an agent's own phones on a switch.

    :raises SwitchFailed: it doesn't say.
    """
    question = _Question(agent.dialled, None, "", _PATIENT)
    yield from (channel.uuid for channel in question.channels(switch))


def _any(values: Sequence[bool | None]) -> bool | None:
    """Return whether one is true; None if none is, and not all are known."""
    if True in values:
        return True
    return None if None in values or not values else False


def _is_in(attempt: Attempt, agent: str) -> bool:
    """Return whether a call of this node keeps an agent busy."""
    # A caller who shows the agent's number isn't the agent, or anyone could keep them busy.
    return not attempt.claimed and is_with(agent, attempt.extension, attempt.agents, attempt.bridged_at)


class _Question:
    """One question, to each switch."""

    def __init__(self, agent: str, contact: str | None, integrator: str, within: float = WITHIN) -> None:
        """``contact``: as ``Endpoints.registration`` says. ``integrator``: whose calls to find; empty: none."""
        self._agent = agent
        self._contact = contact
        self._integrator = integrator
        self._deadline = time.monotonic() + within

    def ask(self, switch: Switch) -> _Said:
        said = _Said()
        with suppress(SwitchFailed, msgspec.MsgspecError):
            if self._contact is not None:
                said.registered = not self._api(switch, f"sofia_contact {self._contact}").startswith("error/")
            # The list lags behind: it has calls of a moment ago that have ended.
            found = [channel for channel in self.channels(switch) if self._is_up(switch, channel)]
            said.busy = bool(found)
            if self._integrator:
                said.calls = [ref for channel in found if (ref := self._ref(switch, channel))]
        return said

    def channels(self, switch: Switch) -> Iterator[_Channel]:
        """Yield the channels of the agent's own phones, those that have just ended included.

        :raises SwitchFailed, MsgspecError: the switch doesn't list them.
        """
        listed = self._api(switch, f"show channels like %{mark_of(self._agent)}% as json")
        return self._theirs(switch, msgspec.json.decode(listed, type=_Channels).rows)

    def _api(self, switch: Switch, command: str) -> str:
        """:raises SwitchUnavailable: it doesn't answer in time, or has much to do. :raises ReplyError: it refuses."""
        return switch.api(command, self._time_for(switch))

    def _time_for(self, switch: Switch) -> float:
        """Return how long a switch has for an answer. :raises SwitchUnavailable: it has much to do."""
        if switch.backlog >= _BACKLOG:
            raise SwitchUnavailable("it has much to do")
        return max(0.001, self._deadline - time.monotonic())

    def _theirs(self, switch: Switch, channels: Sequence[_Channel]) -> Iterator[_Channel]:
        """Yield the channels of the agent's own phones."""
        named = [channel for channel in channels if channel.name.split("/", 2)[-1].startswith(f"{self._agent}@")]
        marked = [channel for channel in channels if channel.presence_data == mark_of(self._agent)]
        yield from marked
        for channel in [channel for channel in named if channel not in marked][:_MOST]:
            # A phone that was called has its name from its registration; a caller writes their own.
            if channel.direction == "outbound" or self._of(switch, channel, "sip_auth_username") == self._agent:
                yield channel

    def _is_up(self, switch: Switch, channel: _Channel) -> bool:
        return is_up(switch, channel.uuid, self._time_for(switch))

    def _ref(self, switch: Switch, channel: _Channel) -> str:
        """Return the call that a channel is in; empty if it isn't one of this integrator."""
        if self._of(switch, channel, "esl_account_id") != self._integrator:
            return ""
        return self._of(switch, channel, "esl_call_ref")

    def _of(self, switch: Switch, channel: _Channel, name: str) -> str:
        """Return a channel's variable; empty if the channel has ended, or has no such variable."""
        try:
            return variable(switch, channel.uuid, name, self._time_for(switch))
        except ReplyError:
            return ""
