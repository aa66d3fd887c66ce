"""``esl-apps sandbox``: the stand-in for FreeSWITCH, which shares no code with what it tests."""

from __future__ import annotations

import argparse

from esl_apps import sandbox


def run(arguments: argparse.Namespace) -> int:
    return sandbox.run(arguments.argv)
