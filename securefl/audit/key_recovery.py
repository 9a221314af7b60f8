"""Key recovery from decrypted CKKS sums: on the usual TenSEAL path, and on ours. [Li, Micciancio 2021]

CKKS decryption returns message *plus noise*, m + e = c0 + c1·s: whoever has ciphertexts and their decryptions in full
precision has linear equations for the secret key s without another unknown. TenSEAL returns real parts only: of a
polynomial p they give p + p̄, with p̄(X) = p(1/X), an equation in s and s̄. Two ciphertexts give two, which are solved
point by point in the transformed ring.

What securefl releases are integers rounded to a public lattice, Δ'·m without e: the same equations have the noise as
further unknowns, and their solution is not ternary. This module tries and reports. That it fails proves nothing; the
argument stands in protocols/ckks-sum/SPEC.md §9.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from securefl.ckks import KEY_HOLDER, CKKSSum
from securefl.ckks.backend import Transform, require, saved_words
from securefl.ckks.messages import EncryptedSum
from securefl.ckks.residues import unpack_residues
from securefl.ckks.ring import Multiplier, Residues, add_into, centered, lift, scaled
from securefl.errors import LocalProtocolError
from securefl.machine import RoundContext, Send
from securefl.types import SERVER, IntegerVector, PartyId

__all__ = ["Attack", "attack_ours", "attack_usual"]

_DEGREE: Final = 8192
_BITS: Final = (60, 40, 40)
_SCALE_BITS: Final = 40


@dataclass(frozen=True, slots=True)
class Attack:
    """``recovered``: whether the solution is the secret key. ``ternary``: which part of its coefficients is −1, 0 or 1.

    ``seconds``: solving alone. ``error``: largest error when the solution decrypts another client's fresh update;
    ``None`` where there is no key to try.
    """

    path: str
    ciphertexts: int
    seconds: float
    recovered: bool
    ternary: float
    error: float | None = None


def attack_usual(clients: int = 10, *, seed: int = 0) -> Attack:
    """Solve for the key of one ``ts.ckks_vector`` per client under one symmetric key, summed and decrypted.

    Uses what a server sees that is told the result: two ciphertexts of the sum and their float64 decryptions.
    Raises :class:`~securefl.errors.MissingExtraError` without TenSEAL.
    """
    require()
    import tenseal as ts

    rng = np.random.default_rng(seed)
    usual = ts.context(
        ts.SCHEME_TYPE.CKKS, _DEGREE, coeff_mod_bit_sizes=list(_BITS), encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC
    )
    usual.global_scale = 2.0**_SCALE_BITS
    halves: list[tuple[Any, list[float]]] = []
    for _ in range(2):  # one vector per ciphertext: TenSEAL warns of longer ones
        updates = rng.normal(0, 0.05, (clients, _DEGREE // 2))
        total = ts.ckks_vector(usual, updates[0])
        for update in updates[1:]:
            total += ts.ckks_vector(usual, update)
        halves.append((total, total.decrypt()))
    fresh = rng.normal(0, 0.05, _DEGREE // 2)
    target = ts.ckks_vector(usual, fresh)

    start = perf_counter()
    seal = require()
    settings = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    settings.set_poly_modulus_degree(_DEGREE)
    settings.set_coeff_modulus(seal.CoeffModulus.Create(_DEGREE, list(_BITS)))
    context = seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.TC128)
    large, prime = (modulus.value() for modulus in seal.CoeffModulus.Create(_DEGREE, list(_BITS))[:2])
    transform, encoder = Transform(_DEGREE, prime), seal.CKKSEncoder(context)
    equations = []
    for vector, decrypted in halves:
        c0, c1 = transform.backward(_ciphertext(vector)[:, 1])
        plain = seal.Plaintext()
        encoder.encode(decrypted, 2.0 ** (_SCALE_BITS + 1), plain)  # slots 2·Re: the polynomial p + p̄
        known = saved_words(plain, 2 * _DEGREE).reshape(2, _DEGREE)[1]
        a, b = transform.forward(np.stack((c1, _conjugate(c1, prime))))
        d, e = transform.forward(np.stack((c0, _conjugate(c0, prime))))
        equations.append((a, b, [(int(k) - int(x) - int(y)) % prime for k, x, y in zip(known, d, e, strict=True)]))
    (a1, b1, r1), (a2, b2, r2) = equations
    solved = [
        (p * int(y) - q * int(x)) * pow(int(u) * int(y) - int(v) * int(x), -1, prime) % prime
        for u, x, v, y, p, q in zip(a1, b1, a2, b2, r1, r2, strict=True)
    ]
    key = _polynomial(transform, solved, prime)
    seconds = perf_counter() - start
    ternary = float((np.abs(key) <= 1).mean())
    if ternary < 1:
        return Attack("ts.ckks_vector", 2, seconds, False, ternary)
    c0, c1 = Transform(_DEGREE, large).backward(_ciphertext(target)[:, 0])
    phase = c0.copy()
    add_into(phase, Multiplier(key.astype(np.int8)).times(c1, large), large)
    error = float(np.abs(_slots(centered(phase, large)) - fresh).max())
    return Attack("ts.ckks_vector", 2, seconds, True, ternary, error)


def attack_ours(clients: int = 10, *, rounding: bool = True, seed: int = 0) -> Attack:
    """The same against ``CKKSSum``: the aggregator's ciphertext and the integers that it is told.

    Coefficients are known one by one here, so one ciphertext gives an equation in s alone. ``rounding=False`` hands the
    attacker the noise as well, which no party is ever given: what would happen if it were.
    """
    ids = tuple(PartyId(i) for i in range(1, clients + 1))
    protection = CKKSSum()
    context = RoundContext(b"attack", 0, ids, 2 * protection.parameters.degree, 65534, 2, bytes(32))
    params = protection.params(context)
    body, result = _session(protection, context, np.random.default_rng(seed))
    prime, degree = params.parameters.primes[0], params.parameters.degree
    half = params.parameters.polynomial_bytes
    sums = EncryptedSum.decode(body, params)
    c0, c1 = (
        unpack_residues(sums.ciphertexts[at * half : (at + 1) * half], params.parameters.primes, degree)[0]
        for at in range(2)
    )
    key_of_session = protection.ring.key_for(params)

    start = perf_counter()
    if rounding:
        run = params.lattice.runs[0]
        points = params.lattice.encode(result, 0, degree) - (clients - 1) * (run.span // 2)
        known = scaled(points, params.multiplier, prime)
    else:
        known = c0.copy()
        add_into(known, key_of_session.multiplier.times(c1, prime), prime)
    transform = Transform(degree, prime)
    left = lift(known.view(np.int64) - c0.view(np.int64), prime)
    numerator, denominator = transform.forward(np.stack((left, c1)))
    solved = [int(n) * pow(int(d), -1, prime) % prime for n, d in zip(numerator, denominator, strict=True)]
    key = _polynomial(transform, solved, prime)
    seconds = perf_counter() - start
    recovered = bool((key == key_of_session.secret).all())
    name = "securefl" if rounding else "securefl, were the noise released"
    return Attack(name, 1, seconds, recovered, float((np.abs(key) <= 1).mean()))


def _session(protection: CKKSSum, context: RoundContext, rng: np.random.Generator) -> tuple[memoryview, IntegerVector]:
    """The body of the sum that the server sent, without its signature, and the integers that it got back."""
    server, holder = protection.server(context), protection.others(context)[KEY_HOLDER]
    server.start()
    notices = {event.to: bytes(event.frame) for event in holder.start() if isinstance(event, Send)}
    server.receive(notices[SERVER])
    for me in context.clients:
        client = protection.client(context, me)
        client.start()
        client.receive(notices[me])
        values = rng.integers(0, context.max_value + 1, context.dimension, dtype=np.uint64)
        for event in client.provide(values):
            if isinstance(event, Send):
                server.receive(event.frame)
    (sent,) = (event for event in server.close_round() if isinstance(event, Send))
    answers = [event for event in holder.receive(bytes(sent.frame)) if isinstance(event, Send)]
    for event in server.receive(answers[0].frame):
        result = getattr(event, "result", None)
        if result is not None:
            values = result.values
            return memoryview(sent.frame)[56:-80], values
    raise LocalProtocolError("the session of the attack gave no sum")


def _ciphertext(vector: Any) -> Residues:
    """uint64[2, 2, N], transformed: of a ``ckks_vector`` of one ciphertext."""
    (only,) = vector.ciphertext()
    return saved_words(only, 4 * _DEGREE).reshape(2, 2, _DEGREE)


def _conjugate(polynomial: Residues, prime: int) -> Residues:
    """p(1/X): coefficient k becomes minus coefficient N − k."""
    out = np.empty_like(polynomial)
    out[0] = polynomial[0]
    out[1:] = (np.uint64(prime) - polynomial[:0:-1]) % np.uint64(prime)
    return out


def _polynomial(transform: Transform, values: list[int], prime: int) -> NDArray[np.int64]:
    """Centred coefficients of the polynomial with these values."""
    row = np.array(values, dtype=np.uint64)
    return centered(transform.backward(np.stack((row, row)))[0], prime)


def _slots(coefficients: NDArray[np.int64]) -> NDArray[np.float64]:
    """Real parts of the slots: slot j is the value at exp(iπ/N) to the power 3^j."""
    degree = coefficients.size
    twist = np.exp(1j * np.pi / degree * np.arange(degree))
    values = np.fft.ifft(coefficients * twist) * degree
    powers = [pow(3, j, 2 * degree) // 2 for j in range(degree // 2)]
    return np.asarray(values[powers].real / 2.0**_SCALE_BITS)
