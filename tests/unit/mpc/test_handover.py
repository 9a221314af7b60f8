"""What a client hands to the parties of each engine: it adds up, is uniform, and has the size that is due."""

import numpy as np
import pytest

from securefl.cluster.threads import run_parties
from securefl.errors import DecodeError
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
        return reveal(take(party, shape, 16, memoryview(payloads[party.me])))

    for result in run_parties(program, engine=engine)[: 3 if engine == "replicated" else 2]:
        np.testing.assert_array_equal(result, words)


@ENGINES
def test_what_each_party_gets_is_uniform(engine: str) -> None:
    payloads = hand_out(engine, np.zeros(50_000, np.uint64), SystemEntropy())

    def program(party):
        x = take(party, (50_000,), 16, memoryview(payloads[party.me]))
        return [half for half in (x.part, x.second) if half is not None]

    for held in run_parties(program, engine=engine):
        for words in held:
            counts = np.bincount(words.view(np.uint8), minlength=256)
            # χ² with 255 degrees of freedom exceeds 400 with probability 1e-8.
            assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400
        if len(held) == 2:
            assert not (held[0] + held[1] == 0).any()


@ENGINES
@pytest.mark.parametrize("change", [-1, 1])
def test_other_sizes_are_refused(engine: str, change: int) -> None:
    payloads = [bytes(p) for p in hand_out(engine, np.zeros(4, np.uint64), SystemEntropy())]

    def program(party):
        payload = payloads[party.me] + b"\0" if change > 0 else payloads[party.me][:-1] or b"\0"
        with pytest.raises(DecodeError, match=r"shape \[4\] has \d+ bytes at this party"):
            take(party, (4,), 16, memoryview(payload))

    run_parties(program, engine=engine)


@pytest.mark.parametrize("component", range(3))
def test_results_of_parts_that_do_not_agree_are_under_masks_that_do_not_fit(component: int) -> None:
    """A client that tells the two holders of a component different things learns nothing from what comes out."""
    words = np.zeros(2000, np.uint64)
    payloads = [bytearray(p) for p in hand_out("replicated", words, SystemEntropy())]
    place = {0: (2, -1), 1: (1, 0), 2: (2, 0)}[component]  # at the one holder: the other keeps what it was told
    payloads[place[0]][place[1]] ^= 1

    def program(party):
        x = take(party, (2000,), 16, memoryview(bytes(payloads[party.me])))
        party.begin(2)
        return randomized_part(x - x)

    total = sum(run_parties(program, engine="replicated"))
    counts = np.bincount(total.view(np.uint8), minlength=256)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400
