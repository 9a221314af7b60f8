"""Who a party is towards the others: its certificate, its key, and the authority that all of them trust.

One name per certificate, a DNS entry of the subject alternative name; the common name is never looked at. TLS 1.3 only,
certificates on both sides, no tickets, one authority and not the system's. SPEC: protocols/transport/SPEC.md §2.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from securefl.errors import CertificateError, ConfigurationError
from securefl.transport.tls.frames import check_name

__all__ = ["Credentials", "name_in"]

_MAX_PEM_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files in PEM. ``certificate`` and ``key``: ``None`` shows none, which every listener of this package refuses.

    The constructor reads nothing; :meth:`load` checks what a peer would refuse.
    """

    name: str
    authority: Path
    certificate: Path | None
    key: Path | None = field(repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> Credentials:
        """The files that ``securefl pki`` leaves in ``folder``, checked as by :meth:`load`."""
        return cls.load(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key", name=name)

    @classmethod
    def load(cls, authority: Path, certificate: Path, key: Path, *, name: str | None = None) -> Credentials:
        """Credentials that peers of the same authority will accept now; ``name``: the one the certificate must have.

        Raises :class:`ConfigurationError` for files that cannot be read or do not belong together, and
        :class:`CertificateError` for a certificate of another authority, another name, or outside its dates.
        """
        root, leaf = _certificate(authority), _certificate(certificate)
        secret = _read(key)
        try:
            private = load_pem_private_key(secret, None)
        except (ValueError, TypeError):
            raise ConfigurationError(f"{key} holds no private key in PEM without a passphrase") from None
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if public != leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
            raise ConfigurationError(f"{key} is not the key of {certificate}")
        try:
            leaf.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            raise CertificateError(f"{certificate} was not issued by the authority in {authority}") from None
        now = datetime.now(UTC)
        for path, each in ((authority, root), (certificate, leaf)):
            if not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
                raise CertificateError(
                    f"{path} is valid from {each.not_valid_before_utc:%Y-%m-%d %H:%M} to "
                    f"{each.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and not now: issue another by securefl pki issue"
                )
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            raise CertificateError(f"{certificate} names no party: issue it by securefl pki issue") from None
        found = name_in([("DNS", entry) for entry in names.get_values_for_type(x509.DNSName)], len(names))
        if name is not None and found != name:
            raise CertificateError(f"{certificate} is the certificate of {found!r}, not of {name!r}")
        return cls(found, authority, certificate, key)

    def context(self, *, server: bool) -> ssl.SSLContext:
        """A TLS 1.3 context with mutual authentication. Raises :class:`ConfigurationError` for unusable files."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = not server  # a listener learns the name from the certificate
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.hostname_checks_common_name = False
        try:
            context.load_verify_locations(cafile=str(self.authority))
            if self.certificate is not None:
                context.load_cert_chain(str(self.certificate), None if self.key is None else str(self.key))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"the certificates of {self.name} cannot be used: {error}") from None
        if server:
            context.num_tickets = 0  # a session is never resumed: the certificate is looked at each time
        return context


def name_in(entries: object, count: int | None = None) -> str:
    """The one name of a subject alternative name as the ssl module gives it: exactly one entry, of type DNS.

    Raises :class:`CertificateError` for anything else.
    """
    listed = list(entries) if isinstance(entries, list | tuple) else []
    if len(listed) != 1 or listed[0][0] != "DNS" or count not in (None, 1):
        raise CertificateError(
            "a party's certificate has exactly one name, a DNS entry of its subject alternative name"
        )
    try:
        return check_name(listed[0][1])
    except ConfigurationError as error:
        raise CertificateError(f"the certificate's name is not a party's: {error}") from None


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _MAX_PEM_BYTES:
        raise ConfigurationError(f"{path} has {len(data)} bytes: that is no certificate or key")
    return data


def _certificate(path: Path) -> x509.Certificate:
    data = _read(path)
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise ConfigurationError(f"{path} holds no certificate in PEM") from None
