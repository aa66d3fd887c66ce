"""Read a configuration in a process of its own, for a node that must go on meanwhile (``node.config_process``).

Reading thousands of accounts takes seconds of computing, and a file may be on a mount that hangs. The outcome goes to
standard output in frames: four bytes of length, then msgpack. The accounts have frames of their own, so that the node
can do other work between two of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec

from esl_apps.config import load
from esl_apps.config.model import Account, ReadConfig
from esl_apps.config.problems import ConfigError, Problem

#: Accounts in one frame: it takes about a millisecond to decode.
ACCOUNTS = 100
#: By how much this process is less urgent than the node.
_NICER = 5


def main() -> None:
    """Read the file that the command line names, and write frames."""
    # The unit's filter of system calls refuses it, and a less polite process is better than none.
    with suppress(OSError):
        os.nice(_NICER)
    for frame in frames(sys.argv[1]):
        sys.stdout.buffer.write(len(frame).to_bytes(4, "big") + frame)


def frames(file: str) -> Iterator[bytes]:
    """Yield the problems of a file; if it has none, then its configuration without accounts, and its accounts."""
    try:
        config = load(file)
    except ConfigError as error:
        yield msgspec.msgpack.encode(error.problems)
        return
    yield msgspec.msgpack.encode([])
    yield msgspec.msgpack.encode(msgspec.structs.replace(config, accounts={}))
    accounts = iter(config.accounts.items())
    while part := dict(islice(accounts, ACCOUNTS)):
        yield msgspec.msgpack.encode(part)


class Incomplete(Exception):
    """The process has ended before it had written all frames."""


class Decoder:
    """Puts frames together again. Call :meth:`take` with each, then :meth:`config`."""

    def __init__(self) -> None:
        self._problems: Sequence[Problem] | None = None
        self._config: ReadConfig | None = None
        self._accounts: dict[str, Account] = {}

    def take(self, frame: bytes | memoryview) -> None:
        if self._problems is None:
            self._problems = msgspec.msgpack.decode(frame, type=list[Problem])
        elif self._config is None:
            self._config = msgspec.msgpack.decode(frame, type=ReadConfig)
        else:
            self._accounts |= msgspec.msgpack.decode(frame, type=dict[str, Account])

    def config(self) -> ReadConfig:
        """:raises ConfigError: as ``load``. :raises Incomplete: a frame is missing."""
        if self._problems:
            raise ConfigError.of(self._problems)
        if self._config is None:
            raise Incomplete
        return msgspec.structs.replace(self._config, accounts=self._accounts)


def split(data: bytes) -> Iterator[memoryview]:
    """Yield the frames of what the process wrote. :raises Incomplete: the last one is cut."""
    left: Any = memoryview(data)
    while left:
        end = 4 + int.from_bytes(left[:4], "big")
        if len(left) < end:
            raise Incomplete
        yield left[4:end]
        left = left[end:]
