"""``esl-apps hash-pin`` and ``esl-apps hash-token``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from esl_apps.cli import hashes
from esl_apps.config import load
from esl_apps.config.tokens import hash_token
from esl_apps.store.cards import hash_pin
from tests.unit.cli.conftest import Ran, Run, Settings

TOKEN = "a-long-and-random-token"


@pytest.fixture
def typed(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``typed(text, *argv)``: a command with this text on standard input."""

    def typed(text: str, *argv: str) -> Ran:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return run(*argv)

    return typed


def test_hash_pin_prints_what_a_configuration_takes(typed: Run, settings: Settings) -> None:
    ran = typed("4821907356\n", "hash-pin", "-c", settings.written())
    assert (ran.status, ran.out) == (0, hash_pin("key-for-tests", "4821907356") + "\n")
    assert "4821907356" not in ran.out + ran.err
    settings["accounts"] = {"a": {"disa": {"front": {"pin_hash": ran.out.strip()}}}}
    assert load(settings.written()).accounts["a"].disa["front"].pin_hash == ran.out.strip()


@pytest.mark.parametrize("text", ["", "\n", "12ab\n", "١٢٣٤\n"])
def test_hash_pin_refuses_what_is_not_a_pin(typed: Run, settings: Settings, text: str) -> None:
    ran = typed(text, "hash-pin", "-c", settings.written())
    assert (ran.status, ran.out, ran.err) == (1, "", "esl-apps: expected a PIN: digits\n")


def test_hash_pin_refuses_more_than_a_disa_collects(typed: Run, settings: Settings) -> None:
    ran = typed("1" * 33 + "\n", "hash-pin", "-c", settings.written())
    assert (ran.status, ran.out, ran.err) == (1, "", "esl-apps: expected a PIN: 32 digits at most\n")


def test_hash_pin_needs_the_key(typed: Run, settings: Settings) -> None:
    del settings["pin_key"]
    ran = typed("1234\n", "hash-pin", "-c", settings.written())
    assert (ran.status, ran.out) == (2, "")
    assert "pin_key: missing" in ran.err


def test_hash_token_prints_its_hash(typed: Run) -> None:
    assert typed(f"{TOKEN}\n", "hash-token").out == hash_token(TOKEN) + "\n"


@pytest.mark.parametrize("text", ["short\n", "", "a long one with spaces\n", "é" * 20])
def test_hash_token_refuses_a_weak_one(typed: Run, text: str) -> None:
    ran = typed(text, "hash-token")
    assert (ran.status, ran.out) == (1, "")
    assert "at least 16 printable ASCII characters" in ran.err


def test_hash_token_of_bytes_that_are_not_text(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").write_bytes(b"\xff" * 30 + b"\n")
    with open(tmp_path / "in", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert run("hash-token").status == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_hash_token_asks_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(hashes, "getpass", lambda prompt: TOKEN if prompt == "Token: " else "")
    assert run("hash-token").out == hash_token(TOKEN) + "\n"


def test_hash_token_ended_with_control_d(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(hashes, "getpass", end)
    assert run("hash-token").status == 1
