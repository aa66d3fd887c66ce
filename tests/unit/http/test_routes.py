"""A table of routes is both served and described."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from types import SimpleNamespace
from typing import Any

import falcon
import msgspec
import pytest
from falcon.testing import StartResponseMock, create_environ

from esl_apps.config.integrator_parts import LegacyGet
from esl_apps.config.model import Rate
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.order import IntegratorRules
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http import admin, integrator, openapi, schemas
from esl_apps.http.access import Door, Token
from esl_apps.http.body import answer
from esl_apps.http.errors import ANSWERS, OURS, ErrorForm, Problem
from esl_apps.http.parameters import in_path
from esl_apps.http.routes import Answer, Api, Component, Operation, Route, serve
from esl_apps.node.live import Full
from esl_apps.observe.metrics import Metrics
from esl_apps.store.errors import NoAnswer, refusal
from tests.support import ROOT
from tests.support.http_client import HttpClient
from tests.support.http_services import World, errors, kazoo_errors
from tests.support.schemas import check_openapi

TOKEN = {"Authorization": "Bearer right"}


class Greeting(msgspec.Struct):
    text: str
    of: str | None = None


class Port:
    """A port with one token, whose scope is "read"."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.door = Door(Rate, self.counted.append)
        self.reasons: list[str] = []
        readiness = SimpleNamespace(reasons=lambda: self.reasons)
        self.services: Any = SimpleNamespace(readiness=readiness, metrics=Metrics(), refused=self.counted.append)
        self.raises: Exception | None = None

    def admit(self, req: falcon.Request, scopes: tuple[str, ...], _params: dict[str, Any]) -> None:
        self.door.check(req, [token("right", "read")], *scopes)

    def greet(self, _req: falcon.Request, resp: falcon.Response, name: str) -> None:
        if self.raises is not None:
            raise self.raises
        answer(resp, 200, Greeting(f"hello {name}"))


def token(text: str, *scopes: str) -> Token:
    return Token(hashlib.sha256(text.encode()).digest(), frozenset(scopes))


def greeting(path: str = "/greetings/{name}", **changes: Any) -> Route:
    declared: dict[str, Any] = {
        "scopes": ("read",),
        "parameters": (in_path("name", str),),
        "answers": {200: Answer("A greeting", Greeting)},
        "errors": (401, 503),
        **changes,
    }
    return Route(path, (Operation("GET", "greet", "Greet somebody", Port.greet, **declared),))


def api(*routes: Route, **more: Any) -> Api:
    return Api("greetings", "For tests", routes, **more)


def client(made: Api, port: Port | None = None) -> HttpClient:
    return HttpClient(serve(made, port or Port()))


# Serving and describing ------------------------------------------------------------------------------------


def test_route_that_is_added_is_served_and_described() -> None:
    made = api(greeting())
    result = client(made).simulate_get("/greetings/ann", headers=TOKEN)
    assert (result.status_code, result.json) == (200, {"text": "hello ann", "of": None})
    document = openapi.document(made)
    check_openapi(document)
    described = document["paths"]["/greetings/{name}"]["get"]
    assert described["operationId"] == "greet"
    assert described["x-scopes"] == ["read"]
    assert described["responses"].keys() == {"200", "401", "422", "503"}
    schema = described["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Greeting"}
    assert document["components"]["schemas"]["Greeting"]["properties"] == {
        "text": {"type": "string"},
        "of": {"type": "string", "nullable": True, "default": None},
    }


# Measuring -------------------------------------------------------------------------------------------------


def measured(port: Port) -> dict[tuple[str, str, str], float]:
    """How many requests each series has seen, by method, route and status."""
    (family,) = port.services.metrics.requests.collect()
    return {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_count")
    }


def test_request_is_measured_by_route_and_status() -> None:
    port = Port()
    route = dataclasses.replace(greeting(), templates=("/greetings/{name}", "/hello/{name}"))
    asked = client(api(route), port)
    for name in ("ann", "bob"):
        asked.simulate_get(f"/greetings/{name}", headers=TOKEN)
    asked.simulate_get("/greetings/ann")
    asked.simulate_head("/greetings/ann", headers=TOKEN)
    port.raises = RuntimeError("a fault")
    asked.simulate_get("/hello/ann", headers=TOKEN)
    assert measured(port) == {
        ("GET", route.path, "200"): 2.0,
        ("GET", route.path, "401"): 1.0,
        ("HEAD", route.path, "200"): 1.0,
        ("GET", route.path, "500"): 1.0,
    }


def test_request_of_invented_names_shares_a_label() -> None:
    """Otherwise a stranger without a token fills the memory of the node and of Prometheus."""
    port = Port()
    app = serve(api(greeting()), port)
    for number in range(20):
        for path in (f"/nothing/{number}", "/greetings/ann"):
            environ = create_environ(path, method=f"STEAL{number}")
            list(app(environ, StartResponseMock()))
        environ = create_environ(f"/nothing/{number}")
        list(app(environ, StartResponseMock()))
    for method in ("POST", "PUT", "WEBSOCKET"):
        list(app(create_environ("/greetings/ann", method=method), StartResponseMock()))
    assert {method for method, _route, _status in measured(port)} == {"GET", "other"}
    assert {route for _method, route, _status in measured(port)} == {"/greetings/{name}", "other"}
    assert sum(measured(port).values()) == 63.0


# Descriptions ----------------------------------------------------------------------------------------------


def integrators_document() -> dict[str, Any]:
    known = IntegratorRules("acme", NumberPlan("ZA", r"^\d{3,4}$", {}, []))
    return openapi.document(integrator.API, {"Order": schemas.order(known)})


PORTS = [
    pytest.param(integrator.API, integrators_document(), id="integrator"),
    pytest.param(admin.API, openapi.document(admin.API), id="admin"),
]


@pytest.mark.parametrize(("made", "document"), PORTS)
def test_description_of_a_port_is_valid_and_complete(made: Api, document: dict[str, Any]) -> None:
    check_openapi(document)
    operations = [operation for route in made.routes for operation in route.operations]
    assert len({operation.name for operation in operations}) == len(operations)
    assert {route.path for route in made.routes} == document["paths"].keys()
    text = msgspec.json.encode(document).decode()
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}' in text, f"{name} is described and not used"


@pytest.mark.parametrize(("made", "document"), PORTS)
def test_description_of_a_path_has_its_parameters(made: Api, document: dict[str, Any]) -> None:
    for route in made.routes:
        for operation in route.operations:
            described = [*route.parameters, *operation.parameters]
            names = {parameter["name"] for parameter in described if parameter["in"] == "path"}
            assert names == set(re.findall(r"\{(\w+)\}", route.path)), route.path


@pytest.mark.parametrize(("made", "document"), PORTS)
def test_description_of_an_operation_has_its_usual_errors(made: Api, document: dict[str, Any]) -> None:
    for route in made.routes:
        for operation in route.operations:
            assert 429 in operation.errors, operation.name
            if operation.scopes is not None:
                assert {401, 403} <= set(operation.errors), operation.name
            if operation.body is not None:
                assert {400, 413, 415} <= set(operation.errors), operation.name


def test_component_of_the_port_is_described() -> None:
    made = api(greeting(body=Component("Wish"), errors=(401,)))
    document = openapi.document(made, {"Wish": {"type": "object"}})
    body = document["paths"]["/greetings/{name}"]["get"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Wish"}
    assert document["components"]["schemas"]["Wish"] == {"type": "object"}


# Admission ------------------------------------------------------------------------------------------------


def test_route_with_scopes_needs_a_token_with_one_of_them() -> None:
    port = Port()
    made = client(api(greeting(), greeting("/other/{name}", scopes=("call",))), port)
    assert made.simulate_get("/greetings/ann").status_code == 401
    assert made.simulate_get("/greetings/ann", headers={"X-Auth-Token": "wrong"}).status_code == 401
    assert made.simulate_get("/other/ann", headers=TOKEN).status_code == 403
    assert port.counted == [401, 401, 403]


def test_route_without_scopes_needs_no_token() -> None:
    made = api(greeting(scopes=None))
    assert client(made).simulate_get("/greetings/ann").status_code == 200
    assert openapi.document(made)["paths"]["/greetings/{name}"]["get"]["security"] == []


def test_route_with_its_own_admit_uses_it() -> None:
    def by_name(port: Port, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
        if params["name"] != "friend":
            port.admit(req, scopes, params)

    made = client(api(greeting(admit=by_name)))
    assert made.simulate_get("/greetings/friend").status_code == 200
    assert made.simulate_get("/greetings/ann").status_code == 401


# Errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "errors", "retry"),
    [
        (Full("switch fs1: no route"), 503, [("", "unavailable", "switch fs1: no route")], "5"),
        (NoAnswer("redis: refused"), 503, [("", "unavailable", "redis: no answer")], "5"),
        (refusal("OOM full"), 503, [("", "unavailable", "redis: OOM, its memory is full")], "5"),
        (Refused([Fault("a", "type", "b"), Fault("c", "d", "e")]), 422, [("a", "type", "b"), ("c", "d", "e")], None),
    ],
)
def test_mapped_exception_has_its_answer(
    error: Exception, status: int, errors: list[tuple[str, str, str]], retry: str | None
) -> None:
    port = Port()
    port.raises = error
    result = client(api(greeting()), port).simulate_get("/greetings/ann", headers=TOKEN)
    assert result.status_code == status
    assert [(one["field"], one["code"], one["message"]) for one in result.json["errors"]] == errors
    assert result.headers.get("retry-after") == retry
    assert port.counted == [status]


def test_subclass_of_a_mapped_exception_has_its_answer() -> None:
    class Unreadable(StoreUnavailable):
        pass

    port = Port()
    port.raises = Unreadable("x")
    assert client(api(greeting()), port).simulate_get("/greetings/ann", headers=TOKEN).status_code == 503
    assert StoreUnavailable in ANSWERS


def test_unexpected_exception_is_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    port = Port()
    port.raises = RuntimeError("a secret")
    result = client(api(greeting()), port).simulate_get("/greetings/ann", headers=TOKEN)
    assert result.status_code == 500
    assert result.json["errors"] == [
        {"field": "", "code": "internal", "message": "the request failed; its log says why"}
    ]
    assert "a secret" in caplog.text


def test_unknown_path_or_method_is_answered_in_json() -> None:
    made = client(api(greeting()))
    unknown = made.simulate_get("/nothing")
    assert (unknown.status_code, unknown.json["errors"][0]["code"]) == (404, "not_found")
    method = made.simulate_post("/greetings/ann")
    assert (method.status_code, method.json["errors"][0]["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"] == "GET, HEAD, OPTIONS"
    assert made.simulate_get("/greetings/ann/", headers=TOKEN).status_code == 200


def test_prefix_with_its_own_error_form_uses_it_throughout() -> None:
    def write(_req: falcon.Request, error: Problem) -> tuple[int, Any]:
        return 400, {"wrong": error.status}

    form = ErrorForm(Greeting, {400: "Wrong", 401: "No", 503: "Later"}, write, wrong=400)
    made = api(greeting(), greeting("/v2/{name}"), forms={"/v2/": form})
    caller = client(made)
    for path in ("/v2/ann", "/v2/ann/nothing", "/v2/"):
        result = caller.simulate_get(path)
        assert (result.status_code, result.json.keys()) == (400, {"wrong"})
    assert caller.simulate_get("/greetings/ann").json.keys() == {"errors"}
    described = openapi.document(made)["paths"]["/v2/{name}"]["get"]["responses"]["401"]
    assert described["description"] == "No"
    assert described["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Greeting"}


# Methods and options --------------------------------------------------------------------------------------


def paths_of(made: Api, *methods: str) -> list[Any]:
    return [
        pytest.param(operation.method, re.sub(r"\{\w+\}", "acme", route.path), id=operation.name)
        for route in made.routes
        for operation in route.operations
        if not methods or operation.method in methods
    ]


def test_head_of_a_route_is_its_get_without_the_body() -> None:
    made = client(api(greeting()))
    got, head = (made.simulate_request(method, "/greetings/ann", headers=TOKEN) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content, head.headers) == (got.status_code, b"", got.headers)
    assert made.simulate_head("/greetings/ann").status_code == 401


def test_head_of_a_get_that_changes_something_is_405() -> None:
    (route,) = [greeting()]
    changing = Route(route.path, tuple(dataclasses.replace(each, safe=False) for each in route.operations))
    made = client(api(changing))
    assert made.simulate_head("/greetings/ann", headers=TOKEN).status_code == 405
    assert made.simulate_get("/greetings/ann", headers=TOKEN).status_code == 200


@pytest.mark.parametrize(("_method", "path"), paths_of(integrator.API, "GET"))
def test_head_of_an_integrators_route_answers_as_get(world: World, _method: str, path: str) -> None:
    got, head = (world.api.simulate_request(method, path) for method in ("GET", "HEAD"))
    if path == "/call.php":
        assert head.status_code == 405
        assert world.outgoing.placed == []
    else:
        assert (head.status_code, head.content) == (got.status_code, b"")


@pytest.mark.parametrize(("_method", "path"), paths_of(admin.API, "GET"))
def test_head_of_an_operators_route_answers_as_get(world: World, _method: str, path: str) -> None:
    got, head = (world.admin.simulate_request(method, path) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (got.status_code, b"")


@pytest.mark.parametrize(("method", "path"), paths_of(integrator.API))
def test_option_unknown_to_an_integrators_route_is_422(world: World, method: str, path: str) -> None:
    world.configure(integrators={"legacy_get": LegacyGet(allow=["192.0.2.0/24"])})
    for query in ({"dry-run": "1"}, {"colour": "red"}, {"Dry_Run": "1"}):
        result = world.api.simulate_request(method, path, params=query, json={})
        assert result.status_code == 422
        if method != "HEAD":
            assert errors(result, 422) == [(next(iter(query)), "unknown")]
    assert world.outgoing.placed == []


@pytest.mark.parametrize(("method", "path"), paths_of(admin.API))
def test_option_unknown_to_an_operators_route_is_refused(world: World, method: str, path: str) -> None:
    result = world.admin.simulate_request(method, path, params={"colour": "red"}, json={"data": {}})
    assert result.status_code == (400 if path.startswith("/v2/") else 422)
    if not path.endswith("/autodial"):
        dry = world.admin.simulate_request(method, path, params={"dry_run": "1"}, json={"data": {}})
        assert dry.status_code == result.status_code
    assert (world.outgoing.placed, world.services.cards.cards) == ([], {})


def test_option_that_comes_twice_is_422(world: World) -> None:
    result = world.api.simulate_post("/click2dial/calls", query_string="dry_run=0&dry_run=1", json={})
    assert errors(result, 422) == [("dry_run", "value")]
    assert world.outgoing.placed == []


@pytest.mark.parametrize("path", ["/v2/accounts/acme/cccps", "/v2/accounts/acme/cccps/autodial"])
def test_idempotency_key_where_there_is_none_is_refused(world: World, path: str) -> None:
    order = {"data": {"a_leg_number": "0820001111", "b_leg_number": "0112223333"}}
    result = world.admin.simulate_put(path, headers={"Idempotency-Key": "one"}, json=order)
    assert kazoo_errors(result, 400) == {"Idempotency-Key": ["unknown"]}
    assert world.outgoing.placed == []


def test_options_of_the_root_is_a_health_check() -> None:
    port = Port()
    made = client(api(greeting()), port)
    result = made.simulate_options("/", headers={"Authorization": ""})
    assert (result.status_code, result.content) == (200, b"")
    assert result.headers["allow"] == "GET, HEAD, OPTIONS"
    port.reasons.append("draining")
    result = made.simulate_options("/")
    assert (result.status_code, result.json["errors"][0]["message"]) == (503, "draining")
    assert [made.simulate_request(method, "/").status_code for method in ("GET", "HEAD", "POST")] == [404] * 3
    assert made.simulate_options("/greetings/ann").headers["allow"] == "GET, HEAD"


def test_statuses_of_errors_are_all_in_the_reference() -> None:
    """Clients look a refusal up in the table of ``docs/reference/http-api.rst``."""
    page = (ROOT / "docs" / "reference" / "http-api.rst").read_text()
    told = {int(status) for status in re.findall(r"^   \* - ([0-9]{3})$", page, re.MULTILINE)}
    assert set(OURS.meanings) <= told
    conflicts = re.findall(r"^   \* - 409\n     - ``([a-z_]+)``$", page, re.MULTILINE)
    assert set(conflicts) == {"key_reused", "in_progress", "agent_unavailable", "state"}
