"""``securefl pki``: what is typed leaves credentials that load, and refuses to overwrite."""

import pytest

from securefl.__main__ import main
from securefl.transport.tls import Credentials


def typed(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_init_and_issue(tmp_path):
    folder = str(tmp_path / "certs")
    assert typed("pki", "init", folder) == 0
    assert typed("pki", "issue", folder, "server-0", "helper", "--days", "7") == 0
    for name in ("server-0", "helper"):
        assert Credentials.in_folder(tmp_path / "certs", name).name == name
    assert "ConfigurationError" in typed("pki", "init", folder)
    assert "exists already" in typed("pki", "issue", folder, "helper")
    assert "a party's name" in typed("pki", "issue", folder, "Not A Name")
