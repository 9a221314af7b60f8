"""A linear layer on ciphertexts: z = W a + b forward, Wᵀ dz backward, in exact integers.

Legend: B examples, F features, O outputs, N degree, S = stride, the power of two >= max(B, 32), n = N / S blocks.

Coefficient j·S + b of a polynomial belongs to block j and example b. Forward, a polynomial holds g features, and an
answer k = ⌊n / g⌋ outputs; backward, an answer holds g' features and a polynomial h = ⌊n / g'⌋ outputs' gradients:

    forward    a(X) has feature f in block f,       w(X) = Σ_t Σ_f W[o_t, f] X^((t g − f) S):   W a of o_t in block t g
    backward   dz(X) has output c_t in block t g',  w(X) = Σ_t Σ_f W[c_t, f] X^((f − t g') S):  Wᵀ dz of f in block f

No other product reaches those blocks, since |f − f'| < g. So the server needs no rotation and no evaluation key: along
the blocks a product with w(X) is a negacyclic convolution, hence a product of integer matrices, done exactly in double
precision on limbs of 30 bits. g and g' are those with the fewest bytes on the wire.

The client encrypts symmetrically, c1 expanded from a seed. The server's answer is **re-randomised** so that it tells
the client no more about W than z itself: a fresh public-key encryption of zero makes c1 independent of W, uniform noise
drowns the products of W with the client's own noise (:attr:`LinearLayer.weight_distance`), and of c0 only the
coefficients that carry z are sent. Then all primes but the first are divided out.

Results are decoded by rounding to a lattice whose distance exceeds twice the worst-case noise: they are *equal* to the
integer product. An answer off the lattice (another key, a damaged ciphertext) raises. SPEC: protocols/split/SPEC.md §5.
"""

from __future__ import annotations

from securefl.ckks.linear.client import LinearClient
from securefl.ckks.linear.layer import LinearLayer
from securefl.ckks.linear.server import LinearServer

__all__ = ["LinearClient", "LinearLayer", "LinearServer"]
