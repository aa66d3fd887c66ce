"""How a leg sounded, and where to find it in a packet capture."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class LegQuality(Struct, kw_only=True):
    """One leg, as the switch reported it. None: the switch didn't say."""

    leg: Annotated[str, Meta(description="The channel's UUID on the switch.")]
    sip_call_id: Annotated[str | None, Meta(description="The Call-ID of its SIP dialogue.")] = None
    sip_status: Annotated[int | None, Meta(description="The last SIP status: of the INVITE, or 200 after a BYE.")] = (
        None
    )
    gateway: Annotated[str | None, Meta(description="The gateway of the switch that it went through.")] = None
    codec: Annotated[str | None, Meta(description="The codec in which the phone was heard, and samples a second.")] = (
        None
    )
    post_dial_delay: Annotated[float | None, Meta(description="Seconds from the INVITE to ringing or early media.")] = (
        None
    )
    packets_in: Annotated[int | None, Meta(description="RTP packets from the phone. 0: it was not heard.")] = None
    packets_out: Annotated[int | None, Meta(description="RTP packets to the phone. 0: it heard nothing.")] = None
    mos: Annotated[float | None, Meta(description="Mean opinion score of the sound from the phone, 1 to 4.5.")] = None
    loss: Annotated[float | None, Meta(description="Share of the packets from the phone that were lost, 0 to 1.")] = (
        None
    )
    jitter: Annotated[
        float | None, Meta(description="Largest deviation of the packets' intervals from the phone, in milliseconds.")
    ] = None
    round_trip: Annotated[float | None, Meta(description="Average round trip by RTCP, in milliseconds.")] = None


class CallQuality(Struct, kw_only=True):
    """Both legs of a call. None: there was none, or its end was not seen."""

    agent: LegQuality | None = None
    callee: LegQuality | None = None

    def legs(self) -> list[tuple[str, LegQuality]]:
        """Return the legs that are known, each with its party."""
        return [(party, leg) for party, leg in (("agent", self.agent), ("callee", self.callee)) if leg is not None]


class RingSeconds(Struct, kw_only=True):
    """For how long each party's phone rang, in seconds. None: it did not ring."""

    agent: float | None = None
    callee: float | None = None
