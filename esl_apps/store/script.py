"""Run the Lua scripts of ``store/lua``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import unreadable
from esl_apps.store.errors import Fault, NoScript, raise_first
from esl_apps.store.redis_client import Client

#: A line to be replaced by the text of ``lua/include/NAME.lua``. Redis has no modules for scripts (functions need
#: Redis 7), but nine of the scripts begin by reading the clock in the same way, and two share the sums of ``usage.py``.
_INCLUDE = "-- include: "


@cache
def text_of(name: str) -> str:
    """The script ``lua/NAME.lua``, with what it includes."""
    text = resources.files("esl_apps.store").joinpath(f"lua/{name}.lua").read_text()
    lines = text.splitlines(keepends=True)
    return "".join(
        text_of(f"include/{line.removeprefix(_INCLUDE).strip()}") if line.startswith(_INCLUDE) else line
        for line in lines
    )


def sha_of(text: str) -> str:
    """The name by which Redis knows a script that it has seen."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def by_redis() -> Any:
    """Return an empty time, for which a script reads Redis's clock. Tests pass a clock of their own: Unix seconds."""
    return ""


class Run(NamedTuple):
    """A script with its keys, all of which are on one slot of a cluster, and its arguments."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any]


class Script:
    """``lua/NAME.lua``: one atomic step on Redis. Its head says what KEYS and ARGV are."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.text = text_of(name)
        self.sha = sha_of(self.text)

    def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """:raises StoreUnavailable: Redis is down, or refuses."""
        try:
            answer = self._run(keys, args)
        except Fault as error:
            self.note(keys, error)
            raise
        self.note(keys, answer)
        return answer

    def _run(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return self._client.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScript:
            # Redis was restarted, or has never seen it. EVAL loads it, on the right node of a cluster.
            return self._client.execute_command("EVAL", self.text, len(keys), *keys, *args)

    def note(self, keys: Sequence[str], answer: object) -> None:
        """Log once if the script can't use its keys, until it can."""
        # Another script may be able to use the same first key.
        if isinstance(answer, Fault):
            unreadable.say(f"{self.sha} {keys[0]}", answer, keys)
        elif unreadable.are_known() and not isinstance(answer, StoreUnavailable):
            unreadable.mended(f"{self.sha} {keys[0]}")

    def on(self, keys: Sequence[str], args: Sequence[Any]) -> Run:
        """For :func:`run_all`."""
        return Run(self, keys, args)


def run_all(client: Client, runs: Sequence[Run], *, strict: bool = True, quiet: bool = False) -> list[Any]:
    """Run scripts in one round trip, each on a slot of its own, and return their answers.

    :raises StoreUnavailable: Redis is down or, if ``strict``, one of them failed; otherwise that one's answer is the
        error. ``quiet``: the caller logs keys that can't be used.
    """
    if not runs:
        return []
    commands = [("EVALSHA", run.script.sha, len(run.keys), *run.keys, *run.args) for run in runs]
    answers: list[Any] = client.send_all(commands, raise_on_error=False)
    lost = [i for i, answer in enumerate(answers) if isinstance(answer, NoScript)]
    if lost:
        loading = [("EVAL", runs[i].script.text, *commands[i][2:]) for i in lost]
        for i, answer in zip(lost, client.send_all(loading, raise_on_error=False), strict=True):
            answers[i] = answer
    for run, answer in zip(runs, answers, strict=True):
        if not quiet:
            run.script.note(run.keys, answer)
    if strict:
        raise_first(answers)
    return answers
