"""Three `securefl party` processes with certificates of their own: an inference, refusals, and a killed party."""

import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from time import monotonic

import numpy as np
import pytest

from securefl import mpc
from securefl.cluster.remote import serve_party
from securefl.cluster.roster import Roster
from securefl.errors import (
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    LostPartyError,
    SecureFLError,
    TransportError,
)
from securefl.transport.tls import Credentials, connect, pki

PARTIES = ("server-0", "server-1", "helper")
DEADLINE = 20.0


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def cluster_file(folder, clients=("hospital",), **changes):
    lines = [f"clients = {list(clients)!r}".replace("'", '"'), 'certificates = "certs"', f"deadline = {DEADLINE}"]
    for name, port in zip(PARTIES, free_ports(3), strict=True):
        lines += ["", "[[party]]", f'name = "{name}"', f'address = "127.0.0.1:{port}"']
    path = folder / "cluster.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def cluster(tmp_path):
    """The file of a cluster whose three parties run; ``cluster.processes`` by name."""
    certificates = tmp_path / "certs"
    pki.init(certificates)
    for name in (*PARTIES, "hospital", "clinic"):
        pki.issue(certificates, name)
    made = Cluster(cluster_file(tmp_path, ("hospital", "clinic")), certificates)
    yield made
    made.end()


def for_ever(step):
    while True:
        step()


class Cluster:
    def __init__(self, path, certificates):
        self.path, self.certificates = path, certificates
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        self.processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", "securefl", "party", str(path), "--name", name],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name in PARTIES
        }

    def connect(self, name="hospital", wait=180.0):
        return mpc.connect(self.path, name=name, wait=wait)

    def kill(self, name, how=signal.SIGKILL):
        self.processes[name].send_signal(how)

    def end(self):
        for process in self.processes.values():
            process.kill()
            process.communicate()

    def said(self, name, within):
        """What a party printed until it ended by itself, and its exit code."""
        output, _ = self.processes[name].communicate(timeout=within)
        return output, self.processes[name].returncode


@pytest.fixture(params=["dealer", "replicated"])
def threads(tmp_path, request):
    """The file of a cluster whose parties are threads of this process, over mutual TLS all the same."""
    certificates = tmp_path / "certs"
    pki.init(certificates)
    for name in (*PARTIES, "hospital"):
        pki.issue(certificates, name)
    path = cluster_file(tmp_path)
    path.write_text(f'engine = "{request.param}"\n' + path.read_text())
    ended: dict[str, Exception] = {}

    def run(name):
        try:
            serve_party(Roster.load(path), name)
        except SecureFLError as error:
            ended[name] = error

    running = [threading.Thread(target=run, args=(name,), daemon=True) for name in PARTIES]
    for thread in running:
        thread.start()
    return path, running, ended


def test_clients_come_and_go_and_a_party_that_ends_ends_the_others(threads):
    path, running, ended = threads
    with mpc.connect(path, wait=20) as servers:
        x = servers.share(np.arange(3.0))
        assert (x * x).numpy().tolist() == [0, 1, 4]
        assert servers.engine == Roster.load(path).engine
    gone = mpc.connect(path, wait=20)
    gone._links.close()  # without a word: the parties part and join again
    servers = mpc.connect(path, wait=20)
    x = servers.share(np.ones(2))
    assert x.numpy().tolist() == [1, 1]
    with pytest.raises(SecureFLError):  # what no party takes: each of them ends
        for_ever(lambda: (servers._tell("drop", ids=["what"]), x.numpy()))
    for thread in running:
        thread.join(20)
    assert not any(thread.is_alive() for thread in running)
    assert set(ended) <= set(PARTIES)


@pytest.mark.slow
def test_an_inference_by_three_processes_with_their_own_certificates(cluster):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    x = torch.rand(8, 20)
    with cluster.connect() as servers:
        found = servers.share(net)(servers.share(x)).reveal()
        assert (found - net(x)).abs().max() < 2e-4
        cost = servers.cost()
        assert cost.rounds > 0
        assert all(link[1] != 2 for link, sent in cost.sent.items() if sent)  # nothing is sent to the helper
    with cluster.connect("clinic", wait=5) as servers:  # the next client
        assert servers.share(np.arange(3.0)).numpy().tolist() == [0, 1, 2]
    begin = monotonic()
    gone = cluster.connect(wait=5)  # a client that goes without a word ends its session only
    gone._links.close()
    with cluster.connect(wait=5) as servers:
        assert servers.share(np.ones(2)).numpy().tolist() == [1, 1]
    assert monotonic() - begin < 20


@pytest.mark.parametrize("victim", PARTIES)
@pytest.mark.slow
def test_kill_9_of_a_party_ends_the_others_with_a_named_error(cluster, victim):
    servers = cluster.connect()
    x = servers.share(np.ones(100_000))
    assert x.numpy().shape == (100_000,)
    threading.Timer(0.3, lambda: cluster.kill(victim)).start()
    begin = monotonic()
    with pytest.raises(LostPartyError, match=victim):  # while it works
        for_ever(x.numpy)
    assert monotonic() - begin < DEADLINE + 5
    for name in PARTIES:
        if name != victim:
            output, code = cluster.said(name, within=DEADLINE + 10)
            assert code == 1
            assert "error: LostPartyError: " in output
            assert victim in output.splitlines()[-1]


@pytest.mark.slow
def test_kill_9_while_nobody_asks(cluster):
    with cluster.connect():
        pass
    cluster.kill("helper")
    for name in ("server-0", "server-1"):
        output, code = cluster.said(name, within=DEADLINE + 10)
        last = output.splitlines()[-1]  # the first to notice tells the other
        assert code == 1
        assert "error: LostPartyError: " in last
        assert "lost helper" in last


@pytest.mark.slow
def test_a_party_that_hangs_is_named_within_the_deadline(cluster):
    servers = cluster.connect()
    x = servers.share(np.ones(10))
    cluster.kill("server-1", signal.SIGSTOP)
    begin = monotonic()
    with pytest.raises(LostPartyError):
        x.numpy()
    assert monotonic() - begin < 2 * DEADLINE + 5
    cluster.kill("server-1")


@pytest.mark.slow
def test_refused_clients_are_told_why(cluster, tmp_path):
    foreign = tmp_path / "foreign"
    pki.init(foreign)
    pki.issue(foreign, "hospital")
    pki.issue(cluster.certificates, "visitor")
    pki.issue(cluster.certificates, "late", days=1, not_before=datetime.now(UTC) - timedelta(days=2))
    with cluster.connect():
        pass  # all are up
    roster = Roster.load(cluster.path)
    authority = cluster.certificates / "ca.pem"
    address = roster.addresses["server-0"]
    for credentials, error in (
        (Credentials("hospital", authority, foreign / "hospital.pem", foreign / "hospital.key"), CertificateError),
        (Credentials("hospital", authority, None, None), CertificateError),
        (
            Credentials("late", authority, cluster.certificates / "late.pem", cluster.certificates / "late.key"),
            CertificateError,
        ),
        (Credentials.in_folder(cluster.certificates, "visitor"), AuthenticationError),
    ):
        begin = monotonic()
        with pytest.raises(error):
            connect(address, credentials, "server-0", context=roster.context)
        assert monotonic() - begin < 5
    with cluster.connect(wait=5) as servers:  # and the party goes on
        assert servers.share(np.ones(1)).numpy().tolist() == [1]


# ---- the file -------------------------------------------------------------------------------------------------

GOOD = """
clients = ["hospital"]
[[party]]
name = "server-0"
address = "127.0.0.1:1"
[[party]]
name = "server-1"
address = "127.0.0.1:2"
[[party]]
name = "helper"
address = "127.0.0.1:3"
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('clients = ["hospital"]', "", "clients is a list"),
        ('clients = ["hospital"]', "clients = []", "clients is a list"),
        ('clients = ["hospital"]', 'clients = ["helper"]', "a name of its own"),
        ('clients = ["hospital"]', 'clients = ["hospital"]\nport = 1', "unknown key 'port'"),
        ('clients = ["hospital"]', 'clients = ["hospital"]\ndeadline = 0', "deadline is a number"),
        ('clients = ["hospital"]', 'clients = ["hospital"]\ncertificates = 1', "certificates is a text"),
        ('clients = ["hospital"]', 'clients = ["hospital"]\nengine = "steam"', "engine is 'dealer' or 'replicated'"),
        ('name = "server-1"', 'name = "server-0"', "a name of its own"),
        ('name = "server-1"', 'name = "Server 1"', "a party's name"),
        ("127.0.0.1:2", "127.0.0.1", "host:port"),
        ('[[party]]\nname = "helper"\naddress = "127.0.0.1:3"', "", "two servers, then the helper"),
        ('address = "127.0.0.1:3"', "", "a name and an address"),
        ("[[party]]", "[[party", "not TOML"),
    ],
)
def test_a_cluster_file_that_cannot_be(tmp_path, old, new, words):
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=words):
        Roster.load(path)


def test_a_cluster_file(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD)
    roster = Roster.load(path)
    assert roster.names == PARTIES
    assert roster.certificates == tmp_path / "certificates"
    elsewhere = tmp_path / "other.toml"
    elsewhere.write_text(GOOD.replace("127.0.0.1:2", "example.org:7"))
    assert Roster.load(elsewhere).context == roster.context  # addresses may be written differently
    elsewhere.write_text(GOOD.replace("hospital", "clinic"))
    assert Roster.load(elsewhere).context != roster.context
    elsewhere.write_text('engine = "replicated"' + GOOD)
    assert Roster.load(elsewhere).context != roster.context
    with pytest.raises(ConfigurationError, match="cannot read"):
        Roster.load(tmp_path / "none.toml")
    with pytest.raises(ConfigurationError, match="not among the clients"):
        mpc.connect(path, name="clinic")


def test_nobody_is_there(tmp_path):
    path = cluster_file(tmp_path)
    pki.init(tmp_path / "certs")
    pki.issue(tmp_path / "certs", "hospital")
    with pytest.raises(TransportError, match="server-0"):
        mpc.connect(path)
