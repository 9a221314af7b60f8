"""Key pairs and HPKE seals: RFC 7748, RFC 9180 and X-Wing known answers; both suites against pycryptodome."""

import hashlib
import hmac

import pytest
from Crypto.Cipher import AES
from Crypto.Protocol import DH, HPKE
from Crypto.PublicKey import ECC, MLKEM, Hybrid
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import AuthenticationError, DecodeError
from securefl.primitives.kem import SEED_BYTES, TAG_BYTES, PublicKey, Suite, key_pair, public_key, seal, unseal

SEED = bytes(range(100, 132))
seeds = st.binary(min_size=32, max_size=32)
both_suites = pytest.mark.parametrize("suite", Suite)
KEM_IDS = {Suite.X25519: 0x0020, Suite.MLKEM768_X25519: 0x647A}  # RFC 9180 §7.1; draft-ietf-hpke-pq


def other_private(suite: Suite, seed: bytes) -> ECC.EccKey | Hybrid.HybridKey:
    """The same key pair, made by pycryptodome."""
    if suite is Suite.X25519:
        return ECC.construct(curve="Curve25519", seed=seed)
    return Hybrid.generate(param_set=Hybrid.MLKEM768_X25519, randfunc=lambda length: seed[:length])


def other_seal(suite: Suite, seed: bytes, plaintext: bytes, info: bytes) -> bytes:
    to = other_private(suite, seed).public_key()
    context = HPKE.new(receiver_key=to, aead_id=HPKE.AEAD.AES256_GCM, info=info)
    return context.enc + context.seal(plaintext)


def other_unseal(suite: Suite, seed: bytes, sealed: bytes, info: bytes) -> bytes:
    at, key = suite.encapsulation_bytes, other_private(suite, seed)
    return HPKE.new(receiver_key=key, aead_id=HPKE.AEAD.AES256_GCM, enc=sealed[:at], info=info).unseal(sealed[at:])


def key_schedule(kem: int, aead: int, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """RFC 9180 §5.1, base mode with HKDF-SHA256, by hand: the AEAD's key and first nonce."""
    suite_id = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (kem, 1, aead))

    def extract(salt: bytes, label: bytes, secret: bytes) -> bytes:
        return hmac.new(salt or bytes(32), b"HPKE-v1" + suite_id + label + secret, hashlib.sha256).digest()

    def expand(prk: bytes, label: bytes, data: bytes, length: int) -> bytes:
        labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + data
        return hmac.new(prk, labeled + b"\1", hashlib.sha256).digest()[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return expand(secret, b"key", context, 16 if aead == 1 else 32), expand(secret, b"base_nonce", context, 12)


# ---- X25519 -------------------------------------------------------------------------------------------------

# RFC 7748 §5.2: scalar, u-coordinate, output. The second u has its top bit set, which is to be ignored.
RFC_7748_SECTION_5_2 = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]
# RFC 7748 §6.1: private and public keys of Alice and Bob, and their shared secret
ALICE = (
    "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
)
BOB = (
    "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
)
ALICE_AND_BOB = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@pytest.mark.parametrize(("scalar", "point", "expected"), RFC_7748_SECTION_5_2)
def test_rfc_7748_section_5_2(scalar: str, point: str, expected: str) -> None:
    private, _ = key_pair(Suite.X25519, bytes.fromhex(scalar))
    public = public_key(Suite.X25519, bytes.fromhex(point))
    assert private.handle.exchange(public.handle).hex() == expected


def test_rfc_7748_section_5_2_a_thousand_iterations() -> None:
    scalar = point = (9).to_bytes(32, "little")
    for _ in range(1000):
        result = key_pair(Suite.X25519, scalar)[0].handle.exchange(public_key(Suite.X25519, point).handle)
        scalar, point = result, scalar
    assert scalar.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_rfc_7748_section_6_1() -> None:
    alice, bob = (key_pair(Suite.X25519, bytes.fromhex(private)) for private, _ in (ALICE, BOB))
    assert (alice[1].raw.hex(), bob[1].raw.hex()) == (ALICE[1], BOB[1])
    assert alice[0].handle.exchange(bob[1].handle).hex() == ALICE_AND_BOB
    assert bob[0].handle.exchange(alice[1].handle).hex() == ALICE_AND_BOB


# RFC 7748 §6.1 and https://cr.yp.to/ecdh.html#validate: points whose multiples give an all-zero secret, and the
# representatives of them that are not reduced modulo p = 2^255 - 19
ORDER_8 = [
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
]
LOW_ORDER = [
    *(bytes.fromhex(text) for text in ORDER_8),
    *(value.to_bytes(32, "little") for value in (0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18)),
]


@both_suites
@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[::-1].hex()[:8] + "…")
def test_a_low_order_point_is_refused_by_name(suite: Suite, point: bytes) -> None:
    """The shared secret would be known to everyone."""
    raw = key_pair(suite, SEED)[1].raw[:-32] + point
    with pytest.raises(DecodeError, match="no shared secret"):
        seal(public_key(suite, raw), b"plaintext", b"")


@both_suites
@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[::-1].hex()[:8] + "…")
def test_a_low_order_encapsulation_does_not_open(suite: Suite, point: bytes) -> None:
    private, public = key_pair(suite, SEED)
    sealed = seal(public, b"plaintext", b"")
    at = suite.encapsulation_bytes
    with pytest.raises(AuthenticationError):
        unseal(private, sealed[: at - 32] + point + sealed[at:], b"")


# ---- HPKE ---------------------------------------------------------------------------------------------------

# RFC 9180, A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode, sequence number 0
RFC_9180_A_1_1 = {
    "info": "4f6465206f6e2061204772656369616e2055726e",
    "pkRm": "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
    "skRm": "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
    "enc": "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
    "shared_secret": "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc",
    "key": "4531685d41d65f03dc48f6b8302c05b0",
    "base_nonce": "56d890e5accaaf011cff4b7d",
    "pt": "4265617574792069732074727574682c20747275746820626561757479",
    "aad": "436f756e742d30",
    "ct": "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
}


def test_rfc_9180_vector_opens_with_the_second_implementation() -> None:
    """The RFC has none for AES-256-GCM: this one vouches for the implementation that the seals are held against."""
    vector = {name: bytes.fromhex(value) for name, value in RFC_9180_A_1_1.items()}
    receiver = ECC.construct(curve="Curve25519", seed=vector["skRm"])
    context = HPKE.new(receiver_key=receiver, aead_id=HPKE.AEAD.AES128_GCM, enc=vector["enc"], info=vector["info"])
    assert context.unseal(vector["ct"], auth_data=vector["aad"]) == vector["pt"]


def test_rfc_9180_key_pair_and_key_schedule() -> None:
    vector = {name: bytes.fromhex(value) for name, value in RFC_9180_A_1_1.items()}
    assert key_pair(Suite.X25519, vector["skRm"])[1].raw == vector["pkRm"]
    derived = key_schedule(0x0020, 1, vector["shared_secret"], vector["info"])
    assert derived == (vector["key"], vector["base_nonce"])


@both_suites
@settings(max_examples=25, deadline=None)
@given(seed=seeds, plaintext=st.binary(max_size=100), info=st.binary(max_size=60))
def test_seals_are_exchanged_with_pycryptodome(suite: Suite, seed: bytes, plaintext: bytes, info: bytes) -> None:
    private, public = key_pair(suite, seed)
    assert unseal(private, other_seal(suite, seed, plaintext, info), info) == plaintext
    assert other_unseal(suite, seed, seal(public, plaintext, info), info) == plaintext


@both_suites
@pytest.mark.parametrize("length", [0, 1, 32, 66, 1000])
def test_a_seal_has_the_length_announced(suite: Suite, length: int) -> None:
    sealed = seal(key_pair(suite, SEED)[1], bytes(length), b"info")
    assert len(sealed) == suite.sealed_bytes(length) == suite.encapsulation_bytes + length + TAG_BYTES


@both_suites
def test_a_seal_opens_from_a_view(suite: Suite) -> None:
    private, public = key_pair(suite, SEED)
    assert unseal(private, memoryview(b"--" + seal(public, b"text", b"i"))[2:], b"i") == b"text"


@both_suites
def test_wrong_key_wrong_info_and_short_seals_do_not_open(suite: Suite) -> None:
    private, public = key_pair(suite, SEED)
    stranger, _ = key_pair(suite, SEED[::-1])
    sealed = seal(public, b"plaintext", b"info")
    assert unseal(private, sealed, b"info") == b"plaintext"
    refused = [
        (stranger, sealed, b"info"),
        (private, sealed, b"inf"),
        (private, sealed, b""),
        (private, sealed[:-1], b"info"),
        (private, sealed + b"\0", b"info"),
        (private, sealed[: suite.encapsulation_bytes], b"info"),
        (private, sealed[1:], b"info"),
        (private, b"", b"info"),
    ]
    for key, data, info in refused:
        with pytest.raises(AuthenticationError):
            unseal(key, data, info)


@pytest.mark.parametrize(
    ("suite", "bits"),
    [(Suite.X25519, range(8 * (32 + 9 + 16))), (Suite.MLKEM768_X25519, range(0, 8 * (1120 + 9 + 16), 61))],
    ids=lambda value: getattr(value, "label", None),
)
def test_no_flipped_bit_opens(suite: Suite, bits: range) -> None:
    """Of X25519 even the bit that the curve ignores: the encapsulation enters the key derivation as it is."""
    private, public = key_pair(suite, SEED)
    sealed = bytearray(seal(public, b"plaintext", b"info"))
    assert bits[-1] < 8 * len(sealed)
    for bit in bits:
        sealed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AuthenticationError):
            unseal(private, bytes(sealed), b"info")
        sealed[bit // 8] ^= 1 << bit % 8
    assert unseal(private, bytes(sealed), b"info") == b"plaintext"


def test_a_seal_of_one_suite_does_not_open_in_the_other() -> None:
    sealed = seal(key_pair(Suite.X25519, SEED)[1], b"plaintext", b"")
    with pytest.raises(AuthenticationError):
        unseal(key_pair(Suite.MLKEM768_X25519, SEED)[0], sealed, b"")


# ---- the hybrid ---------------------------------------------------------------------------------------------

# draft-connolly-cfrg-xwing-kem, spec/test-vectors.json at 9b6ce9e (also appendix C of -08): seed (= sk), eseed, ss, and
# SHA-256 of the public key and of the ciphertext, which are 1216 and 1120 bytes long
X_WING = [
    (
        "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26",
        "d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384",
        "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb",
    ),
    (
        "badfd6dfaac359a5efbb7bcc4b59d538df9a04302e10c8bc1cbf1a0b3a5120ea",
        "f2e86241c64d60f6649fbc6c5b7d17180b780a3f34355e64a85749949c45f150",
        "c42ba5f8430d7d2c83739338203819f090e8303ce9c8b02107c272bfa5376916",
    ),
    (
        "ef58538b8d23f87732ea63b02b4fa0f4873360e2841928cd60dd4cee8cc0d4c9",
        "953f7f4e8c5b5049bdc771d1dffada0dd961477d1a2ae0988baa7ea6898d893f",
        "6b080d6b84f095342092fa7a22423e58bd681397ad0ef00eac92bd254db4fa95",
    ),
]
# the ciphertext of the first vector
X_WING_CIPHERTEXT = bytes.fromhex(
    "b83aa828d4d62b9a83ceffe1d3d3bb1ef31264643c070c5798927e41fb07914a273f8f96e7826cd5375a283d7da885304c5de0516a0f"
    "0654243dc5b97f8bfeb831f68251219aabdd723bc6512041acbaef8af44265524942b902e68ffd23221cda70b1b55d776a92d1143ea3"
    "a0c475f63ee6890157c7116dae3f62bf72f60acd2bb8cc31ce2ba0de364f52b8ed38c79d719715963a5dd3842d8e8b43ab704e4759b5"
    "327bf027c63c8fa857c4908d5a8a7b88ac7f2be394d93c3706ddd4e698cc6ce370101f4d0213254238b4a2e8821b6e414a1cf20f6c12"
    "44b699046f5a01caa0a1a55516300b40d2048c77cc73afba79afeea9d2c0118bdf2adb8870dc328c5516cc45b1a2058141039e2c90a1"
    "10a9e16b318dfb53bd49a126d6b73f215787517b8917cc01cabd107d06859854ee8b4f9861c226d3764c87339ab16c3667d2f49384e5"
    "5456dd40414b70a6af841585f4c90c68725d57704ee8ee7ce6e2f9be582dbee985e038ffc346ebfb4e22158b6c84374a9ab4a44e1f91"
    "de5aac5197f89bc5e5442f51f9a5937b102ba3beaebf6e1c58380a4a5fedce4a4e5026f88f528f59ffd2db41752b3a3d90efabe46389"
    "9b7d40870c530c8841e8712b733668ed033adbfafb2d49d37a44d4064e5863eb0af0a08d47b3cc888373bc05f7a33b841bc2587c57eb"
    "69554e8a3767b7506917b6b70498727f16eac1a36ec8d8cfaf751549f2277db277e8a55a9a5106b23a0206b4721fa9b3048552c5bd5b"
    "594d6e247f38c18c591aea7f56249c72ce7b117afcc3a8621582f9cf71787e183dee09367976e98409ad9217a497df888042384d7707"
    "a6b78f5f7fb8409e3b535175373461b776002d799cbad62860be70573ecbe13b246e0da7e93a52168e0fb6a9756b895ef7f0147a0dc8"
    "1bfa644b088a9228160c0f9acf1379a2941cd28c06ebc80e44e17aa2f8177010afd78a97ce0868d1629ebb294c5151812c583daeb886"
    "85220f4da9118112e07041fcc24d5564a99fdbde28869fe0722387d7a9a4d16e1cc8555917e09944aa5ebaaaec2cf62693afad42a3f5"
    "18fce67d273cc6c9fb5472b380e8573ec7de06a3ba2fd5f931d725b493026cb0acbd3fe62d00e4c790d965d7a03a3c0b4222ba8c2a9a"
    "16e2ac658f572ae0e746eafc4feba023576f08942278a041fb82a70a595d5bacbf297ce2029898a71e5c3b0d1c6228b485b1ade509b3"
    "5fbca7eca97b2132e7cb6bc465375146b7dceac969308ac0c2ac89e7863eb8943015b24314cafb9c7c0e85fe543d56658c213632599e"
    "fabfc1ec49dd8c88547bb2cc40c9d38cbd3099b4547840560531d0188cd1e9c23a0ebee0a03d5577d66b1d2bcb4baaf21cc7fef1e038"
    "06ca96299df0dfbc56e1b2b43e4fc20c37f834c4af62127e7dae86c3c25a2f696ac8b589dec71d595bfbe94b5ed4bc07d800b330796f"
    "da89edb77be0294136139354eb8cd37591578f9c600dd9be8ec6219fdd507adf3397ed4d68707b8d13b24ce4cd8fb22851bfe9d63240"
    "7f31ed6f7cb1600de56f17576740ce2a32fc5145030145cfb97e63e0e41d354274a079d3e6fb2e15"
)


@pytest.mark.parametrize(("seed", "_", "digest"), X_WING, ids=["1", "2", "3"])
def test_x_wing_public_key_of_a_seed(seed: str, _: str, digest: str) -> None:
    assert hashlib.sha256(key_pair(Suite.MLKEM768_X25519, bytes.fromhex(seed))[1].raw).hexdigest() == digest


def test_x_wing_ciphertext_opens_to_the_published_secret() -> None:
    """A seal built by hand around the draft's ciphertext and shared secret opens here: the KEM inside is X-Wing."""
    seed, shared = (bytes.fromhex(text) for text in X_WING[0][:2])
    key, nonce = key_schedule(KEM_IDS[Suite.MLKEM768_X25519], 2, shared, b"info")
    ciphertext, tag = AES.new(key, AES.MODE_GCM, nonce=nonce).encrypt_and_digest(b"plaintext")
    private, _ = key_pair(Suite.MLKEM768_X25519, seed)
    assert unseal(private, X_WING_CIPHERTEXT + ciphertext + tag, b"info") == b"plaintext"


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_hybrid_key_is_ml_kem_and_x25519_of_the_expanded_seed(seed: bytes) -> None:
    expanded = hashlib.shake_256(seed).digest(96)  # X-Wing §5.2
    ml_kem = MLKEM.construct(param_set=MLKEM.ML_KEM_768, seed=expanded[:64])
    x25519 = ECC.construct(curve="Curve25519", seed=expanded[64:]).public_key().export_key(format="raw")
    assert key_pair(Suite.MLKEM768_X25519, seed)[1].raw == ml_kem.ek + x25519


@pytest.mark.parametrize("coefficient", [0, 1, 255, 767])
@pytest.mark.parametrize("value", [3329, 3330, 4095])
def test_an_ml_kem_key_with_a_coefficient_of_q_or_more_is_refused(coefficient: int, value: int) -> None:
    """FIPS 203 §7.2, the modulus check: 12-bit coefficients must lie below q = 3329."""
    raw = bytearray(key_pair(Suite.MLKEM768_X25519, SEED)[1].raw)
    at, odd = divmod(12 * coefficient, 8)
    pair = int.from_bytes(raw[at : at + 2], "little")
    pair = pair & ~(0xFFF << odd) | value << odd
    raw[at : at + 2] = pair.to_bytes(2, "little")
    with pytest.raises(DecodeError, match="not a valid mlkem768-x25519 public key"):
        public_key(Suite.MLKEM768_X25519, bytes(raw))


def test_the_largest_coefficients_below_q_are_taken() -> None:
    raw = bytearray(key_pair(Suite.MLKEM768_X25519, SEED)[1].raw)
    raw[:3] = (3328 | 3328 << 12).to_bytes(3, "little")
    assert public_key(Suite.MLKEM768_X25519, bytes(raw)).raw == bytes(raw)


# ---- keys ---------------------------------------------------------------------------------------------------


@both_suites
def test_a_seed_determines_its_pair_and_every_bit_of_it_matters(suite: Suite) -> None:
    assert key_pair(suite, SEED)[1] == key_pair(suite, SEED)[1]
    seen = {key_pair(suite, SEED)[1].raw}
    # X25519 clamps five bits of its scalar (RFC 7748 §5): 0, 1, 2, 254 and 255. Seeds come from a KDF, so none is lost.
    clamped = {0, 1, 2, 254, 255} if suite is Suite.X25519 else set()
    for bit in range(256):
        changed = bytearray(SEED)
        changed[bit // 8] ^= 1 << bit % 8
        raw = key_pair(suite, bytes(changed))[1].raw
        assert (raw in seen) == (bit in clamped)
        seen.add(raw)


@both_suites
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(suite: Suite, length: int) -> None:
    assert SEED_BYTES == 32
    with pytest.raises(ValueError, match="32 bytes"):
        key_pair(suite, bytes(length))


@both_suites
def test_a_public_key_crosses_the_wire(suite: Suite) -> None:
    _, public = key_pair(suite, SEED)
    assert len(public.raw) == suite.public_bytes
    again = public_key(suite, public.raw)
    assert again == public
    assert hash(again) == hash(public)


@both_suites
@pytest.mark.parametrize("change", [-1, 1, None])
def test_a_public_key_of_another_length_is_refused(suite: Suite, change: int | None) -> None:
    length = 0 if change is None else suite.public_bytes + change
    with pytest.raises(DecodeError, match=f"has {suite.public_bytes} bytes, got {length}"):
        public_key(suite, bytes(length))


def test_suites_have_distinct_names_and_codes() -> None:
    assert [(suite.label, suite.code) for suite in Suite] == [("x25519", 1), ("mlkem768-x25519", 2)]


@both_suites
def test_private_keys_never_print(suite: Suite) -> None:
    private, public = key_pair(suite, SEED)
    expanded = hashlib.shake_256(SEED).digest(96)
    for text in (repr(private), str(private), f"{private}", repr((private, public)), repr({"key": private})):
        assert "<redacted>" in text
        for secret in (SEED, expanded[:32], expanded[32:64], expanded[64:]):
            assert secret.hex() not in text.lower()
            assert repr(secret)[2:-1] not in text


def test_a_public_key_prints_its_bytes_but_no_handle() -> None:
    _, public = key_pair(Suite.X25519, SEED)
    assert isinstance(public, PublicKey)
    assert "handle" not in repr(public)


def test_openssl_and_pycryptodome_agree_on_x25519() -> None:
    """The two second implementations are two: neither wraps the other."""
    ours = X25519PrivateKey.from_private_bytes(SEED).exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(BOB[1])))
    theirs = DH.key_agreement(
        static_priv=DH.import_x25519_private_key(SEED),
        static_pub=DH.import_x25519_public_key(bytes.fromhex(BOB[1])),
        kdf=lambda secret: secret,
    )
    assert ours == theirs
