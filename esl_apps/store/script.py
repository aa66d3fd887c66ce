"""Run the Lua scripts of ``store/lua``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import msgspec

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.redis_client import ERRORS, NO_SCRIPT, Client

#: A line that stands for the text of ``lua/include/NAME.lua``. Redis has no modules for scripts (functions need
#: Redis 7), and half of the scripts start with the same reading of the clock or share the sums of ``usage.py``.
_INCLUDE = "-- include: "


class Unreadable(StoreUnavailable):
    """What stands in Redis is not what was written there."""


class asking_redis:
    """What a Redis that is away raises becomes :class:`StoreUnavailable`; so does what in it is not as it was written:
    what can't be read opens nothing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, ERRORS):
            raise StoreUnavailable(f"redis: {error}") from None
        if isinstance(error, (msgspec.DecodeError, UnicodeDecodeError)):
            raise Unreadable(f"redis: what is stored can't be read: {error}") from None


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
        with asking_redis():
            try:
                return self._client.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
            except NO_SCRIPT:
                # Redis was restarted, or has never seen it. EVAL loads it, on the right node of a cluster.
                return self._client.execute_command("EVAL", self.text, len(keys), *keys, *args)

    def on(self, keys: Sequence[str], args: Sequence[Any]) -> Run:
        """For :func:`run_all`."""
        return Run(self, keys, args)


def run_all(client: Client, runs: Sequence[Run], *, strict: bool = True) -> list[Any]:
    """Run scripts in one round trip, each on a slot of its own, and return their answers.

    :raises StoreUnavailable: Redis is down or, if ``strict``, one of them failed; otherwise that one's answer is the
        error.
    """
    if not runs:
        return []
    with asking_redis():
        answers = _send(client, [("EVALSHA", run.script.sha, run) for run in runs])
        lost = [i for i, answer in enumerate(answers) if isinstance(answer, NO_SCRIPT)]
        if lost:
            again = _send(client, [("EVAL", runs[i].script.text, runs[i]) for i in lost])
            for i, answer in zip(lost, again, strict=True):
                answers[i] = answer
    failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if strict and failed is not None:
        raise StoreUnavailable(f"redis: {failed}")
    return answers


def _send(client: Client, commands: Sequence[tuple[str, str, Run]]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command, script, run in commands:
        # redis-py has neither eval() nor evalsha() in a cluster's pipeline, though each is of one slot.
        pipeline.execute_command(command, script, len(run.keys), *run.keys, *run.args)
    return list(pipeline.execute(raise_on_error=False))
