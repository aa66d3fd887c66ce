"""The log: JSON lines on standard error, down to the end of the process."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from esl_apps.observe import logs


def test_logging_process_exits_without_a_traceback() -> None:
    code = "import logging; from esl_apps.observe import logs; logs.setup(); logging.info('tested', extra={'a': 1})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert json.loads(line).items() >= {"event": "tested", "a": 1}.items()


@contextmanager
def logged(form: str = "json") -> Iterator[io.StringIO]:
    """Standard error, to which this process logs in here as a node does."""
    root, factory, source = logging.getLogger(), logging.getLogRecordFactory(), logging._srcfile
    # In here, not in a fixture: pytest adds its own handlers when the test begins.
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    with redirect_stderr(written):
        logs.setup("INFO", form)
    try:
        yield written
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.setLogRecordFactory(factory)
        logging._srcfile = source


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().removesuffix("\n").split("\n") if line]


log = logging.getLogger("esl_apps.test")


def test_logs_line_has_its_event_and_all_extra_fields() -> None:
    with logged() as written:
        log.warning("call_refused", extra={"reason": "full", "path": Path("/x")})
        (line,) = lines(written)
        assert (
            line.items()
            >= {
                "level": "warning",
                "event": "call_refused",
                "logger": "esl_apps.test",
                "reason": "full",
                "path": "/x",
            }.items()
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["at"])
        # Source line, thread and process are in no line.
        assert set(line) == {"at", "level", "event", "logger", "reason", "path"}


def test_logs_text_of_a_caller_stays_in_one_line() -> None:
    with logged() as written:
        log.warning("call_refused", extra={"caller": 'x\n{"event": "forged"}\r\u2028'})
        assert len(written.getvalue().split("\n")) == 2
        assert lines(written)[0]["event"] == "call_refused"


def test_logs_arguments_are_filled_in() -> None:
    with logged() as written:
        log.info("%s of %s", 1, 2)
        log.info("%(name)s", {"name": "acme"})
        assert [line["event"] for line in lines(written)] == ["1 of 2", "acme"]


def test_logs_exception_is_in_its_line() -> None:
    with logged() as written:
        try:
            raise RuntimeError("a fault of ours")
        except RuntimeError:
            log.exception("beat_failed")
        (line,) = lines(written)
        assert "RuntimeError: a fault of ours" in line["exception"]


def test_logs_below_the_level_are_dropped() -> None:
    with logged() as written:
        log.debug("detail")
        logging.getLogger().setLevel("WARNING")
        log.info("call")
        logs.say(log, "call", {"state": "ringing"})
        assert lines(written) == []


def test_logs_say_writes_the_same_line_as_info() -> None:
    with logged() as written:
        logs.say(log, "call", {"call_ref": "ref-1", "state": "ended"})
        log.info("call", extra={"call_ref": "ref-1", "state": "ended"})
        said, informed = lines(written)
        assert {**said, "at": ""} == {**informed, "at": ""}


def test_logs_say_reaches_other_handlers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logs.say(log, "call", {"call_ref": "ref-1"})
    assert [(record.message, vars(record)["call_ref"]) for record in caplog.records] == [("call", "ref-1")]


@pytest.mark.parametrize("quickly", [True, False])
def test_logs_closed_output_costs_no_call(monkeypatch: pytest.MonkeyPatch, quickly: bool) -> None:
    """The pipe's reader has gone: the call goes on."""
    with logged() as written:
        monkeypatch.setattr(logging, "raiseExceptions", False)
        written.close()
        if quickly:
            logs.say(log, "call", {"call_ref": "ref-1"})
        else:
            log.info("call")


def test_logs_text_is_one_line_for_people() -> None:
    with logged("text") as written:
        log.warning("call_refused", extra={"reason": "no room", "number": "1\x1b[2J", "count": 3, "empty": ""})
        logs.say(log, "call", {"call_ref": "ref-1"})
    first, second = written.getvalue().splitlines()
    assert re.sub(r"^\S+Z ", "", first) == ('WARNING call_refused reason="no room" number=1\\u001b[2J count=3 empty=""')
    assert re.sub(r"^\S+Z ", "", second) == "INFO    call call_ref=ref-1"


def test_logs_text_of_an_exception_is_indented() -> None:
    with logged("text") as written:
        try:
            raise ValueError("a\x07")
        except ValueError:
            log.exception("stop_failed")
    first, *others = written.getvalue().splitlines()
    assert first.endswith("ERROR   stop_failed")
    assert all(line.startswith("    ") for line in others)
    assert others[-1] == "    ValueError: a\\u0007"


def test_logs_time_is_utc_in_milliseconds() -> None:
    formatter = logs.JsonFormatter()
    assert formatter.at(60.5) == "1970-01-01T00:01:00.500Z"
    assert formatter.at(60.25) == "1970-01-01T00:01:00.250Z"
    assert formatter.at(86400.75) == "1970-01-02T00:00:00.750Z"


def test_logs_unread_standard_error_stops_nothing() -> None:
    """A pipe holds some hundred lines; journald or a log driver may stop reading it."""
    code = (
        "import logging, sys; from esl_apps.observe import logs\n"
        "logs.setup()\n"
        "for number in range(60000): logging.warning('an event', extra={'number': number, 'text': 'x' * 100})\n"
        "print('printed', file=sys.stderr)\n"
        "print(logs.dropped(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        dropped = int(process.stdout.readline())
        assert dropped > 1000
        process.stdin.close()
        *written, last = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert [line["number"] for line in written] == list(range(len(written)))
    assert (last["event"], last["lines"]) == ("log_lines_dropped", dropped)
    assert len(written) + dropped == 60001


def test_logs_print_and_traceback_are_in_the_log_too() -> None:
    code = (
        "import logging, sys; from esl_apps.observe import logs\n"
        "logs.setup(); logging.info('first'); print('second', file=sys.stderr); logging.info('third'); 1 / 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    first, second, third, *traceback = done.stderr.splitlines()
    assert ("first" in first, second, "third" in third) == (True, "second", True)
    assert traceback[-1] == "ZeroDivisionError: division by zero"


def test_logs_without_a_standard_error_go_nowhere() -> None:
    code = "import logging; from esl_apps.observe import logs; logs.setup(); logging.info('tested'); print('goes on')"
    shell = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    done = subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "goes on\n"
