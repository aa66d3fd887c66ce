"""The dialplan files with a configuration's numbers in them.

``render`` takes the configuration as the plain dict that its YAML is, and returns ``{file name: text}``. The files in
``dialplan/`` are its output for ``conf/esl_apps.yml``; a test checks that.

Every value must match a closed alphabet before it reaches a file, so that no expression or argument can hold ``${…}``
or a second argument. It is then escaped for its place in the XML. Any other value raises ``ValueError`` with its key.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import msgspec
import phonenumbers

from esl_apps.apps import APPLICATIONS
from esl_apps.apps.application import Extension
from esl_apps.apps.legs import REFER
from esl_apps.cli import new_files
from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_json
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.core.number_text import NotDialable, plain
from esl_apps.core.terms import IN_PLACE, RESTARTED, SECRET_VARIABLE, WATCHDOG
from esl_apps.node import referring
from esl_apps.node.policy import own_settings
from esl_apps.prompts import PROMPTS as PROMPT_FOLDER

PUBLIC = "00_esl_apps_public.xml"
DEFAULT = "00_esl_apps_default.xml"
PROOF = "00_esl_apps_secret.xml"
TRANSFERS = "00_esl_apps_refer.xml"
PROMPTS = "$${sounds_dir}/esl_apps"
"""The folder of prompts if the configuration names none: one of the switch's own."""

_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?:[0-9]{1,5}")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SECRET = re.compile(r"[A-Za-z0-9._~-]+")
_NUMBER = re.compile(r"\+?[0-9A-Za-z*#._-]{1,32}")
_FOLDER = re.compile(r"(?:\$\$\{[a-z_]+\})?[A-Za-z0-9/._+@=,-]+")
_SIT = "tone_stream://%(330,30,950);%(330,30,1400);%(330,1000,1800)"
"""The three rising tones of a special information signal (ITU-T E.180)."""

_ABOUT_PUBLIC = """
  esl_apps: the numbers that outside callers dial. Install in dialplan/public/ of a stock FreeSWITCH; with this name
  it loads before the stock files there. `esl-apps dialplan -c FILE` makes it with your numbers.

  No caller is left in silence. Each extension
    1. sets a watchdog. Otherwise a node that accepts the connection but does not answer (stopped, overloaded) would
       hold the caller for ever. The node's first command, `api sched_del UUID`, cancels the watchdog.
    2. connects to the nodes of its list in turn (a|b|c): FreeSWITCH tries the next one if one refuses. List every
       node, the nearest first. For a machine that does not answer at all it waits as long as the kernel does, in
       spite of the watchdog: see conf/freeswitch/90-esl_apps.sysctl.conf.
    3. goes to esl_apps_unavailable if no node took the call, or if its node died.

  The expressions end in $(?!\\n), as $ alone also matches before a newline, which FreeSWITCH makes from %0A.
"""
_ABOUT_DEFAULT = """
  esl_apps: registered phones that dial with X-Teleforge-* headers. Install in dialplan/default/ of a stock
  FreeSWITCH; with this name it loads before the stock files there. The stock default.xml handles 1000 to 1019, 30xx,
  8xx and 9xxx before that folder: for internal click2dial calls to those see conf/freeswitch/README.rst.
  `esl-apps dialplan -c FILE` makes it with your nodes.

  00_esl_apps_public.xml explains the steps of an extension. Here the headers survive a transfer, so
  esl_apps_unavailable comes before the extension that checks them.
"""
_ABOUT_PROOF = """
  esl_apps: node.secret, by which a node knows that a connection is this switch's. Install in dialplan/public/ of
  every switch, readable by FreeSWITCH alone. It sets a global variable, so no channel, CDR or log shows it.
"""
_ABOUT_TRANSFERS = """
  esl_apps: the transfer keys of agents' phones. Install in dialplan/ itself, as default.xml of a stock FreeSWITCH:
  this file has a context of its own. `esl-apps dialplan -c FILE` makes it with your nodes.

  The leg of a customer comes here if their agent's phone sends a REFER, whatever number that names; no other leg does.
  Its node dials if the transfer is allowed. If it isn't, or no node takes the leg, or its node dies, the extension
  ends: then FreeSWITCH tells the phone (403) and joins the two parties again. So put nothing behind it.
"""
_ABOUT_IN_PLACE = """
  For INVITEs with Replaces. If one takes the place of a leg that runs no application yet, FreeSWITCH runs these on the
  sender's channel. Without them it runs whatever application the sender has dialled. Leave them in.
"""
_ABOUT_HANDOVER = """
  The node of this call (it set esl_call_ref) has died. The call is sent to its number again, and so to the remaining
  nodes, with all its variables. This happens twice at most: at once, then after the time that a node takes to
  restart. Without it, a caller who has been answered would be stranded here.
"""
_ABOUT_REFUSED = """
  For the callback number: no answer, no media, no charge. The caller's network tells them that the call failed.
"""
_ABOUT_UNAVAILABLE = """
  All other calls: a message as early media (or in the call, if it was answered), then cause 41.
"""


def run(config: Config, arguments: argparse.Namespace) -> int:
    # Adds the applications of other packages to the registry, and refuses what their ``extensions`` couldn't read.
    own_settings(config)
    try:
        files = render(msgspec.to_builtins(config), prompts=str(PROMPT_FOLDER))
    except ValueError as error:
        raise ConfigError(str(error), file=arguments.config) from None
    if arguments.output is not None:
        return _write(files, Path(arguments.output))
    if arguments.json:
        print_json(files)
    else:
        for name, text in files.items():
            print(f"<!-- dialplan/{name} -->\n{text}")
    return Exit.OK


def _write(files: Mapping[str, str], folder: Path) -> int:
    """:raises OSError: the folder, or a file in it, can't be written."""
    # Unlike a path's own, these raise for no name, on any Python: writing will say what is wrong with it.
    if os.path.exists(folder) and not os.path.isdir(folder):
        print_error(f"{folder}: is a file; expected a folder")
        return Exit.FAILED
    new_files.write({folder / name: text for name, text in files.items()}, {folder / PROOF: 0o600})
    return Exit.OK


def render(config: Mapping[str, Any], *, watchdog: int = WATCHDOG, prompts: str | None = None) -> dict[str, str]:
    """The files of the dialplan, by name.

    ``prompts``: the folder for ``prompts.dir: null``, as the switch sees it. That is the package's own if the switch is
    on this machine. By default it is ``esl_apps`` in the switch's folder of sounds.
    """
    nodes = _nodes(config)
    message = _message(config, prompts)
    region = str(_section(config, "dial").get("region") or "ZA")
    if isinstance(cccp := _section(config, "cccp"), Mapping) and "default" in cccp:
        config = {**config, "cccp": cccp["default"]}  # as Kazoo keeps it
    taken: dict[str, str] = {}
    public: list[str] = []
    refused: str | None = None

    def did(key: str, *numbers: object) -> str:
        found = [form for number in numbers for form in forms(number, region, key)]
        for form in found:
            if taken.setdefault(form, key) != key:
                raise ValueError(f"{key}: {form} already reaches {taken[form]}")
        return _expression(list(dict.fromkeys(found)))

    default: list[str] = []
    for application in APPLICATIONS.values():
        if application.settings is not None and application.ref not in _section(config, "applications"):
            continue
        for extension in application.extensions(config) if application.extensions else ():
            title, path = _title(extension), "/".join(extension.path)
            if extension.numbers:
                expression = did(extension.key, *extension.numbers)
                public.append(_entry(title, expression, nodes, path, watchdog))
                refused = expression if application.refuses else refused
        if application.headers:
            any_header = "".join(f"${{sip_h_{header}}}" for header in application.headers)
            ring = _actions(nodes, application.path, "default", watchdog)
            default.append(_extension(f"esl_apps_{application.path}", [_condition(any_header, ".", ring)]))
    files = {
        PUBLIC: _file(_ABOUT_PUBLIC, [_in_place(), *_unavailable("public", message, refused), *public]),
        DEFAULT: _file(_ABOUT_DEFAULT, [_in_place(), *_unavailable("default", message, None), *default]),
    }
    files[TRANSFERS] = _transfers(nodes, watchdog)
    secret = _section(config, "node").get("secret")
    if secret is not None:
        files[PROOF] = _file(_ABOUT_PROOF, [_secret(secret)])
    return files


def forms(number: object, region: str, key: str = "number") -> list[str]:
    """Return the forms in which a number may arrive: +E.164, its digits, with 00 or the region's own prefix, and as it
    is dialled within the region, with and without the trunk prefix. A text that isn't a telephone number there is kept,
    and also gets + and 00."""
    text = _plain(number, key)
    digits = text.removeprefix("+")
    found = [text]
    parsed = _parse(text, region)
    if parsed is not None:
        e164 = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
        found += [e164, e164[1:], f"00{e164[1:]}"]
        home = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
        if home is not None and home.country_code == parsed.country_code:
            abroad = home.international_prefix or ""
            if abroad.isdecimal():
                found.append(abroad + e164[1:])
            national = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
            found += [re.sub(r"\D", "", national), phonenumbers.national_significant_number(parsed)]
    elif digits.isdecimal() and len(digits) >= 7:
        found += [f"+{digits}", digits, f"00{digits}"]
    return list(dict.fromkeys(sorted(found, key=lambda form: (form[0] != "+", form))))


def _parse(text: str, region: str) -> phonenumbers.PhoneNumber | None:
    try:
        parsed = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_valid_number(parsed):
        return parsed
    return parsed if text.startswith("+") and phonenumbers.is_possible_number(parsed) else None


def _plain(number: object, key: str) -> str:
    try:
        if ";" not in str(number):
            return plain(str(number))
    except NotDialable:
        pass
    if _NUMBER.fullmatch(str(number)):
        return str(number)
    raise ValueError(f"{key}: not a number: {number!r}")


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, Mapping):
        raise ValueError(f"{name}: expected keys with values")
    return section


def _nodes(config: Mapping[str, Any]) -> list[str]:
    node = _section(config, "node")
    nodes = _section(config, "dialplan").get("nodes") or [node.get("advertise") or node.get("listen")]
    for address in nodes:
        if not isinstance(address, str) or not _NODE.fullmatch(address):
            raise ValueError(f"dialplan.nodes, node.advertise: expected host:port, not {address!r}")
        if address.startswith("0.0.0.0:"):
            raise ValueError(f"node.advertise: no switch can reach {address}; give this machine's address")
    return list(nodes)


def _message(config: Mapping[str, Any], folder: str | None) -> tuple[str, str]:
    """Return the unavailable prompt: a file whose presence is checked, and the file to play."""
    section = _section(config, "prompts")
    folder = section.get("dir") or folder or PROMPTS
    language = section.get("language") or "en"
    for key, value, shape in (("dir", folder, _FOLDER), ("language", language, _NAME)):
        if not isinstance(value, str) or not shape.fullmatch(value):
            raise ValueError(f"prompts.{key}: {value!r} has characters that a dialplan can't hold")
    return f"{folder}/{language}/8000/unavailable.wav", f"{folder}/{language}/unavailable.wav"


def _secret(value: object) -> str:
    """Return the line that sets the secret when the switch reads its configuration."""
    if not isinstance(value, str) or not _SECRET.fullmatch(value):
        raise ValueError("node.secret: has characters that a dialplan can't hold")
    return _global(SECRET_VARIABLE, value)


def _in_place() -> str:
    lines = [_global(name, value) for name, value in IN_PLACE.items()]
    return "\n".join([f"\n  <!--{_comment(_ABOUT_IN_PLACE)}  -->", *lines])


def _global(name: str, value: str) -> str:
    return f'  <X-PRE-PROCESS cmd="set" data="{name}={value}"/>'


def _title(extension: Extension) -> str:
    """``esl_apps_PATH``. :raises ValueError: a part has a character that can't be in a path."""
    for part in extension.path:
        if not _NAME.fullmatch(part):
            raise ValueError(f"{extension.key}: letters, digits and ._- only: {part!r}")
    about = [_plain(extension.about, extension.key)] if extension.about else []
    return "_".join(["esl_apps", *extension.path, *about])


def _expression(found: Sequence[str]) -> str:
    # Behind the number there may be parameters, as of number portability (RFC 4694).
    return f"^(?:{'|'.join(map(_form, found))})(?:;.*)?$(?!\\n)"


def _form(form: str) -> str:
    """Return a form's expression. A global number may have visual separators between its digits (RFC 3966)."""
    # re.escape also escapes `-`, which PCRE accepts.
    return "[-.()]*".join(map(re.escape, form)) if form.startswith("+") else re.escape(form)


Action = tuple[str, str]


def _actions(nodes: Sequence[str], path: str, context: str, watchdog: int) -> list[Action]:
    return [
        ("sched_transfer", f"+{watchdog} esl_apps_unavailable XML {context}"),
        ("socket", f"{'|'.join(f'{node}/{path}' for node in nodes)} async full"),
        ("transfer", f"esl_apps_unavailable XML {context}"),
    ]


def _transfers(nodes: Sequence[str], watchdog: int) -> str:
    """Return the file with the context of agents' transfers."""
    no_more: Action = ("sched_cancel", "")
    sockets = "|".join(f"{node}/{'/'.join(referring.PATH)}" for node in nodes)
    # By the switch's own UUIDs. The first lets the phone's leg outlive the bridge, the second ends it with this leg.
    outlives: Action = ("set", "esl_apps_parting=${uuid_setvar(${signal_bond} hangup_after_bridge false)}")
    ends: Action = ("set", "api_hangup_hook=uuid_kill ${blind_transfer_uuid}")
    actions: list[Action] = [
        ends,
        ("sched_transfer", f"+{watchdog} esl_apps_refused XML {REFER}"),
        ("socket", f"{sockets} async full"),
        no_more,
    ]
    extensions = [
        _extension("esl_apps_parting", [_condition("destination_number", "^esl_apps_parting$", [outlives])]),
        _extension("esl_apps_refused", [_condition("destination_number", "^esl_apps_refused$", [no_more])]),
        _extension(REFER, [_condition("${esl_call_ref}", ".", actions)]),
    ]
    lines = "\n".join(extensions).split("\n")
    indented = "\n".join(f"  {line}" if line else line for line in lines)
    context = f"  <context name={quoteattr(REFER)}>\n{indented}\n  </context>"
    return _file(_ABOUT_TRANSFERS, [context])


def _entry(name: str, expression: str, nodes: Sequence[str], path: str, watchdog: int) -> str:
    actions = _actions(nodes, path, "public", watchdog)
    return _extension(name, [_condition("destination_number", expression, actions)])


def _unavailable(context: str, message: tuple[str, str], refused: str | None) -> Iterator[str]:
    here = _condition("destination_number", "^esl_apps_unavailable$")
    no_more: Action = ("sched_cancel", "")
    hangup: Action = ("hangup", "NORMAL_TEMPORARY_FAILURE")
    seen, played = message
    back = "^([0-9A-Za-z+*#._;=()-]+)$(?!\\n)"
    for nth, (tried, pause) in enumerate((("^$", 0), ("^x$", RESTARTED)), 1):
        actions: list[Action] = [no_more, ("set", "esl_apps_handover=" + "x" * nth)]
        if pause:
            actions.append(("sleep", str(pause)))
        yield _extension(
            f"esl_apps_handover_{nth}",
            [
                here,
                _condition("${esl_call_ref}", "."),
                _condition("${esl_apps_handover}", tried),
                _condition("rdnis", back, [*actions, ("transfer", f"$1 XML {context}")]),
            ],
            about=_ABOUT_HANDOVER if nth == 1 else "",
        )
    if refused is not None:
        yield _extension(
            "esl_apps_unavailable_callback",
            [here, _condition("rdnis", refused, [no_more, hangup])],
            about=_ABOUT_REFUSED,
        )
    sound: Action = ("playback", played)
    tones: Action = ("playback", _SIT)
    yield _extension(
        "esl_apps_unavailable",
        [
            _condition("destination_number", "^esl_apps_unavailable$", [no_more, ("pre_answer", ""), tones]),
            _condition(f"${{file_exists({seen})}}", "^true$", [sound], otherwise=[tones, tones], always=True),
            _condition("", "", [hangup]),
        ],
        about=_ABOUT_UNAVAILABLE,
    )


def _file(about: str, extensions: Sequence[str]) -> str:
    return "\n".join([f"<include>\n  <!--{_comment(about)}  -->", *extensions, "</include>\n"])


def _extension(name: str, conditions: Sequence[str], about: str = "") -> str:
    head = f"\n  <!--{_comment(about)}  -->" if about else ""
    return f"{head}\n  <extension name={quoteattr(name)}>\n{''.join(conditions)}  </extension>"


def _condition(
    field: str,
    expression: str,
    actions: Sequence[Action] = (),
    *,
    otherwise: Sequence[Action] = (),
    always: bool = False,
) -> str:
    head = f" field={quoteattr(field)} expression={quoteattr(expression)}" if field else ""
    if always:
        head += ' break="never"'
    body = "".join(_action("action", action) for action in actions)
    body += "".join(_action("anti-action", action) for action in otherwise)
    return f"    <condition{head}>\n{body}    </condition>\n" if body else f"    <condition{head}/>\n"


def _action(kind: str, action: Action) -> str:
    application, data = action
    argument = f" data={quoteattr(data)}" if data else ""
    return f"      <{kind} application={quoteattr(application)}{argument}/>\n"


def _comment(text: str) -> str:
    return escape(text).replace("--", "- -")
