"""A simulated FreeSWITCH: its event socket in both directions, its phones, its dialplan.

``run`` is the command, which ``python -m esl_apps.sandbox`` also runs. The caller must have patched gevent.
"""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str] | None = None) -> int:
    """Run a sandbox until SIGTERM or SIGINT; return the exit status."""
    from esl_apps.sandbox.doors.server import main

    return main(argv)
