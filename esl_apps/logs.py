"""One JSON line a log event, with ``call_ref`` in each that belongs to a call."""

from __future__ import annotations

import logging
import sys
import time
from itertools import islice
from typing import Any

import msgspec

#: So many attributes logging puts on every record, before anything else; what stands behind them came by ``extra``.
_STANDARD = len(vars(logging.makeLogRecord({})))
#: What another formatter may have put there.
_OTHERS = frozenset({"message", "asctime"})
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class JsonFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        line: dict[str, Any] = {
            "at": f"{self._second[1]}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        for key, value in islice(vars(record).items(), _STANDARD, None):
            if key not in _OTHERS:
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line).decode()


def setup(level: str = "INFO") -> None:
    """JSON lines on standard error, where systemd and containers look for them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    # What no line has in it is not found out: the caller's place in the source costs most (logging's own
    # documentation, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
