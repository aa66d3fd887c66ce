"""A switch's proof that it knows the node's secret, over a real connection."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import pytest

from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import OutboundSession
from tests.support.peer import Peer, api_response, channel_data, dial, linger_notice, reply

Serve = Callable[..., OutboundServer]
SECRET, OLD = "a-secret-for-the-tests", "the-secret-before-it"


class Gate:
    """Opens to every address, or to none."""

    def __init__(self, *secrets: str, is_open: bool = True) -> None:
        self.secrets = secrets
        self.is_open = is_open

    def allows(self, _address: str) -> bool:
        return self.is_open


def nonce_of(question: str) -> str:
    return question.removeprefix("api expand md5 ").removesuffix("${esl_apps_secret}")


def asked(peer: Peer) -> str:
    """Answer ``connect`` as a switch does; return the number that it is asked to hash with its secret."""
    peer.expect("connect")
    peer.expect("linger 5")
    question = peer.expect("api expand md5 ")
    peer.say(channel_data(), reply())
    return nonce_of(question)


@pytest.mark.parametrize("known", [SECRET, OLD])
def test_proof_of_a_right_secret_is_served(serve: Serve, known: str) -> None:
    served: list[str] = []

    def application(session: OutboundSession) -> None:
        session.connect()
        served.append(session.uuid)

    server = serve(application, gate=Gate(SECRET, OLD))
    peer = dial(server.bound_port)
    peer.say(api_response(hashlib.md5(f"{asked(peer)}{known}".encode()).hexdigest()))
    peer.expect("exit")
    assert len(served) == 1


@pytest.mark.parametrize("answer", ["", "+OK\n", "-ERR no such command", "{nonce}", "{hash of another}", "{secret}"])
@pytest.mark.parametrize("places", [0, 10])
def test_proof_that_is_wrong_hangs_up(serve: Serve, caplog: pytest.LogCaptureFixture, answer: str, places: int) -> None:
    served: list[str] = []

    def application(session: OutboundSession) -> None:
        session.connect()
        served.append(session.uuid)

    server = serve(application, gate=Gate(SECRET), max_connections=places)
    with caplog.at_level(logging.INFO):
        peer = dial(server.bound_port)
        nonce = asked(peer)
        other = hashlib.md5(f"{nonce}another".encode()).hexdigest()
        fill = {"{nonce}": nonce, "{hash of another}": other, "{secret}": SECRET}
        peer.say(api_response(fill.get(answer, answer)))
        assert "execute-app-name: hangup" in peer.expect("sendmsg")
        peer.say(reply(), linger_notice())
        peer.expect("exit")
        peer.expect_end()
    assert served == []
    assert SECRET not in caplog.text + str([vars(line) for line in caplog.records])


def test_proof_is_asked_for_with_another_number_each_time(serve: Serve) -> None:
    server = serve(lambda session: session.connect() and None, gate=Gate(SECRET))
    assert len({asked(dial(server.bound_port)) for _ in range(5)}) == 5


def test_proof_isnt_asked_for_without_a_secret(serve: Serve) -> None:
    server = serve(lambda session: session.connect() and None, gate=Gate())
    peer = dial(server.bound_port)
    peer.expect("connect")
    peer.expect("linger 5")
    peer.say(channel_data(), reply())
    peer.expect("exit")


def test_server_closes_to_an_address_that_may_not_connect(serve: Serve) -> None:
    server = serve(lambda session: session.connect() and None, gate=Gate(is_open=False))
    peer = dial(server.bound_port)
    assert list(peer.commands()) == []
    assert server.connection_count == 0
