"""One authority and a few parties for all tests of this folder."""

from datetime import UTC, datetime, timedelta

import pytest

from securefl.transport.tls import pki


@pytest.fixture(scope="session")
def parties(tmp_path_factory):
    """A folder with credentials of alice, bob, carol, and of `late`, whose certificate has expired."""
    folder = tmp_path_factory.mktemp("pki")
    pki.init(folder)
    for name in ("alice", "bob", "carol"):
        pki.issue(folder, name)
    pki.issue(folder, "late", days=1, not_before=datetime.now(UTC) - timedelta(days=3))
    pki.issue(folder, "early", days=1, not_before=datetime.now(UTC) + timedelta(days=3))
    return folder


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    """Another authority's folder, with a certificate of the same name."""
    folder = tmp_path_factory.mktemp("foreign")
    pki.init(folder)
    pki.issue(folder, "bob")
    return folder
