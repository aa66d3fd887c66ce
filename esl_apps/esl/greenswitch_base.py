"""greenswitch's classes that this package builds on: the only module that imports greenswitch.

Each is subclassed for its name, its methods' names and what they promise, so that code written for greenswitch runs on
ours. None of their constructors is called: those start greenlets that read and poll. The reading, the waiting and the
matching are ours. The hazards page says what was wrong with greenswitch's, and the tests named ``test_hazard_NN_…``
show it on greenswitch 0.0.19.
"""

from __future__ import annotations

from greenswitch.esl import ESLEvent as GreenswitchEvent
from greenswitch.esl import InboundESL as GreenswitchInbound
from greenswitch.esl import NotConnectedError, OutboundSessionHasGoneAway
from greenswitch.esl import OutboundESLServer as GreenswitchServer
from greenswitch.esl import OutboundSession as GreenswitchSession

__all__ = [
    "GreenswitchEvent",
    "GreenswitchInbound",
    "GreenswitchServer",
    "GreenswitchSession",
    "NotConnectedError",
    "OutboundSessionHasGoneAway",
]
