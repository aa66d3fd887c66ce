"""Applications that change variables."""

from __future__ import annotations

from esl_apps.sandbox.applications.registry import application
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.wire import strings


def _assign(channel: Channel, data: str, *, export: bool = False) -> None:
    name, equals, value = data.partition("=")
    if not equals:
        name, value = data, ""
    name = name.lstrip(" ")
    value = channel.expand(value)
    if value == "undef":
        value = ""
    if export:
        nolocal = name.startswith("nolocal:")
        if name.startswith("_nolocal_"):
            nolocal, name = True, name[len("_nolocal_") :]
        exported = [part for part in (channel.get("export_vars") or "").split(",") if part]
        if name not in exported:
            channel.set("export_vars", ",".join([*exported, name]))
        if nolocal and name.startswith("nolocal:"):
            name = name[len("nolocal:") :]
    channel.set(name, value)


@application("set", zombie=True, quick=True)
def set_(channel: Channel, data: str) -> None:
    """Set ``name=value``."""
    _assign(channel, data)


@application("multiset", zombie=True, quick=True)
def multiset(channel: Channel, data: str) -> None:
    """Set several: ``a=1 b=2``, or ``^^;a=1;b=2`` with another separator."""
    separator = " "
    if data.startswith("^^") and len(data) > 2:
        separator, data = data[2], data[3:]
    for pair in strings.separate(data, separator):
        if pair:
            _assign(channel, pair)


@application("export", zombie=True, quick=True)
def export(channel: Channel, data: str) -> None:
    """Set ``name=value`` for this leg and those that it dials."""
    _assign(channel, data, export=True)


@application("unset", zombie=True, quick=True)
def unset(channel: Channel, data: str) -> None:
    """Remove a variable."""
    channel.set(data.strip(), None)


@application("multiunset", zombie=True, quick=True)
def multiunset(channel: Channel, data: str) -> None:
    """Remove several variables."""
    for name in data.split(" "):
        channel.set(name, None)


@application("set_profile_var", zombie=True, quick=True)
def set_profile_var(channel: Channel, data: str) -> None:
    """Change the caller profile: ``caller_id_number=…``."""
    name, _, value = data.partition("=")
    if isinstance(getattr(channel.profile, name.strip(), None), str):
        setattr(channel.profile, name.strip(), value)
        channel.profile.touch()


@application("set_user", quick=True)
def set_user(channel: Channel, data: str) -> None:
    """Set a user's variables from the directory."""
    user = data.split("@", maxsplit=1)[0]
    for name, value in channel.switch.user_variables(user):
        channel.set(name, value)
