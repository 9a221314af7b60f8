"""Data that need no download: a generator of transactions, and text that comes with Python.

**The transactions are synthetic.** No table of real bank fraud can be shipped. The generator imitates what makes such
data hard: few frauds, several kinds of them, and banks that differ in customers and in what they are attacked by.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.fl.seeds import SeedTree

__all__ = ["CONTEXT", "Raw", "fraud", "next_characters"]

#: Inputs, targets, and the group of each example (or ``None``).
Raw: TypeAlias = "tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64] | None]"

#: Characters that the next one is guessed from.
CONTEXT: Final = 8
_VOCABULARY: Final = 48
_STRIDE: Final = 11  # every eleventh place: neighbouring windows say nearly the same
_BANKS: Final = 8
_PER_BANK: Final = 1000


def fraud(seeds: SeedTree) -> Raw:
    """8 banks with 1000 transactions each; columns, before scaling:

    log amount · hour of day as sine and cosine · customer's age and years with the bank · log mean amount before ·
    distance from home · transactions in the last hour · new device · foreign merchant · risk of the merchant's trade ·
    share of declined payments. Group: the bank.

    A bank has customers of its own (age, habits, prices) and its own mixture of three frauds: a stolen card (far away,
    many quick payments), a taken-over account (new device, at night, unusual sums), small test payments to risky
    merchants. Between 2 and 8 in a hundred are frauds.
    """
    blocks, labels, banks = [], [], []
    for bank in range(_BANKS):
        rng = seeds.child("bank", bank).numpy()
        n = _PER_BANK
        wealth, rural, young = rng.normal(0, 0.5), rng.normal(0, 0.4), rng.normal(0, 6)
        usual = 3.5 + wealth + 0.5 * rng.standard_normal(n)
        amount = usual + 0.7 * rng.standard_normal(n)
        hour = rng.normal(14, 4.5, n) % 24
        age = np.clip(45 + young + 14 * rng.standard_normal(n), 18, 95)
        years = np.minimum(rng.exponential(6, n), age - 17)
        distance = np.log1p(rng.exponential(np.exp(1.5 + rural), n))
        velocity = rng.poisson(0.6, n).astype(np.float64)
        device = (rng.random(n) < 0.05).astype(np.float64)
        foreign = (rng.random(n) < 0.07).astype(np.float64)
        risk = rng.beta(2, 6, n)
        declined = rng.beta(1, 12, n)
        rate = rng.uniform(0.02, 0.08)
        kind = np.where(rng.random(n) < rate, rng.choice(3, n, p=rng.dirichlet((1.0, 1.0, 1.0))), -1)
        stolen, taken, tested = (kind == k for k in range(3))
        distance[stolen] += rng.gamma(3, 0.8, stolen.sum())
        velocity[stolen] += rng.poisson(3, stolen.sum())
        foreign[stolen] = rng.random(stolen.sum()) < 0.5
        device[taken] = rng.random(taken.sum()) < 0.8
        hour[taken] = rng.normal(3, 2, taken.sum()) % 24
        amount[taken] += rng.gamma(2, 0.8, taken.sum())
        amount[tested] = rng.normal(0.7, 0.5, tested.sum())
        risk[tested] = rng.beta(5, 3, tested.sum())
        declined[tested] = rng.beta(4, 6, tested.sum())
        turn = 2 * np.pi * hour / 24
        who = (amount, np.sin(turn), np.cos(turn), age, years, usual)
        blocks.append(np.column_stack([*who, distance, velocity, device, foreign, risk, declined]))
        labels.append((kind >= 0).astype(np.int64))
        banks.append(np.full(n, bank, dtype=np.int64))
    return np.concatenate(blocks), np.concatenate(labels), np.concatenate(banks)


def next_characters(seeds: SeedTree) -> Raw:
    """Windows of 8 characters and the one that follows, from the documents of ``pydoc_data.topics``.

    Lower case; the 48 most frequent characters, everything else is one more. Group: the document. The text is the
    documentation of the running Python, so other versions give other data. ``seeds`` is not used: nothing is drawn.
    """
    from pydoc_data.topics import topics

    documents = [topics[name].lower() for name in sorted(topics)]
    frequent = Counter("".join(documents)).most_common(_VOCABULARY)
    number = {character: at for at, (character, _) in enumerate(sorted(frequent, key=lambda pair: (-pair[1], pair[0])))}
    inputs, targets, groups = [], [], []
    for at, text in enumerate(documents):
        codes = np.array([number.get(character, _VOCABULARY) for character in text], dtype=np.int64)
        if len(codes) <= CONTEXT:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1)[::_STRIDE]
        inputs.append(windows[:, :CONTEXT].astype(np.float64))
        targets.append(windows[:, CONTEXT])
        groups.append(np.full(len(windows), at, dtype=np.int64))
    return np.concatenate(inputs), np.concatenate(targets), np.concatenate(groups)
