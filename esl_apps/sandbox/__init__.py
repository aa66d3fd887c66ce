"""A simulated FreeSWITCH: its event socket in both directions, its phones, its dialplan.

``run`` is the command, which ``python -m esl_apps.sandbox`` also runs. The caller must have patched gevent.
"""

from __future__ import annotations

import argparse


def run(options: argparse.Namespace | None = None) -> int:
    """Run a sandbox until SIGTERM or SIGINT; return the exit status. Without ``options``, read the command line."""
    from esl_apps.sandbox.arguments import parser
    from esl_apps.sandbox.doors.server import main

    return main(parser().parse_args() if options is None else options)
