"""Calls and clients that fit into a process's descriptors."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import msgspec
import pytest

from esl_apps.config import parse, warnings
from esl_apps.config.model import Config, sections
from esl_apps.esl.server import STRANGERS
from esl_apps.http.connection import Bounds
from esl_apps.node import descriptors
from tests.support.bench import node_config
from tests.support.configurations import LEAST
from tests.support.ports import free_port


@pytest.fixture
def config(tmp_path: Path) -> Config:
    acme = {"name": "acme", "token": "acme-token-for-tests", "listen": f"127.0.0.1:{free_port()}"}
    return node_config("redis://127.0.0.1:1", tmp_path, {"fs1": ("127.0.0.1", 8021)}, integrators=[acme], inbound={})


def with_calls(config: Config, max_calls: int) -> Config:
    return msgspec.structs.replace(config, node=msgspec.structs.replace(config.node, max_calls=max_calls))


def test_descriptors_that_suffice_change_nothing(config: Config) -> None:
    config = with_calls(config, 5000)
    assert descriptors.fit(config, 65536) is config
    assert descriptors.clients(config, 65536) == descriptors.CLIENTS == Bounds().connections


@pytest.mark.parametrize("most", [2400, 4096, 6000, 7123])
def test_descriptors_that_are_few_bound_calls_and_clients(config: Config, most: int) -> None:
    fitted = descriptors.fit(with_calls(config, 5000), most)
    clients = descriptors.clients(fitted, most)
    assert 0 < fitted.node.max_calls < 5000
    used = fitted.node.max_calls + descriptors.REFUSED + clients * len(sections(fitted)) + STRANGERS
    assert 0.9 * most < used + 100 <= most
    assert descriptors.fit(fitted, most).node == fitted.node


@pytest.mark.parametrize("most", [3, 100, 700])
def test_descriptors_that_are_very_few_leave_a_call(config: Config, most: int) -> None:
    fitted = descriptors.fit(config, most)
    assert fitted.node.max_calls >= 1
    assert descriptors.clients(fitted, most) >= 1


def test_descriptors_for_many_ports_go_to_calls_first(config: Config) -> None:
    many = msgspec.structs.replace(config, integrators=config.integrators * 200)
    fitted = descriptors.fit(with_calls(many, 5000), 65536)
    assert fitted.node.max_calls == 5000
    assert 200 < descriptors.clients(fitted, 65536) < 300


def test_descriptors_that_are_few_are_a_warning() -> None:
    config = parse(LEAST, {})
    (problem,) = set(warnings(descriptors.fit(config, 4096))) - set(warnings(config))
    assert problem.key == "node.max_calls"
    assert problem.message == (
        "8124 files and sockets may be needed, but a process may have 4096: it takes 2229 calls, and 371 HTTP clients "
        "on each port; raise LimitNOFILE of the service, or ulimit -n"
    )


def test_descriptors_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(100, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, wanted: limits.append(wanted))
    assert descriptors.limit() == 4096
    assert limits == [(100, 4096), (4096, 4096)]


def test_descriptors_limit_that_may_not_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (100, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors.limit() == 100


def test_descriptors_without_a_limit_are_enough(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.fit(config, descriptors.limit()) is config
