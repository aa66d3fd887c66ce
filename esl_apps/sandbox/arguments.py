"""The sandbox's command line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, with a port up to 65535")
    return host.strip("[]") or "127.0.0.1", int(port)


def _milliseconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds")
    return float(text)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="esl-apps sandbox")
    add_to(made)
    return made


def add_to(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.description = "A simulated FreeSWITCH: event socket, scripted phones, no PBX."
    parser.epilog = (
        "Extensions 1000-1019 are registered and answer after a second. Numbers behind the gateway "
        "`pstn` answer, too; those that end in 486, 603, 404, 480 or 503 are refused so, 408 never answers, 183 "
        "has early media, 302 redirects, 777 sends digits. With --control, see GET / there."
    )
    parser.add_argument(
        "--listen", type=_address, default=("127.0.0.1", 8021), help="event socket, HOST:PORT (127.0.0.1:8021)"
    )
    parser.add_argument("--password", default="ClueCon", help="password of the event socket")
    parser.add_argument("--tick", type=_milliseconds, default=20.0, help="milliseconds of a frame; 0 for none (20)")
    parser.add_argument(
        "--control", type=_address, help="control port, JSON over HTTP, HOST:PORT; port 0 picks one and prints it"
    )
    parser.add_argument("--recordings", type=Path, help="folder that ${recordings_dir} names")
    parser.add_argument("--spool", type=Path, help="folder for one JSON CDR per leg")
    parser.add_argument("--legs", type=Path, help="file for one line of JSON per leg that ended, as the switch saw it")
    parser.add_argument(
        "--dialplan",
        action="append",
        default=[],
        metavar="CONTEXT=FILE",
        help="extensions in XML for a context (public, default), as `esl-apps dialplan` prints them; may be repeated",
    )
    parser.add_argument("--empty", action="store_true", help="no extensions and no numbers but those defined")
    parser.add_argument("--verbose", action="store_true", help="log what the switch does")
