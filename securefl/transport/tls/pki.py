"""The certificates of a closed group of parties: one authority of its own, one certificate per party.

ECDSA on P-256 with SHA-256 [RFC 5758, RFC 5480]; extensions as RFC 5280 §4.2 and OpenSSL's strict verification want
them. Keys are files that only their owner can read; existing files are never overwritten.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from securefl.errors import ConfigurationError
from securefl.transport.tls.credentials import Credentials
from securefl.transport.tls.frames import check_name

__all__ = ["AUTHORITY_DAYS", "PARTY_DAYS", "init", "issue"]

AUTHORITY_DAYS: Final = 3650
PARTY_DAYS: Final = 90
#: Clocks of parties differ: a certificate is valid a little before it is made.
_BACKDATE: Final = timedelta(minutes=5)


def init(folder: Path, *, days: int = AUTHORITY_DAYS) -> Path:
    """Make an authority in ``folder``: ``ca.pem`` for everyone, ``ca.key`` (mode 0600) for whoever issues.

    Returns the certificate's path. Raises :class:`ConfigurationError` when there is one already.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"securefl authority {os.urandom(4).hex()}")])
    builder = _builder(subject, subject, key.public_key(), days=days, not_before=None)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make {folder}: {error.strerror}") from None
    _write_key(folder / "ca.key", key)
    return _write(folder / "ca.pem", builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


def issue(
    folder: Path, name: str, *, days: int = PARTY_DAYS, not_before: datetime | None = None, out: Path | None = None
) -> Credentials:
    """A certificate and key for party ``name``, from the authority in ``folder``.

    ``NAME.pem`` and ``NAME.key`` (mode 0600) are written to ``out`` (default: ``folder``). ``not_before``: default now.
    The key is made here: where parties do not trust whoever runs the authority with it, they must not use this.
    Raises :class:`ConfigurationError` for a name that cannot be, an authority that cannot be read, existing files.
    """
    check_name(name)
    if name == "ca":
        raise ConfigurationError("ca is the authority's own file name: give the party another name")
    try:
        root = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        root_key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} holds no authority ({error.strerror}): run securefl pki init first"
        ) from None
    except (ValueError, TypeError):
        raise ConfigurationError(f"ca.pem or ca.key in {folder} cannot be read") from None
    if not isinstance(root_key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{folder / 'ca.key'} is no key on an elliptic curve")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, root.subject, key.public_key(), days=days, not_before=not_before)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    # A party listens to some and connects to others.
    roles = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(roles, critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    target = folder if out is None else out
    _write_key(target / f"{name}.key", key)
    certificate = builder.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return Credentials(name, folder / "ca.pem", _write(target / f"{name}.pem", certificate), target / f"{name}.key")


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    *,
    days: int,
    not_before: datetime | None,
) -> x509.CertificateBuilder:
    if not 1 <= days <= 36500:
        raise ConfigurationError(f"a certificate is valid for 1 to 36500 days, not {days}")
    start = datetime.now(UTC) - _BACKDATE if not_before is None else not_before
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)


def _write(path: Path, data: bytes, *, mode: int = 0o644) -> Path:
    """Write a new file; the mode is set when it is made, so that a key is never readable by others."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(data)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already and is not overwritten") from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
    return path
