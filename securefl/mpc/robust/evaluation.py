"""How many answers of a model are right, and nothing else about them. SPEC robust §5."""

from __future__ import annotations

import numpy as np

from securefl.errors import InvalidInputError
from securefl.mpc.gemm import Words
from securefl.mpc.operations import bilinear, negative, number, reveal
from securefl.mpc.shared import Shared
from securefl.mpc.tournament import maximum_along

__all__ = ["count_correct"]


def _row_products(a: Words, b: Words) -> Words:
    return np.asarray(np.einsum("nc,nc->n", a, b))


def count_correct(logits: Shared, labels: Shared, noise: int = 0) -> int | None:
    """At the servers: how many rows have their largest logit at their label; ``None`` at the helper.

    ``logits``: [n, classes]. ``labels``: [n, classes] of integers, one 1 per row. A tie with the label counts as
    right. ``noise``: an integer that this server adds before the count is opened. With two servers drawing noise that
    suffices alone, the count is private against each of them too.
    """
    if logits.shape != labels.shape or len(logits.shape) != 2 or labels.fraction:
        raise InvalidInputError("logits and one-hot labels are matrices [n, classes]; labels are integers")
    at_label = bilinear(logits, labels, _row_products)
    best = maximum_along(logits, 1)
    right = number(~negative(at_label - best.widen(at_label.fraction - best.fraction)))
    total = right.sum().reshape(1)
    if not logits.party.is_helper:  # whatever the noise is: what is sent must not depend on it
        total = Shared(total.party, total.shape, 0, total.words + np.array(noise, dtype=np.int64).view(np.uint64))
    words = reveal(total)
    return None if words is None else int(words.view(np.int64)[0])
