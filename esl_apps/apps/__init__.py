"""The registry: the one place that knows which applications there are.

Everything that depends on an application (its path on the event socket, adoption, metrics, the dialplan, the demo, the
documentation) reads this table.
"""

from __future__ import annotations

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa, inbound
from esl_apps.apps.application import Application

#: By ``ref``, in the order in which documentation and demo show them.
APPLICATIONS: dict[str, Application] = {
    application.ref: application
    for application in (
        click2dial.APPLICATION,
        dialthrough.APPLICATION,
        callback.APPLICATION,
        disa.APPLICATION,
        inbound.APPLICATION,
        autodial.APPLICATION,
    )
}


def application(ref: str) -> Application:
    """The application of a call. Calls of one that is not installed here are followed to their end."""
    return APPLICATIONS.get(ref) or Application(ref=ref, path=ref, title="not installed here")
