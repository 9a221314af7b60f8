"""Split learning with parties over mutual TLS: a client's process, a run of several clients, a party that is lost."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from securefl.__main__ import main
from securefl.cli import output
from securefl.cli.demo_split import narrate
from securefl.cluster.remote import serve_party
from securefl.cluster.roster import Roster
from securefl.errors import SecureFLError
from securefl.transport.tls import pki

PARTIES = ("server-0", "server-1", "helper")
TOML = """
[data]
clients = 3
partition = "iid"
[model]
hidden = [16, 8]
[training]
rounds = 2
batch_size = 60
learning_rate = 0.1
[protection]
suite = "x25519"
[split]
protect = "shared"
after = "2"
until = "3"
"""


def _securefl(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    output.console.file = out
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(list(map(str, arguments)))
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            err.write(code)
            code = 1
    finally:
        output.console.file = None
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """The file of a cluster whose parties are threads of this process, over mutual TLS all the same."""
    pki.init(tmp_path / "certs")
    for name in (*PARTIES, "hospital"):
        pki.issue(tmp_path / "certs", name)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PARTIES]
    lines = ['clients = ["hospital"]', 'certificates = "certs"', "deadline = 30.0"]
    for name, each in zip(PARTIES, sockets, strict=True):
        lines += ["[[party]]", f'name = "{name}"', f'address = "127.0.0.1:{each.getsockname()[1]}"']
        each.close()
    path = tmp_path / "cluster.toml"
    path.write_text("\n".join(lines) + "\n")

    def serve(name: str) -> None:
        with contextlib.suppress(SecureFLError):
            serve_party(Roster.load(path), name, sessions=2)

    running = [threading.Thread(target=serve, args=(name,), daemon=True) for name in PARTIES]
    for thread in running:
        thread.start()
    yield path
    for thread in running:
        thread.join(60)
    assert not any(thread.is_alive() for thread in running), "parties end after their sessions"


def test_a_client_trains_with_parties_of_their_own(cluster: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(TOML)
    code, out, err = _securefl("split", "join", file, "--cluster", cluster)
    assert code == 0, err
    losses = [float(line.rsplit(" ", 1)[1]) for line in out.splitlines() if line.startswith("round")]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    accuracy = next(float(line.split()[-1]) for line in out.splitlines() if line.startswith("test accuracy"))
    assert accuracy > 0.2

    # several clients of one run, with the same parties, and the body revealed at the end
    file.write_text(TOML + f'cluster = "{cluster}"\nreveal = true\nleakage = false\n')
    code, out, err = _securefl("run", file, "--out", tmp_path / "out")
    assert code == 0, err
    assert f"parties of {cluster}" in " ".join(out.split())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["accuracy"] > 0.2
    assert len(report["model_hash"]) == 64
    with np.load(tmp_path / "out" / "body.npz", allow_pickle=False) as body:
        assert sorted(values.shape for values in body.values()) == [(8,), (8, 16)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "say where the body is"),
        (("--connect", "127.0.0.1:1", "--cluster", "c.toml"), "say where the body is"),
        (("--cluster", "nothing.toml"), "cannot read the cluster file"),
    ],
)
def test_joining_says_what_is_missing(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(TOML)
    code, _, err = _securefl("split", "join", file, *arguments)
    assert code == 1
    assert sentence in err


def test_no_one_server_serves_shares(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(TOML)
    code, _, err = _securefl("split", "serve", file)
    assert code == 1
    assert "no one server" in err


def test_the_demo_shows_what_goes_to_the_parties(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = narrate("shared", False, 1, None, quiet=False)
    text = capsys.readouterr().out
    assert "among the parties" in text
    assert "never opened" in text
    assert report["modes"]["plain"]["reconstruction"] > 0.7
    assert abs(report["modes"]["shared"]["reconstruction"]) < 0.1
    # as for ckks: 180 hidden examples, 0.517 ± 0.019 on pure noise
    assert report["modes"]["shared"]["label_auc"] < 0.65
