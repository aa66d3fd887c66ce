"""The text of every key, as existing installations have it: changing one needs a migration."""

from __future__ import annotations

import re

import pytest

from esl_apps.store import keys
from tests.support import ROOT

GOLDEN = {
    keys.trial("hash"): "esl_apps:{check}:hash",
    keys.NODES: "esl_apps:nodes",
    keys.PAUSED: "esl_apps:paused_switches",
    keys.report("BOOT"): "esl_apps:report:BOOT",
    keys.CONSOLE_SECRET: "esl_apps:console_secret",
    keys.call("REF"): "esl_apps:call:REF",
    keys.calls("acme"): "esl_apps:calls:acme",
    keys.calls(""): "esl_apps:calls:",
    keys.live("BOOT"): "esl_apps:live:BOOT",
    keys.cancelled("REF"): "esl_apps:cancelled:REF",
    keys.CANCELS: "esl_apps:cancels",
    keys.taken("REF"): "esl_apps:taken:REF",
    keys.gone_on("REF"): "esl_apps:gone_on:REF",
    keys.claims("ID"): "esl_apps:claims:ID",
    keys.idempotency("acme", "DIGEST"): "esl_apps:idempotency:acme:DIGEST",
    keys.PING: "esl_apps:ping",
    keys.CARDS: "esl_apps:{cards}",
    keys.CARD_IDS: "esl_apps:{cards}:ids",
    keys.LAST_NUMBERS: "esl_apps:{cards}:last_number",
    keys.cards_of("acme"): "esl_apps:{cards}:of:acme",
    keys.account("acme"): "esl_apps:account:acme",
    keys.SYSTEM_CONFIG: "esl_apps:system_config",
    keys.IMPORTED: "esl_apps:imported",
    keys.concurrent("user:acme:u1"): "esl_apps:concurrent:{user:acme:u1}",
    keys.usage_calls("account:acme/country:CU"): "esl_apps:usage:{account:acme/country:CU}:calls",
    keys.usage_sums("breaker:system"): "esl_apps:usage:{breaker:system}:sums",
    keys.payments("BOOT"): "esl_apps:payments:BOOT",
    keys.TRIPPED: "esl_apps:{breaker}:tripped",
    keys.BREAKER_LOG: "esl_apps:{breaker}:log",
    keys.PIN_LOCKS: "esl_apps:{pin_guard}:locks",
    keys.pin_tries("number:27825556666"): "esl_apps:{pin_guard}:wrong:number:27825556666",
    keys.pin_lock("all"): "esl_apps:{pin_guard}:lock:all",
    keys.pin_opened("01968b5c"): "esl_apps:{pin_guard}:opened_by:01968b5c",
    keys.timed_due("callbacks"): "esl_apps:{callbacks}:due",
    keys.timed_pending("callbacks"): "esl_apps:{callbacks}:pending",
    keys.timed_past("callbacks", "27825556666"): "esl_apps:{callbacks}:past:27825556666",
    keys.timed_of("autodials", "acme"): "esl_apps:{autodials}:of:acme",
    keys.seq("enigma:notifications:cdr"): "esl_apps:{enigma:notifications:cdr}:seq",
    keys.pushed("enigma:notifications:cdr", "ID"): "esl_apps:{enigma:notifications:cdr}:done:ID",
    keys.LISTENERS: "esl_apps:listeners",
    keys.history("acme"): "esl_apps:history:acme",
    keys.events(keys.history("acme")): "esl_apps:{esl_apps:history:acme}:events",
    keys.reached(keys.history("acme"), "REF"): "esl_apps:{esl_apps:history:acme}:reached:REF",
    keys.session_parts("REF"): "esl_apps:session_parts:REF",
    keys.webhook("acme", "crm"): "esl_apps:webhook:acme:crm",
    keys.webhook_state("esl_apps:webhook:acme:crm"): "esl_apps:{esl_apps:webhook:acme:crm}:state",
    keys.webhook_lease("esl_apps:webhook:acme:crm"): "esl_apps:{esl_apps:webhook:acme:crm}:lease",
}


@pytest.mark.parametrize(("key", "text"), GOLDEN.items())
def test_key_has_the_text_it_always_had(key: str, text: str) -> None:
    assert key == text


def test_every_key_of_the_module_is_golden() -> None:
    public = {name for name in vars(keys) if not name.startswith("_") and name != "annotations"}
    source = (ROOT / "tests/unit/store/test_keys.py").read_text()
    assert {name for name in public if f"keys.{name}" not in source} == set()


def test_no_other_module_spells_a_key_out() -> None:
    spelled = re.compile(r"""["']esl_apps:(?!:)""")
    files = [path for folder in ("esl_apps", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix() for path in files if spelled.search(path.read_text())}
    assert found == {"esl_apps/store/keys.py", "tests/unit/store/test_keys.py"}
