"""The transfer key of an agent's phone: a REFER, which is an action like one over HTTP.

The switch takes the customer's leg out of its bridge and sends it to the dialplan's context ``esl_apps_refer``, from
where it comes to any node. That node asks the call's own node for a transfer (``transferring``), which moves the leg
on. If the transfer is refused, both parties hear so. Then the node lets go of the leg: its dialplan ends, and the
switch joins the two again. It does the same if a node dies, or none is there.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from urllib.parse import unquote

from esl_apps.apps.legs import LONGEST
from esl_apps.core import terms
from esl_apps.core.actions import TRANSFER, Action, Undone
from esl_apps.core.call import CallEnded
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.leg_commands import try_api
from esl_apps.esl.legs import REFERRED
from esl_apps.node.services import Services
from esl_apps.node.visit import Visit

log = logging.getLogger(__name__)

#: The path on the event socket, in its parts.
PATH = ["transfer", "refer"]
#: The prompt of a refused transfer, in the package's folder.
_REFUSED = "transfer_refused"
#: Seconds for the prompt. The switch says when it ends.
_LONGEST = 20.0
#: The most characters of a Refer-To's user that are read.
_LENGTH = 64


class Referring:
    def __init__(self, services: Services) -> None:
        self._services = services

    def serve(self, visit: Visit) -> None:
        """Serve a customer's leg that an agent's phone transfers."""
        channel = visit.channel
        channel.watch_only()
        to = unquote(channel.header("Caller-Destination-Number") or "")
        try:
            self._act(visit.carried, Action(TRANSFER, to=to[:_LENGTH], by=terms.AGENT, leg=channel.uuid))
        except Undone as undone:
            log.info("transfer_refused", extra={"call_ref": visit.carried, "reason": undone.message})
            self._refuse(visit)
            return
        # The socket stays until the leg ends: the end of one socket ends the park of another.
        with suppress(CallEnded):
            channel.wait_for_hangup(LONGEST)

    def _act(self, ref: str, action: Action) -> None:
        """:raises Undone: the transfer is refused."""
        services = self._services
        live = services.calls.live.get(ref)
        if live is not None:
            services.acting.perform(live, action)
            return
        try:
            call = services.store.call(ref) if ref else None
        except StoreUnavailable as error:
            raise Undone(503, "unavailable", error.summary) from None
        if call is None:
            raise Undone(404, "unknown", "no node has this call")
        services.acting.act(call, action)

    def _refuse(self, visit: Visit) -> None:
        """Play the prompt to both parties. A leg that still rings is hung up: its bridge is gone, and without media a
        prompt has no end."""
        channel, agent = visit.channel, visit.channel.variable(REFERRED)
        path = self._services.policy.prompt(_REFUSED, 8000)
        if agent is not None:
            try_api(visit.switch, f"uuid_broadcast {agent} {path} aleg")
        with suppress(CallEnded):
            if channel.answered_at is None:
                channel.hangup("ORIGINATOR_CANCEL")
            channel.play(_REFUSED, _LONGEST)
