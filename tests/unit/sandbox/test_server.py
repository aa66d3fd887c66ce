"""The process: its ports, its options, its end."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.rig.sandbox import SandboxRig
from tests.support import ROOT
from tests.support.event_socket import EXTERNAL, inbound


def test_process_pauses_dies_and_comes_back(rig: SandboxRig) -> None:
    phone, outside = rig.phone("1000"), rig.outside("27820001234")
    rig.api("originate user/1000@127.0.0.1 &park()")
    client = inbound(rig)
    rig.pause()
    client.send("api status")
    client.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.read()
    rig.resume()
    rig.kill()
    rig.start()
    assert rig.api("originate user/1000@127.0.0.1 &park()").startswith("+OK")
    assert rig.api("originate " + EXTERNAL + "27820001234 &park()").startswith("+OK")
    assert (len(phone.calls), len(outside.calls)) == (2, 1)
    assert phone.calls[0].leg.answered_at


def test_server_refuses_a_port_that_is_taken(rig: SandboxRig) -> None:
    command = [sys.executable, "-m", "esl_apps.sandbox", f"--listen={rig.esl_address}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=ROOT)
    assert run.returncode == 1
    assert "something listens there already" in run.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--listen=192.0.2.9:8021", "can't listen on 192.0.2.9:8021: Cannot assign requested address"),
        ("--dialplan=public=/nowhere.xml", "--dialplan public=/nowhere.xml: No such file or directory"),
    ],
)
def test_server_refuses_with_the_reason_alone(option: str, said: str) -> None:
    command = [sys.executable, "-m", "esl_apps.sandbox", "--listen=127.0.0.1:0", option]
    run = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=ROOT)
    assert (run.returncode, run.stderr) == (1, f"esl-apps sandbox: {said}\n")


def test_api_expands_global_variables(rig: SandboxRig) -> None:
    """``init`` asks for the phones' domain in this way."""
    assert rig.api("eval $${domain}") == rig.api("eval ${domain}") != ""


def test_control_port_names_an_unknown_script_key(rig: SandboxRig) -> None:
    base = f"http://127.0.0.1:{rig.control_port}"
    assert b"/phones/NUMBER" in urllib.request.urlopen(base + "/").read()
    request = urllib.request.Request(base + "/phones/1000", b'{"script": {"anser_after": 1}}', method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    assert b"anser_after" in caught.value.read()
