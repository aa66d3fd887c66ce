"""Rules for ``switches``."""

from __future__ import annotations

from collections.abc import Iterator

from esl_apps.config.rules import context
from esl_apps.config.rules.context import Context, Finding
from esl_apps.net.address import split_address


def there_is_a_switch(c: Context) -> Iterator[Finding]:
    if not c.config.switches and not any(path.startswith("switches") for path in c.draft.broken):
        yield "switches", "expected at least one switch"


def switches_differ(c: Context) -> Iterator[Finding]:
    names: set[str] = set()
    addresses: set[tuple[str, int]] = set()
    for path, switch in c.draft.switches:
        if switch.name in names:
            yield f"{path}.name", "a switch above has this name"
        names.add(switch.name)
        try:
            address = split_address(switch.address)
        except ValueError:
            yield from context.address(switch.address, f"{path}.address")
            continue
        if address in addresses:
            yield f"{path}.address", "a switch above has this address"
        addresses.add(address)


RULES = (there_is_a_switch, switches_differ)
