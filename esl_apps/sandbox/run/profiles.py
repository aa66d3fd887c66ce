"""The caller profiles of legs that are dialled."""

from __future__ import annotations

from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.run.dial_string import number_of


def new_profile(
    outer: CallerProfile | None, caller: Channel | None, variables: dict[str, str], data: str
) -> CallerProfile:
    """Return a new leg's caller profile, from the outer attempt's or the caller's and the dial string's variables."""
    if outer is not None:
        profile = outer.clone()
    elif caller is not None:
        profile = caller.profile.clone()
    else:
        profile = CallerProfile(caller_id_number="0000000000", ani="", context="default", dialplan="XML")
    profile.direction = "outbound"
    profile.logical_direction = "outbound"
    profile.uuid = profile.chan_name = profile.profile_index = profile.transfer_source = ""
    profile.destination_number = data
    if variables.get("origination_caller_id_number"):
        profile.caller_id_number = variables["origination_caller_id_number"]
    elif caller is not None and caller.get("effective_caller_id_number"):
        profile.caller_id_number = caller.get("effective_caller_id_number") or ""
    if "origination_caller_id_name" in variables:
        profile.caller_id_name = variables["origination_caller_id_name"]
    elif caller is not None and caller.get("effective_caller_id_name"):
        profile.caller_id_name = caller.get("effective_caller_id_name") or ""
    if caller is None:
        profile.orig_caller_id_name = profile.caller_id_name
        profile.orig_caller_id_number = profile.caller_id_number
    if not profile.ani:
        profile.ani = profile.caller_id_number
    privacy = variables.get("origination_privacy")
    if privacy is not None:
        profile.screen = "screen" in privacy
        profile.hide_name = "hide_name" in privacy
        profile.hide_number = "hide_number" in privacy
    profile.callee_id_name = variables.get("origination_callee_id_name", "Outbound Call")
    profile.callee_id_number = variables.get("origination_callee_id_number", number_of(data))
    times = profile.times
    for name in vars(times):
        setattr(times, name, 0)
    profile.touch()
    return profile


def other_leg(profile: CallerProfile, logical: str) -> CallerProfile:
    """Return the profile that the other leg shows of this one."""
    clone = profile.clone()
    clone.profile_index = ""
    clone.logical_direction = logical
    return clone
