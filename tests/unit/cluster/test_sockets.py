"""Links over sockets: order, sizes, more bytes than the kernel takes, a peer that is gone or silent."""

import threading

import pytest

from securefl.cluster.sockets import SocketChannel, connected_pair
from securefl.errors import FaultyPartyError, LostPartyError
from securefl.mpc.channel import Traffic

FAMILIES = pytest.mark.parametrize("family", ["unix", "tcp"])


def two(family: str = "unix", deadline: float = 20.0) -> tuple[SocketChannel, SocketChannel]:
    left, right = connected_pair(family)
    return SocketChannel(0, {1: left}, deadline), SocketChannel(1, {0: right}, deadline)


@FAMILIES
def test_messages_arrive_whole_and_in_order(family: str) -> None:
    zero, one = two(family)
    zero.send(1, b"ab", memoryview(b"c"))
    zero.send(1)
    zero.send(1, b"", b"d")
    assert [bytes(one.receive(0, size)) for size in (3, 0, 1)] == [b"abc", b"", b"d"]
    assert zero.traffic[1] == Traffic(bytes_sent=4, messages_sent=3)
    assert one.traffic[0] == Traffic(bytes_received=4, messages_received=3)
    zero.close()
    one.close()


@FAMILIES
def test_both_send_much_before_either_reads(family: str) -> None:
    ends = two(family)
    size = 20 << 20
    got: list[bytes] = [b"", b""]

    def swap(me: int) -> None:
        buffer = bytearray([me + 1]) * size
        ends[me].send(1 - me, buffer, b"end")
        buffer[:] = bytes(size)  # it is sent: the caller may reuse it
        got[me] = bytes(ends[me].receive(1 - me, size + 3))
        ends[me].flush()

    threads = [threading.Thread(target=swap, args=(me,)) for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] == b"\2" * size + b"end"
    assert got[1] == b"\1" * size + b"end"
    for end in ends:
        end.close()


@FAMILIES
def test_messages_read_ahead_are_kept_whole(family: str) -> None:
    """Many small ones in one system call, and a large one that begins in what was read ahead."""
    zero, one = two(family)
    messages = [bytes([i]) * (7 * i) for i in range(60)] + [b"x" * (1 << 17), b"", b"yz"]
    for message in messages:
        zero.send(1, message)
    for turn, message in enumerate(messages):
        got = one.receive_up_to(0, 1 << 17) if turn % 2 else one.receive(0, len(message))
        assert bytes(got) == message
    assert one.traffic[0].messages_received == len(messages)
    zero.send(1, b"abc")
    with pytest.raises(FaultyPartyError, match="3 bytes where at most 2"):
        one.receive_up_to(0, 2)
    zero.close()
    one.close()


@pytest.mark.parametrize("due", [0, 2, 4, 100])
def test_a_message_of_another_size_is_refused_at_its_header(due: int) -> None:
    zero, one = two()
    zero.send(1, b"abc")
    with pytest.raises(FaultyPartyError, match=f"3 bytes where {due} are due") as caught:
        one.receive(0, due)
    assert caught.value.party == 0
    zero.close()
    one.close()


@FAMILIES
def test_a_peer_that_is_gone_is_named(family: str) -> None:
    zero, one = two(family)
    zero.close()
    with pytest.raises(LostPartyError, match="party 0") as caught:
        one.receive(0, 1)
    assert caught.value.party == 0

    def keep_sending() -> None:  # the first message may still be taken by the kernel
        for _ in range(3):
            one.send(0, bytes(1 << 16))

    with pytest.raises(LostPartyError, match="party 0 is gone"):
        keep_sending()
    one.close()


def test_silence_ends_at_the_deadline() -> None:
    zero, one = two(deadline=0.02)
    with pytest.raises(LostPartyError, match="party 0 made no progress"):
        one.receive(0, 1)
    zero.close()
    one.close()


def test_small_messages_wait_for_the_next_large_one_or_for_a_flush() -> None:
    left, right = connected_pair("tcp")
    zero, one = SocketChannel(0, {1: left}, 20.0, gather=100), SocketChannel(1, {0: right}, 0.2)
    zero.send(1, b"a" * 40)
    zero.send(1, b"b" * 40)
    with pytest.raises(LostPartyError):
        one.receive(0, 40)
    one.deadline = 20.0
    zero.send(1, b"c" * 5, b"d" * 200)
    assert [bytes(one.receive(0, size)) for size in (40, 40, 205)] == [b"a" * 40, b"b" * 40, b"c" * 5 + b"d" * 200]
    zero.send(1)
    zero.flush()
    assert bytes(one.receive(0, 0)) == b""
    zero.close()
    one.close()


def test_a_party_that_waits_lets_out_what_it_has_gathered() -> None:
    """Otherwise two that answer each other would wait for ever."""
    left, right = connected_pair()
    ends = SocketChannel(0, {1: left}, 5.0, gather=1000), SocketChannel(1, {0: right}, 5.0, gather=1000)
    got: list[list[bytes]] = [[], []]

    def talk(me: int) -> None:
        for turn in range(20):
            ends[me].send(1 - me, bytes([turn]) * turn)
            got[me].append(bytes(ends[me].receive(1 - me, turn)))
        ends[me].flush()

    threads = [threading.Thread(target=talk, args=(me,)) for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] == got[1] == [bytes([turn]) * turn for turn in range(20)]
    for end in ends:
        end.close()


@pytest.mark.parametrize("awake", [0.0, 0.05])
def test_a_party_that_stays_awake_gets_messages_before_and_after_it_falls_asleep(awake: float) -> None:
    left, right = connected_pair("tcp")
    zero, one = SocketChannel(0, {1: left}, 0.3), SocketChannel(1, {0: right}, 0.3, awake=awake)
    for seconds in (0.0, 0.01, 0.1):
        timer = threading.Timer(seconds, zero.send, (1, b"x" * 50))
        timer.start()
        assert bytes(one.receive(0, 50)) == b"x" * 50
        timer.join()
    with pytest.raises(LostPartyError, match=r"no progress for 0\.3 s"):
        one.receive(0, 1)
    zero.close()
    one.close()
