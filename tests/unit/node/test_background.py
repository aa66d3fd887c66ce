"""Every background greenlet of a node, made to fail: it is begun again."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest

from esl_apps.config.webhooks import Webhook
from esl_apps.http.connection import Bounds
from esl_apps.http.server import serve
from esl_apps.node.cdr_files import CdrFiles
from esl_apps.node.metric_history import MetricHistory
from esl_apps.node.record_expiry import RecordExpiry
from esl_apps.node.recording_expiry import RecordingExpiry
from esl_apps.node.reporting import Reporter
from esl_apps.node.webhooks import Webhooks
from esl_apps.node.workers import Supervisor
from esl_apps.process import background
from esl_apps.process.service_manager import ServiceManager
from esl_apps.store.webhook_queue import WebhookQueue
from tests.support import ROOT
from tests.support.bench import Bench
from tests.support.peer import eventually
from tests.support.records import item

PACKAGE = ROOT / "esl_apps"


@cache
def kept() -> list[tuple[str, str, str, str]]:
    """Each ``background.keep("TASK", self.METHOD, …)`` and ``background.Kept``: its task, module, class and method."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        if "background.keep(" not in text and "background.Kept" not in text:
            continue
        for owner in ast.parse(text).body:
            if not isinstance(owner, ast.ClassDef):
                continue
            if "background.Kept" in map(ast.unparse, owner.bases):
                cls = getattr(import_module(module_of(path)), owner.name)
                found.add((cls.TASK, module_of(path), owner.name, "_run"))
            for call in ast.walk(owner):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "background.keep":
                    task, work = (ast.unparse(argument) for argument in call.args[:2])
                    found.add((ast.literal_eval(task), module_of(path), owner.name, work.removeprefix("self.")))
    return sorted(found)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def serve_http(_bench: Bench) -> Callable[[], object]:
    server = serve(("127.0.0.1", 0), lambda *_: [], bounds=Bounds(), tls=None, on_refused=lambda _status: None)
    return server.stop


def start_outbox(bench: Bench) -> Callable[[], object]:
    outbox = next(iter(bench.services.outboxes))
    # Each list has one from its first record on.
    outbox.push(item(1))
    outbox.start()
    # Stopped with its bench.
    return lambda: None


def supervise(bench: Bench) -> Callable[[], object]:
    replace = msgspec.structs.replace
    config = replace(
        bench.config,
        node=replace(bench.config.node, listen="127.0.0.1:0"),
        admin=replace(bench.config.admin, listen="127.0.0.2:0"),
        integrators=[],
    )
    supervisor = Supervisor(config, 1, ServiceManager())
    running = background.once("test", supervisor.run)
    return running.kill


def listen(bench: Bench) -> Callable[[], object]:
    feeds = bench.services.event_feeds
    feeds.open("acme")
    return feeds.stop


def deliver(bench: Bench) -> Callable[[], object]:
    """Start the webhooks of this process, with one for each of which a delivery begins."""
    hook = Webhook(name="crm", url="https://crm.example/", secrets=["whsec_" + "YWFh" * 8])
    (integrator,) = bench.config.integrators
    replace = msgspec.structs.replace
    config = replace(bench.config, integrators=[replace(integrator, webhooks=[hook])])
    services = bench.services
    webhooks = Webhooks(lambda: config, WebhookQueue(services.redis, "boot"), services.metrics, lambda *_, **__: None)
    webhooks.start()
    return webhooks.stop


def start(*names: str) -> Callable[[Bench], Callable[[], object]]:
    """Start a part of the node's services; return what stops it."""

    def begin(bench: Bench) -> Callable[[], object]:
        part: Any = bench.services
        for name in names:
            part = next(iter(part)) if name == "each" else getattr(part, name)
        part.start()
        return part.stop  # type: ignore[no-any-return]

    return begin


def start_part(make: Callable[[Bench], Any]) -> Callable[[Bench], Callable[[], object]]:
    def begin(bench: Bench) -> Callable[[], object]:
        part = make(bench)
        part.start()
        return part.stop  # type: ignore[no-any-return]

    return begin


#: Class → starts one and returns what stops it.
STARTS: dict[str, Callable[[Bench], Callable[[], object]]] = {
    "Adoption": start_part(lambda bench: bench.adoption),
    "Breakers": start("breakers"),
    "CallStore": start("store"),
    "CdrFiles": start_part(lambda bench: CdrFiles(bench.services)),
    "ClockWatch": start("clocks"),
    "Delivery": deliver,
    "EventWriter": start("event_writer"),
    "RecordingExpiry": start_part(lambda bench: RecordingExpiry(bench.services)),
    "Feeds": listen,
    "MetricHistory": start_part(lambda bench: MetricHistory(bench.services.metrics.registry.collect)),
    "Outbox": start_outbox,
    "RecordExpiry": start_part(lambda bench: RecordExpiry(bench.services)),
    "RedisWatch": start("store"),
    "Reporter": start_part(lambda bench: Reporter(bench.services)),
    "Server": serve_http,
    "Supervisor": supervise,
    "Switch": start("switches", "each"),
    "TimedCallPoller": start_part(lambda bench: next(iter(bench.pollers.values()))),
    "UsageStore": start("usage"),
    "Webhooks": deliver,
}


@pytest.mark.parametrize(("task", "module", "owner", "method"), kept(), ids=[row[0] for row in kept()])
def test_background_work_that_fails_is_begun_again(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    task: str,
    module: str,
    owner: str,
    method: str,
) -> None:
    monkeypatch.setattr(background, "AGAIN_FIRST", 0.001)
    real = getattr(getattr(import_module(module), owner), method)
    begun: list[tuple[object, ...]] = []

    def fail_once(self: object, *arguments: object) -> object:
        begun.append(arguments)
        if begun.count(arguments) == 1:
            raise RuntimeError("a fault of ours")
        return real(self, *arguments)

    monkeypatch.setattr(getattr(import_module(module), owner), method, fail_once)
    if owner == "Supervisor":
        real = lambda *_: 0  # noqa: E731 - a worker would be a process
    before = background.failures[task]
    stop = STARTS[owner](bench)
    try:
        eventually(lambda: background.failures[task] > before)
        # One method may be the work of several tasks.
        eventually(lambda: begun and all(begun.count(arguments) >= 2 for arguments in begun))
    finally:
        stop()
    assert task in [vars(record).get("task") for record in caplog.records if record.message == "background_failed"]
