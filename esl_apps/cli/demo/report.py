"""The demo's text, for a terminal of 80 columns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from esl_apps.cli.demo.script import DemoCall
from esl_apps.operations.words import moment

_WIDTH = 78
#: Wider values have a line of their own.
_COLUMN = 19
#: The fields of a record that are Unix seconds.
_TIMES = ("dialed_at", "answered_at", "bridged_at", "ended_at")


def heading(number: int, count: int, call: DemoCall) -> Iterator[str]:
    yield ""
    yield f"{number} of {count}: {call.title}"
    for line in wrap(call.story, _WIDTH - 2):
        yield f"  {line}"
    if call.request:
        yield ""
    for text in call.request.splitlines():
        yield from wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="     ", break_on_hyphens=False)


def timeline(call: Mapping[str, Any]) -> Iterator[str]:
    """Lines for an ended call's timeline, in seconds from its start."""
    moments = [(entry["at"], entry["state"], entry["detail"]) for entry in call["timeline"]]
    moments += [(entry["at"], entry["what"], entry["detail"]) for entry in call["decisions"]]
    start = call["timeline"][0]["at"]
    yield ""
    for at, state, detail in sorted(moments, key=lambda entry: entry[0]):
        words = moment(call, state, detail)
        yield f"  {at - start:6.2f} s  {state:<15} {words}".rstrip()


def notification(key: str, payload: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a notification's fields, two to a line if they are short."""
    yield ""
    yield f"  Popped from Redis, {key}:"
    fields = [(name, _shown(name, value)) for name, value in payload.items()]
    short = [(name, value) for name, value in fields if len(value) <= _COLUMN]
    rows = (len(short) + 1) // 2
    for name, value in fields:
        if len(value) > _COLUMN:
            yield f"    {name:<14} {value}"
    for left, right in zip(short[:rows], [*short[rows:], ("", "")], strict=False):
        yield f"    {left[0]:<14} {left[1]:<{_COLUMN}}  {right[0]:<14} {right[1]}".rstrip()


def _shown(name: str, value: object) -> str:
    if value is None:
        return "-"
    if name in _TIMES and isinstance(value, (int, float)):
        milliseconds = f".{int(value % 1 * 1000):03d}" if isinstance(value, float) else ""
        return time.strftime("%H:%M:%S", time.localtime(value)) + milliseconds
    return str(value)
