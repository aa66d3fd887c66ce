"""Documents about a port, made once for each configuration: anyone may ask for them, and to make one takes 7 ms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import falcon
import msgspec

from esl_apps.config.model import Config
from esl_apps.http.body import answer
from esl_apps.http.routes import Answer, Operation


def describing(name: str, summary: str, form: str, make: Callable[[Any], Any]) -> Operation:
    """Return the operation ``GET`` of a document. ``make`` returns a port's."""
    answers = {200: Answer(form, {"type": "object"})}
    return Operation("GET", name, summary, Document(make), scopes=None, answers=answers, errors=(429,))


class Document:
    """A handler that answers with what ``make`` returns for its port."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        #: By port: the configuration in force when it was made, and the document as JSON.
        self._made: WeakKeyDictionary[Any, tuple[Config, msgspec.Raw]] = WeakKeyDictionary()

    def __call__(self, port: Any, _req: falcon.Request, resp: falcon.Response) -> None:
        config = port.services.policy.config
        made = self._made.get(port)
        if made is None or made[0] is not config:
            made = self._made[port] = config, msgspec.Raw(msgspec.json.encode(self._make(port)))
        answer(resp, 200, made[1])
