"""``esl-apps import``: Kazoo's documents, as CouchDB and Crossbar give them, into Redis.

It imports ``system_config/cccp`` and ``system_config/callflow.disa`` (their ``default``), accounts, users and cccps
documents, in this order, whatever the order of the files, and keeps their ids. A document that was imported before and
has not changed since is skipped, even if its card was changed or deleted over HTTP in the meantime, and under any key:
importing twice changes nothing. A deleted card doesn't come back, whatever its document says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.kazoo_import import export
from esl_apps.cli.kazoo_import.importer import FAILED, LEFT, SAME, TOOK, Importer, Result
from esl_apps.cli.output import report_result
from esl_apps.config.model import Config
from esl_apps.store import redis_client
from esl_apps.store.redis_client import Client


def run(config: Config, arguments: argparse.Namespace) -> int:
    client = redis_client.connect(config.redis.url)
    count = dict.fromkeys((TOOK, SAME, LEFT, FAILED), 0)
    for result in import_files(arguments.files, config, client):
        count[result.outcome] += 1
        item = {"outcome": result.outcome.lower(), "document": result.what, "message": result.message}
        report_result(item, str(result), as_json=arguments.json)
    if not arguments.json:
        print(", ".join(f"{number} {outcome}" for outcome, number in count.items()), file=sys.stderr)
    return Exit.FAILED if count[FAILED] else Exit.OK


def import_files(files: Iterable[str], config: Config, client: Client) -> Iterator[Result]:
    """Import files, and yield each document's result when it is there.

    :raises StoreUnavailable: Redis is down; what was imported so far stays, and the next run continues.
    """
    documents: list[tuple[str, export.Document]] = []
    for file in files:
        try:
            text = export.read_text(file)
        except ValueError as error:
            yield Result(FAILED, file, str(error))
            continue
        empty = True
        for where, found in export.read(text):
            empty = False
            if isinstance(found, str):
                yield Result(FAILED, f"{file}:{where}", found)
            else:
                documents.append((f"{file}:{where}", found))
        if empty:
            yield Result(LEFT, file, "no document in it")
    yield from Importer(config, client).take(documents)
