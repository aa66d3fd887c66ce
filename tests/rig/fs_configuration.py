"""The configuration of a private FreeSWITCH, in the stock layout."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from tests.rig.phones import PASSWORD
from tests.support import ROOT

CONTEXTS = ("public", "default")
#: The file of the context to which agents' phones transfer.
_REFERS = "esl_apps_refer.xml"
MOH_HZ = 333
"""The tone that a held party hears."""
UNAVAILABLE_HZ = 620
"""The tone of the rig's own ``esl_apps_unavailable``, used if no shipped dialplan has one."""
DEAD_PORT = 9
"""The port of the gateway ``dead``. Nothing listens there."""
#: The variables of a stock ``vars.xml`` that the profiles and the dialplan use.
STOCK: dict[str, object] = {
    "rig_dead_port": DEAD_PORT,
    "default_password": PASSWORD,
    "hold_music": f"tone_stream://%(10000,0,{MOH_HZ});loops=-1",
    "global_codec_prefs": "OPUS,G722,PCMU,PCMA",
    "outbound_codec_prefs": "OPUS,G722,PCMU,PCMA",
    "unroll_loops": "true",
    "outbound_caller_name": "FreeSWITCH",
    "outbound_caller_id": "0000000000",
    "call_debug": "false",
    "console_loglevel": "err",
    "default_areacode": "918",
    "default_country": "US",
    "default_provider": "pstn",
    "presence_privacy": "false",
    "us-ring": "%(2000,4000,440,480)",
    "rtp_liberal_dtmf": "true",
    "suppress_cng": "true",
}


class Configuration:
    """The files in a switch's ``conf`` folder. ``values``: variables of ``vars.xml`` that are this switch's own."""

    def __init__(self, folder: Path, values: Mapping[str, object]) -> None:
        self.folder = folder
        self.values = dict(values)
        self.routes: dict[str, tuple[str, str]] = {}
        self.extra: dict[str, list[str]] = {context: [] for context in CONTEXTS}
        self.has_unavailable: dict[str, bool] = {}

    def forget_routes(self) -> bool:
        """Drop the tests' routes and extensions. Return whether there were any."""
        refers = self.folder / "dialplan" / _REFERS
        had = bool(self.routes) or any(self.extra.values()) or refers.exists()
        if had:
            self.routes = {}
            self.extra = {context: [] for context in CONTEXTS}
            refers.unlink(missing_ok=True)
            self.write_routes()
        return had

    def write(
        self, dialplan_files: Iterable[Path | tuple[str, Path]], conf_files: Iterable[Path], users: Iterable[str]
    ) -> None:
        """Write all files, from ``fsconf/``."""
        shutil.copytree(Path(__file__).parent / "fsconf", self.folder)
        values = {**STOCK, **self.values}
        lines = [f'  <X-PRE-PROCESS cmd="set" data={quoteattr(f"{k}={v}")}/>' for k, v in values.items()]
        (self.folder / "vars.xml").write_text("\n".join(["<include>", *lines, "</include>", ""]))
        loaded = self.folder / "autoload_configs"
        for path in conf_files:
            (loaded / path.name).write_text(self._in_this_place(path.read_text()))
        if (loaded / "post_load_modules.conf.xml").exists():  # a stock switch loads it from there
            modules = loaded / "modules.conf.xml"
            modules.write_text(modules.read_text().replace('<load module="mod_json_cdr"/>', ""))
        shipped = dict.fromkeys(CONTEXTS, "")
        for context in CONTEXTS:
            (self.folder / "dialplan" / context).mkdir()
        for item in dialplan_files:
            named, path = item if isinstance(item, tuple) else ("", Path(item))
            if "<context" in path.read_text():
                shutil.copy(path, self.folder / "dialplan" / path.name)
                continue
            where = named or f"{path.parent.name} {path.stem}"
            for context in [c for c in CONTEXTS if c in where] or CONTEXTS:
                shutil.copy(path, self.folder / "dialplan" / context / path.name)
                shipped[context] += path.read_text()
        self.has_unavailable = {c: 'name="esl_apps_unavailable"' in text for c, text in shipped.items()}
        (self.folder / "directory" / "default").mkdir()
        for user in users:
            self.write_user(user)
        self.write_routes()

    def add_browsers(self, ws: str, wss: str) -> None:
        """Put the shipped WebRTC settings into the internal profile, with these bindings."""
        text = (ROOT / "conf" / "freeswitch" / "webrtc.snippet").read_text()
        params = re.search(r"<include>(.*)</include>", text, re.DOTALL)
        assert params is not None
        settings = re.sub(r'("ws-binding" value=)"[^"]*"', rf'\1"{ws}"', params[1])
        settings = re.sub(r'("wss-binding" value=)"[^"]*"', rf'\1"{wss}"', settings)
        profile = self.folder / "sip_profiles" / "internal.xml"
        profile.write_text(profile.read_text().replace("  </settings>", f"{settings}  </settings>"))

    def _in_this_place(self, text: str) -> str:
        """Put this switch's folder, port and password into a shipped configuration file."""
        for name, value in {
            "log-dir": self.values["rig_spool"],
            "listen-port": self.values["rig_esl_port"],
            "password": self.values["rig_esl_password"],
        }.items():
            text = re.sub(rf'(<param name="{name}" value=)"[^"]*"', rf'\1"{value}"', text)
        return text

    def write_user(self, number: str) -> None:
        """Write one extension of the directory."""
        (self.folder / "directory" / "default" / f"{number}.xml").write_text(
            f"""<include>
  <user id="{number}">
    <params>
      <param name="password" value="$${{default_password}}"/>
      <param name="vm-password" value="{number}"/>
    </params>
    <variables>
      <variable name="toll_allow" value="domestic,international,local"/>
      <variable name="accountcode" value="{number}"/>
      <variable name="user_context" value="default"/>
      <variable name="effective_caller_id_name" value="Extension {number}"/>
      <variable name="effective_caller_id_number" value="{number}"/>
      <variable name="outbound_caller_id_name" value="$${{outbound_caller_name}}"/>
      <variable name="outbound_caller_id_number" value="$${{outbound_caller_id}}"/>
      <variable name="callgroup" value="techsupport"/>
    </variables>
  </user>
</include>
"""
        )

    def write_refers(self, node: str) -> None:
        """Write the context of agents' REFERs. If it ends, the switch joins the two parties again."""
        parting = [("set", "esl_apps_parting=${uuid_setvar(${signal_bond} hangup_after_bridge false)}")]
        actions = [
            ("set", "api_hangup_hook=uuid_kill ${blind_transfer_uuid}"),
            ("sched_transfer", "+8 esl_apps_refused XML esl_apps_refer"),
            ("socket", socket_list("transfer/refer", node) + " async full"),
            ("sched_cancel", ""),
        ]
        refused = extension("esl_apps_refused", "esl_apps_refused", [("sched_cancel", "")])
        refused = f"{extension('esl_apps_parting', 'esl_apps_parting', parting)}\n{refused}"
        text = f"{refused}\n{extension('esl_apps_refer', None, actions)}"
        text = f'<include>\n<context name="esl_apps_refer">\n{text}\n</context>\n</include>\n'
        (self.folder / "dialplan" / _REFERS).write_text(text)

    def write_routes(self) -> None:
        """Write the tests' routes and extensions."""
        for context in CONTEXTS:
            parts = [
                extension(
                    f"rig_{number}",
                    number,
                    [
                        ("sched_transfer", f"+8 esl_apps_unavailable XML {context}"),
                        ("socket", socket_list(path, node) + " async full"),
                        ("sched_cancel", ""),
                        ("transfer", f"esl_apps_unavailable XML {context}"),
                    ],
                )
                for number, (path, node) in self.routes.items()
            ]
            parts += self.extra[context]
            if not self.has_unavailable[context]:
                parts.append(
                    extension(
                        "esl_apps_unavailable",
                        "esl_apps_unavailable",
                        [
                            ("pre_answer", ""),
                            ("playback", f"tone_stream://%(1500,0,{UNAVAILABLE_HZ})"),
                            ("hangup", "NORMAL_TEMPORARY_FAILURE"),
                        ],
                    )
                )
            text = "\n".join(["<include>", *parts, "</include>", ""])
            # first in its folder, so that a test's route goes before a shipped one
            (self.folder / "dialplan" / context / "000_rig.xml").write_text(text)


def socket_list(path: str, node: str) -> str:
    return "|".join(f"{one}/{path.lstrip('/')}" for one in node.split("|"))


def extension(name: str, number: str | None, actions: Iterable[tuple[str, str]]) -> str:
    lines = [
        f"    <action application={quoteattr(app)}" + (f" data={quoteattr(data)}" if data else "") + "/>"
        for app, data in actions
    ]
    pattern = "" if number is None else escape(f"^{re.escape(number)}$", {'"': "&quot;"})
    return "\n".join(
        [
            f"<extension name={quoteattr(name)}>",
            f'  <condition field="destination_number" expression="{pattern}">',
            *lines,
            "  </condition>",
            "</extension>",
        ]
    )
