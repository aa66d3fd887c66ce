"""The thread that writes the log: in order, and without ever making the process wait for its reader."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from esl_apps.process import line_writer
from esl_apps.process.line_writer import LineWriter


class Pipe:
    """A pipe whose reader reads only when the test says so."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)

    def read(self, until: bytes) -> bytes:
        """Read until this text has come."""
        data = b""
        while until not in data:
            data += os.read(self.reader, 1 << 20)
        return data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    one = Pipe()
    yield one
    os.close(one.reader)


def report(lines: int) -> str:
    return f"{lines} dropped\n"


def test_writer_writes_lines_in_order(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writer, report)
    for number in range(5000):
        writer.write(f"{number}\n")
    assert pipe.read(b"4999\n").decode().split() == [str(number) for number in range(5000)]
    assert writer.flush()


def test_writer_of_a_pipe_that_isnt_read_drops_and_counts(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writer, report, most=10_000)
    for _ in range(1000):
        writer.write("x" * 999 + "\n")
    assert 900 < writer.dropped < 1000
    assert not writer.flush(0.01)
    # Read again: what waited comes, and one line says what is missing.
    dropped = writer.dropped
    text = pipe.read(b"dropped\n").decode()
    assert text.splitlines()[-1] == f"{dropped} dropped"
    assert text.count("x\n") == 1000 - dropped
    writer.write("goes on\n")
    assert pipe.read(b"on\n") == b"goes on\n"
    assert (writer.flush(), writer.dropped) == (True, dropped)


def test_writer_waits_for_a_nonblocking_descriptor(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = LineWriter(pipe.writer, report)
    for _ in range(300):
        writer.write("x" * 999 + "\n")
    writer.write("end\n")
    assert pipe.read(b"end\n").count(b"x\n") == 300


def test_writer_without_a_reader_costs_nothing(pipe: Pipe) -> None:
    gone = Pipe()
    os.close(gone.reader)
    writer = LineWriter(gone.writer, report)
    for _ in range(10):
        writer.write("x\n")
        assert writer.flush()


def test_writer_odd_characters_cost_no_line(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writer, report)
    writer.write("half \ud800 a character\n")
    writer.write("ü\n")
    assert pipe.read("ü\n".encode()) == b"half \\ud800 a character\n\xc3\xbc\n"


def test_writer_end_of_the_process_writes_what_waits() -> None:
    code = (
        "from esl_apps.process.line_writer import LineWriter\n"
        "writer = LineWriter(2, str)\n"
        "for number in range(20000): writer.write(f'{number}\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=True)
    assert done.stderr.split() == [b"%d" % number for number in range(20000)]


def test_writer_end_of_the_process_waits_a_moment_only(pipe: Pipe) -> None:
    code = (
        "from esl_apps.process import line_writer\n"
        "line_writer.LineWriter.flush.__defaults__ = (0.05,)\n"
        "writer = line_writer.LineWriter(2, str)\n"
        "for number in range(20000): writer.write(f'{number} {number} {number}\\n')\n"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], stderr=pipe.writer, check=True, timeout=60)
    assert time.monotonic() - began < 30
    assert line_writer.FLUSH <= 5
