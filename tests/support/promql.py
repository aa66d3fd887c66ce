"""Read queries for Prometheus, and compare them with the metrics that a node has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from esl_apps.observe.metrics import Metrics

#: Labels that every metric may have: Prometheus's own, and the one of ``--workers``.
COMMON = frozenset({"instance", "job", "worker"})
#: Words of the language that the queries use.
_WORDS = frozenset(
    {"and", "by", "count", "deriv", "histogram_quantile", "increase", "max", "max_over_time", "min"}
    | {"min_over_time", "offset", "on", "or", "rate", "sum", "time", "topk", "unless", "vector", "without"}
)
_SELECTOR = re.compile(r"\b(?P<name>[a-zA-Z_]\w*)\b(?:\{(?P<matchers>[^}]*)\})?(?P<call>\s*\()?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^]]*\]|\boffset \w+|\$__\w+")
_LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


@cache
def known() -> dict[str, frozenset[str]]:
    """Every series that a node shows → its labels."""
    found = {"up": frozenset[str](), "ALERTS": frozenset({"alertname", "alertstate", "severity", "service"})}
    # Scrapes adds it.
    found["esl_apps_worker_up"] = frozenset()
    for collector in Metrics().registry._collector_to_names:
        own: tuple[str, ...] = getattr(collector, "_labelnames", ())
        for metric in collector.describe() if hasattr(collector, "describe") else collector.collect():
            labels = frozenset(own or getattr(metric, "_labelnames", ()))
            if metric.type == "histogram":
                found[f"{metric.name}_bucket"] = labels | {"le"}
                found[f"{metric.name}_count"] = found[f"{metric.name}_sum"] = labels
            else:
                found[f"{metric.name}_total" if metric.type == "counter" else metric.name] = labels
    return found


def faults(query: str) -> Iterator[str]:
    """Yield each name and each label of a query that no node has."""
    labels = set(COMMON)
    bare = _GROUPING.sub(" ", _RANGE.sub(" ", query))
    for match in _SELECTOR.finditer(bare):
        name = match["name"]
        if name in _WORDS:
            continue
        if name not in known() or match["call"]:
            yield f"no metric {name}"
            continue
        labels |= known()[name]
        for label, _value in _MATCHER.findall(match["matchers"] or ""):
            if label not in known()[name] | COMMON:
                yield f"{name} has no label {label}"
    for group in _GROUPING.findall(query):
        yield from (f"no label {label}" for label in re.findall(r"\w+", group) if label not in labels)


def metrics_of(query: str) -> set[str]:
    bare = _GROUPING.sub(" ", _RANGE.sub(" ", re.sub(r'"[^"]*"', '""', query)))
    return {match["name"] for match in _SELECTOR.finditer(bare)} & known().keys()


def matched(query: str, label: str) -> set[str]:
    """The values with which a query compares a label."""
    return {part for name, value in _MATCHER.findall(query) if name == label for part in value.split("|")}


def shown_faults(query: str, text: str) -> Iterator[str]:
    """Yield each label of a legend or a message that the answers to its query don't have."""
    kept = re.findall(r"\bby\s*\(([^)]*)\)", query)
    if kept:
        labels = {label for group in kept for label in re.findall(r"\w+", group)}
    else:
        labels = set(COMMON).union(*(known()[name] for name in metrics_of(query)))
        for group in re.findall(r"\bwithout\s*\(([^)]*)\)", query):
            labels -= set(re.findall(r"\w+", group))
    yield from (f"its answers have no label {label}" for label in _LEGEND.findall(text) if label not in labels)
