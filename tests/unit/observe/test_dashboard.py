"""``conf/grafana``: every panel of a dashboard shows metrics that a node has."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from esl_apps.core import terms
from tests.support import ROOT
from tests.support.promql import faults, matched, metrics_of, shown_faults

FILES = sorted((ROOT / "conf" / "grafana").glob("*.json"))
DASHBOARDS: list[dict[str, Any]] = [json.loads(file.read_text()) for file in FILES]
PANELS = [
    pytest.param(panel, id=panel["title"])
    for dashboard in DASHBOARDS
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=[file.stem for file in FILES])
every_panel = pytest.mark.parametrize("panel", PANELS)


def test_dashboards_are_shipped() -> None:
    assert FILES


@every_dashboard
def test_dashboard_asks_for_its_data_source(dashboard: dict[str, Any]) -> None:
    """Its id is another in each Grafana."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert dashboard["id"] is None
    sources = [variable["datasource"] for variable in variables.values() if variable["type"] == "query"]
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            sources += [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert all(source == SOURCE for source in sources)


@every_dashboard
def test_dashboard_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert max(panel["gridPos"]["x"] + panel["gridPos"]["w"] for panel in panels) <= 24


@every_panel
def test_panel_names_metrics_and_labels_that_exist(panel: dict[str, Any]) -> None:
    assert panel["description"]
    for target in panel["targets"]:
        query = target["expr"]
        assert list(faults(query)) == []
        assert list(shown_faults(query, target["legendFormat"])) == []
        assert matched(query, "end_reason") <= {terms.ANSWERED, terms.LOST}


@every_panel
def test_panel_shows_the_chosen_nodes_only(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        query = target["expr"]
        if metrics_of(query) != {"ALERTS"}:
            assert query.count('{job=~"$job", instance=~"$instance"') == query.count("{"), query
