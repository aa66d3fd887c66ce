"""The exit statuses of all commands. The documentation and the manual page are made from this table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    WRONG = 2
    INTERRUPTED = 130
    TERMINATED = 143


MEANING: Mapping[Exit, str] = {
    Exit.OK: "all went well; `serve` was stopped and has drained",
    Exit.FAILED: "something failed, is down, or wasn't found; the message says what",
    Exit.WRONG: "a wrong argument or configuration: trying again won't help, so systemd doesn't restart `serve`",
    Exit.INTERRUPTED: "stopped by Ctrl-C, where that isn't the way to stop it",
    Exit.TERMINATED: "`demo` was stopped by SIGTERM",
}
