"""What comparison costs on replicated shares, and what it shows. Its results: tests/unit/mpc/test_compare.py."""

import numpy as np
import pytest

from securefl.cluster.threads import run_parties
from securefl.mpc.operations import negative, number, relu, relu_and_sign, reveal, reveal_bits, select
from securefl.mpc.party import Party
from securefl.mpc.replicated.bits import conjunction
from securefl.mpc.shared import Shared


def run(program):
    return run_parties(program, engine="replicated")


COSTS = [
    (negative, 65.625, 6),
    (relu, 97.625, 8),
    (lambda x: relu(x, 16), 111.625, 8),
    (lambda x: number(negative(x)), 65.625 + 24, 8),
    (lambda x: select(negative(x), x), 65.625 + 32, 8),
    (lambda x: select(relu_and_sign(x)[1], x), 97.625 + 24, 10),
]


@pytest.mark.parametrize(("operation", "each", "rounds"), COSTS)
def test_bytes_and_rounds(operation, each: float, rounds: int) -> None:
    n = 1 << 14

    def program(party: Party):
        before = sum(link.bytes_sent for link in party.channel.traffic.values())
        operation(Shared(party, (n,)))
        return sum(link.bytes_sent for link in party.channel.traffic.values()) - before, party.rounds

    results = run(program)
    assert sum(sent for sent, _ in results) / n == each
    assert [taken for _, taken in results] == [rounds] * 3


def test_planes_are_replicated_and_anded() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 3, 3, 40), dtype=np.uint8)  # three components each

    def program(party: Party):
        me, after = party.me, (party.me + 1) % 3
        return conjunction(party, (a[me], a[after]), (b[me], b[after]))

    held = run(program)
    for me in range(3):
        np.testing.assert_array_equal(held[me][1], held[(me + 1) % 3][0])
    np.testing.assert_array_equal(
        held[0][0] ^ held[1][0] ^ held[2][0], np.bitwise_xor.reduce(a) & np.bitwise_xor.reduce(b)
    )


@pytest.mark.parametrize("value", [0, 2**62 - 1, -(2**62) + 1])
def test_what_a_party_gets_in_a_relu_is_uniform(value: int) -> None:
    """Every message, each by itself: a right implementation fails with probability 1e-8 per message."""
    n = 1 << 15

    def program(party: Party):
        got: list[np.ndarray] = []
        receive = party.channel.receive

        def watch(sender: int, size: int) -> memoryview:
            message = receive(sender, size)
            got.append(np.frombuffer(message, np.uint8).copy())
            return message

        x = Shared(party, (n,), 32).add_words(np.array(value, dtype=np.int64).view(np.uint64))
        party.channel.receive = watch
        y, bits = relu_and_sign(x, 16)
        select(bits, y)
        return [*got, y.part.view(np.uint8), y.second.view(np.uint8), bits.part, bits.second]

    for seen in run(program):
        for message in seen:
            counts = np.bincount(message, minlength=256)
            # χ² with 255 degrees of freedom exceeds 400 with probability 1e-8.
            assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400


def test_shares_of_a_result_do_not_depend_on_one_another_across_batches() -> None:
    def program(party: Party):
        x = Shared(party, (500,))
        first = relu(x)
        party.begin(2)
        second = relu(x)
        assert not (first.part == second.part).any()
        return reveal(first - second)

    assert not any(result.any() for result in run(program))


def test_bits_are_opened_and_nothing_else() -> None:
    values = np.arange(-8, 8)

    def program(party: Party):
        bits = negative(Shared(party, (16,), 0).add_words(values.view(np.uint64)))
        before = [link.bytes_received for link in party.channel.traffic.values()]
        opened = reveal_bits(bits)
        assert sum(link.bytes_received for link in party.channel.traffic.values()) - sum(before) == 2
        return opened

    for opened in run(program):
        np.testing.assert_array_equal(opened, values < 0)
