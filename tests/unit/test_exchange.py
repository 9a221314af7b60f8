"""Exchanges of a server with many clients, by themselves: who is asked, who has answered, what is a repeat."""

from __future__ import annotations

import pytest

from securefl.errors import DecodeError, FaultyClientError, ProtocolError, TooFewClientsError
from securefl.exchange import Abort, Exchange
from securefl.types import PartyId
from securefl.wire import Envelope


def _envelope(sender: int, kind: int = 1, checksum: bytes = b"a" * 16) -> Envelope:
    return Envelope(1, kind, bytes(32), PartyId(sender), PartyId(0), memoryview(b""), checksum)


def _take(exchange: Exchange, envelope: Envelope) -> bool:
    admitted = exchange.admits(envelope, "HELLO", "OPEN", due=True)
    if admitted:
        exchange.took(envelope)
    return admitted


def test_an_exchange_goes_on_with_those_who_answered() -> None:
    exchange = Exchange()
    exchange.open([PartyId(3), PartyId(1), PartyId(2)])
    assert exchange.asked == exchange.waiting_for == (1, 2, 3)
    assert _take(exchange, _envelope(3))
    assert _take(exchange, _envelope(1))
    assert (exchange.answered, exchange.waiting_for) == ((1, 3), (2,))
    exchange.open(exchange.answered)
    assert (exchange.asked, exchange.answered) == ((1, 3), ())


def test_a_repeat_is_known_also_after_its_exchange() -> None:
    exchange = Exchange()
    exchange.open([PartyId(1)])
    assert _take(exchange, _envelope(1))
    assert not _take(exchange, _envelope(1))
    exchange.open([PartyId(2)])
    assert not _take(exchange, _envelope(1))
    exchange.forget()
    with pytest.raises(ProtocolError):
        _take(exchange, _envelope(1))


def test_what_was_not_taken_is_no_answer() -> None:
    """A frame that is admitted and then does not decode may be followed by the right one."""
    exchange = Exchange()
    exchange.open([PartyId(1)])
    assert exchange.admits(_envelope(1), "HELLO", "OPEN", due=True)
    assert _take(exchange, _envelope(1, checksum=b"b" * 16))


def test_two_different_answers_are_a_fault_and_lateness_is_not() -> None:
    exchange = Exchange()
    exchange.open([PartyId(1)])
    assert _take(exchange, _envelope(1))
    with pytest.raises(FaultyClientError, match="client 1 sent two different HELLO") as caught:
        _take(exchange, _envelope(1, checksum=b"b" * 16))
    assert caught.value.clients == (1,)
    for late in (_envelope(2), _envelope(1, kind=2)):
        with pytest.raises(ProtocolError, match="outside its exchange") as error:
            exchange.admits(late, "HELLO", "OPEN", due=late.kind == 1)
        assert not isinstance(error.value, FaultyClientError)


@pytest.mark.parametrize("error", [TooFewClientsError("few"), FaultyClientError("bad", [PartyId(1)])])
def test_a_notice_ends_as_the_server_did(error: TooFewClientsError | FaultyClientError) -> None:
    notice = Abort.decode(Abort.for_error(error).encode())
    assert type(notice.event().reason) is type(error)


@pytest.mark.parametrize("body", [b"", b"\0", b"\3", b"\1\1"])
def test_other_notices_are_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        Abort.decode(body)
