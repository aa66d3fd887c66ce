"""``esl-apps webhook``: how webhooks are delivered, a test message, and delivering again."""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_list, report, report_json, report_result
from esl_apps.config.model import Config
from esl_apps.core.notification_shapes import WebhookTest, WebhookTestPayload
from esl_apps.core.webhooks import headers, key_of
from esl_apps.net.post import Failed
from esl_apps.net.resolver import Resolver
from esl_apps.node.webhooks import poster
from esl_apps.operations import webhooks
from esl_apps.store import membership, redis_client
from esl_apps.store.webhook_queue import Target


def run(config: Config, arguments: argparse.Namespace) -> int:
    if arguments.since is not None and arguments.action != "replay":
        print_error("--since goes with replay")
        return Exit.WRONG
    if arguments.action == "list":
        if arguments.name is not None:
            print_error("webhook list: expected no NAME; it lists all")
            return Exit.WRONG
        return _list(config, arguments)
    if arguments.name is None:
        print_error(f"webhook {arguments.action}: expected a NAME")
        return Exit.WRONG
    try:
        target = webhooks.find(config, arguments.name)
    except LookupError as error:
        print_error(f"{arguments.name}: {error}")
        return Exit.FAILED
    return _test(target, arguments) if arguments.action == "test" else _replay(config, target, arguments)


def _list(config: Config, arguments: argparse.Namespace) -> int:
    client = redis_client.connect(config.redis.url)
    listed = webhooks.listed(config, client, membership.names(client))
    print_list(listed, _line, "webhooks", as_json=arguments.json)
    return Exit.OK


def _line(view: Mapping[str, Any]) -> str:
    oldest = f", the oldest for {view['oldest_seconds']:.0f} s" if view["oldest_seconds"] is not None else ""
    aside = f", {view['set_aside']} given up so far" if view["set_aside"] else ""
    why = f": {view['last_error']}" if view["last_error"] else ""
    return f"{view['name']:<24} {view['state']:<10} {view['depth']} wait{oldest}{aside}{why}"


def _test(target: Target, arguments: argparse.Namespace) -> int:
    """Post a signed message of type ``test`` from this machine, past the queue."""
    webhook = target.webhook
    id = f"test_{secrets.token_hex(8)}"
    body = msgspec.json.encode(WebhookTest(WebhookTestPayload(webhook.name, target.integrator)))
    keys = [key_of(secret) for secret in webhook.secrets]
    began = time.monotonic()
    status, reason = None, ""
    try:
        status = poster(webhook, Resolver(1)).post(headers(keys, id, int(time.time()), body), body).status
    except Failed as error:
        reason = str(error)
    seconds = time.monotonic() - began
    if status is not None and not 200 <= status < 300:
        reason = f"status {status}, and only 2xx means that a message was taken"
    if arguments.json:
        report_json(
            {"name": webhook.name, "id": id, "status": status, "seconds": round(seconds, 3), "error": reason or None}
        )
    elif reason:
        print_error(f"{webhook.name}: {reason}")
    else:
        report(f"{webhook.name}: taken with status {status} in {seconds:.2f} s, as {id}")
    return Exit.FAILED if reason else Exit.OK


def _replay(config: Config, target: Target, arguments: argparse.Namespace) -> int:
    if arguments.since is None:
        print_error("webhook replay: expected --since, as 2h or 2026-11-29T12:00")
        return Exit.WRONG
    waiting = webhooks.replay(redis_client.connect(config.redis.url), target, arguments.since)
    name = target.webhook.name
    text = f"{name}: {waiting} notifications wait to be delivered"
    report_result({"name": name, "since": arguments.since, "waiting": waiting}, text, as_json=arguments.json)
    return Exit.OK
