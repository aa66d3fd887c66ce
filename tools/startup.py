"""Measure how long commands take to start: ``python tools/startup.py [PYTHON]``, best of ten runs, in turn.

PYTHON is one that esl_apps is installed for, by default this one. The baseline is Python with two of the libraries,
gevent and redis-py. ``serve`` counts until it says that it is ready, with a Redis and a sandbox running.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from esl_apps.cli.embedded_redis import redis_server
from tests.support.ports import free_port

RUNS = 10


def main(python: str) -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis_port, switch_port = free_port(), free_port()
        stack.enter_context(running([redis_server(), "--port", str(redis_port), "--save", ""], "eady to accept"))
        sandbox = [python, "-m", "esl_apps", "sandbox", "--listen", f"127.0.0.1:{switch_port}"]
        stack.enter_context(running(sandbox, "event socket on"))
        config = folder / "esl_apps.yml"
        config.write_text(json.dumps(settings(folder, redis_port, switch_port)))
        command = [python, "-m", "esl_apps"]
        measured: dict[str, Callable[[], float]] = {
            'python -c "import gevent, redis"': lambda: ended([python, "-c", "import gevent, redis"]),
            "esl-apps --version": lambda: ended([*command, "--version"]),
            "esl-apps calls": lambda: ended([*command, "calls", "-c", str(config)]),
            "esl-apps serve, until it is ready": lambda: ready([*command, "serve", "-c", str(config)]),
        }
        # In turn, so that a busy minute slows all of them.
        taken = [[measure() for measure in measured.values()] for _ in range(RUNS)]
    for name, seconds in zip(measured, zip(*taken, strict=True), strict=True):
        print(f"{name:<36} {min(seconds):.2f} s")
    return 0


def settings(folder: Path, redis_port: int, switch_port: int) -> dict[str, object]:
    return {
        "node": {"name": "startup", "listen": f"127.0.0.1:{free_port()}", "state_dir": str(folder)},
        "redis": {"url": f"redis://127.0.0.1:{redis_port}/0"},
        "switches": [{"name": "fs1", "address": f"127.0.0.1:{switch_port}", "password": "ClueCon"}],
        "admin": {"listen": f"127.0.0.1:{free_port()}", "token": "a-token-to-start-with"},
        "integrators": [{"name": "acme", "listen": f"127.0.0.1:{free_port()}", "token": "a-token-to-start"}],
    }


def ended(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, cwd="/")
    return time.monotonic() - began


def ready(command: list[str]) -> float:
    began = time.monotonic()
    with running(command, " ready"):
        return time.monotonic() - began


@contextmanager
def running(command: list[str], said: str) -> Iterator[None]:
    """Start a process, and wait until it says so; end it afterwards."""
    # Wheels are compiled when they are installed.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", env=environ
    )
    assert process.stdout is not None
    try:
        if not any(said in line for line in process.stdout):
            raise RuntimeError(f"{command[0]} has ended")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if sys.argv[1:] else sys.executable))
