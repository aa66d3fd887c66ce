"""What a node reads at each report: which switches operators have paused."""

from __future__ import annotations

import pytest

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.reporting import heed_pauses
from esl_apps.operations import switches
from esl_apps.store import keys
from tests.support.bench import Bench


@pytest.mark.parametrize("garbage", ["another type", "a pause"])
def test_reporting_unreadable_pauses_hold_and_are_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, garbage: str
) -> None:
    services, client = bench.services, bench.redis_server.client
    switches.pause(services.redis, "fs1", "ops")
    heed_pauses(services)
    for _ in range(2):
        client.delete(keys.PAUSED)
        if garbage == "another type":
            client.set(keys.PAUSED, "fs1")
        else:
            client.hset(keys.PAUSED, "fs2", "{")
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                heed_pauses(services)
        assert services.switch_pool.paused == {"fs1"}
        client.delete(keys.PAUSED)
        switches.pause(services.redis, "fs1", "ops")
        heed_pauses(services)
    said = [vars(record)["key"] for record in caplog.records if record.message == "key_unreadable"]
    assert said == 2 * [keys.PAUSED]
