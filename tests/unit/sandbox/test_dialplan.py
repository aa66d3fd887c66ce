"""Routes in XML."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from esl_apps.cli.dialplan import PROOF, render
from tests.rig.base import eventually
from tests.rig.sandbox import SandboxRig


def test_dialplan_in_xml_is_obeyed(tmp_path: Path) -> None:
    """Conditions on fields, variables and API commands, their breaks and groups, and the order of extensions."""
    there = tmp_path / "there.wav"
    there.write_bytes(b"")
    file = tmp_path / "public.xml"
    file.write_text(f"""<include>
      <!-- an extension that fails at its second condition runs nothing -->
      <extension name="other"><condition field="destination_number" expression="^27115$"/>
        <condition field="${{no_such}}" expression="."><action application="hangup" data="USER_BUSY"/></condition>
      </extension>
      <extension name="goes on" continue="true">
        <condition field="destination_number" expression="^(27)(11\\d)$(?!\\n)">
          <action application="set" data="found=$2 of $1"/></condition>
      </extension>
      <extension name="ends">
        <condition field="destination_number" expression="^27"/>
        <condition field="${{file_exists({there})}}" expression="^true$" break="never">
          <action application="set" data="file=there"/><anti-action application="set" data="file=gone"/></condition>
        <condition field="${{file_exists({there}.not)}}" expression="^true$" break="never">
          <action application="set" data="other_file=there"/>
          <anti-action application="set" data="other_file=gone"/></condition>
        <condition><action application="respond" data="480 ${{found}} ${{file}} ${{other_file}}"/></condition>
      </extension>
    </include>""")
    legs = tmp_path / "legs"
    with SandboxRig(tick=0, arguments=[f"--dialplan=public={file}", f"--legs={legs}"]) as rig:
        rig.outside("0830001111").dial("27115")
        eventually(lambda: legs.read_text())
        ran = json.loads(legs.read_text())["applications"]
        assert ran[-1][:2] == ["respond", "480 115 of 27 there gone"]
        # A number without an XML extension is found among the routes.
        rig.extension("public", "0115551000", [("hangup", "CALL_REJECTED")])
        call = rig.outside("0830001111").dial("0115551000")
        eventually(lambda: call.leg.status == 603)


def test_dialplan_that_is_broken_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "broken.xml"
    for text, option, expected in (
        ("<include>", f"public={file}", "no element found"),
        ("<include/>", f"private={file}", "expected public or default = FILE"),
        ("<include/>", f"public={file}.not", "No such file"),
    ):
        file.write_text(text)
        command = [sys.executable, "-m", "esl_apps.sandbox", "--listen=127.0.0.1:0", f"--dialplan={option}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert ended.returncode == 1
        assert expected in ended.stderr


def test_dialplan_sets_global_variables(tmp_path: Path) -> None:
    """As FreeSWITCH does when it reads its configuration."""
    file = tmp_path / "public.xml"
    file.write_text(render({"node": {"listen": "127.0.0.1:8084", "secret": "a-secret-for-the-tests"}})[PROOF])
    with SandboxRig(tick=0, arguments=[f"--dialplan=public={file}"]) as rig:
        hashed = hashlib.md5(b"1a-secret-for-the-tests").hexdigest()
        assert rig.api("expand md5 1${esl_apps_secret}") == hashed
