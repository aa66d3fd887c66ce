"""The context that rules work in, and the checks that several of them share."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from esl_apps.config.decode import Draft
from esl_apps.config.model import Config
from esl_apps.core.number_classes import CLASSES
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import NumberPlan
from esl_apps.net.address import split_address

Finding = tuple[str, str]
"""The path of a key, and what is wrong with its value."""


@dataclass(frozen=True)
class Context:
    """A configuration whose types are right, or the part of one that can be read."""

    draft: Draft
    plan: NumberPlan | None
    """None: ``dial`` or the high-risk ranges are wrong, so that numbers can't be judged."""

    @property
    def config(self) -> Config:
        return self.draft.config

    def is_readable(self, section: str) -> bool:
        return section not in self.draft.broken

    @property
    def classes(self) -> set[str] | None:
        """The classes of numbers; None: the operator's own can't be read."""
        return {*CLASSES, *self.config.dial.classifiers} if self.is_readable("dial") else None

    @property
    def redis_urls(self) -> list[tuple[str, str]]:
        """Each URL of a Redis with its path."""
        own = [
            (f"{path}.redis.url", integrator.redis.url)
            for path, integrator in self.draft.integrators
            if integrator.redis is not None
        ]
        return [("redis.url", self.config.redis.url), *own]


Rule = Callable[[Context], Iterator[Finding]]


def address(text: str, path: str) -> Iterator[Finding]:
    try:
        split_address(text)
    except ValueError as error:
        yield path, str(error)


def regex(text: str, path: str) -> Iterator[Finding]:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        yield path, f"not a regular expression: {error}"


def networks(values: list[str], path: str) -> Iterator[Finding]:
    for i, text in enumerate(values):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            yield f"{path}[{i}]", "expected an address or a CIDR network"


def numbers(plan: NumberPlan | None, texts: Iterable[tuple[str, str | None]]) -> Iterator[Finding]:
    """``texts``: (path, number), None where the file has none."""
    for path, text in texts:
        if plan is not None and text is not None:
            try:
                plan.read(text)
            except NotDialable as error:
                yield path, f"not a telephone number: {error}"
