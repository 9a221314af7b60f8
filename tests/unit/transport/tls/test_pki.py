"""Certificates: what is in them, what is refused before anything is sent, files that only the owner reads."""

import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from securefl.errors import CertificateError, ConfigurationError
from securefl.transport.tls import Credentials, pki
from securefl.transport.tls.credentials import name_in


def read(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_another_verifier_accepts_the_certificates(parties):
    """The path validation of cryptography (Rust), as a client and as a server."""
    store = Store([read(parties / "ca.pem")])
    leaf = read(parties / "alice.pem")
    chain = PolicyBuilder().store(store).build_server_verifier(x509.DNSName("alice")).verify(leaf, [])
    assert chain[0] == leaf
    names = PolicyBuilder().store(store).build_client_verifier().verify(leaf, []).subjects
    assert [name.value for name in names] == ["alice"]


def test_a_certificate_has_one_name_and_may_do_nothing_but_authenticate(parties):
    extensions = read(parties / "alice.pem").extensions
    assert extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == [
        "alice"
    ]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    authority = read(parties / "ca.pem").extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (authority.ca, authority.path_length) == (True, 0)
    assert isinstance(read(parties / "alice.pem").public_key().curve, ec.SECP256R1)


def test_keys_are_for_their_owner_alone_and_nothing_is_overwritten(parties):
    for name in ("ca", "alice"):
        assert stat.S_IMODE((parties / f"{name}.key").stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="exists already"):
        pki.issue(parties, "alice")
    with pytest.raises(ConfigurationError, match="exists already"):
        pki.init(parties)


def test_credentials_load_and_do_not_print_the_key(parties):
    credentials = Credentials.in_folder(parties, "alice")
    assert credentials.name == "alice"
    assert "alice.key" not in repr(credentials)


@pytest.mark.parametrize(("name", "words"), [("late", "not now"), ("early", "not now")])
def test_dates_are_checked(parties, name, words):
    with pytest.raises(CertificateError, match=words):
        Credentials.in_folder(parties, name)


def test_files_that_do_not_belong_together(parties, foreign):
    def load(authority, certificate, key, **more):
        return Credentials.load(authority, certificate, key, **more)

    with pytest.raises(CertificateError, match="was not issued by"):
        load(parties / "ca.pem", foreign / "bob.pem", foreign / "bob.key")
    with pytest.raises(ConfigurationError, match="is not the key of"):
        load(parties / "ca.pem", parties / "bob.pem", foreign / "bob.key")
    with pytest.raises(CertificateError, match="the certificate of 'bob', not of 'alice'"):
        load(parties / "ca.pem", parties / "bob.pem", parties / "bob.key", name="alice")
    with pytest.raises(ConfigurationError, match="cannot read"):
        load(parties / "ca.pem", parties / "nobody.pem", parties / "bob.key")
    with pytest.raises(ConfigurationError, match="no private key"):
        load(parties / "ca.pem", parties / "bob.pem", parties / "bob.pem")
    with pytest.raises(ConfigurationError, match="no certificate"):
        load(parties / "ca.pem", parties / "bob.key", parties / "bob.key")


@pytest.mark.parametrize("name", ["ca", "Alice", "a.b", ""])
def test_names_that_cannot_be(parties, name):
    with pytest.raises(ConfigurationError):
        pki.issue(parties, name)


def test_issue_needs_an_authority_and_sensible_days(parties, tmp_path):
    with pytest.raises(ConfigurationError, match="securefl pki init"):
        pki.issue(tmp_path, "alice")
    with pytest.raises(ConfigurationError, match="1 to 36500 days"):
        pki.issue(parties, "dave", days=0)
    assert not (parties / "dave.key").exists()


@pytest.mark.parametrize(
    "entries", [(), [("DNS", "a"), ("DNS", "b")], [("URI", "a")], [("DNS", "*.a")], [("DNS", "A")], None]
)
def test_a_certificate_with_other_names_is_no_partys(entries):
    with pytest.raises(CertificateError):
        name_in(entries)
    assert name_in([("DNS", "a")]) == "a"
