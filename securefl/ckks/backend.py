"""Microsoft SEAL by way of ``tenseal.sealapi``: keys, public-key encryption, and decryption to compare with.

The only module that imports TenSEAL, and only when something here is called. Polynomials go in and come out as arrays
of residues in coefficient form, ``uint64[…, primes, N]``; SEAL's own number-theoretic form stays inside.

SEAL reads and writes files only: here they are anonymous memory files without a name in any directory (a private
temporary file where the system has none). What is *read* is a header that SEAL itself wrote once, with residues that
were checked; no bytes of another party are ever parsed by native code. What SEAL *writes* is a Zstandard stream; it is
undone by the copy of libzstd inside the same extension module.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import weakref
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.params import ParameterSet
from securefl.ckks.ring import Residues, centered, lift
from securefl.errors import ConfigurationError, MissingExtraError

__all__ = ["Encryptor", "Engine", "KeyPair", "Transform", "engine", "require", "saved_words"]

_MAGIC: Final = 0xA15E
_SEAL_HEADER: Final = struct.Struct("<HBBBBHQ")  # magic, header size, version, version, compression, 0, size
_FORM_AT: Final = 32  # the byte after the parameters' hash says whether the polynomials are transformed
_ZSTD: Final = 2


@lru_cache(maxsize=1)
def require() -> ModuleType:
    """``tenseal.sealapi``. Raises :class:`MissingExtraError` where it is not installed."""
    try:
        from tenseal import sealapi
    except ImportError:
        raise MissingExtraError("the CKKS sum needs TenSEAL: install the extra, pip install 'securefl[ckks]'") from None
    found: ModuleType = sealapi
    return found


@lru_cache(maxsize=1)
def _decompress() -> Any:
    """ZSTD_decompress: of the extension module itself, else the system's."""
    import ctypes.util

    extension = sys.modules.get("_sealapi_cpp")
    candidates = [getattr(extension, "__file__", None), ctypes.util.find_library("zstd")]
    for name in candidates:
        function = getattr(ctypes.CDLL(name), "ZSTD_decompress", None) if name else None
        if function is not None:
            function.restype = ctypes.c_size_t
            function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
            return function
    raise MissingExtraError("neither this build of TenSEAL nor the system gives libzstd: install libzstd")


def _close(handle: int, name: str | None) -> None:
    os.close(handle)
    if name is not None:  # pragma: no cover - not on Linux
        os.unlink(name)


class _Scratch:
    """One file that SEAL can open by name, reused; anonymous memory where the system has it."""

    def __init__(self) -> None:
        self._name: str | None = None
        if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
            self._handle = os.memfd_create("securefl-ckks", os.MFD_CLOEXEC)
            self.path = f"/proc/self/fd/{self._handle}"
        else:  # pragma: no cover - not on Linux
            self._handle, self.path = tempfile.mkstemp(prefix="securefl-ckks-")  # mode 0600
            self._name = self.path
        weakref.finalize(self, _close, self._handle, self._name)
        self._buffer = bytearray(1 << 16)

    def write(self, data: NDArray[np.uint8]) -> None:
        os.ftruncate(self._handle, data.nbytes)
        os.pwrite(self._handle, data.data, 0)

    def read(self) -> memoryview:
        size = os.fstat(self._handle).st_size
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        if os.preadv(self._handle, [view], 0) != size:
            raise ConfigurationError("a scratch file of the CKKS backend could not be read back")
        return view

    def wipe(self) -> None:
        """Overwrite and empty it: after a secret key went through."""
        size = os.fstat(self._handle).st_size
        os.pwrite(self._handle, bytes(size), 0)
        os.ftruncate(self._handle, 0)
        self._buffer[:] = bytes(len(self._buffer))


def _saved(item: Any, scratch: _Scratch, limit: int) -> NDArray[np.uint8]:
    """The uncompressed bytes of a SEAL object behind its file header."""
    item.save(scratch.path)
    data = scratch.read()
    magic, header, _major, _minor, compression, _zero, size = _SEAL_HEADER.unpack(data[: _SEAL_HEADER.size])
    if (magic, header, size) != (_MAGIC, _SEAL_HEADER.size, data.nbytes):
        raise ConfigurationError("this build of TenSEAL writes another file format than the one known here")
    body = np.frombuffer(data, dtype=np.uint8, offset=_SEAL_HEADER.size)
    if compression != _ZSTD:
        return body.copy()
    out = np.empty(limit, dtype=np.uint8)
    count = _decompress()(out.ctypes.data, out.nbytes, body.ctypes.data, body.nbytes)
    if count > limit:
        raise ConfigurationError("a SEAL object could not be decompressed")
    return out[:count]


def saved_words(item: Any, count: int) -> NDArray[np.uint64]:
    """The last ``count`` words of what a SEAL object saves: of ciphertexts and plaintexts, their residues."""
    whole = _saved(item, _Scratch(), 8 * count + 4096)
    if whole.nbytes < 8 * count:
        raise ConfigurationError(f"a SEAL object has fewer than {count} words")
    return np.frombuffer(whole.tobytes()[-8 * count :], dtype="<u8")


class _Template:
    """The bytes around the residues of one kind of SEAL object, learned from SEAL, to load others by."""

    def __init__(self, example: Any, scratch: _Scratch, shape: tuple[int, ...]) -> None:
        words = int(np.prod(shape))
        whole = _saved(example, scratch, 8 * words + 4096)
        self._scratch, self._shape = scratch, shape
        self.at = whole.nbytes - 8 * words
        if not 0 < self.at < 4096:
            raise ConfigurationError("this build of TenSEAL writes another file format than the one known here")
        self._bytes = np.empty(_SEAL_HEADER.size + whole.nbytes, dtype=np.uint8)
        example.save(scratch.path)
        _magic, _size, major, minor, *_rest = _SEAL_HEADER.unpack(scratch.read()[: _SEAL_HEADER.size])
        header = _SEAL_HEADER.pack(_MAGIC, _SEAL_HEADER.size, major, minor, 0, 0, self._bytes.nbytes)
        self._bytes[: _SEAL_HEADER.size] = np.frombuffer(header, dtype=np.uint8)
        self._bytes[_SEAL_HEADER.size :] = whole
        self._words = self._bytes[_SEAL_HEADER.size + self.at :].reshape(*shape, 8)

    def load(self, target: Any, context: Any, residues: Residues, *, transformed: bool | None = None) -> None:
        """Make ``target`` the SEAL object with these residues, each below its prime."""
        self._words[...] = np.ascontiguousarray(residues).reshape(self._shape).view(np.uint8).reshape(*self._shape, 8)
        if transformed is not None:
            self._bytes[_SEAL_HEADER.size + _FORM_AT] = transformed
        self._scratch.write(self._bytes)
        target.load(context, self._scratch.path)

    def residues(self, source: Any) -> Residues:
        """The residues of a SEAL object of this kind: a fresh array."""
        whole = _saved(source, self._scratch, self._bytes.nbytes)
        if whole.nbytes != self._bytes.nbytes - _SEAL_HEADER.size:
            raise ConfigurationError("a SEAL object has another size than its kind")
        return np.frombuffer(whole.tobytes()[self.at :], dtype="<u8").reshape(self._shape)

    def wipe(self) -> None:
        """Forget the residues loaded last."""
        self._words[...] = 0
        self._scratch.wipe()


def _context(degree: int, primes: tuple[int, ...], *, checked: bool) -> Any:
    seal = require()
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(degree)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in primes])
    level = seal.SEC_LEVEL_TYPE.TC128 if checked else seal.SEC_LEVEL_TYPE.NONE
    context = seal.SEALContext(parameters, True, level)
    if not context.parameters_set():
        raise ConfigurationError(f"SEAL refuses the parameters: {context.parameters_error_message()}")
    return context


class Transform:
    """The number-theoretic transform of SEAL for one prime, both ways."""

    def __init__(self, degree: int, prime: int, scratch: _Scratch | None = None) -> None:
        seal, scratch = require(), scratch or _Scratch()
        # Only the ring matters here, nothing is encrypted: SEAL's check of the security level is for the real context.
        self._context = _context(degree, (prime,), checked=False)
        self._evaluator = seal.Evaluator(self._context)
        example = seal.Ciphertext(self._context)
        keys = seal.KeyGenerator(self._context)
        seal.Encryptor(self._context, keys.secret_key()).encrypt_zero_symmetric(example)
        self._template = _Template(example, scratch, (2, degree))
        self._target = example

    def forward(self, pair: Residues) -> Residues:
        """uint64[2, N] coefficients → values."""
        self._template.load(self._target, self._context, pair, transformed=False)
        self._evaluator.transform_to_ntt_inplace(self._target)
        return self._template.residues(self._target)

    def backward(self, pair: Residues) -> Residues:
        """uint64[2, N] values → coefficients."""
        self._template.load(self._target, self._context, pair, transformed=True)
        self._evaluator.transform_from_ntt_inplace(self._target)
        return self._template.residues(self._target)

    def wipe(self) -> None:
        self._template.wipe()


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """``secret``: int8[N], ternary. ``public``: uint64[2, primes and special primes, N], coefficient form.

    It never prints.
    """

    secret: NDArray[np.int8] = field(repr=False)
    public: Residues = field(repr=False)

    def __repr__(self) -> str:
        return "KeyPair(<redacted>)"


class Encryptor:
    """Fresh public-key encryptions of zero, by SEAL: its randomness, its noise."""

    def __init__(self, owner: Engine, key: Any) -> None:
        self._owner = owner
        self._seal = require().Encryptor(owner.context, key)

    def zero(self) -> Residues:
        """uint64[2, primes, N]: (c0, c1) with c0 + c1·s small, coefficient form."""
        return self._owner.fresh(self._seal)


class Engine:
    """SEAL for one parameter set. Use :func:`engine`, which keeps one per set; not for concurrent use.

    Raises :class:`MissingExtraError` without TenSEAL and :class:`ConfigurationError` when SEAL refuses the set or
    keeps its files otherwise than known here.
    """

    def __init__(self, parameters: ParameterSet) -> None:
        seal = require()
        _decompress()
        self.parameters = parameters
        self.moduli = parameters.primes + parameters.special
        self.context = _context(parameters.degree, self.moduli, checked=True)
        self._scratch = _Scratch()
        self._evaluator = seal.Evaluator(self.context)
        self._ciphertext = seal.Ciphertext(self.context)
        generator = seal.KeyGenerator(self.context)
        public = seal.PublicKey()
        generator.create_public_key(public)
        degree = parameters.degree
        seal.Encryptor(self.context, public).encrypt_zero(self._ciphertext)
        self._ciphertexts = _Template(self._ciphertext, self._scratch, (2, len(parameters.primes), degree))
        self._public_keys = _Template(public, self._scratch, (2, len(self.moduli), degree))
        self._secret_keys = _Template(generator.secret_key(), self._scratch, (len(self.moduli), degree))
        self._plaintext_words = (len(parameters.primes), degree)

    @cached_property
    def _transforms(self) -> tuple[Transform, ...]:
        return tuple(Transform(self.parameters.degree, prime, self._scratch) for prime in self.moduli)

    # ---- keys -------------------------------------------------------------------------------------------------

    def generate(self) -> KeyPair:
        """A fresh key pair, from SEAL's generator, which draws from the operating system."""
        seal = require()
        generator = seal.KeyGenerator(self.context)
        public = seal.PublicKey()
        generator.create_public_key(public)
        values = self._secret_keys.residues(generator.secret_key())
        secret = centered(self._transforms[0].backward(np.stack((values[0], values[0])))[0], self.moduli[0])
        if int(np.abs(secret).max()) > 1:
            raise ConfigurationError("SEAL's secret key is not ternary: this build is not the one known here")
        self._forget()
        return KeyPair(secret.astype(np.int8), self._coefficients(self._public_keys.residues(public)))

    def encryptor(self, public: Residues) -> Encryptor:
        """An encryptor under a public key in coefficient form. Residues must be below their primes (wire checks)."""
        key = require().PublicKey()
        values = np.stack([form.forward(public[:, at]) for at, form in enumerate(self._transforms)], axis=1)
        self._public_keys.load(key, self.context, values)
        return Encryptor(self, key)

    def _coefficients(self, values: Residues) -> Residues:
        return np.stack(
            [form.backward(values[:, at]) for at, form in enumerate(self._transforms[: values.shape[1]])], axis=1
        )

    def _forget(self) -> None:
        self._secret_keys.wipe()
        for form in self._transforms:
            form.wipe()

    # ---- ciphertexts ------------------------------------------------------------------------------------------

    def fresh(self, encryptor: Any) -> Residues:
        """An encryption of zero by a SEAL encryptor: uint64[2, primes, N], coefficient form."""
        encryptor.encrypt_zero(self._ciphertext)
        self._evaluator.transform_from_ntt_inplace(self._ciphertext)
        return self._ciphertexts.residues(self._ciphertext)

    def decrypt(self, secret: NDArray[np.int8], ciphertext: Residues) -> Residues:
        """c0 + c1·s by SEAL's decryptor: uint64[primes, N] from uint64[2, primes, N], both in coefficient form.

        Slow and independent of :class:`~securefl.ckks.ring.Multiplier`: what that is compared with.
        """
        seal = require()
        key = seal.SecretKey()
        ternary = secret.astype(np.int64)
        rows = [
            form.forward(np.stack((lift(ternary, q),) * 2))[0]
            for form, q in zip(self._transforms, self.moduli, strict=True)
        ]
        self._secret_keys.load(key, self.context, np.stack(rows))
        self._ciphertexts.load(self._ciphertext, self.context, ciphertext, transformed=False)
        self._evaluator.transform_to_ntt_inplace(self._ciphertext)
        plain = seal.Plaintext()
        seal.Decryptor(self.context, key).decrypt(self._ciphertext, plain)
        primes, degree = self._plaintext_words
        whole = _saved(plain, self._scratch, 8 * primes * degree + 4096)
        values = np.frombuffer(whole.tobytes()[-8 * primes * degree :], dtype="<u8").reshape(primes, degree)
        out = np.stack([self._transforms[at].backward(np.stack((values[at],) * 2))[0] for at in range(primes)])
        self._forget()
        return out


@lru_cache(maxsize=4)
def engine(parameters: ParameterSet) -> Engine:
    """The engine of a parameter set, made once."""
    return Engine(parameters)
