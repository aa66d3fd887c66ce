"""Read a configuration while the node goes on: in another process, and within a deadline."""

from __future__ import annotations

import sys
from contextlib import suppress

import gevent
from gevent import subprocess

from esl_apps.config import child
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.net.turns import take_turn

#: Seconds for reading a file; 10,000 accounts take about one, five times as long without libyaml.
PATIENCE = 60.0
#: Seconds to wait for a process that was killed. One that waits for a disk doesn't end before the disk answers.
_KILLED = 1.0

#: Runs ``child.main`` with this process's path, however it was started.
_CODE = "import sys; sys.path[:] = {path!r}; from esl_apps.config.child import main; main()"


def load_apart(file: str) -> Config:
    """Do what ``config.load`` does, in another process. :raises ConfigError: as ``load``, or it took too long."""
    data = _run(file)
    decoder = child.Decoder()
    try:
        for frame in child.split(data):
            take_turn("configuration")
            decoder.take(frame)
        return decoder.config()
    except child.Incomplete:
        raise ConfigError("can't be read: the process that reads it has ended", file=file) from None


def _run(file: str) -> bytes:
    command = [sys.executable, "-c", _CODE.format(path=sys.path), file]
    # Not this process's standard error: it might not be read.
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=True
        )
    except OSError as error:
        raise ConfigError(f"can't be read: no process can be started: {error.strerror}", file=file) from None
    try:
        with gevent.Timeout(PATIENCE, ConfigError(f"can't be read within {PATIENCE:g} s", file=file)):
            data: bytes = process.communicate()[0]
            return data
    finally:
        if process.poll() is None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_KILLED)
