"""What a decryption share shows: flooding on every coefficient; and what the specification says it cannot hide."""

import numpy as np

from securefl.ckks.threshold import sampling, wide
from securefl.ckks.threshold.key import PartyKey
from securefl.ckks.threshold.params import ThresholdParams
from securefl.ckks.threshold.sampling import Purpose, stream_key

PARAMS = ThresholdParams((1, 2, 3), 10 * wide.DEGREE, 65535, 2, statistical_bits=60)
SEED, CONTEXT = b"s" * 32, b"c" * 32


def integers(limbs: wide.Limbs) -> list[int]:
    return [sum(int(x) << (wide.LIMB_BITS * at) for at, x in enumerate(column)) for column in limbs.T]


def opened(sums: list[wide.Limbs]) -> tuple[list[int], PartyKey]:
    key = PartyKey(SEED, CONTEXT)
    words = key.open_once(sums, PARAMS)
    return [int(low) | int(high) << 64 for low, high in words.T], key


def secret() -> np.ndarray:
    return sampling.ternary(stream_key(SEED, CONTEXT, Purpose.SECRET))


def test_every_coefficient_of_a_share_is_flooded_to_the_full_width() -> None:
    sums = [sampling.reference(bytes([at]) * 32) for at in range(PARAMS.ciphertexts)]
    share, _ = opened([part.astype(np.uint32) for part in sums])
    image = wide.ternary_image(secret())
    exact = [x for part in sums for x in integers(wide.carry(wide.product(wide.image(part), image)))]
    width = 1 << (PARAMS.flood_bits - wide.DROPPED_BITS)
    apart = [d - (x >> wide.DROPPED_BITS) for d, x in zip(share, exact, strict=False)]
    noise = [(e + (1 << 127)) % (1 << 128) - (1 << 127) for e in apart]
    assert len(noise) == PARAMS.coefficients > wide.DEGREE
    assert all(-width - 1 <= e <= width + 1 for e in noise)
    # Uniform: sixteen bins, chi-square with 15 degrees of freedom; 60 is exceeded with probability 2e-7.
    bins = np.bincount([min(15, max(0, (e + width) * 8 // width)) for e in noise], minlength=16)
    expected = len(noise) / 16
    assert ((bins - expected) ** 2 / expected).sum() < 60
    # And not the same in two ciphertexts, nor in neighbours.
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.05


def test_the_public_part_hides_the_secret_in_noise() -> None:
    key = PartyKey(SEED, CONTEXT)
    product = wide.carry(wide.product(key.reference, wide.ternary_image(secret())))
    half, q = 1 << (wide.MODULUS_BITS - 1), 1 << wide.MODULUS_BITS
    noise = [(b + p + half) % q - half for b, p in zip(integers(key.public), integers(product), strict=True)]
    assert max(map(abs, noise)) <= 21
    assert 2.9 < np.std(noise) < 3.6  # 3.24; 8,192 draws: a deviation of the deviation of 0.025


def test_the_limit_a_client_that_colludes_with_the_server_reads_the_others_keys() -> None:
    """SPEC §1, last row of the table: the reason for the assumption that clients follow the protocol.

    A sum of ciphertexts that somebody *chose* opens to the secret key of whoever helps to open it. The server alone
    cannot bring it about (the fingerprints), a client that sends c1 = chosen − the others' c1 can.
    """
    chosen = np.zeros((wide.LIMBS, wide.DEGREE), dtype=np.uint32)
    at = PARAMS.flood_bits + 2
    chosen[at // wide.LIMB_BITS, 0] = 1 << at % wide.LIMB_BITS
    share, _ = opened([chosen] * PARAMS.ciphertexts)
    step = 1 << (at - wide.DROPPED_BITS)
    read = [((d + step // 2) % (1 << 128) // step + 1) % (1 << (208 - at)) - 1 for d in share[: wide.DEGREE]]
    assert read == secret().tolist()


def test_nothing_of_a_key_prints() -> None:
    assert repr(PartyKey(SEED, CONTEXT)) == "<PartyKey>"
