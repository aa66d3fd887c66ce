"""JSON lines and errors, printed the same way by every command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

_Item = TypeVar("_Item", bound=Mapping[str, object])


def print_json(item: Mapping[str, object]) -> None:
    """Print one item as one line of JSON, and flush, so that a reader of a pipe gets each item at once."""
    print(json.dumps(item), flush=True)


def print_line(text: str) -> None:
    """Print a line for people. Part of it may come from a caller, a client or Redis."""
    print(printable(text))


def report(text: str) -> None:
    """Print a line about work that is being done or has been done. If the reader of a pipe has gone, the work goes on:
    its lines are discarded, and it keeps its exit status."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_output()


def report_json(item: Mapping[str, object]) -> None:
    """As ``report``, with a line of JSON."""
    report(json.dumps(item))


def report_result(item: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """As ``report``, with either form of a result."""
    if as_json:
        report_json(item)
    else:
        report(text)


def print_list(items: Sequence[_Item], line: Callable[[_Item], str], counted: str, *, as_json: bool) -> None:
    """Print items as JSON, or a ``line`` for each and, on standard error, how many there are: "3 ``counted``"."""
    for item in items:
        if as_json:
            print_json(item)
        else:
            print_line(line(item))
    if not as_json:
        print(f"{len(items)} {counted}", file=sys.stderr)


def discard_output() -> None:
    """Discard what standard output still holds, and all that comes: the interpreter's last flush would fail, too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(message: str) -> None:
    print(f"esl-apps: {printable(message)}", file=sys.stderr)


def printable(text: str) -> str:
    """Return a text with its control characters escaped. It may come from a document, and goes to a terminal."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


def explain(error: OSError) -> str:
    """Return what went wrong with which file, without the number of the error."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason
