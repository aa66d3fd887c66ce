"""What every application needs of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from esl_apps.core.dialstring import Endpoints
from esl_apps.core.numbers import NumberPlan


@dataclass(frozen=True)
class Settings:
    """What the flows need of the configuration."""

    node: str
    plan: NumberPlan
    endpoints: Endpoints
    caller_id_format: str
    ringback: str
    recordings: str
    """The folder as the switch writes it."""
