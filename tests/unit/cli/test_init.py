"""``esl-apps init``: what it finds, what it refuses, and files that a node can use as they are."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from esl_apps.cli.init import templates, this_machine
from esl_apps.cli.init.answers import Answers
from esl_apps.cli.init.templates import make, variable_of
from esl_apps.cli.init.this_machine import Machine
from esl_apps.config import load, parse, redis_url, warnings
from esl_apps.config.env_file import variables
from esl_apps.net import address
from tests.support import ROOT
from tests.support.ports import free_port
from tests.unit.cli.conftest import Run

ANSWERS = Answers("127.0.0.1:8021", "", "ZA", "pbx.example", "pstn", "acme", "redis://127.0.0.1:6379/0")
GIVEN = ["--yes", "--region", "ZA", "--domain", "pbx.example", "--freeswitch", "/nowhere"]


@pytest.fixture
def freeswitch(tmp_path: Path) -> Path:
    """The folder of a switch's configuration. The switch itself doesn't run."""
    folder = tmp_path / "freeswitch"
    (folder / "autoload_configs").mkdir(parents=True)
    (folder / "vars.xml").write_text("<include/>")
    text = (ROOT / "conf/freeswitch/event_socket.conf.xml").read_text()
    text = text.replace("8021", str(free_port())).replace("ClueCon", "its-own-password")
    (folder / "autoload_configs/event_socket.conf.xml").write_text(text)
    return folder


def test_init_writes_a_configuration_that_is_read(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    ran = run("init", str(folder), *GIVEN, "--gateway", "pstn", "--integrator", "acme-2")
    assert ran.status == 0
    config = load(str(folder / "esl_apps.yml"))
    assert config.dial.region == "ZA"
    assert config.dial.extension == "user/{number}@pbx.example"
    assert config.dial.external == ["sofia/gateway/pstn/{number}"]
    assert [one.name for one in config.integrators] == ["acme-2"]
    assert f"sh {folder}/install.sh" in ran.out
    assert "s/^ACME_2_TOKEN=//p" in ran.out


def test_init_secrets_are_for_their_owner_alone(run: Run, tmp_path: Path) -> None:
    assert run("init", str(tmp_path / "new"), *GIVEN).status == 0
    private = {"esl_apps.env", "event_socket.conf.xml"}
    for file in (tmp_path / "new").rglob("*"):
        if file.is_file():
            mode = file.stat().st_mode & 0o777
            assert (mode == 0o600) == (file.name in private), file
    found = variables((tmp_path / "new/esl_apps.env").read_text())
    assert found.keys() == {"PIN_KEY", "FS_PASSWORD", "ADMIN_TOKEN", "ACME_TOKEN"}
    assert len(set(found.values())) == 4
    assert min(map(len, found.values())) == 48


def test_init_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "install.sh"
    own.write_text("mine")
    ran = run("init", str(tmp_path), *GIVEN)
    assert (ran.status, ran.out) == (1, "")
    assert f"{own}: is there already; nothing was written" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["install.sh"]
    assert own.read_text() == "mine"


def test_init_dry_run_shows_all_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    ran = run("init", str(tmp_path / "new"), *GIVEN, "--dry-run")
    assert ran.status == 0
    for name in ("esl_apps.yml", "esl_apps.env", "esl-apps.service", "dialplan/00_esl_apps_public.xml", "install.sh"):
        assert f"# {name}\n" in ran.out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--region", ""),
        ("--region", "Atlantis"),
        ("--domain", ""),
        ("--domain", "pbx}{example"),
        ("--gateway", "pstn/x"),
        ("--gateway", "a b"),
        ("--integrator", "../acme"),
        ("--integrator", "1a"),
        ("--integrator", "admin"),
        ("--integrator", "Admin"),
        ("--switch", "127.0.0.1"),
        ("--switch", "$(id):8021"),
        ("--switch-password", 'a"b'),
        ("--switch-password", "a$b"),
        ("--redis", "http://127.0.0.1"),
    ],
)
def test_init_wrong_answer_is_named_and_writes_nothing(run: Run, tmp_path: Path, option: str, value: str) -> None:
    ran = run("init", str(tmp_path / "new"), *GIVEN, option, value)
    assert (ran.status, ran.out) == (2, "")
    assert f"esl-apps: {option}: " in ran.err
    assert not (tmp_path / "new").exists()


def test_init_keeps_a_password_of_the_switchs_own(run: Run, tmp_path: Path, freeswitch: Path) -> None:
    ran = run("init", str(tmp_path / "new"), *GIVEN, "--freeswitch", str(freeswitch))
    assert ran.status == 0
    assert f"Found: FreeSWITCH in {freeswitch}" in ran.err
    assert variables((tmp_path / "new/esl_apps.env").read_text())["FS_PASSWORD"] == "its-own-password"
    assert load(str(tmp_path / "new/esl_apps.yml")).switches[0].address in ran.err


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Lines typed at a terminal, by the first word of the question; by default an empty one."""
    answers: dict[str, list[str]] = {}

    def type_in(question: str) -> str:
        lines = answers.get(question.split(maxsplit=1)[0], [""])
        return lines.pop(0) if len(lines) > 1 else lines[0]

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", type_in)
    monkeypatch.setattr("esl_apps.cli.init.answers.getpass", type_in)
    return answers


def test_init_asks_for_what_no_option_says(run: Run, tmp_path: Path, typed: dict[str, list[str]]) -> None:
    typed |= {
        "FreeSWITCH's": ["10.0.0.9:8021"],
        "Its": ["of-that-switch"],
        "Country": ["za"],
        "Domain": ["pbx.example"],
    }
    ran = run("init", str(tmp_path / "new"), "--freeswitch", "/nowhere", "--gateway", "pstn")
    assert ran.status == 0
    found = variables((tmp_path / "new/esl_apps.env").read_text())
    assert found["FS_PASSWORD"] == "of-that-switch"
    assert 'address: "10.0.0.9:8021"' in (tmp_path / "new/esl_apps.yml").read_text()
    assert load(str(tmp_path / "new/esl_apps.yml")).dial.extension == "user/{number}@pbx.example"


def test_init_asks_again_after_a_wrong_answer(run: Run, tmp_path: Path, typed: dict[str, list[str]]) -> None:
    typed |= {"Its": ["my pass", ""], "Country": ["Narnia", "ZA"], "Domain": ["pbx.example"]}
    ran = run("init", str(tmp_path / "new"), "--freeswitch", "/nowhere")
    assert ran.status == 0
    assert "expected letters, digits" in ran.err
    assert "expected a country of ISO 3166" in ran.err


def test_init_at_a_terminal_refuses_a_wrong_option(run: Run, tmp_path: Path, typed: dict[str, list[str]]) -> None:
    ran = run("init", str(tmp_path / "new"), "--freeswitch", "/nowhere", "--region", "Narnia")
    assert ran.status == 2
    assert "--region: expected a country" in ran.err
    assert not (tmp_path / "new").exists()


def test_event_socket_ignores_comments_and_variables() -> None:
    text = """<!-- <param name="password" value="old"/> --><param name="listen-ip" value="::"/>
    <param name="listen-port" value="8022"/><param name="password" value="$${secret}"/>"""
    assert this_machine._event_socket(text) == ("127.0.0.1:8022", "ClueCon")


def test_gateways_leave_the_sample_out() -> None:
    status = "   external\tprofile\t sip:x\tRUNNING (0)\n external::example.com\tgateway\t sip:y\tNOREG\n"
    assert list(this_machine._gateways(status + "  external::pstn\tgateway\t sip:z\tREGED\n")) == ["pstn"]


def test_templates_replace_the_stock_password() -> None:
    made = make(ANSWERS, Machine(), Path("/etc/esl_apps"))
    password = variables(made["esl_apps.env"])["FS_PASSWORD"]
    assert password != "ClueCon"
    assert f'name="password" value="{password}"' in made["freeswitch/event_socket.conf.xml"]


@pytest.mark.parametrize(
    ("switch", "here", "listens"),
    [
        ("127.0.0.1:8021", "127.0.0.1", []),
        ("192.0.2.7:8021", "192.0.2.2", ["192.0.2.2:8084"]),
        ("[2001:db8::7]:8021", "2001:db8::2", []),  # check warns
        ("192.0.2.2:8021", "192.0.2.2", []),  # this machine, by its other address
        ("fs1.example:8021", None, []),
    ],
)
def test_templates_listen_where_a_switch_elsewhere_connects(
    monkeypatch: pytest.MonkeyPatch, switch: str, here: str | None, listens: list[str]
) -> None:
    for module in (address, templates):
        monkeypatch.setattr(module, "here_towards", lambda _host, _port: here)
    made = make(replace(ANSWERS, switch=switch), Machine(), Path("/etc/esl_apps"))
    assert re.findall('^  listen: "(.+)" ', made["esl_apps.yml"], re.MULTILINE) == listens
    warned = warnings(parse(made["esl_apps.yml"], variables(made["esl_apps.env"])))
    elsewhere = not switch.startswith(("127.", "192.0.2.2:"))
    assert ("node.advertise" in [problem.key for problem in warned]) is (elsewhere and not listens)


@pytest.mark.parametrize("url", ["redis://node:s3cret@10.0.0.1:6379/0", "redis://10.0.0.1/0?password=s3cret"])
def test_templates_keep_a_redis_password_out_of_the_file(url: str) -> None:
    made = make(replace(ANSWERS, redis=url), Machine(), Path("/etc/esl_apps"))
    assert "s3cret" not in made["esl_apps.yml"]
    assert parse(made["esl_apps.yml"], variables(made["esl_apps.env"])).redis.url == url


@pytest.mark.parametrize(("host", "integrator"), [("0123", "null"), ("1e5", "yes")])
def test_templates_names_are_texts(monkeypatch: pytest.MonkeyPatch, host: str, integrator: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    made = make(replace(ANSWERS, integrator=integrator), Machine(), Path("/etc/esl_apps"))
    config = parse(made["esl_apps.yml"], variables(made["esl_apps.env"]))
    assert (config.node.name, config.integrators[0].name) == (host, integrator)


@pytest.mark.parametrize("password", ["s3$cret", "a&b", "a;exit$IFS;", "a'b", 'a"b', "a`id`b", "a\\b", "~"])
def test_init_secrets_are_the_same_for_sh(run: Run, tmp_path: Path, password: str) -> None:
    folder = tmp_path / "new"
    url = f"redis://node:{password}@127.0.0.1:6379/0?client_name=x&protocol=3"
    given = ["--redis", url, "--switch-password", "~root:~"]
    assert run("init", str(folder), *GIVEN, *given).status == 0
    found = variables((folder / "esl_apps.env").read_text())
    read = subprocess.run(
        ["sh", "-euc", "set -a; . ./esl_apps.env; env -0"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    assert {f"{name}={value}" for name, value in found.items()} <= set(read)
    assert found["FS_PASSWORD"] == "~root:~"
    assert "\\" not in (folder / "esl_apps.env").read_text()
    server = redis_url.server(load(str(folder / "esl_apps.yml")).redis.url)
    assert (server.password, sorted(server.options)) == (password, ["client_name", "protocol"])


@pytest.mark.parametrize(
    "machine", [Machine(), Machine(folder=Path("/etc/free switch")), Machine(Path("/x"), writes_cdrs=True)]
)
def test_templates_script_is_read_by_sh(machine: Machine) -> None:
    script = make(ANSWERS, machine, Path("/etc/esl apps"))["install.sh"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert ("mod_json_cdr" in script) == (machine.folder is not None and not machine.writes_cdrs)


def test_templates_add_to_a_packaged_unit() -> None:
    made = make(ANSWERS, Machine(has_unit=True, logs="/srv/log"), Path("/etc/esl_apps"))
    assert "esl-apps.service" not in made
    assert "ReadWritePaths=-/srv/log/json_cdr\n" in made["esl-apps.service.d/spool.conf"]
    assert "esl-apps.service.d/spool.conf /etc/systemd/system/esl-apps.service.d/spool.conf" in made["install.sh"]


def test_variable_of_an_integrator_is_one_for_the_shell() -> None:
    assert variable_of("acme.za-1") == "ACME_ZA_1_TOKEN"
