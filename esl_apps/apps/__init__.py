"""The registry: the one place that knows which applications there are.

Everything that depends on an application (its path on the event socket, adoption, metrics, the dialplan, the demo, the
documentation) reads this table. A package installed next to this one adds its own through the entry point group
:data:`GROUP`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa, inbound, transfer
from esl_apps.apps.application import Application
from esl_apps.core import talk
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Leg
from esl_apps.core.terms import CALLEE

GROUP = "esl_apps.applications"
"""Entry points that name an :class:`~esl_apps.apps.application.Application`."""


class ApplicationError(Exception):
    """An installed application can't be used; ``str()`` names its entry point."""


#: By ``ref``, in the order in which they are shown.
APPLICATIONS: dict[str, Application] = {
    application.ref: application
    for application in (
        click2dial.APPLICATION,
        dialthrough.APPLICATION,
        callback.APPLICATION,
        disa.APPLICATION,
        inbound.APPLICATION,
        autodial.APPLICATION,
        transfer.APPLICATION,
    )
}


@cache
def load_installed() -> None:
    """Add the applications of other packages. :raises ApplicationError: one of them can't be used."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            add(entry.load())
        except Exception as error:
            raise ApplicationError(f"application {entry.name} ({entry.value}): {error}") from error


def add(application: Application) -> None:
    """Add an application; one that is in the registry already changes nothing.

    :raises ValueError: it isn't an application, or another one has its name, path or store.
    """
    if not isinstance(application, Application):
        raise ValueError(f"expected an Application, not {type(application).__name__}")
    if APPLICATIONS.get(application.ref) is application:
        return
    application.check()
    for other in APPLICATIONS.values():
        if application.ref == other.ref or application.path == other.path:
            raise ValueError(f"its ref or path is that of {other.ref}")
        if application.timed and other.timed and application.timed.store == other.timed.store:
            raise ValueError(f"its store is that of {other.ref}")
    APPLICATIONS[application.ref] = application


def application(ref: str) -> Application:
    """The application of a call. Calls of one that is not installed here are followed to their end."""
    return APPLICATIONS.get(ref) or Application(ref=ref, path=ref, title="not installed here")


def note_hold(attempt: Attempt, at: float, aleg: Leg | None = None, bleg: Leg | None = None) -> None:
    """Note for how long the client of a call was on hold, over HTTP or by the agent's phone. An inbound caller's
    ``hold_time`` is their wait. ``at``: the end."""
    app = application(attempt.app)
    if app.second_party == CALLEE:
        agent = aleg if second_party(attempt) == CALLEE else bleg
        by_phone = agent.hold_seconds if app.holds and agent is not None else 0.0
        attempt.hold_time = talk.hold_time(attempt, at, by_phone) or attempt.hold_time


def second_party(attempt: Attempt) -> str:
    """Return the party on a call's B-leg: ``agent`` or ``callee``."""
    return transfer.second_party(attempt) or application(attempt.app).second_party
