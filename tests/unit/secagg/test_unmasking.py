"""Opening seeds at the server: wrong shares are found and named, wrong dealers are named, masks come off exactly."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import FaultyClientError
from securefl.primitives import shamir
from securefl.primitives.kem import Suite, seal
from securefl.primitives.prg import accumulate
from securefl.secagg import Params, masking, unmasking
from securefl.secagg.messages import AdvertiseKeys, Sealed, UnmaskShares
from securefl.secagg.unmasking import OpenedSeeds, open_seeds, remove_masks
from securefl.testing import SeededEntropy

IDS = (2, 3, 5, 7, 11, 13)
PARAMS = Params(IDS, 8, 10, threshold=4, suite=Suite.X25519)
both_suites = pytest.mark.parametrize("suite", Suite)


class Dealt:
    """Seeds of all clients, their shares, and what the server holds: keys with commitments."""

    def __init__(self, params: Params = PARAMS) -> None:
        self.params = params
        self.self_seeds = {i: SeededEntropy(i).token(32) for i in params.clients}
        self.mask_seeds = {i: SeededEntropy(-i).token(32) for i in params.clients}
        self.keys = {
            i: AdvertiseKeys(
                b"",
                masking.mask_key_pair(params, i, self.mask_seeds[i])[1].raw,
                masking.self_commitment(params, i, self.self_seeds[i]),
            )
            for i in params.clients
        }

    def shares(self, survivors: tuple[int, ...]) -> dict[int, list[bytes | None]]:
        """``{responder: its answer}``: one share per client, of the seed that is to be opened."""
        n = len(self.params.clients)
        answers: dict[int, list[bytes | None]] = {i: [] for i in self.params.clients}
        for dealer in self.params.clients:
            seed = self.self_seeds[dealer] if dealer in survivors else self.mask_seeds[dealer]
            entropy = SeededEntropy(1000 + dealer)
            dealt = shamir.split(seed, points=n, threshold=self.params.threshold, entropy=entropy)
            for responder, share in zip(self.params.clients, dealt, strict=True):
                answers[responder].append(share)
        return {i: answer for i, answer in answers.items() if i in survivors}

    def open(self, survivors: tuple[int, ...], answers: dict[int, list[bytes | None]]) -> OpenedSeeds:
        responses = {i: UnmaskShares(tuple(answer)) for i, answer in answers.items()}
        return open_seeds(self.params, self.keys, self.params.clients, survivors, responses)


def wrong(share: bytes | None, by: int = 1) -> bytes:
    assert share is not None
    return ((int.from_bytes(share, "big") + by) % shamir.PRIME).to_bytes(33, "big")


# ---- seeds --------------------------------------------------------------------------------------------------


@both_suites
@pytest.mark.parametrize("survivors", [IDS, IDS[1:], IDS[:-1], (2, 5, 7, 13)])
def test_survivors_open_self_masks_and_the_dropped_open_mask_keys(suite: Suite, survivors: tuple[int, ...]) -> None:
    dealt = Dealt(Params(IDS, 8, 10, threshold=4, suite=suite))
    opened = dealt.open(survivors, dealt.shares(survivors))
    assert opened.self_seeds == {i: dealt.self_seeds[i] for i in survivors}
    assert opened.mask_seeds == {i: dealt.mask_seeds[i] for i in IDS if i not in survivors}
    assert opened.suspects == ()


def test_any_t_answers_are_enough() -> None:
    dealt = Dealt()
    answers = dealt.shares(IDS)
    for chosen in combinations(IDS, 4):
        opened = dealt.open(IDS, {i: answers[i] for i in chosen})
        assert opened.self_seeds == dealt.self_seeds


def test_too_few_answers_open_nothing_and_name_the_dealer() -> None:
    dealt = Dealt()
    answers = dealt.shares(IDS)
    with pytest.raises(FaultyClientError, match="3 shares came, 4 right ones are needed") as caught:
        dealt.open(IDS, {i: answers[i] for i in IDS[:3]})
    assert caught.value.clients == (2,)


@pytest.mark.parametrize("liars", [liars for k in (0, 1, 2) for liars in combinations(IDS, k)], ids=str)
def test_every_two_liars_of_six_leave_the_sum_right_and_honest_clients_unnamed(liars: tuple[int, ...]) -> None:
    dealt = Dealt()
    answers = dealt.shares(IDS)
    for liar in liars:
        answers[liar] = [wrong(share, by=liar) for share in answers[liar]]
    opened = dealt.open(IDS, answers)
    assert opened.self_seeds == dealt.self_seeds
    if set(liars) & set(IDS[:4]):
        assert opened.suspects == liars  # a wrong seed came out, so all shares were compared with the right polynomial
    else:
        assert set(opened.suspects) <= set(liars)


@pytest.mark.parametrize("liars", [(2, 3, 5), (2, 7, 13), IDS], ids=str)
def test_too_many_liars_are_an_error_that_names_the_dealer(liars: tuple[int, ...]) -> None:
    dealt = Dealt()
    answers = dealt.shares(IDS)
    for liar in liars:
        answers[liar] = [wrong(share, by=liar) for share in answers[liar]]
    with pytest.raises(FaultyClientError, match="seed of client 2 cannot be opened") as caught:
        dealt.open(IDS, answers)
    assert 2 in caught.value.clients


@pytest.mark.parametrize("dropped", [(), (5,)], ids=["self-mask seed", "mask-key seed"])
def test_a_dealer_of_wrong_shares_is_named(dropped: tuple[int, ...]) -> None:
    """Its shares lie on one polynomial, but not on the one it committed to."""
    dealt = Dealt()
    survivors = tuple(i for i in IDS if i not in dropped)
    answers, at = dealt.shares(survivors), IDS.index(5)
    false = shamir.split(bytes(32), points=6, threshold=4, entropy=SeededEntropy(9))
    for responder in survivors:
        answers[responder][at] = false[PARAMS.point(responder) - 1]
    with pytest.raises(FaultyClientError, match="seed of client 5 cannot be opened") as caught:
        dealt.open(survivors, answers)
    assert 5 in caught.value.clients


def test_with_no_share_to_spare_all_who_answered_are_suspects() -> None:
    """A liar among them cannot be told from the dealer."""
    dealt = Dealt()
    answers = dealt.shares(IDS)
    answers[3][4] = wrong(answers[3][4])
    with pytest.raises(FaultyClientError, match="seed of client 11 cannot be opened") as caught:
        dealt.open(IDS, {i: answers[i] for i in (3, 5, 7, 13)})
    assert caught.value.clients == (3, 5, 7, 11, 13)


def test_a_share_of_the_wrong_kind_is_a_wrong_share() -> None:
    """A client that answers with the mask-key share of a survivor is found like any liar."""
    dealt = Dealt()
    answers = dealt.shares(IDS)
    answers[3][0] = shamir.split(dealt.mask_seeds[2], points=6, threshold=4, entropy=SeededEntropy(4))[
        PARAMS.point(3) - 1
    ]
    opened = dealt.open(IDS, answers)
    assert opened.self_seeds == dealt.self_seeds
    assert opened.suspects == (3,)


def test_absent_shares_are_left_out() -> None:
    dealt = Dealt()
    answers = dealt.shares(IDS)
    answers[2][3] = answers[13][3] = None
    opened = dealt.open(IDS, answers)
    assert opened.self_seeds == dealt.self_seeds
    assert opened.suspects == ()
    answers[5][3] = None
    with pytest.raises(FaultyClientError, match="seed of client 7 cannot be opened: 3 shares came") as caught:
        dealt.open(IDS, answers)
    assert caught.value.clients == (7,)


def test_a_share_outside_the_field_names_who_returned_it() -> None:
    dealt = Dealt()
    answers = dealt.shares(IDS)
    answers[7][1] = shamir.PRIME.to_bytes(33, "big")
    opened = dealt.open(IDS, answers)
    assert opened.self_seeds == dealt.self_seeds
    assert opened.suspects == (7,)


def test_a_wrong_suspicion_does_not_cost_the_sum() -> None:
    """Dealer 2 frames 3, 5 and 7 with bad shares; those are needed for the others all the same."""
    dealt = Dealt()
    answers = dealt.shares(IDS)
    for framed in (3, 5):
        answers[framed][0] = wrong(answers[framed][0])
    answers[7][1] = wrong(answers[7][1])  # and one real liar, against dealer 3
    opened = dealt.open(IDS, answers)
    assert opened.self_seeds == dealt.self_seeds
    assert set(opened.suspects) == {3, 5, 7}


def test_shares_whose_secret_has_no_32_bytes_are_passed_over() -> None:
    dealt = Dealt()
    answers = dealt.shares(IDS)
    # move the first interpolation's value to 2**256: a field element, but no seed
    weight = shamir.Interpolation([1, 2, 3, 4])._at_zero[0]
    by = (2**256 - int.from_bytes(dealt.self_seeds[2], "big")) * pow(weight, -1, shamir.PRIME)
    answers[2][0] = wrong(answers[2][0], by)
    opened = dealt.open(IDS, answers)
    assert opened.self_seeds == dealt.self_seeds
    assert opened.suspects == (2,)


def test_lagrange_coefficients_are_computed_once_per_set_of_points(monkeypatch: pytest.MonkeyPatch) -> None:
    dealt, made = Dealt(), []
    real = shamir.Interpolation

    def counting(points: tuple[int, ...]) -> shamir.Interpolation:
        made.append(points)
        return real(points)

    monkeypatch.setattr(unmasking.shamir, "Interpolation", counting)
    dealt.open(IDS, dealt.shares(IDS))
    assert made == [(1, 2, 3, 4)]


@pytest.mark.parametrize(("clients", "threshold"), [(40, 21), (200, 2), (1000, 2)])
def test_the_search_for_wrong_shares_is_bounded(clients: int, threshold: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One dealer of garbage must not keep the server busy: what is enumerated is counted here, not timed."""
    walked = 0

    def counting(pool, size):
        nonlocal walked
        for out in combinations(pool, size):
            walked += 1
            assert walked <= 50_000, "the search is not bounded"
            yield out

    monkeypatch.setattr(unmasking, "combinations", counting)
    params = Params(
        tuple(range(1, clients + 1)), 1, 1, threshold=threshold, suite=Suite.X25519, allow_minority_threshold=True
    )
    shares = {x: x**threshold + 7 for x in range(1, clients + 1)}  # of a degree too high: no t of them agree
    with pytest.raises(FaultyClientError):
        unmasking._Solver(params).open(1, shares, lambda seed: False)


def test_opened_seeds_do_not_print() -> None:
    dealt = Dealt()
    opened = dealt.open(IDS, dealt.shares(IDS))
    for text in (repr(opened), str(opened)):
        assert not any(seed.hex() in text or repr(seed)[2:-1] in text for seed in dealt.self_seeds.values())


# ---- masks --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(IDS), min_size=2).map(lambda found: tuple(sorted(found))), st.sampled_from(Suite))
def test_masks_come_off_the_sum_of_any_survivors(survivors: tuple[int, ...], suite: Suite) -> None:
    """y_i as in Bonawitz et al. 2017, §4.0.2, over everybody who shared keys; the dropped sent nothing."""
    dealt = Dealt(Params(IDS, 40, 10, threshold=4, suite=suite))
    params, roster = dealt.params, bytes(32)
    boxes: dict[int, dict[int, Sealed]] = {i: {} for i in IDS}
    pair_keys = {}
    for low, high in combinations(IDS, 2):
        secret = masking.pair_secret(params, dealt.mask_seeds[low], low, high)
        pair_keys[low, high] = masking.pair_stream_key(params, secret, low, high)
        _, to = masking.mask_key_pair(params, high, dealt.mask_seeds[high])
        info = masking.pair_box_info(params, roster, low, high)
        boxes[low][high], boxes[high][low] = Sealed(b"", seal(to, secret, info)), Sealed(b"", None)
    total, expected = np.zeros(params.lanes.words, dtype=np.uint64), np.zeros(40, dtype=np.uint64)
    for i in survivors:
        values = np.arange(40, dtype=np.uint64) % np.uint64(i)
        expected += values
        vector = params.lanes.pack(values)
        own = masking.self_stream_key(params, i, dealt.self_seeds[i])
        higher = [pair_keys[i, j] for j in IDS if j > i]
        accumulate(vector, [own, *higher], [pair_keys[j, i] for j in IDS if j < i])
        total += vector
    opened = OpenedSeeds(
        {i: dealt.self_seeds[i] for i in survivors}, {i: dealt.mask_seeds[i] for i in IDS if i not in survivors}
    )
    remove_masks(params, total, boxes, roster, survivors, opened)
    assert np.array_equal(params.lanes.unpack(total), expected)


@pytest.mark.parametrize("box", [b"", bytes(80), None], ids=["empty", "zeros", "absent"])
def test_a_pair_box_that_does_not_open_names_its_sender(box: bytes | None) -> None:
    dealt = Dealt()
    boxes = {2: {5: Sealed(b"", box)}}
    opened = OpenedSeeds({2: dealt.self_seeds[2]}, {5: dealt.mask_seeds[5]})
    with pytest.raises(FaultyClientError, match="mask secret of client 2 for client 5 does not open") as caught:
        remove_masks(PARAMS, np.zeros(PARAMS.lanes.words, dtype=np.uint64), boxes, bytes(32), (2,), opened)
    assert caught.value.clients == (2,)


def test_a_pair_box_made_for_another_roster_does_not_open() -> None:
    dealt = Dealt()
    _, to = masking.mask_key_pair(PARAMS, 5, dealt.mask_seeds[5])
    boxes = {2: {5: Sealed(b"", seal(to, bytes(32), masking.pair_box_info(PARAMS, b"\1" * 32, 2, 5)))}}
    opened = OpenedSeeds({2: dealt.self_seeds[2]}, {5: dealt.mask_seeds[5]})
    total = np.zeros(PARAMS.lanes.words, dtype=np.uint64)
    remove_masks(PARAMS, total.copy(), boxes, b"\1" * 32, (2,), opened)
    with pytest.raises(FaultyClientError):
        remove_masks(PARAMS, total, boxes, b"\2" * 32, (2,), opened)
    assert not total.any()  # nothing was taken off by halves


@pytest.mark.parametrize(("threshold", "most"), [(2, 2048), (61, 2048), (501, 534), (20_000, 20_002)])
def test_the_search_for_liars_is_bounded_by_its_cost_and_always_finds_one(threshold: int, most: int) -> None:
    assert unmasking._most_subsets(threshold) == most
