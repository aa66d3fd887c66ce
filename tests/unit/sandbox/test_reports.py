"""The files of a call: recordings, CDRs, and the witness's lines."""

from __future__ import annotations

import contextlib
import itertools
import json
import wave
from pathlib import Path
from typing import Any

import pytest

from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.event_socket import EXTERNAL, Client, Node


def test_recording_has_its_length_and_its_sides(rig: SandboxRig) -> None:
    path = rig.recordings / "call.wav"
    rig.phone("1000", Script(tone=440))
    rig.outside("27820001234", Script(tone=600, hangup_after=1.0))

    def steps(client: Client) -> None:
        client.begin()
        options = f"execute_on_answer='record_session {path}',RECORD_STEREO=true,RECORD_STEREO_SWAP=true"
        client.run("bridge", f"{{{options}}}{EXTERNAL}27820001234")
        client.execute("hangup")

    node = Node(steps)
    rig.api(f"originate {{ignore_early_media=true}}user/1000@127.0.0.1 '&socket({node.address}/x async full)'")
    node.finish()
    eventually(lambda: path.exists() and path.stat().st_size > 1000)
    with wave.open(str(path)) as file:
        assert file.getnchannels() == 2
        assert file.getnframes() / file.getframerate() == pytest.approx(1.0, abs=0.1)
        frames = file.readframes(file.getnframes())
    # The B-leg records with sides swapped, so the agent is on the left.
    samples = memoryview(frames[len(frames) // 2 // 4 * 4 :]).cast("h")
    for side, hz in ((0, 440), (1, 600)):
        one = samples[side::2].tolist()
        crossings = sum(1 for a, b in itertools.pairwise(one) if a < 0 <= b)
        assert crossings / (len(one) / 8000) == pytest.approx(hz, rel=0.05)


def test_leg_that_ended_leaves_a_cdr(rig: SandboxRig) -> None:
    for file in rig.spool.glob("*"):
        file.unlink()
    rig.outside("27820001234", Script(hangup_after=0.1))
    uuid = rig.api("originate {esl_call_ref=r-1}" + EXTERNAL + "27820001234 &park()").split()[1]
    path = rig.spool / f"{uuid}.cdr.json"

    def read() -> dict[str, Any]:
        # It is written in place, as the module does, so it exists before it is complete.
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return dict(json.loads(path.read_text()))
        return {}

    eventually(read)
    document = read()
    assert document["variables"]["esl_call_ref"] == "r-1"
    assert document["variables"]["hangup_cause"] == "NORMAL_CLEARING"
    assert document["channel_data"]["state"] == "CS_REPORTING"
    assert document["callflow"][0]["times"]["answered_time"] != "0"


def test_lingering_leg_is_reported_once_when_the_switch_dies(
    tmp_path: Path,
) -> None:
    legs = tmp_path / "legs"
    with SandboxRig(tick=0, arguments=[f"--legs={legs}"]) as rig:
        node = Node()
        rig.route("27115550000", "x", node.address)
        caller = rig.outside("27831112222").dial("27115550000")
        client = node.accept()
        client.begin()
        client.run("answer")
        ringing = rig.outside("27820001234", Script(answer_after=None))
        client.execute("bridge", EXTERNAL + "27820001234")
        eventually(lambda: ringing.calls)
        talking = rig.outside("27831113333").dial("27115550000")
        other = node.accept()
        other.begin()
        other.run("answer")
        caller.hangup()
        eventually(lambda: len(legs.read_text().splitlines()) == 2)
        assert rig.live_channels() == 2
        assert talking.leg.ended_at is None
        rig.kill()
        told = [json.loads(line) for line in legs.read_text().splitlines()]
        assert len({one["uuid"] for one in told}) == 3
        assert [one["killed"] for one in told] == [False, False, True]
        client.close()
        other.close()
