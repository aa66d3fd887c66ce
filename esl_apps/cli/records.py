"""``esl-apps records``: the records of the last days, of all integrators and accounts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_json, print_line
from esl_apps.cli.parser import near
from esl_apps.cli.times import shown_time
from esl_apps.config.model import Config
from esl_apps.core import terms
from esl_apps.core.written_number import texts
from esl_apps.operations import records
from esl_apps.operations.record_table import table
from esl_apps.store import redis_client
from esl_apps.store.record_history import Chosen, RecordHistory

_PAGE = 500


def run(config: Config, arguments: argparse.Namespace) -> int:
    count = 0
    if arguments.csv:
        print(table((), ("integrator",)), end="")
    for page in _pages(config, arguments):
        count += len(page)
        if arguments.csv:
            print(table(page, ("integrator",), header=False), end="")
            continue
        for record in page:
            if arguments.json:
                print_json(record)
            else:
                print_line(_line(record))
    _warn(config, arguments)
    if not (arguments.csv or arguments.json):
        print(f"{count} records; records are kept for {config.records.keep_days} days", file=sys.stderr)
    return Exit.OK


def _warn(config: Config, arguments: argparse.Namespace) -> None:
    """Warn of a filter that finds nothing. An integrator that isn't in the configuration may still have records."""
    integrators = ["", *(integrator.name for integrator in config.integrators)]
    if arguments.integrator is not None and arguments.integrator not in integrators:
        print_error(
            f"no integrator {arguments.integrator} in the configuration{near(arguments.integrator, integrators)}"
        )
    reason = arguments.end_reason
    if reason is not None and reason not in terms.END_REASONS:
        print_error(f"no call ends with {reason}{near(reason, terms.END_REASONS)}")


def _pages(config: Config, arguments: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    wanted = {"end_reason": arguments.end_reason, "account_id": arguments.account}
    fields = [(name, text) for name, text in wanted.items() if text is not None]
    numbers, agents = (
        () if text is None else texts(text, config.plan()) for text in (arguments.number, arguments.agent)
    )
    chosen = Chosen(arguments.since, arguments.until, fields, numbers, agents=agents)
    history = RecordHistory(redis_client.connect(config.redis.url))
    names = [integrator.name for integrator in config.integrators]
    before: str | None = None
    while True:
        page, before = records.page(history, names, chosen, _PAGE, before, arguments.integrator)
        yield page
        if before is None:
            return


def _line(record: dict[str, Any]) -> str:
    at = shown_time(record["dialed_at"])
    return (
        f"{at}  {record['call_ref']}  {record['end_reason']:<16} {record['call_time']:5d} s  {record['ref']:<12} "
        f"{record['extension'] or '-'} -> {record['number'] or '-'}  {record['integrator'] or '-'}"
    )
