"""Links inside one process: order, sizes, closing, deadlines, counters."""

import pytest

from securefl.errors import FaultyPartyError, LostPartyError
from securefl.mpc.channel import Traffic, memory_channels


def test_messages_arrive_whole_in_order_and_are_counted() -> None:
    zero, one, two = memory_channels()
    zero.send(1, b"ab", memoryview(b"c"))
    zero.send(1, b"")
    two.send(1, b"xyz")
    assert bytes(one.receive(0, 3)) == b"abc"
    assert bytes(one.receive(0, 0)) == b""
    assert bytes(one.receive(2, 3)) == b"xyz"
    assert zero.traffic[1] == Traffic(bytes_sent=3, messages_sent=2)
    assert one.traffic[0] == Traffic(bytes_received=3, messages_received=2)
    assert one.traffic[2] == Traffic(bytes_received=3, messages_received=1)


def test_a_buffer_may_be_reused_once_it_is_sent() -> None:
    zero, one, _ = memory_channels()
    buffer = bytearray(b"first")
    zero.send(1, buffer)
    buffer[:] = b"later"
    assert bytes(one.receive(0, 5)) == b"first"


@pytest.mark.parametrize("expected", [2, 4])
def test_a_message_of_another_size_names_the_sender(expected: int) -> None:
    zero, _, two = memory_channels()
    zero.send(2, b"abc")
    with pytest.raises(FaultyPartyError, match=f"party 0 sent a message of 3 bytes where {expected} are due") as caught:
        two.receive(0, expected)
    assert caught.value.party == 0


def test_a_closed_link_names_who_closed_it() -> None:
    zero, one, _ = memory_channels()
    one.send(0, b"last")
    one.close()
    assert bytes(zero.receive(1, 4)) == b"last"
    for _ in range(2):
        with pytest.raises(LostPartyError, match="party 1 has closed") as caught:
            zero.receive(1, 4)
        assert caught.value.party == 1


def test_silence_ends_at_the_deadline() -> None:
    zero, _, _ = memory_channels(deadline=0.01)
    with pytest.raises(LostPartyError, match="party 2 sent nothing"):
        zero.receive(2, 1)
