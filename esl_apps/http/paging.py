"""Pages of a list: how many items a request asks for, and behind which one they begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import falcon

from esl_apps.core import status
from esl_apps.http.errors import problem
from esl_apps.http.parameters import in_query


@dataclass(frozen=True, slots=True)
class Paging:
    """The query parameters ``limit`` and ``before`` of one list, whose items each have a reference."""

    page: int
    """Items of a page, if the request doesn't say."""
    most: int

    @property
    def parameters(self) -> tuple[dict[str, Any], ...]:
        return (
            in_query("limit", {"type": "integer", "minimum": 1, "maximum": self.most, "default": self.page}),
            in_query("before", status.Ref, "`next` of the page before"),
        )

    def read(self, req: falcon.Request) -> tuple[int, str | None]:
        """Return the limit, and the reference behind which the page begins. :raises Problem: 422."""
        try:
            limit = req.get_param_as_int("limit", min_value=1, max_value=self.most, default=self.page)
        except falcon.HTTPBadRequest:
            raise problem(422, "value", f"expected a number from 1 to {self.most}", "limit") from None
        before: str | None = req.get_param("before")
        if before is not None and not status.is_ref(before):
            raise problem(422, "value", "expected the value of an earlier answer's next", "before")
        return limit, before
