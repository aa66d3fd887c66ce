"""``loopback/EXTENSION/CONTEXT``: a call from the switch to its own dialplan, as a pair of legs."""

from __future__ import annotations

from esl_apps.sandbox.leg.channel import Channel, Switchboard
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.leg.state import State

L16 = ("L16", "8000", "128000")


class LoopbackEnd:
    """One end, which passes what the switch tells it to the other."""

    kind = "loopback"

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.other: LoopbackEnd | None = None

    def _peer(self) -> Channel | None:
        peer = self.other.channel if self.other else None
        return None if peer is None or peer.down else peer

    def ring(self) -> None:
        """The inner leg rings, so the outer does too."""
        if peer := self._peer():
            peer.mark_ring_ready()

    def progress(self) -> None:
        """The inner leg has early media, so the outer has it too."""
        if peer := self._peer():
            peer.mark_pre_answered()

    def answer(self) -> None:
        """The inner leg answers, and the outer before it."""
        if peer := self._peer():
            peer.mark_answered()

    def respond(self, status: int, reason: str) -> None:
        """Ignored: a loopback has no SIP."""

    def hangup(self, cause: str) -> None:
        """End the other leg with this one."""
        if self.channel is not None:
            self.channel.set("is_loopback", "1")
        if peer := self._peer():
            peer.hangup(cause)

    def digit(self, digit: str) -> None:
        """Pass a digit to the other leg."""
        if peer := self._peer():
            peer.queue_digit(digit, 2000, "APP")

    def hold(self, on: bool) -> None:
        """Ignored: a loopback plays no music to itself."""

    def referred(self, status: int) -> None:
        """Ignored: a loopback transfers nothing."""


def dial(switch: Switchboard, data: str, uuid: str, profile: CallerProfile, given: bool) -> tuple[Channel | None, str]:
    """Create the outer leg. `start` creates the inner one. ``given``: the dial string gave the UUID."""
    extension, _, rest = data.partition("/")
    context, _, dialplan = rest.partition("/")
    profile.destination_number = extension
    profile.context = context or profile.context or "default"
    profile.dialplan = dialplan or "xml"
    profile.source = "mod_loopback"
    profile.touch()
    end = LoopbackEnd()
    channel = Channel(switch, uuid, f"loopback/{extension}-a", "outbound", profile, end)
    end.channel = channel
    channel.codec = L16
    identity = [("uuid", uuid), ("call_uuid", uuid)]
    for name, value in (
        ("direction", "outbound"),
        ("is_outbound", "true"),
        *([] if given else identity),
        ("session_id", str(channel.session_id)),
        ("read_codec", "L16"),
        ("read_rate", "8000"),
        ("write_codec", "L16"),
        ("write_rate", "8000"),
        ("channel_name", channel.name),
        # FreeSWITCH sets these last if the dial string has an ``origination_uuid``.
        *(identity if given else []),
    ):
        channel.set(name, value)
    return channel, "SUCCESS"


def start(channel: Channel) -> None:
    """Create the inner leg and let it run the dialplan."""
    end = channel.endpoint
    assert isinstance(end, LoopbackEnd)
    switch = channel.switch
    profile = channel.profile.clone()
    profile.direction = profile.logical_direction = "inbound"
    profile.profile_index = ""
    uuid = switch.make_uuid()
    name = channel.name[:-2] + "-b"
    other = LoopbackEnd()
    inner = Channel(switch, uuid, name, "inbound", profile, other)
    end.other, other.other, other.channel = other, end, inner
    inner.codec = L16
    for key, value in (
        ("direction", "inbound"),
        ("uuid", uuid),
        ("session_id", str(inner.session_id)),
        ("channel_name", name),
        ("read_codec", "L16"),
        ("read_rate", "8000"),
        ("write_codec", "L16"),
        ("write_rate", "8000"),
    ):
        inner.set(key, value)
    for key in ("origination_uuid", "originate_timeout"):
        inner.set(key, channel.get(key))
    channel.set("other_loopback_leg_uuid", uuid)
    channel.set("loopback_leg", "A")
    inner.set("other_loopback_leg_uuid", channel.uuid)
    inner.set("loopback_leg", "B")
    inner.set("call_uuid", uuid)
    inner.create()
    inner.state = State.ROUTING
    inner.launch()
