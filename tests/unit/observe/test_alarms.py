"""``conf/prometheus/rules.yml``: each alarm names what a node has, rings when it should, and else is quiet."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from esl_apps.core import terms
from esl_apps.observe.alerts import KINDS
from tests.support import ROOT
from tests.support.promql import COMMON, faults, matched, shown_faults

FILE = ROOT / "conf" / "prometheus" / "rules.yml"
NODE = {"job": "esl_apps", "instance": "10.0.0.1:8000"}
#: An alarm with these labels doesn't say which node.
ALL = {"job": "esl_apps"}
PROMTOOL = shutil.which("promtool")


def rules() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(FILE.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


RULES = rules()


@dataclass
class Case:
    """Series that raise an alarm, a value each 15 s, and the alarm they raise."""

    alarm: str
    series: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)
    """Labels of the series that the alarm keeps."""
    value: str = ""
    """As its summary shows it."""
    at: str = "10m"
    node: dict[str, str] = field(default_factory=lambda: NODE)


ESL, REDIS = "esl_apps_esl_round_trip_seconds_bucket", "esl_apps_redis_round_trip_seconds_bucket"
REQUESTS = "esl_apps_http_request_seconds_count"
MOS = "esl_apps_leg_mos"
WEBHOOK = {"webhook": "crm"}
REFUSED, CERTIFICATE = "esl_apps_config_reload_refused", "esl_apps_certificate_expires_seconds"
LIFETIME = "esl_apps_certificate_lifetime_seconds"
FAILING = 'esl_apps_webhook_failing_seconds{webhook="crm"'
POSTED = 'method="POST", route="/click2dial/calls"'

CASES = [
    # The first of its kind: the series has been 0 since the start.
    Case("Fraud", {'esl_apps_alerts_total{alert="pin_lock"}': "0x34 1x10"}, {"alert": "pin_lock"}),
    Case("Fraud", {'esl_apps_alerts_total{alert="breaker"}': "3x34 4x10"}, {"alert": "breaker"}),
    # Every node and worker knows of a breaker: one alarm is enough.
    Case(
        "BreakerTripped",
        {
            'esl_apps_breakers_tripped{worker="1"}': "0x20 2x30",
            'esl_apps_breakers_tripped{worker="2"}': "0x20 2x30",
        },
        value="2",
        node=ALL,
    ),
    Case(
        "CallsLost",
        {'esl_apps_calls_total{app="disa", end_reason="lost"}': "0x34 2x10"},
        {"app": "disa", "end_reason": "lost"},
    ),
    Case("RecordsWaiting", {'esl_apps_outbox_depth{outbox="main"}': "0x20 1+1x30"}, {"outbox": "main"}, "20"),
    # A few records, and no more come.
    Case(
        "RecordsWaiting",
        {
            'esl_apps_outbox_depth{outbox="main"}': "0x4 3x40",
            'esl_apps_outbox_failing_seconds{outbox="main"}': "0x4 0+15x40",
        },
        {"outbox": "main"},
        "3",
        "4m",
    ),
    Case("WebhookFailing", {f"{FAILING}}}": "0+15x100"}, WEBHOOK, "17m 0s", "17m", ALL),
    # Another process has just taken the lease.
    Case(
        "WebhookFailing",
        {f'{FAILING}, worker="1"}}': "0+15x68 stale", f'{FAILING}, worker="2"}}': "_x70 1050+15x20"},
        WEBHOOK,
        "17m 30s",
        "17m30s",
        ALL,
    ),
    Case(
        "WebhookBehind",
        {'esl_apps_webhook_oldest_seconds{webhook="crm", worker="1"}': "0+15x100"},
        WEBHOOK,
        "17m 0s",
        "17m",
        ALL,
    ),
    Case("WebhookSetAside", {'esl_apps_webhook_set_aside_total{webhook="crm"}': "0x34 60x10"}, WEBHOOK),
    Case("WebhookOff", {'esl_apps_webhook_off{webhook="crm"}': "0x20 1x20"}, WEBHOOK, node=ALL),
    Case(
        "RequestsFail",
        {f'{REQUESTS}{{{POSTED}, status="202"}}': "0+9x60", f'{REQUESTS}{{{POSTED}, status="503"}}': "0+1x60"},
        value="10%",
        at="11m",
    ),
    Case("AlertRaised", {'esl_apps_alerts_total{alert="switch_clock"}': "0x34 1x10"}, {"alert": "switch_clock"}),
    Case(
        "SoundBad",
        {
            f'{MOS}_bucket{{party="agent", le="3.5", worker="1"}}': "0+1x80",
            f'{MOS}_count{{party="agent", worker="1"}}': "0+2x80",
            f'{MOS}_count{{party="agent", worker="2"}}': "0+2x80",
        },
        {"party": "agent"},
        "25%",
        "19m",
    ),
    Case(
        "SoundMissing",
        {
            'esl_apps_leg_silent_total{party="callee", direction="in"}': "0+1x80",
            'esl_apps_calls_total{app="click-dial", end_reason="answered"}': "0+4x80",
        },
        value="25%",
        at="19m",
    ),
    Case("SwitchDown", {'esl_apps_switch_up{switch="fs1"}': "1x30 0x10"}, {"switch": "fs1"}),
    Case("SwitchSkipped", {'esl_apps_switch_out{switch="fs1"}': "0x30 1x10"}, {"switch": "fs1"}),
    Case(
        "SwitchOverloaded",
        {f'{ESL}{{switch="fs1", le="0.25"}}': "0x41", f'{ESL}{{switch="fs1", le="0.5"}}': "0+1x41"}
        | {f'{ESL}{{switch="fs1", le="+Inf"}}': "0+1x41"},
        {"switch": "fs1"},
        "475ms",
    ),
    Case("SwitchNearlyFull", {'esl_apps_switch_load{switch="fs1"}': "0.5x20 0.95x20"}, {"switch": "fs1"}, "95%"),
    Case("RedisDown", {"esl_apps_redis_up": "1x30 0x10"}),
    Case(
        "RedisSlow",
        {f'{REDIS}{{redis="main", le="0.1"}}': "0x41", f'{REDIS}{{redis="main", le="0.5"}}': "0+1x41"}
        | {f'{REDIS}{{redis="main", le="+Inf"}}': "0+1x41"},
        {"redis": "main"},
        "460ms",
    ),
    Case("NodeDown", {"up": "1x30 0x10"}),
    Case("NodeNotReady", {"esl_apps_ready": "1x20 0x20"}),
    Case("NodeNearlyFull", {"esl_apps_outbound_sockets": "4501x41", "esl_apps_max_calls": "5000x41"}, value="4501"),
    Case(
        "NodeNearlyFull",
        {
            'esl_apps_live_calls{app="disa", worker="2"}': "50x41",
            'esl_apps_live_calls{app="inbound", worker="2"}': "41x41",
            'esl_apps_max_calls{worker="2"}': "100x41",
        },
        {"worker": "2"},
        value="91",
    ),
    Case("WorkerDown", {'esl_apps_worker_up{worker="2"}': "1x20 0x20"}, {"worker": "2"}),
    # While it is gone it shows nothing.
    Case("WorkerRestarted", {'esl_apps_worker_restarts_total{worker="2"}': "0x20 _x5 1x20"}, {"worker": "2"}),
    Case("ReloadRefused", {f'{REFUSED}{{worker="{number}"}}': "0x20 1x20" for number in (1, 2)}),
    # Renewed in one worker only.
    Case(
        "CertificateExpires",
        {
            f'{CERTIFICATE}{{listen="0.0.0.0:8300", worker="1"}}': "1209600-15x80",
            f'{CERTIFICATE}{{listen="0.0.0.0:8300", worker="2"}}': "7776000-15x80",
            f'{LIFETIME}{{listen="0.0.0.0:8300", worker="1"}}': "7776000x80",
            f'{LIFETIME}{{listen="0.0.0.0:8300", worker="2"}}': "7776000x80",
        },
        {"listen": "0.0.0.0:8300"},
        "13d 23h 50m 0s",
    ),
    Case(
        "CertificateExpires",
        {
            f'{CERTIFICATE}{{listen="0.0.0.0:8300"}}': "129600-15x80",
            f'{LIFETIME}{{listen="0.0.0.0:8300"}}': "576000x80",
        },
        {"listen": "0.0.0.0:8300"},
        "1d 11h 50m 0s",
    ),
    Case("FolderHangs", {'esl_apps_folder_hung_threads{folder="recordings"}': "0x20 1x20"}, {"folder": "recordings"}),
    Case("RecordingsKept", {'esl_apps_recordings_not_deleted{worker="2"}': "0x20 1x300"}, at="72m"),
    # Its series begins with its first failure.
    Case("TaskFailed", {'esl_apps_background_failures_total{task="adoption"}': "_x30 1x11"}, {"task": "adoption"}),
    Case(
        "TaskFailed",
        {'esl_apps_background_failures_total{task="adoption"}': "1x60 2x41"},
        {"task": "adoption"},
        at="20m",
    ),
    Case("LogLinesDropped", {"esl_apps_log_lines_dropped_total": "0x20 7x20"}),
]

#: A node on which all is well, and busy.
HEALTHY = {
    "up": "1x100",
    "esl_apps_ready": "1x100",
    "esl_apps_redis_up": "1x100",
    "esl_apps_breakers_tripped": "0x100",
    "esl_apps_max_calls": "5000x100",
    "esl_apps_outbound_sockets": "3000x100",
    'esl_apps_webhook_failing_seconds{webhook="crm"}': "0x20 30 0x100",
    'esl_apps_webhook_off{webhook="crm"}': "0x100",
    'esl_apps_webhook_oldest_seconds{webhook="crm"}': "0x20 30 0x100",
    f'{MOS}_bucket{{party="agent", le="3.5"}}': "0+5x100",
    f'{MOS}_count{{party="agent"}}': "0+99x100",
    # Few calls, and one phone at the end of a bad line.
    f'{MOS}_bucket{{party="callee", le="3.5"}}': "0x20 1x40 2x40",
    f'{MOS}_count{{party="callee"}}': "0x20 1x40 2x40",
    'esl_apps_leg_silent_total{party="callee", direction="in"}': "0+1x100",
    'esl_apps_calls_total{app="click-dial", end_reason="answered"}': "0+99x100",
    'esl_apps_webhook_set_aside_total{webhook="crm"}': "3x100",
    'esl_apps_live_calls{app="disa"}': "3000x100",
    'esl_apps_switch_up{switch="fs1"}': "1x100",
    'esl_apps_switch_out{switch="fs1"}': "0x100",
    'esl_apps_switch_load{switch="fs1"}': "0.8x100",
    'esl_apps_worker_up{worker="1"}': "1x100",
    'esl_apps_worker_restarts_total{worker="1"}': "3x100",
    'esl_apps_folder_hung_threads{folder="recordings"}': "0x100",
    # Refused, and mended at once.
    REFUSED: "0x20 1 0x79",
    f'{CERTIFICATE}{{listen="0.0.0.0:8300"}}': "1296000-15x100",
    f'{LIFETIME}{{listen="0.0.0.0:8300"}}': "7776000x100",
    # It lives for six days, and was renewed.
    f'{CERTIFICATE}{{listen="0.0.0.0:8301"}}': "540000-15x100",
    f'{LIFETIME}{{listen="0.0.0.0:8301"}}': "576000x100",
    "esl_apps_recordings_not_deleted": "0x10 1x20 0x70",
    # A failure of yesterday.
    'esl_apps_background_failures_total{task="adoption"}': "1x100",
    "esl_apps_log_lines_dropped_total": "5x100",
    # Depths that come and go, and a pile that is being worked off.
    'esl_apps_outbox_depth{outbox="main"}': " ".join(["0 3 1 0 2 5 0 1"] * 13),
    'esl_apps_outbox_depth{outbox="busy"}': " ".join(["2 5 1 4 1 3 5 1"] * 13),
    'esl_apps_outbox_depth{outbox="acme"}': "1000-10x100",
    # Redis was restarted.
    'esl_apps_outbox_failing_seconds{outbox="main"}': "0x70 0 15 30 45 60 0x30",
    'esl_apps_calls_total{app="disa", end_reason="lost"}': "4x100",
    'esl_apps_calls_total{app="disa", end_reason="answered"}': "0+9x100",
    'esl_apps_alerts_total{alert="pin_lock"}': "1x100",
    'esl_apps_alerts_total{alert="node_clock"}': "1x100",
    f'{ESL}{{switch="fs1", le="0.002"}}': "0+1x100",
    f'{ESL}{{switch="fs1", le="+Inf"}}': "0+1x100",
    f'{REDIS}{{redis="main", le="0.0005"}}': "0+1x100",
    f'{REDIS}{{redis="main", le="+Inf"}}': "0+1x100",
    f'{REQUESTS}{{{POSTED}, status="202"}}': "0+99x100",
    f'{REQUESTS}{{{POSTED}, status="429"}}': "0+99x100",
    f'{REQUESTS}{{{POSTED}, status="503"}}': "0+1x100",
    # A node that drains says so to its load balancer.
    f'{REQUESTS}{{method="GET", route="/readyz", status="503"}}': "0+99x100",
    f'{REQUESTS}{{method="OPTIONS", route="other", status="503"}}': "0+99x100",
}

#: An alarm that is quiet because another one says what is wrong.
QUIET = [
    ("WebhookFailing", {'esl_apps_webhook_off{webhook="crm"}': "1x100"}),
    # Until a moment ago another process tried it.
    ("WebhookBehind", {f'{FAILING}, worker="2"}}': "0+15x67 stale"}),
    ("WebhookBehind", {'esl_apps_webhook_off{webhook="crm"}': "1x100"}),
]


def named(series: str, labels: dict[str, str]) -> str:
    """A series with more labels."""
    name, _, own = series.removesuffix("}").partition("{")
    pairs = ", ".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
    return f"{name}{{{', '.join(filter(None, [own, pairs]))}}}"


def expected(case: Case) -> dict[str, Any]:
    """The alarm with its texts filled in."""
    rule = RULES[case.alarm]
    labels = {**case.node, **case.labels}
    values = {f"$labels.{name}": value for name, value in labels.items()}

    def filled(text: str) -> str:
        return re.sub(r"\{\{ (\S+?)(?: \| \w+)? \}\}", lambda found: values.get(found[1], case.value), text)

    annotations = {name: filled(text) for name, text in rule["annotations"].items()}
    return {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": annotations}


def promtool_file(rules_file: Path) -> dict[str, Any]:
    tests: list[dict[str, Any]] = [
        {
            "interval": "15s",
            "input_series": [{"series": named(one, NODE), "values": values} for one, values in case.series.items()],
            "alert_rule_test": [{"eval_time": case.at, "alertname": case.alarm, "exp_alerts": [expected(case)]}],
        }
        for case in CASES
    ]
    for alarm, reason in QUIET:
        ringing = next(case for case in CASES if case.alarm == alarm)
        tests.append(
            {
                "interval": "15s",
                "input_series": [
                    {"series": named(one, NODE), "values": values} for one, values in (ringing.series | reason).items()
                ],
                "alert_rule_test": [{"eval_time": ringing.at, "alertname": alarm}],
            }
        )
    tests.append(
        {
            "interval": "15s",
            "input_series": [{"series": named(one, NODE), "values": values} for one, values in HEALTHY.items()],
            "alert_rule_test": [
                {"eval_time": f"{minute}m", "alertname": alarm} for alarm in RULES for minute in (16, 20, 24)
            ],
        }
    )
    return {"rule_files": [str(rules_file)], "evaluation_interval": "15s", "tests": tests}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_alarms_ring_when_they_should_and_else_never(tmp_path: Path) -> None:
    file = tmp_path / "alarms.yml"
    file.write_text(json.dumps(promtool_file(FILE)))
    done = subprocess.run([str(PROMTOOL), "test", "rules", file], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alarms_have_a_case_each() -> None:
    assert {case.alarm for case in CASES} == RULES.keys()


@pytest.mark.parametrize("alarm", RULES)
def test_alarm_names_metrics_and_labels_that_exist(alarm: str) -> None:
    rule = RULES[alarm]
    assert list(faults(rule["expr"])) == []
    for text in rule["annotations"].values():
        assert list(shown_faults(rule["expr"], text)) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alarm)
def test_alarm_case_has_series_that_exist(case: Case) -> None:
    for series in case.series:
        assert list(faults(series)) == []


def test_alarms_compare_labels_with_values_that_exist() -> None:
    for rule in RULES.values():
        assert matched(rule["expr"], "alert") <= set(KINDS)
        assert matched(rule["expr"], "end_reason") <= {terms.ANSWERED, terms.LOST}


@pytest.mark.parametrize("alarm", RULES)
def test_alarm_tells_a_person_what_to_do(alarm: str) -> None:
    rule = RULES[alarm]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["labels"]["service"] == "esl_apps"
    assert rule["annotations"].keys() == {"summary", "action"}


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("esl_apps_switch_upp == 0", "no metric esl_apps_switch_upp"),
        ("esl_apps_calls > 0", "no metric esl_apps_calls"),
        ('esl_apps_switch_up{swich="fs1"}', "esl_apps_switch_up has no label swich"),
        ("sum by (app) (esl_apps_switch_up)", "no label app"),
        ("ratee(esl_apps_calls_total[5m])", "no metric ratee"),
    ],
)
def test_query_with_a_wrong_name_is_found(query: str, fault: str) -> None:
    assert fault in list(faults(query))


def test_message_with_a_label_that_was_summed_up_is_found() -> None:
    assert {"instance"} <= COMMON
    query = "sum by (switch) (esl_apps_switch_up)"
    assert list(shown_faults(query, "{{ $labels.switch }}")) == []
    assert list(shown_faults(query, "{{ instance }}")) == ["its answers have no label instance"]
    assert list(shown_faults("max without (worker) (esl_apps_ready)", "{{ worker }}")) != []
