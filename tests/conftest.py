"""The rigs: each behaviour test runs on the sandbox and, if one is installed, on a real FreeSWITCH."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import os
import tempfile
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.rig.base import Rig, Script
from tests.rig.freeswitch import find_freeswitch
from tests.support import ROOT, temporary, zygote
from tests.support.node import Node, RedisServer, configuration

#: The marks of tests that need a real switch; without one they are skipped with the reason.
ON_FREESWITCH = [
    pytest.mark.freeswitch,
    pytest.mark.skipif(
        find_freeswitch() is None or importlib.util.find_spec("pjsua2") is None,
        reason="no FreeSWITCH (set $FREESWITCH to its binary, or install it), or no pjsua2-python",
    ),
]


#: Whether a test is measured: the first case of a unit test, and no property. Coverage makes a test two to three times
#: as slow, and more cases run through the same lines. To measure less can only lower the result.
measured = pytest.StashKey[bool]()
#: Unit tests that read files and run none of the package: measured, they would take 10 s of CPU more.
READERS = {"test_layers.py", "test_style.py"}

REAL = pytest.param("freeswitch", marks=ON_FREESWITCH)
UNIT = ROOT / "tests" / "unit"

#: The modules that take longest, most of it waiting. They begin first, and the unit tests, which don't wait, last: else
#: one worker would be at a long module when the others have ended.
LONGEST = [
    "browser/test_console.py",
    "behaviour/test_workers.py",
    "behaviour/test_keys.py",
    "browser/test_phone.py",
    "attack/test_sip.py",
    "behaviour/test_refer.py",
    "behaviour/test_versions.py",
    "behaviour/test_webhooks.py",
    "behaviour/test_adoption.py",
    "behaviour/test_consultation.py",
    "behaviour/test_records.py",
    "behaviour/test_reload.py",
    "behaviour/test_disa.py",
    "behaviour/test_dialplan_on_freeswitch.py",
    "behaviour/test_dialthrough.py",
    "attack/test_refer.py",
    "behaviour/test_handover.py",
    "rig/test_freeswitch.py",
    "behaviour/test_commands.py",
    "chaos/test_chaos.py",
]

#: For what the sandbox lacks: a debug log, JSON CDRs of a real switch, SIP's finer points.
on_a_real_switch = pytest.mark.parametrize("rig", [REAL], indirect=True)

#: For what doesn't depend on the switch.
on_the_sandbox = pytest.mark.parametrize("rig", ["sandbox"], indirect=True)

# Hundreds of processes are started; without cached bytecode, compiling would take a minute in all.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""

# No deadlines: a slow machine does not make an answer wrong. Each run tries the same examples; `make fuzz` tries more.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session", params=["sandbox", REAL])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """One switch per session and kind; ``node`` resets it between tests."""
    made: Any
    zygote.prepared()  # for the nodes: it imports while the switch starts
    if request.param == "sandbox":
        from tests.rig.sandbox import SandboxRig

        made = SandboxRig()
    else:
        from tests.rig.freeswitch import FreeswitchRig

        made = FreeswitchRig()
        # FreeSWITCH reports its first call half a second late: mod_sofia starts its presence thread with it.
        made.phone("1000", Script(reject=486))
        made.api("originate user/1000@127.0.0.1 &park()")
        made.reset()
    yield made
    made.close()


def pytest_configure(config: pytest.Config) -> None:
    # Workers inherit the folder of the process that starts them.
    if not hasattr(config, "workerinput"):
        temporary.use_own_folder()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.TESTS_FAILED and not hasattr(session.config, "workerinput"):
        temporary.keep()
        print(f"\nTemporary files of the failed run: {tempfile.gettempdir()}")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]
    """Keep a module's tests on one rig together: they share a node, and a switch of the module's own if it has one.

    xdist's ``--dist=loadgroup`` would do, but pytest 9.2 ignores the names that xdist 3.8 gives to the groups: each
    test went to any worker, and each worker started each module's node and switch.
    """

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        parameters = test.partition("[")[2].rstrip("]").split("-")
        return "-".join([module, *(rig for rig in ("sandbox", "freeswitch") if rig in parameters)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    config.option.loadscopereorder = False  # not by the number of tests, but as they are collected
    return ByModule(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what collecting makes out of the garbage collector's way: it lives as long as the process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)  # after pytest's own, which changes the order
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order a worker's tests, and choose the tests to measure. ``pytest --cov`` measures unit tests only; `make
    coverage` measures all tests and all processes."""
    seen: set[str] = set()
    is_unit = functools.cache(lambda path: path.is_relative_to(UNIT))
    rank = {ROOT / "tests" / module: number for number, module in enumerate(LONGEST)}
    assert all(module.exists() for module in rank)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank.get(item.path, len(rank) + is_unit(item.path)))
    for item in items:
        test = item.nodeid.partition("[")[0]
        is_property = is_hypothesis_test(getattr(item, "obj", None))
        runs = is_unit(item.path) and item.path.name not in READERS
        item.stash[measured] = runs and test not in seen and not is_property
        seen.add(test)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """End a worker's first measuring. pytest-cov 7.1 begins a second one, and the first would go on in its pauses."""
    plugin = session.config.pluginmanager.getplugin("_cov")
    if hasattr(session.config, "workerinput") and plugin and plugin.cov_controller:
        plugin.cov_controller.pause()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, object, object]:
    """Measure what the modules import, once, and not the rest of collecting: each worker imports the same."""
    if isinstance(collector, pytest.Module) and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        _measure(collector.config, True)
        with contextlib.suppress(Exception, pytest.skip.Exception):  # as it comes again when it is collected
            assert collector.obj
    _measure(collector.config, False)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Measure a test or don't, fixtures included; pytest-cov's mark ``no_cover`` leaves these out."""
    _measure(item.config, item.stash[measured])


def _measure(config: pytest.Config, on: bool) -> None:
    plugin = config.pluginmanager.getplugin("_cov")
    if plugin and plugin.cov_controller and on != config.stash.get(measured, True):
        config.stash[measured] = on
        (plugin.cov_controller.resume if on else plugin.cov_controller.pause)()


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Rig]:
    """A sandbox of the module's own."""
    from tests.rig.sandbox import SandboxRig

    with SandboxRig() as rig:
        yield rig


@pytest.fixture(scope="module")
def module_node(rig: Rig, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node for a module's tests; a module's ``CONFIG(config)`` may change the configuration first."""
    config = configuration(rig, redis, record=True)
    change = getattr(request.module, "CONFIG", None)
    if change is not None:
        change(config)
    node = Node(config)
    yield node
    node.end()


@pytest.fixture
def node(module_node: Node, rig: Rig, redis: RedisServer) -> Iterator[Node]:
    """The module's node, with a clean switch and empty lists."""
    rig.reset()
    module_node.settle(redis)
    redis.flush()
    yield module_node
    rig.reset()
