"""Log one JSON line per event, with ``call_ref`` in each that belongs to a call."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec


class Record(logging.LogRecord):
    """A log record without source line, thread and process: no line shows them, and they cost the most to find out
    (section "Optimization" of the logging documentation)."""

    def __init__(  # without super().__init__(), which would find out all of these
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        *_more: Any,
        **_named: Any,
    ) -> None:
        self.name = name
        self.msg = msg
        # As in logging: a single mapping fills in "%(name)s".
        self.args = args[0] if args and len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
        self.levelname = logging.getLevelName(level)
        self.levelno = level
        self.exc_info = exc_info
        self.exc_text = self.stack_info = None
        self.created = now = time.time()
        self.msecs = (now % 1) * 1000


#: How many attributes a record has by itself. Those after them are from ``extra``.
_OWN_ATTRIBUTES = len(vars(Record("", 0, "", 0, "", (), None)))
#: Attributes that other formatters add to a record.
_FORMATTER_ATTRIBUTES = frozenset({"message", "asctime"})
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class JsonFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def at(self, moment: float) -> str:
        second = int(moment)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second[1]}.{int(moment % 1 * 1000):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": self.at(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        for key, value in islice(vars(record).items(), _OWN_ATTRIBUTES, None):
            if key not in _FORMATTER_ATTRIBUTES:
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line).decode()


class Lines(logging.StreamHandler[Any]):
    """Writes each line at once, without a lock: a node logs from a single thread."""

    def createLock(self) -> None:
        self.lock = None

    def flush(self) -> None:
        # logging's own uses the lock as a context manager from Python 3.13 on.
        self.stream.flush()

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.stream.write(self.format(record) + "\n")
            self.stream.flush()
        except Exception:
            self.handleError(record)

    def say(self, logger: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line of level ``info`` without creating a log record."""
        formatter = self.formatter
        assert isinstance(formatter, JsonFormatter)
        line = {"at": formatter.at(time.time()), "level": "info", "event": event, "logger": logger, **fields}
        try:
            self.stream.write(_ENCODER.encode(line).decode() + "\n")
            self.stream.flush()
        except Exception:
            self.handleError(Record(logger, logging.INFO, "", 0, event, (), None))


def say(log: logging.Logger, event: str, fields: Mapping[str, Any]) -> None:
    """Do the same as ``log.info(event, extra=fields)`` at half the cost, for events that each call logs several times.

    It is only cheaper if the handler of `setup` is the only one.
    """
    if log.isEnabledFor(logging.INFO):
        handlers = logging.root.handlers
        if len(handlers) == 1 and type(handlers[0]) is Lines:
            handlers[0].say(log.name, event, fields)
        else:
            log.info(event, extra=fields)


def setup(level: str = "INFO") -> None:
    """Log JSON lines to standard error, where systemd and containers collect them."""
    handler = Lines(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.setLogRecordFactory(Record)
    # Stops logging from walking the stack for the source line.
    logging._srcfile = None
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
