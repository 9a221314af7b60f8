"""What a client hands to the parties of each engine: it adds up, is uniform, and has the size that is due."""

import numpy as np
import pytest

from securefl.cluster.threads import run_parties
from securefl.errors import DecodeError
from securefl.mpc.channel import HELPER
from securefl.mpc.handover import hand_out, take
from securefl.mpc.operations import randomized_part, reveal
from securefl.primitives.entropy import SystemEntropy

ENGINES = pytest.mark.parametrize("engine", ["dealer", "replicated"])


@ENGINES
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_the_parties_have_the_value(engine: str, shape) -> None:
    words = np.random.default_rng(0).integers(0, 2**64, shape, dtype=np.uint64)
    payloads = hand_out(engine, words.copy(), SystemEntropy())

    def program(party):
        return reveal(take(party, shape, 16, memoryview(b"".join(payloads[party.me]))))

    for result in run_parties(program, engine=engine)[: 3 if engine == "replicated" else 2]:
        np.testing.assert_array_equal(result, words)


@ENGINES
def test_what_each_party_gets_is_uniform(engine: str) -> None:
    payloads = hand_out(engine, np.zeros(50_000, np.uint64), SystemEntropy())

    def program(party):
        x = take(party, (50_000,), 16, memoryview(b"".join(payloads[party.me])))
        return [half for half in (x.part, x.second) if half is not None]

    for held in run_parties(program, engine=engine):
        for words in held:
            counts = np.bincount(words.view(np.uint8), minlength=256)
            # χ² with 255 degrees of freedom exceeds 400 with probability 1e-8.
            assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400
        if len(held) == 2:
            assert not (held[0] + held[1] == 0).any()


def test_what_comes_opened_is_uniform_at_each_party_and_adds_up() -> None:
    """Of zeros: parts and opened form; the helper has no word of the value, and knows the mask."""
    payloads = hand_out("dealer", np.zeros(50_000, np.uint64), SystemEntropy(), opened=True)
    assert sum(memoryview(part).nbytes for part in payloads[HELPER]) == 32

    def program(party):
        x = take(party, (50_000,), 16, memoryview(b"".join(payloads[party.me])), opened=True)
        assert x.opened is not None
        return x.part, x.opened.m, x.opened.mask

    zero, one, helper = run_parties(program)
    assert helper[:2] == (None, None)
    for part, m, mask in (zero, one):
        for words in (part, m, mask):
            counts = np.bincount(words.view(np.uint8), minlength=256)
            assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400  # as above
        assert (m != mask).all()
    assert (zero[0] + one[0] == 0).all()
    assert (zero[1] == one[1]).all()
    assert (zero[2] + one[2] == helper[2]).all()
    assert (zero[1] == helper[2]).all(), "m is the value, 0, and the mask"


@pytest.mark.parametrize("party", range(3))
@pytest.mark.parametrize("change", [-1, 1])
def test_other_sizes_of_what_comes_opened_are_refused(party: int, change: int) -> None:
    payload = b"".join(hand_out("dealer", np.zeros(4, np.uint64), SystemEntropy(), opened=True)[party])

    def program(me):
        if me.me == party:
            with pytest.raises(DecodeError, match=r"shape \[4\] has \d+ bytes at this party"):
                take(me, (4,), 16, memoryview(payload + b"\0" if change > 0 else payload[:-1]), opened=True)

    run_parties(program)


def test_three_servers_take_nothing_opened() -> None:
    def program(party):
        with pytest.raises(DecodeError, match="servers of a helper"):
            take(party, (4,), 16, memoryview(bytes(48)), opened=True)

    run_parties(program, engine="replicated")


@ENGINES
@pytest.mark.parametrize("change", [-1, 1])
def test_other_sizes_are_refused(engine: str, change: int) -> None:
    payloads = [b"".join(p) for p in hand_out(engine, np.zeros(4, np.uint64), SystemEntropy())]

    def program(party):
        payload = payloads[party.me] + b"\0" if change > 0 else payloads[party.me][:-1] or b"\0"
        with pytest.raises(DecodeError, match=r"shape \[4\] has \d+ bytes at this party"):
            take(party, (4,), 16, memoryview(payload))

    run_parties(program, engine=engine)


@pytest.mark.parametrize("component", range(3))
def test_results_of_parts_that_do_not_agree_are_under_masks_that_do_not_fit(component: int) -> None:
    """A client that tells the two holders of a component different things learns nothing from what comes out."""
    words = np.zeros(2000, np.uint64)
    payloads = [bytearray(b"".join(p)) for p in hand_out("replicated", words, SystemEntropy())]
    place = {0: (2, -1), 1: (1, -1), 2: (2, 0)}[component]  # at the one holder: the other keeps what it was told
    payloads[place[0]][place[1]] ^= 1

    def program(party):
        x = take(party, (2000,), 16, memoryview(bytes(payloads[party.me])))
        party.begin(2)
        return randomized_part(x - x)

    total = sum(run_parties(program, engine="replicated"))
    counts = np.bincount(total.view(np.uint8), minlength=256)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400
