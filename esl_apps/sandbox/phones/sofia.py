"""``sofia/…``: legs from the switch to phones and gateways."""

from __future__ import annotations

from urllib.parse import unquote

from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.leg.state import State
from esl_apps.sandbox.phones.gateway import Gateway
from esl_apps.sandbox.phones.phone import DEAD_PORT, Dialog, Exchange, Phone
from esl_apps.sandbox.phones.script import Script
from esl_apps.sandbox.wire import causes


def dial(
    switch: Exchange, data: str, uuid: str, profile: CallerProfile, caller: Channel | None
) -> tuple[Channel | None, str]:
    """Create a leg to a phone or a gateway without starting it; None and a cause if that fails."""
    profile_name, _, dest = data.partition("/")
    gateway: Gateway | None = None
    phone: Phone | None = None
    script: Script | None = None
    if profile_name == "gateway":
        name, slash, dest = dest.partition("/")
        if not slash:
            return None, "INVALID_URL"
        gateway = switch.gateways.get(name)
        if gateway is None:
            return None, "INVALID_GATEWAY"
        if gateway.down:
            return None, "GATEWAY_DOWN"
        number = dest.split("@")[0].split(";")[0]
        phone = switch.outside.get(number)
        script = phone.script if phone else switch.default_script(number)
        if gateway.silent:
            phone, script = None, Script(silent=True)
        if gateway.fails:
            script = Script(reject=causes.to_sip(gateway.fails), answer_after=None)
            script.reason = f"Q.850;cause={causes.q850(gateway.fails)}"
        channel_name, used = f"sofia/external/{dest}", "external"
        destination = f"sip:{dest}@127.0.0.1:5090"
    else:
        if profile_name not in ("internal", "external", switch.domain):
            return None, "INVALID_PROFILE"
        address = dest.removeprefix("sip:")
        number = address.split("@")[0].split(";")[0].split("%")[0]
        phone = switch.extensions.get(number)
        if ("@" not in address or "%" in address) and (phone is None or not phone.registrations):
            return None, "USER_NOT_REGISTERED"
        phone = phone or switch.outside.get(number)
        script = phone.script if phone else switch.default_script(number)
        if f":{DEAD_PORT};" in address:
            phone, script = None, Script(unreachable=True)
        used = "external" if profile_name == "external" else "internal"
        channel_name = f"sofia/{used}/{address.split(';')[0]}"
        destination = f"sip:{address}"
    if script is None:
        script = Script(reject=404, answer_after=None)
    dialog = Dialog(switch, phone, script, "in", number)
    if profile.destination_number != number:
        profile.destination_number = number
    if caller is None:
        profile.source = "src/switch_ivr_originate.c"
        profile.dialplan = ""
    profile.touch()
    leg = Channel(switch, uuid, channel_name, "outbound", profile, dialog)
    dialog.channel = leg
    for name, value in (
        ("direction", "outbound"),
        ("is_outbound", "true"),
        ("uuid", uuid),
        ("call_uuid", "" if caller else uuid),
        ("session_id", str(leg.session_id)),
        ("sip_gateway_name", gateway.name if gateway else ""),
        ("sip_local_network_addr", "127.0.0.1"),
        ("sip_profile_name", "gateway" if gateway else used),
        ("video_media_flow", "disabled"),
        ("text_media_flow", "disabled"),
        ("channel_name", channel_name),
        ("sip_destination_url", destination),
    ):
        leg.set(name, value)
    if caller is not None and (caller.get("sip_copy_custom_headers") or "").lower() != "false":
        for name, value in caller.variables():
            if name.startswith("sip_h_"):
                leg.set(name, value)
    return leg, "SUCCESS"


def unborn(switch: Exchange, profile: CallerProfile) -> None:
    """Fire the two events of a leg that sofia gave up while creating it."""
    if switch.bus.wanted("CHANNEL_DESTROY") or switch.bus.wanted("CHANNEL_STATE"):
        leg = Channel(switch, switch.make_uuid(), "N/A", "outbound", profile, Dialog(switch, None, Script(), "in", ""))
        leg.running_state = State.NONE
        leg.bare = True
        for name, value in (
            ("direction", "outbound"),
            ("is_outbound", "true"),
            ("uuid", leg.uuid),
            ("call_uuid", leg.uuid),
            ("session_id", str(leg.session_id)),
        ):
            leg.set(name, value)
        leg.fire("CHANNEL_DESTROY")
        leg.run_state(State.DESTROY)


def _decoded(name: str) -> str:
    """Cut a display name as the switch does, then decode it as mod_sofia does, which keeps what is between quotes."""
    name = unquote(name.rpartition(":")[2].partition("@")[0])
    if '"' in name:
        name = name.partition('"')[2].rpartition('"')[0] or name.partition('"')[2]
    return name


def invite(switch: Exchange, leg: Channel, dialog: Dialog) -> None:
    """Send the INVITE: set the leg's variables and the phone's view of it."""
    profile = leg.profile
    for name, value in (
        ("rtp_use_codec_string", "PCMU,PCMA"),
        ("local_media_ip", "127.0.0.1"),
        ("local_media_port", "16384"),
        ("advertised_media_ip", "127.0.0.1"),
        ("audio_media_flow", "sendrecv"),
        ("rtp_local_sdp_str", "v=0\r\n"),
        ("sip_outgoing_contact_uri", "<sip:mod_sofia@127.0.0.1:5060>"),
        ("sip_req_uri", (leg.get("sip_destination_url") or "").removeprefix("sip:")),
        ("sip_to_host", "127.0.0.1"),
        ("sip_from_host", "127.0.0.1"),
    ):
        leg.set(name, value)
    used = leg.name.split("/")[1]
    for name in ("sofia_profile_name", "recovery_profile_name"):
        leg.set(name, used)
    leg.set("sofia_profile_url", "sip:mod_sofia@127.0.0.1:5060")
    hidden = profile.hide_number
    number = profile.caller_id_number
    shown = dialog.leg
    # From has the number even if it is withheld, as on a real switch with a stock gateway.
    shown.caller_number = number
    shown.caller_name = _decoded(profile.caller_id_name)
    display = f'"{shown.caller_name}" ' if shown.caller_name else ""
    headers: dict[str, list[str]] = {
        "from": [f"{display}<sip:{shown.caller_number}@127.0.0.1>"],
        "to": [f"<sip:{shown.number}@127.0.0.1>"],
        "call-id": [leg.uuid.replace("-", "")],
        "x-fs-support": ["update_display,send_info"],
    }
    privacy = "full" if hidden else "name" if profile.hide_name else "off"
    screen = "yes" if profile.screen else "no"
    kind = (leg.get("sip_cid_type") or "rpid").lower()
    if kind == "pid":
        headers["p-asserted-identity"] = [f"{display}<sip:{number}@127.0.0.1>"]
        if hidden:
            headers["privacy"] = ["id"]
    elif kind != "none":
        headers["remote-party-id"] = [
            f"{display}<sip:{number}@127.0.0.1>;party=calling;screen={screen};privacy={privacy}"
        ]
    for name, value in leg.variables():
        if name.lower().startswith("sip_h_"):
            headers.setdefault(name[6:].rstrip(" ").lower(), []).append(value)
    shown.headers = headers
    switch.call_began(dialog)
    if dialog.phone is not None:
        dialog.phone.note(dialog)
    else:
        switch.stray_calls.append(dialog)
        del switch.stray_calls[:-100]
