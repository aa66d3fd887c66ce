"""Log lines: whole, in order, and when they are written."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from esl_apps.logs import JsonFormatter, LineHandler


class Output(io.StringIO):
    """Counts how often it was written to."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.getvalue().splitlines()]


class Turn:
    """A loop's turn, that a test ends."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.is_there = True

    def later(self, do: Callable[[], None]) -> bool:
        if self.is_there:
            self.waiting.append(do)
        return self.is_there

    def end(self) -> None:
        waiting, self.waiting = self.waiting, []
        for do in waiting:
            do()


@pytest.fixture
def turn() -> Turn:
    return Turn()


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def log(turn: Turn, output: Output) -> Iterator[logging.Logger]:
    handler = LineHandler(output, turn.later)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tests.logs")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def test_a_turns_lines_are_one_write_in_their_order(log: logging.Logger, turn: Turn, output: Output) -> None:
    for name in ("a", "b", "c"):
        log.info(name, extra={"call_ref": name})
    assert output.writes == 0
    turn.end()
    assert (output.events(), output.writes) == (["a", "b", "c"], 1)
    log.info("d")
    turn.end()
    assert output.events()[-1] == "d"


def test_a_warning_is_written_at_once_and_what_came_before_it_first(
    log: logging.Logger, turn: Turn, output: Output
) -> None:
    log.info("before")
    log.warning("now")
    assert output.events() == ["before", "now"]
    log.info("after")
    turn.end()
    assert output.events() == ["before", "now", "after"]


def test_where_no_loop_turns_a_line_is_written_at_once(log: logging.Logger, turn: Turn, output: Output) -> None:
    turn.is_there = False
    log.info("alone")
    assert output.events() == ["alone"]


def test_lines_that_wait_are_written_at_the_end_of_the_process(
    log: logging.Logger, turn: Turn, output: Output
) -> None:
    log.info("last")
    # What ``logging`` does at exit.
    log.handlers[0].flush()
    assert output.events() == ["last"]


def test_what_has_no_form_costs_no_other_line(
    log: logging.Logger, turn: Turn, output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no form")

    log.info("first")
    log.info("broken", extra={"what": Broken()})
    log.info("second")
    turn.end()
    assert output.events() == ["first", "second"]
    assert "no form" in capsys.readouterr().err
