"""The pages of the console."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.core.timed_call import Frequency
from esl_apps.http import operator
from esl_apps.node.reporting import Reporter
from esl_apps.store import keys
from tests.support.bench import Bench
from tests.support.console import Browser

Make = Callable[..., Attempt]
EVIL = "<img src=x onerror=alert(1)>"


def test_overview_shows_health_and_live_calls(bench: Bench, browser: Browser, call: Make) -> None:
    call()
    Reporter(bench.services).beat()
    page = browser.log_in().get("/")
    assert "This node Ready" in page
    assert "Switch fs1 Connected" in page
    assert "Live calls 1" in page
    assert "1000 0820001234 The agent is rung click-dial acme fs1" in page


def test_overview_names_what_needs_attention(bench: Bench, browser: Browser) -> None:
    bench.services.readiness.draining = True
    assert "This node Needs attention draining" in browser.log_in().get("/")


def test_overview_says_why_a_call_failed(browser: Browser, call: Make) -> None:
    call(end=("callee_busy", 17, "callee"))
    call(end=("rejected", 21, "system"))
    page = browser.log_in().get("/")
    assert "Missed The callee was busy." in page
    assert "Failed The node refused it. Cause 21: " in page
    assert "Cause 17" not in page
    assert page.index("Failed ones · Missed ones") < page.index("The node refused it.")


def test_overview_says_whose_calls_the_charts_show(bench: Bench, browser: Browser) -> None:
    page = browser.log_in().get("/")
    assert f"Only the calls of {bench.services.membership.name}, the node that answers here." in page


def test_call_page_has_reason_legs_timeline_and_decisions(browser: Browser, call: Make) -> None:
    attempt = call()
    attempt.note("gateway_failed", "cause 38")
    attempt.end("callee_failed", 38, "callee", attempt.queued_at + 3)
    attempt.save()
    page = browser.log_in().get(f"/calls/{attempt.call_ref}")
    assert "The callee couldn't be reached." in page
    assert "Cause 38: the gateway is down, unknown or silent. The callee ended it" in page
    assert "gateway failed: cause 38" in page
    assert "A-leg: the agent Number 1000 Rang" in page
    assert "B-leg: the callee Number 0820001234" in page
    assert "0.50 s agent ringing 1000 rings" in page
    assert "Hang up" not in page


def test_call_page_of_an_inbound_call_has_the_agents_second(browser: Browser, call: Make) -> None:
    attempt = call("inbound", number="0835550001", end=("agent_no_answer", 19, "system"))
    page = browser.log_in().get(f"/calls/{attempt.call_ref}")
    assert "A-leg: the caller Number 0835550001 Rang \u2013 Answered \u2013" in page
    assert "B-leg: the agent Number 1000 Rang" in page


def test_call_page_of_a_live_call_is_followed_and_hung_up(bench: Bench, browser: Browser, call: Make) -> None:
    attempt = call()
    browser.log_in("the-nocs-token-for-tests")
    path = f"/calls/{attempt.call_ref}"
    assert f'data-calls="{attempt.call_ref}"' in browser.html(path)
    result = browser.post(f"{path}/end")
    assert result.headers["location"] == f"/console{path}?done=ended"
    assert attempt.cancelled_by == "api"
    assert "The call is being hung up." in browser.get(f"{path}?done=ended")


def test_ending_a_call_that_has_ended_does_nothing(browser: Browser, call: Make) -> None:
    attempt = call(end=("answered", 16, "agent"))
    browser.log_in()
    assert browser.post(f"/calls/{attempt.call_ref}/end").headers["location"] == f"/console/calls/{attempt.call_ref}"


def test_calls_are_filtered_by_outcome_and_field(browser: Browser, call: Make) -> None:
    call(end=("answered", 16, "agent"))
    call(end=("callee_busy", 17, "callee"), number="0820009999")
    call("disa", end=("rejected", 21, "system"), integrator=None)
    browser.log_in()
    assert "The node refused it." in browser.get("/calls")
    failed = browser.get("/calls?outcome=failed")
    assert "The node refused it." in failed
    assert "was busy" not in failed
    assert "The two talked" in browser.get("/calls?outcome=good")
    assert "was busy" in browser.get("/calls?callee=0820009999")
    assert "was busy" not in browser.get("/calls?app=disa&integrator=")
    assert "No call of the last day is like this." in browser.get("/calls?switch=fs9")
    # Filters that make no sense are left out.
    assert "The two talked" in browser.get("/calls?state=x&outcome=x&before=x&unknown=1")


@pytest.mark.parametrize("outcome", ["", "missed"])
def test_calls_are_shown_in_pages(browser: Browser, call: Make, monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    monkeypatch.setattr("esl_apps.http.console.views._PAGE", 2)
    refs = [call(end=("callee_busy", 17, "callee")).call_ref for _ in range(3)]
    browser.log_in()
    first = browser.html(f"/calls?outcome={outcome}")
    assert refs[0] not in first
    older = first.partition('href="/console/calls?')[2].partition('"')[0].replace("&amp;", "&")
    assert refs[0] in browser.html(f"/calls?{older}")


def test_values_of_callers_stay_text_on_every_page(bench: Bench, browser: Browser, call: Make) -> None:
    attempt = call(extension=EVIL, number=EVIL, contact_ref=EVIL, dial_number=EVIL)
    attempt.note("refused", EVIL)
    attempt.end("rejected", 21, "system", attempt.queued_at + 1)
    attempt.save()
    call(extension=EVIL, number=EVIL)
    bench.services.policy.cards.create("acme", {"cid": "0825551111", "comment": EVIL, "active": True})
    bench.services.redis.hset(keys.PAUSED, EVIL, b'{"by": "%s", "at": 1}' % EVIL.encode())
    bench.services.timed_calls["callback"].schedule(EVIL, ["card", ""], 4e9, now=1.0, frequency=Frequency())
    browser.log_in()
    for path in ("/", "/calls", f"/calls/{attempt.call_ref}", "/nodes", "/callbacks", "/cards/acme"):
        html = browser.html(path)
        assert "&lt;img src=x onerror=alert(1)&gt;" in html, path
        assert "<img" not in html, path
    for path in (f"/calls?agent={EVIL}", f"/cards?q={EVIL}", f"/cards/acme?q={EVIL}", f"/login?to={EVIL}", f"/{EVIL}"):
        assert "<img" not in browser.html(path), path


@pytest.mark.parametrize(("token", "seen"), [("admin-token-for-tests", True), ("the-nocs-token-for-tests", False)])
def test_numbers_are_masked_without_their_scope(
    bench: Bench, browser: Browser, call: Make, token: str, seen: bool
) -> None:
    number = "0820001234"
    attempt = call(extension="27835550001", dial_number="27115550000")
    attempt.note("refused", f"{number} isn't allowed")
    attempt.end("rejected", 21, "system", attempt.queued_at + 1)
    attempt.save()
    call()
    bench.services.policy.cards.create("acme", {"cid": number, "comment": f"of {number}", "active": True})
    bench.services.timed_calls["callback"].schedule(number, ["card", ""], 4e9, now=1.0, frequency=Frequency())
    bench.redis_server.client.zadd(keys.PIN_LOCKS, {f"number:{number}": 4e9})
    browser.log_in(token)
    for path in ("/", "/calls", f"/calls/{attempt.call_ref}", "/callbacks", "/cards/acme"):
        html = browser.html(path)
        assert (number in html or "27820001234" in html) == seen, path
        assert ("27835550001" in html) <= seen, path
        assert ("•••" in html) != seen, path


def test_nodes_page_shows_processes_and_switches(bench: Bench, browser: Browser) -> None:
    browser.log_in("the-nocs-token-for-tests")
    assert "No node has reported a switch yet." in browser.get("/nodes")
    Reporter(bench.services).beat()
    page = browser.get("/nodes")
    assert "app1 127.0.0.1:8085 Ready 0 of 5000" in page
    assert "fs1 Connected" in page
    assert browser.post("/switches/pause", name="fs1").headers["location"] == "/console/nodes?done=paused"
    assert "Paused by admin/noc" in browser.get("/nodes")
    assert "Switch fs1 Paused" in browser.get("/")
    assert browser.post("/switches/resume", name="fs1").status_code == 303
    assert browser.post("/switches/pause", name="nowhere").status_code == 404


def test_lock_is_lifted_without_its_number(bench: Bench, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    # An alias that could be taken for a number, as one in thirty.
    monkeypatch.setattr(
        "esl_apps.http.console.sessions.Sessions.alias", lambda _self, key: f"{hash(key)}"[:9] + "0" * 9
    )
    from tests.support.console import read

    name = lock(bench)
    browser.log_in("the-nocs-token-for-tests")
    html = browser.html("/locks")
    assert "number:278••••••34" in read(html)
    assert "27820001234" not in html
    alias = html.partition('name="alias" value="')[2].partition('"')[0]
    assert browser.post("/locks/lift", alias="x").status_code == 404
    assert browser.post("/locks/lift", alias=name).status_code == 404
    assert browser.post("/locks/lift", alias=alias).headers["location"] == "/console/locks?done=lifted"
    assert "Nothing is locked." in browser.get("/locks?done=lifted")


def lock(bench: Bench) -> str:
    """Lock a caller with wrong PINs."""
    from esl_apps.core.pins import LOCKED, Source

    guard = bench.services.policy.guard
    source = Source(number="27820001234", is_own=True, address="", entrance="", dnis="")
    while guard.judge(source, False, "", guessed=True) != LOCKED:
        pass
    return "number:27820001234"


def test_breaker_is_tripped_and_reset_by_hand(browser: Browser) -> None:
    browser.log_in("the-nocs-token-for-tests")
    assert "system calls per hour 100" in browser.get("/breakers")
    assert browser.post("/breakers/trip", scope="account:acme", end_calls="on").status_code == 303
    page = browser.get("/breakers?done=tripped")
    assert "Tripped account:acme by hand by token admin/noc" in page
    assert "Breakers tripped" in browser.get("/")
    alias = browser.html("/breakers").partition('name="alias" value="')[2].partition('"')[0]
    assert browser.post("/breakers/reset", alias=alias).headers["location"] == "/console/breakers?done=reset"
    assert "No breaker has tripped." in browser.get("/breakers")
    assert browser.post("/breakers/reset", alias=alias).status_code == 404


@pytest.mark.parametrize(("scope", "status"), [("", 422), ("account:nobody", 404), ("nonsense", 404)])
def test_breaker_that_names_nothing_is_refused(browser: Browser, scope: str, status: int) -> None:
    browser.log_in()
    assert browser.post("/breakers/trip", scope=scope).status_code == status


def test_callback_is_listed_and_dropped(bench: Bench, browser: Browser) -> None:
    store = bench.services.timed_calls["callback"]
    store.schedule("27825556666", ["card", ""], 4e9, now=1.0, frequency=Frequency())
    browser.log_in()
    assert "callback to 27825556666" in browser.get("/callbacks")
    alias = browser.html("/callbacks").partition('name="alias" value="')[2].partition('"')[0]
    assert browser.post("/callbacks/drop", alias=alias).headers["location"] == "/console/callbacks?done=dropped"
    assert "No call waits." in browser.get("/callbacks")
    assert browser.post("/callbacks/drop", alias=alias).status_code == 404


def test_console_acts_as_v1_does(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    tripped: list[tuple[str, str]] = []

    def trip(_port: object, scope: str, by: str, *, end_calls: bool) -> bool:
        tripped.append((scope, by))
        return not end_calls

    monkeypatch.setattr(operator, "trip_breaker", trip)
    browser.log_in("the-nocs-token-for-tests")
    browser.post("/breakers/trip", scope="system")
    browser.client.simulate_post("/v1/breakers/system/trip", headers={"X-Auth-Token": "the-nocs-token-for-tests"})
    assert tripped == [("system", "admin/noc")] * 2
