"""Decode a document into a `Config`, and find everything in it that is of a wrong type, unknown or missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_args, get_origin

import msgspec

from esl_apps.config import explain
from esl_apps.config.model import Config, Integrator, SwitchConfig
from esl_apps.config.reader import UNREADABLE, Document


@dataclass(frozen=True)
class Draft:
    """A configuration whose types are right. Where the file's aren't, the broken parts are left out."""

    config: Config
    switches: list[tuple[str, SwitchConfig]]
    """Each with its path: ``switches[1]`` may be the first that is left."""
    integrators: list[tuple[str, Integrator]]
    broken: frozenset[str] = frozenset()
    """Paths of what is left out: a section, or an item of ``switches``, ``integrators``, ``accounts``, ``inbound``."""
    names: frozenset[str] | None = field(default_factory=frozenset)
    """The names of all integrators, broken ones among them; None: one has no name that can be read."""


def decode(document: Document) -> Draft:
    """Decode a document; what is wrong with it is reported to it."""
    if not document.problems:
        try:
            return _whole(msgspec.convert(document.data, Config))
        except msgspec.ValidationError:
            pass
    return _readable_part(document)


def _whole(config: Config) -> Draft:
    return Draft(
        config,
        [(f"switches[{i}]", switch) for i, switch in enumerate(config.switches)],
        [(f"integrators[{i}]", integrator) for i, integrator in enumerate(config.integrators)],
        names=frozenset(integrator.name for integrator in config.integrators),
    )


def _readable_part(document: Document) -> Draft:
    checker = _Checker(document)
    known = explain.fields(Config)
    checker.report_unknown(document.data, known, "")
    readable: dict[str, Any] = {}
    items: dict[str, list[tuple[str, Any]]] = {"switches": [], "integrators": []}
    broken: set[str] = set()
    for key in known.keys() & document.data.keys():
        value, kind = document.data[key], known[key].type
        if not _has_items(kind) or not isinstance(value, get_origin(kind)):
            if checker.check(value, kind, key):
                readable[key] = value
            else:
                broken.add(key)
            continue
        item_kind = get_args(kind)[-1]
        kept: dict[Any, Any] = {}
        for step, item in value.items() if isinstance(value, dict) else enumerate(value):
            path = f"{key}.{step}" if isinstance(value, dict) else f"{key}[{step}]"
            if checker.check(item, item_kind, path):
                kept[step] = item
            else:
                broken.add(path)
        readable[key] = kept if isinstance(value, dict) else list(kept.values())
        if key in items:
            items[key] = [(f"{key}[{step}]", msgspec.convert(item, item_kind)) for step, item in kept.items()]
    config = msgspec.convert(readable, Config)
    return Draft(config, items["switches"], items["integrators"], frozenset(broken), _names(document.data))


def _has_items(kind: Any) -> bool:
    """Whether it is a list or a mapping of sections, which are broken or not one by one."""
    return get_origin(kind) in (list, dict) and explain.is_section(get_args(kind)[-1])


def _names(data: dict[str, Any]) -> frozenset[str] | None:
    listed = data.get("integrators", [])
    if not isinstance(listed, list):
        return None
    names = [item.get("name") if isinstance(item, dict) else None for item in listed]
    return frozenset(str(name) for name in names) if all(isinstance(name, str) for name in names) else None


class _Checker:
    """Compares data with types, and reports each difference."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def check(self, value: Any, kind: Any, path: str) -> bool:
        """Whether a value is of its type. msgspec decides; what it refuses is searched for the places to report."""
        if value is UNREADABLE:
            return False
        try:
            msgspec.convert(value, kind)
            return True
        except msgspec.ValidationError:
            pass
        if not self._inside(value, kind, path):
            spelled = self._document.spelled.get(path)
            from_environment = path in self._document.from_environment
            self._document.report(path, explain.wrong(kind, value, spelled, from_environment))
        return False

    def _inside(self, value: Any, kind: Any, path: str) -> bool:
        """Whether something inside the value is what is wrong with it; that is reported then."""
        before = len(self._document.problems)
        items = self._items(value, kind, path)
        right = [self.check(item, item_kind, item_path) for item_path, item, item_kind in items]
        return not all(right) or len(self._document.problems) > before

    def _items(self, value: Any, kind: Any, path: str) -> list[tuple[str, Any, Any]]:
        """The path, value and type of each thing in a list or mapping; a section's other problems are reported."""
        for member in map(explain.bare, explain.alternatives(kind)):
            if isinstance(value, list) and get_origin(member) is list:
                return [(f"{path}[{i}]", item, get_args(member)[0]) for i, item in enumerate(value)]
            if isinstance(value, dict) and get_origin(member) is dict:
                return [(f"{path}.{key}", item, get_args(member)[1]) for key, item in value.items()]
            if isinstance(value, dict) and explain.is_section(member):
                known = explain.fields(member)
                meant = self.report_unknown(value, known, path)
                for key, entry in known.items():
                    if entry.required and key not in value and key not in meant:
                        self._document.report(_child(path, key), "missing; it has no default")
                return [(_child(path, key), value[key], known[key].type) for key in value if key in known]
        return []

    def report_unknown(self, value: dict[str, Any], known: dict[str, Any], path: str) -> set[str]:
        """Report a mapping's unknown keys. Return the known ones that were probably meant."""
        meant = set()
        for key, item in value.items():
            if key not in known:
                found = explain.unknown(key, item, list(known))
                problem = self._document.problem(_child(path, key), found.message)
                self._document.problems.append(replace(problem, key=_child(path, found.shown)))
                meant.add(found.meant)
        return meant


def _child(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key
