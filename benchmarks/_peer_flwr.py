"""Flower 1.42's SecAgg+ functions, called in the order its client mod and server workflow call them.

Only Flower's own functions do the work (extra ``bench``); what stands here is the glue between them. Where a step
repeats the same call many times, one call is timed and multiplied: the caller says so.
"""

from __future__ import annotations

import os
from time import perf_counter

import numpy as np
from flwr.common import ndarray_to_bytes
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    parameters_addition,
    parameters_mod,
    parameters_multiply,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_separate as separate
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from numpy.typing import NDArray

CLIP, TARGET, MODULUS = 8.0, 1 << 22, 1 << 32  # Flower's defaults


class Peer:
    """One client of ``clients``, with threshold ``threshold``, over a vector of ``dimension`` values."""

    def __init__(self, clients: int, threshold: int) -> None:
        self.clients, self.threshold = clients, threshold
        self.sk1, self.pk1 = generate_key_pairs()
        self.sk2, self.pk2 = generate_key_pairs()
        self.sk1_bytes, self.sk2_bytes = private_key_to_bytes(self.sk1), private_key_to_bytes(self.sk2)
        others = [generate_key_pairs() for _ in range(2)]  # two stand for all: the work does not depend on the key
        self.other_pk = [public_key_to_bytes(pair[1]) for pair in others]
        self.shared_key = generate_shared_key(self.sk2, bytes_to_public_key(self.other_pk[0]))
        share = share_keys_plaintext_concat(1, 2, bytes(52), bytes(324))
        self.ciphertext = encrypt(self.shared_key, share)

    def share_keys(self) -> float:
        """Seconds of stage 1: two Shamir splits, one agreement and one encryption per other client."""
        start = perf_counter()
        seed = os.urandom(32)
        seed_shares = create_shares(seed, self.threshold, self.clients)
        key_shares = create_shares(self.sk1_bytes, self.threshold, self.clients)
        for at in range(1, self.clients):
            key = generate_shared_key(bytes_to_private_key(self.sk2_bytes), bytes_to_public_key(self.other_pk[0]))
            encrypt(key, share_keys_plaintext_concat(0, at, seed_shares[at], key_shares[at]))
        return perf_counter() - start

    def masked_input(self, update: NDArray[np.float32], weight_ratio: float = 0.5) -> tuple[float, int]:
        """Seconds and bytes of stage 2: decrypt, quantize, mask, serialise."""
        start = perf_counter()
        for _ in range(1, self.clients):
            separate(decrypt(self.shared_key, self.ciphertext))
        q_ratio = round(weight_ratio * TARGET)
        vector = quantize(parameters_multiply([update], q_ratio / TARGET), CLIP, TARGET)
        vector = factor_combine(q_ratio, vector)
        shapes = [array.shape for array in vector]
        vector = parameters_addition(vector, pseudo_rand_gen(os.urandom(32), MODULUS, shapes))
        for at in range(1, self.clients):
            key = generate_shared_key(bytes_to_private_key(self.sk1_bytes), bytes_to_public_key(self.other_pk[1]))
            mask = pseudo_rand_gen(key, MODULUS, shapes)
            combine = parameters_addition if at % 2 else parameters_subtraction
            vector = combine(vector, mask)
        vector = parameters_mod(vector, MODULUS)
        payload = [ndarray_to_bytes(array) for array in vector]
        return perf_counter() - start, sum(map(len, payload))

    def server(self, dimension: int, dropped: int) -> dict[str, float]:
        """Seconds of the server with ``dropped`` clients gone: sums and masks timed once each and multiplied."""
        alive = self.clients - dropped
        vector = [np.random.default_rng(0).integers(0, MODULUS, dimension, dtype=np.int64)]
        total = vector
        start = perf_counter()
        for _ in range(3):
            total = parameters_addition(total, vector)
        add = (perf_counter() - start) / 3
        start = perf_counter()
        mask = pseudo_rand_gen(os.urandom(32), MODULUS, [(dimension,)])
        parameters_subtraction(total, mask)
        unmask = perf_counter() - start
        seconds = {"sum": add * (alive - 1)}
        shamir = 0.0
        for secret, count in ((os.urandom(32), alive), (self.sk1_bytes, dropped)):
            shares = create_shares(secret, self.threshold, self.clients)[:alive]
            start = perf_counter()
            if combine_shares(shares) != secret:
                raise AssertionError("Shamir")
            shamir += count * (perf_counter() - start)
        seconds["open seeds"] = shamir
        seconds["remove masks"] = unmask * (alive + dropped * alive)
        return seconds
