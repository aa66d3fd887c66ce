"""``esl-apps sandbox``: a simulated FreeSWITCH, which shares no code with the applications that it tests."""

from __future__ import annotations

import argparse

from esl_apps import sandbox


def run(arguments: argparse.Namespace) -> int:
    return sandbox.run(arguments)
