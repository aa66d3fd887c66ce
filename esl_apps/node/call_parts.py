"""The parts of a node that handle its calls, built from its services and connected with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from esl_apps.apps import APPLICATIONS
from esl_apps.node.attended import Attended
from esl_apps.node.consulting import Consulting
from esl_apps.node.following import Following
from esl_apps.node.incoming import Incoming
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.services import Services
from esl_apps.node.timed_calls import TimedCallPoller
from esl_apps.node.transferring import Transferring


@dataclass(frozen=True, slots=True)
class CallParts:
    outgoing: Outgoing
    pollers: Mapping[str, TimedCallPoller]
    """Those of applications that place timed calls, by ``ref``."""
    following: Following
    incoming: Incoming


def build_call_parts(services: Services) -> CallParts:
    outgoing = Outgoing(services)
    pollers = {
        app.ref: TimedCallPoller(app, app.timed, services, outgoing)
        for app in APPLICATIONS.values()
        if app.timed is not None
    }
    following = Following(services, pollers)
    transferring = Transferring(services)
    consulting = Consulting(services, transferring, following)
    consulting.register()
    Attended(services, transferring, consulting).register()
    return CallParts(outgoing, pollers, following, Incoming(services, pollers))
