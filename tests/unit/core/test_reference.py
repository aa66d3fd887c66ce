"""References of calls and names of jobs."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from esl_apps.core import reference
from esl_apps.core.reference import new_job, new_ref


@pytest.mark.parametrize(("make", "version"), [(new_ref, 7), (new_job, 4)])
def test_reference_is_a_uuid_of_its_version(make: Callable[[], str], version: int) -> None:
    made = {make() for _ in range(200)}
    assert len(made) == 200
    for text in made:
        read = uuid.UUID(text)
        assert (str(read), read.version, read.variant) == (text, version, uuid.RFC_4122)
    # All random bits are used: every digit comes behind the two bits of the variant.
    assert {text[19] for text in made} == set("89ab")


def test_reference_holds_its_time_and_sorts_by_it() -> None:
    refs = [new_ref(1_800_000_000.0 + i) for i in range(5)]
    assert refs == sorted(refs)
    assert [reference.began(ref) for ref in refs] == [1_800_000_000.0 + i for i in range(5)]
