"""Reference for protocols/secagg/SPEC.md §4: key derivation, streams, Shamir sharing, HPKE with both suites.

Everything is built from HMAC, SHA-2/3, AES, X25519 and ML-KEM of pycryptodome; shares no code with securefl/.
Every random byte is an argument, so that a test vector can give it.
"""

from __future__ import annotations

from Crypto.Cipher import AES
from Crypto.Hash import HMAC, SHA3_256, SHA256, SHAKE256, TupleHash256
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key, key_agreement
from Crypto.PublicKey import MLKEM

# ---- SPEC §4.1 derivation and hashing ------------------------------------------------------------------------------


def info_bytes(label: str, *fields: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in (label.encode(), *fields))


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    return HMAC.new(salt, secret, SHA256).digest()


def hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    out, block = b"", b""
    for i in range(1, -(-length // 32) + 1):
        block = HMAC.new(prk, block + info + bytes([i]), SHA256).digest()
        out += block
    return out[:length]


def derive(secret: bytes, label: str, *fields: bytes, length: int = 32) -> bytes:
    return hkdf_expand(hkdf_extract(bytes(32), secret), info_bytes(label, *fields), length)


def tuple_hash(label: str, *fields: bytes) -> bytes:
    return TupleHash256.new(digest_bytes=32, custom=label.encode()).update(*fields).digest()


# ---- SPEC §4.2 streams ---------------------------------------------------------------------------------------------


def stream(key: bytes, words: int) -> list[int]:
    """AES-128 of the counters 0, 1, 2 … as 16-byte big-endian blocks, read as little-endian 64-bit words."""
    counters = b"".join(block.to_bytes(16, "big") for block in range(-(-words // 2)))
    out = AES.new(key, AES.MODE_ECB).encrypt(counters)
    return [int.from_bytes(out[8 * i : 8 * i + 8], "little") for i in range(words)]


# ---- SPEC §4.3 Shamir sharing --------------------------------------------------------------------------------------

PRIME = 2**256 + 297


def split(secret: bytes, points: int, threshold: int, randomness: bytes) -> list[bytes]:
    """Shares for the points 1 … ``points``. ``randomness``: 48 bytes per coefficient, the highest power first."""
    drawn = [randomness[at : at + 48] for at in range(0, 48 * (threshold - 1), 48)]
    coefficients = [int.from_bytes(piece, "big") % PRIME for piece in drawn] + [int.from_bytes(secret, "big")]
    powers = range(threshold - 1, -1, -1)
    values = [sum(c * x**k for c, k in zip(coefficients, powers, strict=True)) % PRIME for x in range(1, points + 1)]
    return [value.to_bytes(33, "big") for value in values]


def interpolate(shares: dict[int, int], target: int = 0) -> int:
    """The value at ``target`` of the polynomial through ``{point: value}``."""
    total = 0
    for x, y in shares.items():
        for other in shares:
            if other != x:
                y = y * (target - other) * pow(x - other, -1, PRIME) % PRIME
        total += y
    return total % PRIME


# ---- SPEC §4.4 suites ----------------------------------------------------------------------------------------------

SUITES = {"x25519": (1, 32, 32, 0x0020), "mlkem768-x25519": (2, 1216, 1120, 0x647A)}
#                    code, public key bytes, encapsulation bytes, HPKE KEM id


def _x25519(private: bytes, public: bytes) -> bytes:
    """RFC 7748 §6.1. Raises ValueError when the shared secret is zero."""
    key, peer = import_x25519_private_key(private), import_x25519_public_key(public)
    return key_agreement(static_priv=key, static_pub=peer, kdf=bytes)


def _x25519_public(private: bytes) -> bytes:
    return import_x25519_private_key(private).public_key().export_key(format="raw")


def _expand(seed: bytes) -> tuple[MLKEM.MLKEMKey, bytes]:
    """X-Wing §5.2 expandDecapsulationKey: the ML-KEM-768 key and the X25519 private key of a 32-byte seed."""
    expanded = SHAKE256.new(seed).read(96)
    return MLKEM.construct(param_set=MLKEM.ML_KEM_768, seed=expanded[:64]), expanded[64:]


def public_key(suite: str, seed: bytes) -> bytes:
    """The public key of a private key, which is its 32-byte seed."""
    if suite == "x25519":
        return _x25519_public(seed)
    mlkem, x_private = _expand(seed)
    return mlkem.ek + _x25519_public(x_private)


def _dhkem(dh: bytes, encapsulation: bytes, public: bytes) -> bytes:
    """RFC 9180 §4.1, ExtractAndExpand."""
    suite_id = b"KEM" + (0x0020).to_bytes(2, "big")
    prk = hkdf_extract(b"", b"HPKE-v1" + suite_id + b"eae_prk" + dh)
    info = (32).to_bytes(2, "big") + b"HPKE-v1" + suite_id + b"shared_secret" + encapsulation + public
    return hkdf_expand(prk, info, 32)


def _combine(m_secret: bytes, x_secret: bytes, x_encapsulation: bytes, x_public: bytes) -> bytes:
    """X-Wing §5.3, Combiner, with its six-byte label."""
    return SHA3_256.new(m_secret + x_secret + x_encapsulation + x_public + b"\\.//^\\").digest()


def encapsulate(suite: str, public: bytes, randomness: bytes) -> tuple[bytes, bytes]:
    """``(shared secret, encapsulation)``. ``randomness``: 32 bytes (X25519) or 64 (ML-KEM's message, then X25519's)."""
    if suite == "x25519":
        encapsulation = _x25519_public(randomness)
        return _dhkem(_x25519(randomness, public), encapsulation, public), encapsulation
    m_public, x_public = public[:1184], public[1184:]
    # pycryptodome offers ML-KEM through HPKE only; _encaps is FIPS 203 Algorithm 17, _decaps is Algorithm 18
    m_secret, m_encapsulation = MLKEM.construct(param_set=MLKEM.ML_KEM_768, ek=m_public)._encaps(randomness[:32])
    x_encapsulation = _x25519_public(randomness[32:])
    x_secret = _x25519(randomness[32:], x_public)
    return _combine(m_secret, x_secret, x_encapsulation, x_public), m_encapsulation + x_encapsulation


def decapsulate(suite: str, seed: bytes, encapsulation: bytes) -> bytes:
    if suite == "x25519":
        return _dhkem(_x25519(seed, encapsulation), encapsulation, _x25519_public(seed))
    mlkem, x_private = _expand(seed)
    m_encapsulation, x_encapsulation = encapsulation[:1088], encapsulation[1088:]
    m_secret, x_secret = mlkem._decaps(m_encapsulation), _x25519(x_private, x_encapsulation)
    return _combine(m_secret, x_secret, x_encapsulation, _x25519_public(x_private))


# ---- SPEC §4.5 HPKE, RFC 9180 base mode, single shot ---------------------------------------------------------------


def _aead(suite: str, shared_secret: bytes, info: bytes) -> AES:
    """RFC 9180 §5.1 KeySchedule for HKDF-SHA256 (1) and AES-256-GCM (2); no associated data is used."""
    suite_id = b"HPKE" + b"".join(part.to_bytes(2, "big") for part in (SUITES[suite][3], 1, 2))
    labeled = b"HPKE-v1" + suite_id
    psk_id_hash, info_hash = (hkdf_extract(b"", labeled + part) for part in (b"psk_id_hash", b"info_hash" + info))
    context = b"\x00" + psk_id_hash + info_hash
    secret = hkdf_extract(shared_secret, labeled + b"secret")
    key = hkdf_expand(secret, (32).to_bytes(2, "big") + labeled + b"key" + context, 32)
    nonce = hkdf_expand(secret, (12).to_bytes(2, "big") + labeled + b"base_nonce" + context, 12)
    return AES.new(key, AES.MODE_GCM, nonce=nonce)


def seal(suite: str, public: bytes, plaintext: bytes, info: bytes, randomness: bytes) -> bytes:
    shared_secret, encapsulation = encapsulate(suite, public, randomness)
    ciphertext, tag = _aead(suite, shared_secret, info).encrypt_and_digest(plaintext)
    return encapsulation + ciphertext + tag


def unseal(suite: str, seed: bytes, sealed: bytes, info: bytes) -> bytes:
    """Raises ValueError when key, bytes or info are not those of the seal."""
    at = SUITES[suite][2]
    shared_secret = decapsulate(suite, seed, sealed[:at])
    return _aead(suite, shared_secret, info).decrypt_and_verify(sealed[at:-16], sealed[-16:])
