"""Names are looked up in threads, for a bounded time."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest

from esl_apps.net import resolver as module
from esl_apps.net.resolver import Resolver, Unresolved


def test_name_gives_its_addresses() -> None:
    assert "127.0.0.1" in Resolver(1).addresses("localhost", 80, 5)
    assert Resolver(1).addresses("::1", 80, 5) == ["::1"]


def test_number_is_read_as_c_libraries_do() -> None:
    assert Resolver(1).addresses("2130706433", 80, 5) == ["127.0.0.1"]


@pytest.mark.parametrize("name", ["nothing.invalid", "a..b", "x" * 300])
def test_name_without_an_address_is_unresolved(name: str) -> None:
    with pytest.raises(Unresolved):
        Resolver(1).addresses(name, 80, 5)


def test_slow_name_server_is_given_up_and_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._look_up

    def look_up(host: str, port: int) -> Any:
        if host == "slow":
            time.sleep(0.3)
        return real(host, port)

    monkeypatch.setattr(module, "_look_up", look_up)
    resolver = Resolver(2)
    slow = gevent.spawn(pytest.raises, Unresolved, resolver.addresses, "slow", 80, 0.05)
    gevent.sleep(0)
    assert resolver.addresses("127.0.0.1", 80, 5) == ["127.0.0.1"]
    assert slow.get() is not None
