"""A party on hold whose music can't be played, or ends."""

from __future__ import annotations

import pytest

from tests.rig.base import PhoneLeg, Rig
from tests.rig.fs_configuration import MOH_HZ
from tests.support.click_calls import AGENT_HZ, CALLEE_HZ, ended, silent, talk
from tests.support.node import Node, RedisServer, configuration, request


def act(node: Node, ref: str, name: str) -> None:
    answer = request(node.api, "POST", f"/click2dial/calls/{ref}/{name}")
    assert answer.status == 202, answer.body


def assert_parted(agent: PhoneLeg, callee: PhoneLeg) -> None:
    assert silent(callee, AGENT_HZ)
    assert silent(agent, CALLEE_HZ)


@pytest.mark.parametrize(
    ("music", "heard"),
    [
        ("/nonexistent/moh.wav", False),
        ("local_stream://nonexistent", False),
        (f"tone_stream://%(200,0,{MOH_HZ})", True),
        (f"tone_stream://%(10000,0,{MOH_HZ});loops=-1", True),
    ],
)
def test_hold_parts_the_two_whatever_the_music(rig: Rig, redis: RedisServer, music: str, heard: bool) -> None:
    redis.flush()
    config = configuration(rig, redis)
    config["dial"]["hold_music"] = music
    node = Node(config)
    try:
        ref, agent, callee = talk(rig, node)
        act(node, ref, "hold")
        assert_parted(agent, callee)
        callee.digits("**,**")
        assert_parted(agent, callee)
        assert callee.hears(MOH_HZ, within=3.0 if heard else 1.0) is heard
        act(node, ref, "resume")
        assert agent.hears(CALLEE_HZ)
        assert callee.hears(AGENT_HZ)
        callee.hangup()
        ended(redis, ref, "answered", 16, "callee")
    finally:
        node.stop()
