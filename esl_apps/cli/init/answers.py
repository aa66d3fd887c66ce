"""The few things that an installation must decide: from options, from the operator at the terminal, or as found."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

import phonenumbers

from esl_apps.cli.init.this_machine import Machine
from esl_apps.config import redis_url
from esl_apps.net.address import split_address

_NAME = re.compile(r"[A-Za-z0-9._-]+")
#: The characters that a file of secrets and an XML attribute hold without quoting.
_PASSWORD = re.compile(r"[A-Za-z0-9._~+/=@%:,-]+")


class Wrong(Exception):
    """An answer that can't be used: which, and what was expected."""


@dataclass(frozen=True)
class Answers:
    switch: str
    """Its event socket, ``host:port``."""
    password: str
    """'' for a new one."""
    region: str
    domain: str
    gateway: str
    """'' for none."""
    integrator: str
    redis: str


def ask(arguments: argparse.Namespace, machine: Machine) -> Answers:
    """:raises Wrong: an answer can't be used, or is missing without a terminal to ask at."""
    # Asked only where a person can answer.
    asking = not arguments.yes and sys.stdin is not None and sys.stdin.isatty()

    def answer(name: str, given: str | None, default: str, question: str, read: Callable[[str], str]) -> str:
        if given is None and asking:
            shown = f" [{default}]" if default else ""
            given = input(f"{question}{shown}: ").strip() or None
        try:
            return read(default if given is None else given)
        except ValueError as error:
            raise Wrong(f"--{name}: {error}") from None

    return Answers(
        switch=answer("switch", arguments.switch, machine.address, "FreeSWITCH's event socket", _address),
        password=_password(arguments.switch_password, machine),
        region=answer("region", arguments.region, "", "Country of numbers without + (ISO 3166, as ZA)", _region),
        domain=answer("domain", arguments.domain, machine.domain, "Domain that the phones register with", _domain),
        gateway=answer("gateway", arguments.gateway, (machine.gateways or [""])[0], "Gateway to dial out", _gateway),
        integrator=answer("integrator", arguments.integrator, "acme", "Name of the first integrator", _named),
        redis=answer("redis", arguments.redis, "redis://127.0.0.1:6379/0", "Redis", _redis),
    )


def _password(given: str | None, machine: Machine) -> str:
    password = given or ("" if machine.folder is None else machine.password)
    if password and not _PASSWORD.fullmatch(password):
        raise Wrong("--switch-password: expected letters, digits and ._~+/=@%:,- only")
    return password


def _address(text: str) -> str:
    split_address(text)
    return text


def _region(text: str) -> str:
    if text.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("expected a country of ISO 3166, as ZA: its dialling rules apply to numbers without +")
    return text.upper()


def _domain(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", text):
        raise ValueError("expected the domain that the phones register with: a name or an address")
    return text


def _gateway(text: str) -> str:
    if text and not _NAME.fullmatch(text):
        raise ValueError("expected a name of letters, digits and ._-")
    return text


def _named(text: str) -> str:
    if not _NAME.fullmatch(text) or not text[0].isalpha():
        raise ValueError("expected a name of letters, digits and ._- that begins with a letter")
    return text


def _redis(text: str) -> str:
    redis_url.check(text)
    return text
