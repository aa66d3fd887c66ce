"""Opening, reloading and closing a node's ports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gevent import socket

from esl_apps.config import load
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.http.ports import Ports
from esl_apps.node import descriptors
from tests.support import TLS
from tests.support.certificates import expiring
from tests.support.http_services import ADMIN_TOKEN, TOKEN, FakeOutgoing, FakeServices
from tests.support.ports import free_port


def text(admin: int, api: int, more: str = "", api_more: str = "", admin_more: str = "") -> str:
    return f"""\
switches: [{{name: fs1, address: "127.0.0.1:8021", password: a-password}}]
admin: {{listen: "127.0.0.1:{admin}", token: {ADMIN_TOKEN}{admin_more}}}
integrators:
  - {{name: acme, listen: "127.0.0.1:{api}", token: {TOKEN}{api_more}}}
pin_key: a-key-for-tests
{more}
"""


class Node:
    """A double of a node: a configuration and services."""

    def __init__(self, file: Path) -> None:
        self.services: Any = FakeServices(str(file.parent))
        self.outgoing: Any = FakeOutgoing(self.services)
        self.scrapes = None
        self.history = None
        self.share: Any = None
        self.stopped = 0
        self.applied: list[Config] = []
        self.fails: Exception | None = None
        self.services.policies.now = SimpleNamespace(config=load(str(file)))

    def apply(self, config: Config) -> None:
        if self.fails is not None:
            raise self.fails
        self.applied.append(config)
        self.services.policies.now = SimpleNamespace(config=config)

    def stop(self) -> None:
        self.stopped += 1


class Opened:
    """A node, its ports, and its configuration file."""

    def __init__(self, folder: Path, make: Callable[[Any], Ports] = Ports, **changes: str) -> None:
        self.file = folder / "esl_apps.yml"
        self.admin, self.api = free_port(), free_port()
        self.write(**changes)
        self.node = Node(self.file)
        self.ports = make(self.node)

    def write(self, **changes: str) -> None:
        self.file.write_text(text(self.admin, self.api, **changes))

    def reload(self) -> None:
        self.ports.reload(str(self.file))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    made.ports.open()
    yield made
    made.ports.shut_down()


def status(port: int, path: str) -> int:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return int(sock.recv(1000).split(b" ", 2)[1])


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the event and the reason of each log line."""
    return [(record.message, record.__dict__.get("reason", "")) for record in caplog.records]


def test_open_serves_each_port(opened: Opened) -> None:
    assert status(opened.admin, "/healthz") == 200
    assert status(opened.api, "/click2dial/calls") == 401
    assert status(opened.api, "/healthz") == 404


def test_open_on_an_address_in_use_names_its_key(opened: Opened) -> None:
    with pytest.raises(ConfigError) as error:
        Ports(opened.node).open()  # type: ignore[arg-type]
    assert "admin.listen" in str(error.value)
    assert f"can't listen on 127.0.0.1:{opened.admin}" in str(error.value)


def test_open_with_a_deleted_certificate_names_its_key(tmp_path: Path) -> None:
    cert = tmp_path / "one.pem"
    cert.write_text((TLS / "one.pem").read_text())
    made = Opened(tmp_path, api_more=f", tls: {{cert: {cert}, key: {TLS / 'one.key'}}}")
    cert.unlink()
    with pytest.raises(ConfigError, match=r"integrators\[0\]\.tls\.cert"):
        made.ports.open()


def test_open_in_a_worker_uses_its_nodes_sockets(tmp_path: Path) -> None:
    made = Opened(tmp_path)
    asked: list[str] = []

    def listening(address: str) -> socket.socket:
        asked.append(address)
        return socket.create_server(("127.0.0.1", 0))

    made.node.share = SimpleNamespace(socket=listening, of=lambda config: config, number=2)
    made.ports.open()
    assert asked == [f"127.0.0.1:{made.admin}", f"127.0.0.1:{made.api}"]
    made.reload()
    assert len(made.node.applied) == 1
    made.ports.shut_down()


def test_reload_puts_the_file_in_force(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    opened.write(api_more=", rate: {connections: 7}")
    opened.reload()
    (config,) = opened.node.applied
    assert config.integrators[0].rate.connections == 7
    assert ("config_reloaded", "") in events(caplog)


def test_reload_limits_new_connections(opened: Opened) -> None:
    opened.write(api_more=", rate: {connections: 1}")
    opened.reload()
    with socket.create_connection(("127.0.0.1", opened.api), 10) as first:
        first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        first.recv(1000)
        assert status(opened.api, "/") == 429
    assert 429 in opened.node.services.counted


def test_reload_changes_the_rate_of_requests(opened: Opened) -> None:
    assert [status(opened.api, "/nothing") for _ in range(3)] == [404] * 3
    opened.write(api_more=", rate: {per_address: 0.001, burst: 2000}")
    opened.reload()
    assert [status(opened.api, "/nothing") for _ in range(3)] == [404, 404, 429]
    assert status(opened.admin, "/healthz") == 200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"more": "colour: red"}, "colour"),
        ({"more": "node: {name: other}"}, "node"),
        ({"more": "redis: {url: 'redis://127.0.0.1:2/0'}"}, "redis"),
        ({"more": "spool: {dir: /elsewhere}"}, "spool"),
        ({"admin_more": ", console: true"}, "admin.console"),
        ({"api_more": f", tls: {{cert: {TLS / 'one.pem'}, key: {TLS / 'one.key'}}}"}, "integrators"),
    ],
)
def test_reload_of_what_needs_a_restart_changes_nothing(
    opened: Opened, caplog: pytest.LogCaptureFixture, changes: dict[str, str], reason: str
) -> None:
    before = opened.node.services.policy.config
    opened.write(**changes)
    opened.reload()
    assert opened.node.services.policy.config is before
    ((event, why),) = [line for line in events(caplog) if "config_warning" not in line]
    assert event == "config_reload_refused"
    assert reason in why
    assert status(opened.admin, "/healthz") == 200


def test_reload_with_another_port_names_it_with_few_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fewer calls fit next to another port, which the operator hasn't written."""
    monkeypatch.setattr(descriptors, "limit", lambda: 20000)
    made = Opened(tmp_path, more="node: {max_calls: 20000}")
    loaded = made.node.services.policy.config
    made.node.services.policies.now = SimpleNamespace(config=descriptors.fit(loaded, 20000))
    assert made.node.services.policy.config.node.max_calls < 20000
    made.ports.open()
    other = f'{{name: other, listen: "127.0.0.1:{free_port()}", token: another-token-for-tests}}'
    made.file.write_text(made.file.read_text().replace("pin_key:", f"  - {other}\npin_key:"))
    made.reload()
    made.write(more="node: {max_calls: 100}")
    made.reload()
    reasons = [why for event, why in events(caplog) if event == "config_reload_refused"]
    assert reasons == ["integrators: a change takes a restart", "node: a change takes a restart"]
    made.ports.shut_down()


def test_reload_that_the_node_refuses_says_why(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    opened.node.fails = ConfigError("no such application", "applications.nowhere")
    opened.reload()
    assert ("config_reload_refused", "applications.nowhere: no such application") in events(caplog)


def test_reload_that_fails_unexpectedly_changes_nothing(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    opened.node.fails = RuntimeError("a fault")
    before = opened.node.services.policy.config
    opened.reload()
    assert opened.node.services.policy.config is before
    assert ("config_reload_refused", "it could not be applied") in events(caplog)
    assert status(opened.admin, "/healthz") == 200


def test_reload_that_is_refused_shows_until_the_next(opened: Opened) -> None:
    registry = opened.node.services.metrics.registry
    shown = []
    for changes in ({"more": "colour: red"}, {"more": "node: {name: other}"}, {}):
        opened.write(**changes)
        opened.reload()
        shown.append(registry.get_sample_value("esl_apps_config_reload_refused"))
    assert shown == [1, 1, 0]


def test_reload_of_a_renewed_certificate_shows_its_end(tmp_path: Path) -> None:
    cert = expiring(tmp_path, 5, lifetime=10)
    made = Opened(tmp_path, api_more=f", tls: {{cert: {cert}, key: {TLS / 'one.key'}}}")

    def days_left(port: int, of: str = "expires") -> float | None:
        name, labels = f"esl_apps_certificate_{of}_seconds", {"listen": f"127.0.0.1:{port}"}
        seconds = made.node.services.metrics.registry.get_sample_value(name, labels)
        return None if seconds is None else seconds / 86400

    made.ports.open()
    assert days_left(made.api) == pytest.approx(5, abs=0.1)
    assert days_left(made.api, "lifetime") == pytest.approx(10, abs=0.1)
    assert days_left(made.admin) is None
    expiring(tmp_path, 90)
    assert days_left(made.api) == pytest.approx(5, abs=0.1)
    made.reload()
    assert days_left(made.api) == pytest.approx(90, abs=0.1)
    assert days_left(made.api, "lifetime") == pytest.approx(365, abs=0.1)
    made.ports.shut_down()


def test_shut_down_stops_the_node_once_and_closes_its_ports(tmp_path: Path) -> None:
    made = Opened(tmp_path)
    made.ports.open()
    made.ports.shut_down()
    made.ports.shut_down()
    assert made.node.stopped == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", made.admin), 10)
