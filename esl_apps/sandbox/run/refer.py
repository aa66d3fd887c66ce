"""REFER: a phone's transfer key, as mod_sofia and the core handle it."""

from __future__ import annotations

import re
from urllib.parse import unquote

from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.leg.state import State
from esl_apps.sandbox.wire.events import Event

ACCEPTED, FORBIDDEN = 200, 403
#: The variable with the Call-ID that a REFER names.
_DIALOG = "_sofia_replaces_"
#: Bytes of a watched header that are reported: of a longer one what comes before the first part that doesn't fit.
_REPORTED = 511
_TARGET = re.compile(r"sips?:([^@>?]*)(?:@[^>?]*)?(?:\?([^>]*))?", re.IGNORECASE)


def refer(channel: Channel, refer_to: str) -> None:
    """Transfer the other leg of a bridge as a phone asks, or tell the phone that this can't be."""
    match = _TARGET.search(refer_to)
    if match is None:
        return
    extension, headers = match[1].partition(";")[0], match[2] or ""
    _report(channel, refer_to)
    channel.set(_DIALOG, None)
    channel.set("transfer_disposition", "recv_replace")
    partner = channel.bonded()
    if "replaces=" in headers.lower():
        _attended(channel, partner, headers)
    elif partner is None or partner.down:
        channel.endpoint.referred(FORBIDDEN)
    else:
        _blind(channel, partner, extension, refer_to)


def _report(channel: Channel, refer_to: str) -> None:
    """Report the header if the leg watches it."""
    if "refer-to" in channel.watched:
        message = "REFER sip:mod_sofia@127.0.0.1:5060 SIP/2.0"
        value = refer_to if len(refer_to) <= _REPORTED else refer_to.partition("?")[0] + "?"
        said = [("SIP-Message", message), ("Header-Name", "Refer-To"), ("Header-Value", value)]
        channel.switch.bus.fire(Event("CUSTOM", channel, before=said, subclass="sofia::notify_watched_header"))


def _blind(channel: Channel, partner: Channel, extension: str, refer_to: str) -> None:
    channel.set("transfer_to", f"blind:{partner.uuid}")
    channel.set("transfer_destination", f"blind:{extension}")
    partner.set("sip_refer_to", refer_to)
    channel.set("endpoint_disposition", "BLIND_TRANSFER")
    if channel.true("confirm_blind_transfer"):
        partner.confirms = True
        partner.set("blind_transfer_uuid", channel.uuid)
        channel.set("blind_transfer_uuid", partner.uuid)
        channel.set("park_timeout", "600:blind_transfer")
        channel.move(State.PARK)
        partner.transfer(extension)
    else:
        partner.transfer(extension)
        channel.endpoint.referred(ACCEPTED)


def _attended(channel: Channel, partner: Channel | None, headers: str) -> None:
    """Refuse it if a leg says so, or its dialog isn't known. A real switch dials an unknown one at its own host."""
    replaces = unquote(headers[headers.lower().index("replaces=") + 9 :]).partition(";")[0]
    found = (leg for leg in channel.switch.channels.values() if leg.get("sip_call_id") == replaces and not leg.down)
    other = next(found, None)
    if other is not None:
        channel.set(_DIALOG, replaces)
    far = other.bonded() if other is not None else None
    legs = [leg for leg in (channel, partner, other, far) if leg is not None]
    if len(legs) < 4 or any(leg.true("deny_refer_requests") for leg in legs):
        channel.endpoint.referred(FORBIDDEN)
        return
    assert partner is not None
    assert far is not None
    partner.pending_bridge = far
    far.move(State.HIBERNATE)
    partner.move(State.SOFT_EXECUTE)
    channel.endpoint.referred(ACCEPTED)
    if other is not None:
        other.hangup("ATTENDED_TRANSFER")
