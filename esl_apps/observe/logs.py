"""Log one line per event, JSON or text, with ``call_ref`` in each that belongs to a call."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TextIO

import msgspec

from esl_apps.process.line_writer import LineWriter


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
#: The ends of times: to format a number takes longer than the rest of the time.
_MILLISECONDS = [f".{number:03d}Z" for number in range(1000)]
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class JsonFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def at(self, moment: float) -> str:
        second = int(moment)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return self._second[1] + _MILLISECONDS[int(moment % 1 * 1000)]

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
        return self.line(line)

    def line(self, fields: Mapping[str, Any]) -> str:
        return _ENCODER.encode(fields).decode()


class TextFormatter(JsonFormatter):
    """The same for people: time, level, event, then ``name=value``. An exception keeps its lines."""

    def line(self, fields: Mapping[str, Any]) -> str:
        left = dict(fields)
        head = f"{left.pop('at')} {left.pop('level').upper():<7} {_plain(left.pop('event'))}"
        left.pop("logger", None)
        exception = left.pop("exception", "")
        line = " ".join([head, *(f"{name}={_value(value)}" for name, value in left.items())])
        return "\n    ".join([line, *map(_plain, exception.splitlines())])


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else _ENCODER.encode(value).decode()
    # In quotes if the next name could be taken for a part of it.
    return _plain(text if text and not set(text) & set(' ="') else _ENCODER.encode(text).decode())


def _plain(text: str) -> str:
    """A text without control characters, which come from callers and clients and would act on a terminal."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


_FORMATTERS: Mapping[str, type[JsonFormatter]] = {"json": JsonFormatter, "text": TextFormatter}


class Lines(logging.Handler):
    """Writes each line, without a lock: a node logs from a single thread."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)

    def say(self, logger: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line of level ``info`` without creating a log record."""
        formatter = self.formatter
        assert isinstance(formatter, JsonFormatter)
        line = {"at": formatter.at(time.time()), "level": "info", "event": event, "logger": logger, **fields}
        try:
            self._write(formatter.line(line) + "\n")
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


class _Stderr(io.TextIOBase):
    """Standard error, written by the thread that writes the log: a ``print`` or a traceback must not wait either."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, writer: LineWriter, stream: TextIO) -> None:
        self._writer = writer
        self._stream = stream
        self._part = ""

    def write(self, text: str) -> int:
        # ``print`` writes the end of a line by itself.
        self._part += text
        if self._part.endswith("\n"):
            part, self._part = self._part, ""
            self._writer.write(part)
        return len(text)

    def flush(self) -> None:
        """Wait a moment until all is written; for the end of the process."""
        if self._part:
            self.write("\n")
        self._writer.flush()

    def writable(self) -> bool:
        return True

    @property
    def dropped(self) -> int:
        return self._writer.dropped

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


def dropped() -> int:
    """The number of lines that this process has dropped because standard error wasn't read."""
    return sys.stderr.dropped if isinstance(sys.stderr, _Stderr) else 0


def setup(level: str = "INFO", form: str = "json") -> None:
    """Log lines, ``json`` or ``text``, to standard error, where systemd and containers collect them, and write all of
    standard error from a thread."""
    formatter = _FORMATTERS[form]()
    handler = Lines(_open_stderr(formatter))
    handler.setFormatter(formatter)
    logging.setLogRecordFactory(Record)
    # Stops logging from walking the stack for the source line.
    logging._srcfile = None
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _open_stderr(formatter: JsonFormatter) -> Callable[[str], object]:
    """Return what writes to standard error without waiting for its reader."""
    stream = sys.stderr
    if stream is None:
        # Closed before the interpreter started. ``len`` takes a text and writes nothing.
        return len
    try:
        fd = stream.fileno()
    except (AttributeError, OSError):
        # Closed, or not a file, as in a test.
        return stream.write

    def report(lines: int) -> str:
        line = {"at": formatter.at(time.time()), "level": "warning", "event": "log_lines_dropped", "lines": lines}
        return formatter.line(line) + "\n"

    writer = LineWriter(fd, report)
    sys.stderr = _Stderr(writer, stream)
    return writer.write
