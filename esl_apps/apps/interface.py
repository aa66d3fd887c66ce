"""The public interface for applications of your own.

An application is a package with an entry point in the group ``esl_apps.applications`` that names an
:class:`Application`. Its handlers get a :class:`Call`, on which they act, and three things about it:

- an :class:`Arrival`: how the dialplan sent the caller (for a leg that a node rang: nothing, the placed call knows),
- an :class:`AppPolicy`: what the configuration says,
- a :class:`Host`: what the node does for the flow.

Rules for every handler: make the attempt known (``host.begin``, :meth:`Session.open`) before you answer or dial. Let
:class:`CallEnded` pass; :meth:`Session.run` catches it. End with exactly one record per attempt, which
:meth:`Session.run` and :func:`conclude` see to. Hold nothing in the process that must outlive it, since another node
may go on with the call: what that needs is in ``Attempt.order`` or in a timed call's ``data``.

The names in ``__all__`` are stable, and so is what :mod:`esl_apps.core.call` says of versions: an application that was
written for another major :data:`API_VERSION` is refused at the start.
"""

from __future__ import annotations

from esl_apps.apps.application import Application, Extension, Timed
from esl_apps.apps.context import AppPolicy, Arrival, Host, NotServed, Placed
from esl_apps.apps.ending import conclude
from esl_apps.apps.legs import Bleg, aleg_variables, join
from esl_apps.apps.ringing import Aleg
from esl_apps.apps.session import Session, SessionRefused, account_level
from esl_apps.apps.settings import Rules, Settings
from esl_apps.apps.shown import Shown, shown, shown_number
from esl_apps.core import causes, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import API_VERSION, Bridged, Call, CallEnded, Ended, Leg
from esl_apps.core.cards import Account, Card
from esl_apps.core.charges import Charge
from esl_apps.core.node_clock import now
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.core.restrictions import denied
from esl_apps.core.timed_call import Frequency, Scheduled, TimedCall
from esl_apps.core.unavailable import StoreUnavailable

__all__ = [
    "API_VERSION",
    "Account",
    "Aleg",
    "AppPolicy",
    "Application",
    "Arrival",
    "Attempt",
    "Bleg",
    "Bridged",
    "Call",
    "CallEnded",
    "Card",
    "Charge",
    "Ended",
    "Extension",
    "Frequency",
    "Host",
    "Leg",
    "NotDialable",
    "NotServed",
    "Number",
    "NumberPlan",
    "Placed",
    "Rules",
    "Scheduled",
    "Session",
    "SessionRefused",
    "Settings",
    "Shown",
    "StoreUnavailable",
    "Timed",
    "TimedCall",
    "account_level",
    "aleg_variables",
    "causes",
    "conclude",
    "denied",
    "join",
    "now",
    "shown",
    "shown_number",
    "terms",
]
