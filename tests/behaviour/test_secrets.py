"""No message of a node or of a command shows a secret: passwords, tokens, keys and PINs, in the file and as typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.rig.base import eventually
from tests.rig.sandbox import SandboxRig
from tests.support import zygote
from tests.support.node import Node, RedisServer, configuration, request
from tests.support.ports import free_port

CALLEE = "0820001234"
#: By the place in the configuration that has it. Each begins like a port, and ends with digits too.
SECRETS = {
    "redis": "61391redis88401731",
    "own redis": "61392redis88401732",
    "switch": "61393switch88401733",
    "admin": "61394admin88401734",
    "integrator": "61395integrator88401735",
    "second token": "61396second88401736",
    "account": "61397account88401737",
    "pin_key": "61398key88401738",
    "link_key": "61399linkkey88401739",
    "disa": "6139088401730",
    "webhook": f"whsec_61388webhook{'a' * 12}88401740",
    "old webhook": f"whsec_61387webhook{'b' * 12}88401741",
    # Some receivers have no other password.
    "webhook path": "61386path88401742",
}


@pytest.fixture
def config(sandbox: SandboxRig, redis: RedisServer) -> dict[str, Any]:
    """A configuration with a secret wherever one can be. Its Redis and its switch refuse them."""
    made = configuration(sandbox, redis)
    own = SECRETS["own redis"]
    made["redis"]["url"] = f"redis://u:{SECRETS['redis']}@127.0.0.1:{redis.port}/0"
    made["switches"][0]["password"] = SECRETS["switch"]
    made["admin"]["token"] = SECRETS["admin"]
    made["pin_key"] = SECRETS["pin_key"]
    made["recordings"]["link_key"] = SECRETS["link_key"]
    integrator = made["integrators"][0]
    integrator["token"] = SECRETS["integrator"]
    integrator["tokens"] = [{"name": "second", "token": SECRETS["second token"], "scopes": ["read"]}]
    integrator["redis"] = {"url": f"redis+sentinel://:{own}@127.0.0.1:{free_port()}/main/0"}
    integrator["webhooks"] = [
        {
            "name": "crm",
            "url": f"https://127.0.0.1:{free_port()}/hook/{SECRETS['webhook path']}",
            "secrets": [SECRETS["webhook"], SECRETS["old webhook"]],
            "allow_private": True,
        }
    ]
    made["accounts"] = {
        "acme": {
            "caller_id": {"number": "+27115550000"},
            "token": SECRETS["account"],
            "disa": {"front": {"pin": SECRETS["disa"]}},
        }
    }
    return made


def shown(text: str) -> set[str]:
    """The places of the secrets that a text shows, or shows a part of."""
    bare = {place: secret.removeprefix("whsec_") for place, secret in SECRETS.items()}
    return {place for place, secret in bare.items() if secret[:5] in text or secret[-8:] in text}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return zygote.run(list(arguments))


def written(config: object, folder: Path) -> str:
    path = folder / "esl_apps.yml"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


COMMANDS = [
    ("check",),
    ("check", "--json"),
    ("calls",),
    ("trace", "01a2278d-8d05-745e-8f26-512f0c917612"),
    ("locks",),
    ("breaker",),
    ("dialplan",),
    ("webhook", "list"),
    ("webhook", "list", "--json"),
    ("webhook", "test", "crm"),
    ("webhook", "test", "crm", "--json"),
    ("webhook", "replay", "crm", "--since", "1h"),
    ("records", "--since", "1h"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_shows_no_secret(config: dict[str, Any], tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run(*command, "-c", written(config, tmp_path))
    assert done.stdout + done.stderr
    assert shown(done.stdout + done.stderr) == set()


def _stray(char: str) -> Callable[[str], str]:
    return lambda secret: secret[:5] + char + secret[5:]


# tests/unit/config/test_redis_url.py tries every character in every form.
@pytest.mark.parametrize(
    ("scheme", "char"),
    [
        *(("redis", char) for char in "#/?@%[ :"),
        *((scheme, "/") for scheme in ("rediss", "redis+cluster", "redis+sentinel", "unix")),
    ],
)
def test_stray_character_shows_no_part_of_a_password(
    config: dict[str, Any], tmp_path: Path, scheme: str, char: str
) -> None:
    path = "/main" if "sentinel" in scheme else ""
    for section, place in ((config["redis"], "redis"), (config["integrators"][0]["redis"], "own redis")):
        section["url"] = f"{scheme}://:{_stray(char)(SECRETS[place])}@127.0.0.1:{free_port()}{path}"
    done = run("check", "-c", written(config, tmp_path))
    assert done.returncode == 1
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    assert shown(text) == set(), text


#: Mistakes for a value, as people make them.
MISTAKES: list[Callable[[str], object]] = [
    lambda secret: [secret],
    lambda secret: {secret: secret},
    lambda secret: {"value": secret},
    lambda secret: f"${{{secret}",
    lambda secret: f"{secret} {secret}",
    lambda secret: secret + "\n",
    lambda secret: None,
]


@pytest.mark.parametrize("mistake", range(len(MISTAKES)))
def test_mistake_in_the_file_shows_no_secret(config: dict[str, Any], tmp_path: Path, mistake: int) -> None:
    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [changed(inner) for inner in value]
        return MISTAKES[mistake](value) if value in SECRETS.values() else value

    done = run("check", "-c", written(changed(config), tmp_path))
    assert done.returncode == 1
    assert shown(done.stdout + done.stderr) == set()


@pytest.mark.parametrize(
    "broken", ['{}: "{}', "- {}: [{}", "{}", "{}:{}", "\t{}: {}", "key: '{}' {}", "? {}\n: {} : x"]
)
def test_file_that_is_not_yaml_shows_no_secret(tmp_path: Path, broken: str) -> None:
    secret = SECRETS["redis"]
    done = run("check", "-c", written("redis:\n  " + broken.replace("{}", secret), tmp_path))
    assert done.returncode == 1
    assert shown(done.stdout + done.stderr) == set()


def test_node_shows_no_secret_whatever_is_refused(
    config: dict[str, Any], sandbox: SandboxRig, redis: RedisServer
) -> None:
    """Its Redis and its switch refuse the passwords; clients send tokens of others, and in the wrong places."""
    node = Node(config)
    for place in ("admin", "integrator", "account", "second token"):
        for address in (node.admin, node.api):
            request(address, "GET", f"/click2dial/calls?token={SECRETS[place]}", token=SECRETS[place])
            request(address, "POST", "/click2dial/calls", {"agent": SECRETS[place]}, token=SECRETS[place])
            request(address, "GET", f"/{SECRETS[place]}", token=f"{SECRETS[place]}x")
    eventually(lambda: "switch_unreachable" in node.log.read_text())
    assert node.stop() == 0
    assert shown(node.log.read_text()) == set()
