"""A ticket takes seconds from one limit, and gives back those that weren't used."""

from __future__ import annotations

from esl_apps.core.limits import Bound, Limits
from esl_apps.core.tickets import Ticket

LIMIT = Bound("account:acme", "r", Limits(minutes_per_day=10))
TRIPS = Bound("breaker:account:acme", "r", Limits(minutes_per_day=10), trips="account:acme")


def test_limit_is_paid_ahead_and_a_breaker_is_not() -> None:
    limit, breaker = Ticket(LIMIT), Ticket(TRIPS)
    assert (limit.ahead, breaker.ahead) == (True, False)
    assert (limit.asks(0.0, 10.0), breaker.asks(0.0, 10.0)) == ((0.0, 10.0), (0.0, 0.0))
    assert limit.timed
    assert not Ticket(Bound("account:acme", "r", Limits(calls_per_day=1))).timed


def test_ticket_wants_what_is_missing_to_have_so_much_ahead() -> None:
    ticket = Ticket(LIMIT)
    ticket.take(10.0, 50.0, "1", "2", "minutes_per_day")
    assert (ticket.taken, ticket.left, ticket.why) == (10.0, 50.0, "minutes_per_day")
    assert [ticket.asks(spent, 10.0) for spent in (0.0, 4.0, 12.0)] == [(0.0, 0.0), (0.0, 4.0), (2.0, 10.0)]
    assert ticket.asks(4.0, 0.0) == (0.0, 0.0)


def test_ticket_gives_back_the_latest_slices_with_their_times() -> None:
    ticket = Ticket(LIMIT)
    for minute in range(3):
        ticket.take(10.0, 0.0, "1", str(minute), "")
    assert ticket.unused(14.0) == [(10.0, "1", "2"), (6.0, "1", "1")]
    assert ticket.taken == 14.0
    assert ticket.unused(14.0) == []


def test_ticket_keeps_its_latest_slices_alone() -> None:
    ticket = Ticket(LIMIT)
    for minute in range(20):
        ticket.take(1.0, 0.0, "1", str(minute), "")
    ticket.take(0.0, 0.0, "1", "20", "")
    assert [minute for _seconds, _day, minute in ticket.slices] == [str(minute) for minute in range(12, 20)]
