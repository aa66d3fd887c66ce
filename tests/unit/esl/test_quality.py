"""A leg's last event says how it sounded. The numbers are those of a real FreeSWITCH 1.10."""

from __future__ import annotations

import pytest

from esl_apps.core.quality import LegQuality
from esl_apps.esl.quality import quality_of

UUID = "6f3a5ecc-1353-40ff-9f0e-91e2cc5f02f9"
LEG = {
    "direction": "outbound",
    "sip_gateway_name": "pstn",
    "sip_call_id": "969e3e8e-66be-1240-38a0-caf922039bc8",
    "read_codec": "PCMU",
    "read_rate": "8000",
    "sip_term_status": "200",
}
STATISTICS = {
    "in_raw_bytes": "33884",
    "in_packet_count": "197",
    "in_jitter_max_variance": "6.25",
    "in_jitter_loss_rate": "0.02",
    "in_mos": "4.40",
    "out_packet_count": "195",
    "rtcp_octet_count": "0",
}


def block(variables: dict[str, str], statistics: dict[str, str] | None = None) -> bytes:
    lines = ["Event-Name: CHANNEL_HANGUP_COMPLETE", f"Unique-ID: {UUID}"]
    lines += [f"variable_{name}: {value}" for name, value in variables.items()]
    lines += [f"variable_rtp_audio_{name}: {value}" for name, value in (statistics or {}).items()]
    return "\n".join(lines).encode() + b"\n"


def test_quality_has_what_the_switch_says() -> None:
    assert quality_of(block(LEG, STATISTICS), UUID, 1.23456, answered=True) == LegQuality(
        leg=UUID,
        sip_call_id="969e3e8e-66be-1240-38a0-caf922039bc8",
        sip_status=200,
        gateway="pstn",
        codec="PCMU/8000",
        post_dial_delay=1.235,
        packets_in=197,
        packets_out=195,
        mos=4.4,
        loss=0.02,
        jitter=2.5,
    )


def test_phone_that_was_not_heard_has_no_score() -> None:
    """The switch says 4.5 of a leg without a packet."""
    quality = quality_of(block(LEG, {**STATISTICS, "in_packet_count": "0"}), UUID, None, answered=True)
    assert (quality.packets_in, quality.packets_out, quality.mos, quality.loss) == (0, 195, None, None)


def test_refused_leg_has_its_status_and_no_sound() -> None:
    quality = quality_of(block({**LEG, "sip_term_status": "486"}), UUID, 0.5, answered=False)
    assert (quality.sip_status, quality.codec, quality.packets_in, quality.mos) == (486, None, None, None)


def test_answered_leg_that_the_switch_ended_has_200() -> None:
    variables = {name: value for name, value in LEG.items() if name != "sip_term_status"}
    assert quality_of(block(variables), UUID, None, answered=True).sip_status == 200
    assert quality_of(block(variables), UUID, None, answered=False).sip_status is None


def test_caller_who_dialled_in_has_no_post_dial_delay() -> None:
    quality = quality_of(block({**LEG, "direction": "inbound"}), UUID, 0.5, answered=True)
    assert (quality.gateway, quality.post_dial_delay) == (None, None)


@pytest.mark.parametrize("call_id", ["a%20b", "x%0A", "%1B[2J", "", "x" * 256, "%C3%A4"])
def test_call_id_that_could_not_be_shown_is_left_out(call_id: str) -> None:
    assert quality_of(block({**LEG, "sip_call_id": call_id}), UUID, None, answered=True).sip_call_id is None


@pytest.mark.parametrize("value", ["", "nan", "-nan", "inf", "1e9", "9" * 400, "4.5x"])
def test_number_that_is_none_is_left_out(value: str) -> None:
    assert quality_of(block(LEG, {**STATISTICS, "in_mos": value}), UUID, None, answered=True).mos is None
