"""A configuration without a switch or a node, and ``esl-apps`` run in the test's own process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import esl_apps.apps as registry
from esl_apps.cli import main
from tests.support import ROOT
from tests.support.node import RedisServer
from tests.support.peer import PASSWORD, FakeSwitch
from tests.support.ports import free_port


@dataclass
class Ran:
    status: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            status = main.main(list(argv))
        except SystemExit as left:
            status = int(left.code or 0)
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run


class Settings(dict[str, Any]):
    """A configuration that a test may change before it is written."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        (folder / "recordings").mkdir()
        super().__init__(
            node={"name": "n1", "listen": "127.0.0.1:8084", "state_dir": str(folder / "state")},
            redis={"url": redis_url},
            switches=[{"name": "fs1", "address": f"127.0.0.1:{free_port()}", "password": PASSWORD}],
            admin={"token": "admin-token-for-tests"},
            recordings={"dir": str(folder / "recordings")},
            integrators=[{"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests"}],
            pin_key="key-for-tests",
        )
        self._file = folder / "esl_apps.yml"

    def written(self) -> str:
        self._file.write_text(json.dumps(self))
        return str(self._file)


@pytest.fixture
def settings(redis: RedisServer, tmp_path: Path) -> Settings:
    redis.client.flushdb()
    return Settings(tmp_path, redis.url)


@pytest.fixture
def no_redis(settings: Settings) -> Settings:
    """A configuration whose Redis is down."""
    settings["redis"]["url"] = f"redis://127.0.0.1:{free_port()}/0"
    return settings


@pytest.fixture
def switch(settings: Settings) -> Iterator[FakeSwitch]:
    """The configuration's switch, played by the test."""
    made = FakeSwitch(int(settings["switches"][0]["address"].rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture
def wakeup(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The application of ``examples/wakeup``, as if its package were installed."""
    before = dict(registry.APPLICATIONS)
    entry = EntryPoint("wakeup", "wakeup:APPLICATION", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.GROUP else [])
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "wakeup"))
    registry.load_installed.cache_clear()
    yield
    registry.load_installed.cache_clear()
    registry.APPLICATIONS.clear()
    registry.APPLICATIONS.update(before)
