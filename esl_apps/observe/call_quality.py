"""Histograms of how calls sounded. The labels are the two parties' names, nothing that a caller could choose."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter

from esl_apps.observe.durations import Durations

_MOS = (1.0, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2, 4.4)
_LOSS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_JITTER = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
_ROUND_TRIP = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
_DELAY = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)


class Heard(Protocol):
    """How one leg sounded, in the record's own units (``core.quality``)."""

    mos: float | None
    loss: float | None
    jitter: float | None
    round_trip: float | None
    post_dial_delay: float | None
    packets_in: int | None
    packets_out: int | None


class QualityMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, documentation: str, bounds: tuple[float, ...]) -> Durations:
            return Durations(f"esl_apps_leg_{name}", documentation, ["party"], bounds, registry)

        self._mos = histogram("mos", "Mean opinion score of the sound from a leg", _MOS)
        self._loss = histogram("loss_ratio", "Share of the packets from a leg that were lost", _LOSS)
        self._jitter = histogram("jitter_seconds", "Largest deviation of the packets' intervals from a leg", _JITTER)
        self._round_trip = histogram("round_trip_seconds", "Average round trip of a leg by RTCP", _ROUND_TRIP)
        self._delay = histogram("post_dial_delay_seconds", "Time from a leg's INVITE to ringing or early media", _DELAY)
        self._silent = Counter(
            "esl_apps_leg_silent",
            "Answered legs that sent (in) or were sent (out) no packet",
            ["party", "direction"],
            registry=registry,
        )

    def observe(self, party: str, leg: Heard) -> None:
        if leg.mos is not None:
            self._mos.labels(party).observe(leg.mos)
        if leg.loss is not None:
            self._loss.labels(party).observe(leg.loss)
        if leg.post_dial_delay is not None:
            self._delay.labels(party).observe(leg.post_dial_delay)
        if leg.jitter is not None:
            self._jitter.labels(party).observe(leg.jitter / 1000)
        if leg.round_trip is not None:
            self._round_trip.labels(party).observe(leg.round_trip / 1000)
        if leg.packets_in == 0:
            self._silent.labels(party, "in").inc()
        if leg.packets_out == 0:
            self._silent.labels(party, "out").inc()
