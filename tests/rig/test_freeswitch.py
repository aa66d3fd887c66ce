"""The real-switch rig does what base.py promises, shown with plain dialplan and without esl_apps."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ON_FREESWITCH
from tests.rig.base import Rig, Script, eventually
from tests.rig.event_socket import EslClient
from tests.rig.freeswitch import ESL_PASSWORD, FreeswitchRig
from tests.rig.fs_configuration import MOH_HZ, UNAVAILABLE_HZ, extension
from tests.rig.phones import RigLeg
from tests.rig.pjsip_limits import MAX_CALLS
from tests.rig.tones import tone_timeline, tones
from tests.support.ports import free_ports

pytestmark = ON_FREESWITCH


@pytest.fixture(scope="module")
def shared() -> Iterator[FreeswitchRig]:
    rig = FreeswitchRig()
    yield rig
    rig.close()


@pytest.fixture
def rig(shared: FreeswitchRig) -> Iterator[FreeswitchRig]:
    yield shared
    shared.reset()


def answered(leg: RigLeg, within: float = 30.0) -> None:
    eventually(lambda: leg.leg.answered_at, within, f"not answered: {leg}")


def ended(leg: RigLeg, within: float = 30.0) -> None:
    eventually(lambda: leg.leg.ended_at, within, f"not ended: {leg}")


def heard_unavailable(leg: RigLeg) -> bool:
    """Look into the recording: the tone lasts 1.5 s and may be over before a busy machine starts to listen."""
    return any(present for _, present in tones(leg.recording, UNAVAILABLE_HZ))


def first_call(phone: object, within: float = 30.0) -> RigLeg:
    eventually(lambda: phone.calls, within, "no call came")  # type: ignore[attr-defined]
    return phone.calls[0]  # type: ignore[attr-defined, no-any-return]


def test_is_a_rig(rig: FreeswitchRig) -> None:
    promised = {name for name in vars(Rig) if not name.startswith("_")} | set(Rig.__annotations__)
    assert all(hasattr(rig, name) for name in promised)
    assert rig.name == "freeswitch"
    assert rig.api("status").startswith("UP ")
    assert rig.api("module_exists mod_json_cdr") == "true"


def test_loads_without_a_complaint(rig: FreeswitchRig) -> None:
    text = rig.log_text(all_of_it=True)
    bad = [line for line in text.splitlines() if "[ERR]" in line or "[CRIT]" in line]
    assert not bad


def test_two_extensions_hear_each_other(rig: FreeswitchRig) -> None:
    alice, bob = rig.phone("1000", Script(tone=700)), rig.phone("1001", Script(tone=900, answer_after=0.3))
    out = alice.dial("1001")
    answered(out)
    came = first_call(bob)
    assert out.hears(900)
    assert came.hears(700)
    assert not out.hears(700, within=0.3)
    assert (came.leg.caller_number, came.leg.caller_name) == ("1000", "Extension 1000")
    assert came.leg.number == "1001"
    assert 0.28 < came.leg.answered_after < 5
    assert rig.live_channels() == 2
    out.hangup()
    ended(came)
    assert (out.leg.ended_by, came.leg.ended_by) == ("phone", "far")
    assert (out.leg.status, came.leg.status) == (200, 200)
    eventually(lambda: rig.live_channels() == 0)
    eventually(lambda: len(list(rig.spool.iterdir())) == 2)


def test_phone_frees_an_ended_call_without_ending_another(rig: FreeswitchRig) -> None:
    alice, bob = rig.phone("1000", Script(tone=700)), rig.phone("1001", Script(tone=900))
    for _ in range(MAX_CALLS):  # PJSIP's numbers of calls begin again
        out = alice.dial("1001")
        assert out.hears(900)
        assert bob.calls[-1].hears(700)
        out.hangup()
        ended(out)
    out = alice.dial("1001")
    assert out.hears(900)
    came = bob.calls[-1]
    for leg in (out, came):
        leg.bank.ask("collect")
    assert (out.hears(900), came.hears(700)) == (True, True)


def test_recording_of_what_a_phone_heard(rig: FreeswitchRig) -> None:
    alice = rig.phone("1000")
    rig.phone("1001", Script(tone=900, answer_after=1.0, hangup_after=1.0))
    out = alice.dial("1001")
    ended(out)
    line = tone_timeline(out.recording, [440, 480, 900])
    heard = [hz for _, hz in line]
    assert {440, 480} in heard
    assert heard[-1] <= {900}
    start = next(at for at, hz in line if hz == {900})
    assert abs(out.recorded_at + start - out.leg.answered_at) < 0.25  # type: ignore[operator]


def test_switch_recording_has_its_sides(rig: FreeswitchRig) -> None:
    path = rig.recordings / "sides.wav"
    rig.extension(
        "default",
        "7001",
        [
            ("set", "RECORD_STEREO=true"),
            ("record_session", str(path)),
            ("bridge", rig.dial["extension"].format(number="1001")),  # type: ignore[attr-defined]
        ],
    )
    alice = rig.phone("1000", Script(tone=700, hangup_after=1.0))
    rig.phone("1001", Script(tone=900))
    out = alice.dial("7001")
    ended(out)
    eventually(lambda: rig.live_channels() == 0)

    def sides() -> list[set[int]]:
        return [{hz for hz in (700, 900) if any(there for _, there in tones(path, hz, ch))} for ch in (0, 1)]

    # The switch may still write the file when the call has gone.
    eventually(lambda: sides() == [{700}, {900}], 5.0, f"700 Hz left and 900 Hz right, not {sides()}")


@pytest.mark.parametrize("status", [486, 603, 404, 480])
def test_refusal(rig: FreeswitchRig, status: int) -> None:
    alice, bob = rig.phone("1000"), rig.phone("1001", Script(answer_after=0.1, reject=status))
    out = alice.dial("1001")
    ended(out)
    ended(first_call(bob))
    assert bob.calls[0].leg.status == status
    assert bob.calls[0].leg.ended_by == "phone"
    assert bob.calls[0].leg.ringing_at
    assert (out.leg.answered_at, out.leg.ended_by) == (None, "far")
    assert "reason" in out.leg.headers


def test_refusal_at_once(rig: FreeswitchRig) -> None:
    bob = rig.phone("1001", Script(answer_after=None, reject=486))
    ended(rig.phone("1000").dial("1001"))
    came = first_call(bob)
    ended(came)
    assert (came.leg.status, came.leg.ringing_at) == (486, None)


def test_no_answer_and_the_caller_gives_up(rig: FreeswitchRig) -> None:
    bob = rig.phone("1001", Script(answer_after=None))
    out = rig.phone("1000").dial("1001")
    came = first_call(bob)
    eventually(lambda: came.leg.ringing_at)
    out.hangup()
    ended(came)
    ended(out)
    assert (came.leg.status, came.leg.ended_by) == (487, "far")
    assert (out.leg.status, out.leg.ended_by) == (487, "phone")


def test_silent_phone_sends_no_180(rig: FreeswitchRig) -> None:
    bob = rig.outside("27820001111", Script(ring_after=None, answer_after=0.5))
    rig.extension("default", "27820001111", [("bridge", "sofia/gateway/pstn/27820001111")])
    out = rig.phone("1000").dial("27820001111")
    answered(out)
    assert (out.leg.ringing_at, bob.calls[0].leg.ringing_at) == (None, None)


def test_early_media(rig: FreeswitchRig) -> None:
    bob = rig.outside("27820001111", Script(early_media=True, tone=900, answer_after=None))
    rig.extension("default", "27820001111", [("bridge", "sofia/gateway/pstn/27820001111")])
    out = rig.phone("1000").dial("27820001111")
    assert out.hears(900)
    assert out.leg.early_media_at
    assert not out.leg.answered_at
    assert bob.calls[0].leg.early_media_at
    assert not bob.calls[0].leg.ringing_at
    bob.calls[0].answer()
    answered(out)


def test_redirect(rig: FreeswitchRig) -> None:
    bob = rig.outside("27820001111", Script(reject=302, redirect="27820009999"))
    target = rig.outside("27820009999", Script(tone=900))
    rig.extension("default", "27820001111", [("bridge", "sofia/gateway/pstn/27820001111")])
    rig.extension("default", "27820009999", [("bridge", "sofia/gateway/pstn/27820009999")])
    rig.phone("1000").dial("27820001111")
    ended(first_call(bob))
    assert bob.calls[0].leg.status == 302
    first_call(target)


def test_outside_call_in_and_its_headers(rig: FreeswitchRig) -> None:
    alice = rig.phone("1000", Script(tone=700))
    far = rig.outside("27820001111", Script(tone=900))
    out = far.dial("1000", {"X-Test": "one two", "P-Asserted-Identity": "<sip:27829999999@127.0.0.1>"})
    answered(out)
    came = first_call(alice)
    assert out.hears(700)
    assert came.hears(900)
    # FreeSWITCH believes any caller's P-Asserted-Identity: hazard 30
    assert came.leg.caller_number == "27829999999"


def test_outside_call_out_shows_the_number(rig: FreeswitchRig) -> None:
    far = rig.outside("+27820001111", Script(tone=900))
    rig.extension(
        "default",
        "9000",
        [
            ("set", "effective_caller_id_number=27115550000"),
            ("set", "effective_caller_id_name=Acme"),
            ("bridge", "{sip_h_X-Mine=1}sofia/gateway/pstn/+27820001111"),
        ],
    )
    out = rig.phone("1000", Script(tone=700)).dial("9000")
    answered(out)
    leg = first_call(far).leg
    assert (leg.number, leg.caller_number, leg.caller_name) == ("+27820001111", "27115550000", "Acme")
    assert leg.headers["x-mine"] == ["1"]
    assert f"@127.0.0.1:{rig.trunk.ports[0]}" in leg.headers[":start"][0]
    assert far.calls[0].hears(700)
    far.calls[0].hangup()
    ended(out)
    assert (out.leg.ended_by, far.calls[0].leg.ended_by) == ("far", "phone")


def test_second_gateway_dead_gateway_and_a_stranger(rig: FreeswitchRig) -> None:
    rig.outside("27820001111")
    either = "sofia/gateway/dead/27820001111|sofia/gateway/pstn2/27820001111"
    rig.extension("default", "9001", [("bridge", either)])
    rig.extension("default", "9002", [("bridge", "sofia/gateway/pstn/27820002222")])
    phone = rig.phone("1000")
    out = phone.dial("9001")
    answered(out)
    leg = rig.outsiders["27820001111"].calls[0].leg
    assert f"@127.0.0.1:{rig.trunk.ports[1]}" in leg.headers[":start"][0]
    out = phone.dial("9002")
    ended(out)
    assert [call.leg.number for call in rig.stray_calls] == ["27820002222"]
    assert rig.stray_calls[0].leg.status == 404


@pytest.mark.parametrize("method", ["rfc2833", "info", "inband"])
def test_digits(rig: FreeswitchRig, method: str) -> None:
    actions = [("answer", ""), *([("start_dtmf", "")] if method == "inband" else []), ("park", "")]
    rig.extension("default", "7002", actions)
    tap = rig.listen_events("DTMF CHANNEL_PARK")
    out = rig.phone("1000").dial("7002")
    eventually(lambda: tap.events)  # parked, so the tone detector has started
    out.digits("0123456789*#,4", method)
    eventually(lambda: "".join(e.get("DTMF-Digit", "") for e in tap.events) == "0123456789*#4", 6, "digits")


def test_digits_of_the_script(rig: FreeswitchRig) -> None:
    rig.extension("public", "27115550000", [("answer", ""), ("park", "")])
    tap = rig.listen_events("DTMF")
    rig.outside("27820001111", Script(digits="1,2", digits_after=0.2)).dial("27115550000")
    eventually(lambda: [e["DTMF-Digit"] for e in tap.events] == ["1", "2"])
    first, second = (int(e["Event-Date-Timestamp"]) for e in tap.events)
    assert 0.5e6 < second - first < 10e6


def test_hold_and_back(rig: FreeswitchRig) -> None:
    alice, bob = rig.phone("1000", Script(tone=700)), rig.phone("1001", Script(tone=900))
    out = alice.dial("1001")
    answered(out)
    came = first_call(bob)
    assert came.hears(700)
    tap = rig.listen_events("CHANNEL_HOLD CHANNEL_UNHOLD")
    out.hold()
    assert came.hears(MOH_HZ)
    assert not came.hears(700, within=0.3)
    out.unhold()
    assert came.hears(700)
    assert out.hears(900)
    eventually(lambda: [e["Event-Name"] for e in tap.events] == ["CHANNEL_HOLD", "CHANNEL_UNHOLD"])


def test_two_registrations_ring_and_one_answers(rig: FreeswitchRig) -> None:
    bob = rig.phone("1002", Script(answer_after=0.4), registrations=2)
    out = rig.phone("1000").dial("1002")
    eventually(lambda: len(bob.calls) == 2)
    answered(out)
    eventually(lambda: any(call.leg.ended_at for call in bob.calls))  # the slower one is cancelled
    assert rig.live_channels() == 2
    assert abs(bob.calls[0].leg.started_at - bob.calls[1].leg.started_at) < 0.1
    bob = rig.phone("1002")
    rig.phone("1000").dial("1002")
    eventually(lambda: bob.calls)
    time.sleep(0.2)
    assert len(bob.calls) == 1


def test_unregistered_and_new_extensions(rig: FreeswitchRig) -> None:
    phone = rig.phone("234")
    assert "sip:234@" in rig.api("sofia_contact */234@127.0.0.1")
    phone.unregister()
    assert rig.api("sofia_contact */234@127.0.0.1").strip() == "error/user_not_registered"
    rig.phone("234")
    assert "sip:234@" in rig.api("sofia_contact */234@127.0.0.1")


def test_refusal_headers_more_than_once(rig: FreeswitchRig) -> None:
    rig.extension(
        "default",
        "7003",
        [
            ("set", "sip_rh_X-Teleforge-Error=callee: bad"),
            ("set", "sip_rh_X-Teleforge-Error =agent: bad"),
            ("respond", "400 Bad Request"),
        ],
    )
    out = rig.phone("1000").dial("7003", {"X-Teleforge-Outbound-ID": "27115550000"})
    ended(out)
    assert out.leg.status == 400
    assert sorted(out.leg.headers["x-teleforge-error"]) == ["agent: bad", "callee: bad"]


def test_more_calls_than_one_endpoint_holds(rig: FreeswitchRig) -> None:
    rig.extension("public", "27115550000", [("answer", ""), ("playback", f"tone_stream://%(20000,0,{MOH_HZ})")])
    callers = [rig.outside(f"2782000{n:04}") for n in range(12)]
    legs = [caller.dial("27115550000") for caller in callers]
    for leg in legs:
        answered(leg)
    assert rig.live_channels() == 12
    assert all(leg.hears(MOH_HZ) for leg in legs)


def test_many_calls_through_the_gateway_at_once(rig: FreeswitchRig) -> None:
    far = rig.outside("27820001111", Script(tone=900))
    for _ in range(12):
        reply = rig.api("bgapi originate sofia/gateway/pstn/27820001111 &park")
        assert reply.startswith("+OK")
    eventually(lambda: sum(call.leg.answered_at is not None for call in far.calls) == 12, 5, "calls lost")


def test_call_given_up_before_the_gateway_answers(rig: FreeswitchRig) -> None:
    far = rig.outside("27820001111", Script(answer_after=None))
    rig.extension("default", "27820001111", [("bridge", "sofia/gateway/pstn/27820001111")])
    out = rig.phone("1000").dial("27820001111")
    came = first_call(far)
    eventually(lambda: out.leg.ringing_at)
    out.hangup()
    ended(came)
    assert (came.leg.status, came.leg.ended_by) == (487, "far")


def test_from_as_a_stranger_writes_it(rig: FreeswitchRig) -> None:
    rig.extension("public", "27115550000", [("answer", ""), ("park", "")])
    tap = rig.listen_events("CHANNEL_PARK")
    rig.outside("27820001111").dial(
        "27115550000", from_uri='"Eve" <sip:27820001234%0ACaller-Caller-ID-Number%3A%2027999999999@127.0.0.1>'
    )
    eventually(lambda: tap.events)
    assert "Caller-Caller-ID-Number: 27999999999" in tap.events[0]["variable_sip_from_user"]


def test_call_written_by_hand(rig: FreeswitchRig) -> None:
    rig.extension("public", "27115550000", [("answer", ""), ("park", "")])
    tap = rig.listen_events("CHANNEL_PARK")
    call = rig.raw_call(
        "27115550000",
        [("X-A", "a%0Avariable_digits: 6666"), ("X-Twice", "1"), ("X-Twice", "2")],
        sender="<sip:27%0a82@127.0.0.1>",
    )
    assert call.wait() == 200
    eventually(lambda: tap.events)
    # an upper-case escape written by the caller passes unchanged: hazard 1
    assert b"\nvariable_sip_h_X-A: a%0Avariable_digits%3A%206666\n" in tap.raw
    assert b"\nvariable_sip_h_X-Twice: 1\n" in tap.raw
    assert b"\nvariable_sip_h_X-Twice-1: 2\n" in tap.raw
    call.hangup()
    eventually(lambda: rig.live_channels() == 0)
    refused = rig.raw_call("nobody", [], sender="<sip:1@127.0.0.1>")
    assert refused.wait() in (404, 480)
    refused.hangup()


def test_route_to_a_node_that_is_not_there(rig: FreeswitchRig) -> None:
    rig.route("27115550000", "/dialthrough", f"127.0.0.1:{free_ports(1)}")
    out = rig.outside("27820001111").dial("27115550000")
    ended(out)
    assert heard_unavailable(out)
    assert not out.leg.answered_at
    assert out.leg.status == 503


def test_route_to_a_node(rig: FreeswitchRig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as node:
        node.settimeout(5)
        rig.route("27115550000", "/disa/acme/front", f"127.0.0.1:{node.getsockname()[1]}")
        out = rig.outside("27820001111").dial("27115550000")
        call, _ = node.accept()
        with call, call.makefile("rb") as frames:
            call.settimeout(5)
            call.sendall(b"connect\n\n")
            head = b"".join(iter(frames.readline, b"\n"))
            assert b"variable_socket_path: disa%2Facme%2Ffront" in head or b"disa/acme/front" in head
            call.sendall(b"sendmsg\ncall-command: hangup\nhangup-cause: USER_BUSY\n\n")
            ended(out)
        assert out.leg.status == 486


def test_routes_are_forgotten(rig: FreeswitchRig) -> None:
    rig.route("27115550000", "/dialthrough", "127.0.0.1:1")
    rig.reset()
    out = rig.outside("27820001111").dial("27115550000")
    ended(out)
    assert out.leg.status in (404, 480)


def test_killed_and_started_again(rig: FreeswitchRig) -> None:
    alice, bob = rig.phone("1000"), rig.phone("1001")
    out = alice.dial("1001")
    answered(out)
    rig.kill()
    with pytest.raises(OSError):
        rig.api("status")
    rig.start()
    assert rig.live_channels() == 0
    before = len(bob.calls)
    answered(alice.dial("1001"))
    assert len(bob.calls) == before + 1


def test_paused_and_resumed(rig: FreeswitchRig) -> None:
    rig.pause()
    out = rig.outside("27820001111").dial("27115559999")
    told: list[str] = []
    asking = threading.Thread(target=lambda: told.append(rig.api("status")))
    asking.start()
    asking.join(0.3)
    assert not told
    rig.resume()
    asking.join(5)
    assert told
    ended(out)  # the number doesn't exist there, so the switch took the call back
    assert out.leg.status in (404, 480)


def test_dropped_sockets(rig: FreeswitchRig) -> None:
    client = EslClient(rig.esl_port, ESL_PASSWORD, 5)
    with socket.create_server(("127.0.0.1", 0)) as node:
        node.settimeout(5)
        rig.route("27115550000", "/disa", f"127.0.0.1:{node.getsockname()[1]}")
        out = rig.outside("27820001111").dial("27115550000")
        call, _ = node.accept()
        with call:
            call.settimeout(5)
            call.sendall(b"connect\n\n")
            call.recv(65536)
            rig.drop_sockets()
            with pytest.raises(ConnectionError):
                client.read()
            while call.recv(65536):
                pass
        # the dialplan goes on when the node is lost
        ended(out)
        assert heard_unavailable(out)
    client.close()
    assert rig.api("status").startswith("UP ")


def test_reset_ends_calls_and_forgets_phones(rig: FreeswitchRig) -> None:
    alice = rig.phone("1000")
    rig.phone("1001")
    answered(alice.dial("1001"))
    rig.route("27115550000", "/x", "127.0.0.1:1")
    rig.reset()
    assert (rig.live_channels(), rig.phone("1001").calls) == (0, [])
    assert not list(rig.spool.iterdir())


def test_log_is_at_debug_level(rig: FreeswitchRig) -> None:
    rig.api("log debug a-mark-of-the-test")
    eventually(lambda: "a-mark-of-the-test" in rig.log_text())
    rig.reset()
    assert "a-mark-of-the-test" not in rig.log_text()


def test_files_dropped_in(tmp_path: Path) -> None:
    dialplan = tmp_path / "00_mine_public.xml"
    # FreeSWITCH drops the rest of a line that holds <include>
    dialplan.write_text(f"<include>\n{extension('mine', '7009', [('respond', '486 Mine')])}\n</include>\n")
    conf = tmp_path / "json_cdr.conf.xml"
    conf.write_text(
        '<configuration name="json_cdr.conf"><settings><param name="log-dir" value="/nowhere"/>'
        '<param name="encode-values" value="false"/></settings></configuration>'
    )
    # next to the shared one, so two switches can run at once
    with FreeswitchRig(dialplan_files=[dialplan], conf_files=[conf]) as rig:
        out = rig.outside("27820001111").dial("7009")
        ended(out)
        assert out.leg.status == 486
        eventually(lambda: list(rig.spool.iterdir()))
        out = rig.phone("1000").dial("7009")  # the other context
        ended(out)
        assert out.leg.status != 486


def test_folder_goes_with_the_rig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESL_APPS_KEEP_RIG", raising=False)
    rig = FreeswitchRig(start=False)
    assert rig.folder.is_dir()
    rig.close()
    assert not rig.folder.exists()
