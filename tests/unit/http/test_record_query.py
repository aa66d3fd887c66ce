"""``GET /click2dial/records`` and ``/v1/records``, over a node's parts and a real Redis."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.http import admin, integrator
from esl_apps.store import keys
from esl_apps.store.record_history import Chosen
from tests.support.bench import Bench, Build
from tests.support.http_client import HttpClient
from tests.unit.node import conftest as node_fixtures

build, fast_redis = node_fixtures.build, node_fixtures.fast_redis
RECORDS = "/click2dial/records"


@pytest.fixture
def bench(build: Build) -> Bench:
    return build()


@pytest.fixture
def acme(bench: Bench) -> HttpClient:
    app = integrator.build(bench.services, bench.outgoing, "acme")
    return HttpClient(app, headers={"Authorization": "Bearer acme-token-for-tests"})


@pytest.fixture
def operator(bench: Bench) -> HttpClient:
    app = admin.build(bench.services, bench.outgoing, CollectorRegistry())
    return HttpClient(app, headers={"X-Auth-Token": "admin-token-for-tests"})


def ended(bench: Bench, **fields: Any) -> str:
    """A call that has ended, and whose record is in Redis."""
    attempt = Attempt(**{"app": "click-dial", "call_dir": "outbound", "integrator": "acme", "number": "1001", **fields})
    bench.services.calls.begin(attempt, bench.services.switches[0])
    attempt.end(terms.ANSWERED, 16, terms.AGENT, attempt.queued_at + 1)
    bench.records()
    return attempt.call_ref


def refs(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    found = answer.json.get("records") or answer.json.get("data") or []
    return [record["call_ref"] for record in found]


def test_records_are_those_of_the_integrator(bench: Bench, acme: HttpClient) -> None:
    ref = ended(bench, extension="1000", metadata={"lead": "7"})
    ended(bench, app="disa", integrator=None, number="0820001234")
    answer = acme.simulate_get(RECORDS)
    assert (refs(answer), answer.json["next"]) == ([ref], None)
    (record,) = answer.json["records"]
    assert (record["extension"], record["end_reason"], record["metadata"]) == ("1000", "answered", {"lead": "7"})
    assert "seq" not in record


def test_records_are_chosen_by_their_fields(bench: Bench, acme: HttpClient) -> None:
    wanted = ended(bench, extension="1000", number="1002", contact_ref="lead-7", metadata={"a": "b"})
    ended(bench, extension="1001")
    queries: list[dict[str, str]] = [{"agent": "1000"}, {"number": "1002"}, {"contact_ref": "lead-7"}]
    for query in [*queries, {"metadata.a": "b"}, {"agent": "1000", "end_reason": "answered"}]:
        assert refs(acme.simulate_get(RECORDS, params=query)) == [wanted], query
    assert refs(acme.simulate_get(RECORDS, params={"agent": "1000", "end_reason": "lost"})) == []


@pytest.mark.parametrize("agent", ["0820001234", "+27820001234", "082 000 1234", "+27 (0)82 000-1234"])
@pytest.mark.parametrize("extension", ["0820001234", "+27820001234"])
def test_records_of_an_agent_are_found_however_it_is_written(
    bench: Bench, acme: HttpClient, operator: HttpClient, extension: str, agent: str
) -> None:
    wanted = ended(bench, extension=extension, extension_e164="+27820001234")
    ended(bench, extension="0820001235", extension_e164="+27820001235")
    for client, path in ((acme, RECORDS), (operator, "/v1/records")):
        assert refs(client.simulate_get(path, params={"agent": agent})) == [wanted]


def test_records_of_an_extension_are_found_with_separators(bench: Bench, acme: HttpClient) -> None:
    wanted = ended(bench, extension="1000")
    assert refs(acme.simulate_get(RECORDS, params={"agent": " 1000 "})) == [wanted]


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_records_of_metadata_that_no_call_has_are_none(bench: Bench, acme: HttpClient, name: str) -> None:
    """A name that no request could have given is a filter, too: ignored, it would choose every call."""
    ended(bench, metadata={"a": "b"})
    assert refs(acme.simulate_get(RECORDS, params={f"metadata.{name}": "x"})) == []


def test_records_are_chosen_by_time(bench: Bench, acme: HttpClient) -> None:
    ref = ended(bench)
    at = bench.services.record_history.page("acme", Chosen(), 1)[0][0]["dialed_at"]
    assert refs(acme.simulate_get(RECORDS, params={"from": str(at - 1), "to": str(at + 2)})) == [ref]
    assert refs(acme.simulate_get(RECORDS, params={"to": str(at - 1)})) == []
    assert refs(acme.simulate_get(RECORDS, params={"from": str(at + 2)})) == []


def test_records_are_paged(bench: Bench, acme: HttpClient) -> None:
    kept = sorted((ended(bench) for _ in range(3)), reverse=True)
    first = acme.simulate_get(RECORDS, params={"limit": "2"})
    assert refs(first) == kept[:2]
    second = acme.simulate_get(RECORDS, params={"limit": "2", "before": first.json["next"]})
    assert (refs(second), second.json["next"]) == (kept[2:], None)


def test_records_as_csv_link_to_the_next_page(bench: Bench, acme: HttpClient) -> None:
    older, newer = sorted(ended(bench, contact_ref="a&b") for _ in range(2))
    answer = acme.simulate_get(f"{RECORDS}?limit=1&contact_ref=a%26b", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["call_ref"] == newer
    link = answer.headers["link"]
    assert link == f'<{RECORDS}?limit=1&contact_ref=a%26b&before={newer}>; rel="next"'
    again = acme.simulate_get(link[1 : link.index(">")], headers={"Accept": "text/csv"})
    assert [row["call_ref"] for row in csv.DictReader(io.StringIO(again.text))] == [older]
    assert "link" not in again.headers


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("to=nan", "to"),
        ("from=1e999", "from"),
        ("from=2&to=1", "to"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("before=x", "before"),
        ("end_reason=nosuch", "end_reason"),
        ("end_reason=callee_hungup", "end_reason"),
        ("end_reason=", "end_reason"),
        ("unknown=1", "unknown"),
        ("agent=1&agent=2", "agent"),
    ],
)
def test_records_query_that_is_wrong_is_422(acme: HttpClient, query: str, field: str) -> None:
    answer = acme.simulate_get(RECORDS, query_string=query)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == [field]


@pytest.mark.parametrize("query", ["from=-1", "from=1e15", "to=99999999999999999", "from=1e308", "from=-1e308"])
def test_records_of_a_time_that_no_call_has_are_read(acme: HttpClient, query: str) -> None:
    assert acme.simulate_get(RECORDS, query_string=query).status_code == 200


def test_records_in_another_form_are_406(acme: HttpClient, operator: HttpClient) -> None:
    for client, path in ((acme, RECORDS), (operator, "/v1/records")):
        assert client.simulate_get(path, headers={"Accept": "text/html"}).status_code == 406


def test_records_without_keep_days_are_not_kept(build: Build) -> None:
    bench = build(records={"keep_days": 0})
    ended(bench)
    app = integrator.build(bench.services, bench.outgoing, "acme")
    acme = HttpClient(app, headers={"Authorization": "Bearer acme-token-for-tests"})
    assert refs(acme.simulate_get(RECORDS)) == []


def test_v1_records_have_a_call_of_two_histories_once(bench: Bench, operator: HttpClient) -> None:
    """The node that adopted it didn't know yet whose it was. Its own node, which was only slow, did."""
    ref = ended(bench)
    (record,) = operator.simulate_get("/v1/records").json["data"]
    member = (ref + json.dumps(record)).encode()
    bench.redis_server.client.zadd(keys.history(""), {member: 0})
    found = operator.simulate_get("/v1/records").json["data"]
    assert [(one["call_ref"], one["integrator"]) for one in found] == [(ref, "acme")]


def test_v1_records_are_those_of_all(bench: Bench, operator: HttpClient) -> None:
    acmes = ended(bench)
    disa = ended(bench, app="disa", integrator=None, account_id="acme", number="0820001234")
    assert refs(operator.simulate_get("/v1/records")) == [disa, acmes]
    assert [record["integrator"] for record in operator.simulate_get("/v1/records").json["data"]] == [None, "acme"]
    assert refs(operator.simulate_get("/v1/records", params={"integrator": ""})) == [disa]
    assert refs(operator.simulate_get("/v1/records", params={"integrator": "acme"})) == [acmes]
    assert refs(operator.simulate_get("/v1/records", params={"account_id": "acme"})) == [disa]


def test_v1_records_page_over_integrators(bench: Bench, operator: HttpClient) -> None:
    kept = [ended(bench, integrator=name) for name in ("acme", None, None, "acme", "acme")]
    found: list[str] = []
    before = ""
    while before is not None:
        query = {"limit": "2", **({"before": before} if before else {})}
        page = operator.simulate_get("/v1/records", params=query)
        found += refs(page)
        before = page.json["next"]
    assert found == sorted(kept, reverse=True)


def test_v1_records_as_csv_name_the_integrator(bench: Bench, operator: HttpClient) -> None:
    ended(bench)
    answer = operator.simulate_get("/v1/records", headers={"Accept": "text/csv"})
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["integrator"] == "acme"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("Text/CSV", "text/csv"),
        ("APPLICATION/JSON", "application/json"),
        ("text/csv; Q=0.5, application/JSON", "application/json"),
    ],
)
def test_accept_is_read_in_any_case(acme: HttpClient, accept: str, media: str) -> None:
    answer = acme.simulate_get(RECORDS, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, media)


def test_table_of_records_is_described(acme: HttpClient, operator: HttpClient) -> None:
    for port, path in ((acme, RECORDS), (operator, "/v1/records")):
        answers = port.simulate_get("/openapi.json").json["paths"][path]["get"]["responses"]
        assert set(answers["200"]["content"]) == {"application/json", "text/csv"}


def test_records_as_a_table_are_written_in_turns(
    bench: Bench, acme: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of 1,000 records with metadata takes 60 ms."""
    for _ in range(21):
        ended(bench)
    turns: list[object] = []
    monkeypatch.setattr("esl_apps.net.turns.take_turn", turns.append)
    answer = acme.simulate_get(RECORDS, headers={"Accept": "text/csv"})
    assert len(answer.text.splitlines()) == 22
    # Two to read them, two to write them.
    assert turns == ["history"] * 4


@pytest.mark.parametrize("text", ["0820001234", "+27820001234", "082 000 1234", "tel:+27-82-000-1234", "0027820001234"])
def test_records_are_found_by_any_writing_of_a_number(bench: Bench, acme: HttpClient, text: str) -> None:
    wanted = ended(bench, number="0820001234", number_e164="+27820001234")
    ended(bench, number="0820001235", number_e164="+27820001235")
    assert refs(acme.simulate_get(RECORDS, params={"number": text})) == [wanted]


def test_history_of_another_type_hides_no_other(
    bench: Bench, operator: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    ref = ended(bench, app="disa", integrator=None, account_id="acme")
    bench.redis_server.client.delete(keys.history("acme"))
    bench.redis_server.client.set(keys.history("acme"), "x")
    for _ in range(2):
        assert refs(operator.simulate_get("/v1/records")) == [ref]
    assert caplog.messages.count("key_unreadable") == 1
    assert operator.simulate_get("/v1/records", params={"integrator": "acme"}).status_code == 503
