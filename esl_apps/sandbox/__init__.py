"""A stand-in for FreeSWITCH: its event socket in both directions, its phones, its dialplan.

``run`` is the command; ``python -m esl_apps.sandbox`` runs it, too. The caller patches gevent first.
"""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str] | None = None) -> int:
    """Run a sandbox until SIGTERM or SIGINT; the exit status."""
    from esl_apps.sandbox.doors.server import main

    return main(argv)
