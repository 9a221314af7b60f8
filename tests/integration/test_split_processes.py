"""One client and the server as two processes over mutual TLS."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from securefl.errors import AuthenticationError, ConfigurationError, SecureFLError
from securefl.fl.config import load
from securefl.fl.models import model_hash, tensors_of
from securefl.split.remote import RemoteClient, Session
from securefl.transport.tls import Credentials, Listener, connect, pki
from securefl.types import PartyId

TOML = """
[data]
clients = 3
partition = "iid"
[model]
hidden = [8]
[training]
rounds = 1
batch_size = 250
learning_rate = 0.05
[split]
order = "sequential"
{mode}
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    pki.init(folder)
    for name in ("server", "client", "stranger"):
        pki.issue(folder, name)
    return folder


def _config(folder: Path, mode: str) -> Path:
    path = folder / "split.toml"
    path.write_text(TOML.format(mode=mode))
    return path


@pytest.mark.parametrize("mode", ['protect = "plain"', 'protect = "ckks"\nciphertexts = "compact"\nepsilon = 50.0'])
def test_two_processes_train(tmp_path: Path, certificates: Path, mode: str) -> None:
    if "ckks" in mode:
        pytest.importorskip("tenseal")
    path = _config(tmp_path, mode)
    arguments = ["split", "serve", str(path), "--credentials", str(certificates)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "securefl", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        found = re.search(r"listening on ([\d.]+):(\d+)", server.stdout.readline())
        assert found is not None, server.communicate()[1]
        session = Session.of(load(path), PartyId(1))
        address = found[1], int(found[2])
        mine = Credentials.in_folder(certificates, "client")
        link = connect(address, mine, "server", context=session.context.hash)
        remote = RemoteClient(session, link, tmp_path / "ledger.sqlite")
        ((number, loss, epsilon),) = remote.rounds()
        assert number == 1
        assert 0 < loss < 4
        assert (epsilon is not None) == ("ckks" in mode)
        if session.privacy is not None:
            row = session.privacy.ledger.verify()[-1]
            assert (row.kind, row.content) == ("released", model_hash(tensors_of(session.parts.front)).hex())
        assert 0.05 < remote.accuracy() <= 1
        assert link.sent_bytes > remote.learner.traffic.up > 0
        link.close()
        out, err = server.communicate(timeout=60)
        assert server.returncode == 0, err
        assert "2 batches served" in out


def test_another_configuration_and_a_stranger_do_not_get_in(tmp_path: Path, certificates: Path) -> None:
    session = Session.of(load(_config(tmp_path, 'protect = "plain"')), PartyId(1))
    other = Session.of(load(_config(tmp_path, 'protect = "plain"\nmomentum = 0.5')), PartyId(1))
    mine = Credentials.in_folder(certificates, "server")
    with Listener(("127.0.0.1", 0), mine, ["client"], context=session.context.hash) as listener:
        client = Credentials.in_folder(certificates, "client")
        with pytest.raises(SecureFLError):
            connect(listener.address, client, "server", context=other.context.hash)
        stranger = Credentials.in_folder(certificates, "stranger")
        with pytest.raises(AuthenticationError):
            connect(listener.address, stranger, "server", context=session.context.hash)


def test_what_two_processes_cannot_do(tmp_path: Path) -> None:
    summed = _config(tmp_path, 'protect = "plain"')
    with pytest.raises(ConfigurationError, match="no client 4"):
        Session.of(load(summed), PartyId(4))
    path = _config(tmp_path, "")
    path.write_text(path.read_text().replace('"sequential"', '"parallel"'))
    pytest.importorskip("tenseal")
    with pytest.raises(ConfigurationError, match="sequential"):
        Session.of(load(path), PartyId(1))
